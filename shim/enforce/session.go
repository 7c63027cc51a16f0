package enforce

import (
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
)

// JudgeSession asks the plan about the program that an exec session names, before anything of it exists. It returns
// the violation if the plan stops it, nil if it may go on. It is for a good answer early: the exec itself is judged
// again, by what is really executed. So a program that is not found goes on, to the runtime's own error.
func (c *Container) JudgeSession(args, env []string, cwd string) *Violation {
	if len(args) == 0 {
		return nil
	}
	name, st, err := c.lookPath(args[0], env, cwd)
	if err != nil {
		return nil
	}
	plan := c.Plan()
	a := profiles.Access{
		Kind: profiles.Exec, Path: name,
		Subject: profiles.Subject{Session: true, SessionRoot: true},
	}
	if m := c.mounts[st.Mnt_id]; m != nil && m.image {
		a.Image = c.image.Unchanged(name, m.readOnly)
	}
	if plan.NeedsHash(name) {
		return nil // its bytes are looked at when it is executed
	}
	v := plan.Decide(&a)
	if v.Allowed() {
		return nil
	}
	c.counts.decided(profiles.Exec, profiles.Deny)
	v.Action = profiles.Deny // refused before it exists: there is nothing to kill
	return &Violation{Time: time.Now(), Plan: plan, Access: a, Verdict: v, Suggest: plan.Suggest(&a), Cmdline: args}
}

// lookPath finds what the runtime will execute for name: its path in the container with links resolved.
func (c *Container) lookPath(name string, env []string, cwd string) (string, unix.Statx_t, error) {
	var candidates []string
	switch {
	case path.IsAbs(name):
		candidates = []string{name}
	case strings.Contains(name, "/"):
		candidates = []string{path.Join("/", cwd, name)}
	default:
		for dir := range strings.SplitSeq(pathOf(env), ":") {
			candidates = append(candidates, path.Join("/", dir, name))
		}
	}
	for _, p := range candidates {
		resolved, st, err := c.resolve(p)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return resolved, st, nil
		}
	}
	return "", unix.Statx_t{}, fmt.Errorf("no executable %q in the container", name)
}

// pathOf is the PATH that an environment sets last, as the runtime takes it.
func pathOf(env []string) string {
	found := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			found = v
		}
	}
	return found
}

// resolve follows links as the container would. It opens nothing but O_PATH descriptors, which are no events.
func (c *Container) resolve(name string) (string, unix.Statx_t, error) {
	var st unix.Statx_t
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(c.root, name, how)
	if err != nil {
		return "", st, &os.PathError{Op: "look up in container", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID|unix.STATX_TYPE|unix.STATX_MODE, &st); err != nil {
		return "", st, os.NewSyscallError("statx", err)
	}
	resolved, err := c.proc.FDPath(fd)
	return resolved, st, err
}
