package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Processes that wait for an answer nobody gives, to an open or to a system call, must die all the same.

func TestKillBlockedInPermissionEvent(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		for _, freeze := range []bool{false, true} {
			t.Run(fmt.Sprintf("freeze=%v", freeze), func(t *testing.T) {
				dir := t.TempDir()
				if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
					t.Skip("mount: ", err)
				}
				defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
				trace := filepath.Join(t.TempDir(), "opened")
				if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600); err != nil {
					t.Fatal(err)
				}
				script := fmt.Sprintf("for i in $(seq 50); do ( read x < %s/secret; echo $x >> %s ) & done; wait", dir, trace)
				p := park(t, group(t, version), script, false)
				c := p.open(t, version)

				fan, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
				if err != nil {
					t.Skip("fanotify: ", err)
				}
				defer func() { _ = unix.Close(fan) }()
				if err := unix.FanotifyMark(fan, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_PERM, unix.AT_FDCWD, dir); err != nil {
					t.Fatal(err)
				}
				p.run(t)
				eventually(t, "50 opens wait", func() bool {
					n, err := unix.IoctlGetInt(fan, unix.TIOCINQ)
					return err == nil && n >= 50*int(unsafe.Sizeof(unix.FanotifyEventMetadata{}))
				})
				var events [10 * 24]byte // some have been read, and wait for the answer
				if _, err := unix.Read(fan, events[:]); err != nil {
					t.Fatal(err)
				}
				if freeze {
					if err := c.Freeze(); err != nil {
						t.Fatal(err)
					}
				}
				begin := time.Now()
				dies(t, c)
				t.Log("51 dead after", time.Since(begin))
				if data, err := os.ReadFile(trace); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("an open succeeded: %q", data)
				}
			})
		}
	})
}

func TestKillBlockedInNotification(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		out := filepath.Join(t.TempDir(), "out")
		script := fmt.Sprintf("exec >%s; exec %s", out, os.Args[0])
		p := park(t, group(t, version), script, false, "CGROUP_TEST_ROLE=notified")
		c := p.open(t, version)
		p.run(t)
		var remote int
		eventually(t, "the filter", func() bool {
			data, _ := os.ReadFile(out)
			n, err := strconv.Atoi(strings.TrimSuffix(string(data), "\n"))
			remote = n
			return err == nil && strings.HasSuffix(string(data), "\n")
		})
		listener, err := unix.PidfdGetfd(c.init, remote, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(listener) }()
		eventually(t, "it waits", func() bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}, 100)
			return n == 1 && err == nil
		})
		dies(t, c)
		if data, _ := os.ReadFile(out); strings.Contains(string(data), "answered") {
			t.Error("the system call went through")
		}
	})
}

// roleNotified makes its own getppid a notification, says the listener's number, and calls it.
func roleNotified() int {
	runtime.LockOSThread()
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_GETPPID, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Println(err)
		return 1
	}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
		uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		fmt.Println(errno)
		return 1
	}
	fmt.Println(fd)
	_ = unix.Getppid()
	fmt.Println("answered")
	return 0
}
