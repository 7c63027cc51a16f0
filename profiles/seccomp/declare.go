package seccomp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// declaration is a policy's words sorted by kind.
type declaration struct {
	policy   Policy
	names    map[string]bool   // by themselves
	except   map[string]bool   // not through a set
	sets     map[string]bool   // that Names holds
	runtime  map[string]need   // always
	defaults map[string][]rule // moby's, with the policy's capabilities
	strict   map[string][]rule // moby's, without any capability
}

func declared(p Policy) (*declaration, error) {
	d := &declaration{
		policy: p, names: map[string]bool{}, except: map[string]bool{}, sets: map[string]bool{},
		runtime: runtimeNames(p.NoNewPrivileges),
	}
	var errs []error
	for _, name := range p.Names {
		if err := Check(name); err != nil {
			errs = append(errs, err)
		} else if strings.HasPrefix(name, "@") {
			d.sets[name] = true
		} else {
			d.names[name] = true
		}
	}
	for _, name := range p.Except {
		if err := checkSyscall(name); err != nil {
			errs = append(errs, err)
		}
		d.except[name] = true
	}
	errs = append(errs, d.checkErrno()...)
	defaults, err := defaultRules(p)
	strict, errStrict := defaultRules(Policy{Arch: p.Arch, Kernel: p.Kernel})
	d.defaults, d.strict = defaults, strict
	return d, errors.Join(append(errs, err, errStrict)...)
}

func (d *declaration) checkErrno() []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.policy.Errno)) {
		errno := d.policy.Errno[name]
		need, needed := d.runtime[name]
		if err := checkSyscall(name); err != nil {
			errs = append(errs, err)
			continue
		}
		switch {
		case errno == 0 || errno > maxErrno:
			errs = append(errs, fmt.Errorf("%s: errno %d: want 1 to %d", name, errno, maxErrno))
		case d.names[name]:
			errs = append(errs, fmt.Errorf("%s is declared and is to fail with errno %d: want one of them", name, errno))
		case needed && !need.optional:
			errs = append(errs, fmt.Errorf("%s cannot fail: runc needs it before the container's program runs (%s)", name, need.why))
		}
	}
	return errs
}

// rules says what a name gets: the strongest of what declares it. None means
// the default action.
func (d *declaration) rules(name string) []rule {
	if d.names[name] {
		return []rule{{action: Allow, why: "declared"}}
	}
	if errno, ok := d.policy.Errno[name]; ok {
		return []rule{{action: Errno, errno: errno, why: "declared to fail"}}
	}
	if rules := d.fromSets(name); len(rules) > 0 {
		return rules
	}
	switch {
	case name == "clone3":
		// Its flags stand in memory, out of the filter's sight; callers go
		// on with clone when the kernel does not have it.
		return []rule{{action: Errno, errno: errnoENOSYS, why: "callers go on with clone"}}
	case slices.Contains(quiet, name) && !d.policy.NoNewPrivileges:
		return []rule{{action: Errno, errno: errnoEPERM, why: "runc tries it; denied, not reported"}}
	case name == "write":
		// runc refuses to notify about it. @runtime always holds it.
		return nil
	}
	return []rule{{action: Notify, why: "not declared"}}
}

// fromSets joins what the policy's sets and @runtime have for a name.
func (d *declaration) fromSets(name string) []rule {
	var all []rule
	if n, ok := d.runtime[name]; ok {
		if len(d.strict[name]) > 0 && d.strict[name][0].conditional() {
			all = append(all, d.strict[name]...)
		} else if name != "clone3" {
			all = append(all, rule{action: Allow, why: "@runtime: " + n.why})
		}
	}
	if !d.except[name] {
		if d.sets["@default"] {
			all = append(all, d.defaults[name]...)
		}
		if d.sets["@"+name] {
			all = append(all, d.strict[name]...)
		}
	}
	return join(all)
}

// conditional: the rule looks at arguments.
func (r rule) conditional() bool { return len(r.args) > 0 }

// join makes one consistent list of what several sets give: allowed
// unconditionally by one of them, it is allowed. Otherwise the conditions are
// alternatives, an errno holds where there are none, and where nothing is
// allowed the notifier is told, as far as libseccomp can express the opposite
// of the conditions.
func join(all []rule) []rule {
	if i := slices.IndexFunc(all, func(r rule) bool { return r.action == Allow && !r.conditional() }); i >= 0 {
		return all[i : i+1]
	}
	var out []rule
	var conditions [][]specs.LinuxSeccompArg
	for _, r := range all {
		if !r.conditional() || r.action != Allow {
			continue
		}
		if !slices.ContainsFunc(conditions, func(c []specs.LinuxSeccompArg) bool { return slices.Equal(c, r.args) }) {
			out, conditions = append(out, r), append(conditions, r.args)
		}
	}
	if len(out) == 0 {
		return all[:min(len(all), 1)]
	}
	rest, ok := invert(conditions)
	if !ok {
		return out
	}
	for _, c := range rest {
		out = append(out, rule{action: Notify, args: []specs.LinuxSeccompArg{c}, why: "not declared with " + condition(c)})
	}
	return out
}
