package profiles

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/profiles/apparmor"
)

// Wait is something of a new plan that a container which was made with another keeps as it is until it is started
// again.
type Wait struct {
	Part   string // mode, syscalls, mounts, capabilities, no_new_privs, host
	What   string
	Weaker bool // the container may do more than the new plan says; else it may do less, or what it may costs more

	kinds  []string // of guarantees that are weaker for it: no more than the old plan gave
	detect bool     // and no more than detect
}

// Place is one mount of a running container.
type Place struct {
	Path             string
	ReadOnly, NoExec bool
}

// Adapt fits a plan to a running container that was made with the plan armed: with its filter, its mounts and its
// capabilities, which cannot be changed any more. It returns the plan that can be put in force now, its guarantees
// lowered to what then holds, and what waits.
//
// All that is decided when it happens follows the new plan at once: exec, opens, what changes paths as far as the filter
// tells of it, the system calls that the filter asks about, sessions, onViolation. Mode enforce does only where the
// container was made in mode enforce: one that was not has open mounts, all its capabilities and a filter that closes
// nothing, and a plan that can be walked around is not called enforced.
func Adapt(armed, next *Plan, mounts []Place) (*Plan, []Wait) {
	plan := *next
	plan.Guarantees = slices.Clone(next.Guarantees)
	a := adaption{armed: armed, next: next, mounts: mounts}
	if armed.Mode != ModeEnforce {
		if next.Mode == ModeEnforce {
			plan.Mode = ModeMonitor
			a.weaker("mode", "mode enforce: the container was started in mode monitor, so its mounts are not sealed, its capabilities not cut, "+
				"its filter closes nothing; it goes on in mode monitor, by the new rules", allGuarantees...)
		}
	} else {
		for _, step := range []func(){a.syscalls, a.seal, a.capabilities} {
			step()
		}
	}
	a.armor(&plan)
	for _, w := range a.waits {
		w.lower(plan.Guarantees, armed.Guarantees)
	}
	return &plan, a.waits
}

var allGuarantees = []string{
	GuaranteeExec, GuaranteeRead, GuaranteeWrite, GuaranteeTree, GuaranteeFileless, GuaranteeSyscall,
	GuaranteeCapability, GuaranteeNetwork, GuaranteeMounts,
}

type adaption struct {
	armed, next *Plan
	mounts      []Place
	waits       []Wait
}

func (a *adaption) weaker(part, what string, kinds ...string) {
	a.waits = append(a.waits, Wait{Part: part, What: what, Weaker: true, kinds: kinds})
}

func (a *adaption) stricter(part, what string) {
	a.waits = append(a.waits, Wait{Part: part, What: what})
}

// lower takes back from the new guarantees what the wait leaves of them.
func (w *Wait) lower(guarantees, armed []Guarantee) {
	for i := range guarantees {
		g := &guarantees[i]
		if !slices.Contains(w.kinds, g.Kind) {
			continue
		}
		for _, old := range armed {
			if old.Kind == g.Kind && old.Level < g.Level {
				*g = old
			}
		}
		if w.detect {
			g.Level = min(g.Level, LevelDetect)
		}
		if g.Note != "" {
			g.Note += "; "
		}
		g.Note += "until the container is started again: " + w.What
	}
}

// filterOf is what a filter does by itself with each call.
type filterOf struct {
	passes map[string]string // without a question, with the arguments that the text stands for; "": any
	told   map[string]bool   // with a question, at least for some arguments
}

func filterFor(p *Plan) filterOf {
	f := filterOf{map[string]string{}, map[string]bool{}}
	if p.Seccomp == nil {
		return f
	}
	for i := range p.Seccomp.Syscalls {
		s := &p.Seccomp.Syscalls[i]
		for _, name := range s.Names {
			switch s.Action {
			case specs.ActAllow:
				f.passes[name] += fmt.Sprint(s.Args)
				if len(s.Args) == 0 {
					f.passes[name] = ""
				}
			case specs.ActNotify:
				f.told[name] = true
			}
		}
	}
	return f
}

// syscalls compares the filter that the container has with what the new plan says of each call.
func (a *adaption) syscalls() {
	if a.next.Mode != ModeEnforce {
		a.stricter("syscalls", "what the filter closes without a question stays closed: the entries of other architectures")
		return
	}
	has, want := filterFor(a.armed), filterFor(a.next)
	var passed, argued, asked, closed []string
	for name, args := range has.passes {
		_, conditional := a.next.conditional[name]
		switch {
		case a.next.syscalls[name] != nil:
		case !conditional:
			passed = append(passed, name)
		case args != want.passes[name]:
			argued = append(argued, name)
		}
	}
	for name := range a.next.syscalls {
		if a.armed.syscalls[name] == nil {
			if has.told[name] {
				asked = append(asked, name)
			} else if _, passes := has.passes[name]; !passes {
				closed = append(closed, name)
			}
		}
	}
	for name := range a.next.conditional {
		if _, passes := has.passes[name]; !passes {
			closed = append(closed, name)
		}
	}
	if len(passed) > 0 {
		a.weaker("syscalls", "the filter still lets pass "+someOf(passed), GuaranteeSyscall, GuaranteeFileless, GuaranteeMounts)
	}
	if len(argued) > 0 {
		a.weaker("syscalls", "the filter still goes by the old conditions for the arguments of "+someOf(argued), GuaranteeSyscall, GuaranteeMounts)
	}
	if len(closed) > 0 {
		a.stricter("syscalls", "the filter still refuses "+someOf(closed))
	}
	if len(asked) > 0 {
		a.stricter("syscalls", "allowed from now on, but each call is asked about, which costs time: "+someOf(asked))
	}
}

// someOf names a few of a list, sorted.
func someOf(names []string) string {
	const most = 12
	slices.Sort(names)
	if n := len(names) - most; n > 1 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ")
}

// seal compares what is mounted how with what the new plan would have mounted.
func (a *adaption) seal() {
	switch {
	case !a.armed.Seal && a.next.Seal:
		a.weaker("mounts", "the mounts are not read-only outside of what is declared writable", GuaranteeTree, GuaranteeWrite)
		return
	case a.armed.Seal && !a.next.Seal:
		a.stricter("mounts", "the mounts stay read-only outside of what was declared writable when the container was started")
	case !a.armed.Seal:
		return
	}
	for _, m := range a.mounts {
		was, is := a.armed.writesAt(m.Path), a.next.writesAt(m.Path)
		covered := a.armed.CoverTree(m.Path) == CoverWrite && a.next.CoverTree(m.Path) != CoverWrite
		if a.next.Seal && !m.ReadOnly && was && (!is || covered) {
			a.weaker("mounts", m.Path+" stays mounted writable: undeclared opens to write are stopped all the same; unlink, rename, mkdir, chmod and "+
				"truncate as far as the filter sees them in time", GuaranteeTree)
			a.waits[len(a.waits)-1].detect = true
		}
		if m.NoExec && a.next.ExecNamedBelow(m.Path) && !a.armed.ExecNamedBelow(m.Path) {
			a.stricter("mounts", m.Path+" stays mounted noexec")
		}
	}
	for _, r := range a.next.roots {
		sealed := !slices.ContainsFunc(a.armed.roots, func(old WriteRoot) bool { return old.Path == r.Path && old.Exact == r.Exact })
		if m := placeOf(r.Path, a.mounts); a.next.Seal && sealed && m != nil && m.ReadOnly {
			a.stricter("mounts", fmt.Sprintf("%s lies on a mount (%s) that stays read-only", r.Pattern, m.Path))
		}
	}
}

// writesAt reports whether a write rule reaches a mount: it, or something in it, was to be left writable.
func (p *Plan) writesAt(dir string) bool {
	return slices.ContainsFunc(p.roots, func(r WriteRoot) bool {
		return below(r.Path, dir) || !r.Exact && below(dir, r.Path)
	})
}

// below reports whether path is dir or lies in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// placeOf finds the mount that a path lies on.
func placeOf(path string, mounts []Place) (found *Place) {
	for i := range mounts {
		if below(path, mounts[i].Path) && (found == nil || len(mounts[i].Path) >= len(found.Path)) {
			found = &mounts[i]
		}
	}
	return found
}

// armor fits AppArmor's text, which can be replaced under a running container, to what the container was given beside it.
func (a *adaption) armor(plan *Plan) {
	if a.armed.AppArmor == nil || a.next.AppArmor == nil {
		plan.AppArmor, plan.Gaps, plan.armor = nil, nil, nil
		return
	}
	policy := *a.next.AppArmor
	if plan.Mode != ModeEnforce {
		policy.Mode = apparmor.Complain
	}
	plan.AppArmor = &policy
	if a.next.armor.tree && !a.armed.armor.tree {
		a.weaker("AppArmor", "write rules of programs hold for every program as far as unlink, rename, mkdir, chmod and truncate go: the filter does not tell of these", GuaranteeTree)
		a.waits[len(a.waits)-1].detect = true
	}
}

func (a *adaption) capabilities() {
	if a.next.Mode != ModeEnforce {
		a.stricter("capabilities", "the capabilities stay cut to those that were declared when the container was started")
		return
	}
	kept := without(a.armed.Capabilities, a.next.Capabilities)
	if len(kept) > 0 {
		a.weaker("capabilities", "processes that have them keep "+someOf(kept), GuaranteeCapability, GuaranteeMounts)
	}
	if missing := without(a.next.Capabilities, a.armed.Capabilities); len(missing) > 0 {
		a.stricter("capabilities", "not given yet: "+someOf(missing))
	}
	switch {
	case a.next.NoNewPrivileges && !a.armed.NoNewPrivileges:
		a.weaker("no_new_privs", "setuid programs still gain privileges", GuaranteeCapability)
	case !a.next.NoNewPrivileges && a.armed.NoNewPrivileges:
		a.stricter("no_new_privs", "setuid programs still gain no privileges")
	}
}

func without(list, out []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(out, s) })
}
