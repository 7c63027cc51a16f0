//go:build kubernetes

package kubernetes_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/stockade-dev/stockade/shim/incident"
)

// Without an API server pods start, and start again, and are held to their profiles all the same.
func TestAPIServerDown(t *testing.T) {
	dir, mounted := effects(t)
	runs := newPod("outlives", "runs", "waitfile", "/effects/end")
	runs.Spec.RestartPolicy = corev1.RestartPolicyAlways
	runs = awaitRunning(t, create(t, mounted(runs)), "runs")
	deviates := awaitRunning(t, create(t, mounted(newPod("deviates-later", "runs", "seq", "waitfile", "/effects/go", "--", "spawn", "/bin/hello"))), "runs")

	if err := shared.Kill("kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { apiServerAgain(t) })
	staticPod(t, mounted(newPod("static-runs", "runs", "sleep", "3600")))
	staticPod(t, mounted(newPod("static-deviates", "runs", "spawn", "/bin/hello")))
	for _, file := range []string{"end", "go"} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a static pod runs", func() bool { return strings.Contains(podLog(t, "static-runs", "runs"), "sleeping") })
	eventually(t, "a container is started again", func() bool { return strings.Count(logs(t, runs, "runs"), "did waitfile") > 1 })
	eventually(t, "a static pod that deviates is killed", func() bool { return killed(t, "static-deviates", "/bin/hello") })
	eventually(t, "a running pod that deviates is killed", func() bool { return killed(t, deviates.Name, "/bin/hello") })
	for _, pod := range []string{deviates.Name, "static-deviates"} {
		if out := podLog(t, pod, "runs"); strings.Contains(out, "hello ran") {
			t.Errorf("%s: it ran:\n%s", pod, out)
		}
	}
}

// apiServerAgain starts the API server that a test has ended.
func apiServerAgain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := shared.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	if err := shared.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func awaitRunning(t *testing.T, pod *corev1.Pod, container string) *corev1.Pod {
	t.Helper()
	return await(t, pod, "running", func(p *corev1.Pod) bool { return status(p, container).State.Running != nil })
}

// staticPod gives kubelet a pod without the API server, until the test ends.
func staticPod(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	pod.APIVersion, pod.Kind = "v1", "Pod"
	data, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(shared.StaticPods(), pod.Name+".json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	})
}

// podLog is the log of a static pod too, to whose name kubelet appends the node's.
func podLog(t *testing.T, name, container string) string {
	t.Helper()
	return logsOf(t, "default_"+name+"*", container)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come to this: %s\n%s\n%s", what, shared.LogTail("kubelet"), shared.Node.LogTail())
		}
	}
}

// killed reports whether an incident says that a container of the pod was killed for this object.
func killed(t *testing.T, pod, object string) bool {
	t.Helper()
	all, damaged, err := incident.List(shared.Node.IncidentsDir(), incident.Filter{})
	if err != nil || len(damaged) > 0 {
		t.Fatalf("incidents: %v, damaged: %v", err, damaged)
	}
	for _, i := range all {
		if strings.HasPrefix(i.Pod.Name, pod) && i.Action == incident.Killed && i.Access.Path == object {
			return true
		}
	}
	return false
}
