package features

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limit is a bound of the kernel and how much of it is used; -1 is not known.
type Limit struct {
	Name   string `json:"name"`
	Use    int64  `json:"use"`
	Max    int64  `json:"max"`
	Detail string `json:"detail,omitempty"`
	// Low: the next container or the next few may not get theirs.
	Low bool   `json:"low"`
	Fix string `json:"fix,omitempty"`
}

// GroupLimit is the name of the limit that the shim can raise by itself.
const GroupLimit = "fs.fanotify.max_user_groups"

// Limits reads the bounds that Stockade can run into. It walks /proc.
func Limits() []Limit {
	groups, marks := fanotifyUse()
	g := Limit{Name: GroupLimit, Use: groups, Max: sysctl("fanotify/max_user_groups"), Detail: "one for each shim (pod)"}
	g.Low = g.Max >= 0 && g.Use >= 0 && g.Use > g.Max-16
	if g.Low {
		g.Fix = fmt.Sprintf("sysctl -w fs.fanotify.max_user_groups=%d", max(1024, 2*g.Max))
	}
	m := Limit{
		Name: "fs.fanotify.max_user_marks", Use: marks, Max: sysctl("fanotify/max_user_marks"),
		Detail: "does not bind Stockade's groups (FAN_UNLIMITED_MARKS); each mark takes about a kilobyte of kernel memory",
	}
	return []Limit{g, m, openFiles(), allFiles()}
}

// openFiles is this process's RLIMIT_NOFILE. A shim inherits containerd's; Go
// raises the soft limit to the hard one when a program starts, so the hard one
// is what counts.
func openFiles() Limit {
	l := Limit{Name: "RLIMIT_NOFILE (hard)", Use: -1, Max: -1, Detail: "of this process; a shim has containerd's, and uses about ten for a container and one for each waiting event"}
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		l.Max = int64(min(r.Max, 1<<62))
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		l.Use = int64(len(entries) - 1)
	}
	if l.Low = l.Max >= 0 && l.Max < 4096; l.Low {
		l.Fix = "LimitNOFILE=65536 in containerd's unit"
	}
	return l
}

func allFiles() Limit {
	l := Limit{Name: "fs.file-max", Use: -1, Max: -1, Detail: "open files of the whole node"}
	text, err := os.ReadFile("/proc/sys/fs/file-nr")
	if f := strings.Fields(string(text)); err == nil && len(f) == 3 {
		l.Use, l.Max = number(f[0]), number(f[2])
	}
	if l.Low = l.Max >= 0 && l.Use > l.Max/10*9; l.Low {
		l.Fix = "sysctl -w fs.file-max=..."
	}
	return l
}

func sysctl(name string) int64 {
	text, err := os.ReadFile("/proc/sys/fs/" + name)
	if err != nil {
		return -1
	}
	return number(strings.TrimSpace(string(text)))
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// groupFile is one open fanotify group of some process.
type groupFile struct{ pid, fd int }

// fanotifyUse counts the node's fanotify groups and their marks. A group that
// several processes hold counts once (kcmp(2) tells). Users are not told apart:
// all that Stockade has are root's.
func fanotifyUse() (groups, marks int64) {
	dirs, err := filepath.Glob("/proc/[0-9]*/fd")
	if err != nil || os.Geteuid() != 0 {
		return -1, -1
	}
	var seen []groupFile
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		for _, fd := range fanotifyFDs(dir) {
			g := groupFile{pid, fd}
			if known(seen, g) {
				continue
			}
			seen = append(seen, g)
			info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
			if err == nil { // one line for the group, one for each mark: proc(5)
				marks += int64(bytes.Count(info, []byte("\nfanotify "))) - 1
			}
		}
	}
	return int64(len(seen)), max(0, marks)
}

func fanotifyFDs(dir string) []int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // the process is gone
	}
	var fds []int
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || target != "anon_inode:[fanotify]" {
			continue
		}
		if fd, err := strconv.Atoi(e.Name()); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// known tells whether g is the same open file as one of seen. Without kcmp
// (CONFIG_KCMP) every holder counts.
func known(seen []groupFile, g groupFile) bool {
	const kcmpFile = 0
	for _, s := range seen {
		r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(s.pid), uintptr(g.pid), kcmpFile, uintptr(s.fd), uintptr(g.fd), 0)
		if errno == 0 && r == 0 {
			return true
		}
	}
	return false
}
