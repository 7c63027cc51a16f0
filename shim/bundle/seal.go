package bundle

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
)

// seal makes everything read-only but what the plan declares writable: the root, the runtime's tmpfs mounts, the
// volumes; declared directories of the image are bound back writable. Where no program is declared they are noexec.
//
// Where AppArmor holds the plan mounts stay as they are, but for nosuid and nodev: what they refused it would not be
// asked about, and nobody would see it. Declared directories are made all the same, and are bound back if the container
// itself asked for a read-only root.
func seal(spec *specs.Spec, plan *profiles.Plan, rootfs string) error {
	r, err := openRoot(rootfs)
	if err != nil {
		return err
	}
	defer r.Close()
	var mounts []string // where the specification's own mounts are, links resolved
	for i := range spec.Mounts {
		dest := r.destination(spec.Mounts[i].Destination)
		mounts = append(mounts, dest)
		sealMount(&spec.Mounts[i], dest, plan)
	}
	roots := plan.WriteRoots()
	spec.Root.Readonly = spec.Root.Readonly || plan.Seal
	var bound []string
	for _, w := range roots {
		target, err := r.target(w, mounts, spec.Process.User)
		if err != nil {
			return fmt.Errorf("declared writable %s: %w", w.Path, err)
		}
		if target == "" || target == "/" || slices.ContainsFunc(bound, func(b string) bool { return within(target, b) }) {
			continue
		}
		bound = append(bound, target)
		if !spec.Root.Readonly {
			continue
		}
		opts := []string{"rbind", "rw", "rprivate", "nosuid", "nodev"}
		if plan.Seal && !plan.ExecNamedBelow(target) {
			opts = append(opts, "noexec")
		}
		m := specs.Mount{Destination: target, Type: "bind", Source: filepath.Join(rootfs, target), Options: opts}
		spec.Mounts = insertMount(spec.Mounts, m)
	}
	return nil
}

// insertMount keeps parents before children: a directory bound back must not cover a volume that is mounted in it.
func insertMount(mounts []specs.Mount, m specs.Mount) []specs.Mount {
	for i := range mounts {
		if within(path.Clean(mounts[i].Destination), m.Destination) {
			return slices.Insert(mounts, i, m)
		}
	}
	return append(mounts, m)
}

// sealMount makes one mount of the specification as narrow as the plan lets it be.
func sealMount(m *specs.Mount, dest string, plan *profiles.Plan) {
	recursive := "" // a recursive bind brings mounts along that plain ro and noexec would not reach
	switch m.Type {
	case "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue":
		return // the kernel's own, already masked and made read-only by the runtime's defaults
	case "tmpfs":
	default:
		if slices.Contains(m.Options, "rbind") {
			recursive = "r"
		}
	}
	if plan.Seal && !writeBelow(plan, dest) {
		m.Options = replace(m.Options, recursive+"ro", "rw", "ro", "rrw")
	}
	if plan.Seal && !plan.ExecNamedBelow(dest) {
		m.Options = replace(m.Options, recursive+"noexec", "exec", "rexec", "noexec")
	}
	if plan.AppArmor != nil && !plan.Seal && m.Type == "tmpfs" {
		// /dev/shm and the like: an exec that the mount refused would be refused in silence, before fanotify is asked.
		m.Options = replace(m.Options, "exec", "noexec")
	}
	m.Options = replace(m.Options, recursive+"nosuid", "suid", "rsuid", "nosuid")
	if dest != "/dev" && !within(dest, "/dev") && m.Type != "tmpfs" {
		m.Options = replace(m.Options, recursive+"nodev", "dev", "rdev", "nodev")
	}
}

// replace drops the options in old and adds opt.
func replace(options []string, opt string, old ...string) []string {
	out := slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == opt || slices.Contains(old, o) })
	return append(out, opt)
}

// writeBelow says whether anything at or below dest is declared writable.
func writeBelow(plan *profiles.Plan, dest string) bool {
	return slices.ContainsFunc(plan.WriteRoots(), func(w profiles.WriteRoot) bool {
		return within(w.Path, dest) || (!w.Exact && within(dest, w.Path))
	})
}

// within says whether p is dir or below it. Both are absolute and clean.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// root is a container's root, in which names are resolved as the container would resolve them.
type root struct{ fd int }

func openRoot(rootfs string) (*root, error) {
	fd, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open container root", Path: rootfs, Err: err}
	}
	return &root{fd}, nil
}

func (r *root) Close() { _ = unix.Close(r.fd) }

// resolve follows name's links inside the root: the path the container sees, and the mode of what is there.
func (r *root) resolve(name string) (resolved string, mode uint32, err error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(r.fd, name, how)
	if err != nil {
		return "", 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", 0, err
	}
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", r.fd))
	if err != nil {
		return "", 0, err
	}
	full, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", 0, err
	}
	if !within(full, top) {
		return "", 0, fmt.Errorf("%s leads out of the container's root", name)
	}
	return path.Clean("/" + strings.TrimPrefix(full, top)), st.Mode, nil
}

// errLinked: the image has a symbolic link in a declared path, so that nothing has that path.
var errLinked = errors.New("leads through a symbolic link")

// target finds what to bind so that w can be written: the directory or file itself, or the directory that a file
// which does not exist yet would be made in. "" when a mount of the specification holds it already, or when nothing
// can have that path.
func (r *root) target(w profiles.WriteRoot, mounts []string, user specs.User) (string, error) {
	if mounted(w.Path, mounts) {
		return "", nil
	}
	name := w.Path
	resolved, mode, err := r.resolve(name)
	switch {
	case errors.Is(err, unix.ENOENT) && w.Exact:
		name = path.Dir(name)
		if mounted(name, mounts) {
			return "", nil
		}
		resolved, mode, err = r.resolve(name)
	}
	if errors.Is(err, unix.ENOENT) {
		if err := r.mkdirAll(name, user); errors.Is(err, errLinked) {
			return "", nil
		} else if err != nil {
			return "", err
		}
		resolved, mode, err = r.resolve(name)
	}
	if err != nil {
		return "", err
	}
	// Rules speak of paths without links: what a declared name leads to is not declared by it. Bound back, it would be
	// open to whatever the filter alone cannot hold; and the image would choose it.
	if resolved != path.Clean(name) {
		return "", nil
	}
	if mode&unix.S_IFMT != unix.S_IFDIR && mode&unix.S_IFMT != unix.S_IFREG {
		return "", fmt.Errorf("is neither a file nor a directory in the image (mode %o)", mode)
	}
	if mounted(resolved, mounts) {
		return "", nil
	}
	return resolved, nil
}

// mkdirAll makes dir in the root, each missing part owned by the container's user.
func (r *root) mkdirAll(dir string, user specs.User) error {
	done := "/"
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		next := path.Join(done, part)
		resolved, mode, err := r.resolve(next)
		if err == nil && resolved != next {
			return errLinked
		}
		if err == nil && mode&unix.S_IFMT == unix.S_IFDIR {
			done = resolved
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("make %s: %s is in the way", dir, next)
		}
		if err := r.mkdir(done, part, user); errors.Is(err, unix.EEXIST) {
			return errLinked // to nothing
		} else if err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
		done = next
	}
	return nil
}

func (r *root) mkdir(parent, name string, user specs.User) error {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(r.fd, parent, how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mkdirat(fd, name, 0o755); err != nil {
		return err
	}
	return unix.Fchownat(fd, name, int(user.UID), int(user.GID), unix.AT_SYMLINK_NOFOLLOW)
}

// mounted says whether p lies in a mount of the specification (and so not in the image's own root).
func mounted(p string, mounts []string) bool {
	return slices.ContainsFunc(mounts, func(m string) bool { return m != "/" && within(p, m) })
}

// destination is where the runtime will mount something that the specification wants at dest: links in the part that
// exists are followed.
func (r *root) destination(dest string) string {
	dest = path.Clean("/" + dest)
	rest := ""
	for p := dest; p != "/"; p = path.Dir(p) {
		if resolved, _, err := r.resolve(p); err == nil {
			return path.Join(resolved, rest)
		}
		rest = path.Join(path.Base(p), rest)
	}
	return dest
}
