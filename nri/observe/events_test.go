package observe

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/stockade-dev/stockade/nri"
)

// apiServer answers as it is told to.
func apiServer(t *testing.T, h http.HandlerFunc) kubernetes.Interface {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := kubernetes.NewForConfig(&rest.Config{Host: s.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func refused(pod string) Finding {
	return Finding{Event: &nri.Event{Action: nri.Refuse, Namespace: "gone", Pod: pod, PodUID: pod, Text: "no profile"}}
}

// What was left out for a pod whose namespace is gone by then is given up, once, and counted.
func TestEventsOfANamespaceThatIsGone(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound} {
		var gone atomic.Bool
		var asked atomic.Int32
		e := NewEvents(apiServer(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			if gone.Load() {
				w.WriteHeader(status)
				fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d}`, status)
				return
			}
			fmt.Fprint(w, `{"kind":"Event","apiVersion":"v1"}`)
		}), "n1")
		now, lost := time.Now(), 0
		e.now = func() time.Time { return now }
		e.Lost = func(n int) { lost += n }
		for range eventBurst + 3 {
			if err := e.Put(t.Context(), refused("p")); err != nil {
				t.Fatal(err)
			}
		}
		gone.Store(true)
		asked.Store(0)
		for range 5 {
			now = now.Add(eventInterval)
			e.Tick(t.Context())
		}
		if len(e.pods) != 0 || lost != 3 || asked.Load() != 1 {
			t.Errorf("%d: %d pods are remembered, %d lost, asked %d times", status, len(e.pods), lost, asked.Load())
		}
	}
}

// The bound holds also where every pod has something left to say: one of them loses it.
func TestEventsAreBounded(t *testing.T) {
	for quiet, want := range map[string]int{"": 2, "p7": 0} {
		lost := 0
		e := NewEvents(nil, "n1")
		e.Lost = func(n int) { lost += n }
		for i := range eventPods {
			uid := types.UID(fmt.Sprint("p", i))
			e.pods[uid] = &podEvents{left: 2}
		}
		if quiet != "" {
			e.pods[types.UID(quiet)].left = 0
		}
		ref, _, _ := describe(refused("one more"))
		e.pod(ref)
		if len(e.pods) != eventPods || e.pods["one more"] == nil || e.pods[types.UID(quiet)] != nil || lost != want {
			t.Errorf("quiet %q: %d pods are remembered, %d lost", quiet, len(e.pods), lost)
		}
	}
}
