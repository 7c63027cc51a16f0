package vm

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/stockade-dev/stockade/integration/image"
)

// Selection is what of the matrix is to run. The zero value is everything.
type Selection struct {
	Kernels []string // by their names
	// Suites by their packages' folders. One that is not among the usual suites is compiled and run all the same.
	Suites    []string
	Args      []string // for the suites' programs, in place of their usual ones: -test.run=..., -test.v and so on
	Scenarios string   // a regular expression: those scenarios, and no other suite
	Controls  string   // "yes" or "no": whether scenarios run under plain runc too, whatever the kernel
}

// FromEnvironment reads a Selection from STOCKADE_VM_KERNEL, _SUITE, _ARGS, _SCENARIOS and _CONTROLS, which `make
// test-vm` sets from KERNEL, SUITE, ARGS, SCENARIOS and CONTROLS. Lists have spaces or commas between their entries,
// except arguments: only spaces.
func FromEnvironment() (Selection, error) {
	list := func(name string) []string {
		return strings.FieldsFunc(os.Getenv(name), func(r rune) bool { return r == ' ' || r == ',' })
	}
	s := Selection{
		Kernels:   list("STOCKADE_VM_KERNEL"),
		Suites:    list("STOCKADE_VM_SUITE"),
		Args:      strings.Fields(os.Getenv("STOCKADE_VM_ARGS")),
		Scenarios: os.Getenv("STOCKADE_VM_SCENARIOS"),
		Controls:  os.Getenv("STOCKADE_VM_CONTROLS"),
	}
	for i, dir := range s.Suites {
		s.Suites[i] = path.Clean(dir)
	}
	for _, name := range s.Kernels {
		if !slices.ContainsFunc(Kernels(), func(k Kernel) bool { return k.Name == name }) {
			return s, fmt.Errorf("there is no kernel %q here", name)
		}
	}
	if s.Scenarios != "" && (len(s.Suites) > 0 || len(s.Args) > 0) {
		return s, fmt.Errorf("scenarios are a suite of their own: give either them or a suite and its arguments")
	}
	return s, nil
}

// Kernel reports whether k is to run.
func (s Selection) Kernel(k Kernel) bool {
	return len(s.Kernels) == 0 || slices.Contains(s.Kernels, k.Name)
}

// suites are those that are to run, of the checkout at root.
func (s Selection) suites(root string) []Suite {
	usual := slices.DeleteFunc(suites(), func(t Suite) bool {
		_, err := os.Stat(path.Join(root, t.Dir))
		return t.optional && err != nil
	})
	if s.Scenarios != "" {
		return []Suite{{
			Dir: scenarios.Dir, timeout: scenarios.timeout,
			args: append([]string{"-test.run=^TestScenarios$/(" + s.Scenarios + ")"}, scenarios.args[1:]...),
		}}
	}
	var list []Suite
	for _, t := range usual {
		if len(s.Suites) == 0 || slices.Contains(s.Suites, t.Dir) {
			list = append(list, t)
		}
	}
	for _, dir := range s.Suites {
		if !slices.ContainsFunc(list, func(t Suite) bool { return t.Dir == dir }) {
			list = append(list, Suite{Dir: dir, timeout: "10m"})
		}
	}
	for i := range list {
		if len(s.Args) > 0 {
			list[i].args, list[i].once = s.Args, ""
		}
	}
	return list
}

// images are those that the suites run. The services' are large, and single scenarios are not about them.
func (s Selection) images(root string) []string {
	list := slices.Clone(images)
	if s.Scenarios == "" && slices.ContainsFunc(s.suites(root), func(t Suite) bool { return t.Dir == scenarios.Dir }) {
		for _, spec := range image.Services() {
			list = append(list, spec.Name)
		}
	}
	return list
}

// In a guest, where all takes ten times as long: how often in a row each service is started, and how often tests do again
// what may go one way or the other.
const (
	serviceStarts = 3
	repeats       = 3
)

// script is the part of the guest's first program that differs by kernel and selection.
func (s Selection) script(k Kernel, root string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "export STOCKADE_TEST_IMAGES=%s\n", strings.Join(images, ","))
	fmt.Fprintf(&text, "export STARTS=%d REPEAT=%d\n", serviceStarts, repeats)
	if s.Controls == "no" || s.Controls == "" && !k.oldest {
		text.WriteString("export STOCKADE_TEST_CONTROLS=no\n")
	}
	for _, t := range s.suites(root) {
		fmt.Fprintf(&text, "suite %s -test.timeout=%s", quote(t.Dir), t.timeout)
		if t.once != "" && !k.oldest {
			text.WriteString(" " + quote("-test.skip="+t.once))
		}
		for _, a := range t.args {
			text.WriteString(" " + quote(a))
		}
		text.WriteString("\n")
	}
	return text.String()
}

// quote makes s one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
