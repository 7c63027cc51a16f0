package profiles

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

// runtimeField is the field of rules that every plan has.
const runtimeField = "runtime"

// runtimeReads and runtimeWrites are what the runtime puts into every container and what programs take for granted.
var (
	runtimeReads  = runtimeRules("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab")
	runtimeWrites = runtimeRules("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
		"/dev/console", "/dev/ptmx", "/dev/pts/*", "/dev/stdin", "/dev/stdout", "/dev/stderr")
)

func runtimeRules(paths ...string) []Rule {
	rules := make([]Rule, len(paths))
	for i, path := range paths {
		rules[i] = Rule{Text: path, Field: runtimeField}
	}
	return rules
}

// Compile makes the plan of a resolved profile for a target. In enforce mode it is an error if the target cannot hold
// what the profile declares and the profile does not accept that (allowUnenforced). All errors are reported, joined.
func Compile(p *Profile, t Target) (*Plan, error) {
	c := &compiler{profile: p.clone(), target: t, compiled: map[string]*pattern.Pattern{}}
	c.plan = &Plan{
		Name: p.Name, Digest: p.Digest(), Mode: p.Mode, OnViolation: p.OnViolation, Unenforced: slices.Clone(p.AllowUnenforced),
		capabilities: map[string]*Rule{}, hashed: map[string]bool{},
	}
	switch {
	case len(p.Extends) > 0:
		return nil, p.errorf("spec.extends", "it is not resolved", "call Resolve before Compile")
	case p.Mode == ModeLearn:
		return nil, p.errorf("spec.mode", "mode learn is not in this build", "use monitor")
	case p.Mode == ModeUnset:
		c.plan.Mode = ModeEnforce
	}
	if p.OnViolation == 0 {
		c.plan.OnViolation = Kill
	}
	for _, step := range []func(){c.paths, c.network, c.pins, c.writeRoots, c.capabilities, c.confine, c.syscalls, c.confined, c.guarantees, c.notes} {
		step()
	}
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	return c.plan, nil
}

// compiler carries a profile through the steps of Compile, in the order in which they need each other's results.
type compiler struct {
	profile  *Profile // its own copy: the plan points into it
	target   Target
	plan     *Plan
	compiled map[string]*pattern.Pattern
	errs     []error
}

func (c *compiler) enforce() bool { return c.plan.Mode == ModeEnforce }

func (c *compiler) fail(r *Rule, problem, want string) {
	c.errs = append(c.errs, &Error{Position: r.Position, Field: r.Field, Problem: problem, Want: want})
}

func (c *compiler) failProfile(field, problem, want string) {
	c.errs = append(c.errs, c.profile.errorf(field, problem, want))
}

// scope is a list of rules with what holds for all of them.
type scope struct {
	rules   *Rules
	deny    bool
	session bool
	program *pattern.Pattern
}

func (c *compiler) scopes() []scope {
	p := c.profile
	all := []scope{{rules: &p.Allow}, {rules: &p.Deny, deny: true}, {rules: &p.Sessions, session: true}}
	for i := range p.Programs {
		program := &p.Programs[i]
		exe := c.pattern(program.Path, &Rule{Field: join(program.Field, "path"), Position: program.Position})
		if exe != nil {
			all = append(all, scope{rules: &program.Allow, program: exe}, scope{rules: &program.Deny, deny: true, program: exe})
		}
	}
	return all
}

// pattern compiles a pattern once; nil means that it is wrong, and reported.
func (c *compiler) pattern(text string, r *Rule) *pattern.Pattern {
	if p, ok := c.compiled[text]; ok {
		return p
	}
	p, err := pattern.Compile(text)
	if err != nil {
		c.fail(r, err.Error(), "")
	}
	c.compiled[text] = p
	return p
}

// paths fills the three tables.
func (c *compiler) paths() {
	for _, s := range c.scopes() {
		for i := range s.rules.Exec {
			if e, ok := c.entry(s, &s.rules.Exec[i], !s.deny); ok {
				c.addExec(e)
			}
		}
		for i := range s.rules.Read {
			if e, ok := c.entry(s, &s.rules.Read[i], !s.deny); ok {
				c.plan.read.add(e)
				if e.deny { // opening for writing may be opening for both
					c.plan.write.add(e)
				}
			}
		}
		for i := range s.rules.Write {
			if e, ok := c.entry(s, &s.rules.Write[i], false); ok {
				c.addWrite(e)
			}
		}
	}
	for i := range runtimeReads {
		c.plan.read.add(entry{rule: &runtimeReads[i], pattern: c.pattern(runtimeReads[i].Text, &runtimeReads[i])})
	}
	for i := range runtimeWrites {
		c.addWrite(entry{rule: &runtimeWrites[i], pattern: c.pattern(runtimeWrites[i].Text, &runtimeWrites[i])})
	}
	c.plan.exec.finish()
	c.plan.read.finish()
	c.plan.write.finish()
}

// entry compiles a rule; image says whether @image makes sense there.
func (c *compiler) entry(s scope, r *Rule, image bool) (entry, bool) {
	e := entry{rule: r, deny: s.deny, session: s.session, program: s.program}
	if r.Text != Image || !image {
		if e.pattern = c.pattern(r.Text, r); e.pattern == nil {
			return e, false
		}
	}
	for _, from := range r.From {
		caller := c.pattern(from, r)
		if caller == nil {
			return e, false
		}
		e.from = append(e.from, caller)
	}
	return e, true
}

func (c *compiler) addWrite(e entry) {
	c.plan.write.add(e)
	if !e.deny {
		c.plan.read.add(e)
	}
}

// addExec also lets everyone read what may be executed under some condition: scripts are read by their interpreters,
// which are other programs than those that may start them.
func (c *compiler) addExec(e entry) {
	c.plan.exec.add(e)
	if e.deny || e.pattern == nil {
		return
	}
	rule := *e.rule
	rule.From, rule.UID, rule.SHA256 = nil, nil, ""
	c.plan.read.add(entry{rule: &rule, pattern: e.pattern})
}

// pins checks the rules with a digest: bytes that may be rewritten are not the bytes that were checked.
func (c *compiler) pins() {
	for i := range c.plan.exec.entries {
		e := &c.plan.exec.entries[i]
		if e.rule.SHA256 == "" {
			continue
		}
		if problem, want := e.rule.checkSHA256(); problem != "" {
			c.fail(e.rule, problem, want)
			continue
		}
		path, _ := e.pattern.Exact()
		c.plan.hashed[path] = true
		if w := c.plan.write.allows(path); w != nil {
			c.fail(e.rule, fmt.Sprintf("%s may be written (%s): its bytes could change between the check and the use", path, w), "take it out of write, or leave sha256 out")
		}
	}
}

func (c *compiler) network() {
	for _, s := range c.scopes() {
		for _, kind := range []Kind{Listen, Connect} {
			list := s.rules.Of(kind)
			for i := range list {
				to, problem, want := parseEndpoint(list[i].Text, kind)
				if problem != "" {
					c.fail(&list[i], problem, want)
					continue
				}
				e := entry{rule: &list[i], deny: s.deny, session: s.session, program: s.program}
				c.plan.network = append(c.plan.network, networkRule{entry: e, kind: kind, endpoint: to})
			}
		}
	}
}

func (c *compiler) writeRoots() {
	seen := map[pattern.Root]bool{}
	for i := range c.plan.write.entries {
		e := &c.plan.write.entries[i]
		if e.deny || e.rule.Field == runtimeField {
			continue
		}
		for _, root := range e.pattern.Roots() {
			if !seen[root] {
				seen[root] = true
				c.plan.roots = append(c.plan.roots, WriteRoot{Path: root.Path, Exact: root.Exact, Pattern: e.rule.Text})
			}
		}
	}
	slices.SortFunc(c.plan.roots, func(a, b WriteRoot) int {
		if n := strings.Compare(a.Path, b.Path); n != 0 || a.Exact == b.Exact {
			return n
		}
		if a.Exact {
			return 1
		}
		return -1
	})
	atRoot := slices.ContainsFunc(c.plan.roots, func(r WriteRoot) bool { return !r.Exact && r.Path == "/" })
	c.plan.Seal = c.enforce() && c.target.MountSeal == Yes && !atRoot
}

// capabilities are those declared; NoNewPrivileges goes with them.
func (c *compiler) capabilities() {
	p := c.profile
	for i := range p.Allow.Capabilities {
		r := &p.Allow.Capabilities[i]
		if problem, want := checkCapability(r.Text); problem != "" {
			c.fail(r, problem, want)
			continue
		}
		c.plan.capabilities[capability(r.Text)] = r
	}
	for _, r := range p.Deny.Capabilities {
		delete(c.plan.capabilities, capability(r.Text))
	}
	for _, name := range sortedKeys(c.plan.capabilities) {
		c.plan.Capabilities = append(c.plan.Capabilities, "CAP_"+name)
	}
	c.plan.NoNewPrivileges = c.enforce() && (p.AllowPrivilegeEscalation == nil || !*p.AllowPrivilegeEscalation)
}
