package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/incident"
)

// sources reads the lines that rules stand on, each file once.
type sources map[string][]string

// text is the line itself, "" if it cannot be read.
func (s sources) text(r *profiles.Rule) string {
	if r == nil || r.File == "" || r.Line < 1 {
		return ""
	}
	lines, ok := s[r.File]
	if !ok {
		if data, err := os.ReadFile(r.File); err == nil {
			lines = strings.Split(string(data), "\n")
		}
		s[r.File] = lines
	}
	if r.Line > len(lines) {
		return ""
	}
	return strings.TrimRight(lines[r.Line-1], "\r")
}

// line is the line with its number, for people.
func (s sources) line(r *profiles.Rule) string {
	text := s.text(r)
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%d | %s", r.Line, incident.Safe(strings.TrimSpace(text)))
}

// guarantee is how --json prints one.
type guarantee struct {
	Kind  string `json:"kind"`
	Level string `json:"level"`
	By    string `json:"by,omitempty"`
	Note  string `json:"note,omitempty"`
}

func guaranteesOf(list []profiles.Guarantee) []guarantee {
	out := []guarantee{}
	for _, g := range list {
		out = append(out, guarantee{g.Kind, g.Level.String(), g.By, g.Note})
	}
	return out
}

var levelColor = map[string]string{"kill": green, "deny": green, "detect": yellow, "none": red}

// printGuarantees prints the table and, numbered below it, the notes: they are
// too long for a column.
func (a *app) printGuarantees(list []guarantee) {
	t := newTable(a.out, "  ")
	t.row(a.paint(plain, "LEVEL"), "ACCESS", "BY", "NOTE")
	var notes []string
	for _, g := range list {
		mark := ""
		if g.Note != "" {
			notes = append(notes, g.Note)
			mark = fmt.Sprintf("(%d)", len(notes))
		}
		by := g.By
		if by == "" {
			by = "-"
		}
		for i, line := range wrap(by, 44) {
			if i == 0 {
				t.row(a.paint(levelColor[g.Level], g.Level), g.Kind, line, mark)
			} else {
				t.row(a.paint(plain, ""), "", line, "")
			}
		}
	}
	t.flush()
	for i, note := range notes {
		a.item(fmt.Sprintf("(%d)", i+1), note)
	}
}

// item prints a text behind its mark, wrapped.
func (a *app) item(mark, text string) {
	for i, line := range wrap(incident.Safe(text), 100) {
		if i > 0 {
			mark = strings.Repeat(" ", len(mark))
		}
		fmt.Fprintf(a.out, "  %s %s\n", mark, line)
	}
}

// ruleCount says how many rules of a kind there are.
type ruleCount struct {
	Kind     string `json:"kind"`
	Allow    int    `json:"allow"`
	Deny     int    `json:"deny"`
	Programs int    `json:"programs"`
	Sessions int    `json:"sessions"`
}

var allKinds = []profiles.Kind{
	profiles.Exec, profiles.Read, profiles.Write, profiles.Syscall, profiles.Capability, profiles.Listen, profiles.Connect,
}

func countRules(p *profiles.Profile) []ruleCount {
	var out []ruleCount
	for _, k := range allKinds {
		c := ruleCount{Kind: k.String(), Allow: len(p.Allow.Of(k)), Deny: len(p.Deny.Of(k)), Sessions: len(p.Sessions.Of(k))}
		for i := range p.Programs {
			c.Programs += len(p.Programs[i].Allow.Of(k)) + len(p.Programs[i].Deny.Of(k))
		}
		if c.Allow+c.Deny+c.Programs+c.Sessions > 0 {
			out = append(out, c)
		}
	}
	return out
}

// printSummary is explain without an access.
func (a *app) printSummary(p *profiles.Profile, plan *profiles.Plan, label string) error {
	counts := countRules(p)
	if a.json {
		return a.printJSON(struct {
			Profile     string      `json:"profile"`
			Digest      string      `json:"digest"`
			Mode        string      `json:"mode"`
			OnViolation string      `json:"onViolation"`
			Target      string      `json:"target"`
			Rules       []ruleCount `json:"rules"`
			Guarantees  []guarantee `json:"guarantees"`
			Gaps        []gap       `json:"appArmorGaps"`
			Notes       []string    `json:"notes"`
		}{plan.Name, plan.Digest, plan.Mode.String(), plan.OnViolation.String(), label, counts, guaranteesOf(plan.Guarantees), gapsOf(plan), nonNil(plan.Notes)})
	}
	a.printHead(plan, label)
	fmt.Fprintln(a.out, "\nRules:")
	t := newTable(a.out, "  ", "KIND", "ALLOW", "DENY", "PROGRAMS", "SESSIONS")
	for _, c := range counts {
		t.row(c.Kind, count(c.Allow), count(c.Deny), count(c.Programs), count(c.Sessions))
	}
	t.flush()
	fmt.Fprintln(a.out, "\nWhat is not allowed, on "+label+":")
	a.printGuarantees(guaranteesOf(plan.Guarantees))
	a.printGaps(plan)
	a.printNotes(plan.Notes)
	return nil
}

func (a *app) printHead(plan *profiles.Plan, label string) {
	t := newTable(a.out, "")
	t.row("Profile", plan.Name)
	t.row("Digest", plan.Digest)
	t.row("Mode", plan.Mode.String())
	t.row("On violation", plan.OnViolation.String())
	t.row("Compiled for", label)
	t.flush()
}

func (a *app) printNotes(notes []string) {
	if len(notes) == 0 {
		return
	}
	fmt.Fprintln(a.out, "\nNotes:")
	for _, n := range notes {
		a.item("-", n)
	}
}

func count(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
