package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Report is what a guest said.
type Report struct {
	Doctor *Doctor // nil: it did not come so far
	Suites []*Result
	Done   bool // the guest came to its end
}

// Result is that of one suite.
type Result struct {
	Dir     string
	Code    int // of the test binary; -1: it did not end
	Seconds int
	Tests   []*Test // in the order in which they began, subtests by their full names

	output bytes.Buffer
}

// Test is one test of the guest.
type Test struct {
	Name   string
	Action string // "pass", "fail", "skip", or "" when it did not end
	Output string
}

// Children are the tests directly below the one called parent, by their names below it; "" is the suite itself. A
// subtest's own name may have slashes too.
func (r *Result) Children(parent string) map[string]*Test {
	known := map[string]bool{}
	for _, t := range r.Tests {
		known[t.Name] = true
	}
	list := map[string]*Test{}
	for _, t := range r.Tests {
		above := t.Name
		for above != "" && (above == t.Name || !known[above]) {
			above = above[:max(strings.LastIndexByte(above, '/'), 0)]
		}
		if above == parent {
			list[strings.TrimPrefix(t.Name[len(above):], "/")] = t
		}
	}
	return list
}

// reader takes the lines of the guest apart.
type reader struct {
	report Report
	open   *Result // the section that has begun and not ended
	echo   func(line string)
}

func (r *reader) line(line string) {
	line = strings.TrimRight(line, "\r\n")
	verb, rest, _ := strings.Cut(strings.TrimPrefix(line, "@@ "), " ")
	if !strings.HasPrefix(line, "@@ ") {
		verb = ""
	}
	switch {
	case verb == "doctor":
		d := &Doctor{}
		if err := json.Unmarshal([]byte(rest), d); err != nil {
			r.echo(fmt.Sprintf("doctor: %v: %s", err, rest))
			return
		}
		r.report.Doctor = d
		for _, m := range d.Mechanisms {
			r.echo(fmt.Sprintf("doctor: %s: %s (%s)", m.Name, m.Has, m.Detail))
		}
		return
	case verb == "begin":
		r.open = &Result{Dir: rest, Code: -1}
		r.report.Suites = append(r.report.Suites, r.open)
	case verb == "end" && r.open != nil:
		// The suite's folder, the program's exit code, seconds.
		var dir string
		if _, err := fmt.Sscan(rest, &dir, &r.open.Code, &r.open.Seconds); err != nil {
			r.open.Code = -1
		}
		r.open = nil
	case verb == "done":
		r.report.Done = true
	case r.open != nil:
		r.open.output.WriteString(line + "\n")
	}
	// The marks by which test2json knows its own lines are not for people.
	r.echo(strings.TrimPrefix(line, "\x16"))
}

// read reads until the line ends, calling alive for each of its lines.
func (r *reader) read(from io.Reader, alive func()) error {
	s := bufio.NewScanner(from)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		alive()
		r.line(s.Text())
	}
	return s.Err()
}

// parse fills in Tests, by Go's own reader of test output.
func (r *Result) parse(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json")
	cmd.Stdin = &r.output
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("test2json: %w", err)
	}
	byName := map[string]*Test{}
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("test2json: %w", err)
		}
		t := byName[e.Test]
		if t == nil && e.Test != "" {
			t = &Test{Name: e.Test}
			byName[e.Test] = t
			r.Tests = append(r.Tests, t)
		}
		switch {
		case t == nil:
		case e.Action == "output":
			t.Output += e.Output
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			t.Action = e.Action
		}
	}
	return nil
}
