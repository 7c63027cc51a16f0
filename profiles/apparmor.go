package profiles

import (
	"slices"

	"github.com/stockade-dev/stockade/profiles/apparmor"
	"github.com/stockade-dev/stockade/profiles/pattern"
)

// AppArmor is a resolved profile as package apparmor wants it, with the facts of the plan compiled from it. The mode
// is complain where the plan is not enforced. What only the caller knows (ABI, interpreters, supervisors, whether to
// use AppArmor's kill mode) is for the caller to add.
func AppArmor(p *Profile, plan *Plan) apparmor.Policy {
	policy := apparmor.Policy{
		Profile: plan.Name, Digest: plan.Digest,
		Allow: armored(&p.Allow), Deny: armored(&p.Deny), Sessions: armored(&p.Sessions),
		Capabilities: plan.Capabilities,
		Facts: apparmor.Facts{
			// Never Transitions: a pod may set no_new_privs where the profile does not, the runtime starts the first
			// program in the container's own profile, and a reload leaves processes in child profiles of the text before.
			// Rules of programs are fanotify's.
			Mounts:     plan.mountsPossible(),
			Namespaces: plan.lets(namespaceCalls...) || plan.lets("clone", "clone3"),
			Uring:      plan.lets("io_uring_setup"),
		},
	}
	if plan.Mode != ModeEnforce {
		policy.Mode = apparmor.Complain
	}
	for i := range p.Programs {
		program := &p.Programs[i]
		policy.Programs = append(policy.Programs, apparmor.Program{
			Path: program.Path, Allow: armored(&program.Allow), Deny: armored(&program.Deny),
		})
	}
	runtime := Rules{Read: runtimeReads, Write: runtimeWrites}
	implicit := armored(&runtime)
	policy.Allow.Read = append(policy.Allow.Read, implicit.Read...)
	policy.Allow.Write = append(policy.Allow.Write, implicit.Write...)
	return policy
}

// lets reports whether the filter lets one of the calls pass with any arguments.
func (p *Plan) lets(names ...string) bool {
	for _, name := range names {
		if p.syscalls[name] != nil {
			return true
		}
	}
	return false
}

func armored(r *Rules) apparmor.Rules {
	list := func(k Kind) (out []apparmor.Rule) {
		for _, rule := range r.Of(k) {
			out = append(out, apparmor.Rule{
				Text: rule.Text, From: rule.From, UID: len(rule.UID) > 0, SHA256: rule.SHA256 != "", Field: rule.Field,
			})
		}
		return out
	}
	return apparmor.Rules{Exec: list(Exec), Read: list(Read), Write: list(Write), Listen: list(Listen), Connect: list(Connect)}
}

// armor is what a plan keeps of AppArmor: where its text lets more pass than the profile does, opens are asked about
// one by one as well.
type armor struct {
	everywhere bool // it cannot be said where
	image      bool // @image may be read, which AppArmor holds by name
	tree       bool // a program's own write rules, or deny rules, hold for all or for none
	places     []*pattern.Pattern
}

// confine makes AppArmor, where the node has it, the mechanism for what happens to files. It comes before the filter is
// compiled, which has to watch what AppArmor cannot tell apart.
func (c *compiler) confine() {
	if c.target.AppArmor != Yes || len(c.errs) > 0 {
		return
	}
	policy := AppArmor(c.profile, c.plan)
	gaps, err := apparmor.Gaps(policy)
	if err != nil {
		c.failProfile("spec", "AppArmor: "+err.Error(), "")
		return
	}
	c.plan.armor, c.plan.Seal = &armor{}, false
	for i := range gaps {
		c.uncover(&gaps[i])
	}
}

// uncover notes where a gap leaves opens to fanotify.
func (c *compiler) uncover(g *apparmor.Gap) {
	a := c.plan.armor
	place := func(texts ...string) {
		for _, text := range texts {
			if p := c.compiled[text]; p != nil {
				a.places = append(a.places, p)
			}
		}
	}
	switch {
	case g.Kind == apparmor.GapDrift && g.Verb == Read.String():
		a.image = true
		place(g.Where...)
	case g.Kind == apparmor.GapProgram && g.Verb != Exec.String():
		a.everywhere = a.everywhere || g.Rule == Image
		a.tree = a.tree || g.Deny || g.Verb == Write.String() // what may not be read may not be written
		place(g.Rule)
	}
}

// confined finishes what confine began, with what the filter lets pass.
func (c *compiler) confined() {
	a := c.plan.armor
	if a == nil || len(c.errs) > 0 {
		return
	}
	policy := AppArmor(c.profile, c.plan)
	gaps, err := apparmor.Gaps(policy)
	if err != nil {
		c.failProfile("spec", "AppArmor: "+err.Error(), "")
		return
	}
	c.plan.AppArmor, c.plan.Gaps = &policy, gaps
	a.everywhere = a.everywhere || slices.ContainsFunc(gaps, func(g apparmor.Gap) bool { return g.Kind == apparmor.GapMounts })
}

// AsksOpens reports whether opens of regular files in the mount at dest have to be asked about one by one, by fanotify:
// always where there is no AppArmor, and else where its text lets more pass than the profile does. image says that the
// mount is the image's own and that none of its files had been changed when the container was made.
func (p *Plan) AsksOpens(dest string, image bool) bool {
	a := p.armor
	if a == nil || a.everywhere || a.image && !image && !kernels(dest) {
		return true
	}
	return slices.ContainsFunc(a.places, func(pat *pattern.Pattern) bool { return pat.Match(dest) || pat.CouldMatchBelow(dest) })
}

// kernels reports whether a mount lies where AppArmor's text for @image does not reach.
func kernels(dest string) bool {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if dest == dir || len(dest) > len(dir) && dest[:len(dir)+1] == dir+"/" {
			return true
		}
	}
	return false
}
