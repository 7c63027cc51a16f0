package scenario

import (
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/shim/incident"
)

func TestParseRefuses(t *testing.T) {
	const ok = "title: t\nimage: probe\n"
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":              {ok + "expct: {}\n", "expct"},
		"no title":                   {"image: probe\n", "needs a title"},
		"a kill without effect":      {ok + "expect: {dead: true}\n", "which side effect"},
		"not-yet without effect":     {ok + "not-yet: cgroup BPF\n", "which side effect"},
		"not-yet without control":    {ok + "not-yet: x\nexpect: {absent: [/a]}\ncontrol: {skip: y}\n", "proves nothing"},
		"unknown kind of mount":      {ok + "mounts: [{path: /a, type: nfs}]\n", "volume or tmpfs"},
		"a file of nothing":          {ok + "files: [{path: /a}]\n", "one of text and from"},
		"a kernel that is none":      {ok + "since: six\n", "version of Linux"},
		"a session without program":  {ok + "exec: [{after: x}]\n", "exec without args"},
		"a field of the wrong shape": {ok + "expect: {exit: zero}\n", "zero"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("x", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestProfileYAML(t *testing.T) {
	s, err := Parse("a-case", []byte("title: t\nimage: probe\nprofile:\n  mode: enforce\n  allow: {exec: [/bin/probe], read: [\"@image\"]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.ProfileYAML()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"name: a-case\n", "  mode: enforce\n", "    - /bin/probe\n", "@image"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestIncidents(t *testing.T) {
	one, many := 2, 0
	yes := true
	exec := func(path string, session bool) incident.Incident {
		return incident.Incident{Action: incident.Killed, Session: session, Access: incident.Access{Kind: "exec", Path: path}}
	}
	found := []incident.Incident{exec("/a", false), exec("/a", true), exec("/b", false)}
	for name, c := range map[string]struct {
		want []Incident
		bad  int
	}{
		"none expected":           {nil, 3},
		"all":                     {[]Incident{{Object: "/a", Count: &one}, {Object: "/b"}}, 0},
		"any number":              {[]Incident{{Access: "exec", Count: &many}}, 0},
		"one too many":            {[]Incident{{Object: "/a"}, {Object: "/b"}}, 1},
		"one missing":             {[]Incident{{Access: "exec", Count: &many}, {Access: "read"}}, 1},
		"missing though any many": {[]Incident{{Access: "exec", Count: &many}, {Access: "read", Count: &many}}, 1},
		"by session":              {[]Incident{{Object: "/a", Session: &yes}, {Object: "/a"}, {Object: "/b"}}, 0},
		"by action":               {[]Incident{{Action: incident.Denied, Count: &many}}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Scenario{Expect: Expect{Incidents: c.want}}
			if bad := s.checkIncidents(found); len(bad) != c.bad {
				t.Errorf("%d complaints, want %d: %q", len(bad), c.bad, bad)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	for _, c := range []struct {
		since, release string
		missing        bool
	}{
		{"", "6.1.0-56-cloud-amd64", false},
		{"6.10", "6.1.0-56-cloud-amd64", true},
		{"6.10", "5.15.0", true},
		{"6.10", "6.10.0", false},
		{"6.10", "6.12.95+deb12", false},
		{"6.10", "7.0.0-rc1", false},
		{"6.10", "not a version", false},
	} {
		if got := (&Scenario{Since: c.since}).Missing(c.release); (got != "") != c.missing {
			t.Errorf("since %q on %s: %q", c.since, c.release, got)
		}
	}
}
