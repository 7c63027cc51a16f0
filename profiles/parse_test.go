package profiles

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// document wraps the fields of a spec.
func document(spec string) string {
	return "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata:\n  name: x\nspec:\n" + spec
}

func mustParse(t testing.TB, text string) *Profile {
	t.Helper()
	all, err := Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// mistakes unpacks what Parse reports.
func mistakes(t testing.TB, err error) []*Error {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("not joined: %v", err)
	}
	var all []*Error
	for _, e := range joined.Unwrap() {
		var one *Error
		if !errors.As(e, &one) {
			t.Fatalf("not an *Error: %v", e)
		}
		all = append(all, one)
	}
	return all
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name, text string
		at         string // line:column
		field      string
		says       string // in problem or want
	}{
		{"unknown field", document("  alow: {}\n"), "6:3", "spec.alow", `did you mean "allow"?`},
		{"unknown field at the top", "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: x}\nspec: {}\nstatus: {}\n", "5:1", "status", "unknown field"},
		{"unknown verb", document("  allow:\n    execute: [/a]\n"), "7:5", "spec.allow.execute", "unknown field"},
		{"duplicate key", document("  mode: enforce\n  mode: monitor\n"), "7:3", "spec.mode", "given twice, first in line 6"},
		{"apiVersion", strings.Replace(document("  {}\n"), "v1alpha1", "v1", 1), "1:13", "apiVersion", "write stockade.dev/v1alpha1"},
		{"kind", strings.Replace(document("  {}\n"), "Profile", "Pod", 1), "2:7", "kind", "write Profile"},
		{"no spec", "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: x}\n", "1:1", "spec", "missing"},
		{"no name", "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {}\nspec: {}\n", "3:11", "metadata.name", "missing"},
		{"name", strings.Replace(document("  {}\n"), "name: x", "name: Redis_7", 1), "4:9", "metadata.name", "DNS-1123"},
		{"long name", strings.Replace(document("  {}\n"), "name: x", "name: "+strings.Repeat("x", 64), 1), "4:9", "metadata.name", "63"},
		{"mode", document("  mode: strict\n"), "6:9", "spec.mode", "learn, monitor or enforce"},
		{"onViolation", document("  onViolation: allow\n"), "6:16", "spec.onViolation", "kill, deny or freeze"},
		{"empty mode", document("  mode:\n"), "6:9", "spec.mode", "it is empty"},
		{"boolean", document("  allowPrivilegeEscalation: \"true\"\n"), "6:29", "spec.allowPrivilegeEscalation", "true or false"},
		{"allowUnenforced", document("  allowUnenforced: [net]\n"), "6:21", "spec.allowUnenforced[0]", "network"},
		{"extends", document("  extends: [A]\n"), "6:13", "spec.extends[0]", "DNS-1123"},
		{"not a list", document("  allow: {exec: /a}\n"), "6:17", "spec.allow.exec", "write a list"},
		{"not a mapping", document("  allow: [/a]\n"), "6:10", "spec.allow", "it is a list"},
		{"relative path", document("  allow: {exec: [bin/sh]}\n"), "6:18", "spec.allow.exec[0]", "begin with /"},
		{"empty path", document("  allow: {exec: [\"\"]}\n"), "6:18", "spec.allow.exec[0]", "empty"},
		{"empty item", document("  allow:\n    exec:\n      -\n"), "8:9", "spec.allow.exec[0]", "empty"},
		{"dots", document("  allow:\n    read:\n      - /a\n      - /a/../b\n"), "9:12", "spec.allow.read[1]", ".."},
		{"slash at the end", document("  allow: {write: [/data/]}\n"), "6:24", "spec.allow.write[0]", "/ at the end"},
		{"double slash", document("  allow: {write: [/data//x]}\n"), "6:24", "spec.allow.write[0]", "//"},
		{"class", document("  allow: {read: ['/tty[9-0]']}\n"), "6:18", "spec.allow.read[0]", "backwards"},
		{"cannot match", document("  allow: {read: [\"/a/{,.}/b\"]}\n"), "6:18", "spec.allow.read[0]", "empty component"},
		{"unknown set of files", document("  allow: {read: [\"@images\"]}\n"), "6:18", "spec.allow.read[0]", "@image"},
		{"image written", document("  allow: {write: [\"@image\"]}\n"), "6:19", "spec.allow.write[0]", "unchanged"},
		{"image denied", document("  deny: {read: [\"@image\"]}\n"), "6:17", "spec.deny.read[0]", "cannot be denied"},
		{"syscall", document("  allow: {syscalls: [opne]}\n"), "6:22", "spec.allow.syscalls[0]", "opne"},
		{"syscall set", document("  allow: {syscalls: [\"@defualt\"]}\n"), "6:22", "spec.allow.syscalls[0]", "@default"},
		{"syscall set denied", document("  deny: {syscalls: [\"@default\"]}\n"), "6:21", "spec.deny.syscalls[0]", "cannot be denied"},
		{"capability", document("  allow: {capabilities: [NET_ADMN]}\n"), "6:26", "spec.allow.capabilities[0]", `did you mean "NET_ADMIN"?`},
		{"capability in small letters", document("  allow: {capabilities: [cap_setuid]}\n"), "6:26", "spec.allow.capabilities[0]", `did you mean "SETUID"?`},
		{"sha256", document("  allow:\n    exec:\n      - path: /a\n        sha256: 3f5c\n"), "9:17", "spec.allow.exec[0].sha256", "64 characters"},
		{"sha256 of a pattern", document("  allow: {exec: [{path: /a*, sha256: " + strings.Repeat("ab", 32) + "}]}\n"), "6:18", "spec.allow.exec[0].sha256", "exact path"},
		{"sha256 of a read rule", document("  allow: {read: [{path: /a, sha256: " + strings.Repeat("ab", 32) + "}]}\n"), "6:37", "spec.allow.read[0].sha256", "exec rules only"},
		{"sha256 denied", document("  deny: {exec: [{path: /a, sha256: " + strings.Repeat("ab", 32) + "}]}\n"), "6:36", "spec.deny.exec[0].sha256", "deny the path"},
		{"from of a read rule", document("  allow: {read: [{path: /a, from: [/b]}]}\n"), "6:35", "spec.allow.read[0].from", "spec.programs"},
		{"uid of a write rule", document("  allow: {write: [{path: /a, uid: [0]}]}\n"), "6:35", "spec.allow.write[0].uid", "spec.programs"},
		{"uid", document("  allow: {exec: [{path: /a, uid: [root]}]}\n"), "6:35", "spec.allow.exec[0].uid[0]", "decimal"},
		{"octal uid", document("  allow: {exec: [{path: /a, uid: [010]}]}\n"), "6:35", "spec.allow.exec[0].uid[0]", "decimal"},
		{"uid of nobody", document("  allow: {exec: [{path: /a, uid: [4294967295]}]}\n"), "6:35", "spec.allow.exec[0].uid[0]", "4294967294"},
		{"negative uid", document("  allow: {exec: [{path: /a, uid: [-1]}]}\n"), "6:35", "spec.allow.exec[0].uid[0]", "decimal"},
		{"empty from", document("  allow: {exec: [{path: /a, from: []}]}\n"), "6:35", "spec.allow.exec[0].from", "leave from out"},
		{"mapped syscall", document("  allow: {syscalls: [{path: open}]}\n"), "6:22", "spec.allow.syscalls[0]", "by itself"},
		{"no path", document("  allow: {exec: [{uid: [0]}]}\n"), "6:18", "spec.allow.exec[0].path", "missing"},
		{"port", document("  allow: {listen: [tcp/66000]}\n"), "6:20", "spec.allow.listen[0]", "1 to 65535"},
		{"ports backwards", document("  allow: {listen: [tcp/90-80]}\n"), "6:20", "spec.allow.listen[0]", "80-90"},
		{"protocol", document("  allow: {listen: [http/80]}\n"), "6:20", "spec.allow.listen[0]", "tcp/6379"},
		{"prefix", document("  allow: {connect: [\"tcp/10.0.0.1/8:80\"]}\n"), "6:21", "spec.allow.connect[0]", "10.0.0.0/8"},
		{"IPv6 without brackets", document("  allow: {connect: [\"tcp/::1:80\"]}\n"), "6:21", "spec.allow.connect[0]", "[::1]"},
		{"listen on dns", document("  allow: {listen: [dns]}\n"), "6:20", "spec.allow.listen[0]", "udp/53"},
		{"unix", document("  allow: {listen: [unix/run/]}\n"), "6:20", "spec.allow.listen[0]", "/ at the end"},
		{"program without path", document("  programs: [{allow: {read: [/a]}}]\n"), "6:14", "spec.programs[0].path", "missing"},
		{"program without rules", document("  programs: [{path: /a}]\n"), "6:14", "spec.programs[0]", "without rules"},
		{"program twice", document("  programs:\n    - {path: /a, allow: {read: [/x]}}\n    - {path: /a, deny: {read: [/y]}}\n"), "8:7", "spec.programs[1]", "twice, first in line 7"},
		{"syscalls of a program", document("  programs: [{path: /a, allow: {syscalls: [open]}}]\n"), "6:43", "spec.programs[0].allow.syscalls", "whole container"},
		{"sessions deny", document("  sessions: {deny: {exec: [/a]}}\n"), "6:14", "spec.sessions.deny", "unknown field"},
		{"match nothing", document("  match: {images: []}\n"), "6:19", "spec.match.images", "holds for nothing"},
		{"image", document("  match: {images: [\"redis:[67]\"]}\n"), "6:20", "spec.match.images[0]", "any characters"},
		{"namespace", document("  match: {namespaces: [\"prod-*\"]}\n"), "6:24", "spec.match.namespaces[0]", "DNS-1123"},
		{"label", document("  match: {podSelector: {matchLabels: {app: true}}}\n"), "6:44", "spec.match.podSelector.matchLabels.app", "quotes"},
		{"anchor", document("  allow: &a {}\n  deny: *a\n"), "6:10", "", "an anchor"},
		{"merge key", document("  <<: {mode: enforce}\n"), "6:3", "", "a merge key"},
		{"tag", document("  mode: !!str enforce\n"), "6:9", "", "a tag"},
		{"explicit key", document("  ? mode\n  : enforce\n"), "6:3", "", "explicit key"},
		{"not YAML", document("  allow: {exec: [\n"), "6:17", "", "not YAML"},
		{"not UTF-8", document("  mode: \xff\n"), "6:9", "", "UTF-8"},
		{"not a document", "- a\n", "1:1", "", "write fields"},
		{"nothing", "# only a comment\n", "", "", "no profile"},
		{"large", strings.Repeat("#\n", 1<<20), "", "", "at most 1048576"},
		{"block scalar", document("  allow:\n    exec:\n      - |\n        /a\n"), "8:9", "", "a block of text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, err := Parse("x.yaml", []byte(tt.text))
			errs := mistakes(t, err)
			if len(errs) == 0 || all != nil {
				t.Fatalf("accepted")
			}
			e := errs[0]
			at := ""
			if e.Line > 0 {
				at = fmt.Sprintf("%d:%d", e.Line, e.Column)
			}
			if at != tt.at || e.Field != tt.field || !strings.Contains(e.Problem+"; "+e.Want, tt.says) || e.File != "x.yaml" {
				t.Errorf("got %v\nwanted x.yaml:%s: %s: ... %s", e, tt.at, tt.field, tt.says)
			}
		})
	}
}

func TestParseReportsAll(t *testing.T) {
	_, err := Parse("x.yaml", []byte(document("  mode: strict\n  allow: {exec: [a, b], colour: red}\n")+"---\n"+document("  extends: [X]\n")))
	errs := mistakes(t, err)
	var fields []string
	for _, e := range errs {
		fields = append(fields, e.Field)
	}
	want := "spec.mode spec.allow.exec[0] spec.allow.exec[1] spec.allow.colour spec.extends[0] metadata.name"
	if got := strings.Join(fields, " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseDocuments(t *testing.T) {
	second := strings.Replace(document("  {}\n"), "name: x", "name: y", 1)
	all, err := Parse("x.yaml", []byte("---\n"+document("  mode: enforce\n")+"---\n# nothing\n---\n"+second))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Name != "x" || all[1].Name != "y" || all[0].Position.Line != 2 {
		t.Errorf("got %+v", all)
	}
}

func TestParseReads(t *testing.T) {
	p := mustParse(t, document(`  match:
    images: ["a:*"]
    podSelector: {matchLabels: {app: redis, tier: "1", empty: ""}}
  mode: monitor
  onViolation: freeze
  allowPrivilegeEscalation: true
  allow:
    exec:
      - /a
      - path: /b
        from: [/c]
        uid: [0, 7]
    capabilities: [CAP_CHOWN, KILL]
    connect: [dns, "tcp/[::]/0:443", unix/run/x.sock, unix@x, udp/1-2, tcp/*]
`))
	if p.Mode != ModeMonitor || p.OnViolation != Freeze || !*p.AllowPrivilegeEscalation || len(p.Match.Labels) != 3 || p.Match.Images[0] != "a:*" {
		t.Errorf("got %+v", p)
	}
	r := p.Allow.Exec[1]
	if r.Text != "/b" || r.From[0] != "/c" || r.UID[1] != 7 || r.Field != "spec.allow.exec[1]" || r.Line != 15 || r.Column != 9 {
		t.Errorf("got %+v", r)
	}
	if got := r.String(); got != "x.yaml:15: allow.exec /b" {
		t.Errorf("got %q", got)
	}
	if c := p.Allow.Capabilities; c[0].Text != "CHOWN" || c[1].Text != "KILL" {
		t.Errorf("got %v", c)
	}
}

// TestParseHostile reads files made to be expensive: they must be refused, not overflow the stack or take for ever.
func TestParseHostile(t *testing.T) {
	const n = 1<<20 - 1000
	for name, text := range map[string]string{
		"brackets":      strings.Repeat("[", n),
		"closed first":  strings.Repeat("]", n/2) + strings.Repeat("[", n/2),
		"braces":        strings.Repeat("{a: ", n/4),
		"dashes":        strings.Repeat("- ", n/2),
		"keys":          strings.Repeat("a: ", n/3),
		"question":      strings.Repeat("? ", n/2),
		"colons":        strings.Repeat(":", n),
		"quotes":        strings.Repeat(`"`, n),
		"stairs":        stairs(1000, "a:"),
		"stairs of -":   stairs(1000, "- a:"),
		"documents":     strings.Repeat("---\n", n/4),
		"long scalar":   document("  mode: " + strings.Repeat("x", n-200) + "\n"),
		"long pattern":  document("  allow: {read: [/" + strings.Repeat("*a", n/2-200) + "]}\n"),
		"many braces":   document("  allow: {read: ['/" + strings.Repeat("{a,b}", 1000) + "']}\n"),
		"many unknowns": document(strings.Repeat("  a: b\n", 1000)),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("x.yaml", []byte(text)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func stairs(n int, step string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + step + "\n")
	}
	return b.String()
}
