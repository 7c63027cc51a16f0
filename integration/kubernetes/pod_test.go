//go:build kubernetes

package kubernetes_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/stockade-dev/stockade/integration/image"
)

// limit is how long a test waits for anything that should happen at once on a machine with nothing else to do.
const limit = 90 * time.Second

// newPod describes a pod of our RuntimeClass with one container of the probe image, whose name chooses its profile.
func newPod(name, profile string, args ...string) *corev1.Pod {
	class, grace := "stockade", int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			RuntimeClassName: &class, HostNetwork: true, NodeName: shared.NodeName, RestartPolicy: corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{probe(profile, args...)},
		},
	}
}

func probe(profile string, args ...string) corev1.Container {
	return corev1.Container{Name: profile, Image: image.Ref("probe"), ImagePullPolicy: corev1.PullNever, Command: append([]string{"/bin/probe"}, args...)}
}

// plain puts the pod under runc.
func plain(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.RuntimeClassName = nil
	return pod
}

// create makes a pod, which is deleted when the test ends.
func create(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := shared.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(pod.Namespace, pod.Name); err != nil {
			t.Errorf("delete %s: %v", pod.Name, err)
		}
	})
	return created
}

func remove(namespace, name string) error {
	now := int64(0)
	err := shared.Client.CoreV1().Pods(namespace).Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// await waits until what is wanted holds for the pod, and returns the pod as it was then.
func await(t *testing.T, pod *corev1.Pod, what string, holds func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(25 * time.Millisecond) {
		now, err := shared.Client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if holds(now) {
			return now
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not %s\n%s\n%s", pod.Name, what, describe(t, pod.Name), shared.Node.LogTail())
		}
	}
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func awaitReady(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	return await(t, pod, "ready", ready)
}

// status finds a container's status among those of all kinds of containers.
func status(pod *corev1.Pod, name string) corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, s := range list {
			if s.Name == name {
				return s
			}
		}
	}
	return corev1.ContainerStatus{}
}

// ended returns how a container ended, the last time if it was started again since.
func ended(pod *corev1.Pod, name string) *corev1.ContainerStateTerminated {
	s := status(pod, name)
	if s.State.Terminated != nil {
		return s.State.Terminated
	}
	return s.LastTerminationState.Terminated
}

// awaitKilled waits until Stockade has killed the container and checks that its status says so, with each of wants.
func awaitKilled(t *testing.T, pod *corev1.Pod, container string, wants ...string) *corev1.Pod {
	t.Helper()
	pod = await(t, pod, "dead", func(p *corev1.Pod) bool { return ended(p, container) != nil })
	end := ended(pod, container)
	if end.ExitCode != 137 {
		t.Errorf("%s ended with exit code %d, want 137\n%s", pod.Name, end.ExitCode, describe(t, pod.Name))
	}
	for _, want := range append(wants, "stockade: killed: ") {
		if !strings.Contains(end.Message, want) {
			t.Errorf("the status of %s does not say %q:\n%s", pod.Name, want, end.Message)
		}
	}
	return pod
}

// logs is what a container wrote so far; of a container that runs again, the earlier runs too.
func logs(t *testing.T, pod *corev1.Pod, container string) string {
	t.Helper()
	return logsOf(t, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID), container)
}

func logsOf(t *testing.T, podPattern, container string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared.PodLogs(), podPattern, container, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

// describe is what a pod's author sees.
func describe(t *testing.T, pod string) string {
	out, err := shared.Kubectl(context.WithoutCancel(t.Context()), "", "describe", "pod", pod)
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return out
}

// kubectl runs kubectl, which must succeed.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := shared.Kubectl(t.Context(), "", args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// effects is a folder of the host that a pod mounts, and where it leaves what it should not have done.
func effects(t *testing.T) (dir string, mount func(*corev1.Pod) *corev1.Pod) {
	t.Helper()
	dir = filepath.Join(shared.Node.Dir(), "effects", t.Name())
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir, func(pod *corev1.Pod) *corev1.Pod {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
			Name: "effects", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}},
		})
		for i := range pod.Spec.Containers {
			c := &pod.Spec.Containers[i]
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "effects", MountPath: "/effects"})
		}
		return pod
	}
}

// nothingIn fails when something is in dir.
func nothingIn(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("it happened: %s/%s", dir, e.Name())
	}
}
