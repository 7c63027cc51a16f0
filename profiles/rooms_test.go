package profiles

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/stockade-dev/stockade"

// room is a part of the tree and what must not be imported there. Folders and imports ending in /... mean what is
// below them too.
type room struct {
	folders, except []string
	forbidden       []string
	but             []string // imports that a rule allows all the same; why says the reason
	why             string
}

// rooms says who must not know whom. To add a rule, add a line; a rule needs a reason that convinces.
var rooms = []room{
	{
		folders: []string{"profiles/..."}, except: []string{"profiles/store", "profiles/selection/nodekey"},
		forbidden: []string{"os/...", "io/fs", "net", "net/http/...", "syscall", "context", "log/...", "time", "golang.org/x/sys/...", "github.com/sirupsen/logrus"},
		why:       "what is allowed must be a function of profile, target and access: no file, clock, kernel or request can change a verdict",
	},
	{
		folders: []string{"profiles/..."}, forbidden: []string{module + "/shim/...", module + "/nri/...", module + "/cmd/..."},
		why: "policy is beneath mechanisms: it can be read, tested and used without them",
	},
	{
		folders:   []string{"shim/fanotify/...", "shim/procfs", "shim/cgroup", "shim/notify", "shim/guard", "shim/lsm/...", "shim/audit", "shim/incident", "shim/config", "shim/state"},
		forbidden: []string{module + "/profiles/..."},
		why:       "mechanisms know no policy: package enforce is where the two meet",
	},
	{
		folders:   []string{"shim/fanotify/...", "shim/procfs", "shim/cgroup", "shim/notify", "shim/guard", "shim/lsm/...", "shim/audit"},
		forbidden: []string{"log/...", "github.com/sirupsen/logrus"},
		why:       "nothing that can block may stand before an answer, and a mechanism cannot know whether one is due: it returns errors",
	},
	{
		folders:   []string{"shim/guard", "shim/cgroup", "cmd/stockade-guard"},
		forbidden: []string{"github.com/...", "google.golang.org/...", "net/http/..."},
		why:       "the guard runs once for each shim and must stay small: the standard library and x/sys only",
	},
	{
		folders: []string{"profiles/apparmor"}, forbidden: []string{module + "/profiles", module + "/profiles/seccomp", module + "/profiles/store"},
		why: "AppArmor's text is written from rules alone, so that Compile can ask for it",
	},
	{
		folders: []string{"shim/..."}, forbidden: []string{module + "/nri/...", module + "/cmd/..."},
		why: "the shim is the authority; it must hold where there is no plugin",
	},
	{
		folders: []string{"nri/..."}, forbidden: []string{module + "/shim/...", module + "/cmd/..."}, but: []string{module + "/shim/control/api", module + "/shim/incident", module + "/shim/record"},
		why: "the plugin chooses and delivers, it enforces nothing: what it shares with the shim is in profiles; what it may ask a running shim is in shim/control/api, words and a client and no engine; what it tells of is in shim/incident, the record of what was done",
	},
	{
		folders: []string{"cmd/...", "nri/...", "shim/config", "shim/incident", "shim/control/..."}, forbidden: []string{"golang.org/x/sys/unix"},
		why: "system calls are made by mechanisms, one function each; others call these",
	},
	{
		folders: []string{"shim/control/..."}, forbidden: []string{module + "/profiles/...", "github.com/sirupsen/logrus"},
		why: "what is asked and answered is words: package shim has the engine behind them",
	},
	{
		folders: []string{"shim/control/api"}, forbidden: []string{module + "/..."},
		why: "the plugin uses it: what it imports, the plugin imports",
	},
	{
		folders: []string{"cmd/...", "profiles/...", "shim/...", "nri/..."}, forbidden: []string{module + "/integration/..."},
		why: "tests may use the product, not the other way round",
	},
}

// ours tells imports of this module, which a rule against all of "github.com/..." does not mean.
func ours(imported string) bool { return strings.HasPrefix(imported, module+"/") }

// TestRooms keeps the layout: it reads the imports of every package of the module, tests left out.
func TestRooms(t *testing.T) {
	packages := sources(t)
	for _, r := range rooms {
		for folder, files := range packages {
			if !within(folder, r.folders) || within(folder, r.except) {
				continue
			}
			for name, file := range files {
				for _, spec := range file.Imports {
					imported, err := strconv.Unquote(spec.Path.Value)
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range r.forbidden {
						if within(imported, []string{f}) && !within(imported, r.but) && (f != "github.com/..." || !ours(imported)) {
							t.Errorf("%s imports %s: %s", path.Join(folder, name), imported, r.why)
						}
					}
				}
			}
		}
	}
	for _, folder := range []string{"profiles", "profiles/pattern"} {
		if packages[folder] == nil {
			t.Errorf("%s was not looked at", folder)
		}
	}
}

// TestWithin tests the test: a rule that matches nothing would hold for ever.
func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		name, pattern string
		want          bool
	}{
		{"os", "os/...", true},
		{"os/exec", "os/...", true},
		{"osx", "os/...", false},
		{"net/netip", "net", false},
		{"net", "net", true},
		{module + "/shim", module + "/shim/...", true},
	} {
		if got := within(tt.name, []string{tt.pattern}); got != tt.want {
			t.Errorf("%s within %s: %v", tt.name, tt.pattern, got)
		}
	}
}

// TestPackageDocs: the package doc is the manual of the package; two of them would be joined in the order of the
// files' names.
func TestPackageDocs(t *testing.T) {
	for folder, files := range sources(t) {
		var docs []string
		var name string
		for file, f := range files {
			name = f.Name.Name
			if f.Doc == nil {
				continue
			}
			docs = append(docs, file)
			text, begins := f.Doc.Text(), "Package "+name+" "
			if name == "main" {
				begins = path.Base(folder) + " "
				text = strings.TrimPrefix(text, "Command ")
			}
			if !strings.HasPrefix(text, begins) {
				t.Errorf("%s: the package doc must begin with %q", path.Join(folder, file), begins)
			}
		}
		if len(docs) != 1 {
			t.Errorf("%s: %d package docs (%s), want one", folder, len(docs), strings.Join(docs, ", "))
		}
	}
}

// sources parses the package clauses and imports of all files but tests, by folder and name of the file.
func sources(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	const root = ".."
	packages := map[string]map[string]*ast.File{}
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch base := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && name != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "bin" || base == "thirdparty"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(files, name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		if packages[folder] == nil {
			packages[folder] = map[string]*ast.File{}
		}
		packages[folder][filepath.Base(name)] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

// within reports whether a path is one of those named, or below one that ends in /... .
func within(name string, named []string) bool {
	for _, n := range named {
		if tree, ok := strings.CutSuffix(n, "/..."); ok && (name == tree || strings.HasPrefix(name, tree+"/")) || name == n {
			return true
		}
	}
	return false
}
