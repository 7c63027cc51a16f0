package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/shim/control"
	"github.com/stockade-dev/stockade/shim/control/api"
)

// shim is a control socket with containers behind it.
type shim struct {
	asked atomic.Int64

	mu         sync.Mutex
	broken     error             // guarded by mu
	containers map[string]string // why they are not reloaded, by id; guarded by mu
}

func (s *shim) Own(int) bool { return false }

func (s *shim) Status(context.Context) (*api.Status, error) { return &api.Status{}, nil }

func (s *shim) Reload(context.Context, api.Peer, api.ReloadRequest) (*api.ReloadResponse, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &api.ReloadResponse{}
	for id, why := range s.containers {
		resp.Containers = append(resp.Containers, api.Reloaded{ID: id, Failed: why})
	}
	return resp, s.broken
}

func (s *shim) set(broken error, containers map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken, s.containers = broken, containers
}

func listen(t *testing.T, state, name string) (*shim, *control.Server) {
	t.Helper()
	s := &shim{}
	server, err := control.Listen(state, name, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return s, server
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 6000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it never came to this: %s", what)
}

// reloads runs a reloader that does not take its time.
func reloads(t *testing.T, state string) *reloader {
	r := newReloader(state)
	r.least, r.most = time.Millisecond, 10*time.Millisecond
	go r.Run(t.Context())
	return r
}

// TestReloadIsTriedAgain: a container that keeps an older profile, and a shim that did not answer, are asked until they
// have the new one; who has it is left in peace.
func TestReloadIsTriedAgain(t *testing.T) {
	state := t.TempDir()
	well, _ := listen(t, state, "well")
	fails, _ := listen(t, state, "fails")
	broken, server := listen(t, state, "broken")
	well.set(nil, map[string]string{"a": ""})
	fails.set(nil, map[string]string{"b": "it does not hold", "c": ""})
	broken.set(errors.New("what is wrong"), nil)
	r := reloads(t, state)
	r.changed([]string{"p"})
	eventually(t, "both failures are known", func() bool {
		f := r.failures()
		return len(f) == 2 && f["b"] == "it does not hold" && f[server.Path()] != ""
	})
	eventually(t, "they are tried again", func() bool { return fails.asked.Load() > 3 && broken.asked.Load() > 3 })
	if n := well.asked.Load(); n != 1 {
		t.Errorf("who has not failed was asked %d times", n)
	}
	fails.set(nil, map[string]string{"b": "", "c": ""})
	broken.set(nil, nil)
	eventually(t, "none fails", func() bool { return len(r.failures()) == 0 })
	before := fails.asked.Load()
	r.changed(nil)
	eventually(t, "all are asked", func() bool { return well.asked.Load() == 2 && fails.asked.Load() > before })
}

// TestReloadForgets: what has ended has not failed.
func TestReloadForgets(t *testing.T) {
	state := t.TempDir()
	pod, _ := listen(t, state, "pod")
	gone, server := listen(t, state, "gone")
	pod.set(nil, map[string]string{"a": "wrong", "b": "wrong"})
	gone.set(nil, map[string]string{"c": "wrong"})
	r := reloads(t, state)
	r.changed([]string{"p"})
	is := func(want ...string) func() bool {
		all := map[string]string{}
		for _, id := range want {
			all[id] = "wrong"
		}
		return func() bool { return maps.Equal(r.failures(), all) }
	}
	eventually(t, "three fail", is("a", "b", "c"))
	pod.set(nil, map[string]string{"b": "wrong"})
	eventually(t, "a container has ended", is("b", "c"))
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a shim has ended", is("b"))
}

// TestReloadOutlastsTheFolder: that the shims cannot be found is no reason to forget that they are to be told.
func TestReloadOutlastsTheFolder(t *testing.T) {
	state := t.TempDir()
	s, server := listen(t, state, "shim")
	s.set(nil, map[string]string{"a": "wrong"})
	dir := filepath.Dir(server.Path())
	if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	r := newReloader(state)
	r.changed([]string{"p"})
	r.round(t.Context())
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	r.round(t.Context())
	if f := r.failures(); f["a"] != "wrong" {
		t.Errorf("the shim was not asked: %v", f)
	}
}
