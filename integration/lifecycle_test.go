package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

// TestLifecycle kills, stops and starves each part of Stockade while containers run, on a node of its own.
//
// Two things it cannot show. A queue of events that overflows: the group has no limit (FAN_UNLIMITED_QUEUE), and every
// waiting event has a blocked thread, so the container's own limit of processes bounds it. And a shim and a guard killed
// in the same instant as containerd: nobody is left then (see package guard); with containerd alive, it is containerd
// that removes the container, as "both killed" shows.
func TestLifecycle(t *testing.T) {
	n, conf := lifeNode(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *life)
	}{
		{"shim killed", shimKilled},
		{"shim killed with an exec pending", shimKilledPending},
		{"shim stopped", shimStopped},
		{"guard killed", guardKilled},
		{"guard stopped", guardStopped},
		{"both killed", bothKilled},
		{"containerd killed", containerdKilled},
		{"containerd stopped", containerdStopped},
		{"shim without descriptors", shimWithoutDescriptors},
		{"incident folder full", incidentsFull},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, &life{node: n, conf: conf})
			nothingOf(t, n)
		})
	}
}

// life is what a test of the lifecycle works with.
type life struct {
	node *node.Node
	conf node.Config
}

func lifeNode(t *testing.T) (*node.Node, node.Config) {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	conf := node.Config{Dir: filepath.Join(root, ".work/lc"), Bin: []string{filepath.Join(root, "bin")}}
	before := machine(t)
	n, err := node.Start(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if after := machine(t); after != before {
			t.Errorf("the machine is not as it was:\n%s\nbefore:\n%s", after, before)
		}
		if left := processesOf(conf.Dir); len(left) > 0 {
			t.Errorf("processes are left: %q", left)
		}
	})
	img, err := (&image.Builder{Root: root, Log: os.Stderr}).Named(t.Context(), "probe")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Import(t.Context(), img.Tar); err != nil {
		t.Fatal(err)
	}
	profile(t, n, "life", "  allow: {exec: [/bin/probe, /bin/dynamic], read: [\"@image\"]}\n  sessions: {allow: {exec: [/bin/probe]}}\n")
	profile(t, n, "life-deny", "  onViolation: deny\n  allow: {exec: [/bin/probe], read: [\"@image\"]}\n  sessions: {allow: {exec: [/bin/probe]}}\n")
	return n, conf
}

// machine is what must be the same after a node has gone.
func machine(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, f := range []string{"/proc/sys/fs/fanotify/max_user_groups", "/proc/sys/fs/fanotify/max_user_marks", "/proc/sys/fs/fanotify/max_queued_events"} {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s", f, data)
	}
	return b.String()
}

// processesOf lists what was started by the node in dir.
func processesOf(dir string) []string {
	var left []string
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range environs {
		data, err := os.ReadFile(f)
		if err != nil || !strings.Contains("\x00"+string(data), "\x00STOCKADE_NODE="+dir+"\x00") {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline"))
		left = append(left, strings.ReplaceAll(string(args), "\x00", " "))
	}
	return left
}

// nothingOf asserts that the containers of n have left nothing: no process, mount, cgroup, socket or state file.
func nothingOf(t *testing.T, n *node.Node) {
	t.Helper()
	look := func() []string {
		left := slices.DeleteFunc(processesOf(n.Dir()), func(args string) bool { return strings.Contains(args, "containerd --config") })
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for m := range strings.Lines(string(mounts)) {
			if strings.Contains(m, "/"+n.Namespace+"/") {
				left = append(left, m)
			}
		}
		for _, pattern := range []string{"/sys/fs/cgroup/" + n.Namespace + "/*/", "/sys/fs/cgroup/*/" + n.Namespace + "/*/"} {
			dirs, _ := filepath.Glob(pattern)
			left = append(left, dirs...)
		}
		for _, pattern := range []string{"/*.json", "/n/*", "/c/*"} {
			files, _ := filepath.Glob(n.StateDir() + pattern)
			left = append(left, files...)
		}
		return left
	}
	var left []string
	for range 200 {
		if left = look(); len(left) == 0 {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Errorf("left behind: %q", left)
}

func (l *life) run(t *testing.T, profile string, args ...string) *node.Task {
	t.Helper()
	task := fenced(t, l.node, node.RunOpts{Image: image.Ref("probe"), Profile: profile, Args: append([]string{"/bin/probe"}, args...)})
	return task
}

// waiting runs a container that will try what is not declared when it is asked to stop.
func (l *life) waiting(t *testing.T) (task *node.Task, shim, guard int) {
	t.Helper()
	task = l.run(t, "life", "onterm", "exec", "/bin/hello")
	l.ready(t, task)
	shim = parent(task.InitPID())
	return task, shim, l.guard(t, shim, 0)
}

func (l *life) ready(t *testing.T, task *node.Task) {
	t.Helper()
	if err := task.WaitOutput(t.Context(), "waiting"); err != nil {
		t.Fatal(err)
	}
}

// guard is the shim's guard, once it is another than not.
func (l *life) guard(t *testing.T, shim, not int) (pid int) {
	t.Helper()
	l.comes(t, "the shim has a guard", func() bool { pid = guardOf(shim); return pid != 0 && pid != not })
	return pid
}

// comes waits for something that must happen; how long it takes is not asserted.
func (l *life) comes(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 1200 {
		if is() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("it does not come to this: %s\n%s", what, l.node.LogTail())
}

func gone(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ") // nobody may be left to reap it
}

func signalled(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatalf("signal %d to %d: %v", sig, pid, err)
	}
}

// dies expects that every process of the container goes away and that nothing undeclared ran, then removes it.
func (l *life) dies(t *testing.T, task *node.Task, pids []int) {
	t.Helper()
	l.comes(t, "every process of the container is dead", func() bool { return !slices.ContainsFunc(pids, func(pid int) bool { return !gone(pid) }) })
	if strings.Contains(task.Output(), "hello ran") {
		t.Errorf("an undeclared program ran: %s", task.Output())
	}
	// While containerd cleans up after a dead shim, it says that the connection is closed, under any runtime.
	l.comes(t, "the container can be removed", func() bool { return task.Delete(t.Context()) == nil })
}

func shimKilled(t *testing.T, l *life) {
	task := l.run(t, "life", "fork", "20", "3600")
	if err := task.WaitOutput(t.Context(), "forked"); err != nil {
		t.Fatal(err)
	}
	pids, err := task.PIDs(t.Context())
	if err != nil || len(pids) != 21 {
		t.Fatalf("%v, %v", pids, err)
	}
	signalled(t, parent(task.InitPID()), unix.SIGKILL)
	l.dies(t, task, pids)
}

// The kernel would allow what is pending when the group's last holder goes. The guard is the last.
func shimKilledPending(t *testing.T, l *life) {
	for range number("REPEAT", 10, 3) {
		task, shim, _ := l.waiting(t)
		init := task.InitPID()
		signalled(t, shim, unix.SIGSTOP)
		signalled(t, init, unix.SIGTERM)
		l.comes(t, "the exec is pending", func() bool {
			stack, err := os.ReadFile(fmt.Sprintf("/proc/%d/stack", init))
			return err != nil || strings.Contains(string(stack), "fanotify_handle_event") || gone(init)
		})
		signalled(t, shim, unix.SIGKILL)
		l.dies(t, task, []int{init})
	}
}

func shimStopped(t *testing.T, l *life) {
	task, shim, guard := l.waiting(t)
	init := task.InitPID()
	signalled(t, shim, unix.SIGSTOP)
	l.comes(t, "the guard kills the container", func() bool { return gone(init) })
	signalled(t, shim, unix.SIGCONT)
	if code, err := task.Wait(t.Context()); code != 137 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	l.dies(t, task, []int{init})
	l.comes(t, "the guard ends with the shim", func() bool { return gone(guard) })
}

func guardKilled(t *testing.T, l *life) {
	task, shim, guard := l.waiting(t)
	for range 3 {
		signalled(t, guard, unix.SIGKILL)
		guard = l.guard(t, shim, guard)
		if out, code, err := trySession(t.Context(), task, node.ExecOpts{Args: []string{"/bin/probe", "cat", "/etc/app.conf"}}); code != 0 || err != nil {
			t.Errorf("the container does not go on: %d, %v, %s, %+v", code, err, out, incidentsNow(t, l.node, task.ID))
		}
	}
	if err := task.Kill(t.Context(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stoppedBy(t, l.node, task, "/bin/hello", "hello ran")
	// The new guard is one indeed.
	task, shim, guard = l.waiting(t)
	signalled(t, guard, unix.SIGKILL)
	l.guard(t, shim, guard)
	pids, err := task.PIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// It holds the containers a moment after it is there: a request through the shim comes after.
	l.guarded(t, task)
	signalled(t, shim, unix.SIGKILL)
	l.dies(t, task, pids)
}

// guarded waits until the shim's latest guard watches: it has opened the container's cgroup.
func (l *life) guarded(t *testing.T, task *node.Task) {
	t.Helper()
	shim := parent(task.InitPID())
	l.comes(t, "the guard holds the container", func() bool {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", guardOf(shim)))
		return slices.ContainsFunc(fds, func(fd string) bool {
			to, _ := os.Readlink(fd)
			return strings.Contains(to, task.Cgroup())
		})
	})
}

func guardStopped(t *testing.T, l *life) {
	task, _, guard := l.waiting(t)
	signalled(t, guard, unix.SIGSTOP)
	if out, code, err := trySession(t.Context(), task, node.ExecOpts{Args: []string{"/bin/probe", "cat", "/etc/app.conf"}}); code != 0 || err != nil {
		t.Errorf("the container does not go on: %d, %v, %s", code, err, out)
	}
	if err := task.Kill(t.Context(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stoppedBy(t, l.node, task, "/bin/hello", "hello ran") // the shim alone
	l.comes(t, "the stopped guard has been ended", func() bool { return gone(guard) })
}

// Nobody holds pending events any more; containerd's clean-up after a dead shim removes the container.
func bothKilled(t *testing.T, l *life) {
	task, shim, guard := l.waiting(t)
	init := task.InitPID()
	signalled(t, shim, unix.SIGSTOP) // so that it does not see the guard die
	signalled(t, guard, unix.SIGKILL)
	signalled(t, shim, unix.SIGKILL)
	l.dies(t, task, []int{init})
}

func containerdKilled(t *testing.T, l *life) {
	stays, _, _ := l.waiting(t)
	deviates, _, _ := l.waiting(t)
	ends := l.run(t, "life", "onterm", "stat", "/etc/app.conf")
	l.ready(t, ends)
	if err := l.node.Crash(); err != nil {
		t.Fatal(err)
	}
	dead := deviates.InitPID()
	signalled(t, dead, unix.SIGTERM)
	l.comes(t, "a container that deviates dies without containerd", func() bool { return gone(dead) })
	signalled(t, ends.InitPID(), unix.SIGTERM)
	if gone(stays.InitPID()) {
		t.Error("a container died with containerd")
	}
	if err := l.node.Restart(t.Context(), l.conf); err != nil {
		t.Fatal(err)
	}
	status := func(task *node.Task) (string, uint32) {
		s, err := task.Task.Status(l.node.Context(t.Context()))
		if errdefs.IsNotFound(err) {
			return "gone", 0 // containerd removes, when it starts, a task whose processes have ended meanwhile: runc's too
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(s.Status), s.ExitStatus
	}
	l.comes(t, "what happened meanwhile is known", func() bool {
		s, code := status(deviates)
		return s == "gone" || s == "stopped" && code == 137
	})
	l.comes(t, "how the other ended is known", func() bool {
		s, code := status(ends)
		return s == "gone" || s == "stopped" && code == 0
	})
	if s, _ := status(stays); s != "running" {
		t.Errorf("the container is %s after containerd's restart", s)
	}
	if out, code, err := trySession(t.Context(), stays, node.ExecOpts{Args: []string{"/bin/probe", "cat", "/etc/app.conf"}}); code != 0 || err != nil {
		t.Errorf("session: %d, %v, %s", code, err, out)
	}
	if _, err := stays.Exec(t.Context(), node.ExecOpts{Args: []string{"/bin/other"}}); err == nil || !strings.Contains(err.Error(), "not declared") {
		t.Errorf("an undeclared session: %v", err)
	}
	if err := stays.Kill(t.Context(), unix.SIGTERM); err != nil {
		t.Error(err)
	}
	l.comes(t, "it is still protected", func() bool { s, code := status(stays); return s == "stopped" && code == 137 })
	for _, task := range []*node.Task{stays, deviates} {
		if err := task.DeleteTask(t.Context()); err != nil {
			t.Error(err)
		}
		if err := task.WaitShim(t.Context()); err != nil {
			t.Error(err)
		}
		var execs int
		for _, i := range incidentsNow(t, l.node, task.ID) {
			if i.Access.Path == "/bin/hello" {
				execs++
			}
		}
		if execs != 1 || strings.Contains(task.Output(), "hello ran") {
			t.Errorf("%s: %d incidents; output %s", task.ID, execs, task.Output())
		}
	}
	for _, task := range []*node.Task{stays, deviates, ends} {
		if err := task.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Nothing that can block stands before a kill: containerd, to which the shim logs and publishes, does not read.
func containerdStopped(t *testing.T, l *life) {
	var tasks []*node.Task
	for range 4 {
		task, _, _ := l.waiting(t)
		tasks = append(tasks, task)
	}
	signalled(t, l.node.PID(), unix.SIGSTOP)
	cont := func() { _ = unix.Kill(l.node.PID(), unix.SIGCONT) }
	defer cont()
	for _, task := range tasks {
		init := task.InitPID()
		signalled(t, init, unix.SIGTERM)
		l.comes(t, "the container dies while containerd does not listen", func() bool { return gone(init) })
	}
	for _, task := range tasks {
		l.comes(t, "the incident is written", func() bool { return len(incidentsNow(t, l.node, task.ID)) == 1 })
	}
	cont()
	for _, task := range tasks {
		stoppedBy(t, l.node, task, "/bin/hello", "hello ran")
		if err := task.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A shim that can open nothing more cannot look at what is opened: nobody is let through (the kernel refuses what it
// cannot hand over), nobody is killed for it, and when it can again all is as before.
func shimWithoutDescriptors(t *testing.T, l *life) {
	busy := l.run(t, "life", "seq", "loop", "1000", "spawn", "/bin/dynamic", "--", "onterm", "exec", "/bin/hello")
	shim := parent(busy.InitPID())
	if err := busy.WaitOutput(t.Context(), "dynamic"); err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Prlimit(shim, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(shim, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if err := unix.Prlimit(shim, unix.RLIMIT_NOFILE, &old, nil); err != nil {
		t.Fatal(err)
	}
	if gone(busy.InitPID()) {
		for _, i := range incidentsNow(t, l.node, busy.ID) {
			t.Logf("%+v", i)
		}
		t.Fatalf("it was killed for a shortage of the shim's: %s", l.node.LogTail())
	}
	for !strings.Contains(busy.Output(), "waiting") { // under emulation that takes a minute: as long as it does go on
		said := len(busy.Output())
		l.comes(t, "it goes on", func() bool { return len(busy.Output()) > said })
	}
	if err := busy.Kill(t.Context(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stoppedBy(t, l.node, busy, "/bin/hello", "ran as /bin/hello")
	if err := busy.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// Where incidents cannot be kept, everything is answered as before, and the loss is said as soon as it can be.
func incidentsFull(t *testing.T, l *life) {
	task := l.run(t, "life-deny", "loop", "1000000", "usleep", "10000")
	deny := func() {
		out, _, err := trySession(t.Context(), task, node.ExecOpts{Args: []string{"/bin/probe", "spawn", "/bin/hello"}})
		if err != nil || strings.Contains(out, "hello ran") || !strings.Contains(out, "failed") {
			t.Errorf("%v: %s, %+v", err, out, incidentsNow(t, l.node, task.ID))
		}
	}
	deny()
	l.comes(t, "an incident", func() bool { return len(incidentsNow(t, l.node, task.ID)) > 0 })
	dir := l.node.IncidentsDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the folder is not full: %v", err)
	}
	for range 5 {
		deny()
	}
	if err := os.Remove(filepath.Join(dir, "full")); err != nil {
		t.Fatal(err)
	}
	lost := uint64(0)
	l.comes(t, "the loss is said", func() bool {
		deny()
		lost = 0
		for _, i := range incidentsNow(t, l.node, "") {
			lost += i.Lost
		}
		for _, i := range incidentsNow(t, l.node, task.ID) {
			lost += i.Lost
		}
		return lost > 0
	})
	t.Logf("%d incidents were counted as lost", lost)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Error(err)
	}
	mounted = false
	if err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}
