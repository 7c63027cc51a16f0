package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// rule is one line of a set: what a syscall gets when all args hold.
type rule struct {
	action Action
	errno  uint
	args   []specs.LinuxSeccompArg
	why    string
}

// oldestKernel is the first whose notifications can be continued
// (SECCOMP_USER_NOTIF_FLAG_CONTINUE is 5.5, what libseccomp asks for is 5.7).
const oldestKernel = "5.7"

// defaultRules are moby's rules that hold for p: by architecture,
// capabilities and kernel, which moby's own code asks the running system for.
func defaultRules(p Policy) (map[string][]rule, error) {
	kernel, err := parseKernel(p.Kernel)
	if err != nil {
		return nil, err
	}
	rules := map[string][]rule{}
	for _, call := range moby.DefaultProfile().Syscalls {
		if !included(call.Includes, p, kernel) || excluded(call.Excludes, p, kernel) {
			continue
		}
		r := rule{args: call.Args, why: why(call)}
		switch call.Action {
		case specs.ActAllow:
			r.action = Allow
		case specs.ActErrno:
			r.action, r.errno = Errno, errnoOf(call.ErrnoRet)
		default:
			return nil, fmt.Errorf("@default: moby's profile has the action %s, which this version does not know", call.Action)
		}
		for _, name := range call.Names {
			rules[name] = append(rules[name], r)
		}
	}
	narrow(rules)
	return rules, nil
}

// prSetMM is prctl's PR_SET_MM (linux/prctl.h). With it a process can say where its stack began, and that is how two
// executions of one program are told apart (procfs.Process.Image).
const prSetMM = 35

// narrow takes out of moby's set what our own mechanisms must be able to rely on.
func narrow(rules map[string][]rule) {
	r := rules["prctl"]
	if len(r) != 1 || r[0].action != Allow || r[0].conditional() {
		return
	}
	// By its low 32 bits: the kernel takes an int, and does not look at the rest of the register.
	var others []rule
	for _, arg := range invertMask(masked(0, 1<<32-1, prSetMM)) {
		other := r[0]
		other.args = []specs.LinuxSeccompArg{arg}
		others = append(others, other)
	}
	rules["prctl"] = others
}

func included(f *moby.Filter, p Policy, kernel moby.KernelVersion) bool {
	if f == nil {
		return true
	}
	for _, c := range f.Caps {
		if !slices.Contains(p.Capabilities, c) {
			return false
		}
	}
	return (len(f.Arches) == 0 || slices.Contains(f.Arches, p.Arch)) && (f.MinKernel == nil || !older(kernel, *f.MinKernel))
}

func excluded(f *moby.Filter, p Policy, kernel moby.KernelVersion) bool {
	if f == nil {
		return false
	}
	for _, c := range f.Caps {
		if slices.Contains(p.Capabilities, c) {
			return true
		}
	}
	return slices.Contains(f.Arches, p.Arch) || (f.MinKernel != nil && !older(kernel, *f.MinKernel))
}

func older(a, b moby.KernelVersion) bool {
	return a.Kernel < b.Kernel || (a.Kernel == b.Kernel && a.Major < b.Major)
}

// parseKernel reads the first two numbers of a kernel release (uname -r).
func parseKernel(release string) (moby.KernelVersion, error) {
	if release == "" {
		release = oldestKernel
	}
	major, rest, ok := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	a, errA := strconv.ParseUint(major, 10, 32)
	b, errB := strconv.ParseUint(rest[:end], 10, 32)
	if !ok || errA != nil || errB != nil {
		return moby.KernelVersion{}, fmt.Errorf("kernel release %q: want one that begins like %q", release, "6.1")
	}
	return moby.KernelVersion{Kernel: a, Major: b}, nil
}

// errnoOf gives runc's default, EPERM, where the profile names no error.
func errnoOf(ret *uint) uint {
	if ret == nil {
		return errnoEPERM
	}
	return *ret
}

func why(call *moby.Syscall) string {
	s := "@default"
	if call.Includes != nil && len(call.Includes.Caps) > 0 {
		s += " with " + strings.Join(call.Includes.Caps, ", ")
	}
	for i, a := range call.Args {
		word := " and "
		if i == 0 {
			word = " when "
		}
		s += word + condition(a)
	}
	return s
}

func condition(a specs.LinuxSeccompArg) string {
	op := map[specs.LinuxSeccompOperator]string{
		specs.OpEqualTo: "==", specs.OpNotEqual: "!=",
		specs.OpLessThan: "<", specs.OpLessEqual: "<=",
		specs.OpGreaterThan: ">", specs.OpGreaterEqual: ">=",
	}[a.Op]
	if a.Op == specs.OpMaskedEqual {
		return fmt.Sprintf("argument %d & %#x == %#x", a.Index, a.Value, a.ValueTwo)
	}
	return fmt.Sprintf("argument %d %s %#x", a.Index, op, a.Value)
}

// everyDefaultName lists what @default can hold with some capability, on some
// architecture.
func everyDefaultName() []string {
	var all []string
	for _, call := range moby.DefaultProfile().Syscalls {
		if call.Action == specs.ActAllow {
			all = append(all, call.Names...)
		}
	}
	return all
}
