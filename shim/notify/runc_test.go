package notify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stockade-dev/stockade/profiles/seccomp"
	"github.com/stockade-dev/stockade/shim/notify"
)

// runcBinary is the one that the build makes, never the system's.
func runcBinary(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("STOCKADE_CACHE_BIN")
	if dir == "" {
		dir = "../../.cache/bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, "runc"))
	must(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make deps build", err)
	}
	return path
}

// probeSource is the program of testdata/probe.c: compiled beforehand, where tests run without a compiler.
var probeSource = sync.OnceValues(func() ([]byte, error) {
	if program, err := os.ReadFile("testdata/probe"); err == nil {
		return program, nil
	}
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out, err := exec.Command("gcc", "-static", "-O1", "-o", dir+"/probe", "testdata/probe.c").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("gcc: %w: %s", err, out)
	}
	return os.ReadFile(dir + "/probe")
})

// container is a bundle whose program is testdata/probe.c, under a filter
// that tells this process.
type container struct {
	t        testing.TB
	runc     string
	dir      string
	id       string
	listener *notify.Listener

	mu     sync.Mutex
	calls  []notify.Call
	faults []error

	answer    func(*notify.Call) (notify.Answer, error) // under mu
	onProcess func(notify.Process)                      // under mu
}

// with changes the OCI spec before it is written.
type with func(*specs.Spec)

func asUser(id uint32) with {
	return func(s *specs.Spec) { s.Process.User = specs.User{UID: id, GID: id, AdditionalGids: []uint32{5}} }
}

func inUserNamespace(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
}

var serial struct {
	sync.Mutex
	n int
}

func newContainer(t testing.TB, p seccomp.Policy, changes ...with) *container {
	t.Helper()
	serial.Lock()
	serial.n++
	c := &container{t: t, runc: runcBinary(t), dir: t.TempDir(), id: fmt.Sprintf("notify-%d-%d", os.Getpid(), serial.n)}
	serial.Unlock()
	// A user namespace has to reach the root file system.
	must(t, os.Chmod(filepath.Dir(c.dir), 0o755))
	must(t, os.Chmod(c.dir, 0o755))
	for _, dir := range []string{"rootfs/bin", "rootfs/proc", "rootfs/dev", "rootfs/sys"} {
		must(t, os.MkdirAll(filepath.Join(c.dir, dir), 0o755))
	}
	program, err := probeSource()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c.dir, "rootfs/bin/probe"), program, 0o755))

	p.Arch = runtime.GOARCH
	p.ListenerPath = filepath.Join(c.dir, "s", "notify.sock")
	filter, err := seccomp.Build(p)
	must(t, err)
	c.writeSpec(filter, p.NoNewPrivileges, changes)

	c.listener, err = notify.Listen(p.ListenerPath)
	must(t, err)
	c.listener.OnProcess = func(p notify.Process) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.onProcess != nil {
			c.onProcess(p)
		}
	}
	done := make(chan error, 1)
	go func() { done <- c.listener.Serve(c.handle, c.fault) }()
	t.Cleanup(func() {
		c.command("delete", "--force", c.id).Run()
		must(t, c.listener.Close())
		must(t, <-done)
	})
	return c
}

func (c *container) writeSpec(filter *specs.LinuxSeccomp, noNewPrivileges bool, changes []with) {
	cmd := exec.Command(c.runc, "spec")
	cmd.Dir = c.dir
	must(c.t, cmd.Run())
	data, err := os.ReadFile(c.dir + "/config.json")
	must(c.t, err)
	var s specs.Spec
	must(c.t, json.Unmarshal(data, &s))
	s.Process.Terminal, s.Process.NoNewPrivileges = false, noNewPrivileges
	s.Linux.Seccomp = filter
	for _, change := range changes {
		change(&s)
	}
	if len(s.Linux.UIDMappings) > 0 {
		must(c.t, exec.Command("chown", "-R", "100000:100000", c.dir+"/rootfs").Run())
	}
	c.write(&s)
}

func (c *container) write(s *specs.Spec) {
	data, err := json.Marshal(s)
	must(c.t, err)
	must(c.t, os.WriteFile(c.dir+"/config.json", data, 0o600))
}

func (c *container) command(args ...string) *exec.Cmd {
	return exec.Command(c.runc, append([]string{"--root", c.dir + "/state"}, args...)...)
}

func (c *container) handle(call *notify.Call) (notify.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, *call)
	if c.answer != nil {
		return c.answer(call)
	}
	return notify.Deny(syscall.EPERM), nil
}

func (c *container) fault(_ notify.Process, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, err)
}

// seen gives the calls that were notified since the last time.
func (c *container) seen() []notify.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = nil
	for _, err := range c.faults {
		c.t.Errorf("fault: %v", err)
	}
	return calls
}

func (c *container) setArgs(probes []string) {
	data, err := os.ReadFile(c.dir + "/config.json")
	must(c.t, err)
	var s specs.Spec
	must(c.t, json.Unmarshal(data, &s))
	s.Process.Args = append([]string{"/bin/probe"}, probes...)
	c.write(&s)
}

// run makes the container with these probes, to its end. It gives what the
// probes printed and the exit status, a signal as 128 and its number.
func (c *container) run(probes ...string) (string, int) {
	c.t.Helper()
	c.setArgs(probes)
	return c.output(c.command("run", "--bundle", c.dir, c.id))
}

// start leaves the container's program waiting.
func (c *container) start() {
	c.t.Helper()
	c.setArgs([]string{"pause"})
	if out, status := c.output(c.command("run", "--detach", "--bundle", c.dir, c.id)); status != 0 {
		c.t.Fatalf("runc run: %d %s", status, out)
	}
}

func (c *container) exec(probes ...string) (string, int) {
	c.t.Helper()
	return c.output(c.command(append([]string{"exec", c.id, "/bin/probe"}, probes...)...))
}

// output goes through a file, because a detached container keeps it.
func (c *container) output(cmd *exec.Cmd) (string, int) {
	c.t.Helper()
	file, err := os.CreateTemp(c.dir, "out")
	must(c.t, err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	must(c.t, cmd.Start())
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	data, err := os.ReadFile(file.Name())
	must(c.t, err)
	return string(bytes.TrimSpace(data)), cmd.ProcessState.ExitCode()
}

// patience only bounds how long a failing test hangs.
const patience = 60 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lines(probes ...string) string { return strings.Join(probes, "\n") }
