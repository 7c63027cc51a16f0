package profiles

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/profiles/seccomp"
)

// eperm is errno(3) EPERM.
const eperm = 1

// SeccompAlone compiles what the profile says of system calls for a container that nobody watches: what is not declared
// fails with EPERM, and no process is killed or named for it. arch is in Go's words; kernel is the node's release.
//
// Nothing is known of the container's no_new_privs, so the filter lets through what the runtime itself needs where it is
// not set. A profile that does not enforce gives nil.
func (p *Profile) SeccompAlone(arch, kernel string) (*specs.LinuxSeccomp, error) {
	if p.Mode != ModeEnforce && p.Mode != ModeUnset {
		return nil, nil
	}
	loose := true
	c := &compiler{profile: p.clone(), target: Target{Arch: arch, Kernel: kernel}}
	c.profile.AllowPrivilegeEscalation = &loose
	c.plan = &Plan{Mode: ModeEnforce, capabilities: map[string]*Rule{}}
	c.capabilities()
	filter, err := seccomp.Build(c.policy())
	if err := errors.Join(append(c.errs, err)...); err != nil {
		return nil, err
	}
	// No default errno: NRI does not carry one, and EPERM is what the runtime takes then (config-linux.md of the runtime
	// specification).
	filter.DefaultAction = specs.ActErrno
	for i := range filter.Syscalls {
		if s := &filter.Syscalls[i]; s.Action == specs.ActNotify || s.Action == specs.ActKillProcess {
			errno := uint(eperm)
			s.Action, s.ErrnoRet = specs.ActErrno, &errno
		}
	}
	return filter, nil
}
