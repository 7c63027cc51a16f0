package scenario

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/shim/incident"
)

// effect is a side effect that must not happen.
type effect struct {
	text     string
	happened func(*Scenario, *Observed) bool
}

// effects lists them: each `absent`, `unchanged` and `lacks`.
func (s *Scenario) effects() []effect {
	var all []effect
	for _, p := range s.Expect.Absent {
		all = append(all, effect{p + " exists", func(_ *Scenario, o *Observed) bool {
			_, _, ok := o.files.find(p)
			return ok
		}})
	}
	for _, p := range s.Expect.Unchanged {
		all = append(all, effect{p + " was changed", func(s *Scenario, o *Observed) bool { return o.changed(s, p) }})
	}
	for _, text := range s.Expect.Lacks {
		all = append(all, effect{fmt.Sprintf("output has %q", text), func(_ *Scenario, o *Observed) bool {
			return strings.Contains(o.output, text)
		}})
	}
	for i, session := range s.Exec {
		for _, text := range session.Expect.Lacks {
			all = append(all, effect{fmt.Sprintf("output of exec %d has %q", i+1, text), func(_ *Scenario, o *Observed) bool {
				return i < len(o.sessions) && strings.Contains(o.sessions[i].output, text)
			}})
		}
	}
	return all
}

// changed compares a file with what the case or the image put there: a copy in the upper layer with the same bytes, as
// a mere open for writing leaves, is no change.
func (o *Observed) changed(s *Scenario, path string) bool {
	host, changed, ok := o.files.find(path)
	if !ok {
		return true
	}
	if !changed {
		return false
	}
	now, err := os.ReadFile(host)
	if err != nil {
		return true
	}
	was, err := o.original(s, path)
	return err != nil || !bytes.Equal(now, was)
}

func (o *Observed) original(s *Scenario, path string) ([]byte, error) {
	for _, f := range s.Files {
		if f.Path == path && f.From == "" {
			return []byte(f.Text), nil
		}
		if f.Path == path {
			path = f.From
		}
	}
	image := o.files.root
	image.Upper = "/nonexistent"
	host, _, ok := image.Find(path)
	if !ok {
		return nil, os.ErrNotExist
	}
	return os.ReadFile(host)
}

// Check returns what is not as the case expects under Stockade.
func (s *Scenario) Check(o *Observed) []string {
	var bad []string
	for _, e := range s.effects() {
		if e.happened(s, o) {
			bad = append(bad, e.text)
		}
	}
	bad = append(bad, s.Expect.check(o.process)...)
	for i, session := range s.Exec {
		if i >= len(o.sessions) {
			bad = append(bad, fmt.Sprintf("exec %d did not take place", i+1))
			continue
		}
		for _, b := range session.Expect.check(o.sessions[i]) {
			bad = append(bad, fmt.Sprintf("exec %d: %s", i+1, b))
		}
	}
	if s.Expect.Dead && o.exit != 137 {
		bad = append(bad, fmt.Sprintf("the container was not killed: exit code %d", o.exit))
	}
	for path, want := range s.Expect.Content {
		host, _, _ := o.files.find(path)
		if got, err := os.ReadFile(host); err != nil || string(got) != want {
			bad = append(bad, fmt.Sprintf("%s holds %q (%v), want %q", path, got, err, want))
		}
	}
	return append(bad, s.checkIncidents(o.incidents)...)
}

// CheckControl returns what is not as the case must be without Stockade: every side effect happens, and what is
// allowed looks the same.
func (s *Scenario) CheckControl(o *Observed) []string {
	var bad []string
	for _, e := range s.effects() {
		if !e.happened(s, o) {
			bad = append(bad, "did not happen: "+e.text)
		}
	}
	if s.Expect.Dead && o.exit == 137 && s.End.Signal != 9 {
		bad = append(bad, "the container was killed")
	}
	if s.Expect.Refused != "" && o.refused != "" {
		bad = append(bad, "the container was refused: "+o.refused)
	}
	if len(s.effects()) == 0 && len(s.Expect.Incidents) == 0 && s.Expect.Refused == "" {
		bad = append(bad, s.Expect.check(o.process)...)
	}
	return bad
}

// NotStopped reports whether a side effect happened.
func (s *Scenario) NotStopped(o *Observed) (string, bool) {
	for _, e := range s.effects() {
		if e.happened(s, o) {
			return e.text, true
		}
	}
	return "", false
}

// check compares a process with what is expected of it, but for Lacks, which effects covers.
func (w Outcome) check(p process) []string {
	var bad []string
	switch {
	case w.Refused == "" && p.refused != "":
		bad = append(bad, "refused: "+p.refused)
	case w.Refused != "" && p.refused == "":
		bad = append(bad, "was not refused")
	case !strings.Contains(p.refused, w.Refused):
		bad = append(bad, fmt.Sprintf("refused with %q, want %q", p.refused, w.Refused))
	}
	if w.Exit != nil && p.exit != *w.Exit {
		bad = append(bad, fmt.Sprintf("exit code %d, want %d", p.exit, *w.Exit))
	}
	for _, text := range w.Contains {
		if !strings.Contains(p.output, text) {
			bad = append(bad, fmt.Sprintf("output lacks %q", text))
		}
	}
	return bad
}

// gather reads the container's incidents. They are kept after the container is dead, so it waits for those that the
// case expects; one too many shows as soon as they are there.
func (s *Scenario) gather(ctx context.Context, dir, container string) ([]incident.Incident, error) {
	deadline := time.Now().Add(5 * time.Second)
	for {
		found, damaged, err := incident.List(dir, incident.Filter{Container: container})
		if err != nil {
			return nil, err
		}
		if len(damaged) > 0 {
			return nil, damaged[0]
		}
		if len(s.checkIncidents(found)) == 0 || time.Now().After(deadline) || s.NotYet != "" {
			return found, nil
		}
		select {
		case <-ctx.Done():
			return found, nil
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// checkIncidents compares the kept incidents with those expected: nothing may be left over on either side.
func (s *Scenario) checkIncidents(found []incident.Incident) []string {
	var bad []string
	left := append([]incident.Incident{}, found...)
	for _, want := range s.Expect.Incidents {
		n := 0
		var rest []incident.Incident
		for _, i := range left {
			if want.matches(i) {
				n++
			} else {
				rest = append(rest, i)
			}
		}
		left = rest
		if want.Count == nil && n != 1 || want.Count != nil && (*want.Count != n && *want.Count > 0 || n == 0) {
			bad = append(bad, fmt.Sprintf("%d incidents %s", n, want))
		}
	}
	for _, i := range left {
		bad = append(bad, "not expected: "+incident.Cause(&i))
	}
	return bad
}

func (w Incident) matches(i incident.Incident) bool {
	equal := func(want, got string) bool { return want == "" || want == got }
	return equal(w.Access, i.Access.Kind) && equal(w.Object, i.Access.Object()) && equal(w.Action, i.Action) &&
		strings.Contains(i.Rule, w.Rule) && strings.Contains(i.Reason, w.Reason) &&
		(w.Session == nil || *w.Session == i.Session)
}

// String describes what is looked for.
func (w Incident) String() string {
	return strings.Join(strings.Fields(strings.Join([]string{w.Access, w.Object, w.Action, w.Rule, w.Reason}, " ")), " ")
}
