package apparmor_test

import (
	"testing"

	"github.com/stockade-dev/stockade/profiles/apparmor"
)

// compile builds a policy and returns the automaton of the container's profile.
func compile(t *testing.T, p apparmor.Policy) (*apparmor.Text, *automaton) {
	t.Helper()
	p.ABI = "3.0"
	text, err := apparmor.Build(p)
	if err != nil {
		t.Fatal(err)
	}
	out, err := parse(t, text.Body)
	if err != nil {
		t.Fatalf("%v\n%s", err, text.Body)
	}
	all, err := automata(out)
	if err != nil {
		t.Fatal(err)
	}
	return text, all[text.Name]
}

func ruled(texts ...string) (list []apparmor.Rule) {
	for _, text := range texts {
		list = append(list, apparmor.Rule{Text: text})
	}
	return list
}

// TestImageProgramsAreNotFilesToRead: that all programs of the image may be executed lets none of its files be read.
func TestImageProgramsAreNotFilesToRead(t *testing.T) {
	_, a := compile(t, apparmor.Policy{Allow: apparmor.Rules{Exec: ruled(apparmor.Image), Read: ruled("/lib/**")}})
	for path, want := range map[string]uint32{
		"/etc/shadow":  mayExec,
		"/vol/secret":  mayExec,
		"/lib/libc.so": mayExec | mayRead,
		"/proc/kcore":  0,
	} {
		if got := a.perms(path) & (mayExec | mayRead); got != want {
			t.Errorf("%s: %#x, want %#x", path, got, want)
		}
	}
}
