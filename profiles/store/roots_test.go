package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/selection"
)

// node has all three folders, and a keeper that has seen what is in the first.
type node struct {
	t *testing.T
	Roots
	keeper *Keeper
	now    time.Time
}

func newNode(t *testing.T, files map[string]string) *node {
	t.Helper()
	n := &node{t: t, Roots: Roots{Profiles: folder(t, files), Cluster: filepath.Join(t.TempDir(), "cluster.d"), LastGood: filepath.Join(t.TempDir(), "last-good")}}
	n.now = time.Now()
	n.restart()
	return n
}

func (n *node) restart() {
	n.t.Helper()
	k, err := NewKeeper(n.Roots)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { k.Close() })
	n.keeper = k
	n.scan()
}

// scan lets the keeper look until nothing is unfinished.
func (n *node) scan() Scan {
	n.t.Helper()
	var all Scan
	for again := true; again; n.now = n.now.Add(2 * settle) {
		s, err := n.keeper.Scan(n.now.Add(time.Hour))
		if err != nil {
			n.t.Fatal(err)
		}
		all.Saved, all.Rejected, all.Removed = append(all.Saved, s.Saved...), append(all.Rejected, s.Rejected...), append(all.Removed, s.Removed...)
		all.Bad, again = s.Bad, s.Again
	}
	return all
}

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.Profiles, name), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) open() *Store {
	n.t.Helper()
	s, err := OpenRoots(n.Roots)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

func (n *node) cluster() *ClusterFolder {
	n.t.Helper()
	c, err := OpenClusterFolder(n.Cluster)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

func parsed(t *testing.T, text string) *profiles.Profile {
	t.Helper()
	all, err := profiles.Parse("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// problems has a text in it.
func wantProblem(t *testing.T, s *Store, want string) {
	t.Helper()
	if got := errors.Join(s.Problems()...); got == nil || !strings.Contains(got.Error(), want) {
		t.Errorf("problems lack %q:\n%v", want, got)
	}
}

const matchAll = `match: {images: ["*"]}, `

func TestALastGoodCopyStandsInAndIsSaid(t *testing.T) {
	n := newNode(t, map[string]string{
		"a.yaml":    doc("a", matchAll+"allow: {exec: [/bin/a]}"),
		"heir.yaml": doc("heir", "extends: [a]"),
		"b.yaml":    doc("b", ""),
	})
	digest := func() string {
		p, err := n.open().Get("a")
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest()
	}
	before := digest()
	n.write("a.yaml", "spec: [")
	s := n.open()
	if got := digest(); got != before {
		t.Errorf("another profile: %s", got)
	}
	if p, err := match(s, profiles.MatchFacts{Image: "x"}); err != nil || p.Name != "a" || !strings.HasPrefix(p.Allow.Exec[0].File, n.LastGood) {
		t.Errorf("match: %v %v", p, err)
	}
	for _, name := range []string{"a", "heir"} {
		if in := s.StandIn(name); in == nil || in.Bad != n.Profiles+"/a.yaml" || in.Time.IsZero() {
			t.Errorf("%s: %v", name, in)
		}
	}
	if in := s.StandIn("b"); in != nil {
		t.Errorf("b: %v", in)
	}
	wantProblem(t, s, n.Profiles+"/a.yaml:1:")
	wantProblem(t, s, "it may allow what has been forbidden since")
	// The keeper does not take the bad one for good, nor forget the good one.
	if got := n.scan(); len(got.Bad) != 1 || len(got.Saved)+len(got.Removed)+len(got.Rejected) > 0 {
		t.Errorf("%+v", got)
	}
	n.restart()
	if digest() != before {
		t.Error("lost at the keeper's restart")
	}
	n.write("a.yaml", doc("a", matchAll+"allow: {exec: [/bin/tighter]}"))
	if got := digest(); got == before || n.open().StandIn("a") != nil || n.open().Problems() != nil {
		t.Error("the mended file is not used at once")
	}
}

func TestFilesThatOthersCouldHaveWrittenAreReplacedByTheCopy(t *testing.T) {
	n := newNode(t, map[string]string{"a.yaml": doc("a", "allow: {exec: [/bin/a]}")})
	n.write("a.yaml", doc("a", "allow: {exec: [/bin/evil]}"))
	if err := os.Chown(filepath.Join(n.Profiles, "a.yaml"), 1000, 0); err != nil {
		t.Fatal(err)
	}
	n.scan()
	p, err := n.open().Get("a")
	if err != nil || p.Allow.Exec[0].Text != "/bin/a" {
		t.Fatalf("%+v %v", p, err)
	}
	wantProblem(t, n.open(), "chown root")
	// So are copies themselves not read when others could have written them.
	if err := os.Chmod(n.LastGood, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := n.open().Get("a"); err == nil {
		t.Error("a copy from a folder that anybody writes to")
	}
	wantProblem(t, n.open(), "last good copies are not used")
}

func TestWhatIsDeletedStaysDeleted(t *testing.T) {
	for name, remove := range map[string]func(n *node){
		"removed": func(n *node) { _ = os.Remove(filepath.Join(n.Profiles, "a.yaml")) },
		"emptied": func(n *node) { n.write("a.yaml", "") },
		"comment": func(n *node) { n.write("a.yaml", "---\n# gone\n") },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, map[string]string{"a.yaml": doc("a", matchAll)})
			remove(n)
			if _, err := n.open().Get("a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("before the keeper has seen it: %v", err)
			}
			n.scan()
			if _, err := n.open().Get("a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("after: %v", err)
			}
			if name != "removed" {
				return
			}
			n.write("a.yaml", "spec: [") // another file of that name, and bad: the old copy is not its
			if _, err := n.open().Get("a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("back from the dead: %v", err)
			}
		})
	}
}

func TestEditorsMayMoveAFileAway(t *testing.T) {
	n := newNode(t, map[string]string{"a.yaml": doc("a", "")})
	path := filepath.Join(n.Profiles, "a.yaml")
	if err := os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	if s, err := n.keeper.Scan(n.now.Add(time.Hour)); err != nil || !s.Again || len(s.Removed) > 0 {
		t.Fatalf("%+v %v", s, err)
	}
	n.write("a.yaml", "spec: [")
	n.scan()
	if _, err := n.open().Get("a"); err != nil {
		t.Errorf("its copy is gone: %v", err)
	}
}

func TestANewBadFileIsLeftOutOnlyIfItWasSeenToCome(t *testing.T) {
	n := newNode(t, map[string]string{"any.yaml": doc("any", `match: {images: ["a*"]}`)})
	find := func(image string) error {
		_, err := match(n.open(), profiles.MatchFacts{Image: image})
		return err
	}
	n.write("new.yaml", "spec: [")
	if err := find("a"); err == nil {
		t.Error("a bad file that nobody has looked at is left out")
	}
	if got := n.scan(); !slices.Equal(got.Rejected, []string{"new.yaml"}) {
		t.Fatalf("%+v", got)
	}
	if err := find("a"); err != nil {
		t.Errorf("the set is not as it was before: %v", err)
	}
	if err := find("b"); err == nil || errors.Is(err, selection.ErrNoMatch) {
		t.Errorf("what nothing matches could have been for the bad file: %v", err)
	}
	wantProblem(t, n.open(), "new.yaml:1:")

	// Bytes that nobody judged: it may have been good in between.
	n.write("new.yaml", "spec: [[")
	if err := find("a"); err == nil {
		t.Error("other bytes than those rejected are left out")
	}
	n.scan()
	if err := find("a"); err != nil {
		t.Errorf("it was watched all the time: %v", err)
	}
	n.write("new.yaml", "spec: [[[")
	n.restart()
	if err := find("a"); err == nil {
		t.Error("changed while no keeper ran, and left out")
	}
	n.write("new.yaml", doc("new", ""))
	n.scan()
	n.write("new.yaml", "spec: [[[")
	n.scan()
	if err := find("a"); err != nil || n.open().StandIn("new") == nil {
		t.Errorf("good for a time, then bad: %v", err)
	}
}

func TestUnfinishedFilesAreNotKept(t *testing.T) {
	n := newNode(t, map[string]string{"a.yaml": doc("a", "deny: {read: [/secret]}")})
	n.write("a.yaml", strings.Split(doc("a", "deny"), "spec")[0]+"spec: {}\n") // as if the rest were still to come
	if s, err := n.keeper.Scan(time.Now()); err != nil || !s.Again || len(s.Saved) > 0 {
		t.Fatalf("%+v %v", s, err)
	}
	kept, err := os.ReadFile(filepath.Join(n.LastGood, "a.yaml"))
	if err != nil || !strings.Contains(string(kept), "/secret") {
		t.Errorf("%s %v", kept, err)
	}
}

func TestCopiesAreRootsAlone(t *testing.T) {
	n := newNode(t, map[string]string{"a.yaml": doc("a", "")})
	if _, err := n.cluster().Put(parsed(t, doc("c", ""))); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{n.LastGood: 0o700, n.LastGood + "/a.yaml": 0o600, n.Cluster: 0o700, n.Cluster + "/c.yaml": 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if err := os.Chmod(n.LastGood, 0o722); err != nil {
		t.Fatal(err)
	}
	if _, err := NewKeeper(n.Roots); err == nil {
		t.Error("a keeper writes where others do")
	}
}

func TestTheClusterAndTheNodeAreOneSet(t *testing.T) {
	n := newNode(t, map[string]string{"base.yaml": doc("base", "allow: {exec: [/bin/base]}"), "both.yaml": doc("both", "")})
	c := n.cluster()
	for _, text := range []string{doc("web", "extends: [base]"), doc("both", "allow: {exec: [/bin/evil]}"), doc("heir", "extends: [both]")} {
		if changed, err := c.Put(parsed(t, text), "from a test"); err != nil || !changed {
			t.Fatal(changed, err)
		}
	}
	if changed, err := c.Put(parsed(t, doc("web", "extends: [base]")), "from a test"); err != nil || changed {
		t.Errorf("the same again: %v %v", changed, err)
	}
	s := n.open()
	if p, err := s.Get("web"); err != nil || len(p.Allow.Exec) != 1 {
		t.Errorf("%+v %v", p, err)
	}
	for _, name := range []string{"both", "heir"} {
		if p, err := s.Get(name); err == nil || !strings.Contains(err.Error(), n.Cluster) || !strings.Contains(err.Error(), n.Profiles) {
			t.Errorf("%s: %v %v", name, p, err)
		}
	}
}

func TestABadResourceKeepsItsLastGoodVersion(t *testing.T) {
	n := newNode(t, map[string]string{"any.yaml": doc("any", `match: {images: ["a*"]}`)})
	c := n.cluster()
	if _, err := c.Put(parsed(t, doc("web", ""))); err != nil {
		t.Fatal(err)
	}
	if changed, good, err := c.Reject("web", errors.New("spec.mode: x"), n.now); !changed || !good || err != nil {
		t.Fatal(changed, good, err)
	}
	if changed, _, _ := c.Reject("web", errors.New("spec.mode: x"), n.now); changed {
		t.Error("told twice")
	}
	if changed, good, err := c.Reject("never", errors.New("spec.mode: y"), n.now); !changed || good || err != nil {
		t.Fatal(changed, good, err)
	}
	s := n.open()
	if _, err := s.Get("web"); err != nil || s.StandIn("web") == nil {
		t.Errorf("%v", err)
	}
	wantProblem(t, s, "profiles.stockade.dev/web: spec.mode: x")
	wantProblem(t, s, "profiles.stockade.dev/never: spec.mode: y")
	if _, err := match(s, profiles.MatchFacts{Image: "a"}); err != nil {
		t.Errorf("one that never was good stops others: %v", err)
	}
	if _, err := match(s, profiles.MatchFacts{Image: "b"}); err == nil || errors.Is(err, selection.ErrNoMatch) {
		t.Errorf("it might have been for this one: %v", err)
	}
	if _, err := c.Put(parsed(t, doc("web", ""))); err != nil {
		t.Fatal(err)
	}
	if n.open().StandIn("web") != nil {
		t.Error("still bad")
	}
	if names, err := c.Names(); err != nil || !slices.Equal(names, []string{"never", "web"}) {
		t.Error(names, err)
	}
	for _, name := range []string{"never", "web"} {
		if changed, err := c.Remove(name); !changed || err != nil {
			t.Error(changed, err)
		}
	}
	if s := n.open(); s.Problems() != nil || len(s.Names()) != 1 {
		t.Error(s.Names(), s.Problems())
	}
}

func TestTheClusterFolderHoldsOnlyWhatItsWriterWrote(t *testing.T) {
	n := newNode(t, nil)
	c := n.cluster()
	for _, name := range []string{"", ".", "..", ".x", "a/b", "../x", "/x"} {
		if _, err := c.Put(&profiles.Profile{Name: name}); err == nil {
			t.Errorf("%q was written", name)
		}
		if _, _, err := c.Reject(name, errors.New("x"), n.now); err == nil {
			t.Errorf("%q was marked", name)
		}
		if _, err := c.Remove(name); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
	// A comment must not become a rule: who names a field manager is not who may write profiles.
	if _, err := c.Put(parsed(t, doc("web", "")), "changed by x\nspec: {mode: monitor}", "and\r\u2028\u0085y"); err != nil {
		t.Fatal(err)
	}
	if p, err := n.open().Get("web"); err != nil || p.Mode != profiles.ModeUnset {
		t.Errorf("%+v %v", p, err)
	}
	if err := os.WriteFile(n.Cluster+"/other.yaml", []byte(doc("web2", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, n.open(), "named as the file is")
	if err := os.Chmod(n.Cluster, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRoots(n.Roots); err == nil {
		t.Error("anybody's cluster folder is read")
	}
}

// TestAWriterThatDied leaves something unfinished: nobody reads it, and the next writer removes it.
func TestAWriterThatDied(t *testing.T) {
	n := newNode(t, map[string]string{"a.yaml": doc("a", "")})
	n.cluster()
	for _, dir := range []string{n.Cluster, n.LastGood} {
		if err := os.WriteFile(dir+"/"+temporary+"x.yaml", []byte(doc("x", "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s := n.open(); !slices.Equal(s.Names(), []string{"a"}) || s.Problems() != nil {
		t.Error(s.Names(), s.Problems())
	}
	n.restart()
	n.cluster()
	for _, dir := range []string{n.Cluster, n.LastGood} {
		if _, err := os.Lstat(dir + "/" + temporary + "x.yaml"); err == nil {
			t.Error("left in " + dir)
		}
	}
}

func TestManyFilesAtOnce(t *testing.T) {
	n := newNode(t, nil)
	stop := make(chan struct{})
	done := make(chan error, 1)
	c := n.cluster()
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			rules := strings.Repeat("/bin/x"+strings.Repeat("y", i%7)+", ", 1000)
			all, err := profiles.Parse("x", []byte(doc("web", "allow: {exec: ["+rules+"/bin/last]}")))
			if err == nil {
				_, err = c.Put(all[0])
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range 200 {
		s := n.open()
		if _, err := s.Get("web"); err != nil && !errors.Is(err, ErrNotFound) || s.Problems() != nil {
			t.Error("half a file was read: ", err, s.Problems())
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
