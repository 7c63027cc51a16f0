package procfs_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/fanotify/fanotifytest"
	"github.com/stockade-dev/stockade/shim/procfs"
)

func ptr(b *byte) unsafe.Pointer { return unsafe.Pointer(b) }

func TestThread(t *testing.T) {
	p := open(t)
	for _, comm := range []string{"plain", ") R 1", "a\nUid:\t0", `\n\\`} {
		if os.Geteuid() != 0 {
			t.Skip("needs root")
		}
		cmd := fanotifytest.Actor(timeout(t), "rename", comm)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		line, _ := bufio.NewReader(out).ReadString('\n')
		tid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		want := procfs.Thread{TID: tid, TGID: cmd.Process.Pid, PPID: os.Getpid(), UID: 4242, Comm: comm}
		if got, err := p.Thread(tid); err != nil || got != want {
			t.Errorf("Thread = %+v, %v; want %+v", got, err, want)
		}
		pr, err := p.Process(tid)
		if err != nil || pr.PPID != os.Getpid() || pr.Comm != comm || pr.StartTime == 0 {
			t.Errorf("Process = %+v, %v", pr, err)
		}
	}
	if _, err := p.Thread(1 << 30); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no such thread: %v", err)
	}
	if _, err := p.Thread(-1); err == nil {
		t.Error("thread -1 exists")
	}
}

func TestExe(t *testing.T) {
	p := open(t)
	sh, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain", "named so (deleted)", "a\nb c"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, sh, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(timeout(t), path, "-c", "echo ready; read x")
		start(t, cmd, "ready")
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		want := procfs.Exe{Path: path, Dev: st.Dev, Ino: st.Ino}
		if got, err := p.Exe(cmd.Process.Pid); err != nil || got != want {
			t.Errorf("Exe = %+v, %v; want %+v", got, err, want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		want.Deleted = true
		if got, err := p.Exe(cmd.Process.Pid); err != nil || got != want {
			t.Errorf("Exe after removal = %+v, %v; want %+v", got, err, want)
		}
	}
	if exe, err := p.Exe(2); err == nil {
		t.Errorf("pid 2 runs %+v", exe)
	}
}

// A path is what the container sees, although we are outside of it.
func TestPathsOfAContainer(t *testing.T) {
	p := open(t)
	root := fanotifytest.Root(t)
	g := fanotifytest.Open(t)
	seen := make(chan procfs.File, 64)
	fanotifytest.Listen(t, g, "", func(s fanotifytest.Seen) bool {
		f, err := p.FD(s.FD)
		if err != nil {
			t.Error(err)
		}
		if id, err := procfs.MountID(s.FD); err != nil || id != f.Mount {
			t.Errorf("MountID = %d, %v, not %d", id, err, f.Mount)
		}
		seen <- f
		return true
	})
	if err := g.MarkFilesystem(fanotifytest.Path(t, root), fanOpen); err != nil {
		t.Fatal(err)
	}
	cmd := newMountNS(fanotifytest.Actor(timeout(t), "pivot", root, "/bin/sh", "-c", "read x </etc/hostname; echo ready; exec sleep 60"))
	start(t, cmd, "ready")
	exe, err := p.Exe(cmd.Process.Pid)
	if err != nil || !strings.HasPrefix(exe.Path, "/usr/bin/") {
		t.Errorf("Exe = %+v, %v", exe, err)
	}
	for f := range seen {
		if f.Path != "/etc/hostname" {
			continue
		}
		if f.Deleted || f.Links == 0 || f.Mode&unix.S_IFMT != unix.S_IFREG || f.Mount == 0 {
			t.Errorf("File = %+v", f)
		}
		return
	}
}

func TestCgroupPath(t *testing.T) {
	p := open(t)
	h, err := p.Hierarchy()
	if err != nil {
		t.Fatal(err)
	}
	own, err := p.CgroupPath(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := strings.TrimSuffix(own, "/") + fmt.Sprintf("/stockade:test,%d", os.Getpid())
	if err := os.Mkdir(h.Dir(path), 0o755); err != nil {
		t.Skipf("%s: no cgroup of ours: %v", h, err)
	}
	t.Cleanup(func() {
		for range 100 { // busy until the child is reaped
			if err = os.Remove(h.Dir(path)); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error(err)
	})
	cmd := exec.CommandContext(timeout(t), "/bin/sleep", "60")
	start(t, cmd, "")
	pid := cmd.Process.Pid
	if err := os.WriteFile(filepath.Join(h.Dir(path), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := p.CgroupPath(pid); err != nil || got != path {
		t.Errorf("CgroupPath = %q, %v; want %q", got, err, path)
	}
}

func TestAncestors(t *testing.T) {
	p := open(t)
	cmd := exec.CommandContext(timeout(t), "/bin/sh", "-c", "/bin/sh -c 'echo $$; read x'; true")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); in.Close(); _ = cmd.Wait() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	grandchild, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	got := p.Ancestors(grandchild, 3)
	var pids []int
	for _, pr := range got {
		pids = append(pids, pr.PID)
		if pr.Exe == "" || pr.Comm == "" || pr.StartTime == 0 {
			t.Errorf("%+v", pr)
		}
	}
	if !slices.Equal(pids, []int{grandchild, cmd.Process.Pid, os.Getpid()}) {
		t.Errorf("Ancestors = %+v", got)
	}
	all := p.Ancestors(os.Getpid(), 100)
	if last := all[len(all)-1]; last.PID != 1 || last.PPID != 0 {
		t.Errorf("the last ancestor is %+v", last)
	}
}

func TestCmdline(t *testing.T) {
	p := open(t)
	argv := []string{"/bin/sh", "-c", "echo ready; read x", "", "a b"}
	cmd := exec.CommandContext(timeout(t), argv[0], argv[1:]...)
	start(t, cmd, "ready")
	if got, err := p.Cmdline(timeout(t), cmd.Process.Pid); err != nil || !slices.Equal(got, argv) {
		t.Errorf("Cmdline = %q, %v", got, err)
	}
	if _, err := p.Cmdline(timeout(t), 1<<30); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no such process: %v", err)
	}
}
