package install

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Set for the test binary when it is to install and to be killed before the step of this number.
const killAt = "STOCKADE_TEST_KILL_AT"

func TestMain(m *testing.M) {
	if os.Getenv(killAt) != "" {
		killed()
	}
	os.Exit(m.Run())
}

// killed is the process that dies by SIGKILL, as a node that loses power does to it.
func killed() {
	left, _ := strconv.Atoi(os.Getenv(killAt))
	step = func(string) {
		if left--; left < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	o := Default()
	o.Root, o.From, o.NoRestart, o.NRI = os.Getenv("ROOT"), os.Getenv("FROM"), true, os.Getenv("NRI")
	var err error
	if os.Getenv("UNINSTALL") == "" {
		err = apply(o)
	} else {
		err = takeAway(o.Root, false)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func apply(o Options) error {
	p, err := Gather(o)
	if err != nil {
		return err
	}
	_, err = Apply(context.Background(), o, p, func(string) {})
	return err
}

func takeAway(root string, purge bool) error {
	r := Removal{Root: root, NoRestart: true, Purge: purge}
	p, err := GatherRemoval(context.Background(), r)
	if err != nil {
		return err
	}
	_, err = Uninstall(context.Background(), r, p, func(string) {})
	return err
}

// host is a root with a containerd configuration, and a folder of programs.
func host(t *testing.T, config string) Options {
	t.Helper()
	o := Default()
	o.Root, o.From, o.NoRestart, o.NRI = t.TempDir(), t.TempDir(), true, NRINone
	for _, d := range []string{"etc/containerd", "etc/sysctl.d", "usr/local/bin", "var/lib", "proc/sys/fs/fanotify", "run/systemd/system", "etc/systemd/system"} {
		must(t, os.MkdirAll(filepath.Join(o.Root, d), 0o755))
	}
	put(t, o.Root+sysctlValue, "128\n")
	if config != "" {
		put(t, o.Root+o.ContainerdConfig, config)
		must(t, os.Chmod(o.Root+o.ContainerdConfig, 0o600))
	}
	programs(t, o, "1")
	return o
}

func programs(t *testing.T, o Options, version string) {
	t.Helper()
	for _, p := range []string{shimProgram, guardProgram, cliProgram, pluginProgram} {
		put(t, filepath.Join(o.From, p), "#!"+p+" "+version)
	}
}

func put(t *testing.T, file, text string) {
	t.Helper()
	must(t, os.WriteFile(file, []byte(text), 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree is everything below a folder: modes, links, contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += " " + string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " -> " + target
		}
		all[strings.TrimPrefix(p, dir)] = text
		return nil
	}))
	return all
}

// same compares trees; names in but are left out.
func same(t *testing.T, what string, got, want map[string]string, but ...string) {
	t.Helper()
	names := maps.Clone(got)
	maps.Copy(names, want)
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if !slices.Contains(but, n) && got[n] != want[n] {
			t.Errorf("%s: %s is %.200q, want %.200q", what, n, got[n], want[n])
		}
	}
}

// verified makes a manifest look as it does when containerd has been seen to work.
func verified(t *testing.T, o Options) {
	t.Helper()
	r := root(o.Root)
	m, err := r.manifest()
	must(t, err)
	m.Restart = false
	for i := range m.Files {
		m.Files[i].Unverified, m.Files[i].Previous = false, ""
	}
	must(t, r.write(manifestPath, strings.NewReader(string(m.bytes())), 0o600))
}

var configs = map[string]string{
	"no configuration":            "",
	"version 3":                   "# mine\nversion = 3\nroot = '/x' # why\n",
	"version 3, other imports":    "version = 3\nimports = ['/opt/a.toml', '/etc/containerd/extra.d/*.toml']\n",
	"version 4, the usual import": "version = 4\nimports = ['/etc/containerd/conf.d/*.toml']\n",
	"version 2":                   "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true # systemd\n",
}

func TestInstallAgainAndUninstall(t *testing.T) {
	for name, config := range configs {
		for _, nri := range []string{NRINone, NRIPreinstalled} {
			t.Run(name+", "+nri, func(t *testing.T) {
				o := host(t, config)
				o.NRI = nri
				if strings.Contains(config, "extra.d") {
					must(t, os.MkdirAll(o.Root+"/etc/containerd/extra.d", 0o755))
					must(t, os.MkdirAll(o.Root+"/opt", 0o755))
					put(t, o.Root+"/opt/a.toml", "version = 3\n")
				}
				before := tree(t, o.Root)
				must(t, apply(o))
				verified(t, o)
				checkInstalled(t, o)
				again, err := Gather(o)
				if err != nil || !again.Empty() {
					t.Errorf("a second run would do something: %v %+v", err, again.Changes)
				}
				must(t, takeAway(o.Root, false))
				same(t, "after uninstall", tree(t, o.Root), before)
			})
		}
	}
}

func checkInstalled(t *testing.T, o Options) {
	t.Helper()
	r := root(o.Root)
	main, imported, err := r.containerd(o.ContainerdConfig, func(string) bool { return false })
	must(t, err)
	found := main.hasHandler()
	for _, c := range imported {
		found = found || c.hasHandler()
	}
	if !found {
		t.Error("containerd would not find the handler")
	}
	for _, p := range []string{shimProgram, guardProgram, cliProgram} {
		if info, err := os.Stat(o.Root + o.BinDir + "/" + p); err != nil || info.Mode() != 0o755 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	if _, err := os.Stat(o.Root + nriPluginDir + "/" + nriName); (err == nil) != (o.NRI == NRIPreinstalled) {
		t.Errorf("the pre-installed plugin: %v", err)
	}
	if r.groups() != 4096 {
		t.Errorf("max_user_groups is %d", r.groups())
	}
}

// A run that is killed at any step is finished by the next one, and can be undone by uninstall.
func TestKilledAtEveryStep(t *testing.T) {
	for _, then := range []string{"install", "uninstall", "upgrade"} {
		for n := 0; ; n++ {
			o := host(t, configs["version 3"])
			o.NRI = NRIPreinstalled
			before := tree(t, o.Root)
			if then == "upgrade" {
				must(t, apply(o))
				verified(t, o)
				programs(t, o, "2")
			}
			ended := killedRun(t, o, n, false)
			if then == "uninstall" {
				must(t, takeAway(o.Root, false))
			} else {
				must(t, apply(o))
				verified(t, o)
				checkInstalled(t, o)
				if p, err := Gather(o); err != nil || !p.Empty() {
					t.Errorf("killed at %d: not whole afterwards: %v %+v", n, err, p.Changes)
				}
				must(t, takeAway(o.Root, false))
			}
			same(t, fmt.Sprintf("%s after a kill at step %d", then, n), tree(t, o.Root), before)
			if ended || t.Failed() {
				break
			}
			if n > 60 {
				t.Fatal("it never ends")
			}
		}
	}
}

func TestUninstallKilledAtEveryStep(t *testing.T) {
	for n := 0; ; n++ {
		o := host(t, configs["version 2"])
		before := tree(t, o.Root)
		must(t, apply(o))
		ended := killedRun(t, o, n, true)
		must(t, takeAway(o.Root, false))
		same(t, fmt.Sprintf("after a kill at step %d", n), tree(t, o.Root), before)
		if ended || t.Failed() {
			break
		}
	}
}

// killedRun runs another process that is killed before its step n; it returns true when there are not so many.
func killedRun(t *testing.T, o Options, n int, uninstall bool) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killAt+"="+strconv.Itoa(n), "ROOT="+o.Root, "FROM="+o.From, "NRI="+o.NRI)
	if uninstall {
		cmd.Env = append(cmd.Env, "UNINSTALL=1")
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return true
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
		t.Fatalf("step %d: %v\n%s", n, err, out)
	}
	return false
}

func TestWhatOthersChangedStays(t *testing.T) {
	o := host(t, configs["version 3"])
	put(t, o.Root+sysctlFile, "fs.fanotify.max_user_groups = 9999\n")
	must(t, apply(o))
	verified(t, o)
	const mine = "noProfile: monitor\n"
	put(t, o.Root+etcDir+"/config.yaml", mine)
	put(t, o.Root+etcDir+"/profiles.d/p.yaml", "mine")
	config := o.Root + o.ContainerdConfig
	data, err := os.ReadFile(config)
	must(t, err)
	put(t, config, string(data)+"[debug]\n  level = 'debug' # my own\n")
	programs(t, o, "2")
	p, err := Gather(o)
	must(t, err)
	keeps := map[string]bool{}
	for _, c := range p.Changes {
		keeps[c.Path] = c.Action == Keep
	}
	if !keeps[etcDir+"/config.yaml"] || !keeps[sysctlFile] || p.Restart {
		t.Errorf("%+v", p.Changes)
	}
	must(t, apply(o))
	must(t, takeAway(o.Root, false))
	got := tree(t, o.Root)
	for file, want := range map[string]string{
		etcDir + "/config.yaml": mine, sysctlFile: "fs.fanotify.max_user_groups = 9999\n", etcDir + "/profiles.d/p.yaml": "mine",
		o.ContainerdConfig: configs["version 3"] + "[debug]\n  level = 'debug' # my own\n",
	} {
		if !strings.HasSuffix(got[file], " "+want) {
			t.Errorf("%s is %q, want %q", file, got[file], want)
		}
	}
	if _, there := got[o.BinDir+"/"+shimProgram]; there {
		t.Error("the shim is still there")
	}
}

// An edit between two installs must not be lost when the original is restored.
func TestEditBetweenInstallsSurvivesUninstall(t *testing.T) {
	o := host(t, configs["version 2"])
	must(t, apply(o))
	verified(t, o)
	config := o.Root + o.ContainerdConfig
	data, err := os.ReadFile(config)
	must(t, err)
	put(t, config, strings.Replace(string(data), "version = 2\n", "version = 2\nroot = '/mine'\n", 1))
	o.BinDir = "/opt/stockade/bin" // the block changes too: runtime_path
	must(t, apply(o))
	verified(t, o)
	must(t, takeAway(o.Root, false))
	data, err = os.ReadFile(config)
	must(t, err)
	if want := strings.Replace(configs["version 2"], "version = 2\n", "version = 2\nroot = '/mine'\n", 1); string(data) != want {
		t.Errorf("got\n%s\nwant\n%s", data, want)
	}
}

func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		config string
		change func(t *testing.T, o *Options)
		want   string
	}{
		"broken":            {"version = 3\n[plugins\n", nil, "/etc/containerd/config.toml:2:"},
		"version 1":         {"[plugins]\n", nil, "config migrate"},
		"a broken import":   {"version = 3\nimports = ['/etc/containerd/x.toml']\n", func(t *testing.T, o *Options) { put(t, o.Root+"/etc/containerd/x.toml", "a b") }, "/etc/containerd/x.toml:1:"},
		"a folder in place": {"version = 3\n", func(t *testing.T, o *Options) { must(t, os.Mkdir(o.Root+o.BinDir+"/"+shimProgram, 0o755)) }, "is a folder"},
		"a file for a dir":  {"version = 3\n", func(t *testing.T, o *Options) { put(t, o.Root+etcDir, "x") }, "is not a folder"},
		"anybody may write": {"version = 3\n", func(t *testing.T, o *Options) { must(t, os.Chmod(o.Root+o.BinDir, 0o777)) }, "could exchange"},
		"no programs":       {"version = 3\n", func(_ *testing.T, o *Options) { o.From = "/nonexistent" }, "--from"},
		"relative":          {"version = 3\n", func(_ *testing.T, o *Options) { o.BinDir = "bin" }, "--bin-dir"},
		"required by a pod": {"version = 3\n", func(_ *testing.T, o *Options) { o.RequirePlugin = true }, "could not start without it"},
		"a newer manifest": {"version = 3\n", func(t *testing.T, o *Options) {
			must(t, os.MkdirAll(o.Root+stateDir, 0o700))
			put(t, o.Root+manifestPath, `{"format":99}`)
		}, "newer"},
		"a damaged manifest": {"version = 3\n", func(t *testing.T, o *Options) {
			must(t, os.MkdirAll(o.Root+stateDir, 0o700))
			put(t, o.Root+manifestPath, `{`)
		}, "install.json"},
	} {
		t.Run(name, func(t *testing.T) {
			o := host(t, tc.config)
			if tc.change != nil {
				tc.change(t, &o)
			}
			before := tree(t, o.Root)
			if err := apply(o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			same(t, "after the refusal", tree(t, o.Root), before)
		})
	}
}

// Links of the host are followed inside the host: an absolute one must not lead out of it.
func TestLinksStayInside(t *testing.T) {
	o := host(t, "")
	must(t, os.RemoveAll(o.Root+"/etc/containerd"))
	must(t, os.MkdirAll(o.Root+"/data/etc", 0o755))
	must(t, os.Symlink("/data/etc", o.Root+"/etc/containerd"))
	put(t, o.Root+"/data/real.toml", "version = 3\n")
	must(t, os.Symlink("../real.toml", o.Root+"/data/etc/config.toml"))
	before := tree(t, o.Root)
	must(t, apply(o))
	if data, err := os.ReadFile(o.Root + "/data/real.toml"); err != nil || !strings.Contains(string(data), "imports") {
		t.Errorf("%v %s", err, data)
	}
	if _, err := os.Stat(o.Root + "/data/etc/conf.d/stockade.toml"); err != nil {
		t.Error(err)
	}
	must(t, takeAway(o.Root, false))
	same(t, "after uninstall", tree(t, o.Root), before)
}

// A second run at the same time is told, not mixed in.
func TestTwoAtOnce(t *testing.T) {
	o := host(t, configs["version 3"])
	must(t, os.MkdirAll(o.Root+stateDir, 0o700))
	lock, err := root(o.Root).lock(stateDir)
	must(t, err)
	defer lock.Close()
	if err := apply(o); err == nil || !strings.Contains(err.Error(), "another stockade") {
		t.Error(err)
	}
}

// A disk or folder that cannot be written leaves nothing half done, and the next run finishes.
func TestReadOnlyPlace(t *testing.T) {
	o := host(t, configs["version 3"])
	before := tree(t, o.Root)
	sealed := o.Root + "/etc/sysctl.d"
	if err := syscall.Mount(sealed, sealed, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("cannot mount here: ", err)
	}
	defer func() { _ = syscall.Unmount(sealed, syscall.MNT_DETACH) }()
	must(t, syscall.Mount("", sealed, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	if err := apply(o); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Error(err)
	}
	if got := tree(t, o.Root)[o.ContainerdConfig]; got != before[o.ContainerdConfig] {
		t.Errorf("containerd's file has been touched: %s", got)
	}
	must(t, syscall.Mount("", sealed, "", syscall.MS_BIND|syscall.MS_REMOUNT, ""))
	must(t, apply(o))
	must(t, takeAway(o.Root, false))
	same(t, "after uninstall", tree(t, o.Root), before)
}
