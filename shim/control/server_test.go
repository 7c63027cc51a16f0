package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/shim/control/api"
)

type handler struct {
	own     atomic.Int64
	reloads atomic.Int64
	last    atomic.Pointer[api.ReloadRequest]
}

func (h *handler) Status(context.Context) (*api.Status, error) {
	return &api.Status{PID: os.Getpid()}, nil
}

func (h *handler) Reload(_ context.Context, p api.Peer, r api.ReloadRequest) (*api.ReloadResponse, error) {
	if p.PID == 0 || p.UID != 0 {
		return nil, fmt.Errorf("peer %+v", p)
	}
	if r.Profile == "wrong" {
		return nil, errors.New("what is wrong")
	}
	h.reloads.Add(1)
	h.last.Store(&r)
	return &api.ReloadResponse{Containers: []api.Reloaded{{ID: r.Container}}}, nil
}

func (h *handler) Own(pid int) bool { return int64(pid) == h.own.Load() }

func serve(t *testing.T) (*handler, *Server, string) {
	t.Helper()
	state := t.TempDir()
	h := &handler{}
	s, err := Listen(state, "this shim", h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return h, s, state
}

// TestMain lets the test binary be its own client with another identity.
func TestMain(m *testing.M) {
	if path := os.Getenv("CONTROL_TEST_CLIENT"); path != "" {
		conn, err := net.Dial("unix", path)
		if err == nil {
			// Nothing is said to a client that is not taken: it reads the end.
			_, err = conn.Read(make([]byte, 1))
		}
		fmt.Println(err)
		return
	}
	os.Exit(m.Run())
}

func TestAnswers(t *testing.T) {
	h, s, state := serve(t)
	paths, err := api.Sockets(state)
	if err != nil || len(paths) != 1 || paths[0] != s.Path() {
		t.Fatalf("sockets: %q, %v; want %s", paths, err, s.Path())
	}
	c, err := api.Dial(t.Context(), s.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if st, err := c.Status(t.Context()); err != nil || st.PID != os.Getpid() {
		t.Errorf("status: %+v, %v", st, err)
	}
	r, err := c.Reload(t.Context(), api.ReloadRequest{Container: "one", DryRun: true})
	if err != nil || len(r.Containers) != 1 || r.Containers[0].ID != "one" || !h.last.Load().DryRun {
		t.Errorf("reload: %+v, %v", r, err)
	}
	if _, err := c.Reload(t.Context(), api.ReloadRequest{Profile: "wrong"}); err == nil || !strings.Contains(err.Error(), "what is wrong") {
		t.Errorf("the handler's error: %v", err)
	}
}

func TestModes(t *testing.T) {
	_, s, _ := serve(t)
	for path, want := range map[string]os.FileMode{s.Path(): 0o600 | os.ModeSocket, filepath.Dir(s.Path()): 0o700 | os.ModeDir} {
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

// TestStrangers: who is not root is sent away though the socket's mode were opened to all, and so is a process of a
// container that the shim itself protects.
func TestStrangers(t *testing.T) {
	h, s, state := serve(t)
	for dir := filepath.Dir(s.Path()); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(s.Path(), 0o666); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(t.TempDir(), "client")
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(self, data, 0o755), os.Chmod(filepath.Dir(self), 0o755), os.Chmod(filepath.Dir(filepath.Dir(self)), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{"CONTROL_TEST_CLIENT=" + s.Path()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "EOF\n" {
		t.Errorf("another user's client: %q, %v; want EOF", out, err)
	}
	h.own.Store(int64(os.Getpid()))
	c, err := api.Dial(t.Context(), s.Path())
	if err == nil {
		_, err = c.Status(t.Context())
		_ = c.Close()
	}
	if err == nil {
		t.Error("a process of a protected container was answered")
	}
	_ = state
}

// TestHungClients: clients that say nothing, or half of something, keep nobody from being answered.
func TestHungClients(t *testing.T) {
	h, s, _ := serve(t)
	for i := range maxConnections - 1 {
		conn, err := net.Dial("unix", s.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			if _, err := conn.Write([]byte{0, 0, 0, 9}); err != nil {
				t.Fatal(err)
			}
		}
	}
	c, err := api.Dial(t.Context(), s.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := c.Reload(t.Context(), api.ReloadRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := h.reloads.Load(); n != 100 {
		t.Errorf("%d reloads", n)
	}
}

// TestSilence: a client that says nothing is taken for gone.
func TestSilence(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	p := &patient{Conn: a, silence: time.Millisecond, closed: func() {}}
	defer p.Close()
	if n, err := p.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v", n, err)
	}
}

// TestTraps: what lies in the folder leads nobody astray.
func TestTraps(t *testing.T) {
	_, s, state := serve(t)
	dir := filepath.Dir(s.Path())
	link := filepath.Join(dir, "link.sock")
	file := filepath.Join(dir, "file.sock")
	if err := errors.Join(os.Symlink(s.Path(), link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if paths, err := api.Sockets(state); err != nil || len(paths) != 1 {
		t.Errorf("sockets: %q, %v", paths, err)
	}
	for _, path := range []string{link, file} {
		if c, err := api.Dial(t.Context(), path); err == nil {
			_ = c.Close()
			t.Errorf("%s was dialled", path)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if c, err := api.Dial(t.Context(), s.Path()); err == nil {
		_ = c.Close()
		t.Error("a socket in a folder that everybody writes to was dialled")
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	other := t.TempDir()
	if err := errors.Join(os.Mkdir(elsewhere, 0o755), os.Symlink(elsewhere, filepath.Join(other, "c"))); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen(other, "x", &handler{}); err == nil {
		_ = l.Close()
		t.Error("the folder was a link, and was taken")
	}
}

// TestDeadShim: its socket refuses, and is removed; one that lives is left alone.
func TestDeadShim(t *testing.T) {
	_, s, state := serve(t)
	dead := filepath.Join(filepath.Dir(s.Path()), "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := api.Dial(t.Context(), dead); !api.IsGone(err) {
		t.Errorf("a dead shim's socket: %v", err)
	}
	for _, path := range []string{dead, s.Path()} {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if paths, err := api.Sockets(state); err != nil || len(paths) != 1 || paths[0] != s.Path() {
		t.Errorf("sockets: %q, %v", paths, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if paths, err := api.Sockets(state); err != nil || len(paths) != 0 {
		t.Errorf("after Close: %q, %v", paths, err)
	}
}
