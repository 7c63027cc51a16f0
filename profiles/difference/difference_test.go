package difference

import (
	"slices"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
)

func spec(t *testing.T, text string) *profiles.Profile {
	t.Helper()
	all, err := profiles.Parse("x", []byte("apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: x}\nspec: {"+text+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestOf(t *testing.T) {
	for _, tc := range []struct{ name, a, b, want string }{
		{"order", "allow: {exec: [/a, /b]}", "allow: {exec: [/b, /a]}", ""},
		{"given by default", "", "mode: enforce, onViolation: kill, allowPrivilegeEscalation: false, allow: {syscalls: [\"@default\"]}", ""},
		{"added", "", "allow: {exec: [/a]}", "looser + allow.exec /a"},
		{"removed", "allow: {exec: [/a]}", "", "stricter - allow.exec /a"},
		{"deny added", "", "deny: {exec: [/a]}", "stricter + deny.exec /a"},
		{"deny widened", "deny: {read: [/a/b]}", "deny: {read: [/a/**]}", "stricter > deny.read /a/**"},
		{"deny narrowed", "deny: {read: [/a/**]}", "deny: {read: [/a/b]}", "looser < deny.read /a/b"},
		{"several into one", "allow: {read: [/a/b, /a/c]}", "allow: {read: [/a/*]}", "looser > allow.read /a/*"},
		{"tree into children", "allow: {read: [/a/**]}", "allow: {read: [/a/*]}", "stricter < allow.read /a/*"},
		{"below a tree", "allow: {read: [\"/a/b/*.so\"]}", "allow: {read: [/a/**]}", "looser > allow.read /a/**"},
		{"not comparable", "allow: {read: [\"/a/*.so\"]}", "allow: {read: [\"/a/x*\"]}", "looser + allow.read /a/x*; stricter - allow.read /a/*.so"},
		{"folder itself is not below", "allow: {read: [/a]}", "allow: {read: [/a/**]}", "looser + allow.read /a/**; stricter - allow.read /a"},
		{"@image is no pattern", "allow: {read: [/a]}", "allow: {read: [\"@image\"]}", "looser + allow.read @image; stricter - allow.read /a"},
		{"uid dropped", "allow: {exec: [{path: /a, uid: [1]}]}", "allow: {exec: [/a]}", "looser > allow.exec /a"},
		{"uid added", "allow: {exec: [/a]}", "allow: {exec: [{path: /a, uid: [1]}]}", "stricter < allow.exec /a uid [1]"},
		{"uid changed", "allow: {exec: [{path: /a, uid: [1]}]}", "allow: {exec: [{path: /a, uid: [2]}]}", " ~ allow.exec /a uid [2]"},
		{"uid wider, from narrower", "allow: {exec: [{path: /a, uid: [1]}]}", "allow: {exec: [{path: /a, from: [/b]}]}", " ~ allow.exec /a from [/b]"},
		{"wider pattern, narrower uid", "allow: {exec: [/a/b]}", "allow: {exec: [{path: /a/*, uid: [1]}]}", "looser + allow.exec /a/* uid [1]; stricter - allow.exec /a/b"},
		{"first syscalls replace the default", "", "allow: {syscalls: [read]}", "looser + allow.syscalls read; stricter - allow.syscalls @default"},
		{"onViolation", "", "onViolation: deny", "looser ~ onViolation deny"},
		{"to enforce", "mode: monitor", "", "stricter ~ mode enforce"},
		{"program", "", "programs: [{path: /a, allow: {read: [/x]}}]", "looser + programs[/a].allow.read /x"},
		{"session", "sessions: {allow: {exec: [/a]}}", "", "stricter - sessions.allow.exec /a"},
	} {
		a, b := spec(t, tc.a), spec(t, tc.b)
		got := Of(a, b)
		var texts []string
		for _, c := range got {
			texts = append(texts, c.Effect+" "+c.Sign+" "+c.Field+" "+c.Text)
		}
		if s := strings.Join(texts, "; "); s != tc.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tc.name, s, tc.want)
		}
		// The other way round everything is turned over.
		back := Of(b, a)
		turned := map[string]string{"looser": "stricter", "stricter": "looser", "": ""}
		for _, c := range got {
			if len(back) == len(got) && !slices.ContainsFunc(back, func(d Change) bool { return d.Effect == turned[c.Effect] }) {
				t.Errorf("%s: %s one way, and not %s the other: %+v", tc.name, c.Effect, turned[c.Effect], back)
			}
		}
		if Of(a, a) != nil || Of(b, b) != nil {
			t.Errorf("%s: a profile differs from itself", tc.name)
		}
	}
}
