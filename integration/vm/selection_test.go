package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSelection(t *testing.T) {
	root := t.TempDir()
	whole := Selection{}.script(Kernels()[0], root)
	if strings.Contains(whole, "semantics") || !strings.Contains(whole, "\nsuite 'integration' ") {
		t.Errorf("a package that is not there, or no scenarios:\n%s", whole)
	}
	if err := os.MkdirAll(filepath.Join(root, "integration/semantics"), 0o755); err != nil {
		t.Fatal(err)
	}
	oldest, newest := Kernels()[0], Kernels()[len(Kernels())-1]
	const off = "STOCKADE_TEST_CONTROLS=no"
	for name, c := range map[string]struct {
		s    Selection
		k    Kernel
		want []string
		not  []string
	}{
		"everything": {Selection{}, oldest, []string{"'shim/cgroup'", "'integration/semantics'"}, []string{off, "test.skip"}},
		"newest":     {Selection{}, newest, []string{"suite 'integration' ", off, "RuntimeIsEnough"}, nil},
		"scenarios": {
			Selection{Scenarios: "it's|b"},
			oldest,
			[]string{`suite 'integration' -test.timeout=35m '-test.run=^TestScenarios$/(it'\''s|b)' '-test.parallel=`},
			[]string{"shim/", "semantics"},
		},
		"no controls": {Selection{Controls: "no"}, oldest, []string{off}, nil},
		"controls":    {Selection{Controls: "yes"}, newest, nil, []string{off}},
		"suites": {
			Selection{Suites: []string{"shim/guard", "shim/new"}, Args: []string{"-test.run=A"}},
			oldest,
			[]string{"suite 'shim/guard' -test.timeout=5m '-test.run=A'\n", "suite 'shim/new' -test.timeout=10m '-test.run=A'\n"},
			[]string{"cgroup"},
		},
	} {
		script := c.s.script(c.k, root)
		for _, w := range c.want {
			if !strings.Contains(script, w) {
				t.Errorf("%s: no %s in\n%s", name, w, script)
			}
		}
		for _, n := range c.not {
			if strings.Contains(script, n) {
				t.Errorf("%s: %s in\n%s", name, n, script)
			}
		}
	}
}

func TestFromEnvironment(t *testing.T) {
	t.Setenv("STOCKADE_VM_SCENARIOS", "")
	t.Setenv("STOCKADE_VM_KERNEL", "6.1,newest")
	t.Setenv("STOCKADE_VM_SUITE", "./shim/lsm/ shim/audit")
	t.Setenv("STOCKADE_VM_ARGS", "-test.run=A -test.v")
	s, err := FromEnvironment()
	if err != nil || len(s.Suites) != 2 || s.Suites[0] != "shim/lsm" || len(s.Args) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, k := range Kernels() {
		if s.Kernel(k) != (k.Name != "6.12") {
			t.Errorf("%s", k.Name)
		}
	}
	t.Setenv("STOCKADE_VM_SCENARIOS", "a")
	if _, err := FromEnvironment(); err == nil {
		t.Error("scenarios and a suite at once")
	}
	t.Setenv("STOCKADE_VM_KERNEL", "5.10")
	if _, err := FromEnvironment(); err == nil {
		t.Error("a kernel that is not there")
	}
}
