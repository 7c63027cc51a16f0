//go:build kubernetes

package kubernetes_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/kubernetes/cluster"
	"github.com/stockade-dev/stockade/integration/node"
)

// site is a cluster without Stockade. The folder of its node is the root that the DaemonSet installs into.
type site struct {
	*cluster.Cluster
	conf node.Config
	root string // of the checkout
}

// newSite starts one, and makes it the cluster that this package's helpers use until the test ends.
func newSite(t *testing.T) *site {
	t.Helper()
	root, err := checkout.Root()
	must(t, err)
	c, err := cluster.StartBare(t.Context(), root, filepath.Join(root, ".work/ki"))
	must(t, err)
	s := &site{Cluster: c, root: root, conf: c.Config().Node}
	before := shared
	shared = s.Cluster
	t.Cleanup(func() {
		shared = before
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s.forgetHandler(t)
	must(t, importImages(t.Context(), root, "pause", "probe"))
	must(t, s.Node.ImportInto(t.Context(), "k8s.io", filepath.Join(root, "bin/stockade-image.tar")))
	go s.serveRestarts(t)
	go func() {
		if err := s.Daemons().Run(t.Context(), func(err error) { t.Log("daemons:", err) }); err != nil {
			t.Error(err)
		}
	}()
	return s
}

// forgetHandler takes out of containerd's configuration what is to be installed.
func (s *site) forgetHandler(t *testing.T) {
	t.Helper()
	file := s.at("containerd.toml")
	data, err := os.ReadFile(file)
	must(t, err)
	without, _, found := strings.Cut(string(data), "    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.stockade]")
	if !found {
		t.Fatalf("%s has no handler", file)
	}
	must(t, os.WriteFile(file, []byte(without), 0o600))
	must(t, s.Node.Crash())
	must(t, s.Node.Restart(t.Context(), s.conf))
}

func (s *site) at(path string) string { return filepath.Join(s.Node.Dir(), path) }

// serveRestarts restarts containerd when the node's "shell" asks for it.
func (s *site) serveRestarts(t *testing.T) {
	for t.Context().Err() == nil {
		if os.Remove(s.at("restart.asked")) != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		said := ""
		if err := errors.Join(s.Node.Crash(), s.Node.Restart(t.Context(), s.conf)); err != nil {
			said = err.Error()
		}
		if err := errors.Join(os.WriteFile(s.at("restart.new"), []byte(said), 0o600), os.Rename(s.at("restart.new"), s.at("restart.done"))); err != nil {
			t.Error(err)
		}
	}
}

// files is what an installation may touch.
func (s *site) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"bin", "etc", "usr", "var", "opt", "conf.d", "run", "proc", "containerd.toml"} {
		must(t, filepath.WalkDir(s.at(dir), func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				all[p] += "folder"
				return err
			}
			data, err := os.ReadFile(p)
			all[p] = string(data)
			return err
		}))
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// render renders a folder of contrib/kubernetes.
func (s *site) render(t *testing.T, args ...string) string {
	t.Helper()
	out, err := osexec.CommandContext(t.Context(), filepath.Join(s.root, ".cache/bin/render"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("render %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (s *site) contrib(path string) string { return filepath.Join(s.root, "contrib/kubernetes", path) }

func (s *site) apply(t *testing.T, text string, args ...string) {
	t.Helper()
	out, err := s.Kubectl(t.Context(), text, append([]string{"apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-"}, args...)...)
	if err != nil || strings.Contains(out, "Warning") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// daemon is the pod of a DaemonSet that was applied.
func (s *site) daemon(t *testing.T, daemonSet string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "stockade-system", Name: daemonSet + "-" + s.NodeName}}
	eventually(t, pod.Name+" is made", func() bool {
		_, err := s.Client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		return err == nil
	})
	return pod
}

func (s *site) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(t.Context(), "", args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (s *site) label(t *testing.T) string {
	t.Helper()
	n, err := s.Client.CoreV1().Nodes().Get(t.Context(), s.NodeName, metav1.GetOptions{})
	must(t, err)
	return n.Labels["stockade.dev/ready"]
}

// TestDaemonSet walks the whole way: apply, the node gets Stockade, pods are protected, who should know is told, Stockade
// goes. All with the rights of the pods' own service account. Then the same with Helm.
func TestDaemonSet(t *testing.T) {
	s := newSite(t)
	before := s.files(t)
	base := s.render(t, "kustomize", s.contrib(""))
	s.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: stockade-system}\n") // a dry run makes none for the rest
	s.apply(t, base, "--dry-run=server")
	s.apply(t, s.render(t, "chart", s.contrib("chart"), "stockade-system"), "--dry-run=server")
	s.apply(t, base)
	pod := s.daemon(t, "stockade")
	awaitReady(t, pod)
	if got := s.label(t); got != "true" {
		t.Errorf("the node's label stockade.dev/ready is %q", got)
	}
	must(t, os.WriteFile(s.at("etc/stockade/profiles.d/runs.yaml"), []byte(profileTexts["runs"]), 0o600))

	t.Run("a declared pod runs", func(t *testing.T) {
		p := newPod("declared", "runs", "sleep", "3600")
		p.Spec.NodeName = "" // the scheduler finds the node by its label
		awaitReady(t, create(t, p))
	})
	t.Run("a deviating one is killed", s.deviating)
	t.Run("the plugin chooses", func(t *testing.T) {
		if out := s.kubectl(t, "-n", "stockade-system", "logs", pod.Name, "-c", "plugin"); strings.Contains(out, "level=error") {
			t.Error(out)
		}
	})
	t.Run("required class", s.requiredClass)
	t.Run("the service account's limits", s.accountLimits)
	t.Run("profiles that do not hold", s.doesNotHold)
	t.Run("the node's condition", s.condition)
	t.Run("another runtime handler", s.otherHandler)
	t.Run("metrics", s.metrics)
	s.uninstall(t, before)
	s.kubectl(t, "delete", "-k", s.contrib("uninstall"))
	s.kubectl(t, "delete", "--ignore-not-found", "-k", filepath.Join(s.root, "contrib/testdata/metrics"))
	t.Run("helm", s.helm)
}

func (s *site) requiredClass(t *testing.T) {
	must(t, s.Namespace(t.Context(), "guarded"))
	if out, err := s.Kubectl(t.Context(), "", "label", "namespace", "guarded", "stockade.dev/require=true"); err != nil {
		t.Fatal(err, out)
	}
	other := "other"
	for name, class := range map[string]*string{"none": nil, "other": &other} {
		p := newPod("plain", "runs", "sleep", "1")
		p.Namespace, p.Spec.RuntimeClassName = "guarded", class
		_, err := s.Client.CoreV1().Pods("guarded").Create(t.Context(), p, metav1.CreateOptions{DryRun: []string{"All"}})
		if err == nil || class == nil && !strings.Contains(err.Error(), "need spec.runtimeClassName: stockade") {
			t.Errorf("runtime class %s: %v", name, err)
		}
	}
	p := newPod("good", "runs", "sleep", "1")
	p.Namespace = "guarded"
	if _, err := s.Client.CoreV1().Pods("guarded").Create(t.Context(), p, metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Error(err)
	}
	p = plain(newPod("elsewhere", "runs", "sleep", "1"))
	if _, err := s.Client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Error(err)
	}
}

// accountLimits: what somebody who has taken a node, and so the plugin's token, may do to the cluster.
func (s *site) accountLimits(t *testing.T) {
	conf := rest.CopyConfig(s.REST)
	conf.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:stockade-system:stockade", Groups: []string{"system:serviceaccounts", "system:authenticated"},
		Extra: map[string][]string{"authentication.kubernetes.io/node-name": {s.NodeName}},
	}
	elsewhere := rest.CopyConfig(conf)
	elsewhere.Impersonate.Extra = map[string][]string{"authentication.kubernetes.io/node-name": {"another"}}
	for _, tc := range []struct {
		what  string
		conf  *rest.Config
		patch string
		may   bool
	}{
		{"its own label", conf, `{"metadata":{"labels":{"stockade.dev/ready":"true"}}}`, true},
		{"another label", conf, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`, false},
		{"the removal of a label", conf, `{"metadata":{"labels":{"kubernetes.io/hostname":null}}}`, false},
		{"a taint", conf, `{"spec":{"taints":[{"key":"x","effect":"NoExecute"}]}}`, false},
		{"an annotation", conf, `{"metadata":{"annotations":{"x":"y"}}}`, false},
		{"another node", elsewhere, `{"metadata":{"labels":{"stockade.dev/ready":"true"}}}`, false},
	} {
		client, err := kubernetes.NewForConfig(tc.conf)
		must(t, err)
		_, err = client.CoreV1().Nodes().Patch(t.Context(), s.NodeName, types.MergePatchType, []byte(tc.patch), metav1.PatchOptions{DryRun: []string{"All"}})
		if (err == nil) != tc.may || err != nil && !strings.Contains(err.Error(), "stockade may") {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
	client, err := kubernetes.NewForConfig(conf)
	must(t, err)
	if _, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("it may read secrets")
	}
	if _, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("it may list pods")
	}
}

// uninstall takes it away in the order that README.md gives, and looks for what is left.
func (s *site) uninstall(t *testing.T, before map[string]string) {
	t.Helper()
	s.kubectl(t, "-n", "stockade-system", "delete", "daemonset", "stockade")
	s.awaitCondition(t, corev1.ConditionFalse, "PluginStopped", "containers that run stay protected")
	awaitGone(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "stockade-system", Name: "stockade-" + s.NodeName}})
	s.apply(t, s.render(t, "kustomize", s.contrib("uninstall")))
	protected := create(t, newPod("still-there", "runs", "sleep", "3600"))
	awaitReady(t, protected)
	cleaner := s.daemon(t, "stockade-uninstall")
	await(t, cleaner, "refusing", func(p *corev1.Pod) bool {
		st := status(p, "uninstall")
		for _, x := range []*corev1.ContainerStateTerminated{st.State.Terminated, st.LastTerminationState.Terminated} {
			if x != nil && x.ExitCode == 1 && strings.Contains(x.Message, "protected containers run") {
				return true
			}
		}
		return false
	})
	must(t, remove(protected.Namespace, protected.Name))
	awaitGone(t, protected)
	must(t, os.Remove(s.at("etc/stockade/profiles.d/runs.yaml")))
	must(t, os.RemoveAll(s.at("var/lib/stockade/incidents"))) // evidence, which stays
	awaitReady(t, cleaner)
	if got := s.label(t); got != "" {
		t.Errorf("the node's label is %q", got)
	}
	after := s.files(t)
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if before[n] != after[n] {
			t.Errorf("%s is %.200q, was %.200q", n, after[n], before[n])
		}
	}
}

func awaitGone(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		list, err := shared.Client.CoreV1().Pods(pod.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + pod.Name})
		must(t, err)
		if len(list.Items) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is still there", pod.Name)
		}
	}
}
