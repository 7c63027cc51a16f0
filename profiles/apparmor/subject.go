package apparmor

import (
	"fmt"
	"slices"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

// compiled is a policy's rule with its pattern; no pattern: @image.
type compiled struct {
	Rule
	pattern *pattern.Pattern
	from    []*pattern.Pattern
}

// subject is a kind of process: everything of the container, or what runs one program that has rules of its own.
type subject struct {
	exe                          string // "" : every program without rules of its own
	execs, reads, writes         []compiled
	listens, connects            []Rule
	denyExec, denyRead, denyWrit []compiled
}

type builder struct {
	policy   Policy
	programs []*pattern.Pattern // of policy.Programs
	exact    []string           // executables with a child profile, sorted
	gaps     []Gap
	err      error
	name     string
}

func (b *builder) compile(text string) *pattern.Pattern {
	p, err := pattern.Compile(text)
	if err != nil && b.err == nil {
		b.err = err
	}
	return p
}

func (b *builder) rules(list []Rule) []compiled {
	var out []compiled
	for _, r := range list {
		c := compiled{Rule: r}
		if r.Text != Image {
			c.pattern = b.compile(r.Text)
		}
		for _, from := range r.From {
			c.from = append(c.from, b.compile(from))
		}
		out = append(out, c)
	}
	return out
}

func (b *builder) gap(k GapKind, verb string, r *Rule, why string) {
	b.gaps = append(b.gaps, Gap{Kind: k, Verb: verb, Field: r.Field, Rule: r.Text, Why: why})
}

// names returns the paths that a pattern stands for, if it stands for nothing else.
func names(p *pattern.Pattern) (all []string, ok bool) {
	for _, root := range p.Roots() {
		if !root.Exact {
			return nil, false
		}
		all = append(all, root.Path)
	}
	return all, true
}

// classes finds the executables that get a child profile: those that programs and from rules name exactly.
func (b *builder) classes() {
	for i := range b.policy.Programs {
		b.programs = append(b.programs, b.compile(b.policy.Programs[i].Path))
	}
	if b.err != nil || !b.policy.Transitions {
		return
	}
	add := func(p *pattern.Pattern) {
		if paths, ok := names(p); ok {
			b.exact = append(b.exact, paths...)
		}
	}
	for _, p := range b.programs {
		add(p)
	}
	lists := [][]Rule{b.policy.Allow.Exec, b.policy.Sessions.Exec}
	for i := range b.policy.Programs {
		lists = append(lists, b.policy.Programs[i].Allow.Exec)
	}
	for _, list := range lists {
		for _, r := range b.rules(list) {
			for _, from := range r.from {
				add(from)
			}
		}
	}
	slices.Sort(b.exact)
	b.exact = slices.Compact(b.exact)
}

// folded reports whether a program's rules have no child profile to stand in.
func (b *builder) folded(i int) bool {
	if !b.policy.Transitions {
		return true
	}
	_, exact := names(b.programs[i])
	return !exact
}

// subject gathers what holds for the processes of one program, or (exe "") of every other.
func (b *builder) subject(exe string, session bool) *subject {
	s := &subject{exe: exe}
	p := &b.policy
	b.allow(s, &p.Allow)
	b.deny(s, &p.Deny)
	s.reads = append(s.reads, b.executables()...)
	if session {
		b.allow(s, &p.Sessions)
	}
	for i := range p.Programs {
		if program := &p.Programs[i]; b.folded(i) || exe != "" && b.programs[i].Match(exe) {
			b.allow(s, &program.Allow)
		}
		if exe != "" && b.programs[i].Match(exe) {
			b.deny(s, &p.Programs[i].Deny)
		}
	}
	return s
}

func (b *builder) allow(s *subject, r *Rules) {
	for _, c := range b.rules(r.Exec) {
		if b.calls(s.exe, &c) {
			s.execs = append(s.execs, c)
		}
	}
	s.reads = append(s.reads, b.rules(r.Read)...)
	s.writes = append(s.writes, b.rules(r.Write)...)
	s.listens = append(s.listens, r.Listen...)
	s.connects = append(s.connects, r.Connect...)
}

// executables are all that anybody may execute: everybody may read it, as scripts are read by their interpreters.
func (b *builder) executables() []compiled {
	p := &b.policy
	all := append(append([]Rule(nil), p.Allow.Exec...), p.Sessions.Exec...)
	for i := range p.Programs {
		all = append(all, p.Programs[i].Allow.Exec...)
	}
	return slices.DeleteFunc(b.rules(all), func(c compiled) bool { return c.pattern == nil })
}

func (b *builder) deny(s *subject, r *Rules) {
	s.denyExec = append(s.denyExec, b.rules(r.Exec)...)
	s.denyRead = append(s.denyRead, b.rules(r.Read)...)
	s.denyWrit = append(s.denyWrit, b.rules(r.Write)...)
}

// calls reports whether the processes of exe may be the callers that a rule asks for, as far as AppArmor can tell.
func (b *builder) calls(exe string, c *compiled) bool {
	if len(c.from) == 0 || !b.policy.Transitions {
		return true
	}
	for _, from := range c.from {
		if _, exact := names(from); !exact || exe != "" && from.Match(exe) {
			return true
		}
	}
	return false
}

// findGaps lists the rules that the text holds less closely than the profile.
func (b *builder) findGaps() {
	p := &b.policy
	b.ruleGaps(&p.Allow)
	b.ruleGaps(&p.Sessions)
	for i := range p.Programs {
		program := &p.Programs[i]
		b.ruleGaps(&program.Allow)
		if !b.folded(i) {
			continue
		}
		why := "processes of all programs have one profile"
		if p.Transitions {
			why = "its path is a pattern, and child profiles are for exact paths"
		}
		program.Allow.each(func(verb string, r *Rule) { b.gap(GapProgram, verb, r, "holds for every program: "+why) })
		program.Deny.each(func(verb string, r *Rule) {
			b.gap(GapProgram, verb, r, "is not held: "+why)
			b.gaps[len(b.gaps)-1].Deny = true
		})
	}
	if p.Mounts || p.Namespaces {
		b.gaps = append(b.gaps, Gap{Kind: GapMounts, Why: "a mount that is made later gives other files a declared name"})
	}
	b.gaps = append(b.gaps, Gap{Kind: GapAttributes, Why: "extended attributes and times of files are changed without asking AppArmor"})
	if !p.Sessions.empty() {
		b.gaps = append(b.gaps, Gap{Kind: GapSession, Why: "the runtime, which AppArmor does not confine, starts a session's first program"})
	}
	b.networkGaps()
}

func (r *Rules) each(f func(verb string, r *Rule)) {
	verbs := [...]string{"exec", "read", "write"}
	for v, list := range [...][]Rule{r.Exec, r.Read, r.Write} {
		for i := range list {
			f(verbs[v], &list[i])
		}
	}
}

func (b *builder) ruleGaps(r *Rules) {
	r.each(func(verb string, r *Rule) {
		if r.Text == Image {
			b.gaps = append(b.gaps, Gap{
				Kind: GapDrift, Verb: verb, Field: r.Field, Rule: r.Text, Where: b.written(verb == "exec"),
				Why: "AppArmor goes by names: what is written later, or lies in a mount that is not the image's own, is not told from the image's",
			})
		}
		if r.SHA256 {
			b.gap(GapDigest, verb, r, "AppArmor knows names, not bytes")
		}
		if r.UID {
			b.gap(GapUID, verb, r, "AppArmor does not know user ids")
		}
		for _, c := range b.rules([]Rule{*r}) {
			for i, from := range c.from {
				if _, exact := names(from); !exact || !b.policy.Transitions {
					b.gap(GapCaller, verb, r, fmt.Sprintf("callers are told apart by child profiles, which %s cannot have here", r.From[i]))
					break
				}
			}
		}
	})
}

// written are the patterns of what may be written, by anyone, or (all false) only by some: what everybody may write
// everybody may read as well, so that it does not matter whether it is still the image's.
func (b *builder) written(all bool) []string {
	p := &b.policy
	lists := [][]Rule{p.Sessions.Write}
	for i := range p.Programs {
		lists = append(lists, p.Programs[i].Allow.Write)
	}
	if all {
		lists = append(lists, p.Allow.Write)
	}
	var where []string
	for _, list := range lists {
		for _, r := range list {
			where = append(where, r.Text)
		}
	}
	slices.Sort(where)
	return slices.Compact(where)
}
