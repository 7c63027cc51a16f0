//go:build kubernetes

package kubernetes_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
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
	k8s, err := cluster.Bin(root)
	must(t, err)
	dir := filepath.Join(root, ".work/ki")
	s := &site{root: root, conf: node.Config{Dir: dir, Bin: []string{dir + "/usr/local/bin", filepath.Join(root, ".cache/bin")}, NRI: true}}
	s.Cluster, err = cluster.Start(t.Context(), cluster.Config{Node: s.conf, Bin: k8s})
	must(t, err)
	before := shared
	shared = s.Cluster
	t.Cleanup(func() {
		shared = before
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s.makeHost(t)
	must(t, importImages(t.Context(), root, "pause", "probe"))
	must(t, s.Node.ImportInto(t.Context(), "k8s.io", filepath.Join(root, "bin/stockade-image.tar")))
	go s.serveRestarts(t)
	return s
}

// makeHost makes the node's folder a root that looks like a host's, with nothing of Stockade in it.
func (s *site) makeHost(t *testing.T) {
	t.Helper()
	for _, d := range []string{"bin", "usr/local/bin", "etc/sysctl.d", "var/lib", "proc/sys/fs/fanotify", "run"} {
		must(t, os.MkdirAll(s.at(d), 0o755))
	}
	must(t, os.WriteFile(s.at("proc/sys/fs/fanotify/max_user_groups"), []byte("128\n"), 0o644))
	sh := osexec.CommandContext(t.Context(), "go", "build", "-o", s.at("bin/sh"), filepath.Join(s.root, "integration/install/testdata/sh"))
	sh.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The shims read this one: the same places as /etc/stockade/config.yaml has inside that root.
	conf := fmt.Sprintf("profiles: %[1]s/etc/stockade/profiles.d\ncluster: %[1]s/var/lib/stockade/cluster.d\nlastGood: %[1]s/var/lib/stockade/last-good\n"+
		"incidents: %[1]s/var/lib/stockade/incidents\nselectionKey: %[1]s/var/lib/stockade/selection.key\nstate: %[1]s/run/stockade\n", s.Node.Dir())
	must(t, os.WriteFile(s.Node.StockadeConfig(), []byte(conf), 0o600))
	file := s.at("containerd.toml")
	data, err := os.ReadFile(file)
	must(t, err)
	without, _, found := strings.Cut(string(data), "    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.stockade]")
	if !found {
		t.Fatalf("%s has no handler", file)
	}
	// What it imports by its absolute path is not inside the root that is installed into.
	without = regexp.MustCompile(`(?m)^imports = .*$`).ReplaceAllString(without, "imports = []")
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

// pod makes what the DaemonSet controller would make for the node, with the places of this node: it has no controller
// manager, its root is a folder, and pods reach the API server at the loopback.
func (s *site) pod(t *testing.T, daemonSet string, installArgs ...string) *corev1.Pod {
	t.Helper()
	ds, err := s.Client.AppsV1().DaemonSets("stockade-system").Get(t.Context(), daemonSet, metav1.GetOptions{})
	must(t, err)
	pod := &corev1.Pod{ObjectMeta: *ds.Spec.Template.ObjectMeta.DeepCopy(), Spec: *ds.Spec.Template.Spec.DeepCopy()}
	pod.Name, pod.Namespace = daemonSet+"-node", "stockade-system"
	pod.Spec.NodeName, pod.Spec.HostNetwork = s.NodeName, true
	delete(pod.Spec.NodeSelector, "kubernetes.io/arch") // whatever this machine is
	for i := range pod.Spec.Volumes {
		h := pod.Spec.Volumes[i].HostPath
		h.Path = filepath.Join(s.Node.Dir(), h.Path)
		if strings.HasSuffix(h.Path, "/var/run/nri") {
			h.Path = filepath.Dir(s.Node.NRISocket())
		}
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: "socket", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Dir(s.Node.Address())}},
	})
	api, err := url.Parse(s.REST.Host)
	must(t, err)
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			c.Env = append(c.Env, corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: api.Hostname()}, corev1.EnvVar{Name: "KUBERNETES_SERVICE_PORT", Value: api.Port()})
			if len(c.Args) > 0 {
				c.Args = append(c.Args, append([]string{"--address=/socket/containerd.sock", "--restart-command=restart containerd"}, installArgs...)...)
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "socket", MountPath: "/socket"})
			}
		}
	}
	return pod
}

// rootCA is what the controller manager puts into every namespace, for the pods' service accounts.
func (s *site) rootCA(t *testing.T, namespace string) {
	t.Helper()
	ca, err := os.ReadFile(s.REST.CAFile)
	must(t, err)
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt", Namespace: namespace}, Data: map[string]string{"ca.crt": string(ca)}}
	_, err = s.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), m, metav1.CreateOptions{})
	must(t, err)
}

func (s *site) label(t *testing.T) string {
	t.Helper()
	n, err := s.Client.CoreV1().Nodes().Get(t.Context(), s.NodeName, metav1.GetOptions{})
	must(t, err)
	return n.Labels["stockade.dev/ready"]
}

// TestDaemonSet walks the whole way: apply, the node gets Stockade, pods are protected, Stockade goes.
func TestDaemonSet(t *testing.T) {
	s := newSite(t)
	before := s.files(t)
	base := s.render(t, "kustomize", s.contrib(""))
	s.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: stockade-system}\n") // a dry run makes none for the rest
	s.apply(t, base, "--dry-run=server")
	s.apply(t, s.render(t, "chart", s.contrib("chart"), "stockade-system"), "--dry-run=server")
	s.apply(t, base)
	s.apply(t, s.render(t, "chart", s.contrib("chart"), "stockade-system"))
	s.rootCA(t, "stockade-system")

	daemon := s.pod(t, "stockade", "--containerd-config=/containerd.toml")
	pod := create(t, daemon)
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
	t.Run("a deviating one is killed", func(t *testing.T) {
		p := create(t, newPod("deviates", "runs", "spawn", "/bin/hello"))
		awaitKilled(t, p, "runs", "exec /bin/hello is not declared")
		if out := logs(t, p, "runs"); strings.Contains(out, "hello ran") {
			t.Error(out)
		}
	})
	t.Run("the plugin chooses", func(t *testing.T) {
		if out, err := s.Kubectl(t.Context(), "", "-n", "stockade-system", "logs", pod.Name, "-c", "plugin"); err != nil || strings.Contains(out, "level=error") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("required class", s.requiredClass)
	t.Run("the service account's limits", s.accountLimits)
	s.uninstall(t, pod, before)
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
func (s *site) uninstall(t *testing.T, pod *corev1.Pod, before map[string]string) {
	t.Helper()
	must(t, remove(pod.Namespace, pod.Name))
	awaitGone(t, pod)
	s.apply(t, s.render(t, "kustomize", s.contrib("uninstall")))
	protected := create(t, newPod("still-there", "runs", "sleep", "3600"))
	awaitReady(t, protected)
	cleaner := create(t, s.pod(t, "stockade-uninstall"))
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
