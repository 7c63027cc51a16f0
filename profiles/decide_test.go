package profiles

import (
	"slices"
	"strings"
	"testing"
)

// full is a node that can do everything this build uses.
var full = Target{
	Kernel: "6.18.5", Arch: "amd64",
	Fanotify: Yes, FanotifyStack: Yes, SeccompNotify: Yes, MountSeal: Yes,
}

func mustCompile(t testing.TB, p *Profile, target Target) *Plan {
	t.Helper()
	plan, err := Compile(p, target)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

const ab64 = "abababababababababababababababababababababababababababababababab"

var decisions = document(`  allowUnenforced: [network]
  allow:
    exec:
      - /bin/app
      - path: /bin/pinned
        sha256: ` + ab64 + `
      - {path: /bin/called, from: [/bin/app, /opt/**]}
      - {path: /bin/root, uid: [0]}
      - {path: /bin/two, uid: [1], from: [/bin/app]}
      - {path: /bin/two, uid: [2]}
      - /opt/bin/*
    read: ["@image", "/proc/**", "/etc/{passwd,group}"]
    write: ["/data/**", "/dev/shm/x"]
    syscalls: ["@default", keyctl, ptrace]
    capabilities: [SETUID, CHOWN]
    listen: [tcp/6379, "unix/run/*.sock"]
    connect: ["tcp/10.0.0.0/8:1-100", "tcp/[2001:db8::]/32:443", dns, unix@bus]
  deny:
    exec: [/opt/bin/evil, {path: /opt/bin/su, uid: [33]}]
    read: [/etc/shadow, /data/secret/*, /dev/tty]
    write: ["/data/fixed/**"]
    syscalls: [ptrace]
    capabilities: [CHOWN]
  programs:
    - path: /bin/app
      allow: {read: ["/run/secrets/**"], exec: [/bin/helper]}
      deny: {read: ["/proc/kcore"]}
    - path: /usr/lib/*/worker
      allow: {write: [/work/**]}
  sessions:
    allow:
      exec: [/bin/cli]
      read: [/home/**]
`)

func TestDecide(t *testing.T) {
	plan := mustCompile(t, mustParse(t, decisions), full)
	app, worker := Subject{Exe: "/bin/app", UID: 7}, Subject{Exe: "/usr/lib/x/worker"}
	session, first := Subject{Exe: "/bin/cli", Session: true}, Subject{Session: true, SessionRoot: true}
	tests := []struct {
		access Access
		action Action
		reason Reason
		rule   string // its field, without spec.
	}{
		{Access{Kind: Exec, Path: "/bin/app"}, Allow, ReasonDeclared, "allow.exec[0]"},
		{Access{Kind: Exec, Path: "/bin/app2"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Exec, Path: "/bin/sh", Image: true}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Exec, Path: ""}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Exec, Path: "/lib64/ld.so", Interpreter: true}, Allow, ReasonInterpreter, ""},
		{Access{Kind: Exec, Path: "/opt/bin/evil", Interpreter: true}, Allow, ReasonInterpreter, ""},
		{Access{Kind: Exec, Path: "/bin/pinned", SHA256: ab64}, Allow, ReasonDeclared, "allow.exec[1]"},
		{Access{Kind: Exec, Path: "/bin/pinned", SHA256: "cd" + ab64[2:]}, Kill, ReasonSHA256, "allow.exec[1]"},
		{Access{Kind: Exec, Path: "/bin/pinned"}, Kill, ReasonSHA256, "allow.exec[1]"},
		{Access{Kind: Exec, Path: "/bin/called", Subject: app}, Allow, ReasonDeclared, "allow.exec[2]"},
		{Access{Kind: Exec, Path: "/bin/called", Subject: Subject{Exe: "/opt/x/y"}}, Allow, ReasonDeclared, "allow.exec[2]"},
		{Access{Kind: Exec, Path: "/bin/called"}, Kill, ReasonFrom, "allow.exec[2]"},
		{Access{Kind: Exec, Path: "/bin/root"}, Allow, ReasonDeclared, "allow.exec[3]"},
		{Access{Kind: Exec, Path: "/bin/root", Subject: app}, Kill, ReasonUID, "allow.exec[3]"},
		{Access{Kind: Exec, Path: "/bin/two", Subject: Subject{Exe: "/bin/app", UID: 1}}, Allow, ReasonDeclared, "allow.exec[4]"},
		{Access{Kind: Exec, Path: "/bin/two", Subject: Subject{UID: 2}}, Allow, ReasonDeclared, "allow.exec[5]"},
		{Access{Kind: Exec, Path: "/bin/two", Subject: Subject{UID: 1}}, Kill, ReasonUID, "allow.exec[5]"},
		{Access{Kind: Exec, Path: "/opt/bin/good"}, Allow, ReasonDeclared, "allow.exec[6]"},
		{Access{Kind: Exec, Path: "/opt/bin/evil"}, Kill, ReasonDenyRule, "deny.exec[0]"},
		{Access{Kind: Exec, Path: "/opt/bin/su", Subject: Subject{UID: 33}}, Kill, ReasonDenyRule, "deny.exec[1]"},
		{Access{Kind: Exec, Path: "/opt/bin/su"}, Allow, ReasonDeclared, "allow.exec[6]"},
		{Access{Kind: Exec, Path: "/bin/helper", Subject: app}, Allow, ReasonDeclared, "programs[0].allow.exec[0]"},
		{Access{Kind: Exec, Path: "/bin/helper", Subject: worker}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Exec, Path: "/bin/cli", Subject: first}, Allow, ReasonDeclared, "sessions.allow.exec[0]"},
		{Access{Kind: Exec, Path: "/bin/cli", Subject: session}, Allow, ReasonDeclared, "sessions.allow.exec[0]"},
		{Access{Kind: Exec, Path: "/bin/cli"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Exec, Path: "/bin/app", Subject: first}, Kill, ReasonSession, "allow.exec[0]"},
		{Access{Kind: Exec, Path: "/bin/app", Subject: session}, Allow, ReasonDeclared, "allow.exec[0]"},

		{Access{Kind: Read, Path: "/usr/share/x", Image: true}, Allow, ReasonDeclared, "allow.read[0]"},
		{Access{Kind: Read, Path: "/usr/share/x"}, Kill, ReasonNotImage, "allow.read[0]"},
		{Access{Kind: Read, Path: "/proc/1/stat"}, Allow, ReasonDeclared, "allow.read[1]"},
		{Access{Kind: Read, Path: "/proc/kcore"}, Allow, ReasonDeclared, "allow.read[1]"},
		{Access{Kind: Read, Path: "/proc/kcore", Subject: app}, Kill, ReasonDenyRule, "programs[0].deny.read[0]"},
		{Access{Kind: Read, Path: "/etc/group"}, Allow, ReasonDeclared, "allow.read[2]"},
		{Access{Kind: Read, Path: "/etc/shadow", Image: true}, Kill, ReasonDenyRule, "deny.read[0]"},
		{Access{Kind: Read, Path: "/bin/called"}, Allow, ReasonDeclared, "allow.exec[2]"},
		{Access{Kind: Read, Path: "/run/secrets/key", Subject: app}, Allow, ReasonDeclared, "programs[0].allow.read[0]"},
		{Access{Kind: Read, Path: "/run/secrets/key", Subject: worker}, Kill, ReasonNotImage, "allow.read[0]"},
		{Access{Kind: Read, Path: "/home/x", Subject: session}, Allow, ReasonDeclared, "sessions.allow.read[0]"},
		{Access{Kind: Read, Path: "/home/x"}, Kill, ReasonNotImage, "allow.read[0]"},
		{Access{Kind: Read, Path: "/etc/hosts"}, Allow, ReasonRuntime, "runtime"},
		{Access{Kind: Read, Path: "/dev/pts/0"}, Allow, ReasonRuntime, "runtime"},
		{Access{Kind: Read, Path: "/dev/tty"}, Kill, ReasonDenyRule, "deny.read[2]"},

		{Access{Kind: Write, Path: "/data/x/y"}, Allow, ReasonDeclared, "allow.write[0]"},
		{Access{Kind: Read, Path: "/data/x/y"}, Allow, ReasonDeclared, "allow.write[0]"},
		{Access{Kind: Write, Path: "/data"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Write, Path: "/proc/1/mem"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Write, Path: "/bin/app", Image: true}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Write, Path: "/data/secret/x"}, Kill, ReasonDenyRule, "deny.read[1]"},
		{Access{Kind: Read, Path: "/data/secret/x"}, Kill, ReasonDenyRule, "deny.read[1]"},
		{Access{Kind: Write, Path: "/data/fixed/x"}, Kill, ReasonDenyRule, "deny.write[0]"},
		{Access{Kind: Read, Path: "/data/fixed/x"}, Allow, ReasonDeclared, "allow.write[0]"},
		{Access{Kind: Write, Path: "/dev/null"}, Allow, ReasonRuntime, "runtime"},
		{Access{Kind: Write, Path: "/dev/tty"}, Kill, ReasonDenyRule, "deny.read[2]"},
		{Access{Kind: Write, Path: "/work/x", Subject: worker}, Allow, ReasonDeclared, "programs[1].allow.write[0]"},
		{Access{Kind: Write, Path: "/work/x", Subject: app}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Write, Path: "/etc/hosts"}, Kill, ReasonNotDeclared, ""},

		{Access{Kind: Syscall, Name: "read"}, Allow, ReasonDeclared, "allow.syscalls[0]"},
		{Access{Kind: Syscall, Name: "keyctl"}, Allow, ReasonDeclared, "allow.syscalls[1]"},
		{Access{Kind: Syscall, Name: "keyctl", Notified: true}, Kill, ReasonArguments, "allow.syscalls[1]"},
		{Access{Kind: Syscall, Name: "ptrace"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Syscall, Name: "memfd_create"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Syscall, Name: "bpf"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Syscall, Name: ""}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Capability, Name: "SETUID"}, Allow, ReasonDeclared, "allow.capabilities[0]"},
		{Access{Kind: Capability, Name: "CHOWN"}, Kill, ReasonNotDeclared, ""},

		{Access{Kind: Listen, Name: "tcp/0.0.0.0:6379"}, Allow, ReasonDeclared, "allow.listen[0]"},
		{Access{Kind: Listen, Name: "tcp/[::]:6379"}, Allow, ReasonDeclared, "allow.listen[0]"},
		{Access{Kind: Listen, Name: "udp/0.0.0.0:6379"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Listen, Name: "unix/run/x.sock"}, Allow, ReasonDeclared, "allow.listen[1]"},
		{Access{Kind: Connect, Name: "tcp/10.1.2.3:100"}, Allow, ReasonDeclared, "allow.connect[0]"},
		{Access{Kind: Connect, Name: "tcp/[::ffff:10.1.2.3]:100"}, Allow, ReasonDeclared, "allow.connect[0]"},
		{Access{Kind: Connect, Name: "tcp/10.1.2.3:101"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Connect, Name: "tcp/11.1.2.3:100"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Connect, Name: "tcp/[2001:db8::1]:443"}, Allow, ReasonDeclared, "allow.connect[1]"},
		{Access{Kind: Connect, Name: "udp/1.1.1.1:53"}, Allow, ReasonDeclared, "allow.connect[2]"},
		{Access{Kind: Connect, Name: "unix@bus"}, Allow, ReasonDeclared, "allow.connect[3]"},
		{Access{Kind: Connect, Name: "unix@bus2"}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: Connect, Name: "nonsense"}, Kill, ReasonNotDeclared, ""},

		{Access{}, Kill, ReasonNotDeclared, ""},
		{Access{Kind: 99, Path: "/bin/app"}, Kill, ReasonNotDeclared, ""},
	}
	for _, tt := range tests {
		a := tt.access
		got := plan.Decide(&a)
		rule := ""
		if got.Rule != nil {
			rule = strings.TrimPrefix(got.Rule.Field, "spec.")
		}
		if got.Action != tt.action || got.Reason != tt.reason || rule != tt.rule {
			t.Errorf("%+v:\ngot %s, %s, %s\nwanted %s, %s, %s", a, got.Action, got.Reason, rule, tt.action, tt.reason, tt.rule)
		}
		if n := testing.AllocsPerRun(10, func() { plan.Decide(&a) }); n != 0 {
			t.Errorf("%+v: %v allocations", a, n)
		}
		if got.Action != Allow && plan.Suggest(&a) == "" {
			t.Errorf("%+v: nothing suggested", a)
		}
	}
}

// TestConditionalSyscalls: a notification about a syscall which the set lets through under conditions means that they
// did not hold.
func TestConditionalSyscalls(t *testing.T) {
	plan := mustCompile(t, mustParse(t, decisions), full)
	if v := plan.Decide(&Access{Kind: Syscall, Name: "clone"}); v.Action != Kill || v.Reason != ReasonArguments {
		t.Errorf("got %+v", v)
	}
	named := mustCompile(t, mustParse(t, document("  {allowUnenforced: [mounts], allow: {syscalls: [\"@default\", clone]}}\n")), full)
	if v := named.Decide(&Access{Kind: Syscall, Name: "clone"}); v.Action != Allow || v.Rule.Text != "clone" {
		t.Errorf("got %+v", v)
	}
}

func TestViolationActions(t *testing.T) {
	bad := Access{Kind: Exec, Path: "/bin/sh"}
	for spec, want := range map[string]Action{
		"  {}\n":                                      Kill,
		"  onViolation: deny\n":                       Deny,
		"  onViolation: freeze\n":                     Freeze,
		"  {mode: monitor}\n":                         Report,
		"  {mode: monitor, onViolation: kill}\n":      Report,
		"  {mode: monitor, deny: {exec: [/bin/*]}}\n": Report,
	} {
		v := mustCompile(t, mustParse(t, document(spec)), full).Decide(&bad)
		if v.Action != want || v.Allowed() != (want == Report) {
			t.Errorf("%q: got %s, want %s", spec, v.Action, want)
		}
	}
	if (Verdict{}).Allowed() || (Verdict{}).Action == Allow {
		t.Error("the zero verdict allows")
	}
	if v := (&Plan{}).violation(); v != Kill {
		t.Errorf("the zero plan does %s", v)
	}
}

func TestSuggest(t *testing.T) {
	plan := mustCompile(t, mustParse(t, decisions), full)
	tests := []struct {
		access Access
		want   string
	}{
		{Access{Kind: Exec, Path: "/bin/sh"}, `spec.allow.exec: ["/bin/sh"]`},
		{Access{Kind: Exec, Path: "/bin/[", Subject: Subject{SessionRoot: true}}, `spec.sessions.allow.exec: ["/bin/\\["]`},
		{Access{Kind: Write, Path: "/x/\xff\"\n"}, `spec.allow.write: ["/x/?\"\x0a"]`},
		{Access{Kind: Syscall, Name: "bpf"}, `spec.allow.syscalls: ["bpf"]`},
		{Access{Kind: Exec, Path: "/bin/called", Subject: Subject{Exe: "/x"}}, `from: ["/x"] in x.yaml:12: allow.exec /bin/called`},
		{Access{Kind: Exec, Path: "/bin/called"}, `spec.allow.exec: ["/bin/called"], without from: no program of the container called it`},
		{Access{Kind: Exec, Path: "/bin/root", Subject: Subject{UID: 5}}, `uid: [5] in x.yaml:13: allow.exec /bin/root`},
		{Access{Kind: Exec, Path: "/bin/pinned", SHA256: "cd"}, `spec.allow.exec: [{path: "/bin/pinned", sha256: cd}] in place of x.yaml:10: allow.exec /bin/pinned`},
		{Access{Kind: Read, Path: "/etc/shadow"}, `without x.yaml:25: deny.read /etc/shadow`},
		{Access{Kind: Exec, Path: "/bin/app"}, `nothing: it is allowed`},
	}
	for _, tt := range tests {
		if got := plan.Suggest(&tt.access); got != tt.want {
			t.Errorf("%+v:\ngot    %s\nwanted %s", tt.access, got, tt.want)
		}
	}
}

// TestSuggestionsHelp applies what is suggested for paths, and asks again.
func TestSuggestionsHelp(t *testing.T) {
	plan := mustCompile(t, mustParse(t, document("  {}\n")), full)
	for _, kind := range []Kind{Exec, Read, Write} {
		for _, path := range []string{"/bin/sh", "/a b", "/[x]{a,b}*?\\", "/é\n\t\"'", "/\xff\xfe/x", "/#: &*!|>%@"} {
			a := Access{Kind: kind, Path: path}
			line := strings.TrimPrefix(plan.Suggest(&a), "spec.allow.")
			better := mustCompile(t, mustParse(t, document("  allowUnenforced: [filesystem]\n  allow:\n    "+line+"\n")), full)
			if v := better.Decide(&a); v.Action != Allow {
				t.Errorf("%q: %s does not help: %s", path, line, v.Reason)
			}
		}
	}
}

func TestNeedsHash(t *testing.T) {
	plan := mustCompile(t, mustParse(t, decisions), full)
	if !plan.NeedsHash("/bin/pinned") || plan.NeedsHash("/bin/app") {
		t.Error("wrong")
	}
}

func TestWriteRoots(t *testing.T) {
	plan := mustCompile(t, mustParse(t, document(`  allow: {write: [/data/**, /data/x/*, "/run/{a,b}.pid", /data/**, "/var/log*/x", /data/y]}
  programs: [{path: /p, allow: {write: [/work/*]}}]
  sessions: {allow: {write: [/home/**]}}
`)), full)
	var got []string
	for _, r := range plan.WriteRoots() {
		text := r.Path
		if r.Exact {
			text += "!"
		}
		got = append(got, text)
	}
	want := []string{"/data", "/data/x", "/data/y!", "/home", "/run/a.pid!", "/run/b.pid!", "/var", "/work"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestExecBelow(t *testing.T) {
	plan := mustCompile(t, mustParse(t, document("  allow: {exec: [/opt/app/bin/x, \"/srv/*/run\"]}\n  deny: {exec: [/no/x]}\n  programs: [{path: /p, allow: {exec: [/prog/x]}}]\n  sessions: {allow: {exec: [/ses/x]}}\n")), full)
	for dir, want := range map[string]bool{
		"/": true, "/opt": true, "/opt/app/bin": true, "/opt/app/bin/x": true, "/opt/app/bin/y": false, "/opt/ap": false,
		"/srv": true, "/srv/a": true, "/srv/a/b": false, "/no": false, "/prog": true, "/ses": true, "/data": false,
	} {
		if got := plan.ExecBelow(dir); got != want {
			t.Errorf("%s: got %v", dir, got)
		}
	}
	image := mustCompile(t, mustParse(t, document("  allow: {exec: [\"@image\"]}\n")), full)
	if !image.ExecBelow("/data") || image.ExecNamedBelow("/data") {
		t.Error("wrong with @image")
	}
}
