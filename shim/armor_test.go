package shim

import (
	"testing"

	"github.com/stockade-dev/stockade/shim/audit"
)

// What the kernel records while a container is made and not armed yet: nobody can be killed then, so it must not start.
func TestProfileChangedBeforeArmed(t *testing.T) {
	const name = "stockade.redis.0123456789ab.c"
	came := audit.Event{AppArmor: &audit.AppArmor{Verdict: "STATUS", Operation: "profile_replace", Name: name}}
	child := audit.Event{AppArmor: &audit.AppArmor{Verdict: "STATUS", Operation: "profile_replace", Name: name + "//session"}}
	other := audit.Event{AppArmor: &audit.AppArmor{Verdict: "STATUS", Operation: "profile_remove", Name: "docker-default"}}
	gone := audit.Event{AppArmor: &audit.AppArmor{Verdict: "STATUS", Operation: "profile_remove", Name: name}}
	for _, c := range []struct {
		what    string
		records []audit.Event
		leaving bool
		intact  bool
	}{
		{"it came", []audit.Event{came, child, other}, false, true},
		{"it was replaced", []audit.Event{came, child, came, child}, false, false},
		{"it was removed", []audit.Event{came, child, gone}, false, false},
		{"we took it away", []audit.Event{came, child, gone}, true, true},
	} {
		w := &wearer{f: &fence{armed: make(chan struct{})}, name: name, gone: make(chan struct{}), loaded: make(chan struct{}), leaving: c.leaving}
		a := &armor{wearers: map[string]*wearer{name: w}}
		for i := range c.records {
			a.take(&c.records[i])
		}
		if !closed(w.loaded) {
			t.Errorf("%s: the record of its loading was not noticed", c.what)
		}
		if err := a.intact(w); (err == nil) != c.intact {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
