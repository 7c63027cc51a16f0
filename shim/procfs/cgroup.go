package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Hierarchy is the cgroup tree by which containers are told apart and killed.
type Hierarchy struct {
	Version    int    // 1 or 2
	Controller string // of version 1: "freezer", ... or "name=systemd"
	Mount      string // "/sys/fs/cgroup/freezer"; "" if it is not mounted
	Root       string // the part of the tree that is mounted there, mostly "/"
}

// preferred are the trees of cgroup v1, best first: freezer can stop
// processes, the others are those that every runtime uses.
var preferred = []string{"freezer", "devices", "pids", "memory", "name=systemd"}

var errNoCgroup = errors.New("no cgroup hierarchy")

// DetectHierarchy chooses: v2 if that is all there is, else the first of
// freezer, devices, pids, memory, name=systemd on v1. (On a hybrid node v2 has
// no controllers and runtimes may leave containers out of it.)
func DetectHierarchy() (Hierarchy, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Hierarchy{}, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Hierarchy{}, err
	}
	return chooseHierarchy(own, mounts)
}

func chooseHierarchy(own, mounts []byte) (Hierarchy, error) {
	h := Hierarchy{}
	rank := len(preferred)
	for line := range bytes.Lines(own) {
		id, controllers, _, ok := cutCgroup(bytes.TrimSuffix(line, newline))
		if !ok {
			continue
		}
		if string(id) == "0" && len(controllers) == 0 {
			if h.Version == 0 {
				h.Version = 2
			}
			continue
		}
		for i, want := range preferred[:rank] {
			if hasWord(controllers, want) {
				h, rank = Hierarchy{Version: 1, Controller: want}, i
				break
			}
		}
	}
	if h.Version == 0 {
		return h, errNoCgroup
	}
	h.Mount, h.Root = findCgroupMount(h, mounts)
	return h, nil
}

// findCgroupMount reads proc_pid_mountinfo(5): "36 35 0:33 ROOT MOUNT opts
// [optional...] - TYPE source SUPEROPTS". A mount of the whole tree wins.
func findCgroupMount(h Hierarchy, mounts []byte) (mount, root string) {
	for line := range bytes.Lines(mounts) {
		before, after, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(super) < 3 {
			continue
		}
		switch {
		case h.Version == 2 && super[0] == "cgroup2":
		case h.Version == 1 && super[0] == "cgroup" && hasWord([]byte(super[2]), h.Controller):
		default:
			continue
		}
		if mount == "" || fields[3] == "/" {
			mount, root = unescapeMount(fields[4]), unescapeMount(fields[3])
			if root == "/" {
				return mount, root
			}
		}
	}
	return mount, root
}

// unescapeMount undoes \040 and the like.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Dir is where the cgroup with this path (as CgroupPath gives it) is in the
// file system.
func (h Hierarchy) Dir(path string) string {
	if h.Root != "/" && h.Root != "" {
		path = strings.TrimPrefix(path, h.Root)
	}
	return h.Mount + path
}

// CgroupPath is the thread's cgroup in the [Hierarchy] of this node:
// "/kubepods/pod1/abc".
func (p *FS) CgroupPath(tid int) (string, error) {
	h, err := p.hierarchy()
	if err != nil {
		return "", err
	}
	var buf [4096]byte
	b, err := p.read(tid, "cgroup", buf[:])
	if err == nil && len(b) == len(buf) {
		b, err = p.read(tid, "cgroup", make([]byte, 1<<17))
	}
	if err != nil {
		return "", err
	}
	path, ok := h.find(b)
	if !ok {
		return "", fmt.Errorf("/proc/%d/cgroup: no %s: %w", tid, h, errParse)
	}
	return path, nil
}

// Hierarchy is the one that CgroupPath uses.
func (p *FS) Hierarchy() (Hierarchy, error) { return p.hierarchy() }

// String is "cgroup v2" or "cgroup v1 freezer".
func (h Hierarchy) String() string {
	if h.Version == 2 {
		return "cgroup v2"
	}
	return "cgroup v1 " + h.Controller
}

func (h Hierarchy) find(b []byte) (string, bool) {
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, newline)
		if !whole {
			return "", false
		}
		b = rest
		id, controllers, path, ok := cutCgroup(line)
		if !ok {
			continue
		}
		if h.Version == 2 && string(id) == "0" && len(controllers) == 0 ||
			h.Version == 1 && hasWord(controllers, h.Controller) {
			return string(path), len(path) > 0
		}
	}
	return "", false
}

// cutCgroup splits "ID:CONTROLLERS:PATH" (cgroups(7)). A path may hold colons;
// the kernel refuses newlines in it.
func cutCgroup(line []byte) (id, controllers, path []byte, ok bool) {
	id, line, ok1 := bytes.Cut(line, colon)
	controllers, path, ok2 := bytes.Cut(line, colon)
	return id, controllers, path, ok1 && ok2
}

var (
	colon = []byte(":")
	comma = []byte(",")
)

func hasWord(list []byte, word string) bool {
	for len(list) > 0 {
		var w []byte
		w, list, _ = bytes.Cut(list, comma)
		if string(w) == word {
			return true
		}
	}
	return false
}
