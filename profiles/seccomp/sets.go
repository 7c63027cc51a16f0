package seccomp

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/stockade-dev/stockade/profiles/spelling"
)

// conditionalSets are the parts of @default whose names would say more when
// they stood by themselves: the same calls with moby's conditions on their
// arguments.
var conditionalSets = []string{"@clone", "@personality", "@socket"}

// Sets lists the names of the sets, sorted.
func Sets() []string {
	s := append([]string{"@default", "@runtime"}, conditionalSets...)
	slices.Sort(s)
	return s
}

// Names lists the syscalls that a set ("@default") holds on arch, sorted,
// those with conditions on arguments or capabilities included.
func Names(set, arch string) ([]string, error) {
	if err := checkSet(set); err != nil {
		return nil, err
	}
	t, ok := tables()[arch]
	if !ok {
		return nil, fmt.Errorf("architecture %q: want one of %q", arch, slices.Sorted(maps.Keys(subArches)))
	}
	var all []string
	switch set {
	case "@default":
		all = everyDefaultName()
	case "@runtime":
		all = slices.Collect(maps.Keys(runtimeNames(false)))
	case "@clone":
		all = []string{"clone", "clone3"}
	default:
		all = []string{strings.TrimPrefix(set, "@")}
	}
	all = slices.DeleteFunc(all, func(name string) bool { _, ok := t.numbers[name]; return !ok && newer[name] == 0 })
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Check says whether name can stand in Policy.Names: a syscall that
// libseccomp knows, or one newer than it, or a set. The error suggests the
// nearest name.
func Check(name string) error {
	if strings.HasPrefix(name, "@") {
		return checkSet(name)
	}
	return checkSyscall(name)
}

// Known is Check as a question.
func Known(name string) bool { return Check(name) == nil }

func checkSet(name string) error {
	if slices.Contains(Sets(), name) {
		return nil
	}
	return fmt.Errorf("no set of syscalls is named %q: there are %s", name, strings.Join(Sets(), ", "))
}

func checkSyscall(name string) error {
	if newer[name] != 0 || (name != "" && resolves(name)) {
		return nil
	}
	if best, ok := spelling.Nearest(name, everyName()); ok {
		return fmt.Errorf("no syscall is named %q: did you mean %q?", name, best)
	}
	return fmt.Errorf("no syscall is named %q (%s)", name, libVersion())
}

var everyName = sync.OnceValue(func() []string {
	all := slices.Collect(maps.Keys(newer))
	for _, t := range tables() {
		all = slices.AppendSeq(all, maps.Keys(t.numbers))
	}
	slices.Sort(all)
	return slices.Compact(all)
})
