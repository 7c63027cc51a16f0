package install

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/stockade-dev/stockade/contrib"
)

// Wanted is a file as it should be.
type Wanted struct {
	Path   string
	Kind   Kind
	Mode   fs.FileMode
	Data   []byte // not of programs
	Source string // of a program: a path in this process's own file system
	Digest string
	Why    string
}

// node is what Gather found out before it is known which files matter.
type node struct {
	programs map[string]string // digest of each program of Options.From
	main     *conf             // containerd's file; nil when there is none
	imported []*conf           // what it imports, as containerd orders it, without our own drop-in
	systemd  bool
	manifest Manifest
}

// settled are the answers to what Options left open, and what follows from the node.
type settled struct {
	nri       string
	dropIn    string // "" when the handler stands in the file itself, or somewhere else
	addImport bool
	elsewhere string // file in which somebody else declares the handler
	notes     []string
}

// wanted says which files should be there. It is pure.
func wanted(o Options, n node) ([]Wanted, settled, error) {
	var s settled
	if n.main != nil && n.main.version() < 2 {
		return nil, s, fmt.Errorf("%s is of version 1, which containerd 2 does not read any more: containerd config migrate", n.main.path)
	}
	s.settleNRI(o, n)
	s.settleDropIn(o, n)
	var list []Wanted
	for _, name := range []string{guardProgram, shimProgram, cliProgram, pluginProgram} {
		if d, ok := n.programs[name]; ok && (name != pluginProgram || s.nri == NRIUnit) {
			list = append(list, Wanted{Path: path.Join(o.BinDir, name), Kind: Program, Mode: 0o755, Source: path.Join(o.From, name), Digest: d})
		}
	}
	if s.nri == NRIPreinstalled {
		list = append(list, Wanted{
			Path: path.Join(nriPluginDir, nriName), Kind: Containerd, Mode: 0o755, Source: path.Join(o.From, pluginProgram), Digest: n.programs[pluginProgram],
			Why: "containerd starts it",
		})
	}
	list = append(list,
		text(etcDir+"/config.yaml", Config, 0o644, contrib.Config, "every key with its default"),
		text(sysctlFile, Config, 0o644, contrib.Sysctl, "one fanotify group for each pod"))
	if s.nri == NRIUnit {
		list = append(list, text(unitFile, Config, 0o644, bytes.ReplaceAll(contrib.Unit, []byte("/usr/local/bin"), []byte(o.BinDir)), "the NRI plugin"),
			Wanted{Path: unitLink, Kind: Link, Data: []byte("../stockade-nri.service"), Digest: digest([]byte("../stockade-nri.service")), Why: "started at boot"})
	}
	files, err := containerdFiles(o, n, &s)
	return append(list, files...), s, err
}

func text(path string, kind Kind, mode fs.FileMode, data []byte, why string) Wanted {
	return Wanted{Path: path, Kind: kind, Mode: mode, Data: data, Digest: digest(data), Why: why}
}

// dirs are the folders that must exist, with their modes; parents are made too.
func (s settled) dirs() map[string]fs.FileMode {
	return map[string]fs.FileMode{etcDir + "/profiles.d": 0o755, stateDir: 0o700}
}

func (s *settled) settleNRI(o Options, n node) {
	s.nri = o.NRI
	_, there := n.programs[pluginProgram]
	switch {
	case s.nri != NRIAuto:
	case !there:
		s.nri = NRINone
	case n.systemd:
		s.nri = NRIUnit
	default:
		s.nri = NRIPreinstalled
	}
}

// settleDropIn decides where the handler is declared.
func (s *settled) settleDropIn(o Options, n node) {
	for _, c := range n.all() {
		own := c == n.main && bytes.Contains(c.data, []byte(blockBegin))
		if c.hasHandler() && !own {
			s.elsewhere = c.path
			s.notes = append(s.notes, fmt.Sprintf("%s declares the handler %q already: no other declaration is written", c.path, handler))
		}
	}
	if s.elsewhere != "" || n.main != nil && n.main.inOne() {
		return
	}
	s.dropIn = o.dropIn()
	if n.main == nil {
		return
	}
	s.addImport = true
	for _, pattern := range n.main.imports() {
		if leadsTo(o.ContainerdConfig, pattern, s.dropIn) {
			s.addImport = false
			return
		}
	}
	// Where another folder is imported already, containerd's file can stay as it is.
	for _, pattern := range n.main.imports() {
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(o.ContainerdConfig), pattern)
		}
		if there := path.Join(path.Dir(pattern), dropInName); strings.HasSuffix(pattern, "/*.toml") && leadsTo(o.ContainerdConfig, pattern, there) {
			s.dropIn, s.addImport = there, false
			return
		}
	}
}

func (n node) all() []*conf {
	if n.main == nil {
		return nil
	}
	return append([]*conf{n.main}, n.imported...)
}

// containerdFiles are the drop-in and containerd's own file, as far as they must change.
func containerdFiles(o Options, n node, s *settled) ([]Wanted, error) {
	if s.elsewhere != "" {
		return nil, nil
	}
	if s.dropIn == "" {
		data, err := appendBlock(n.main, handlerTables(o, n, s, criPluginV2))
		w := text(o.ContainerdConfig, Containerd, 0o644, data, "the runtime handler; containerd 1.x does not merge drop-ins of a plugin")
		return []Wanted{w}, err
	}
	var b strings.Builder
	b.WriteString("# The runtime handler " + handler + ", written by stockade install.\nversion = 3\n")
	for _, t := range handlerTables(o, n, s, criPlugin) {
		part, err := t.text()
		if err != nil {
			return nil, err
		}
		b.WriteString("\n" + part)
	}
	list := []Wanted{text(s.dropIn, Containerd, 0o644, []byte(b.String()), "the runtime handler")}
	switch {
	case n.main == nil:
		list = append(list, text(o.ContainerdConfig, Containerd, 0o644, []byte("version = 3\nimports = ['"+importPattern+"'] "+importMark+"\n"),
			"containerd follows imports only of a file that it reads"))
	case s.addImport:
		data, err := editImports(n.main, importPattern)
		if err != nil {
			return nil, err
		}
		list = append(list, text(o.ContainerdConfig, Containerd, 0o644, data, "imports the drop-in"))
	}
	return list, nil
}

// handlerTables are what containerd must be told.
func handlerTables(o Options, n node, s *settled, cri string) []table {
	values := map[string]any{"runtime_type": runtimeType, "pod_annotations": []string{"stockade.dev/*"}}
	if !slices.Contains(containerdPath, o.BinDir) {
		values["runtime_path"] = path.Join(o.BinDir, shimProgram)
	}
	keys := []string{"plugins", cri, "containerd", "runtimes", handler}
	like := defaultRuntime(n.all())
	options, _ := like["options"].(map[string]any)
	for k, v := range like {
		if k != "options" {
			values[k] = v
		}
	}
	tables := []table{{keys, values}}
	if len(options) > 0 {
		tables = append(tables, table{append(slices.Clone(keys), "options"), options})
	}
	if s.nri == NRINone && o.NRI != NRINone {
		return tables // there is no plugin
	}
	return append(tables, nriTables(o, n, s)...)
}

// nriTables: NRI is on by default from containerd 2.0 on and off before.
func nriTables(o Options, n node, s *settled) []table {
	var tables []table
	base := n.main
	if base != nil {
		if stripped, err := withoutBlock(base); err == nil {
			base = stripped
		}
	}
	disabled, said := false, false
	if base != nil {
		disabled, said = base.nriDisabled()
	}
	old := base != nil && base.inOne()
	switch {
	case old && disabled:
		s.notes = append(s.notes, fmt.Sprintf("%s disables NRI: set `disable = false` in [plugins.'%s'], or stockade-nri cannot connect", base.path, nriPlugin))
	case old && !said, disabled:
		tables = append(tables, table{[]string{"plugins", nriPlugin}, map[string]any{"disable": false}})
	}
	if o.RequirePlugin {
		tables = append(tables, table{[]string{"plugins", nriPlugin, "default_validator"}, map[string]any{"enable": true, "required_plugins": []string{"stockade"}}})
	}
	return tables
}
