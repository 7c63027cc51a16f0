//go:build kubernetes

package kubernetes_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/integration/checkout"
)

// A profile that is a resource of the cluster: applied, it holds on the node, and says so; changed, it reaches pods that
// run; without the API server and without the plugin it still holds for pods that start. The plugin has the rights that
// contrib/kubernetes gives it, and no others.
func TestProfileResource(t *testing.T) {
	const name = "resourced"
	applyManifests(t)
	p := startPlugin(t, "kubernetes: "+pluginKubeconfig(t)+"\nnodeName: "+shared.NodeName+"\n")
	applyProfile := func(sessions string) {
		t.Helper()
		out, err := shared.Kubectl(t.Context(), probeProfile(name, "{exec: [/bin/probe]}", sessions), "apply", "-f", "-")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	applyProfile("{}")
	t.Cleanup(func() { kubectlAfter(t, "delete", "--ignore-not-found", "profile", name) })
	eventually(t, "the status names the node", func() bool {
		return kubectl(t, "get", "profile", name, "-o", "jsonpath={.status.nodes[*].name}") == shared.NodeName
	})
	pod := awaitReady(t, create(t, newPod("resourced", name, "sleep", "3600")))
	session := func() string {
		out, _ := shared.Kubectl(t.Context(), "", "exec", pod.Name, "--", "/bin/hello")
		return out
	}
	if out := session(); !strings.Contains(out, "refused by stockade") {
		t.Fatalf("an undeclared session: %s", out)
	}
	applyProfile("{exec: [/bin/hello]}")
	eventually(t, "the session that is declared now works", func() bool { return strings.Contains(session(), "hello ran") })

	if err := shared.Kill("kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { apiServerAgain(t) })
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	staticPod(t, newPod("static-resourced", name, "sleep", "3600"))
	staticPod(t, newPod("static-resourced-deviates", name, "spawn", "/bin/hello"))
	eventually(t, "a static pod runs", func() bool { return strings.Contains(podLog(t, "static-resourced", name), "sleeping") })
	eventually(t, "a static pod that deviates is killed", func() bool { return killed(t, "static-resourced-deviates", "/bin/hello") })
	if out := podLog(t, "static-resourced-deviates", name); strings.Contains(out, "hello ran") {
		t.Errorf("it ran:\n%s", out)
	}
}

// applyManifests applies contrib/kubernetes until the test ends, with a class that does not wait for a label of the node.
func applyManifests(t *testing.T) {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	all := filepath.Join(root, "contrib/kubernetes")
	t.Cleanup(func() {
		deleteManifests(t, all)
		kubectlAfter(t, "apply", "-f", filepath.Join(all, "runtimeclass.yaml"))
	})
	kubectl(t, "delete", "runtimeclass", "stockade")
	kubectl(t, "apply", "-k", all)
	kubectl(t, "delete", "runtimeclass", "stockade")
	kubectl(t, "apply", "-f", filepath.Join(all, "runtimeclass.yaml"))
	kubectl(t, "wait", "--for=condition=Established", "crd/profiles.stockade.dev")
}

// pluginKubeconfig is a kubeconfig of the account that the DaemonSet's pods have, on this node.
func pluginKubeconfig(t *testing.T) string {
	t.Helper()
	token := strings.TrimSpace(kubectl(t, "create", "token", "stockade", "-n", "stockade-system", "--bound-object-kind", "Node",
		"--bound-object-name", shared.NodeName))
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, shared.REST.Host, shared.REST.CAFile, token)
	file := filepath.Join(shared.Node.Dir(), "plugin.kubeconfig")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
