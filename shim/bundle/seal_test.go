package bundle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/profiles"
)

// compile makes the plan of a profile's spec on a node that can do everything this build uses.
func compile(t *testing.T, spec string) *profiles.Plan {
	t.Helper()
	text := "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: x}\nspec: " + spec + "\n"
	ps, err := profiles.Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := profiles.Compile(ps[0], profiles.Target{
		Kernel: "6.18.5", Arch: "amd64",
		Fanotify: profiles.Yes, FanotifyStack: profiles.Yes, SeccompNotify: profiles.Yes, MountSeal: profiles.Yes,
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// tree makes a root: names that end in / are directories, "a -> b" are links, others files.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		link, target, isLink := strings.Cut(name, " -> ")
		p := filepath.Join(root, link)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(target, p)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(p, 0o755)
		default:
			err = os.WriteFile(p, []byte(name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func newSpec(mounts ...specs.Mount) *specs.Spec {
	return &specs.Spec{
		Root: &specs.Root{Path: "rootfs"}, Process: &specs.Process{User: specs.User{UID: 7, GID: 8}}, Linux: &specs.Linux{},
		Mounts: mounts,
	}
}

// bound lists the mounts that seal has added, as "destination" or "destination noexec".
func bound(spec *specs.Spec, rootfs string) []string {
	var all []string
	for _, m := range spec.Mounts {
		if !strings.HasPrefix(m.Source, rootfs) {
			continue
		}
		line := m.Destination
		if slices.Contains(m.Options, "noexec") {
			line += " noexec"
		}
		all = append(all, line)
	}
	return all
}

func TestSealBindsWhatIsDeclared(t *testing.T) {
	tests := []struct {
		name  string
		tree  []string
		spec  string
		binds []string
	}{
		{"nothing", []string{"etc/"}, "{}", nil},
		{"directory", []string{"data/"}, `{allow: {write: ["/data/**"]}}`, []string{"/data noexec"}},
		{"directory with programs", []string{"data/"}, `{allow: {write: ["/data/**"], exec: [/data/x]}}`, []string{"/data"}},
		{"file", []string{"etc/mtab.new"}, `{allow: {write: [/etc/mtab.new]}}`, []string{"/etc/mtab.new noexec"}},
		{"file to be made", []string{"run/"}, `{allow: {write: [/run/x.pid]}}`, []string{"/run noexec"}},
		{"once", []string{"data/a/"}, `{allow: {write: ["/data/**", "/data/a/**"]}}`, []string{"/data noexec"}},
		{"missing", []string{"srv/"}, `{allow: {write: ["/srv/a/b/**"]}}`, []string{"/srv/a/b noexec"}},
		{"link", []string{"etc/", "data -> etc"}, `{allow: {write: ["/data/**"]}}`, nil},
		{"link out of the root", []string{"data -> /../../../../etc", "etc/"}, `{allow: {write: ["/data/**"]}}`, nil},
		{"link to the root", []string{"data -> /"}, `{allow: {write: ["/data/**"]}}`, nil},
		{"link in the middle", []string{"run/", "var/run -> ../run"}, `{allow: {write: ["/var/run/x/**"]}}`, nil},
		{"link to nothing", []string{"data -> nowhere"}, `{allow: {write: ["/data/**"]}}`, nil},
		{"file behind a link", []string{"run/", "var/run -> ../run"}, `{allow: {write: [/var/run/x.pid]}}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rootfs, spec := tree(t, tt.tree...), newSpec()
			before, err := os.ReadDir(filepath.Join(rootfs, "run"))
			if err := seal(spec, compile(t, tt.spec), rootfs); err != nil {
				t.Fatal(err)
			}
			if got := bound(spec, rootfs); !slices.Equal(got, tt.binds) {
				t.Errorf("bound %q, want %q", got, tt.binds)
			}
			if !spec.Root.Readonly {
				t.Error("the root stays writable")
			}
			if after, _ := os.ReadDir(filepath.Join(rootfs, "run")); err == nil && len(after) != len(before) {
				t.Errorf("something was made behind a link: %v", after)
			}
		})
	}
}

func TestSealMakesMissingDirectories(t *testing.T) {
	rootfs := tree(t, "srv/")
	if err := seal(newSpec(), compile(t, `{allow: {write: ["/srv/a/b/**"]}}`), rootfs); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"srv/a", "srv/a/b"} {
		st := stat(t, filepath.Join(rootfs, dir))
		if st.Uid != 7 || st.Gid != 8 || st.Mode&0o777 != 0o755 {
			t.Errorf("%s: owner %d:%d, mode %o", dir, st.Uid, st.Gid, st.Mode)
		}
	}
}

func TestSealRefusesWhatIsNoFile(t *testing.T) {
	rootfs := tree(t, "a")
	if err := seal(newSpec(), compile(t, `{allow: {write: ["/a/b/**"]}}`), rootfs); err == nil {
		t.Error("a file where a directory should be: no error")
	}
}

func TestSealMounts(t *testing.T) {
	rootfs := tree(t, "run/", "var/run -> ../run")
	bind := func(dest string, options ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: "bind", Source: "/nowhere", Options: options}
	}
	tests := []struct {
		mount specs.Mount
		spec  string
		want  []string
	}{
		{bind("/vol", "rbind", "rw"), "{}", []string{"rbind", "rro", "rnoexec", "rnosuid", "rnodev"}},
		{bind("/vol", "bind", "rw", "exec", "suid", "dev"), "{}", []string{"bind", "ro", "noexec", "nosuid", "nodev"}},
		{bind("/vol", "bind", "rw"), `{allow: {write: ["/vol/**"]}}`, []string{"bind", "rw", "noexec", "nosuid", "nodev"}},
		{bind("/vol", "bind", "rw"), `{allow: {write: ["/vol/a/b"]}}`, []string{"bind", "rw", "noexec", "nosuid", "nodev"}},
		{bind("/vol/a", "bind", "rw"), `{allow: {write: ["/vol/**"]}}`, []string{"bind", "rw", "noexec", "nosuid", "nodev"}},
		{bind("/vol", "bind", "rw"), `{allow: {write: ["/volume/**"]}}`, []string{"bind", "ro", "noexec", "nosuid", "nodev"}},
		{bind("/vol", "bind", "ro"), `{allow: {write: ["/vol/**"]}}`, []string{"bind", "ro", "noexec", "nosuid", "nodev"}},
		{bind("/vol", "bind"), `{allow: {exec: [/vol/x]}}`, []string{"bind", "ro", "nosuid", "nodev"}},
		{bind("/vol", "bind"), `{allow: {exec: ["@image"]}}`, []string{"bind", "ro", "noexec", "nosuid", "nodev"}},
		{bind("/var/run/x", "bind", "rw"), `{allow: {write: ["/run/x/**"]}}`, []string{"bind", "rw", "noexec", "nosuid", "nodev"}},
		{bind("/var/run/x", "bind", "rw"), `{allow: {write: ["/var/run/x/**"]}}`, []string{"bind", "ro", "noexec", "nosuid", "nodev"}},
		{specs.Mount{Destination: "/dev", Type: "tmpfs", Options: []string{"nosuid"}}, "{}", []string{"ro", "noexec", "nosuid"}},
		{specs.Mount{Destination: "/proc", Type: "proc", Options: []string{"nosuid"}}, "{}", []string{"nosuid"}},
	}
	for _, tt := range tests {
		spec := newSpec(tt.mount)
		if err := seal(spec, compile(t, tt.spec), rootfs); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == tt.mount.Destination })
		if got := spec.Mounts[i].Options; !slices.Equal(got, tt.want) {
			t.Errorf("%s %q under %s: %q, want %q", tt.mount.Destination, tt.mount.Options, tt.spec, got, tt.want)
		}
	}
}

func TestBoundDirectoryComesBeforeVolumesInIt(t *testing.T) {
	rootfs := tree(t, "data/vol/")
	spec := newSpec(specs.Mount{Destination: "/proc", Type: "proc"}, specs.Mount{Destination: "/data/vol", Type: "bind", Source: "/nowhere"})
	if err := seal(spec, compile(t, `{allow: {write: ["/data/**"]}}`), rootfs); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range spec.Mounts {
		order = append(order, m.Destination)
	}
	if want := []string{"/proc", "/data", "/data/vol"}; !slices.Equal(order, want) {
		t.Errorf("mounts %q, want %q", order, want)
	}
}
