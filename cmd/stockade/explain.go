package main

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/seccomp"
	"github.com/stockade-dev/stockade/shim/incident"
)

// question is what explain is asked about.
type question struct {
	name, target string
	object       map[string]*string // by flag: exec, read, write, syscall ...
	from         string
	program      string
	script       string
	sha256       string
	imageFile    string
	uid          uint32
	session      bool
}

// objects are the flags that name what is accessed, with the kind they ask for.
var objects = []struct {
	flag   string
	kind   profiles.Kind
	isPath bool
	help   string
}{
	{"exec", profiles.Exec, true, "may it execute `PATH`?"},
	{"read", profiles.Read, true, "may it open `PATH` for reading?"},
	{"write", profiles.Write, true, "may it open `PATH` for writing?"},
	{"syscall", profiles.Syscall, false, "may it call `NAME`?"},
	{"capability", profiles.Capability, false, "does it have the capability `NAME`?"},
	{"listen", profiles.Listen, false, "may it listen on `ADDRESS`, as in tcp/6379?"},
	{"connect", profiles.Connect, false, "may it connect to `ADDRESS`, as in tcp/10.0.0.1:6379?"},
}

func (a *app) explainCmd() *cobra.Command {
	q := question{object: map[string]*string{}}
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Say what a profile decides about one access, and why",
		Long: `explain prints the verdict on one access, the rule it comes from with its line,
and what would allow it. The answer is the decision that the shim takes, not an
imitation of it. Without an access it prints what the profile gives on a node.
` + fileHelp + `

Who tries is given by --program (or --from, which means the same and reads better
beside --exec): the program that the process is running. With --session the
process belongs to a kubectl exec or an exec probe; --session --exec without
--program asks about the session's first program.
` + exitHelp("the access is a violation, or the profile does not hold on the node"),
		Example: `  stockade profile explain redis.yaml
  stockade profile explain redis.yaml --exec /bin/sh
  stockade profile explain redis.yaml --exec /usr/sbin/gosu --from /usr/local/bin/docker-entrypoint.sh --uid 0
  stockade profile explain redis.yaml --exec /usr/local/bin/redis-cli --session
  stockade profile explain redis --write /data/x --json`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeProfile,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.explain(cmd, args[0], &q) },
	}
	f := cmd.Flags()
	var exclusive []string
	for _, o := range objects {
		q.object[o.flag] = f.String(o.flag, "", o.help)
		exclusive = append(exclusive, o.flag)
	}
	cmd.MarkFlagsMutuallyExclusive(exclusive...)
	f.StringVar(&q.name, "name", "", "take the profile `NAME`, when FILE holds several")
	f.StringVar(&q.target, "target", "", targetHelp+" (default node for root, else full)")
	f.StringVar(&q.program, "program", "", "the process is running the program `EXE`")
	f.StringVar(&q.from, "from", "", "the same, for --exec: the caller is `EXE`")
	f.StringVar(&q.script, "script", "", "the process is running the #! script `PATH`, EXE being its interpreter")
	f.Uint32Var(&q.uid, "uid", 0, "the real user id of the process is `N`")
	f.BoolVar(&q.session, "session", false, "the process belongs to an exec session")
	f.StringVar(&q.sha256, "sha256", "", "the file's digest is `HEX`, for rules that ask for one")
	f.StringVar(&q.imageFile, "image-file", "", "the file is one of the image's, unchanged: `true|false` (default: both are looked at)")
	return cmd
}

// access builds the access that the flags describe; nil without one.
func (q *question) access(cmd *cobra.Command) (*profiles.Access, error) {
	if q.from != "" && q.program != "" && q.from != q.program {
		return nil, errors.New("--from and --program mean the same: give one")
	}
	exe := q.program + q.from
	if q.from == q.program {
		exe = q.program
	}
	acc := &profiles.Access{
		SHA256:  q.sha256,
		Subject: profiles.Subject{Exe: exe, Script: q.script, UID: q.uid, Session: q.session},
	}
	for _, o := range objects {
		if !cmd.Flags().Changed(o.flag) {
			continue
		}
		value := *q.object[o.flag]
		acc.Kind = o.kind
		if o.isPath {
			acc.Path = value
		} else {
			acc.Name = value
		}
	}
	for _, p := range []string{acc.Path, exe, q.script} {
		if p != "" && (!path.IsAbs(p) || path.Clean(p) != p) {
			return nil, fmt.Errorf("%q is not a clean absolute path", p)
		}
	}
	if acc.Kind == 0 {
		return nil, nil
	}
	if acc.Path == "" && acc.Name == "" {
		return nil, fmt.Errorf("--%s needs a value", acc.Kind)
	}
	switch acc.Kind {
	case profiles.Syscall:
		if err := seccomp.Check(acc.Name); err != nil {
			return nil, err
		}
	case profiles.Capability:
		acc.Name = strings.TrimPrefix(strings.ToUpper(acc.Name), "CAP_")
	}
	acc.Subject.SessionRoot = q.session && acc.Kind == profiles.Exec && exe == ""
	return acc, nil
}

func (a *app) explain(cmd *cobra.Command, ref string, q *question) error {
	acc, err := q.access(cmd)
	if err != nil {
		return err
	}
	if q.imageFile != "" && q.imageFile != "true" && q.imageFile != "false" {
		return fmt.Errorf("--image-file is %q; it is true or false", q.imageFile)
	}
	t, label, err := target(q.target)
	if err != nil {
		return err
	}
	p, err := a.load(ref, q.name)
	if err != nil {
		return &exit{exitError, err}
	}
	plan, err := profiles.Compile(p, t)
	if err != nil {
		return &exit{exitNo, fmt.Errorf("profile %s does not hold on %s:\n%w", p.Name, label, err)}
	}
	if acc == nil {
		return a.printSummary(p, plan, label)
	}
	acc.Image = q.imageFile != "false"
	x := explanation{plan: plan, access: acc, verdict: plan.Decide(acc), sources: sources{}}
	if q.imageFile == "" && acc.Path != "" {
		other := *acc
		other.Image = false
		if v := plan.Decide(&other); v.Action != x.verdict.Action {
			x.otherwise = &v
		}
	}
	if err := a.printExplanation(&x); err != nil {
		return err
	}
	if x.verdict.Action != profiles.Allow {
		return no
	}
	return nil
}

// explanation is an answer, ready to be printed.
type explanation struct {
	plan      *profiles.Plan
	access    *profiles.Access
	verdict   profiles.Verdict
	otherwise *profiles.Verdict // if the file is not one of the image's
	sources   sources
}

func (x *explanation) object() string { return x.access.Path + x.access.Name }

func (x *explanation) subject() string {
	s := x.access.Subject
	var b strings.Builder
	fmt.Fprintf(&b, "by uid %d", s.UID)
	if s.Exe != "" {
		b.WriteString(" running " + incident.Safe(s.Exe))
	}
	if s.Script != "" {
		b.WriteString(" (script " + incident.Safe(s.Script) + ")")
	}
	switch {
	case s.SessionRoot:
		b.WriteString(", as first program of an exec session")
	case s.Session:
		b.WriteString(", in an exec session")
	}
	return b.String()
}

// toAllow is what would have allowed it.
func (x *explanation) toAllow() string {
	if x.verdict.Reason == profiles.ReasonFrom && x.access.Subject.Exe == "" {
		return fmt.Sprintf("a caller in from: %v (--from says who calls)", x.verdict.Rule.From)
	}
	return x.plan.Suggest(x.access)
}

// notes say where what happens on the node is not just the verdict.
func (x *explanation) notes() []string {
	var notes []string
	if v := x.otherwise; v != nil {
		notes = append(notes, fmt.Sprintf("if the file is not the image's own, unchanged: %s (%s)", v.Action, v.Reason))
	}
	if x.verdict.Action == profiles.Allow {
		return notes
	}
	switch g := x.guarantee(); {
	case g.Level == profiles.LevelNone:
		notes = append(notes, "nothing enforces this here: "+g.Note)
	case x.access.Kind == profiles.Capability:
		notes = append(notes, "the kernel refuses by itself: "+g.Note)
	case x.access.Kind == profiles.Write && x.plan.Seal && !x.writable():
		notes = append(notes, "what is not declared writable is mounted read-only: the kernel refuses the call as well, even if its path is changed while it is looked at")
	}
	return notes
}

// guarantee is the plan's for this kind of access.
func (x *explanation) guarantee() profiles.Guarantee {
	kind := map[profiles.Kind]string{
		profiles.Exec: profiles.GuaranteeExec, profiles.Read: profiles.GuaranteeRead, profiles.Write: profiles.GuaranteeWrite,
		profiles.Syscall: profiles.GuaranteeSyscall, profiles.Capability: profiles.GuaranteeCapability,
		profiles.Listen: profiles.GuaranteeNetwork, profiles.Connect: profiles.GuaranteeNetwork,
	}[x.access.Kind]
	for _, g := range x.plan.Guarantees {
		if g.Kind == kind {
			return g
		}
	}
	return profiles.Guarantee{Kind: kind}
}

// writable tells whether the path lies where writing is declared at all, or on
// one of the kernel's own file systems, which are left as they are.
func (x *explanation) writable() bool {
	for _, kernels := range []string{"/proc/", "/sys/", "/dev/pts/", "/dev/mqueue/"} {
		if strings.HasPrefix(x.access.Path, kernels) {
			return true
		}
	}
	for _, r := range x.plan.WriteRoots() {
		if x.access.Path == r.Path || !r.Exact && strings.HasPrefix(x.access.Path, strings.TrimSuffix(r.Path, "/")+"/") {
			return true
		}
	}
	return false
}

func (a *app) printExplanation(x *explanation) error {
	v := x.verdict
	allowed := v.Action == profiles.Allow
	fix := ""
	if !allowed {
		fix = x.toAllow()
	}
	if a.json {
		return a.printJSON(x.asJSON(fix))
	}
	color := red
	if allowed {
		color = green
	}
	fmt.Fprintf(a.out, "%s %s %s\n", x.access.Kind, incident.Safe(x.object()), x.subject())
	t := newTable(a.out, "  ")
	t.row("verdict", a.paint(color, v.Action.String()))
	t.row("reason", v.Reason.String())
	t.row("rule", ruleText(v.Rule))
	if line := x.sources.line(v.Rule); line != "" {
		t.row("", line)
	}
	if fix != "" {
		t.row("to allow", incident.Safe(fix))
	}
	for i, note := range x.notes() {
		name := "note"
		if i > 0 {
			name = ""
		}
		t.row(name, note)
	}
	t.row("profile", fmt.Sprintf("%s, mode %s, %s", x.plan.Name, x.plan.Mode, short(x.plan.Digest)))
	t.flush()
	return nil
}

func (x *explanation) asJSON(fix string) any {
	type result struct {
		Kind    string   `json:"kind"`
		Object  string   `json:"object"`
		Verdict string   `json:"verdict"`
		Allowed bool     `json:"allowed"`
		Reason  string   `json:"reason"`
		Rule    string   `json:"rule,omitempty"`
		File    string   `json:"file,omitempty"`
		Line    int      `json:"line,omitempty"`
		Source  string   `json:"source,omitempty"`
		ToAllow string   `json:"toAllow,omitempty"`
		Profile string   `json:"profile"`
		Digest  string   `json:"digest"`
		Mode    string   `json:"mode"`
		Drifted *verdict `json:"ifNotOfTheImage,omitempty"`
		Notes   []string `json:"notes"`
	}
	r := result{
		Kind: x.access.Kind.String(), Object: x.object(), Verdict: x.verdict.Action.String(), Allowed: x.verdict.Action == profiles.Allow,
		Reason: x.verdict.Reason.String(), ToAllow: fix, Profile: x.plan.Name, Digest: x.plan.Digest, Mode: x.plan.Mode.String(),
		Notes: nonNil(x.notes()),
	}
	if rule := x.verdict.Rule; rule != nil {
		r.Rule, r.File, r.Line, r.Source = rule.String(), rule.File, rule.Line, x.sources.text(rule)
	}
	if x.otherwise != nil {
		r.Drifted = &verdict{x.otherwise.Action.String(), x.otherwise.Reason.String()}
	}
	return r
}

type verdict struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
}

func ruleText(r *profiles.Rule) string {
	if r == nil {
		return "none"
	}
	return incident.Safe(r.String())
}
