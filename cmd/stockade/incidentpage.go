package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/shim/incident"
)

// printIncident prints the page of one incident: what happened, who did it,
// why it was a violation, and what would have allowed it.
func (a *app) printIncident(inc *incident.Incident) {
	fmt.Fprintln(a.out, a.paint(actionColor(inc.Action), incident.Cause(inc)))
	if inc.Lost > 0 && inc.Action != incident.Lost {
		fmt.Fprintln(a.out, a.paint(red, fmt.Sprintf("%d incidents before this one could not be written.", inc.Lost)))
	}
	p := &page{a: a}
	p.section("What")
	p.line("id", inc.ID)
	p.line("time", inc.Time.UTC().Format(time.RFC3339Nano))
	p.line(inc.Access.Kind, inc.Access.Object())
	if inc.Access.Path != "" {
		p.line("syscall", inc.Access.Syscall)
	}
	p.line("flags", inc.Access.Flags)
	p.line("arguments", strings.Join(inc.Access.Args, " "))
	p.line("through the mount", inc.Access.ViaMount)
	p.line("action", inc.Action)
	p.line("took", latency(inc.KillLatency))

	p.section("Who")
	a.who(p, inc)

	p.section("Where")
	p.line("container", inc.Container)
	p.line("namespace", inc.Namespace)
	p.line("pod", strings.Trim(inc.Pod.Namespace+"/"+inc.Pod.Name, "/"))
	p.line("pod uid", inc.Pod.UID)
	p.line("in the pod", inc.Pod.Container)
	p.line("image", inc.Image)
	p.line("node", inc.Node)

	p.section("Why")
	p.line("reason", inc.Reason)
	p.line("rule", inc.Rule)
	p.line("profile", inc.Profile)
	p.line("digest", inc.Digest)
	p.line("mode", inc.Mode)
	p.flush()

	if inc.Suggestion != "" {
		fmt.Fprintf(a.out, "\nIf it should be allowed:\n  %s\n", incident.Safe(inc.Suggestion))
	}
}

func (a *app) who(p *page, inc *incident.Incident) {
	s := inc.Subject
	p.line("program", s.Exe)
	p.line("calls itself", s.Comm)
	p.line("command line", commandLine(s.Cmdline))
	p.line("directory", s.Cwd)
	if inc.Session {
		p.line("session", "yes: kubectl exec or an exec probe")
	}
	if s.PID == 0 {
		return // a session that was refused before it had a process
	}
	pid := fmt.Sprint(s.PID)
	if s.TID != 0 && s.TID != s.PID {
		pid += fmt.Sprintf(", thread %d", s.TID)
	}
	p.line("pid", pid)
	p.line("uid", fmt.Sprint(s.UID))
	for i, parent := range inc.Parents {
		name := "parents"
		if i > 0 {
			name = ""
		}
		p.pair(name, fmt.Sprintf("%d %s", parent.PID, safe(firstOf(parent.Exe, parent.Comm))))
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// commandLine joins arguments so that they can be told apart. A program that
// writes its title over its arguments leaves empty ones behind: they are counted.
func commandLine(args []string) string {
	empty := 0
	for empty < len(args) && args[len(args)-1-empty] == "" {
		empty++
	}
	if empty < 3 {
		empty = 0
	}
	var out []string
	for _, arg := range args[:len(args)-empty] {
		if arg == "" || strings.ContainsAny(arg, " '\"") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		out = append(out, arg)
	}
	if empty > 0 {
		out = append(out, fmt.Sprintf("(and %d empty arguments)", empty))
	}
	return strings.Join(out, " ")
}

func latency(l incident.KillLatency) string {
	var parts []string
	for _, p := range []struct {
		what string
		d    time.Duration
	}{{"signalled", l.Signalled}, {"answered", l.Answered}, {"all dead", l.Dead}} {
		if p.d > 0 {
			parts = append(parts, fmt.Sprintf("%s after %s", p.what, p.d.Round(time.Microsecond)))
		}
	}
	return strings.Join(parts, ", ")
}

// page prints sections of names and values; a section without values is left out.
type page struct {
	a     *app
	title string
	rows  [][2]string
}

func (p *page) section(title string) {
	p.flush()
	p.title, p.rows = title, nil
}

// line adds a value that others chose; an empty one is left out.
func (p *page) line(name, value string) {
	if value != "" {
		p.pair(name, incident.Safe(value))
	}
}

func (p *page) pair(name, value string) {
	p.rows = append(p.rows, [2]string{incident.Safe(name), value})
}

func (p *page) flush() {
	if len(p.rows) == 0 {
		return
	}
	fmt.Fprintf(p.a.out, "\n%s\n", p.title)
	t := newTable(p.a.out, "  ")
	for _, r := range p.rows {
		t.row(r[0], r[1])
	}
	t.flush()
	p.rows = nil
}
