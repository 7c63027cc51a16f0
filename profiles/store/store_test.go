package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/selection"
)

func doc(name, spec string) string {
	return "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
}

// folder is a store's folder with these files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: profiles must belong to root")
	}
	dir := filepath.Join(t.TempDir(), "profiles.d")
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustOpen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestProfilesOfAllFilesAreOneSet(t *testing.T) {
	dir := folder(t, map[string]string{
		"base.yml":       doc("base", "allow: {exec: [/bin/base]}"),
		"apps.yaml":      doc("one", "extends: [base], allow: {exec: [/bin/one]}") + "---\n" + doc("two", "extends: [one]"),
		".hidden.yaml":   "not yaml: [",
		"notes.txt":      "x",
		"old.yaml~":      "x",
		"below/x.yaml":   doc("below", ""),
		"dir.yaml/x.txt": "",
	})
	s := mustOpen(t, dir)
	if got := s.Names(); !slices.Equal(got, []string{"base", "one", "two"}) || s.Problems() != nil {
		t.Fatalf("names %v, problems %v", got, s.Problems())
	}
	p, err := s.Get("two")
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, r := range p.Allow.Exec {
		rules = append(rules, r.String())
	}
	slices.Sort(rules)
	want := []string{dir + "/apps.yaml:4: allow.exec /bin/one", dir + "/base.yml:4: allow.exec /bin/base"}
	if !slices.Equal(rules, want) {
		t.Errorf("rules %q, want %q", rules, want)
	}
	if _, err := s.Get("below"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a file of a subfolder counts: %v", err)
	}
}

func TestGetChecksTheDigest(t *testing.T) {
	dir := folder(t, map[string]string{"a.yaml": doc("a", "extends: [b]") + "---\n" + doc("b", "allow: {exec: [/bin/b]}")})
	s := mustOpen(t, dir)
	p, err := s.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("a@" + p.Digest()); err != nil {
		t.Errorf("its own digest: %v", err)
	}
	other := "sha256:" + strings.Repeat("0", 64)
	_, err = s.Get("a@" + other)
	if !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), other) || !strings.Contains(err.Error(), p.Digest()) || !strings.Contains(err.Error(), dir+"/a.yaml") {
		t.Errorf("another digest: %v", err)
	}
	for _, ref := range []string{"a@", "a@sha256:", "a@sha256:xyz", "a@md5:00", "a@" + strings.ToUpper(other), "a@" + other + "0"} {
		if _, err := s.Get(ref); err == nil || errors.Is(err, ErrDigest) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	// What a parent changes is another profile.
	if err := os.WriteFile(dir+"/a.yaml", []byte(doc("a", "extends: [b]")+"---\n"+doc("b", "allow: {exec: [/bin/other]}")), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := mustOpen(t, dir).Get("a@" + p.Digest()); !errors.Is(err, ErrDigest) {
		t.Errorf("a changed parent: %v", err)
	}
}

func TestABadFileSpoilsOnlyWhatItMightHold(t *testing.T) {
	dir := folder(t, map[string]string{
		"good.yaml":    doc("good", "match: {images: [\"*\"]}"),
		"bad.yaml":     doc("bad", "allow: {exec: [relative]}"),
		"broken.yaml":  "a: [",
		"child.yaml":   doc("child", "extends: [bad]"),
		"other.yaml":   doc("other", "extends: [missing]"),
		"circle.yaml":  doc("c1", "extends: [c2]") + "---\n" + doc("c2", "extends: [c1]"),
		"twice-1.yaml": doc("twice", "") + "---\n" + doc("sibling", ""),
		"twice-2.yaml": doc("twice", ""),
		"heir.yaml":    doc("heir", "extends: [twice]"),
	})
	s := mustOpen(t, dir)
	for _, name := range []string{"good", "sibling"} {
		if _, err := s.Get(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"bad":     dir + "/bad.yaml:4:",
		"child":   dir + "/bad.yaml:4:",
		"other":   `no profile is named "missing"`,
		"c1":      "c1 -> c2 -> c1",
		"twice":   dir + "/twice-2.yaml:1:1: metadata.name: a second profile is named twice, the first is at " + dir + "/twice-1.yaml:1",
		"heir":    "a second profile is named twice",
		"nowhere": "2 files could not be read, the first: " + dir + "/bad.yaml:4:",
	} {
		if _, err := s.Get(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %q in it", name, err, want)
		}
	}
	if _, err := match(s, profiles.MatchFacts{Image: "x"}); err == nil || errors.Is(err, selection.ErrNoMatch) || !strings.Contains(err.Error(), "bad.yaml") {
		t.Errorf("Match beside a bad file: %v", err)
	}
	var text []string
	for _, err := range s.Problems() {
		text = append(text, err.Error())
	}
	all := strings.Join(text, "\n")
	for _, want := range []string{"bad.yaml:4:", "broken.yaml:1:", "twice-2.yaml:1:", "missing", "c1 -> c2"} {
		if !strings.Contains(all, want) {
			t.Errorf("Problems lacks %q:\n%s", want, all)
		}
	}
}

func TestNamesGivenTwiceStopMatch(t *testing.T) {
	s := mustOpen(t, folder(t, map[string]string{"a.yaml": doc("x", "match: {images: [a]}"), "b.yaml": doc("x", "match: {images: [b]}")}))
	if _, err := match(s, profiles.MatchFacts{Image: "a"}); err == nil || errors.Is(err, selection.ErrNoMatch) || !strings.Contains(err.Error(), "b.yaml:1:1") {
		t.Error(err)
	}
}

func TestMatchTakesTheMostSpecific(t *testing.T) {
	dir := folder(t, map[string]string{"all.yaml": strings.Join([]string{
		doc("base", "allow: {exec: [/bin/base]}"),
		doc("any", `match: {images: ["*"]}, extends: [base]`),
		doc("prod", `match: {images: ["*/redis:*"], namespaces: [prod]}`),
		doc("prod-labelled", `match: {images: ["*/redis:*"], namespaces: [prod], podSelector: {matchLabels: {app: redis, tier: db}}}`),
		doc("stage-a", `match: {images: ["*/redis:*"], namespaces: [stage]}`),
		doc("stage-b", `match: {namespaces: [stage], containers: [main]}`),
	}, "---\n")})
	s := mustOpen(t, dir)
	redis := profiles.MatchFacts{CRI: true, Image: "docker.io/library/redis:7", Namespace: "prod", Container: "main", LabelsKnown: true}
	with := func(change func(*profiles.MatchFacts)) profiles.MatchFacts { f := redis; change(&f); return f }
	for _, tc := range []struct {
		name  string
		facts profiles.MatchFacts
		want  string
	}{
		{"two keys over one", redis, "prod"},
		{"three keys over two", with(func(f *profiles.MatchFacts) {
			f.Labels, f.LabelsKnown = map[string]string{"app": "redis", "tier": "db", "x": "y"}, true
		}), "prod-labelled"},
		{"another namespace", with(func(f *profiles.MatchFacts) { f.Namespace = "dev" }), "any"},
		{"no pod", profiles.MatchFacts{Image: "docker.io/library/redis:7"}, "any"},
	} {
		p, err := match(s, tc.facts)
		if err != nil || p.Name != tc.want {
			t.Errorf("%s: %v, %v; want %s", tc.name, p, err, tc.want)
		}
	}
	if p, err := match(s, profiles.MatchFacts{Image: "x"}); err != nil || len(p.Allow.Exec) != 1 {
		t.Errorf("what matches is not resolved: %+v %v", p, err)
	}
	_, err := match(s, with(func(f *profiles.MatchFacts) { f.Namespace = "stage" }))
	if err == nil || errors.Is(err, selection.ErrNoMatch) || !strings.Contains(err.Error(), "stage-a ("+dir+"/all.yaml:") || !strings.Contains(err.Error(), "stage-b (") {
		t.Errorf("a tie: %v", err)
	}
	_, err = match(s, profiles.MatchFacts{})
	if !errors.Is(err, selection.ErrNoMatch) || !strings.Contains(err.Error(), "base: it gives no match; prod: match.images is given and the image is not known") {
		t.Errorf("none: %v", err)
	}
}

// match asks for the profile of a container, by match alone.
func match(s *Store, f profiles.MatchFacts) (*profiles.Profile, error) {
	return selection.Select(selection.Request{Facts: f}, s)
}

func TestNoMatchIsShort(t *testing.T) {
	files := map[string]string{}
	for i := range 50 {
		files[fmt.Sprintf("%d.yaml", i)] = doc(fmt.Sprintf("p%d", i), "match: {images: [x]}")
	}
	_, err := match(mustOpen(t, folder(t, files)), profiles.MatchFacts{Image: "y"})
	if !errors.Is(err, selection.ErrNoMatch) || !strings.HasSuffix(err.Error(), "and 40 more") {
		t.Error(err)
	}
	_, err = match(mustOpen(t, folder(t, nil)), profiles.MatchFacts{Image: "y"})
	if !errors.Is(err, selection.ErrNoMatch) || !strings.Contains(err.Error(), "there is none") {
		t.Error(err)
	}
}

func TestOnlyRootCanHaveWrittenIt(t *testing.T) {
	type change struct {
		uid  int
		mode fs.FileMode
	}
	for _, tc := range []struct {
		name string
		c    change
		want string
	}{
		{"root's", change{0, 0o755}, ""},
		{"closed", change{0, 0o700}, ""},
		{"group may write", change{0, 0o775}, "owner uid 0, mode 0775): chmod go-w "},
		{"all may write", change{0, 0o757}, "chmod go-w "},
		{"of a user", change{1000, 0o755}, "owner uid 1000, mode 0755): chown root "},
		{"both", change{1000, 0o777}, "): chown root %s && chmod go-w "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := folder(t, map[string]string{"a.yaml": doc("a", ""), "b.yaml": doc("b", "")})
			file := dir + "/a.yaml"
			apply := func(path string) string {
				if err := errors.Join(os.Chown(path, tc.c.uid, 0), os.Chmod(path, tc.c.mode)); err != nil {
					t.Fatal(err)
				}
				return strings.ReplaceAll(tc.want, "%s", path)
			}
			want := apply(file)
			s := mustOpen(t, dir)
			_, err := s.Get("a")
			switch {
			case want == "" && err != nil:
				t.Error(err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want+file)):
				t.Errorf("file: %v; want %q", err, want+file)
			}
			if _, err := s.Get("b"); err != nil {
				t.Errorf("the other file: %v", err)
			}
			want = apply(dir)
			_, err = Open(dir)
			switch {
			case want == "" && err != nil:
				t.Error(err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want+dir)):
				t.Errorf("folder: %v; want %q", err, want+dir)
			}
		})
	}
}

func TestOpenNeedsAFolder(t *testing.T) {
	dir := folder(t, map[string]string{"a.yaml": ""})
	if _, err := Open(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Open(dir + "/a.yaml"); err == nil {
		t.Error("a file was opened as the folder")
	}
}

func TestLinksStayWithin(t *testing.T) {
	dir := folder(t, map[string]string{"..v1/configmap.yaml": doc("configmap", ""), "loose/loose.yaml": doc("loose", "")})
	outside := filepath.Join(t.TempDir(), "outside.yaml")
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(outside, []byte(doc("outside", "")), 0o644), os.Chmod(dir+"/loose", 0o777), syscall.Mkfifo(dir+"/fifo.yaml", 0o644)); err != nil {
		t.Fatal(err)
	}
	link("..v1", "..data")
	link("..data/configmap.yaml", "configmap.yaml") // as Kubernetes lays out a ConfigMap
	link(outside, "absolute.yaml")
	up, err := filepath.Rel(dir, outside)
	if err != nil {
		t.Fatal(err)
	}
	link(up, "relative.yaml")
	link("loop.yaml", "loop.yaml")
	link("nothing.yaml", "dangling.yaml")
	link("loose/loose.yaml", "loose.yaml")
	link("..v1", "folder.yaml")
	s := mustOpen(t, dir)
	if got := s.Names(); !slices.Equal(got, []string{"configmap"}) {
		t.Errorf("read %v", got)
	}
	var bad []string
	for _, b := range s.bad {
		bad = append(bad, filepath.Base(b.File))
	}
	want := []string{"absolute.yaml", "dangling.yaml", "fifo.yaml", "folder.yaml", "loop.yaml", "loose.yaml", "relative.yaml"}
	if !slices.Equal(bad, want) {
		t.Errorf("refused %v, want %v", bad, want)
	}
}

func TestHugeFilesAreNotRead(t *testing.T) {
	dir := folder(t, map[string]string{"a.yaml": ""})
	if err := os.Truncate(dir+"/a.yaml", maxFile+1); err != nil {
		t.Fatal(err)
	}
	if p := mustOpen(t, dir).Problems(); len(p) != 1 || !strings.Contains(p[0].Error(), "larger than") {
		t.Error(p)
	}
}
