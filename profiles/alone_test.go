package profiles

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestSeccompAlone(t *testing.T) {
	parse := func(spec string) *Profile {
		ps, err := Parse("x.yaml", []byte("apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: x}\nspec: {"+spec+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return ps[0]
	}
	action := func(f *specs.LinuxSeccomp, name string) specs.LinuxSeccompAction {
		for _, s := range f.Syscalls {
			if slices.Contains(s.Names, name) && len(s.Args) == 0 {
				return s.Action
			}
		}
		return f.DefaultAction
	}
	f, err := parse("allow: {syscalls: ['@default', keyctl]}, deny: {syscalls: [ptrace]}").SeccompAlone("amd64", "6.18")
	if err != nil {
		t.Fatal(err)
	}
	if f.ListenerPath != "" || f.DefaultErrnoRet != nil {
		t.Errorf("%+v", f)
	}
	for name, want := range map[string]specs.LinuxSeccompAction{
		"read": specs.ActAllow, "keyctl": specs.ActAllow, "execve": specs.ActAllow, "setuid": specs.ActAllow,
		"ptrace": specs.ActErrno, "bpf": specs.ActErrno, "memfd_create": specs.ActErrno, "no such call": specs.ActErrno,
	} {
		if got := action(f, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for _, s := range f.Syscalls {
		if s.Action != specs.ActAllow && s.Action != specs.ActErrno {
			t.Errorf("%v: %s, and nobody listens", s.Names, s.Action)
		}
	}
	if f, err := parse("mode: monitor").SeccompAlone("amd64", "6.18"); err != nil || f != nil {
		t.Errorf("mode monitor: %v %v", f, err)
	}
}
