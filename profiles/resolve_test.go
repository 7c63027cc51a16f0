package profiles

import (
	"strings"
	"testing"
)

// family parses documents "name: spec" and resolves the first.
func family(t *testing.T, specs ...string) (*Profile, error) {
	t.Helper()
	all := map[string]*Profile{}
	var first string
	for _, s := range specs {
		name, spec, _ := strings.Cut(s, ":")
		p := mustParse(t, "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: "+name+"}\nspec: {"+spec+"}\n")
		p.Position.File = name + ".yaml"
		all[name] = p
		if first == "" {
			first = name
		}
	}
	return Resolve(first, func(name string) (*Profile, bool) { p, ok := all[name]; return p, ok })
}

func TestResolve(t *testing.T) {
	p, err := family(t,
		"a:extends: [b, c], allow: {read: [/a, /both]}, programs: [{path: /p, allow: {read: [/pa]}}]",
		"b:extends: [d], mode: monitor, match: {images: [x]}, allow: {read: [/b, /both]}, programs: [{path: /p, allow: {read: [/pb]}}, {path: /q, deny: {read: [/qb]}}]",
		"c:onViolation: deny, allowUnenforced: [network], deny: {read: [/c]}, sessions: {allow: {exec: [/s]}}",
		"d:allowPrivilegeEscalation: true, allow: {read: [/d]}",
	)
	if err != nil {
		t.Fatal(err)
	}
	want := `apiVersion: stockade.dev/v1alpha1
kind: Profile
metadata:
  name: a
spec:
  mode: monitor
  onViolation: deny
  allowPrivilegeEscalation: true
  allowUnenforced: [network]
  allow:
    read:
      - /a
      - /b
      - /both
      - /d
  deny:
    read:
      - /c
  programs:
    - path: /p
      allow:
        read:
          - /pa
          - /pb
    - path: /q
      deny:
        read:
          - /qb
  sessions:
    allow:
      exec:
        - /s
`
	if got := string(p.YAML()); got != want {
		t.Errorf("got\n%s\nwanted\n%s", got, want)
	}
	if r := p.Allow.Read[2]; r.Text != "/b" || r.Field != "spec.allow.read[0]" || r.Line != 4 {
		t.Errorf("a rule lost its place: %+v", r)
	}
}

func TestResolveChildWins(t *testing.T) {
	p, err := family(t,
		"a:extends: [b, c], mode: enforce, onViolation: kill, allowPrivilegeEscalation: false",
		"b:mode: monitor, onViolation: deny, allowPrivilegeEscalation: true",
		"c:mode: learn, onViolation: freeze, allowPrivilegeEscalation: false",
	)
	if err != nil {
		t.Fatal(err)
	}
	if p.Mode != ModeEnforce || p.OnViolation != Kill || *p.AllowPrivilegeEscalation {
		t.Errorf("got %+v", p)
	}
}

func TestResolveLeavesParentsAlone(t *testing.T) {
	base := mustParse(t, strings.Replace(document("  allow: {read: [/b]}\n  programs: [{path: /p, allow: {read: [/x]}}]\n"), "name: x", "name: base", 1))
	child := mustParse(t, document("  extends: [base]\n  allow: {read: [/a]}\n  programs: [{path: /p, allow: {read: [/y]}}]\n"))
	before := base.Digest() + child.Digest()
	for range 2 {
		if _, err := Resolve("x", func(name string) (*Profile, bool) {
			return map[string]*Profile{"x": child, "base": base}[name], true
		}); err != nil {
			t.Fatal(err)
		}
	}
	if base.Digest()+child.Digest() != before {
		t.Error("Resolve changed what it was given")
	}
}

func TestResolveErrors(t *testing.T) {
	tests := []struct {
		name  string
		specs []string
		says  string
	}{
		{"missing", []string{"a:extends: [b]"}, `a.yaml:1:1: spec.extends: no profile is named "b"`},
		{"missing further up", []string{"a:extends: [b]", "b:extends: [c]"}, `b.yaml:1:1: spec.extends: no profile is named "c"`},
		{"itself", []string{"a:extends: [a]"}, "a -> a"},
		{"circle", []string{"a:extends: [b]", "b:extends: [c]", "c:extends: [b]"}, "a -> b -> c -> b"},
		{"mode", []string{"a:extends: [b, c]", "b:mode: monitor", "c:mode: enforce"}, "spec.mode: profiles it extends disagree"},
		{"onViolation", []string{"a:extends: [b, c]", "b:onViolation: deny", "c:onViolation: kill"}, "spec.onViolation: profiles it extends disagree"},
		{"escalation", []string{"a:extends: [b, c]", "b:allowPrivilegeEscalation: true", "c:allowPrivilegeEscalation: false"}, "spec.allowPrivilegeEscalation: profiles it extends disagree"},
	}
	for _, tt := range tests {
		if _, err := family(t, tt.specs...); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	if _, err := Resolve("x", func(string) (*Profile, bool) { return nil, false }); err == nil {
		t.Error("a profile that is not there was resolved")
	}
}

// TestResolveDiamonds: each profile extends the two before it twice over; what is shared must not be visited for every
// way that leads to it.
func TestResolveDiamonds(t *testing.T) {
	all := map[string]*Profile{}
	lookups := 0
	names := strings.Split("abcdefghijklmnopqrstuvwxyz", "")
	for i, name := range names {
		p := &Profile{Name: name, Allow: Rules{Read: []Rule{{Text: "/" + name}}}}
		if i >= 2 {
			p.Extends = []string{names[i-1], names[i-2]}
		}
		all[name] = p
	}
	p, err := Resolve("z", func(name string) (*Profile, bool) { lookups++; return all[name], true })
	if err != nil || len(p.Allow.Read) < 26-1 {
		t.Fatal(err, len(p.Allow.Read))
	}
	if lookups > 200 {
		t.Errorf("%d lookups", lookups)
	}
}
