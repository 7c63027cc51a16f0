package cri

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/stockade-dev/stockade/profiles/selection"
)

// TestKindsOfContainers: to the CRI an init container, a sidecar that is started again and an ephemeral container are
// containers that come early, again, or late. Each gets its own profile, and what happens to one ends no other.
func TestKindsOfContainers(t *testing.T) {
	for _, with := range []string{"shim alone", "with the plugin"} {
		t.Run(with, func(t *testing.T) {
			if with != "shim alone" {
				shared.plugin(t, "")
			}
			p := shared.pod(t, podSpec{namespace: "kinds"})
			side := p.mustRun(t, "init", sleeps...) // a sidecar: an init container that stays
			for range 2 {
				// kubelet starts it again: the same name, another attempt, the same fence.
				deviating := p.mustRun(t, "init", deviates...)
				deviating.killed(t, otherRan)
			}
			main := p.mustRun(t, "main", sleeps...)
			// An ephemeral container comes to a pod that runs.
			protected(t, p, "debugger", "debugger")
			p.mustRun(t, "debugger", deviates...).killed(t, otherRan)
			p.refused(t, "no profile for", "stranger", deviates...)
			for _, c := range []*container{side, main} {
				if out, err := c.exec(t, "/bin/hello"); err != nil || !strings.Contains(out, "hello ran") {
					t.Errorf("what happened to others ended a container: %q, %v", out, err)
				}
			}
		})
	}
}

// meddler is another NRI plugin, behind ours, that takes away or exchanges what ours has said.
type meddler struct {
	seen  atomic.Int32
	forge string // put in its place; empty: nothing
}

func (m *meddler) CreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	adjust := &api.ContainerAdjustment{}
	if c.GetAnnotations()[selection.Selected] != "" { // as ours has left it
		m.seen.Add(1)
	}
	adjust.RemoveAnnotation(selection.Selected)
	adjust.RemoveAnnotation(selection.SelectedFacts)
	if m.forge != "" {
		adjust.AddAnnotation(selection.Selected, m.forge)
	}
	return adjust, nil, nil
}

// meddle connects it until the test ends.
func (c *client) meddle(t *testing.T, m *meddler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := stub.New(m, stub.WithPluginName("meddler"), stub.WithPluginIdx("90"), stub.WithSocketPath(c.node.NRISocket()), stub.WithOnClose(func() {}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		cancel()
	})
}

// TestMeddlingPlugin: what another plugin has done to our choice is seen when all have spoken, and the container is
// refused. Without our validation it would be made: labels would not be known, and the shim's own choice is another.
func TestMeddlingPlugin(t *testing.T) {
	for name, forge := range map[string]string{"takes it away": "", "forges another": "choice@sha256:" + strings.Repeat("0", 64) + ":" + strings.Repeat("0", 64)} {
		t.Run(name, func(t *testing.T) {
			m := &meddler{forge: forge}
			t.Run("control", func(t *testing.T) {
				// Alone, it stands in nobody's way: the shim chooses.
				if forge == "" {
					shared.meddle(t, &meddler{})
					shared.pod(t, podSpec{}).mustRun(t, "main", deviates...).killed(t, otherRan)
				}
			})
			shared.plugin(t, "")
			protected(t, shared.pod(t, podSpec{}), "main", "main")
			shared.meddle(t, m)
			// The shim alone would take it, as the control shows.
			shared.pod(t, podSpec{}).refused(t, "stockade-nri's choice did not get through", "main", deviates...)
			if m.seen.Load() == 0 {
				t.Error("the other plugin never saw our annotation: this shows nothing")
			}
		})
	}
}
