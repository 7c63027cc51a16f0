package seccomp

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The errors that a filter of ours gives, by number (errno(3)); they are the
// same on all our architectures.
const (
	errnoEPERM  = 1
	errnoENOSYS = 38
	maxErrno    = 4095 // MAX_ERRNO, linux/err.h
)

// Filter is a compiled policy. It is immutable.
type Filter struct {
	policy  Policy
	entries []entry
	// rules of each name that the filter lists. No rule of a name holds:
	// Kill. They are disjoint where their actions differ, because libseccomp
	// promises no order among rules of one syscall.
	rules map[string][]rule
}

// Compile checks p and works out what every syscall of its architectures gets.
func Compile(p Policy) (*Filter, error) {
	if p.Monitor {
		p.SubArches = subArches[p.Arch]
	}
	f := &Filter{policy: p, rules: map[string][]rule{}}
	if err := f.addEntries(); err != nil {
		return nil, err
	}
	d, err := declared(p)
	if err != nil {
		return nil, err
	}
	for name := range f.universe() {
		rules := d.rules(name)
		if len(f.entries) == 1 || p.Monitor {
			rules = p.Watch.watch(name, rules)
		}
		if rules := f.expressible(name, rules); len(rules) > 0 {
			f.rules[name] = rules
		}
	}
	return f, nil
}

func (f *Filter) addEntries() error {
	sub, ok := subArches[f.policy.Arch]
	if !ok {
		return fmt.Errorf("architecture %q: want one of %q", f.policy.Arch, slices.Sorted(maps.Keys(subArches)))
	}
	native, _ := entryOf(f.policy.Arch)
	f.entries = []entry{native}
	for _, name := range slices.Sorted(slices.Values(f.policy.SubArches)) {
		e, _ := entryOf(name)
		if !slices.Contains(sub, name) {
			return fmt.Errorf("further entry %q: %s has %q", name, f.policy.Arch, sub)
		}
		if e != f.entries[len(f.entries)-1] {
			f.entries = append(f.entries, e)
		}
	}
	return nil
}

// universe is every name that the filter has something to say about: what the
// entries' tables hold, and what a newer libseccomp than ours may know.
func (f *Filter) universe() map[string]bool {
	all := map[string]bool{}
	for name := range newer {
		all[name] = true
	}
	for _, e := range f.entries {
		for name := range tables()[e.name].numbers {
			all[name] = true
		}
		if e.name == "x86" {
			for _, parts := range multiplexed {
				for _, name := range parts {
					all[name] = true
				}
			}
		}
	}
	return all
}

// expressible leaves out what libseccomp cannot say for several entries at
// once, so that it falls to the default action: on 32-bit entries it compares
// the low half of an argument only, and the opposite of a condition would
// overlap with the condition; and a notification for the whole of a
// multiplexed call would sweep away the rules for its parts.
func (f *Filter) expressible(name string, rules []rule) []rule {
	if len(f.entries) == 1 {
		return rules
	}
	return slices.DeleteFunc(slices.Clone(rules), func(r rule) bool {
		return r.action == Notify && (r.conditional() || multiplexed[name] != nil)
	})
}

// Spec is the filter as runc reads it. The same policy gives the same spec.
//
// What runc makes of it beyond the rules: a syscall whose number is above
// every listed one fails with ENOSYS (runc's own stub; every name of the table
// is listed so that this means "newer than libseccomp"), and a name that its
// libseccomp does not know is passed over.
func (f *Filter) Spec() *specs.LinuxSeccomp {
	s := &specs.LinuxSeccomp{
		DefaultAction: specs.ActKillProcess,
		ListenerPath:  f.policy.ListenerPath,
	}
	if f.policy.Monitor {
		s.DefaultAction = specs.ActAllow
	}
	for _, e := range f.entries {
		s.Architectures = append(s.Architectures, e.spec)
	}
	type group struct {
		action Action
		errno  uint
	}
	plain := map[group][]string{}
	for _, name := range slices.Sorted(maps.Keys(f.rules)) {
		for _, r := range f.rules[name] {
			if len(r.args) == 0 {
				g := group{r.action, r.errno}
				plain[g] = append(plain[g], name)
				continue
			}
			s.Syscalls = append(s.Syscalls, ociRule([]string{name}, r.action, r.errno, r.args))
		}
	}
	groups := slices.SortedFunc(maps.Keys(plain), func(a, b group) int {
		return cmp.Or(-cmp.Compare(a.action, b.action), cmp.Compare(a.errno, b.errno))
	})
	for _, g := range groups {
		s.Syscalls = append(s.Syscalls, ociRule(plain[g], g.action, g.errno, nil))
	}
	return s
}

func ociRule(names []string, a Action, errno uint, args []specs.LinuxSeccompArg) specs.LinuxSyscall {
	r := specs.LinuxSyscall{Names: names, Args: args}
	switch a {
	case Allow:
		r.Action = specs.ActAllow
	case Notify:
		r.Action = specs.ActNotify
	case Errno:
		r.Action, r.ErrnoRet = specs.ActErrno, &errno
	default:
		r.Action = specs.ActKillProcess
	}
	return r
}

// Verdict is what the kernel will do with c under this filter.
func (f *Filter) Verdict(c Call) Verdict {
	if c.Arch == "" {
		c.Arch = f.policy.Arch
	}
	i := slices.IndexFunc(f.entries, func(e entry) bool { return e.name == c.Arch })
	if i < 0 {
		return Verdict{Action: Kill, Why: "the " + c.Arch + " entry is closed: the thread is killed"}
	}
	t := tables()[c.Arch]
	if c.Name == "" {
		c.Name = t.names[c.Nr]
	}
	if _, ok := t.numbers[c.Name]; !ok {
		return f.unnumbered(c, t)
	}
	rules := f.rules[c.Name]
	if name, ok := selected(c); ok && len(rules) == 0 {
		rules = unconditional(f.rules[name])
	}
	for _, r := range rules {
		if r.holds(&c.Args, f.entries[i].wide) {
			return Verdict{Action: r.action, Errno: r.errno, Why: r.why}
		}
	}
	return f.rest("not declared with these arguments")
}

// rest is what the default action does.
func (f *Filter) rest(why string) Verdict {
	if f.policy.Monitor {
		return Verdict{Action: Allow, Why: why}
	}
	return Verdict{Action: Kill, Why: why}
}

// unnumbered is a syscall that this libseccomp has no number for on the entry.
func (f *Filter) unnumbered(c Call, t *table) Verdict {
	if f.policy.Monitor {
		return f.rest("nothing is said of it")
	}
	if c.Name != "" {
		if newer[c.Name] == 0 {
			return Verdict{Action: Errno, Errno: errnoENOSYS, Why: "does not exist on " + c.Arch}
		}
		c.Nr = newer[c.Name]
	}
	if c.Nr > t.last {
		return Verdict{Action: Errno, Errno: errnoENOSYS, Why: fmt.Sprintf("number %d is newer than %s", c.Nr, libVersion())}
	}
	return Verdict{Action: Kill, Why: fmt.Sprintf("%s has no name for number %d", libVersion(), c.Nr)}
}

// Decide compiles p and gives its verdict on one syscall of p.Arch.
func Decide(p Policy, name string, args [6]uint64) (Verdict, error) {
	f, err := Compile(p)
	if err != nil {
		return Verdict{}, err
	}
	if name == "" {
		return Verdict{}, errors.New("no syscall is named")
	}
	return f.Verdict(Call{Name: name, Args: args}), nil
}
