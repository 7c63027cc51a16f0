package procfs_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/fanotify/fanotifytest"
	"github.com/stockade-dev/stockade/shim/procfs"
)

func TestMain(m *testing.M) {
	fanotifytest.Main(m, map[string]fanotifytest.ActorFunc{
		"open":   openBy,
		"rename": renamed,
		"pivot":  pivoted,
	})
}

func timeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB) *procfs.FS {
	t.Helper()
	p, err := procfs.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// start runs cmd, whose standard input stays open until the test ends, and
// waits until it has said word, if there is one.
func start(t testing.TB, cmd *exec.Cmd, word string) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if word == "" {
		return
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(line) != word {
		t.Fatalf("the child said %q, %v", line, err)
	}
}

// park says a word and waits for its end.
func park(word string) error {
	fmt.Println(word)
	_, err := io.ReadAll(os.Stdin)
	return err
}

// renamed is a thread, not the leader, with another name and another real uid.
func renamed(args []string) error {
	runtime.LockOSThread() // the first thread
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		name := append([]byte(args[0]), 0)
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(ptr(&name[0])), 0, 0, 0); err != nil {
			result <- err
			return
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 4242, 0, 0); errno != 0 {
			result <- errno
			return
		}
		result <- park(fmt.Sprint(unix.Gettid()))
	}()
	return <-result
}

// pivoted executes args[1:] in a mount namespace whose root is args[0].
func pivoted(args []string) error {
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount(args[0], args[0], "", unix.MS_BIND|unix.MS_REC, "") },
		func() error { return os.Chdir(args[0]) },
		func() error { return unix.PivotRoot(".", ".") },
		func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		func() error { return os.Chdir("/") },
		func() error { return unix.Exec(args[1], args[1:], nil) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func newMountNS(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS}
	return cmd
}
