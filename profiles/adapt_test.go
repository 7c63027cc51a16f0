package profiles

import (
	"slices"
	"strings"
	"testing"
)

// TestAdapt: what a new profile changes in a running container at once, and what waits.
func TestAdapt(t *testing.T) {
	const base = "  allow: {exec: [/bin/a], read: [\"@image\"], write: [/data/**, /srv/**], capabilities: [CHOWN]}\n"
	sealed := []Place{{Path: "/", ReadOnly: true}, {Path: "/proc"}, {Path: "/data", NoExec: true}, {Path: "/srv"}}
	for _, tt := range []struct {
		name        string
		armed, next string
		mode        Mode
		waits       []string          // "part" or "part!" where the container may do more than the new profile says; in order
		levels      map[string]Level  // that the plan now gives
		says        map[string]string // a word of the wait on a part
	}{
		{name: "the same", armed: base, next: base, mode: ModeEnforce, levels: map[string]Level{GuaranteeExec: LevelKill, GuaranteeSyscall: LevelKill}},
		{
			name: "exec, read, sessions, onViolation", armed: base, mode: ModeEnforce,
			next: "  onViolation: deny\n  allow: {exec: [/bin/b], read: [/etc/**], write: [/data/**, /srv/**], capabilities: [CHOWN]}\n" +
				"  sessions: {allow: {exec: [/bin/c]}}\n",
			levels: map[string]Level{GuaranteeExec: LevelDeny},
		},
		{name: "monitor to enforce", armed: "  mode: monitor\n" + base, next: base, mode: ModeMonitor, waits: []string{"mode!"}, levels: map[string]Level{
			GuaranteeExec: LevelDetect, GuaranteeTree: LevelDetect, GuaranteeCapability: LevelNone, GuaranteeSyscall: LevelDetect,
		}},
		{
			name: "enforce to monitor", armed: base, next: "  mode: monitor\n" + base, mode: ModeMonitor,
			waits: []string{"syscalls", "mounts", "capabilities"}, levels: map[string]Level{GuaranteeExec: LevelDetect},
		},
		{name: "monitor to monitor", armed: "  mode: monitor\n" + base, next: "  mode: monitor\n  allow: {exec: [/bin/b]}\n", mode: ModeMonitor},
		{
			name: "a writable mount no more", armed: base, next: strings.Replace(base, "/data/**, ", "", 1), mode: ModeEnforce,
			waits: []string{"mounts!"}, levels: map[string]Level{GuaranteeTree: LevelDetect, GuaranteeWrite: LevelKill}, says: map[string]string{"mounts!": "/data"},
		},
		{
			name: "part of a writable mount", armed: base, next: strings.Replace(base, "/data/**", "/data/x/**", 1), mode: ModeEnforce,
			waits: []string{"mounts!"}, levels: map[string]Level{GuaranteeTree: LevelDetect}, says: map[string]string{"mounts!": "/data"},
		},
		{
			name: "one more writable", armed: base, next: strings.Replace(base, "/data/**", "/data/**, /opt/x/**", 1), mode: ModeEnforce,
			waits: []string{"mounts"}, says: map[string]string{"mounts": "/opt/x/** lies on a mount (/)"},
		},
		{
			name: "exec on a noexec mount", armed: base, next: strings.Replace(base, "/bin/a", "/bin/a, /data/tool", 1), mode: ModeEnforce,
			waits: []string{"mounts"}, says: map[string]string{"mounts": "/data stays mounted noexec"},
		},
		{
			name: "sealed no more", armed: base, mode: ModeEnforce, waits: []string{"mounts"},
			next: "  allowUnenforced: [filesystem]\n  allow: {exec: [/bin/a], read: [\"@image\"], write: [\"/**\"], capabilities: [CHOWN]}\n",
		},
		{
			name: "to be sealed", next: base, mode: ModeEnforce, waits: []string{"mounts!"},
			armed:  "  allowUnenforced: [filesystem]\n  allow: {exec: [/bin/a], read: [\"@image\"], write: [\"/*/x\"], capabilities: [CHOWN]}\n",
			levels: map[string]Level{GuaranteeTree: LevelNone},
		},
		{
			name: "capabilities", armed: base, next: strings.Replace(base, "CHOWN", "SETUID", 1), mode: ModeEnforce,
			waits: []string{"capabilities!", "capabilities"}, says: map[string]string{"capabilities!": "CAP_CHOWN", "capabilities": "CAP_SETUID"},
		},
		{
			name: "privileges", armed: base, next: "  allowPrivilegeEscalation: true\n" + base, mode: ModeEnforce,
			waits: []string{"no_new_privs"},
		},
		{
			name: "a call more", armed: base, mode: ModeEnforce, waits: []string{"syscalls"},
			next: strings.Replace(base, "exec:", "syscalls: [\"@default\", keyctl], exec:", 1), says: map[string]string{"syscalls": "from now on, but each call is asked about, which costs time: keyctl"},
		},
		{
			name: "a call fewer", next: base, mode: ModeEnforce, waits: []string{"syscalls!"},
			armed: strings.Replace(base, "exec:", "syscalls: [\"@default\", keyctl], exec:", 1), says: map[string]string{"syscalls!": "keyctl"},
		},
		{
			name: "a call that is told first, fewer", armed: base, mode: ModeEnforce,
			next: strings.Replace(base, "capabilities:", "capabilities:", 1) + "  deny: {syscalls: [unlink]}\n",
		},
		{
			name: "memfd_create no more", next: base, mode: ModeEnforce, waits: []string{"syscalls!"},
			armed:  "  allowUnenforced: [fileless]\n" + strings.Replace(base, "exec:", "syscalls: [\"@default\", memfd_create], exec:", 1),
			levels: map[string]Level{GuaranteeFileless: LevelNone},
		},
		{
			name: "openat2 is answered by the filter itself", armed: base, mode: ModeEnforce, waits: []string{"syscalls"},
			next: strings.Replace(base, "exec:", "syscalls: [\"@default\", openat2], exec:", 1), says: map[string]string{"syscalls": "still refuses openat2"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			armed, next := mustCompile(t, mustParse(t, document(tt.armed)), full), mustCompile(t, mustParse(t, document(tt.next)), full)
			before := slices.Clone(next.Guarantees)
			plan, waits := Adapt(armed, next, sealed)
			if plan.Mode != tt.mode || plan.Digest != next.Digest {
				t.Errorf("mode %s, digest %s; want %s, %s", plan.Mode, plan.Digest, tt.mode, next.Digest)
			}
			var got []string
			for _, w := range waits {
				part := w.Part
				if w.Weaker {
					part += "!"
				}
				got = append(got, part)
				if !strings.Contains(w.What, tt.says[part]) {
					t.Errorf("%s: %q lacks %q", part, w.What, tt.says[part])
				}
			}
			if !slices.Equal(got, tt.waits) {
				t.Errorf("waits: %q, want %q\n%+v", got, tt.waits, waits)
			}
			for _, g := range plan.Guarantees {
				if want, ok := tt.levels[g.Kind]; ok && g.Level != want {
					t.Errorf("%s: %s, want %s (%s)", g.Kind, g.Level, want, g.Note)
				}
			}
			if !slices.Equal(before, next.Guarantees) {
				t.Error("the new plan itself was changed")
			}
		})
	}
}
