package vm

import (
	"context"
	"debug/elf"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/stockade-dev/stockade/integration/image"
)

// Suite is one package's tests.
type Suite struct {
	Dir     string // of the package, below the checkout
	timeout string
	args    []string
	// once is a regular expression of those tests that ask the runtime or the shim rather than the kernel: they run on the
	// oldest only.
	once     string
	optional bool // it runs where there is such a package
}

// scenarios are the end-to-end cases. Most of one is waiting for processes to start and to end.
var scenarios = Suite{
	Dir: "integration", timeout: "35m", args: []string{
		// Beside the scenarios: what people do with containers (pause, metrics, terminals, namespaces), and Stockade's parts
		// killed and stopped under them. Both are about cgroups.
		// And the services of contrib/profiles with their work: AppArmor refuses nothing of it. Then what is AppArmor's alone,
		// how long a deviation takes to end in death, and those reloads that are the same on every node: what waits for the
		// next start differs, as no mount is sealed beside AppArmor and the filter is told of less.
		"-test.run=^Test(Scenarios|ClientOperations|UserNamespace|Submounts|HostPIDNamespace|TTY|Lifecycle|Redis|Nginx|Postgres|Job|AppArmor|DeviationToDead|Reload(Read|Exec|Broken)$)",
		"-test.parallel=4",
	},
	once: "^Test(Reload|DeviationToDead)",
}

// suites run in this order: what fails at once first.
func suites() []Suite {
	return []Suite{
		{Dir: "shim/features", timeout: "2m"},
		{Dir: "shim/cgroup", timeout: "4m"},
		{Dir: "shim/procfs", timeout: "2m"},
		{Dir: "shim/fanotify", timeout: "2m"},
		{Dir: "shim/guard", timeout: "5m"},
		{Dir: "shim/notify", timeout: "5m", once: "^Test(RuntimeIsEnough|ExecWaitsForTheListener)$"},
		{Dir: "integration/node", timeout: "5m", args: []string{"-test.run=^(TestNode|TestKilledOwner)$"}},
		{Dir: "shim/audit", timeout: "2m"},
		{Dir: "shim/lsm", timeout: "3m"},
		// Generated profiles and paths: the same verdicts from Decide, from fanotify and from AppArmor.
		{Dir: "integration/semantics", timeout: "10m", optional: true, args: []string{"-rounds=8"}},
		scenarios,
	}
}

// images that these suites run.
var images = []string{"probe", "tools"}

// programs of bin/ that the guest needs.
var programs = []string{
	"containerd", "containerd-shim-runc-v2", "runc", "containerd-shim-stockade-v1", "stockade-guard", "stockade",
}

//go:embed guest/init
var initScript string

//go:embed guest/guest
var guestScript string

// Builder makes what a guest boots from, in the checkout at Root.
type Builder struct {
	Root string
	Log  io.Writer // progress
	Only Selection
}

func (b *Builder) cache(elem ...string) string {
	return filepath.Join(append([]string{b.Root, ".cache/vm"}, elem...)...)
}

// userland is the guest's system. It is built and kept as the images of containers are.
func userland() image.Spec {
	return image.Spec{
		Name:     "vm-guest",
		Packages: []string{"busybox-static", "dash", "coreutils", "grep", "sed", "libc-bin", "apparmor", "e2fsprogs"},
		Omit:     []string{"dpkg", "tar", "debianutils", "base-files", "gcc-12-base", "debconf", "perl-base"},
		Files: []image.File{
			{Path: "/proc", Dir: true},
			{Path: "/sys", Dir: true},
			{Path: "/dev", Dir: true},
			{Path: "/new", Dir: true},
			{Path: "/run", Dir: true},
			{Path: "/root", Dir: true, Mode: 0o700},
			{Path: "/var/lib", Dir: true},
			{Path: "/tmp", Dir: true, Mode: 0o1777},
			{Path: "/usr/bin/setsid", Link: "busybox"},
			{Path: "/etc/passwd", Text: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"},
			{Path: "/etc/group", Text: "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"},
			{Path: "/etc/hostname", Text: "guest\n"},
			{Path: "/etc/hosts", Text: "127.0.0.1 localhost guest\n"},
			{Path: "/etc/resolv.conf", Text: "\n"},
			{Path: "/etc/nsswitch.conf", Text: "hosts: files\n"},
		},
	}
}

// initramfs writes what every kernel's guest has in common.
func (b *Builder) initramfs(ctx context.Context, w io.Writer) error {
	a := newArchive(w)
	if err := b.addUserland(ctx, a); err != nil {
		return err
	}
	a.text("init", 0o755, initScript)
	a.text("guest", 0o755, guestScript)
	a.device("dev/console", 0o600, 5, 1)
	a.device("dev/null", 0o666, 1, 3)
	a.link("stockade/.cache/bin", "../bin") // where tests look for runc
	// Where shim/lsm's tests look for a parser of their own: here the system has one.
	a.link("stockade/.cache/apparmor/root", "/")
	a.text("stockade/.cache/apparmor/done", 0o644, "")
	for _, p := range programs {
		if err := static(filepath.Join(b.Root, "bin", p)); err != nil {
			return fmt.Errorf("%w: run make build", err)
		}
		a.file("stockade/bin/"+p, filepath.Join(b.Root, "bin", p))
	}
	if err := b.addImages(ctx, a); err != nil {
		return err
	}
	if err := b.addTests(ctx, a); err != nil {
		return err
	}
	return a.close()
}

// static refuses a program that needs libraries: the guest does not have this machine's.
func static(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err == nil && len(libs) > 0 {
		err = fmt.Errorf("%s needs %s", program, strings.Join(libs, " "))
	}
	return err
}

func (b *Builder) addUserland(ctx context.Context, a *archive) error {
	built, err := (&image.Builder{Root: b.Root, Log: b.Log}).Build(ctx, userland())
	if err != nil {
		return err
	}
	img, err := tarball.ImageFromPath(built.Tar, nil)
	if err != nil {
		return err
	}
	r := mutate.Extract(img)
	defer r.Close()
	a.tar(r)
	return nil
}

// addImages adds the cache of images, and the sources that their keys are made of.
func (b *Builder) addImages(ctx context.Context, a *archive) error {
	builder := &image.Builder{Root: b.Root, Log: b.Log}
	for _, name := range b.Only.images(b.Root) {
		img, err := builder.Named(ctx, name)
		if err != nil {
			return err
		}
		a.file("stockade/.cache/images/"+filepath.Base(img.Tar), img.Tar)
	}
	a.tree("stockade/integration/testdata/src", filepath.Join(b.Root, "integration/testdata/src"))
	return nil
}

// addTests compiles the tests as bin/ is compiled, and adds them with their data where their packages lie.
func (b *Builder) addTests(ctx context.Context, a *archive) error {
	dir, err := os.MkdirTemp("", "stockade-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args := []string{
		"test", "-c", "-buildvcs=false", "-tags", "netgo osusergo", "-o", dir + "/",
		"-ldflags", `-s -w -linkmode external -extldflags "-static"`,
	}
	for _, s := range b.Only.suites(b.Root) {
		args = append(args, "./"+s.Dir)
	}
	if _, err := run(ctx, b.Root, "go", args...); err != nil {
		return err
	}
	a.file("stockade/go.mod", filepath.Join(b.Root, "go.mod"))
	for _, s := range b.Only.suites(b.Root) {
		name := filepath.Base(s.Dir) + ".test"
		a.file(filepath.Join("stockade", s.Dir, name), filepath.Join(dir, name))
		a.tree(filepath.Join("stockade", s.Dir, "testdata"), filepath.Join(b.Root, s.Dir, "testdata"))
	}
	a.tree("stockade/contrib/profiles", filepath.Join(b.Root, "contrib/profiles"))
	return b.addProbe(ctx, a, dir)
}

// addProbe adds the program of shim/notify's tests, which elsewhere they compile themselves: the guest has no compiler.
func (b *Builder) addProbe(ctx context.Context, a *archive, dir string) error {
	const folder = "shim/notify/testdata/"
	if _, err := run(ctx, b.Root, "gcc", "-static", "-O1", "-o", dir+"/probe", folder+"probe.c"); err != nil {
		return err
	}
	a.file("stockade/"+folder+"probe", dir+"/probe")
	return nil
}
