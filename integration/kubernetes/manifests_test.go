//go:build kubernetes

package kubernetes_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/stockade-dev/stockade/integration/checkout"
)

// What contrib/kubernetes has for a cluster, in a cluster: the API server takes all of it, the class sends pods to nodes
// that are ready only, and a namespace that requires the class gets no other pods.
func TestManifests(t *testing.T) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	all := filepath.Join(root, "contrib/kubernetes")
	kubectl(t, "delete", "runtimeclass", "stockade")
	t.Cleanup(func() {
		deleteManifests(t, all)
		kubectlAfter(t, "delete", "--ignore-not-found", "runtimeclass", "stockade")
		kubectlAfter(t, "apply", "-f", filepath.Join(all, "runtimeclass.yaml"))
	})
	kubectl(t, "apply", "-k", all)
	kubectl(t, "wait", "--for=condition=Established", "crd/profiles.stockade.dev")

	pod := newPod("class-waits", "runs", "sleep", "3600")
	pod.Spec.NodeName = ""
	pod = create(t, pod)
	awaitEvent(t, pod, "FailedScheduling", "0/1 nodes are available")
	kubectl(t, "label", "node", shared.NodeName, "stockade.dev/ready=true")
	t.Cleanup(func() { kubectlAfter(t, "label", "node", shared.NodeName, "stockade.dev/ready-") })
	awaitReady(t, pod)

	if err := shared.Namespace(t.Context(), "requires"); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "label", "namespace", "requires", "stockade.dev/require=true")
	eventually(t, "the API server refuses a pod without the class", func() bool {
		pod := plain(newPod("bare", "runs", "sleep", "3600"))
		pod.Namespace = "requires"
		_, err := shared.Client.CoreV1().Pods("requires").Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "pods there need spec.runtimeClassName: stockade")
	})
	pod = newPod("classy", "runs", "sleep", "3600")
	pod.Namespace = "requires"
	awaitReady(t, create(t, pod))
}

// kubectlAfter is for clean-up, when the test's own context has ended.
func kubectlAfter(t *testing.T, args ...string) {
	t.Helper()
	if out, err := shared.Kubectl(context.WithoutCancel(t.Context()), "", args...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// deleteManifests deletes what is in the folder, and does for the namespace what a cluster's controller manager would:
// without one it would be "being deleted" for ever, and nothing could be made in it again.
func deleteManifests(t *testing.T, folder string) {
	t.Helper()
	kubectlAfter(t, "delete", "-k", folder, "--wait=false")
	ctx := context.WithoutCancel(t.Context())
	ns, err := shared.Client.CoreV1().Namespaces().Get(ctx, "stockade-system", metav1.GetOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	ns.Spec.Finalizers = nil
	if _, err := shared.Client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
}
