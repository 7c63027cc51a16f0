package profiles

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// with returns the full target changed.
func with(change func(*Target)) Target {
	t := full
	change(&t)
	return t
}

// levels are the guarantees in one line.
func levels(p *Plan) string {
	var all []string
	for _, g := range p.Guarantees {
		all = append(all, g.Kind+" "+g.Level.String())
	}
	return strings.Join(all, ", ")
}

func TestGuarantees(t *testing.T) {
	const strong = "exec kill, read kill, write kill, create+unlink+rename kill, fileless kill, syscall kill, capability deny, network none, mounts kill"
	bare := with(func(t *Target) { t.Fanotify, t.SeccompNotify, t.MountSeal = No, Unknown, No })
	tests := []struct {
		name, spec string
		target     Target
		want       string
	}{
		{"everything", "  {}\n", full, strong},
		{"writable directory", "  allow: {write: [/data/**]}\n", full, strong},
		{"deny", "  onViolation: deny\n", full, strings.ReplaceAll(strong, "kill", "deny")},
		{"freeze", "  onViolation: freeze\n", full, strings.ReplaceAll(strong, "kill", "deny")},
		{"partly declared tree", "  allow: {write: [/data/*.rdb]}\n", full, strings.Replace(strong, "rename kill", "rename detect", 1)},
		{"all writable", "  allow: {write: [/**]}\n", full, "exec kill, read kill, write kill, create+unlink+rename none, fileless kill, syscall kill, capability deny, network none, mounts kill"},
		{"no seal", "  allowUnenforced: [filesystem]\n", with(func(t *Target) { t.MountSeal = No }), "exec kill, read kill, write kill, create+unlink+rename none, fileless kill, syscall kill, capability deny, network none, mounts kill"},
		{"network", "  {allowUnenforced: [network], allow: {listen: [tcp/80]}}\n", full, strong},
		{"memfd", "  {allowUnenforced: [fileless], allow: {syscalls: [\"@default\", memfd_create]}}\n", full, strings.Replace(strong, "fileless kill", "fileless none", 1)},
		{"mounts", "  {allowUnenforced: [mounts], allow: {capabilities: [SYS_ADMIN]}}\n", full, strings.Replace(strong, "mounts kill", "mounts none", 1)},
		{"monitor", "  mode: monitor\n", full, "exec detect, read detect, write detect, create+unlink+rename detect, fileless detect, syscall detect, capability none, network none, mounts detect"},
		{"monitor on a poor node", "  mode: monitor\n", bare, "exec none, read none, write none, create+unlink+rename none, fileless none, syscall none, capability none, network none, mounts none"},
		{"monitor with listen", "  {mode: monitor, allow: {listen: [tcp/80]}}\n", full, "exec detect, read detect, write detect, create+unlink+rename detect, fileless detect, syscall detect, capability none, network none, mounts detect"},
	}
	for _, tt := range tests {
		plan, err := Compile(mustParse(t, document(tt.spec)), tt.target)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := levels(plan); got != tt.want {
			t.Errorf("%s:\ngot    %s\nwanted %s", tt.name, got, tt.want)
		}
		for _, g := range plan.Guarantees {
			if g.Level == LevelNone && g.Note == "" || g.Level != LevelNone && g.By == "" {
				t.Errorf("%s: %+v says too little", tt.name, g)
			}
		}
	}
}

func TestCompileErrors(t *testing.T) {
	tests := []struct {
		name, spec string
		target     Target
		says       string
	}{
		{"learn", "  mode: learn\n", full, "mode learn is not in this build; use monitor"},
		{"extends", "  extends: [a]\n", full, "not resolved"},
		{"no fanotify", "  {}\n", with(func(t *Target) { t.Fanotify = No }), "this node has no fanotify permission events"},
		{"fanotify unknown", "  {}\n", with(func(t *Target) { t.Fanotify = Unknown }), "could not be told whether this node has fanotify"},
		{"no notification", "  {}\n", with(func(t *Target) { t.SeccompNotify = No }), "this node has no seccomp user notification"},
		{"architecture", "  {}\n", with(func(t *Target) { t.Arch = "pdp11" }), "pdp11"},
		{"no seal", "  {}\n", with(func(t *Target) { t.MountSeal = No }), "add filesystem to allowUnenforced"},
		{"write at the root", "  allow: {write: [/*.log]}\n", full, "/*.log"},
		{"listen", "  allow: {listen: [tcp/80]}\n", full, "add network to allowUnenforced"},
		{"connect of a program", "  programs: [{path: /a, allow: {connect: [dns]}}]\n", full, "add network to allowUnenforced"},
		{"memfd", "  allow: {syscalls: [\"@default\", memfd_create]}\n", full, "add fileless to allowUnenforced"},
		{"mounts", "  allow: {capabilities: [SYS_ADMIN]}\n", full, "add mounts to allowUnenforced"},
		{"mounts by namespaces", "  allow: {syscalls: [\"@default\", mount, unshare]}\n", full, "add mounts to allowUnenforced"},
		{"copies of the mounts", "  allow: {syscalls: [\"@default\", unshare]}\n", full, "add mounts to allowUnenforced"},
		{"mounts by clone", "  allow: {syscalls: [\"@default\", fsmount, move_mount, clone]}\n", full, "add mounts to allowUnenforced"},
		{"a syscall of the runtime denied", "  deny: {syscalls: [ptrace, execve]}\n", full, "x.yaml:6:29: spec.deny.syscalls[1]: execve cannot be denied"},
		{"pinned and written", "  allow: {exec: [{path: /data/x, sha256: " + ab64 + "}], write: [/data/**]}\n", full, "x.yaml:6:18: spec.allow.exec[0]: /data/x may be written (x.yaml:6: allow.write /data/**)"},
		{"pinned and written by a program", "  {allow: {exec: [{path: /x, sha256: " + ab64 + "}]}, programs: [{path: /p, allow: {write: [/x]}}]}\n", full, "/x may be written"},
	}
	for _, tt := range tests {
		plan, err := Compile(mustParse(t, document(tt.spec)), tt.target)
		if err == nil || plan != nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// TestCompileChecksWhatWasNotParsed: a profile may come from a program instead of a file.
func TestCompileChecksWhatWasNotParsed(t *testing.T) {
	for name, rules := range map[string]Rules{
		"pattern":    {Exec: []Rule{{Text: "bin"}}},
		"from":       {Exec: []Rule{{Text: "/a", From: []string{"/b/"}}}},
		"capability": {Capabilities: []Rule{{Text: "FLY"}}},
		"syscall":    {Syscalls: []Rule{{Text: "fly"}}},
		"set":        {Syscalls: []Rule{{Text: "@fly"}}},
		"address":    {Listen: []Rule{{Text: "tcp/x"}}},
		"digest":     {Exec: []Rule{{Text: "/a*", SHA256: ab64}}},
		"image":      {Write: []Rule{{Text: Image}}},
	} {
		p := &Profile{Name: "x", Allow: rules, AllowUnenforced: unenforceable}
		if _, err := Compile(p, full); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Compile(&Profile{Name: "x", Programs: []Program{{Path: "x"}}}, full); err == nil {
		t.Error("program: accepted")
	}
	if _, err := Compile(&Profile{Name: "x", Deny: Rules{Read: []Rule{{Text: Image}}}}, full); err == nil {
		t.Error("denied image: accepted")
	}
}

func TestPlanForTheBundle(t *testing.T) {
	p := mustParse(t, document("  allow: {capabilities: [SETUID, CHOWN], write: [/data/**]}\n"))
	plan := mustCompile(t, p, full)
	if !plan.NoNewPrivileges || !plan.Seal || !slices.Equal(plan.Capabilities, []string{"CAP_CHOWN", "CAP_SETUID"}) || plan.Digest != p.Digest() || plan.Seccomp == nil {
		t.Errorf("got %+v", plan)
	}
	yes := true
	p.AllowPrivilegeEscalation = &yes
	if mustCompile(t, p, full).NoNewPrivileges {
		t.Error("no_new_privs in spite of allowPrivilegeEscalation")
	}
	p.AllowPrivilegeEscalation, p.Mode = nil, ModeMonitor
	if plan := mustCompile(t, p, full); plan.NoNewPrivileges || plan.Seal {
		t.Error("monitor mode changes the container")
	}
}

func TestSyscallPolicy(t *testing.T) {
	action := func(spec, name string) string {
		plan := mustCompile(t, mustParse(t, document(spec)), full)
		for _, s := range plan.Seccomp.Syscalls {
			if slices.Contains(s.Names, name) && len(s.Args) == 0 {
				if s.ErrnoRet != nil {
					return fmt.Sprintf("%s %d", s.Action, *s.ErrnoRet)
				}
				return string(s.Action)
			}
		}
		return ""
	}
	tests := []struct{ spec, name, want string }{
		{"  {}\n", "read", "SCMP_ACT_ALLOW"},
		{"  {}\n", "openat2", "SCMP_ACT_ERRNO 38"},
		{"  {allow: {syscalls: [\"@default\", openat2]}}\n", "openat2", "SCMP_ACT_ALLOW"},
		{"  {allow: {syscalls: [openat2]}, deny: {syscalls: [openat2]}}\n", "openat2", "SCMP_ACT_ERRNO 38"},
		{"  {}\n", "memfd_create", "SCMP_ACT_NOTIFY"},
		{"  {allowUnenforced: [fileless], allow: {syscalls: [\"@default\", memfd_create]}}\n", "memfd_create", "SCMP_ACT_ALLOW"},
		{"  {deny: {syscalls: [socket]}}\n", "socket", "SCMP_ACT_NOTIFY"},
		{"  {}\n", "keyctl", "SCMP_ACT_NOTIFY"},
		{"  {allow: {syscalls: [keyctl]}}\n", "keyctl", "SCMP_ACT_ALLOW"},
		{"  {allow: {syscalls: [keyctl]}, deny: {syscalls: [keyctl]}}\n", "keyctl", "SCMP_ACT_NOTIFY"},
	}
	for _, tt := range tests {
		if got := action(tt.spec, tt.name); got != tt.want {
			t.Errorf("%s with %q: got %s, want %s", tt.name, tt.spec, got, tt.want)
		}
	}
}

func TestNotes(t *testing.T) {
	tests := []struct {
		spec   string
		target Target
		says   string
	}{
		{"  {}\n", full, "no session is declared"},
		{"  mode: monitor\n", full, "nothing is refused"},
		{"  allowUnenforced: [host]\n", full, "end or change Stockade"},
		{"  {}\n", with(func(t *Target) { t.FanotifyStack = No }), "interpreters need exec rules"},
		{"  {}\n", with(func(t *Target) { t.AppArmor = Yes }), "AppArmor"},
		{"  allow: {capabilities: [SYS_PTRACE]}\n", full, "SYS_PTRACE"},
		{"  allow: {syscalls: [\"@default\", openat2]}\n", full, "openat2"},
		{"  allow: {syscalls: [\"@default\", io_uring_setup]}\n", full, "io_uring"},
		{"  {allowUnenforced: [mounts], allow: {syscalls: [\"@default\", clone]}}\n", full, "user namespaces"},
		{"  allow: {exec: [/data/bin/*], write: [/data/**]}\n", full, "below /data (/data/**)"},
	}
	for _, tt := range tests {
		plan := mustCompile(t, mustParse(t, document(tt.spec)), tt.target)
		if !slices.ContainsFunc(plan.Notes, func(n string) bool { return strings.Contains(n, tt.says) }) {
			t.Errorf("%q: nothing of %q in %q", tt.spec, tt.says, plan.Notes)
		}
	}
}
