package install

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	udiff "github.com/aymanbagabas/go-udiff"
)

// Action is what is done with a path.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Remove Action = "remove"
	Keep   Action = "keep" // differs, and stays as it is: Change.Why says why
)

// Change is one thing to do, or one that is left alone on purpose.
type Change struct {
	Path   string      `json:"path"`
	Action Action      `json:"action"`
	Kind   Kind        `json:"kind"`
	Why    string      `json:"why,omitempty"`
	Diff   string      `json:"diff,omitempty"` // unified; of text files
	Mode   fs.FileMode `json:"-"`

	data   []byte // to write
	source string // or to copy
	digest string
	before File
}

// Plan is what install or uninstall would do. It holds everything that Apply needs to know of the node's files.
type Plan struct {
	Changes []Change `json:"changes"`
	// Dirs are made before the files; those of Uninstall are removed after them, where they are empty.
	Dirs    []string `json:"dirs"`
	Notes   []string `json:"notes"`
	Restart bool     `json:"restart"` // of containerd
	Sysctl  *Sysctl  `json:"sysctl,omitempty"`

	modes map[string]fs.FileMode
	last  Manifest // as it was found
	next  Manifest // written before anything else is
	nri   string
	unit  bool // systemd must read its units again, and (re)start the plugin's
	stop  bool // the plugin's service ends: until it does, no other plugin can begin
}

// Empty: nothing is to be done.
func (p *Plan) Empty() bool {
	return !p.Restart && p.Sysctl == nil && len(p.Dirs) == 0 && !p.unit &&
		!slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Action != Keep })
}

// makePlan compares what should be there with what is. It is pure: files holds every path of list.
func makePlan(o Options, list []Wanted, s settled, n node, files map[string]File, groups int) *Plan {
	p := &Plan{Changes: []Change{}, Dirs: []string{}, Notes: append([]string{}, s.notes...), modes: s.dirs(), last: n.manifest, next: n.manifest.clone(), nri: s.nri}
	p.next.Version = o.Version
	kept := Kept{BinDir: o.BinDir, ContainerdConfig: o.ContainerdConfig, Address: o.Address, Unit: o.Unit, NRI: s.nri, Import: n.manifest.Options.Import}
	if s.addImport || n.main == nil && s.dropIn != "" {
		kept.Import = importPattern
	}
	p.next.Options = kept
	for _, w := range list {
		p.compare(o, w, n.manifest.entry(w.Path), files[w.Path])
	}
	p.dropStale(list, n.manifest, files)
	p.needDirs(list, files)
	p.activation(s, n, files)
	p.next.Restart, p.next.Reload = p.Restart, p.unit
	if want := sysctlWanted(list); groups > 0 && groups < want {
		p.Sysctl = &Sysctl{Before: groups, After: want}
		if old := n.manifest.Sysctl; old != nil {
			p.Sysctl.Before = old.Before
		}
		p.next.Sysctl = p.Sysctl
	}
	return p
}

// activation says who must be told of the changes.
func (p *Plan) activation(s settled, n node, files map[string]File) {
	p.Restart, p.unit = n.manifest.Restart, n.manifest.Reload
	for _, c := range p.Changes {
		if c.Action == Keep {
			continue
		}
		plugin := path.Base(c.Path) == pluginProgram
		p.Restart = p.Restart || c.Kind == Containerd
		p.unit = p.unit || c.Path == unitFile || c.Path == unitLink || plugin && s.nri == NRIUnit
		p.stop = p.stop || c.Action == Remove && (c.Path == unitFile || plugin)
	}
	p.unit = p.unit && (n.systemd || s.nri == NRIUnit)
	p.stop = p.stop && n.systemd && s.nri != NRIUnit && files[unitFile].Exists // systemctl knows no unit that is not there
}

// compare plans one file.
func (p *Plan) compare(o Options, w Wanted, e *Entry, f File) {
	if f.Exists && !f.Dir && f.Digest == w.Digest && (w.Source == "" || f.Mode == w.Mode) {
		p.record(w, e, f)
		return
	}
	c := Change{Path: w.Path, Action: Create, Kind: w.Kind, Why: w.Why, Mode: w.Mode, data: w.Data, source: w.Source, digest: w.Digest, before: f}
	mine := e.wrote(f.Digest) || w.Kind == Program || w.Path == o.ContainerdConfig || o.Overwrite
	if f.Exists {
		c.Action = Update
	}
	switch {
	case f.Exists && !mine && e != nil:
		c.Action, c.Why = Keep, "changed since it was installed (--overwrite replaces it)"
	case f.Exists && !mine:
		c.Action, c.Why = Keep, "was there before, and differs (--overwrite replaces it)"
	case f.Exists && f.Digest == w.Digest:
		c.Why = fmt.Sprintf("mode %04o, want %04o", f.Mode, w.Mode)
	}
	if w.Source == "" && w.Kind != Link {
		c.Diff = unified(w.Path, f, w.Data)
	}
	if c.Action != Keep {
		p.record(w, e, f)
	}
	p.Changes = append(p.Changes, c)
}

// record puts a file into the manifest. A file that was there already with the very content is not ours to remove,
// unless it is a program.
func (p *Plan) record(w Wanted, e *Entry, f File) {
	if e == nil {
		if f.Exists && f.Digest == w.Digest && w.Kind != Program {
			return
		}
		p.next.Files = append(p.next.Files, Entry{Path: w.Path, Kind: w.Kind})
		e = &p.next.Files[len(p.next.Files)-1]
		if w.Kind == Containerd {
			e.Original = f.Digest
		}
	} else {
		e = p.next.entry(w.Path)
	}
	if f.Digest == w.Digest {
		e.Digest, e.Next = w.Digest, ""
		return
	}
	e.Shared = e.Shared || e.Digest != "" && f.Exists && !e.wrote(f.Digest)
	if w.Kind == Containerd && !e.Unverified {
		e.Previous, e.Unverified = f.Digest, true // else what was there before the run that could not verify still counts
	}
	e.Digest, e.Next = f.Digest, w.Digest
}

// dropStale removes what an earlier install wrote and this one does not want any more.
func (p *Plan) dropStale(list []Wanted, old Manifest, files map[string]File) {
	for _, e := range old.Files {
		wanted := slices.ContainsFunc(list, func(w Wanted) bool { return w.Path == e.Path })
		f := files[e.Path]
		if wanted || !f.Exists || e.Path == old.Options.ContainerdConfig {
			continue
		}
		if !e.wrote(f.Digest) {
			p.Changes = append(p.Changes, Change{Path: e.Path, Action: Keep, Kind: e.Kind, Why: "not needed any more, but changed since it was installed", before: f})
			continue
		}
		p.Changes = append(p.Changes, Change{Path: e.Path, Action: Remove, Kind: e.Kind, Why: "not needed any more", Diff: unified(e.Path, f, nil), before: f})
	}
}

// needDirs lists the folders to make, parents first.
func (p *Plan) needDirs(list []Wanted, files map[string]File) {
	need := slices.Collect(maps.Keys(p.modes))
	for _, w := range list {
		if i := slices.IndexFunc(p.Changes, func(c Change) bool { return c.Path == w.Path }); i >= 0 && p.Changes[i].Action == Create {
			need = append(need, path.Dir(w.Path))
		}
	}
	for _, dir := range need {
		for ; dir != "/"; dir = path.Dir(dir) {
			if !files[dir].Exists && !slices.Contains(p.Dirs, dir) {
				p.Dirs = append(p.Dirs, dir)
			}
		}
	}
	slices.Sort(p.Dirs)
	for _, d := range p.Dirs {
		if !slices.Contains(p.next.Dirs, d) {
			p.next.Dirs = append(p.next.Dirs, d)
		}
	}
}

// paths are all that makePlan must know of.
func paths(list []Wanted, s settled, m Manifest) []string {
	set := map[string]bool{}
	add := func(p string) {
		for ; p != "/" && p != "."; p = path.Dir(p) {
			set[p] = true
		}
	}
	for _, w := range list {
		add(w.Path)
	}
	for d := range s.dirs() {
		add(d)
	}
	for _, e := range m.Files {
		add(e.Path)
	}
	return slices.Sorted(maps.Keys(set))
}

// sysctlWanted reads the number out of the file that is to be installed.
func sysctlWanted(list []Wanted) int {
	for _, w := range list {
		if w.Path != sysctlFile {
			continue
		}
		for line := range strings.Lines(string(w.Data)) {
			var n int
			if _, err := fmt.Sscanf(line, "fs.fanotify.max_user_groups = %d", &n); err == nil {
				return n
			}
		}
	}
	return 0
}

// unified is the diff of a text file, as patch(1) reads it.
func unified(name string, before File, after []byte) string {
	from, to := "a"+name, "b"+name
	if !before.Exists {
		from = "/dev/null"
	}
	if after == nil {
		to = "/dev/null"
	}
	return udiff.Unified(from, to, string(before.Data), string(after))
}

// Nothing: there is no installation that could be removed.
func (p *Plan) Nothing() bool { return p.next.Format == 0 }
