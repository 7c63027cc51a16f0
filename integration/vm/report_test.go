package vm

import (
	"strings"
	"testing"
)

const said = "garbage of the line\r\n" +
	`@@ doctor {"kernel":"6.1.0-1","mechanisms":[{"name":"cgroup v2 only","has":"yes","detail":"unified"}]}` + "\r\n" + `
@@ begin shim/a
=== RUN   TestA
=== RUN   TestA/x/y
--- PASS: TestA/x/y (0.00s)
=== NAME  TestA
    a_test.go:1: no freezer (cgroup v2 only: yes)
--- SKIP: TestA (0.00s)
=== NAME  
=== RUN   TestB
--- FAIL: TestB (0.10s)
=== NAME  
FAIL

@@ end shim/a 1 7

@@ begin shim/b
=== RUN   TestHangs
`

// mark makes the lines what -test.v=test2json writes.
func mark(text string) string {
	return strings.NewReplacer("\n===", "\n\x16===", "\n---", "\n\x16---", "\nFAIL", "\n\x16FAIL").Replace(text)
}

func TestReport(t *testing.T) {
	var echoed []string
	r := &reader{echo: func(l string) { echoed = append(echoed, l) }}
	if err := r.read(strings.NewReader(mark(said)), func() {}); err != nil {
		t.Fatal(err)
	}
	for _, s := range r.report.Suites {
		if err := s.parse(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.report.Suites) != 2 || r.report.Done || r.report.Doctor == nil {
		t.Fatalf("%+v", r.report)
	}
	a, b := r.report.Suites[0], r.report.Suites[1]
	if a.Dir != "shim/a" || a.Code != 1 || a.Seconds != 7 || b.Code != -1 {
		t.Errorf("codes %d, %d; want 1, -1", a.Code, b.Code)
	}
	top := a.Children("")
	if len(top) != 2 || top["TestA"].Action != "skip" || top["TestB"].Action != "fail" {
		t.Errorf("%+v", top)
	}
	if below := a.Children("TestA"); len(below) != 1 || below["x/y"] == nil || below["x/y"].Action != "pass" {
		t.Errorf("below TestA: %+v", below)
	}
	if h := b.Children("")["TestHangs"]; h == nil || h.Action == "pass" {
		t.Errorf("a test without an end: %+v", h)
	}
	if d := *r.report.Doctor; !d.Excuses(top["TestA"].Output) || d.Excuses("needs root") || d.Excuses("cgroup v2 only: no") ||
		!d.Excuses("Linux 6.1.0-1: too old") || d.Excuses("Linux 6.1.0: too old") {
		t.Error("excuses")
	}
	for _, l := range echoed {
		if strings.ContainsAny(l, "\x16\r") {
			t.Errorf("echoed %q", l)
		}
	}
}

func TestDifferences(t *testing.T) {
	k := Kernel{Release: "6.1.", has: map[string]string{"a": "yes", "b": "no"}}
	for name, c := range map[string]struct {
		d    Doctor
		want string
	}{
		"as known":      {Doctor{"6.1.0-1", []Mechanism{{"a", "yes", ""}, {"b", "no", ""}}, nil}, ""},
		"a false no":    {Doctor{"6.1.0-1", []Mechanism{{"a", "no", ""}, {"b", "no", ""}}, nil}, `a: no ()`},
		"not told":      {Doctor{"6.1.0-1", []Mechanism{{"a", "unknown", ""}, {"b", "no", ""}}, nil}, `a: unknown ()`},
		"a false yes":   {Doctor{"6.1.0-1", []Mechanism{{"a", "yes", ""}, {"b", "yes", ""}}, nil}, `b: yes ()`},
		"not asked":     {Doctor{"6.1.0-1", []Mechanism{{"a", "yes", ""}}, nil}, "b: not asked"},
		"a new probe":   {Doctor{"6.1.0-1", []Mechanism{{"a", "yes", ""}, {"b", "no", ""}, {"c", "yes", ""}}, nil}, "c: yes"},
		"other kernels": {Doctor{"6.12.0", []Mechanism{{"a", "yes", ""}, {"b", "no", ""}}, nil}, "runs"},
	} {
		bad := k.Differences(c.d)
		if (c.want == "") != (len(bad) == 0) || !strings.Contains(strings.Join(bad, "\n"), c.want) {
			t.Errorf("%s: %q, want %q", name, bad, c.want)
		}
	}
}
