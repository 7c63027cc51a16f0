//go:build kubernetes

package kubernetes_test

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/nri/health"
)

// plugin runs stockade-nri, from one of its lives to the next. It is for one goroutine at a time.
type plugin struct {
	*node.Plugin
	config string
}

// startPlugin runs the plugin until the test ends. config are further lines of its configuration.
func startPlugin(t *testing.T, config string) *plugin {
	t.Helper()
	p := &plugin{config: config}
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *plugin) start(ctx context.Context) error {
	next, err := shared.Node.StartPlugin(ctx, shared.Config().Node.Bin[0], p.config)
	if err == nil {
		p.Plugin = next
	}
	return err
}

// The plugin knows a pod's labels; the shim alone must not guess them.
func TestLabels(t *testing.T) {
	labelled := func(name, tier string) *corev1.Pod {
		pod := newPod(name, "labelled", "sleep", "3600")
		pod.Labels = map[string]string{"tier": tier}
		return pod
	}
	alone := create(t, labelled("labels-unknown", "web"))
	awaitRefused(t, alone, "labelled", "labels are not known here")

	startPlugin(t, "")
	awaitReady(t, create(t, labelled("labels-right", "web")))
	awaitRefused(t, create(t, labelled("labels-wrong", "db")), "labelled", "no profile for")
}

// What a pod's author writes chooses only among what the admin's match allows.
func TestForgedChoice(t *testing.T) {
	startPlugin(t, "")
	annotated := func(name, key, value string) *corev1.Pod {
		pod := newPod(name, "runs", "spawn", "/bin/hello")
		pod.Annotations = map[string]string{key: value}
		return create(t, pod)
	}
	awaitRefused(t, annotated("forged-profile", "stockade.dev/profile", "debugger"), "runs", "profile debugger")
	awaitRefused(t, annotated("forged-statement", "stockade.dev/selection", "debugger@sha256:00:00"), "runs", "stockade.dev/selection")
}

// A namespace can require the shim: then a pod without the RuntimeClass does not start.
func TestRequiredShim(t *testing.T) {
	if err := shared.Namespace(t.Context(), "fenced"); err != nil {
		t.Fatal(err)
	}
	startPlugin(t, "requireShim: {namespaces: [fenced]}\n")
	dir, mounted := effects(t)
	pod := plain(mounted(newPod("bare", "runs", "write", "/effects/happened", "x")))
	pod.Namespace = "fenced"
	awaitRefused(t, create(t, pod), "runs", "requires a runtime class of Stockade")
	nothingIn(t, dir)
}

// awaitRefused waits until the container's status says that it was not started, and why.
func awaitRefused(t *testing.T, pod *corev1.Pod, container, why string) {
	t.Helper()
	pod = await(t, pod, "refused for "+why, func(p *corev1.Pod) bool {
		s := status(p, container).State
		return s.Waiting != nil && strings.Contains(s.Waiting.Message, why) || s.Terminated != nil && strings.Contains(s.Terminated.Message, why)
	})
	if out := logs(t, pod, container); out != "" {
		t.Errorf("something of it ran:\n%s", out)
	}
}

// TestPluginFails kills and stops the plugin while pods are made that deviate at once: under our RuntimeClass, and
// without it in a namespace that requires it. Whatever the plugin does, nothing may come of it.
func TestPluginFails(t *testing.T) {
	if err := shared.Namespace(t.Context(), "fenced"); err != nil {
		t.Fatal(err)
	}
	dir, mounted := effects(t)
	// The control: without the plugin, and without the line that makes containerd require it, NRI fails open.
	control := plain(mounted(newPod("control-plugin", "runs", "write", "/effects/control", "x")))
	control.Namespace = "fenced"
	control = create(t, control)
	await(t, control, "ended", func(p *corev1.Pod) bool { return ended(p, "runs") != nil })
	if err := os.Remove(filepath.Join(dir, "control")); err != nil {
		t.Fatalf("the control did not do it: %v", err)
	}

	p := startPlugin(t, "requireShim: {namespaces: [fenced]}\n")
	requirePlugin(t, p)
	held := newPod("held", "runs", "seq", "waitfile", "/effects-go/go", "--", "spawn", "/bin/hello")
	held = awaitRunning(t, create(t, heldBy(t, held)), "runs")

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { torment(ctx, t, p) })
	var pods []*corev1.Pod
	for end, i := time.Now().Add(30*time.Second), 0; time.Now().Before(end); i++ {
		pod := mounted(newPod(fmt.Sprintf("tries-%d", i), "runs", "seq", "write", fmt.Sprintf("/effects/%d", i), "x", "--", "spawn", "/bin/hello"))
		if i%2 == 1 {
			pod.Namespace = "fenced"
			plain(pod)
		}
		pods = append(pods, create(t, pod))
		time.Sleep(400 * time.Millisecond)
	}
	stop()
	wg.Wait()
	nothingIn(t, dir)
	var dead, refused, other int
	for _, pod := range pods {
		if out := logs(t, pod, "runs"); strings.Contains(out, "hello ran") || strings.Contains(out, "did ") {
			t.Errorf("%s/%s ran:\n%s", pod.Namespace, pod.Name, out)
		}
		now, err := shared.Client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		switch s := status(now, "runs").State; {
		case s.Terminated != nil && pod.Namespace == "default":
			dead++
		case s.Waiting != nil:
			refused++
		default:
			other++
		}
	}
	t.Logf("%d pods: %d were killed at once, %d wait (refused), %d are in between", len(pods), dead, refused, other)
	if dead == 0 || refused == 0 {
		t.Error("none of them ever started, or none was refused: this shows nothing")
	}
	// What ran before is held as before.
	if now := await(t, held, "there", func(*corev1.Pod) bool { return true }); status(now, "runs").State.Running == nil || status(now, "runs").RestartCount > 0 {
		t.Errorf("the plugin's death ended a container:\n%s", describe(t, held.Name))
	}
	if err := os.WriteFile(filepath.Join(shared.Node.Dir(), "go", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	awaitKilled(t, held, "runs", "exec /bin/hello is not declared")
}

// heldBy gives the pod a folder in which a file will tell it to go on.
func heldBy(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	dir := filepath.Join(shared.Node.Dir(), "go")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pod.Spec.Volumes = []corev1.Volume{{Name: "go", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "go", MountPath: "/effects-go"}}
	return pod
}

// torment kills the plugin, or stops it for longer than NRI waits, again and again.
func torment(ctx context.Context, t *testing.T, p *plugin) {
	for i := 0; ; i++ {
		if i%2 == 0 {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
			pause(ctx, 1500*time.Millisecond)
			if err := p.start(context.WithoutCancel(ctx)); err != nil {
				t.Error(err)
				return
			}
		} else {
			if err := p.Signal(syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
			pause(ctx, 5*time.Second)
			if err := p.Signal(syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}
		if !pause(ctx, 2*time.Second) {
			return
		}
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// requirePlugin makes containerd start no container without the plugin, as the drop-in that the plugin prints does,
// until the test ends.
func requirePlugin(t *testing.T, p *plugin) {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := osexec.CommandContext(t.Context(), filepath.Join(root, "bin/stockade-nri"), "containerd-config").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(shared.Node.DropIns(), "stockade-nri.toml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	restartContainerd(t, p)
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
		restartContainerd(t, p)
	})
}

// restartContainerd lets everything that runs go on, and waits until the plugin and kubelet have found containerd again.
func restartContainerd(t *testing.T, p *plugin) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if err := shared.Node.Crash(); err != nil {
		t.Fatal(err)
	}
	if err := shared.Node.Restart(ctx, node.Config{Bin: shared.Config().Node.Bin}); err != nil {
		t.Fatal(err)
	}
	up := time.Now()
	if err := p.WaitHealth(ctx, func(h health.Health) bool { return h.Connected && h.Time.After(up) }); err != nil {
		t.Fatal(err)
	}
}
