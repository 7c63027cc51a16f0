package selection

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
)

// list is a set in memory.
type list struct {
	all   []*profiles.Profile
	err   error
	doubt error
}

func (l list) Doubt() error { return l.doubt }

func (l list) Candidates() ([]*profiles.Profile, error) { return l.all, l.err }

func (l list) Get(ref string) (*profiles.Profile, error) {
	for _, p := range l.all {
		if ref == p.Name || ref == p.Name+"@"+p.Digest() {
			return p, nil
		}
	}
	return nil, errors.New("not in the set")
}

func set(t testing.TB, docs ...string) list {
	t.Helper()
	var l list
	for _, d := range docs {
		ps, err := profiles.Parse("set.yaml", []byte(d))
		if err != nil {
			t.Fatal(err)
		}
		l.all = append(l.all, ps...)
	}
	return l
}

func doc(name, match string) string {
	return fmt.Sprintf("apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: %s}\nspec: {%s, allow: {exec: [/bin/%s]}}\n", name, match, name)
}

func TestSelect(t *testing.T) {
	s := set(t,
		doc("plain", "mode: enforce"),
		doc("image", "match: {images: ['docker.io/library/redis:7*']}"),
		doc("space", "match: {images: ['docker.io/*'], namespaces: [prod]}"),
		doc("label", "match: {images: ['docker.io/library/redis:*'], namespaces: [prod], podSelector: {matchLabels: {app: redis}}}"),
		doc("only-label", "match: {podSelector: {matchLabels: {weak: yes}}}"),
		doc("tie-a", "match: {namespaces: [tie]}"),
		doc("tie-b", "match: {containers: [main]}"),
	)
	facts := func(ns string, labels map[string]string) profiles.MatchFacts {
		return profiles.MatchFacts{CRI: true, Image: "docker.io/library/redis:7", Namespace: ns, Container: "c", Labels: labels, LabelsKnown: labels != nil}
	}
	ctr := profiles.MatchFacts{Image: "docker.io/library/redis:7"}
	tied := facts("tie", map[string]string{})
	tied.Image, tied.Container = "x", "main"
	for _, tc := range []struct {
		name string
		r    Request
		want string // a profile, or part of the error after "!"
	}{
		{"one key", Request{Facts: facts("dev", map[string]string{})}, "image"},
		{"two keys", Request{Facts: facts("prod", map[string]string{})}, "space"},
		{"three keys", Request{Facts: facts("prod", map[string]string{"app": "redis"})}, "label"},
		{"labels could change it", Request{Facts: facts("prod", nil)}, "!stockade-nri has not seen this container"},
		{"as many keys without labels", Request{Facts: facts("dev", nil)}, "!only-label gives match.podSelector"},
		{"no pod has no labels", Request{Facts: ctr}, "image"},
		{"tie", Request{Facts: tied}, "!several profiles match equally well: tie-a (set.yaml:1), tie-b (set.yaml:1)"},
		{"none", Request{Facts: profiles.MatchFacts{CRI: true, LabelsKnown: true}}, "!no profile matches: plain: it gives no match; image: "},
		{"asked for", Request{Facts: facts("prod", map[string]string{}), Asked: "image"}, "image"},
		{"asked for, pinned", Request{Facts: facts("prod", nil), Asked: "image@" + s.all[1].Digest()}, "image"},
		{"asked for, not there", Request{Facts: facts("prod", nil), Asked: "nothing"}, "!annotation stockade.dev/profile: not in the set"},
		{"asked for, without match", Request{Facts: facts("prod", nil), Asked: "plain"}, "!no pod may choose it"},
		{"asked for, not for it", Request{Facts: facts("dev", nil), Asked: "space"}, `!is not for this container: the namespace "dev"`},
		{"asked for, labels do not hold", Request{Facts: facts("prod", map[string]string{"app": "x"}), Asked: "label"}, "!the pod has no label app=redis"},
		{"asked for, labels unknown", Request{Facts: facts("prod", nil), Asked: "label"}, "!stockade-nri has not seen this container"},
		{"asked for, labels unknown, another key fails", Request{Facts: facts("dev", nil), Asked: "label"}, `!the namespace "dev"`},
		{"asked for by ctr", Request{Facts: ctr, Asked: "plain"}, "plain"},
	} {
		p, err := Select(tc.r, s)
		want, failure := strings.CutPrefix(tc.want, "!")
		switch {
		case failure && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, %v; want an error with %q", tc.name, p, err, want)
		case !failure && (err != nil || p.Name != want):
			t.Errorf("%s: %v, %v; want %s", tc.name, p, err, want)
		}
	}
	whole := s
	whole.err = errors.New("bad file")
	if _, err := Select(Request{Facts: facts("dev", map[string]string{})}, whole); err == nil || errors.Is(err, ErrNoMatch) {
		t.Errorf("chosen from half a set: %v", err)
	}
	doubtful := s
	doubtful.doubt = errors.New("what is left out might")
	if _, err := Select(Request{}, doubtful); err == nil || errors.Is(err, ErrNoMatch) {
		t.Errorf("nothing matches, which is in doubt: %v", err)
	}
	if p, err := Select(Request{Facts: ctr}, doubtful); err != nil || p.Name != "image" {
		t.Errorf("something matches: %v %v", p, err)
	}
}

// world is what generated stores and containers are made from: few values, so that much matches and much ties.
var world = struct{ images, patterns, namespaces, containers, values []string }{
	images:     []string{"docker.io/library/redis:7", "docker.io/library/redis:6", "ghcr.io/a/b:1"},
	patterns:   []string{"*", "docker.io/*", "docker.io/library/redis:7", "*redis*", "ghcr.io/*/b:1"},
	namespaces: []string{"prod", "dev"},
	containers: []string{"main", "init"},
	values:     []string{"x", "y"},
}

func pick[T any](r *rand.Rand, from []T) []T {
	var out []T
	for _, v := range from {
		if r.IntN(2) == 0 {
			out = append(out, v)
		}
	}
	return out
}

func labels(r *rand.Rand) map[string]string {
	m := map[string]string{}
	for _, key := range []string{"app", "tier"} {
		if r.IntN(2) == 0 {
			m[key] = world.values[r.IntN(2)]
		}
	}
	return m
}

func generate(r *rand.Rand) (list, Request) {
	var s list
	for i := range 1 + r.IntN(5) {
		p := &profiles.Profile{Name: fmt.Sprintf("p%d", i)}
		if r.IntN(6) > 0 {
			p.Match = &profiles.Match{}
			if r.IntN(2) == 0 {
				p.Match.Images = pick(r, world.patterns)
			}
			if r.IntN(2) == 0 {
				p.Match.Namespaces = pick(r, world.namespaces)
			}
			if r.IntN(2) == 0 {
				p.Match.Containers = pick(r, world.containers)
			}
			if r.IntN(2) == 0 {
				p.Match.Labels = labels(r)
			}
		}
		s.all = append(s.all, p)
	}
	q := Request{Facts: profiles.MatchFacts{
		CRI: r.IntN(5) > 0, Image: world.images[r.IntN(3)], Namespace: world.namespaces[r.IntN(2)],
		Container: world.containers[r.IntN(2)], Labels: labels(r), LabelsKnown: r.IntN(2) == 0,
	}}
	if !q.Facts.CRI {
		q.Facts = profiles.MatchFacts{Image: q.Facts.Image}
	}
	if r.IntN(3) == 0 {
		q.Asked = fmt.Sprintf("p%d", r.IntN(6))
	}
	if !q.Facts.LabelsKnown {
		q.Facts.Labels = nil
	}
	return s, q
}

// expressions are world.patterns in another language.
var expressions = func() map[string]*regexp.Regexp {
	m := map[string]*regexp.Regexp{}
	for _, p := range world.patterns {
		m[p] = regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, ".*") + "$")
	}
	return m
}()

// independent answers as the README says it, without a line of the code under test: "" is any refusal.
func independent(s list, q Request) string {
	if q.Facts.CRI && !q.Facts.LabelsKnown {
		answers := map[string]bool{}
		for _, app := range []string{"", "x", "y"} {
			for _, tier := range []string{"", "x", "y"} {
				known := q
				known.Facts.LabelsKnown, known.Facts.Labels = true, map[string]string{"app": app, "tier": tier}
				answers[independent(s, known)] = true
			}
		}
		if len(answers) > 1 {
			return "" // it depends on what nobody has told
		}
		for only := range answers {
			return only
		}
	}
	fits := func(m *profiles.Match) bool {
		pod := len(m.Namespaces) > 0 || len(m.Containers) > 0 || len(m.Labels) > 0
		image := len(m.Images) == 0
		for _, pattern := range m.Images {
			image = image || expressions[pattern].MatchString(q.Facts.Image)
		}
		for key, value := range m.Labels {
			if q.Facts.Labels[key] != value {
				return false
			}
		}
		return image && (!pod || q.Facts.CRI) &&
			(len(m.Namespaces) == 0 || slices.Contains(m.Namespaces, q.Facts.Namespace)) &&
			(len(m.Containers) == 0 || slices.Contains(m.Containers, q.Facts.Container))
	}
	byKeys := map[int][]string{}
	for _, p := range s.all {
		if q.Asked == p.Name && (!q.Facts.CRI || p.Match != nil && fits(p.Match)) {
			return p.Name
		}
		if p.Match != nil && fits(p.Match) {
			keys := 0
			for _, n := range []int{len(p.Match.Images), len(p.Match.Namespaces), len(p.Match.Containers), len(p.Match.Labels)} {
				keys += min(n, 1)
			}
			byKeys[keys] = append(byKeys[keys], p.Name)
		}
	}
	for keys := 4; keys >= 0 && q.Asked == ""; keys-- {
		if len(byKeys[keys]) == 1 {
			return byKeys[keys][0]
		}
		if len(byKeys[keys]) > 1 {
			return ""
		}
	}
	return ""
}

func TestSelectAgainstReference(t *testing.T) {
	for _, seed := range []uint64{1, rand.Uint64()} {
		r := rand.New(rand.NewPCG(seed, 0))
		chosen := 0
		for i := range 50_000 {
			s, q := generate(r)
			got := ""
			p, err := Select(q, s)
			if err == nil {
				got = p.Name
				chosen++
			}
			if want := independent(s, q); got != want {
				var store []string
				for _, p := range s.all {
					store = append(store, fmt.Sprintf("%s %+v", p.Name, p.Match))
				}
				t.Fatalf("seed %d, case %d: %q (%v), want %q\n%+v\n%s", seed, i, got, err, want, q, strings.Join(store, "\n"))
			}
			if errors.Is(err, ErrLabels) && q.Facts.LabelsKnown {
				t.Fatalf("seed %d, case %d: labels are known: %v", seed, i, err)
			}
		}
		if chosen < 5000 {
			t.Errorf("seed %d: only %d of 50000 cases chose a profile", seed, chosen)
		}
	}
}

// FuzzAnnotations: whatever a pod writes into its annotation, it gets a profile whose match holds for it.
func FuzzAnnotations(f *testing.F) {
	s := set(f, doc("open", "match: {namespaces: [prod]}"), doc("closed", "match: {namespaces: [other]}"), doc("base", "mode: enforce"))
	f.Add("closed", "", "c", "redis", "app", "x")
	f.Add("base@sha256:00", "closed", "c", "redis:7", "", "")
	f.Add("open\x00", "open", "", "sha256:0", "stockade.dev/profile", "closed")
	f.Fuzz(func(t *testing.T, asked, own, container, image, key, value string) {
		a := map[string]string{key: value, Annotation: asked, Annotation + "." + container: own}
		for k, v := range map[string]string{
			criType: "container", criNamespace: "prod", criContainer: container, criImage: image, criSandbox: "s",
		} {
			a[k] = v // containerd writes its own last
		}
		c := FromAnnotations("id", a).WithPod(a, map[string]string{key: value})
		if c.Request.Facts.Namespace != "prod" || c.Bearer != (Bearer{"id", "s", container}) || c.Pause {
			t.Fatalf("%+v", c)
		}
		p, err := Select(c.Request, s)
		if err == nil && p.Name != "open" {
			t.Fatalf("%q %q: got %s", asked, own, p.Name)
		}
		alone, errAlone := Select(FromAnnotations("id", a).Request, s)
		if (err == nil) != (errAlone == nil) || err == nil && alone != p {
			t.Fatalf("shim alone: %v %v, plugin: %v %v", alone, errAlone, p, err)
		}
	})
}

func TestImageIsTheFullReference(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for image, want := range map[string]string{
		"redis":                         "docker.io/library/redis:latest",
		"redis:7":                       "docker.io/library/redis:7",
		"bitnami/redis:7":               "docker.io/bitnami/redis:7",
		"docker.io/library/redis:7":     "docker.io/library/redis:7",
		"registry.example:5000/a/b:c":   "registry.example:5000/a/b:c",
		"redis" + digest:                "docker.io/library/redis" + digest,
		"redis:7" + digest:              "docker.io/library/redis" + digest, // the tag says nothing then
		"":                              "",
		"sha256:" + digest[8:]:          "sha256:" + digest[8:], // an image ID is no reference
		"Not A Reference":               "Not A Reference",
		"docker.io/library/redis:7\x00": "docker.io/library/redis:7\x00",
	} {
		got := FromAnnotations("c1", map[string]string{criType: "container", criImage: image}).Request.Facts.Image
		if got != want {
			t.Errorf("%q: %q, want %q", image, got, want)
		}
	}
}

func TestAsked(t *testing.T) {
	a := map[string]string{criType: "container", criContainer: "c", Annotation: "all", Annotation + ".c": "one"}
	if got := FromAnnotations("i", a).Request.Asked; got != "one" {
		t.Errorf("the container's own: %q", got)
	}
	delete(a, Annotation+".c")
	if got := FromAnnotations("i", a).Request.Asked; got != "all" {
		t.Errorf("the pod's: %q", got)
	}
	pod := map[string]string{Annotation: "pod", Annotation + ".c": "pods-c", Annotation + ".d": "pods-d"}
	if got := FromAnnotations("i", a).WithPod(pod, nil).Request.Asked; got != "all" {
		t.Errorf("the container's over the pod's: %q", got)
	}
	delete(a, Annotation)
	if got := FromAnnotations("i", a).WithPod(pod, nil).Request.Asked; got != "pods-c" {
		t.Errorf("not passed on by the runtime handler: %q", got)
	}
}
