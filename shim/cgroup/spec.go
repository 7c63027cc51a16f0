package cgroup

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Spec names one control group for another process. It is plain data: JSON in files, AppendBinary between shim and guard.
type Spec struct {
	Version int    `json:"version"` // of the hierarchy: 1 (freezer) or 2
	Path    string `json:"path"`    // in the hierarchy, as in /proc/PID/cgroup
	Dir     string `json:"dir"`     // in the file system
	Inode   uint64 `json:"inode"`   // of Dir, so that a group made later under the same name is not taken for it
	PID     int    `json:"pid"`     // of the container's init
	Start   uint64 `json:"start"`   // of PID, in clock ticks since boot: proc_pid_stat(5), field 22
}

// AppendBinary encodes the spec in a form that the guard reads without a JSON decoder.
func (s Spec) AppendBinary(b []byte) ([]byte, error) {
	for _, n := range []uint64{uint64(s.Version), s.Inode, uint64(s.PID), s.Start} {
		b = binary.AppendUvarint(b, n)
	}
	for _, t := range []string{s.Path, s.Dir} {
		b = binary.AppendUvarint(b, uint64(len(t)))
		b = append(b, t...)
	}
	return b, nil
}

// errMalformed is the answer to bytes that AppendBinary did not make.
var errMalformed = errors.New("malformed control group spec")

// UnmarshalBinary decodes what AppendBinary made.
func (s *Spec) UnmarshalBinary(b []byte) error {
	var n [4]uint64
	for i := range n {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return errMalformed
		}
		n[i], b = v, b[size:]
	}
	var t [2]string
	for i := range t {
		v, size := binary.Uvarint(b)
		if size <= 0 || v > uint64(len(b)-size) {
			return errMalformed
		}
		b = b[size:]
		t[i], b = string(b[:v]), b[v:]
	}
	if len(b) != 0 || n[0] > 2 || n[2] > 1<<31-1 {
		return errMalformed
	}
	*s = Spec{Version: int(n[0]), Inode: n[1], PID: int(n[2]), Start: n[3], Path: t[0], Dir: t[1]}
	return nil
}

// refusal is an ErrRefused that says which group and why.
type refusal struct{ path, why string }

func (r *refusal) Error() string        { return "control group " + strconv.Quote(r.path) + ": " + r.why }
func (r *refusal) Is(target error) bool { return target == ErrRefused }

// check refuses what cannot be a container's group, whoever says it is.
func (s Spec) check() error {
	switch {
	case s.Version != 1 && s.Version != 2:
		return &refusal{s.Path, "unknown hierarchy version " + strconv.Itoa(s.Version)}
	case s.PID <= 1:
		return &refusal{s.Path, "no container's init is pid " + strconv.Itoa(s.PID)}
	case s.Path == "/" || s.Path == "":
		return &refusal{s.Path, "is the root of its hierarchy"}
	case !path.IsAbs(s.Path) || path.Clean(s.Path) != s.Path || strings.HasPrefix(s.Path, "/.."):
		return &refusal{s.Path, "lies outside the root of the caller's cgroup namespace"}
	case s.Dir != path.Clean(s.Dir) || !strings.HasSuffix(s.Dir, s.Path):
		return &refusal{s.Path, "is not what is at " + s.Dir}
	}
	base := path.Base(s.Path)
	for _, suffix := range []string{".slice", ".service", "init.scope"} {
		if strings.HasSuffix(base, suffix) {
			return &refusal{s.Path, "is a unit of the host's, which runc makes for no container"}
		}
	}
	return s.checkOutside()
}

// checkOutside refuses a group that the caller, pid 1, or init's parent is in.
func (s Spec) checkOutside() error {
	others := []int{os.Getpid(), 1}
	if start, ppid, err := statOf(s.PID); err == nil && start == s.Start && ppid > 1 {
		others = append(others, ppid)
	}
	for i, pid := range others {
		paths, err := pathsOf(pid)
		if err != nil {
			if i == 0 {
				return err
			}
			continue // it may have ended, or be hidden from us
		}
		if within(paths.of(s.Version), s.Path) {
			return &refusal{s.Path, "holds process " + strconv.Itoa(pid) + ", which is not the container's"}
		}
	}
	return nil
}

// paths are a process's places in the hierarchies that matter here; "" where it has none.
type paths struct {
	freezer, unified string
	v1               bool // some hierarchy is of version 1
}

func (p paths) of(version int) string {
	if version == 1 {
		return p.freezer
	}
	return p.unified
}

// pathsOf reads /proc/PID/cgroup: lines of id:controllers:path, cgroups(7).
func pathsOf(pid int) (paths, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return paths{}, err
	}
	return parsePaths(string(data)), nil
}

func parsePaths(text string) (p paths) {
	for line := range strings.Lines(text) {
		id, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, where, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		if id == "0" && controllers == "" {
			p.unified = where
			continue
		}
		p.v1 = true
		for controller := range strings.SplitSeq(controllers, ",") {
			if controller == "freezer" {
				p.freezer = where
			}
		}
	}
	return p
}

// statOf gives a process's start time, in clock ticks since boot, and its parent: proc_pid_stat(5).
func statOf(pid int) (start uint64, ppid int, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name may hold anything; field 3 is next
	if len(fields) < 20 {
		return 0, 0, &fs.PathError{Op: "parse", Path: "/proc/" + strconv.Itoa(pid) + "/stat", Err: fs.ErrInvalid}
	}
	if ppid, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, ppid, err
}

// version chooses the hierarchy as package procfs does, which tells containers apart by it: v2 only where that is all there
// is. A wrong choice would make Contains answer for a hierarchy in which every container has the same path.
func (p paths) version() int {
	if p.v1 {
		return 1
	}
	return 2
}

// find describes pid's group in the hierarchy of this version.
func find(pid, version int) (Spec, error) {
	p, err := pathsOf(pid)
	if err != nil {
		return Spec{}, err
	}
	if version == 0 {
		version = p.version()
	}
	start, _, err := statOf(pid)
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Version: version, Path: p.of(version), PID: pid, Start: start}
	if s.Dir, err = s.locate(); err != nil {
		return Spec{}, err
	}
	if err := s.check(); err != nil {
		return Spec{}, err
	}
	return s, s.checkMember()
}

// locate finds the group's directory.
func (s Spec) locate() (string, error) {
	mounts, magic := []string{"/sys/fs/cgroup/freezer"}, int64(unix.CGROUP_SUPER_MAGIC)
	if s.Version == 2 {
		mounts, magic = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}, unix.CGROUP2_SUPER_MAGIC
	}
	for _, mount := range mounts {
		var st unix.Statfs_t
		if err := unix.Statfs(mount, &st); err == nil && int64(st.Type) == magic {
			return path.Join(mount, s.Path), nil
		}
	}
	return "", &fs.PathError{Op: "find the cgroup hierarchy at", Path: mounts[0], Err: fs.ErrNotExist}
}

// checkMember refuses a directory that does not list init: then the hierarchy is not mounted with its root where it was
// looked for, and the directory is somebody else's.
func (s Spec) checkMember() error {
	dir, err := openDir(s.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	pids, err := listDir(dir, nil)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid == s.PID {
			return nil
		}
	}
	return &refusal{s.Path, s.Dir + " does not list the container's init"}
}
