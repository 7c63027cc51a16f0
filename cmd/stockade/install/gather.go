package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Gather reads the node and returns what Apply would do. It changes nothing.
func Gather(o Options) (*Plan, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := root(o.Root)
	n, err := r.node(o)
	if err != nil {
		return nil, err
	}
	if err := r.trusted(o.BinDir); err != nil {
		return nil, err
	}
	list, s, err := wanted(o, n)
	if err != nil {
		return nil, err
	}
	files, err := r.files(paths(list, s, n.manifest), kinds(list, n.manifest))
	if err != nil {
		return nil, err
	}
	return makePlan(o, list, s, n, files, r.groups()), nil
}

// node reads what decides about everything else.
func (r root) node(o Options) (node, error) {
	n := node{programs: map[string]string{}}
	var err error
	if n.manifest, err = r.manifest(); err != nil {
		return n, err
	}
	for _, name := range []string{shimProgram, guardProgram, cliProgram, pluginProgram} {
		d, err := fileDigest(filepath.Join(o.From, name))
		if errors.Is(err, fs.ErrNotExist) && name == pluginProgram {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("%w (--from names the folder of the programs)", err)
		}
		n.programs[name] = d
	}
	if _, ok := n.programs[pluginProgram]; !ok && (o.NRI == NRIUnit || o.NRI == NRIPreinstalled) {
		return n, fmt.Errorf("--nri %s: there is no %s in %s", o.NRI, pluginProgram, o.From)
	}
	f, err := r.read(systemdRuns, Config)
	n.systemd = err == nil && f.Dir
	n.main, n.imported, err = r.containerd(o.ContainerdConfig, func(p string) bool { return n.manifest.entry(p) != nil })
	return n, err
}

// containerd reads containerd's configuration, as containerd would. ours tells files that we wrote; they are left out.
func (r root) containerd(file string, ours func(string) bool) (main *conf, imported []*conf, err error) {
	f, err := r.read(file, Containerd)
	if err != nil || !f.Exists {
		return nil, nil, err
	}
	if main, err = parseConf(file, f.Data); err != nil {
		return nil, nil, err
	}
	seen := []string{file}
	for pending := []*conf{main}; len(pending) > 0; pending = pending[1:] {
		names, err := r.imports(pending[0])
		if err != nil {
			return nil, nil, err
		}
		for _, name := range names {
			if slices.Contains(seen, name) || ours(name) {
				continue
			}
			seen = append(seen, name)
			f, err := r.read(name, Containerd)
			if err != nil {
				return nil, nil, err
			}
			c, err := parseConf(name, f.Data)
			if err != nil {
				return nil, nil, err
			}
			imported, pending = append(imported, c), append(pending, c)
		}
	}
	return main, imported, nil
}

// imports lists the files that a file imports, as containerd finds them (resolveImports in its server/config).
func (r root) imports(c *conf) ([]string, error) {
	var names []string
	for _, pattern := range c.imports() {
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(c.path), pattern)
		}
		if !strings.ContainsRune(pattern, '*') {
			names = append(names, pattern)
			continue
		}
		dir, err := r.real(path.Dir(pattern))
		if err != nil {
			return nil, err
		}
		found, err := filepath.Glob(filepath.Join(dir, path.Base(pattern)))
		if err != nil {
			return nil, fmt.Errorf("%s: imports %q: %w", c.path, pattern, err)
		}
		for _, f := range found {
			names = append(names, path.Join(path.Dir(pattern), filepath.Base(f)))
		}
	}
	return names, nil
}

func (r root) manifest() (Manifest, error) {
	f, err := r.read(manifestPath, Config)
	if err != nil || !f.Exists {
		return Manifest{}, err
	}
	return parseManifest(f.Data)
}

// files reads everything that a plan is made from.
func (r root) files(paths []string, kinds map[string]Kind) (map[string]File, error) {
	files := map[string]File{}
	for _, p := range paths {
		kind := kinds[p]
		if kind == Containerd && path.Dir(p) == nriPluginDir {
			kind = Program
		}
		f, err := r.read(p, kind)
		if err != nil {
			return nil, err
		}
		if _, isFile := kinds[p]; isFile && f.Dir {
			return nil, fmt.Errorf("%s is a folder", p)
		}
		if _, isFile := kinds[p]; !isFile && f.Exists && !f.Dir {
			return nil, fmt.Errorf("%s is not a folder", p)
		}
		files[p] = f
	}
	return files, nil
}

func kinds(list []Wanted, m Manifest) map[string]Kind {
	k := map[string]Kind{}
	for _, e := range m.Files {
		k[e.Path] = e.Kind
	}
	for _, w := range list {
		k[w.Path] = w.Kind
	}
	return k
}

// groups is the kernel's limit of fanotify groups, 0 when it cannot be read.
func (r root) groups() int {
	real, err := r.real(sysctlValue)
	if err != nil {
		return 0
	}
	data, err := os.ReadFile(real)
	if err != nil {
		return 0
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return v
}

func fileDigest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
