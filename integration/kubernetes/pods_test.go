//go:build kubernetes

package kubernetes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/stockade-dev/stockade/integration/image"
)

// TestPods are pods that do what is declared and pods that do not: the shim alone holds them, and with the plugin it is
// the same.
func TestPods(t *testing.T) {
	for _, mode := range []string{"shim alone", "with the plugin"} {
		t.Run(mode, func(t *testing.T) {
			if mode == "with the plugin" {
				startPlugin(t, "")
			}
			t.Run("declared", testDeclaredPod)
			t.Run("deviating", testDeviatingPod)
			t.Run("without profile", testPodWithoutProfile)
			t.Run("probes", testProbes)
			t.Run("kinds of containers", testKindsOfContainers)
			t.Run("deviating init container", testDeviatingInitContainer)
			t.Run("deviating sidecar", testDeviatingSidecar)
			// The next mode has pods of the same names.
			idle(t)
		})
	}
}

func testDeclaredPod(t *testing.T) {
	pod := newPod("declared", "runs", "sleep", "3600")
	pod.Spec.NodeName = "" // the scheduler's way, once
	pod = awaitReady(t, create(t, pod))
	if out := kubectl(t, "exec", pod.Name, "--", "/bin/hello"); !strings.Contains(out, "hello ran") {
		t.Errorf("the declared session: %q", out)
	}
	out, err := shared.Kubectl(t.Context(), "", "exec", pod.Name, "--", "/bin/other")
	if err == nil || strings.Contains(out, "other ran") {
		t.Errorf("the undeclared session was not refused: %v\n%s", err, out)
	}
	for _, want := range []string{"refused by stockade", "/bin/other", "not declared", `spec.sessions.allow.exec: ["/bin/other"]`} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl exec does not say %q:\n%s", want, out)
		}
	}
	if pod = awaitReady(t, pod); status(pod, "runs").RestartCount != 0 {
		t.Errorf("the refused session ended the container:\n%s", describe(t, pod.Name))
	}
}

func testDeviatingPod(t *testing.T) {
	dir, mounted := effects(t)
	attack := []string{"seq", "spawn", "/bin/hello", "--", "write", "/effects/happened", "x"}
	// Without Stockade all of it would happen.
	control := plain(mounted(newPod("control", "runs", attack...)))
	pod := await(t, create(t, control), "ended", func(p *corev1.Pod) bool { return ended(p, "runs") != nil })
	if out := logs(t, pod, "runs"); !strings.Contains(out, "hello ran") || !strings.Contains(out, "did write") {
		t.Fatalf("the control did not do it:\n%s", out)
	}
	kubectl(t, "delete", "pod", "control", "--now")
	removeAll(t, dir)

	for name, c := range map[string]struct {
		attack []string
		says   string
	}{
		"exec":  {attack, "exec /bin/hello is not declared"},
		"write": {[]string{"write", "/effects/happened", "x"}, "write /effects/happened"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := create(t, mounted(newPod("deviates-"+name, "runs", c.attack...)))
			pod = awaitKilled(t, pod, "runs", c.says, "profile runs", "to allow it: spec.allow.")
			if out := logs(t, pod, "runs"); strings.Contains(out, "hello ran") || strings.Contains(out, "did ") {
				t.Errorf("the attack went on:\n%s", out)
			}
			if out := describe(t, pod.Name); !strings.Contains(out, c.says) || !strings.Contains(out, "Exit Code:    137") {
				t.Errorf("kubectl describe does not say why:\n%s", out)
			}
			nothingIn(t, dir)
		})
	}
}

// A pod without a profile does not start, and its author reads why.
func testPodWithoutProfile(t *testing.T) {
	dir, mounted := effects(t)
	pod := create(t, mounted(newPod("unknown", "nobody-declared-this", "write", "/effects/happened", "x")))
	pod = await(t, pod, "refused", func(p *corev1.Pod) bool {
		s := status(p, "nobody-declared-this").State
		return s.Waiting != nil && strings.Contains(s.Waiting.Message, "refused by stockade") ||
			s.Terminated != nil && strings.Contains(s.Terminated.Message, "refused by stockade")
	})
	if out := describe(t, pod.Name); !strings.Contains(out, "no profile for") {
		t.Errorf("kubectl describe does not say why:\n%s", out)
	}
	nothingIn(t, dir)
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func exec(command ...string) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}, PeriodSeconds: 1, TimeoutSeconds: 5}
}

func testProbes(t *testing.T) {
	pod := newPod("probed", "probed", "sleep", "3600")
	c := &pod.Spec.Containers[0]
	c.StartupProbe = exec("/bin/hello")
	c.LivenessProbe = exec("/bin/hello")
	c.ReadinessProbe = exec("/bin/probe", "cat", "/etc/app.conf")
	c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/hello"}}}}
	pod = awaitReady(t, create(t, pod))

	undeclared := newPod("probed-undeclared", "probed", "sleep", "3600")
	undeclared.Spec.Containers[0].ReadinessProbe = exec("/bin/other")
	undeclared = create(t, undeclared)
	await(t, undeclared, "running", func(p *corev1.Pod) bool { return status(p, "probed").State.Running != nil })
	awaitEvent(t, undeclared, "Unhealthy", "refused by stockade", "/bin/other")
	if now := await(t, undeclared, "there", func(*corev1.Pod) bool { return true }); ready(now) || status(now, "probed").State.Running == nil {
		t.Errorf("a refused readiness probe must make the pod not ready, and nothing else:\n%s", describe(t, undeclared.Name))
	}
	// Some probes later.
	if pod = awaitReady(t, pod); status(pod, "probed").RestartCount != 0 {
		t.Errorf("declared probes ended the container:\n%s", describe(t, pod.Name))
	}
}

// awaitEvent waits for an event on the pod that says each of wants.
func awaitEvent(t *testing.T, pod *corev1.Pod, reason string, wants ...string) {
	t.Helper()
	selector := "involvedObject.uid=" + string(pod.UID)
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		list, err := shared.Client.CoreV1().Events(pod.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: selector})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.Reason == reason && containsAll(e.Message, wants) {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no event %s with %q on %s\n%s", reason, wants, pod.Name, describe(t, pod.Name))
		}
	}
}

func containsAll(text string, wants []string) bool {
	for _, w := range wants {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

var always = corev1.ContainerRestartPolicyAlways

// Init containers, sidecars and ephemeral containers are containers like any other: each has its own profile.
func testKindsOfContainers(t *testing.T) {
	pod := newPod("kinds", "runs", "sleep", "3600")
	pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	mount := []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	first, side := probe("init", "write", "/shared/ready", "written by init"), probe("side", "seq", "cat", "/shared/ready", "--", "sleep", "3600")
	first.VolumeMounts, side.VolumeMounts, side.RestartPolicy = mount, mount, &always
	pod.Spec.InitContainers = []corev1.Container{first, side}
	pod = awaitReady(t, create(t, pod))
	if out := logs(t, pod, "side"); !strings.Contains(out, "written by init") {
		t.Errorf("the sidecar does not see what the init container wrote:\n%s", out)
	}
	t.Run("ephemeral", func(t *testing.T) {
		debug(t, pod, "debugger", "seq", "spawn", "/bin/hello", "--", "spawn", "/bin/other")
		now := awaitKilled(t, pod, "debugger", "exec /bin/other is not declared")
		if out := logs(t, now, "debugger"); !strings.Contains(out, "hello ran") || strings.Contains(out, "other ran") {
			t.Errorf("output: %s", out)
		}
	})
	t.Run("ephemeral without profile", func(t *testing.T) {
		debug(t, pod, "stranger", "spawn", "/bin/hello")
		now := await(t, pod, "refused", func(p *corev1.Pod) bool {
			s := status(p, "stranger").State
			return s.Waiting != nil && strings.Contains(s.Waiting.Message, "no profile for") ||
				s.Terminated != nil && strings.Contains(s.Terminated.Message, "no profile for")
		})
		if out := logs(t, now, "stranger"); strings.Contains(out, "hello ran") {
			t.Errorf("it ran:\n%s", out)
		}
	})
	if pod = awaitReady(t, pod); status(pod, "runs").RestartCount+status(pod, "side").RestartCount != 0 {
		t.Errorf("what happened to one container must not end another:\n%s", describe(t, pod.Name))
	}
}

func debug(t *testing.T, pod *corev1.Pod, name string, args ...string) {
	t.Helper()
	now, err := shared.Client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	now.Spec.EphemeralContainers = append(now.Spec.EphemeralContainers, corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: name, Image: image.Ref("probe"), ImagePullPolicy: corev1.PullNever, Command: append([]string{"/bin/probe"}, args...),
		},
	})
	if _, err := shared.Client.CoreV1().Pods(pod.Namespace).UpdateEphemeralContainers(t.Context(), pod.Name, now, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func testDeviatingInitContainer(t *testing.T) {
	pod := newPod("bad-init", "runs", "spawn", "/bin/hello")
	pod.Spec.InitContainers = []corev1.Container{probe("init", "seq", "write", "/shared/x", "x", "--", "spawn", "/bin/hello")}
	pod = awaitKilled(t, create(t, pod), "init", "exec /bin/hello is not declared")
	pod = await(t, pod, "failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if s := status(pod, "runs"); s.State.Running != nil || s.ContainerID != "" {
		t.Errorf("the pod went on after its init container was killed:\n%s", describe(t, pod.Name))
	}
}

func testDeviatingSidecar(t *testing.T) {
	pod := newPod("bad-sidecar", "runs", "sleep", "3600")
	side := probe("side", "spawn", "/bin/hello")
	side.RestartPolicy = &always
	pod.Spec.InitContainers = []corev1.Container{side}
	pod = create(t, pod)
	awaitKilled(t, pod, "side", "exec /bin/hello is not declared")
	pod = await(t, pod, "started again", func(p *corev1.Pod) bool { return status(p, "side").RestartCount > 0 })
	if out := logs(t, pod, "side"); strings.Contains(out, "hello ran") {
		t.Errorf("it ran:\n%s", out)
	}
}
