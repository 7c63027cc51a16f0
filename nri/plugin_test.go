package nri

import (
	"testing"

	"github.com/containerd/nri/pkg/api"
)

func TestValidates(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.7.29": false, "v2.0.14": false, "2.0.14+unknown": false, "v2.1.9": false, "2.1.0-rc.1": false,
		"v2.2.0": true, "v2.2.9": true, "v2.4.2": true, "2.4.2+unknown": true, "v9.9.9": true, "": true, "dev": true,
	} {
		if got := validates("containerd", version); got != want {
			t.Errorf("containerd %q: %v, want %v", version, got, want)
		}
	}
	if !validates("another", "1.30") {
		t.Error("a runtime that is not known: it is not to be asked")
	}
}

// fixed is a Source whose view never changes.
type fixed struct{ view *View }

func (f fixed) View() *View { return f.view }

// TestUnprotectedRun: what has ended, or was never started, is not said to run.
func TestUnprotectedRun(t *testing.T) {
	p := New(Config{Rules: testRules()}, fixed{testView(t)})
	h := handler{p}
	pod, c := testPod("a", "runc", nil, nil), testContainer("main", nil)
	for name, end := range map[string]func() error{
		"stopped": func() error { _, err := h.StopContainer(t.Context(), pod, c); return err },
		"removed": func() error { return h.RemoveContainer(t.Context(), pod, c) },
	} {
		if _, _, err := h.CreateContainer(t.Context(), pod, c); err != nil {
			t.Fatal(err)
		}
		if u := p.Health().Unprotected; len(u) != 1 || u[0].ID != c.GetId() {
			t.Fatalf("made: %+v", u)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if u := p.Health().Unprotected; len(u) != 0 {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

// TestSubscription: no mask means all that the handler has methods for; one that is given must have them too.
func TestSubscription(t *testing.T) {
	h := handler{New(Config{}, fixed{&View{}})}
	for version, want := range map[string][]api.Event{
		"v2.4.2":  nil,
		"v2.0.14": {api.Event_CREATE_CONTAINER, api.Event_STOP_CONTAINER, api.Event_REMOVE_CONTAINER},
	} {
		got, err := h.Configure(t.Context(), "", "containerd", version)
		var mask api.EventMask
		if mask.Set(want...); err != nil || got != mask {
			t.Errorf("containerd %s: %s, %v; want %s", version, got.PrettyString(), err, mask.PrettyString())
		}
	}
}
