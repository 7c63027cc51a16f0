package seccomp

import (
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// writeFlags are the open flags that ask for more than reading: O_WRONLY, O_RDWR, O_CREAT and O_TRUNC, the same on
// amd64 and arm64 (open(2)). O_TMPFILE is refused without one of them.
const writeFlags = 0o1 | 0o2 | 0o100 | 0o1000

// watched are the calls that change the file system by a path, or what is open in it, or execute one. -1: whatever the
// arguments; else the argument with open flags, and only those that write are told.
var watched = map[string]int{
	"open": 1, "openat": 2, "creat": -1,
	"unlink": -1, "unlinkat": -1, "rmdir": -1,
	"rename": -1, "renameat": -1, "renameat2": -1,
	"link": -1, "linkat": -1, "symlink": -1, "symlinkat": -1,
	"mkdir": -1, "mkdirat": -1, "mknod": -1, "mknodat": -1,
	"chmod": -1, "fchmod": -1, "fchmodat": -1, "fchmodat2": -1,
	"chown": -1, "fchown": -1, "lchown": -1, "fchownat": -1,
	"truncate": -1,
	"setxattr": -1, "fsetxattr": -1, "lsetxattr": -1, "setxattrat": -1,
	"removexattr": -1, "fremovexattr": -1, "lremovexattr": -1, "removexattrat": -1,
	"utime": -1, "utimes": -1, "futimesat": -1, "utimensat": -1,
	"execve": -1, "execveat": -1,
}

// opens are those of them that fanotify sees where nothing is sealed.
var opens = map[string]bool{"open": true, "openat": true, "creat": true, "execve": true, "execveat": true}

// attributes are those that AppArmor does not ask about.
var attributes = map[string]bool{
	"setxattr": true, "fsetxattr": true, "lsetxattr": true, "setxattrat": true,
	"removexattr": true, "fremovexattr": true, "lremovexattr": true, "removexattrat": true,
	"utime": true, "utimes": true, "futimesat": true, "utimensat": true,
}

// Watch says which allowed calls are told to the listener before they are made.
type Watch uint8

// Each holds less than the next.
const (
	WatchNothing    Watch = iota
	WatchAttributes       // of extended attributes and times: where AppArmor holds the rest
	WatchChanges          // of what is in the file system, but for opens: where opens are seen and nothing is sealed
	WatchAll              // and opens for writing and execs, which sealed mounts refuse in silence
)

func (w Watch) holds(name string) bool {
	_, known := watched[name]
	switch w {
	case WatchAttributes:
		return attributes[name]
	case WatchChanges:
		return known && !opens[name]
	case WatchAll:
		return known
	}
	return false
}

// Watched lists the calls of w, sorted.
func Watched(w Watch) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(watched)), func(name string) bool { return !w.holds(name) })
}

// watch turns "allowed" into "told first" for a watched name. Rules that look at arguments already are left alone.
func (w Watch) watch(name string, rules []rule) []rule {
	if !w.holds(name) || len(rules) != 1 || rules[0].action != Allow || rules[0].conditional() {
		return rules
	}
	index := watched[name]
	why := rules[0].why + "; told to the listener first"
	if index < 0 {
		return []rule{{action: Notify, why: why}}
	}
	reads := masked(uint(index), writeFlags, 0)
	out := []rule{{action: Allow, args: []specs.LinuxSeccompArg{reads}, why: rules[0].why}}
	for _, c := range invertMask(reads) {
		out = append(out, rule{action: Notify, args: []specs.LinuxSeccompArg{c}, why: why})
	}
	return out
}
