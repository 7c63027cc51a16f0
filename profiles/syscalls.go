package profiles

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/profiles/seccomp"
)

// enosys is errno(3) ENOSYS, the same number on all of Linux's architectures.
const enosys = 38

// defaultSyscalls is what holds where no syscall is declared.
var defaultSyscalls = Rule{Text: "@default", Field: runtimeField}

// syscalls compiles the filter and remembers who declared what it lets pass.
func (c *compiler) syscalls() {
	policy := c.policy()
	filter, err := seccomp.Build(policy)
	if err != nil {
		c.failProfile("spec.allow.syscalls", err.Error(), "")
		return
	}
	c.plan.Seccomp, c.plan.watched = filter, map[string]bool{}
	c.plan.syscalls, c.plan.conditional = map[string]*Rule{}, map[string]*Rule{}
	declarers := c.declarers(policy)
	for i := range filter.Syscalls {
		s := &filter.Syscalls[i]
		if s.Action != specs.ActAllow {
			continue
		}
		for _, name := range s.Names {
			rule := declarers[name]
			if rule == nil {
				rule = &defaultSyscalls
			}
			if len(s.Args) > 0 {
				c.plan.conditional[name] = rule
			} else {
				c.plan.syscalls[name] = rule
			}
		}
	}
	for name := range c.plan.syscalls {
		delete(c.plan.conditional, name)
	}
	if policy.Watch = c.watch(); policy.Watch != seccomp.WatchNothing {
		if c.plan.Seccomp, err = seccomp.Build(policy); err != nil {
			c.failProfile("spec.allow.syscalls", err.Error(), "")
		}
		for _, name := range seccomp.Watched(policy.Watch) {
			c.plan.watched[name] = true
		}
	}
	for i := range c.profile.Deny.Syscalls {
		r := &c.profile.Deny.Syscalls[i]
		if c.plan.syscalls[r.Text] != nil || c.plan.conditional[r.Text] != nil {
			c.fail(r, r.Text+" cannot be denied: the runtime needs it to start the container", "take it out; seccomp cannot tell the runtime from the container")
		}
	}
}

// watch says which declared calls the filter is to tell of: those that other mechanisms would refuse in silence, or not
// at all.
func (c *compiler) watch() seccomp.Watch {
	a := c.plan.armor
	switch {
	case a != nil && c.enforce() && c.plan.mountsPossible():
		return seccomp.WatchAll // what is executed in a mount without a mark is told by the filter alone
	case a != nil && !a.tree:
		return seccomp.WatchAttributes
	case a != nil || !c.enforce():
		return seccomp.WatchChanges
	case c.plan.Seal:
		return seccomp.WatchAll
	}
	return seccomp.WatchNothing
}

// policy says what the filter is to do. Two syscalls of the sets are left out unless they are declared by name:
// memfd_create, since fanotify does not see what is executed from such a file, and openat2, since its flags are in
// memory that the caller can change while we look. C libraries fall back to openat.
func (c *compiler) policy() seccomp.Policy {
	p := c.profile
	var denied, names []string
	for _, r := range p.Deny.Syscalls {
		denied = append(denied, r.Text)
	}
	for _, r := range p.Allow.Syscalls {
		if !slices.Contains(denied, r.Text) {
			names = append(names, r.Text)
		}
	}
	if len(p.Allow.Syscalls) == 0 {
		names = []string{defaultSyscalls.Text}
	}
	policy := seccomp.Policy{
		Names: names, Except: denied,
		Arch: c.target.Arch, Kernel: c.target.Kernel,
		Capabilities: c.plan.Capabilities, NoNewPrivileges: c.plan.NoNewPrivileges, Monitor: !c.enforce(),
	}
	if !slices.Contains(names, "memfd_create") {
		policy.Except = append(policy.Except, "memfd_create")
	}
	if !slices.Contains(names, "openat2") {
		policy.Errno = map[string]uint{"openat2": enosys}
	}
	return policy
}

// declarers finds the rule for each syscall: the one that names it, else the set that holds it.
func (c *compiler) declarers(policy seccomp.Policy) map[string]*Rule {
	rules := map[string]*Rule{}
	list := c.profile.Allow.Syscalls
	for i := range list {
		if !strings.HasPrefix(list[i].Text, "@") {
			continue
		}
		held, err := seccomp.Names(list[i].Text, policy.Arch)
		if err != nil {
			c.fail(&list[i], err.Error(), "")
		}
		for _, name := range held {
			rules[name] = &list[i]
		}
	}
	for i := range list {
		rules[list[i].Text] = &list[i]
	}
	return rules
}

// lets reports whether the filter lets one of the syscalls pass with any arguments.
func (c *compiler) lets(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return c.plan.syscalls[name] != nil })
}

// names reports whether the profile itself declares the syscall, not a set.
func (c *compiler) names(syscall string) bool {
	return c.lets(syscall) && slices.ContainsFunc(c.profile.Allow.Syscalls, func(r Rule) bool { return r.Text == syscall })
}
