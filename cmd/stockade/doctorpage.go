package main

import (
	"fmt"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/features"
	"github.com/stockade-dev/stockade/shim/incident"
)

// notCovered is what no mechanism of this build sees or stops, on any node.
// The guarantees' notes have what depends on the node and the profile.
var notCovered = []string{
	"network: listen and connect rules are read and checked, and enforced by nothing",
	"directories, devices, FIFOs, terminals and what is in /proc: opens of these are not seen",
	"without AppArmor, inside a folder of which some is declared writable: unlink, rename, mkdir, chmod and the like are seen and stopped, but who changes the path of such a call while it is looked at gets through",
	"capabilities that are not declared: the kernel refuses, and nobody is told",
	"what a declared program does by what it may: an interpreter that may read a file may run it as a script",
	"metadata (stat, access)",
	"files in mounts that are made after the start, where a profile declares what it takes to make them",
	"what is executed from a memfd, where a profile declares memfd_create",
	"the kernel itself: a container that exploits it is out of everything's reach",
	"containers that run under another runtime than ours",
}

// printDiagnosis prints what doctor found, the answer first.
func (a *app) printDiagnosis(d *diagnosis) {
	a.printAnswer(d)
	fmt.Fprintf(a.out, "\nNode: Linux %s, %s\n", safe(d.target.Kernel), d.target.Arch)
	fmt.Fprintf(a.out, "Configuration: %s%s\n", safe(d.configFile), defaultsNote(d))

	title := "What is not declared, in mode enforce with onViolation kill:"
	if len(d.refused) > 0 {
		title = "Mode enforce cannot be held here. What is not declared, in mode monitor:"
	}
	fmt.Fprintln(a.out, "\n"+title)
	a.printGuarantees(guaranteesOf(d.guarantees))
	a.printProblems(d.refused)

	fmt.Fprintln(a.out, "\nMechanisms, tried out:")
	a.printChecks(d.kernel)
	fmt.Fprintln(a.out, "\nPrograms:")
	a.printChecks(d.runtime)
	a.printLimits(d.limits)
	a.printStore(&d.store)

	fmt.Fprintln(a.out, "\nCovered by nothing, in this build:")
	for _, text := range notCovered {
		a.item("-", text)
	}
}

func (a *app) printAnswer(d *diagnosis) {
	switch d.code() {
	case exitOK:
		fmt.Fprintln(a.out, a.paint(green, "Enforce mode holds on this node."))
	case exitNo:
		fmt.Fprintln(a.out, a.paint(red, "Something is missing or wrong:"))
	default:
		fmt.Fprintln(a.out, a.paint(yellow, "It could not be told whether enforce mode holds on this node:"))
	}
	for _, text := range d.todo() {
		a.item("-", text)
	}
}

// todo is what has to be done before enforce mode holds.
func (d *diagnosis) todo() []string {
	var out []string
	if d.notRoot {
		out = append(out, "doctor is not root, and most of what it does takes root: sudo stockade doctor")
	}
	for _, e := range mistakes([]error{d.configErr}) {
		out = append(out, e.String())
	}
	for _, list := range [][]features.Check{d.kernel, d.runtime} {
		for _, c := range list {
			if c.Needed && c.Has != profiles.Yes {
				out = append(out, fmt.Sprintf("%s: %s (%s). Do: %s", c.Name, c.Has, c.Detail, c.Fix))
			}
		}
	}
	for _, l := range d.limits {
		if l.Low {
			out = append(out, fmt.Sprintf("%s is low (%s of %s). Do: %s", l.Name, amount(l.Use), amount(l.Max), l.Fix))
		}
	}
	out = append(out, d.running...)
	if n := len(mistakes(d.store.errs)); n > 0 {
		out = append(out, fmt.Sprintf("the profile store %s has %s, see below", d.store.dir, plural(n, "problem")))
	}
	if len(out) == 0 {
		for _, m := range mistakes(d.refused) {
			out = append(out, m.String())
		}
	}
	return out
}

func defaultsNote(d *diagnosis) string {
	if d.configErr != nil {
		return " (wrong; the defaults are used below)"
	}
	return fmt.Sprintf(" (a container without a profile: %s)", d.config.NoProfile)
}

var supportColor = map[profiles.Support]string{profiles.Yes: green, profiles.No: red, profiles.Unknown: yellow}

func (a *app) printChecks(list []features.Check) {
	t := newTable(a.out, "  ")
	for _, c := range list {
		color := supportColor[c.Has]
		if !c.Needed && c.Has != profiles.Yes {
			color = plain
		}
		t.row(a.paint(color, c.Has.String()), c.Name, incident.Safe(c.Detail))
		if c.Fix == "" {
			continue
		}
		for i, line := range wrap(incident.Safe(c.Fix), 80) {
			lead := "     "
			if i == 0 {
				lead = "do:  "
			}
			t.row(a.paint(plain, ""), "", lead+line)
		}
	}
	t.flush()
}

func (a *app) printLimits(list []features.Limit) {
	fmt.Fprintln(a.out, "\nLimits:")
	t := newTable(a.out, "  ", a.paint(plain, "STATE"), "LIMIT", "USED", "OF", "")
	for _, l := range list {
		state := a.paint(green, "ok")
		if l.Low {
			state = a.paint(red, "low")
		}
		for i, line := range wrap(l.Detail, 60) {
			if i == 0 {
				t.row(state, l.Name, amount(l.Use), amount(l.Max), line)
			} else {
				t.row(a.paint(plain, ""), "", "", "", line)
			}
		}
		if l.Fix != "" {
			t.row(a.paint(plain, ""), "", "", "", "do:  "+l.Fix)
		}
	}
	t.flush()
}

func amount(n int64) string {
	switch {
	case n < 0:
		return "unknown"
	case n >= 1<<62:
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func (a *app) printStore(h *storeHealth) {
	fmt.Fprintf(a.out, "\nProfile store: %s\n", safe(h.dir))
	if len(h.names) > 0 {
		a.item("-", plural(len(h.names), "profile")+" hold on this node: "+strings.Join(h.names, ", "))
	}
	a.printProblems(h.errs)
	if len(h.names) == 0 && len(h.errs) == 0 {
		a.item("-", "no profiles")
	}
}

func (a *app) printProblems(errs []error) {
	for _, m := range mistakes(errs) {
		a.item("!", m.String())
	}
}
