// Package fanotifytest runs tests that mark real file systems without danger
// to the machine they run on.
//
// A test binary whose TestMain calls [Main] runs in a mount namespace of its
// own, so nothing it mounts outlives it. [Root] makes a file system to mark: an
// overlay of the host's, writable, with a superblock of its own. What opens and
// executes marked things are child processes ([Command], [Actor]): a test
// process that did so itself could wait for its own answer. [Listen] answers.
package fanotifytest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	stageEnv = "STOCKADE_TEST_STAGE" // "tests", or the name of an actor
	enter    = "enter"
)

// An ActorFunc runs in a process of its own with the arguments of [Actor].
type ActorFunc func(args []string) error

// Main runs the tests, or an actor, and does not return. File descriptors that
// the tests leave open fail the run.
func Main(m *testing.M, actors map[string]ActorFunc) {
	switch stage := os.Getenv(stageEnv); stage {
	case "":
		if os.Geteuid() != 0 {
			os.Exit(m.Run()) // Root skips
		}
		os.Exit(rerun())
	case "tests":
		os.Exit(runTests(m))
	case enter:
		fail(runEntered(os.Args[1:]))
	default:
		actor, ok := actors[stage]
		if !ok {
			fail(fmt.Errorf("no actor %q", stage))
		}
		fail(actor(os.Args[1:]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// rerun runs this binary again in a private mount namespace.
func rerun() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageEnv+"=tests")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

func runTests(m *testing.M) int {
	// The first pipe makes Go's poller, whose own fds stay.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	before := openFDs()
	code := m.Run()
	for fd, what := range openFDs() {
		if before[fd] != what {
			fmt.Fprintf(os.Stderr, "leaked fd %s: %s\n", fd, what)
			code = 1
		}
	}
	return code
}

func openFDs() map[string]string {
	fds := map[string]string{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if what, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(what, "/proc/") {
			fds[e.Name()] = what
		}
	}
	return fds
}

func runEntered(args []string) error {
	if err := unix.Chroot(args[0]); err != nil {
		return fmt.Errorf("chroot %s: %w", args[0], err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return &os.PathError{Op: "exec", Path: args[1], Err: unix.Exec(args[1], args[1:], []string{"PATH=/usr/bin:/bin"})}
}

// Command is argv run with root as its root directory. The calling process
// executes nothing of root.
func Command(ctx context.Context, root string, argv ...string) *exec.Cmd {
	return Actor(ctx, enter, append([]string{root}, argv...)...)
}

// Actor is this test binary, run as the actor of that name.
func Actor(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), stageEnv+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Root mounts a writable overlay of the host's root, with /dev/null. It skips
// the test when not run by root.
func Root(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	scratch := Tmpfs(t)
	for _, d := range []string{"upper", "work", "root"} {
		must(t, os.Mkdir(filepath.Join(scratch, d), 0o755))
	}
	root := filepath.Join(scratch, "root")
	opts := fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", scratch, scratch)
	must(t, unix.Mount("overlay", root, "overlay", 0, opts))
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	if err := unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != unix.EEXIST {
		must(t, err)
	}
	return root
}

// Tmpfs mounts an empty file system.
func Tmpfs(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// Path opens path with O_PATH, which causes no event.
func Path(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
