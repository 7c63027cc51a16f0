package selection

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
)

var (
	testKey    = &Key{1, 2, 3}
	testBearer = Bearer{Container: "c1", Sandbox: "s1", Name: "main"}
	testDigest = "sha256:" + strings.Repeat("ab", 32)
)

func sign(t testing.TB, k *Key, b Bearer, s Statement) map[string]string {
	t.Helper()
	a, err := k.Sign(b, s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestStatementArrives(t *testing.T) {
	for _, s := range []Statement{
		{Name: "redis", Digest: testDigest, Facts: Facts{Asked: "redis", Labels: map[string]string{"app": "x", "a/b": "\"\n"}}},
		{Name: "none", Digest: testDigest}, // a profile of that name
		{},
	} {
		got, err := testKey.Verify(testBearer, sign(t, testKey, testBearer, s))
		if err != nil || !reflect.DeepEqual(*got, s) {
			t.Errorf("%+v, %v; want %+v", got, err, s)
		}
	}
}

func TestForgedStatementsAreRefused(t *testing.T) {
	right := sign(t, testKey, testBearer, Statement{Name: "redis", Digest: testDigest, Facts: Facts{Labels: map[string]string{"app": "x"}}})
	with := func(change func(map[string]string)) map[string]string {
		a := maps.Clone(right)
		change(a)
		return a
	}
	for _, tc := range []struct {
		name string
		key  *Key
		b    Bearer
		a    map[string]string
	}{
		{"another container's", testKey, Bearer{"c2", "s1", "main"}, right},
		{"of another sandbox", testKey, Bearer{"c1", "s2", "main"}, right},
		{"of another name", testKey, Bearer{"c1", "s1", "init"}, right},
		{"parts that run together otherwise", testKey, Bearer{"c1s", "1", "main"}, right},
		{"another node's key", &Key{1, 2, 4}, testBearer, right},
		{"another digest", testKey, testBearer, with(func(a map[string]string) { a[Selected] = strings.Replace(a[Selected], "ab", "cd", 1) })},
		{"another name of profile", testKey, testBearer, with(func(a map[string]string) { a[Selected] = strings.Replace(a[Selected], "redis", "wide!", 1) })},
		{"none instead", testKey, testBearer, with(func(a map[string]string) { a[Selected] = "none:" + a[Selected][strings.LastIndex(a[Selected], ":")+1:] })},
		{"other labels", testKey, testBearer, with(func(a map[string]string) { a[SelectedFacts] = `{"labels":{"app":"y"}}` })},
		{"no facts", testKey, testBearer, with(func(a map[string]string) { delete(a, SelectedFacts) })},
		{"facts alone", testKey, testBearer, with(func(a map[string]string) { delete(a, Selected) })},
		{"truncated", testKey, testBearer, with(func(a map[string]string) { a[Selected] = a[Selected][:len(a[Selected])-2] })},
		{"longer", testKey, testBearer, with(func(a map[string]string) { a[Selected] += "00" })},
		{"no mac", testKey, testBearer, with(func(a map[string]string) { a[Selected] = "redis@" + testDigest + ":" })},
		{"not hexadecimal", testKey, testBearer, with(func(a map[string]string) { a[Selected] = "redis@" + testDigest + ":zz" })},
		{"empty", testKey, testBearer, map[string]string{Selected: ""}},
		{"what the pod would like", testKey, testBearer, map[string]string{Selected: "redis"}},
	} {
		if s, err := tc.key.Verify(tc.b, tc.a); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %+v, %v", tc.name, s, err)
		}
	}
}

func TestReserved(t *testing.T) {
	for a, want := range map[string]bool{
		Selected: true, SelectedFacts: true, Selected + ".x": true, Selected + "x": true, Annotation: false, Annotation + ".selection": false, "": false,
	} {
		if Reserved(a) != want {
			t.Errorf("%s: %v", a, !want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	right := sign(f, testKey, testBearer, Statement{Name: "redis", Digest: testDigest})
	f.Add(right[Selected], right[SelectedFacts], "c2")
	f.Add("none:", "{}", "c1")
	f.Fuzz(func(t *testing.T, text, facts, id string) {
		b := Bearer{id, "s1", "main"}
		_, err := testKey.Verify(b, map[string]string{Selected: text, SelectedFacts: facts})
		if err == nil && (text != right[Selected] || facts != right[SelectedFacts] || b != testBearer) {
			t.Fatalf("%q %q of %q passes", text, facts, id)
		}
	})
}
