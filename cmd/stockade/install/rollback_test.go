package install

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// unmovable makes a file one that cannot be renamed over, as a disk that is full does to it.
func unmovable(t *testing.T, file string) {
	t.Helper()
	if err := syscall.Mount(file, file, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("cannot mount here: ", err)
	}
	t.Cleanup(func() { movable(file) })
}

func movable(file string) { _ = syscall.Unmount(file, syscall.MNT_DETACH) }

// sameForContainerd: what containerd reads, and the programs that were there, are what they were.
func sameForContainerd(t *testing.T, o Options, before map[string]string) {
	t.Helper()
	got := tree(t, o.Root)
	for name, text := range before {
		if strings.HasPrefix(name, "/etc/containerd") || strings.HasPrefix(name, o.BinDir) || strings.HasPrefix(name, nriPluginDir) {
			if got[name] != text {
				t.Errorf("%s is %.200q, was %.200q", name, got[name], text)
			}
		}
	}
	for name := range got {
		if _, was := before[name]; !was && strings.HasSuffix(name, ".toml") {
			t.Errorf("%s was not there", name)
		}
	}
}

// Whatever fails after something of what containerd reads was written: it is as before, and the next run can finish.
// Here the drop-in is written, and the import cannot be.
func TestErrorTakesBack(t *testing.T) {
	o := host(t, configs["version 3"])
	o.NRI = NRIPreinstalled
	before := tree(t, o.Root)
	unmovable(t, o.Root+o.ContainerdConfig)
	if err := apply(o); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Fatal(err)
	}
	sameForContainerd(t, o, before)
	movable(o.Root + o.ContainerdConfig)
	must(t, apply(o))
	verified(t, o)
	checkInstalled(t, o)
	must(t, takeAway(o.Root, false))
	same(t, "after uninstall", tree(t, o.Root), before)
}

// An upgrade, to other programs and another handler, that systemd cannot be told of.
func TestErrorTakesBackPrograms(t *testing.T) {
	for _, config := range []string{"version 2", "version 3"} {
		o := host(t, configs[config])
		before := tree(t, o.Root)
		o.NRI = NRIPreinstalled
		must(t, apply(o))
		verified(t, o)
		installed := tree(t, o.Root)
		programs(t, o, "2")
		next := o
		next.NRI, next.BinDir = NRIUnit, "/opt/stockade/bin"
		if err := apply(next); err == nil || !strings.Contains(err.Error(), "systemctl") {
			t.Fatal(err)
		}
		sameForContainerd(t, o, installed)
		programs(t, o, "1")
		if p, err := Gather(o); err != nil || p.Restart {
			t.Errorf("%v: containerd would be restarted for %+v", err, p.Changes)
		}
		must(t, takeAway(o.Root, false))
		same(t, "after uninstall", tree(t, o.Root), before)
	}
}

// A first install on a node that has no systemd for the plugin.
func TestErrorTakesBackNewFile(t *testing.T) {
	o := host(t, "")
	before := tree(t, o.Root)
	o.NRI = NRIUnit
	if err := apply(o); err == nil || !strings.Contains(err.Error(), "systemctl") {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.Root + o.ContainerdConfig); err == nil {
		t.Error("containerd's file was not there")
	}
	sameForContainerd(t, o, before)
}

// hooked does something at a step of a run.
func hooked(t *testing.T, at string, do func()) {
	t.Helper()
	before := step
	step = func(name string) {
		if name == at {
			do()
		}
	}
	t.Cleanup(func() { step = before })
}

// A container that starts after the plan was made stops uninstall, and nothing has been taken away.
func TestUninstallLooksAgain(t *testing.T) {
	o := host(t, configs["version 2"])
	o.NRI = NRIPreinstalled
	before := tree(t, o.Root)
	must(t, apply(o))
	verified(t, o)
	must(t, os.MkdirAll(o.Root+runDir, 0o755))
	installed := tree(t, o.Root)
	hooked(t, "update "+o.ContainerdConfig, func() { put(t, o.Root+runDir+"/c1.json", "{}") })
	if err := takeAway(o.Root, false); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "c1") {
		t.Fatal(err)
	}
	must(t, os.Remove(o.Root+runDir+"/c1.json"))
	same(t, "after the refusal", tree(t, o.Root), installed)
	step = func(string) {}
	must(t, takeAway(o.Root, false))
	same(t, "after uninstall", tree(t, o.Root), before)
}

// What containerd reads is as before where uninstall cannot do all of it.
func TestUninstallTakesBack(t *testing.T) {
	o := host(t, configs["version 3"])
	must(t, apply(o))
	verified(t, o)
	installed := tree(t, o.Root)
	unmovable(t, o.Root+o.ContainerdConfig)
	if err := takeAway(o.Root, false); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Fatal(err)
	}
	same(t, "after the error", tree(t, o.Root), installed)
}

// An edit that an admin made while he was asked is not lost.
func TestUninstallAfterAnEdit(t *testing.T) {
	o := host(t, configs["version 3"])
	must(t, apply(o))
	verified(t, o)
	r := Removal{Root: o.Root, NoRestart: true}
	p, err := GatherRemoval(t.Context(), r)
	must(t, err)
	config := o.Root + o.ContainerdConfig
	data, err := os.ReadFile(config)
	must(t, err)
	put(t, config, string(data)+"# mine\n")
	edited := tree(t, o.Root)
	if _, err := Uninstall(context.Background(), r, p, func(string) {}); err == nil || !strings.Contains(err.Error(), "has changed since") {
		t.Error(err)
	}
	same(t, "after the refusal", tree(t, o.Root), edited)
}
