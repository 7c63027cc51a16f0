package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/features"
	"github.com/stockade-dev/stockade/shim/incident"
	"github.com/stockade-dev/stockade/shim/state"
)

const containerID = "3f2a9c0000000000000000000000000000000000000000000000000000000001"

func put(t *testing.T, dir string, list ...incident.Incident) {
	t.Helper()
	w, err := incident.NewWriter(dir+"/incidents", incident.Limit{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, inc := range list {
		w.Put(inc)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// violation is an incident with everything in it, some of it hostile.
func violation(id string, at time.Time) incident.Incident {
	return incident.Incident{
		ID: id, Time: at, Node: "node-1", Namespace: "k8s.io", Container: containerID, Pod: incident.Pod{Namespace: "prod", Name: "redis-0", UID: "u-1"},
		Image: "docker.io/library/redis:7", Profile: "redis", Digest: "sha256:" + strings.Repeat("a", 64), Mode: "enforce", Session: true, Action: incident.Killed,
		Access:  incident.Access{Kind: "exec", Path: "/tmp/\x1b[2Jevil\n", Syscall: "execve", ViaMount: "/tmp"},
		Subject: incident.Subject{PID: 4711, TID: 4712, UID: 999, Comm: "sh\x07", Exe: "/bin/sh", Cmdline: []string{"sh", "-c", "it's \x1b[31m"}, Cwd: "/data"},
		Parents: []incident.Parent{{PID: 4000, Comm: "redis-server", Exe: "/usr/local/bin/redis-server"}, {PID: 1, Comm: "tini"}},
		Reason:  "not declared", Suggestion: "spec.sessions.allow.exec: [\"/tmp/evil\"]",
		KillLatency: incident.KillLatency{Signalled: 120 * time.Microsecond, Answered: 131 * time.Microsecond, Dead: 2300 * time.Microsecond}, Lost: 3,
	}
}

func TestIncidents(t *testing.T) {
	conf, dir := node(t)
	day := func(d int) time.Time { return time.Date(2026, 11, d, 18, 54, 12, 123456000, time.UTC) }
	first := violation("20261120-185412.123456-00000001", day(20))
	read := violation("20261122-185412.123456-00000002", day(22))
	read.Action, read.Profile, read.Session, read.Lost = incident.Denied, "nginx", false, 0
	read.Access = incident.Access{Kind: "read", Path: "/etc/shadow", Syscall: "openat", Flags: "O_RDONLY"}
	read.Rule, read.Reason, read.Suggestion = "nginx.yaml:9: deny.read /etc/shadow", "denied by a deny rule", ""
	loss := incident.Incident{ID: "20261123-185412.123456-00000003", Time: day(23), Action: incident.Lost, Lost: 4}
	put(t, dir, first, read, loss)
	if err := os.WriteFile(dir+"/incidents/20261121-185412.123456-00000009.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := stockade(t, conf, "incident", "ls")
	golden(t, "incident-ls", r.out)
	if r.code != exitOK || !strings.Contains(r.err, "20261121-185412.123456-00000009.json: unexpected end") {
		t.Errorf("code %d, %q", r.code, r.err)
	}
	golden(t, "incident-show", stockade(t, conf, "incident", "show", "20261120").out+"\n====\n\n"+
		stockade(t, conf, "incident", "show", "20261122").out+"\n====\n\n"+stockade(t, conf, "incident", "show", "20261123").out)

	for args, want := range map[string]int{
		"": 3, "--profile redis": 1, "--container 3f2a": 2, "--container 9": 0, "--since 2d": 2, "--since 1h": 0, "--since 2h": 1,
		"--since 2026-11-21": 2, "--limit 1": 1, "--limit 0": 3, "--since 2026-11-22T18:54:12Z": 2,
	} {
		v := isJSON(t, stockade(t, conf, append([]string{"incident", "ls", "--json"}, strings.Fields(args)...)...).out)
		if n := len(v["incidents"].([]any)); n != want {
			t.Errorf("ls %s: %d incidents, want %d", args, n, want)
		}
	}
	if r := stockade(t, conf, "incident", "show", "2026"); r.code != exitError || !strings.Contains(r.err, "several incidents begin so") {
		t.Errorf("%+v", r)
	}
	if r := stockade(t, conf, "incident", "show", "20261121-185412.123456-00000009"); r.code != exitError || !strings.Contains(r.err, "unexpected end") {
		t.Errorf("damaged: %+v", r)
	}
	if v := isJSON(t, stockade(t, conf, "incident", "show", "20261120", "--json").out); v["id"] != first.ID {
		t.Errorf("%v", v)
	}
}

// Nothing that an attacker chose reaches the terminal raw.
func TestNoControlCharacters(t *testing.T) {
	conf, dir := node(t)
	inc := violation("", now)
	evil := "\x1b]0;x\x07\u202e\n\xff"
	inc.Container, inc.Image, inc.Profile, inc.Rule, inc.Reason, inc.Mode, inc.Pod.Name, inc.Access.Kind = evil, evil, evil, evil, evil, evil, evil, evil
	inc.Suggestion, inc.Access.Flags, inc.Access.Args, inc.Subject.Cwd, inc.Action, inc.Digest = evil, evil, []string{evil}, evil, evil, evil
	put(t, dir, inc)
	evil = strings.ToValidUTF8(evil, "") // containerd's IDs are ASCII
	if err := state.Write(dir+"/state", state.Task{ID: evil, Namespace: evil, Pod: evil, Profile: evil, Digest: evil, Mode: evil, ShimPID: 1, Since: now}); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"incident ls", "incident show 2026", "ps", "profile explain testdata/redis.yaml --target full --exec /x" + evil[:6], "profile explain " + evil[:6]} {
		r := stockade(t, conf, strings.Split(args, " ")...)
		if text := r.out + r.err; strings.ContainsAny(text, "\x1b\x07\u202e\r") || !utf8.ValidString(text) {
			t.Errorf("%q: %q", args, r.out+r.err)
		}
		if r.out+r.err == "" {
			t.Errorf("%q prints nothing", args)
		}
	}
}

func TestPs(t *testing.T) {
	conf, dir := node(t)
	alive := state.Task{
		ID: containerID, Namespace: "k8s.io", Pod: "redis-0", PodNamespace: "prod", Image: "redis:7", Profile: "redis",
		Digest: "sha256:" + strings.Repeat("b", 64), Mode: "enforce", InitPID: 812, Since: now.Add(-3 * time.Hour),
	}
	gone := alive
	gone.ID, gone.Namespace, gone.Pod, gone.PodNamespace, gone.Mode = "web", "default", "", "", "monitor"
	gone.ShimPID, gone.ShimStart, gone.Since = 1, 1<<60, now.Add(-50*time.Hour)
	if err := errors.Join(state.Write(dir+"/state", alive), state.Write(dir+"/state", gone), os.WriteFile(dir+"/state/x~y.json", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	before := violation("", now.Add(-4*time.Hour)) // of an earlier container with that ID
	after := violation("", now.Add(-time.Hour))
	put(t, dir, before, after)
	r := stockade(t, conf, "ps")
	golden(t, "ps", r.out)
	if r.code != exitOK || !strings.Contains(r.err, "x~y.json: empty") {
		t.Errorf("code %d, %q", r.code, r.err)
	}
	if r := stockade(t, conf, "ps", "--no-trunc"); !strings.Contains(r.out, containerID) {
		t.Errorf("--no-trunc: %s", r.out)
	}
	v := isJSON(t, stockade(t, conf, "ps", "--json").out)
	tasks := v["tasks"].([]any)
	mine := tasks[1].(map[string]any)
	if len(tasks) != 2 || mine["id"] != containerID || mine["shimAlive"] != true || mine["violations"] != 1.0 || len(v["damaged"].([]any)) != 1 {
		t.Errorf("%v", v)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 72 * time.Hour: "3d",
	} {
		if got := age(now, now.Add(-d)); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
	if age(now, time.Time{}) != "-" {
		t.Error("no time")
	}
}

// healthy is a node where everything is in order.
func healthy() *diagnosis {
	return &diagnosis{
		configFile: "/etc/stockade/config.yaml", config: config.Default(),
		target: profiles.Target{Kernel: "6.12.1", Arch: "amd64"},
		kernel: []features.Check{
			{Name: "fanotify permission events", Has: profiles.Yes, Detail: "tried", Needed: true},
			{Name: "AppArmor", Has: profiles.No, Detail: "not in this kernel", Fix: "where the kernel has AppArmor: apparmor=1 on its command line, securityfs mounted, the package apparmor installed; without it fanotify, sealed mounts and seccomp do its part"},
		},
		runtime: []features.Check{{Name: "runc", Has: profiles.Yes, Detail: "/usr/bin/runc, version 1.5.2, libseccomp 2.5.4", Needed: true}},
		limits: []features.Limit{
			{Name: features.GroupLimit, Use: 3, Max: 128, Detail: "one for each shim (pod)"},
			{Name: "RLIMIT_NOFILE (hard)", Use: 9, Max: 1 << 62},
			{Name: "other", Use: -1, Max: -1},
		},
		guarantees: []profiles.Guarantee{
			{Kind: "exec", Level: profiles.LevelKill, By: "fanotify", Note: "seen before the first instruction"},
			{Kind: "network", Level: profiles.LevelNone, Note: "nothing"},
		},
		store: storeHealth{dir: "/etc/stockade/profiles.d", names: []string{"nginx", "redis"}},
	}
}

func TestDoctorPage(t *testing.T) {
	sick := healthy()
	sick.configErr = &config.Error{File: "/etc/stockade/config.yaml", Line: 2, Column: 1, Field: "stat", Problem: "unknown key"}
	sick.kernel[0] = features.Check{Name: "fanotify permission events", Has: profiles.No, Detail: "no ignore marks", Fix: "Linux 6.0 or newer", Needed: true}
	sick.limits[0].Low, sick.limits[0].Fix = true, "sysctl -w fs.fanotify.max_user_groups=1024"
	sick.refused = []error{&profiles.Error{Field: "spec.mode", Problem: "mode enforce cannot be held", Want: "use mode monitor"}}
	sick.store.names = nil
	sick.store.errs = []error{errors.New("redis.yaml:1:2: a\x1b problem"), errors.New("another")}
	for name, d := range map[string]*diagnosis{"doctor-healthy": healthy(), "doctor-sick": sick} {
		var out bytes.Buffer
		(&app{out: &out}).printDiagnosis(d)
		golden(t, name, out.String())
	}
}

func TestDoctorCodes(t *testing.T) {
	check := func(has profiles.Support, needed bool) []features.Check {
		return []features.Check{{Name: "x", Has: has, Needed: needed}}
	}
	for _, tc := range []struct {
		name   string
		change func(*diagnosis)
		want   int
	}{
		{"healthy", func(*diagnosis) {}, 0},
		{"needed and missing", func(d *diagnosis) { d.kernel = check(profiles.No, true) }, 1},
		{"needed and unknown", func(d *diagnosis) { d.kernel = check(profiles.Unknown, true) }, 2},
		{"missing wins over unknown", func(d *diagnosis) {
			d.kernel, d.runtime = check(profiles.Unknown, true), check(profiles.No, true)
		}, 1},
		{"not needed", func(d *diagnosis) { d.runtime = append(check(profiles.No, false), check(profiles.Unknown, false)...) }, 0},
		{"wrong configuration", func(d *diagnosis) { d.configErr = errors.New("x") }, 1},
		{"bad profile", func(d *diagnosis) { d.store.errs = []error{errors.New("x")} }, 1},
		{"no profiles", func(d *diagnosis) { d.store.names = nil }, 0},
		{"groups are full and the shim raises them", func(d *diagnosis) { d.limits[0].Low = true }, 0},
		{"groups are full and stay so", func(d *diagnosis) { d.limits[0].Low, d.config.RaiseLimits = true, false }, 1},
		{"another limit", func(d *diagnosis) { d.limits[1].Low = true }, 1},
		{"nothing can be told, so nothing compiles", func(d *diagnosis) {
			d.kernel, d.store.errs, d.refused = check(profiles.Unknown, true), []error{errors.New("x")}, []error{errors.New("y")}
		}, 2},
	} {
		d := healthy()
		tc.change(d)
		if got := d.code(); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// On this very node: whatever it is, the answer is whole, and text, JSON and
// exit code agree.
func TestDoctorHere(t *testing.T) {
	conf, _ := node(t)
	r := stockade(t, conf, "doctor")
	for _, want := range []string{"Mechanisms, tried out:", "exec", "network", "Limits:", "max_user_groups", "Covered by nothing"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("doctor lacks %q:\n%s", want, r.out)
		}
	}
	j := stockade(t, conf, "doctor", "--json")
	v := isJSON(t, j.out)
	if v["code"] != float64(r.code) || j.code != r.code {
		t.Errorf("codes: text %d, JSON %d says %v", r.code, j.code, v["code"])
	}
	if m := v["mechanisms"].([]any)[0].(map[string]any); m["has"] == nil || m["name"] == nil {
		t.Errorf("mechanism %v", m)
	}
	if os.Geteuid() == 0 && len(v["enforceRefused"].([]any)) > 0 {
		t.Logf("enforce is refused on this node: %v", v["enforceRefused"])
	}
}
