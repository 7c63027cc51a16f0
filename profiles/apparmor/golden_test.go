package apparmor_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/apparmor"
)

var update = flag.Bool("update", false, "write the golden texts anew")

// everything is a policy with one of each thing that is written differently.
func everything() apparmor.Policy {
	return apparmor.Policy{
		Profile: "web/ä\n}", Digest: "sha256:00", ABI: "3.0",
		Allow: apparmor.Rules{
			Exec: []apparmor.Rule{
				{Text: "/usr/bin/web"},
				{Text: "/usr/lib/web/*", From: []string{"/usr/bin/web"}, Field: "spec.allow.exec[1]"},
				{Text: "/entry.sh", UID: true, SHA256: true, Field: "spec.allow.exec[2]"},
			},
			Read:    []apparmor.Rule{{Text: apparmor.Image, Field: "spec.allow.read[0]"}, {Text: `/etc/we "b"/{a,b*}/[^x-z]`}},
			Write:   []apparmor.Rule{{Text: "/data/**"}, {Text: "/run/web.pid"}},
			Listen:  []apparmor.Rule{{Text: "tcp/80"}, {Text: "unix/run/web.sock"}},
			Connect: []apparmor.Rule{{Text: "dns"}, {Text: "unix@bus"}},
		},
		Deny: apparmor.Rules{
			Exec: []apparmor.Rule{{Text: "/usr/lib/web/old"}}, Read: []apparmor.Rule{{Text: "/data/keys/**"}},
			Write: []apparmor.Rule{{Text: "/data/fixed"}},
		},
		Programs: []apparmor.Program{
			{Path: "/usr/bin/web", Allow: apparmor.Rules{Read: []apparmor.Rule{{Text: "/run/secrets/**", Field: "spec.programs[0].allow.read[0]"}}}},
			{Path: "/usr/bin/*", Deny: apparmor.Rules{Read: []apparmor.Rule{{Text: "/data/web", Field: "spec.programs[1].deny.read[0]"}}}},
		},
		Sessions:     apparmor.Rules{Exec: []apparmor.Rule{{Text: "/bin/ls"}}},
		Capabilities: []string{"CAP_NET_RAW", "SETUID"},
		Facts:        apparmor.Facts{Mounts: true, Interpreters: []string{"/bin/my sh"}},
	}
}

func TestGolden(t *testing.T) {
	texts := map[string]*apparmor.Text{}
	for name, change := range map[string]func(*apparmor.Policy){
		"everything":  func(p *apparmor.Policy) {},
		"transitions": func(p *apparmor.Policy) { p.Transitions = true },
		"complain":    func(p *apparmor.Policy) { *p = apparmor.Policy{Profile: "empty", Mode: apparmor.Complain, ABI: "3.0"} },
		"kill":        func(p *apparmor.Policy) { p.Mode, p.Programs = apparmor.Kill, nil },
	} {
		policy := everything()
		change(&policy)
		text, err := apparmor.Build(policy)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = text
	}
	samples, err := filepath.Glob("../../contrib/profiles/*.yaml")
	if err != nil || len(samples) == 0 {
		t.Fatal("no samples", err)
	}
	for _, file := range samples {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all, err := profiles.Parse(file, data)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := profiles.Compile(all[0], target)
		if err != nil {
			t.Fatal(err)
		}
		policy := profiles.AppArmor(all[0], plan)
		policy.ABI = "3.0"
		text, err := apparmor.Build(policy)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if _, err := parse(t, text.Body); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text.Body)
		}
	}
	for name, text := range texts {
		got := text.Body + "\n"
		for _, gap := range text.Gaps {
			got += "# gap: " + strings.TrimSpace(gap.Kind.String()+" "+gap.Field+" "+gap.Rule) + " " + strings.Join(gap.Where, " ") + ": " + gap.Why + "\n"
		}
		file := filepath.Join("testdata", name+".aa")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || string(want) != got {
			t.Errorf("%s differs (%v); look at it and run go test -update\n%s", file, err, got)
		}
		if _, err := parse(t, text.Body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNames: whatever a profile is called, the text parses and the name is one that kernel and files take.
func TestNames(t *testing.T) {
	for _, name := range []string{"redis", "", "a b", "../x", "//&unconfined", strings.Repeat("x", 300), "é", "a{b}", "\n"} {
		text, err := apparmor.Build(apparmor.Policy{Profile: name, Digest: "\nprofile evil {"})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Trim(text.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || len(text.Name) > 110 {
			t.Errorf("%q becomes %q", name, text.Name)
		}
		out, err := parse(t, text.Body)
		if err != nil {
			t.Fatalf("%v\n%s", err, text.Body)
		}
		if all, err := automata(out); err != nil || len(all) != 2 || all[text.Name] == nil || all[text.Name+"//session"] == nil {
			t.Errorf("%q: %d profiles, %v", name, len(all), err)
		}
	}
}

// TestRefusalsAreTold: no refusal is a silent one, or it could not be a violation.
func TestRefusalsAreTold(t *testing.T) {
	policy := everything()
	text, err := apparmor.Build(policy)
	if err != nil {
		t.Fatal(err)
	}
	out, err := parse(t, text.Body)
	if err != nil {
		t.Fatal(err)
	}
	all, err := automata(out)
	if err != nil {
		t.Fatal(err)
	}
	a := all[text.Name]
	for _, path := range []string{"/data/keys/x", "/data/fixed", "/usr/lib/web/old", "/nowhere", "/proc/kcore"} {
		if silent := a.silent(path) &^ mayMap; silent != 0 { // but for mapping, as on a noexec mount
			t.Errorf("%s: %b refused in silence", path, silent)
		}
	}
	for path, want := range map[string]uint32{
		"/data/":                      mayRead,
		"/data/dir/":                  mayRead | mayWrite | 8 | mayLink | mayLock, // + append
		"/data/keys/":                 mayRead | mayWrite | 8 | mayLink | mayLock,
		"/data/keys/sub/":             mayRead | 8 | mayLink | mayLock,
		"/lib64/ld-linux-x86-64.so.2": mayRead | mayMap | mayLock,
		"/run/web.pid":                mayRead | mayMap | mayWrite | 8 | mayLink | mayLock,
		"/bin/my sh":                  mayRead | mayMap | mayLock,
		"/proc/1/status":              mayRead | mayWrite | 8 | mayMap | mayLock,
	} {
		if got := a.perms(path); got&^uint32(mayMap|8|mayLink|mayLock) != want&^uint32(mayMap|8|mayLink|mayLock) {
			t.Errorf("%s: %#x, want %#x", path, got, want)
		}
	}
}

// TestCapabilities: every capability that a profile may name is one to the parser.
func TestCapabilities(t *testing.T) {
	names := strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
		NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
		SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
		SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
	text, err := apparmor.Build(apparmor.Policy{Profile: "all", Capabilities: slices.Clone(names), ABI: "3.0"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, text.Body); err != nil {
		t.Error(err)
	}
}

// TestTransitions: a program with rules of its own changes to another profile, which others do not.
func TestTransitions(t *testing.T) {
	policy := everything()
	policy.Transitions = true
	text, err := apparmor.Build(policy)
	if err != nil {
		t.Fatal(err)
	}
	out, err := parse(t, text.Body)
	if err != nil {
		t.Fatal(err)
	}
	all, err := automata(out)
	if err != nil || len(all) != 4 {
		t.Fatalf("%d profiles, %v", len(all), err)
	}
	base, web := all[text.Name], all[text.Name+"//p0"]
	if base.transition("/usr/bin/web") == base.transition("/entry.sh") || web.transition("/usr/bin/web") == web.transition("/entry.sh") {
		t.Error("exec of a program with rules of its own leads where others lead")
	}
	if base.perms("/usr/lib/web/x")&mayExec != 0 || web.perms("/usr/lib/web/x")&mayExec == 0 {
		t.Error("from is not held")
	}
	if base.perms("/run/secrets/x")&mayWrite != 0 || web.perms("/data/web")&mayRead != 0 || base.perms("/data/web")&mayRead == 0 {
		t.Error("rules of a program hold for others, or not for it")
	}
}
