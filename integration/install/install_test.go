// Package install_test runs `stockade install` and `stockade uninstall` on a node with a real containerd, whose root is
// the node's folder.
package install_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

// bed is a node without Stockade, whose containerd looks for shims in its /usr/local/bin.
type bed struct {
	*node.Node
	conf     node.Config
	image    string
	from     string // folder of the programs to install
	restarts atomic.Int32
	onStop   atomic.Pointer[func()] // called once, before the next restart
}

const profile = `apiVersion: stockade.dev/v1alpha1
kind: Profile
metadata: {name: installed}
spec:
  allow: {exec: [/bin/probe], read: ["@image"]}
`

func newBed(t *testing.T, also ...func(*bed)) *bed {
	t.Helper()
	root, err := checkout.Root()
	must(t, err)
	bin, err := checkout.Bin(root, "containerd-shim-stockade-v1", "stockade-guard", "stockade", "containerd")
	must(t, err)
	b := &bed{from: t.TempDir()}
	// Not bin/: the shim lies there.
	b.conf = node.Config{Dir: filepath.Join(root, ".work/is"), Bin: []string{filepath.Join(root, ".work/is/usr/local/bin"), filepath.Join(root, ".cache/bin")}}
	for _, f := range also {
		f(b)
	}
	b.Node, err = node.Start(t.Context(), b.conf)
	must(t, err)
	t.Cleanup(func() {
		if err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, p := range []string{"containerd-shim-stockade-v1", "stockade-guard", "stockade"} {
		data, err := os.ReadFile(filepath.Join(bin, p))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(b.from, p), data, 0o755))
	}
	for _, d := range []string{"bin", "usr/local/bin", "etc/sysctl.d", "proc/sys/fs/fanotify", "var/lib"} {
		must(t, os.MkdirAll(filepath.Join(b.Dir(), d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(b.Dir(), "proc/sys/fs/fanotify/max_user_groups"), []byte("128\n"), 0o644))
	b.program(t, "sh")
	img, err := (&image.Builder{Root: root, Log: os.Stderr}).Named(t.Context(), "probe")
	must(t, err)
	must(t, b.Import(t.Context(), img.Tar))
	b.image = img.Ref
	must(t, os.WriteFile(filepath.Join(b.ProfilesDir(), "installed.yaml"), []byte(profile), 0o600))
	b.forgetHandler(t)
	go b.serveRestarts(t)
	return b
}

// program builds one of testdata's into the node's /bin.
func (b *bed) program(t *testing.T, name string) {
	t.Helper()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(b.Dir(), "bin", name), "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

var imports = regexp.MustCompile(`(?m)^imports = .*$`)

// forgetHandler takes Stockade's handler, with which a node starts, out of containerd's configuration.
func (b *bed) forgetHandler(t *testing.T) {
	t.Helper()
	file := filepath.Join(b.Dir(), "containerd.toml")
	data, err := os.ReadFile(file)
	must(t, err)
	const table = "    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.stockade]"
	without, _, found := bytes.Cut(data, []byte(table))
	if !found {
		t.Fatalf("%s has no handler", file)
	}
	// What it imports by its absolute path is not inside the root that is installed into.
	text := imports.ReplaceAll(without, []byte("imports = []"))
	// Where NRI looks by default, inside that root.
	text = bytes.Replace(text, []byte(b.NRIPlugins()), []byte(filepath.Join(b.Dir(), "opt/nri/plugins")), 1)
	must(t, os.WriteFile(file, text, 0o600))
	must(t, b.Crash())
	must(t, b.Restart(t.Context(), b.conf))
}

// serveRestarts restarts containerd when the node's "shell" asks for it.
func (b *bed) serveRestarts(t *testing.T) {
	for t.Context().Err() == nil {
		if os.Remove(filepath.Join(b.Dir(), "restart.asked")) != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		b.restarts.Add(1)
		if f := b.onStop.Swap(nil); f != nil {
			(*f)()
		}
		var said string
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := errors.Join(b.Crash(), b.Restart(ctx, b.conf)); err != nil {
			said = err.Error()
		}
		cancel()
		done := filepath.Join(b.Dir(), "restart.done")
		if err := errors.Join(os.WriteFile(done+".new", []byte(said), 0o600), os.Rename(done+".new", done)); err != nil {
			t.Error(err)
		}
	}
}

// stockade runs the CLI that is to be installed.
func (b *bed) stockade(t *testing.T, code int, args ...string) string {
	t.Helper()
	verb := args[0]
	args = append([]string{verb, "--root", b.Dir(), "--address", b.Address(), "--restart-command", "restart containerd", "--wait", "20s", "--yes"}, args[1:]...)
	if verb == "install" {
		args = append(args, "--containerd-config", "/containerd.toml")
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(b.from, "stockade"), args...)
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("stockade %s: exit code %d (%v), want %d\n%s\ncontainerd: %s", verb, got, err, code, out, b.LogTail())
	}
	return string(out)
}

// files is what install may touch, with modes and contents.
func (b *bed) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"bin", "etc", "usr", "var", "opt", "proc", "conf.d", "run", "containerd.toml", "config.yaml"} {
		err := filepath.WalkDir(filepath.Join(b.Dir(), dir), func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			text := info.Mode().String()
			if info.Mode().IsRegular() {
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				text += " " + string(data)
			}
			all[strings.TrimPrefix(p, b.Dir())] = text
			return nil
		})
		must(t, err)
	}
	return all
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is %.300q, was %.300q", name, got[name], text)
		}
	}
	for name := range got {
		if _, was := want[name]; !was {
			t.Errorf("%s was not there", name)
		}
	}
}

// protected starts a container under Stockade.
func (b *bed) protected(t *testing.T, args ...string) *node.Task {
	t.Helper()
	task, err := b.Run(t.Context(), node.RunOpts{Image: b.image, Runtime: node.Stockade, Profile: "installed", Args: args})
	if err != nil {
		t.Fatalf("%v\n%s", err, b.LogTail())
	}
	t.Cleanup(func() { _ = task.Delete(context.Background()) })
	return task
}

// holds runs a container that deviates, and makes sure that it is stopped.
func (b *bed) holds(t *testing.T) {
	t.Helper()
	task := b.protected(t, "/bin/probe", "spawn", "/bin/hello")
	code, err := task.Wait(t.Context())
	if code != 137 || err != nil || strings.Contains(task.Output(), "hello ran") {
		t.Errorf("exit code %d, %v\n%s", code, err, task.Output())
	}
	must(t, task.Delete(t.Context()))
}

func TestInstall(t *testing.T) {
	b := newBed(t)
	before := b.files(t)
	if _, err := b.Run(t.Context(), node.RunOpts{Image: b.image, Runtime: node.Stockade, Profile: "installed", Args: []string{"/bin/hello"}}); err == nil {
		t.Fatal("there is a shim already")
	}
	var report struct {
		Result struct{ Restarted, Verified bool }
	}
	out := b.stockade(t, 0, "install", "--json")
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &report); err != nil || !report.Result.Verified {
		t.Errorf("%v\n%s", err, out)
	}
	b.holds(t)
	long := b.protected(t, "/bin/probe", "sleep", "3600")

	t.Run("again", func(t *testing.T) {
		pid, n := b.PID(), b.restarts.Load()
		if out := b.stockade(t, 0, "install"); !strings.Contains(out, "nothing to do") || b.PID() != pid || b.restarts.Load() != n {
			t.Errorf("%d restarts\n%s", b.restarts.Load()-n, out)
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		n := b.restarts.Load()
		b.upgrade(t)
		if out := b.stockade(t, 0, "install"); !strings.Contains(out, "update   /usr/local/bin/containerd-shim-stockade-v1") || b.restarts.Load() != n {
			t.Errorf("%d restarts\n%s", b.restarts.Load()-n, out)
		}
		if e, err := long.Exec(t.Context(), node.ExecOpts{Args: []string{"/bin/hello"}}); err == nil {
			_ = e.Delete(t.Context())
			t.Error("the old shim lets an undeclared session in")
		}
		if s, err := long.Task.Status(b.Context(t.Context())); err != nil || s.Status != "running" {
			t.Errorf("the running container: %v, %v", s, err)
		}
		b.holds(t)
	})
	t.Run("upgrade to no program", func(t *testing.T) { b.badUpgrade(t) })
	t.Run("uninstall while in use", func(t *testing.T) {
		if out := b.stockade(t, 1, "uninstall"); !strings.Contains(out, b.Namespace+"/"+long.ID) {
			t.Errorf("it does not name the container:\n%s", out)
		}
		if out := b.stockade(t, 0, "install"); !strings.Contains(out, "nothing to do") {
			t.Errorf("something was removed:\n%s", out)
		}
	})
	must(t, long.Delete(t.Context()))
	t.Run("a container starts while it uninstalls", func(t *testing.T) { b.lateContainer(t) })
	b.stockade(t, 0, "uninstall")
	same(t, b.files(t), before)
	if _, err := b.Run(t.Context(), node.RunOpts{Image: b.image, Runtime: node.Stockade, Profile: "installed", Args: []string{"/bin/hello"}}); err == nil {
		t.Error("there is a shim still")
	}

	t.Run("containers go on while containerd is restarted", func(t *testing.T) {
		plain, err := b.Run(t.Context(), node.RunOpts{Image: b.image, Args: []string{"/bin/probe", "sleep", "3600"}})
		must(t, err)
		n := b.restarts.Load()
		b.stockade(t, 0, "install")
		if s, err := plain.Task.Status(b.Context(t.Context())); err != nil || s.Status != "running" || b.restarts.Load() != n+1 {
			t.Errorf("%v, %v, %d restarts", s, err, b.restarts.Load()-n)
		}
		b.stockade(t, 0, "uninstall")
		must(t, plain.Delete(t.Context()))
	})
	same(t, b.files(t), before)
}

// upgrade makes the programs other files that do the same: what follows an ELF file's sections is nothing to the kernel.
func (b *bed) upgrade(t *testing.T) {
	t.Helper()
	for _, p := range []string{"containerd-shim-stockade-v1", "stockade-guard"} {
		f, err := os.OpenFile(filepath.Join(b.from, p), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("the next version")
		must(t, errors.Join(err, f.Close()))
	}
}

// lateContainer starts a protected container after uninstall has looked for one: it goes on, and all is put back.
func (b *bed) lateContainer(t *testing.T) {
	t.Helper()
	before, n := b.files(t), b.restarts.Load()
	var late *node.Task
	start := func() {
		var err error
		if late, err = b.Run(t.Context(), node.RunOpts{Image: b.image, Runtime: node.Stockade, Profile: "installed", Args: []string{"/bin/probe", "sleep", "3600"}}); err != nil {
			t.Error(err)
		}
	}
	b.onStop.Store(&start)
	out := b.stockade(t, 1, "uninstall")
	if late == nil {
		t.FailNow()
	}
	if !strings.Contains(out, b.Namespace+"/"+late.ID) || b.restarts.Load() != n+2 {
		t.Errorf("%d restarts\n%s", b.restarts.Load()-n, out)
	}
	same(t, b.files(t), before)
	if s, err := late.Task.Status(b.Context(t.Context())); err != nil || s.Status != "running" {
		t.Errorf("the container: %v, %v", s, err)
	}
	b.holds(t)
	must(t, late.Delete(t.Context()))
}

// badUpgrade installs a shim that does not run: the old one is put back, without a restart.
func (b *bed) badUpgrade(t *testing.T) {
	t.Helper()
	before, n := b.files(t), b.restarts.Load()
	shim := filepath.Join(b.from, "containerd-shim-stockade-v1")
	good, err := os.ReadFile(shim)
	must(t, err)
	must(t, os.WriteFile(shim, []byte("no program"), 0o755))
	out := b.stockade(t, 2, "install", "--wait", "3s")
	if !strings.Contains(out, "put back /usr/local/bin/containerd-shim-stockade-v1") || b.restarts.Load() != n {
		t.Errorf("%d restarts\n%s", b.restarts.Load()-n, out)
	}
	same(t, b.files(t), before)
	must(t, os.WriteFile(shim, good, 0o755))
	b.holds(t)
	if out := b.stockade(t, 0, "install"); !strings.Contains(out, "nothing to do") {
		t.Errorf("%s", out)
	}
}

// What containerd cannot work with is taken back, and containerd runs as before.
func TestRollBack(t *testing.T) {
	b := newBed(t)
	before := b.files(t)
	t.Run("a shim that is no program", func(t *testing.T) {
		shim := filepath.Join(b.from, "containerd-shim-stockade-v1")
		good, err := os.ReadFile(shim)
		must(t, err)
		must(t, os.WriteFile(shim, []byte("no program"), 0o755))
		out := b.stockade(t, 2, "install", "--wait", "3s")
		if !strings.Contains(out, "put back") || !strings.Contains(out, "works again") {
			t.Errorf("%s", out)
		}
		after := b.files(t)
		if after["/containerd.toml"] != before["/containerd.toml"] || after["/conf.d/stockade.toml"] != "" {
			t.Errorf("not put back:\n%s\n%s", after["/containerd.toml"], after["/conf.d/stockade.toml"])
		}
		must(t, os.WriteFile(shim, good, 0o755))
	})
	t.Run("a good one then", func(t *testing.T) {
		b.stockade(t, 0, "install")
		b.holds(t)
		b.stockade(t, 0, "uninstall")
		same(t, b.files(t), before)
	})
	t.Run("a broken file", func(t *testing.T) {
		file := filepath.Join(b.Dir(), "containerd.toml")
		good, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, append([]byte("version = 4\n[plugins\n"), good...), 0o600))
		n := b.restarts.Load()
		if out := b.stockade(t, 2, "install"); !strings.Contains(out, "/containerd.toml:2:") || b.restarts.Load() != n {
			t.Errorf("%s", out)
		}
		must(t, os.WriteFile(file, good, 0o600))
		same(t, b.files(t), before)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
