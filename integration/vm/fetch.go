package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// recipe is part of the keys of what is kept: raise it when the same input is to give something else.
const recipe = 1

// modules of the kernel that the guest needs beside those that they depend on.
var modules = []string{"overlay", "binfmt_misc", "brd"}

// boot is what a kernel's packages hold.
type boot struct {
	vmlinuz string
	modules []string // files, in the order in which they are to be loaded
}

// kernel returns k's files, fetched and unpacked under .cache/vm when they are not there yet.
func (b *Builder) kernel(ctx context.Context, k Kernel) (boot, error) {
	key := sha256.Sum256(fmt.Append(nil, recipe, k.suites, k.target, modules))
	dir := b.cache("kernels", fmt.Sprintf("%s-%x", k.Name, key[:6]))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(b.Log, "fetching kernel %s\n", k.Name)
		if err := b.fetchKernel(ctx, k, dir); err != nil {
			return boot{}, fmt.Errorf("kernel %s: %w", k.Name, err)
		}
	}
	return unpacked(ctx, dir)
}

// unpacked looks for the kernel in dir. Packages of a merged /usr and those before it differ in where modules are.
func unpacked(ctx context.Context, dir string) (boot, error) {
	set := moduleSet{files: map[string]string{}, builtin: map[string]bool{}}
	if err := set.find(dir); err != nil {
		return boot{}, err
	}
	if set.vmlinuz == "" {
		return boot{}, fmt.Errorf("no kernel in %s", dir)
	}
	for _, m := range modules {
		if err := set.load(ctx, m); err != nil {
			return boot{}, err
		}
	}
	return boot{vmlinuz: set.vmlinuz, modules: set.order}, nil
}

// fetchKernel makes dir, all or nothing.
func (b *Builder) fetchKernel(ctx context.Context, k Kernel, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	apt, err := newApt(ctx, filepath.Join(tmp, "apt"), k.suites, k.target)
	if err != nil {
		return err
	}
	debs, err := apt.download(ctx, "linux-image-cloud-amd64", kernelPackages)
	if err != nil {
		return err
	}
	root := filepath.Join(tmp, "root")
	for _, deb := range debs {
		if _, err := run(ctx, "", "dpkg", "-x", deb, root); err != nil {
			return err
		}
	}
	if _, err := unpacked(ctx, root); err != nil { // which expands modules, too
		return err
	}
	if err := os.Rename(root, dir); err != nil && !errors.Is(err, fs.ErrExist) { // somebody else was faster
		return err
	}
	return removeOlder(dir, k.Name)
}

// removeOlder removes what other recipes made of the same kernel.
func removeOlder(dir, name string) error {
	old, err := filepath.Glob(filepath.Join(filepath.Dir(dir), name+"-????????????"))
	for _, o := range old {
		if o != dir {
			err = errors.Join(err, os.RemoveAll(o))
		}
	}
	return err
}

// kernelPackages are those with files of a kernel, among all that its metapackage depends on.
var kernelPackages = regexp.MustCompile(`^linux-(image|binary|modules|base)-[0-9]`)

// moduleSet puts modules in the order in which they can be loaded: in the guest there is no modprobe to find that out,
// and no xz for the compressed ones of newer packages.
type moduleSet struct {
	vmlinuz string
	files   map[string]string // by name
	builtin map[string]bool   // names of those that the kernel itself holds
	order   []string          // files of those that are to be loaded, each after what it depends on
}

// find looks for the kernel and for its modules. Where they lie differs by package: below /boot, /lib or /usr/lib.
func (s *moduleSet) find(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if strings.HasPrefix(d.Name(), "vmlinuz") {
			s.vmlinuz = path
		}
		if name, _, ok := strings.Cut(d.Name(), ".ko"); ok {
			s.files[moduleName(name)] = path
		}
		if d.Name() != "modules.builtin" {
			return nil
		}
		list, err := os.ReadFile(path)
		for line := range strings.Lines(string(list)) {
			s.builtin[moduleName(strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko"))] = true
		}
		return err
	})
}

// moduleName is as in depends: file names may have dashes instead.
func moduleName(file string) string { return strings.ReplaceAll(file, "-", "_") }

func (s *moduleSet) load(ctx context.Context, name string) error {
	file := s.files[moduleName(name)]
	if s.builtin[moduleName(name)] {
		return nil
	}
	if file == "" {
		return fmt.Errorf("no module %s", name)
	}
	if plain, ok := strings.CutSuffix(file, ".xz"); ok {
		if _, err := run(ctx, "", "xz", "-d", file); err != nil {
			return err
		}
		file, s.files[name] = plain, plain
	}
	if slices.Contains(s.order, file) {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// The .modinfo section is a list of key=value, each with a NUL at its end.
	for _, v := range bytes.Split(data, []byte{0}) {
		deps, ok := bytes.CutPrefix(v, []byte("depends="))
		if !ok || len(deps) == 0 {
			continue
		}
		for d := range strings.SplitSeq(string(deps), ",") {
			if err := s.load(ctx, d); err != nil {
				return fmt.Errorf("module %s: %w", name, err)
			}
		}
	}
	s.order = append(s.order, file)
	return nil
}

// apt is a package manager with lists of its own: the machine's know neither backports nor another Debian.
type apt struct {
	dir  string
	args []string
}

func newApt(ctx context.Context, dir string, suites []string, target string) (*apt, error) {
	a := &apt{dir: dir, args: []string{
		"-q", "-y", "--no-install-recommends", "-t", target,
		"-o", "Dir::State=" + dir + "/state",
		"-o", "Dir::State::status=/dev/null",
		"-o", "Dir::Cache=" + dir + "/cache",
		"-o", "Dir::Etc::sourcelist=" + dir + "/list.sources",
		"-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::Etc::preferencesparts=/dev/null",
		"-o", "APT::Sandbox::User=root",
		"-o", "APT::Update::Post-Invoke::=true",
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	}}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	sources, err := sources(ctx, suites)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(dir+"/list.sources", []byte(sources), 0o644); err != nil {
		return nil, err
	}
	_, err = run(ctx, "", "apt-get", append(a.args, "update")...)
	return a, err
}

// sources has the suites from the mirrors that this machine's apt is configured with, and from no other.
func sources(ctx context.Context, suites []string) (string, error) {
	out, err := run(ctx, "", "apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)")
	if err != nil {
		return "", err
	}
	mirrors := map[bool]string{} // by whether it has the security suites
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 && strings.HasPrefix(f[0], "bookworm") {
			mirrors[strings.HasSuffix(f[0], "-security")] = f[1]
		}
	}
	var text strings.Builder
	for _, s := range suites {
		uri := mirrors[strings.HasSuffix(s, "-security")]
		if uri == "" {
			return "", fmt.Errorf("apt is configured with no mirror that could have %s", s)
		}
		fmt.Fprintf(&text, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n"+
			"Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n", uri, s)
	}
	return text.String(), nil
}

// download fetches those packages that want matches, of all that pkg depends on.
func (a *apt) download(ctx context.Context, pkg string, want *regexp.Regexp) ([]string, error) {
	out, err := run(ctx, "", "apt-get", append(a.args, "--print-uris", "install", pkg)...)
	if err != nil {
		return nil, err
	}
	var names, debs []string
	for line := range strings.Lines(out) {
		// 'URI' NAME_VERSION_ARCH.deb SIZE HASH
		f := strings.Fields(line)
		if len(f) < 3 || !strings.HasPrefix(f[0], "'") || !want.MatchString(f[1]) {
			continue
		}
		name := strings.Split(f[1], "_")
		names = append(names, name[0]+"="+strings.ReplaceAll(name[1], "%3a", ":"))
		debs = append(debs, filepath.Join(a.dir, "debs", f[1]))
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("apt-get names no package of %s:\n%s", pkg, out)
	}
	_, err = run(ctx, a.dir+"/debs", "apt-get", append(append(a.args, "download"), names...)...)
	return debs, err
}

// run returns what the program writes to its standard output; its standard error becomes part of the error.
func run(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}
