package incident

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"/bin/sh":          "/bin/sh",
		"a b":              "a b",
		"":                 "",
		"/tmp/\x1b[2Jx":    `/tmp/\x1b[2Jx`,
		"a\nb\tc\r":        `a\nb\tc\r`,
		"\x7f\x00":         `\x7f\x00`,
		"\u009b31m":        `\u009b31m`,      // C1: CSI in one character
		"\xff\xfe/x":       `\xff\xfe/x`,     // not UTF-8
		"a\u202egnp.exe":   `a\u202egnp.exe`, // right to left override
		"a\u200bb\ufeff":   `a\u200bb\ufeff`,
		"caf\u00e9 \u65e5": "caf\u00e9 \u65e5",
		`back\slash`:       `back\\slash`,
		"nbsp\u00a0":       `nbsp\u00a0`,
		"tag\U000e0041":    `tag\U000e0041`,
		"quote\"and'":      `quote"and'`,
		"\u2028line\u2029": `\u2028line\u2029`,
	} {
		if got := Safe(in); got != want {
			t.Errorf("Safe(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("a\x1b\xff\u202e\\")
	f.Fuzz(func(t *testing.T, s string) {
		got := Safe(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("Safe(%q) = %q", s, got)
		}
	})
}

func TestCause(t *testing.T) {
	inc := sample()
	for _, tc := range []struct {
		name   string
		change func(*Incident)
		want   string
	}{
		{"not declared", func(*Incident) {}, `stockade: killed: exec /bin/sh is not declared (profile redis, to allow it: spec.allow.exec: ["/bin/sh"])`},
		{"no reason", func(i *Incident) { i.Reason = "" }, `stockade: killed: exec /bin/sh is not declared (profile redis, to allow it: spec.allow.exec: ["/bin/sh"])`},
		{"denying rule", func(i *Incident) {
			i.Action, i.Rule, i.Reason, i.Suggestion = Denied, "redis.yaml:14: deny.read /etc/shadow", "denied by a deny rule", "without redis.yaml:14: deny.read /etc/shadow"
			i.Access = Access{Kind: "read", Path: "/etc/shadow"}
		}, `stockade: denied: read /etc/shadow: denied by a deny rule (profile redis, rule redis.yaml:14: deny.read /etc/shadow)`},
		{"syscall in a session", func(i *Incident) {
			i.Access, i.Session, i.Suggestion = Access{Kind: "syscall", Syscall: "keyctl"}, true, `spec.allow.syscalls: ["keyctl"]`
		}, `stockade: killed: syscall keyctl is not declared in an exec session (profile redis, to allow it: spec.allow.syscalls: ["keyctl"])`},
		{"escape sequences", func(i *Incident) { i.Access.Path, i.Suggestion = "/tmp/\x1b]0;x\x07\n", "" }, `stockade: killed: exec /tmp/\x1b]0;x\a\n is not declared (profile redis)`},
		{"losses only", func(i *Incident) { *i = Incident{Action: Lost, Lost: 4} }, "stockade: 4 incidents could not be written"},
	} {
		i := inc
		tc.change(&i)
		if got := Cause(&i); got != tc.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tc.name, got, tc.want)
		}
	}
	inc.Access.Path, inc.Rule, inc.Reason = strings.Repeat("\xff", 4096), strings.Repeat("é", 4096), strings.Repeat("x", 4096)
	if got := Cause(&inc); len(got) > maxCause+40 || strings.Contains(got, "\n") || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
