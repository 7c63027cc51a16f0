//go:build kubernetes

package kubernetes_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/stockade-dev/stockade/shim/state"
)

// classes are what is compared. The first is the measure.
var classes = []string{"runc", "stockade"}

// asideFromRunc: the plugin is there, as on a node, and what runs under runc is what it would be without Stockade.
const asideFromRunc = "otherHandlers: ignore\n"

func ofClass(class string, pod *corev1.Pod) *corev1.Pod {
	pod.Labels = map[string]string{"load": "yes"}
	if class == "runc" {
		return plain(pod)
	}
	return pod
}

// A hundred pods at once all become ready, each with its fence. How long it takes is printed, and never judged.
func TestHundredPods(t *testing.T) {
	const n = 100
	startPlugin(t, asideFromRunc)
	w := watchPods(t)
	for _, class := range classes {
		idle(t)
		began := time.Now()
		for i := range n {
			pod := ofClass(class, newPod(fmt.Sprintf("many-%s-%d", class, i), "runs", "sleep", "3600"))
			if _, err := shared.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		var took []time.Duration
		for range n {
			took = append(took, w.next(t, ready).Sub(began))
		}
		t.Logf("%-8s %d pods at once: ready after %v (median), %v (the last)", class, n, round(median(took)), round(slices.Max(took)))
		if got := fenced(t, "many-"); class == "stockade" && got != n {
			t.Errorf("%d of %d containers are protected", got, n)
		}
		removeLoad(t)
	}
}

// One pod after the other, in turns with runc: the price of the RuntimeClass. It is printed, and never judged: this
// machine may have other things to do.
func TestPodStart(t *testing.T) {
	const rounds = 30
	startPlugin(t, asideFromRunc)
	w := watchPods(t)
	idle(t)
	took := map[string][]time.Duration{}
	for i := range rounds {
		for j := range classes {
			class := classes[(i+j)%len(classes)] // whoever comes second finds one pod more on the node
			pod := ofClass(class, newPod(fmt.Sprintf("start-%s-%d", class, i), "runs", "sleep", "3600"))
			began := time.Now()
			if _, err := shared.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			// It stays: to end it costs as much as to start the next, and is not what is measured.
			took[class] = append(took[class], w.next(t, ready).Sub(began))
		}
	}
	removeLoad(t)
	runc, stockade := median(took["runc"]), median(took["stockade"])
	var pairs []float64
	for i := range rounds {
		pairs = append(pairs, float64(took["stockade"][i])/float64(took["runc"][i]))
	}
	t.Logf("pod start, median of %d: runc %v, stockade %v: %.2fx (median of the pairs %.2fx, aim 1.15x)",
		rounds, round(runc), round(stockade), float64(stockade)/float64(runc), median(pairs))
}

// removeLoad deletes the pods with the label "load" and waits until they are gone.
func removeLoad(t *testing.T) {
	t.Helper()
	now := int64(0)
	err := shared.Client.CoreV1().Pods("default").DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &now},
		metav1.ListOptions{LabelSelector: "load=yes"})
	if err != nil {
		t.Fatal(err)
	}
	idle(t)
}

func median[T int64 | float64 | time.Duration](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// fenced counts the protected containers of running pods whose names begin so.
func fenced(t *testing.T, prefix string) int {
	t.Helper()
	all, damaged, err := state.List(shared.Node.StateDir())
	if err != nil || len(damaged) > 0 {
		t.Fatalf("state: %v, damaged: %v", err, damaged)
	}
	n := 0
	for _, task := range all {
		if len(task.Pod) > len(prefix) && task.Pod[:len(prefix)] == prefix && task.ShimAlive() {
			n++
		}
	}
	return n
}

// idle waits until no container of any pod runs any more. A pod that was deleted without grace is no longer among the
// API's pods while kubelet still ends it.
func idle(t *testing.T) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	eventually(t, "all pods are gone", func() bool {
		r, err := shared.Node.Client.TaskService().List(ctx, &tasks.ListTasksRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(r.Tasks) == 0
	})
}

// podWatch hears of the pods with the label "load".
type podWatch struct {
	events <-chan watch.Event
	seen   map[string]bool // pods that next has returned
}

func watchPods(t *testing.T) *podWatch {
	t.Helper()
	w, err := shared.Client.CoreV1().Pods("default").Watch(context.Background(), metav1.ListOptions{LabelSelector: "load=yes"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return &podWatch{events: w.ResultChan(), seen: map[string]bool{}}
}

// next waits for a further pod for which something holds, and returns when that was heard of.
func (w *podWatch) next(t *testing.T, holds func(*corev1.Pod) bool) time.Time {
	t.Helper()
	for {
		e, pod := w.event(t)
		if e != watch.Deleted && holds(pod) && !w.seen[pod.Name] {
			w.seen[pod.Name] = true
			return time.Now()
		}
	}
}

func (w *podWatch) event(t *testing.T) (watch.EventType, *corev1.Pod) {
	t.Helper()
	select {
	case e := <-w.events:
		pod, ok := e.Object.(*corev1.Pod)
		if !ok {
			t.Fatalf("the watch ended: %+v", e)
		}
		return e.Type, pod
	case <-time.After(limit):
		t.Fatalf("nothing happens any more\n%s\n%s\n%s", kubectl(t, "get", "pods", "-A"), shared.LogTail("kubelet"), shared.Node.LogTail())
		return "", nil
	}
}
