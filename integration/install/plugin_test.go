package install_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/nri/health"
)

// withPlugin is a node with NRI. What containerd starts sees the node's etc in /etc, as on a host: a plugin that NRI
// starts has no environment, and reads /etc/stockade.
func withPlugin(t *testing.T) func(*bed) {
	return func(b *bed) {
		root, err := checkout.Root()
		must(t, err)
		bin := t.TempDir()
		script := fmt.Sprintf("#!/bin/sh\nexec unshare -m --propagation private sh -c '[ ! -d %[1]s/etc ] || mount -t overlay overlay -o lowerdir=%[1]s/etc:/etc /etc || exit 1\n"+
			"exec %[2]s/.cache/bin/containerd \"$@\"' containerd \"$@\"\n", b.conf.Dir, root)
		must(t, os.WriteFile(filepath.Join(bin, "containerd"), []byte(script), 0o755))
		b.conf.NRI, b.conf.Bin = true, append([]string{bin}, b.conf.Bin...)
		data, err := os.ReadFile(filepath.Join(root, "bin/stockade-nri"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(b.from, "stockade-nri"), data, 0o755))
	}
}

// admin writes what an admin has in /etc/stockade.
func (b *bed) admin(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(b.StockadeConfig())
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(b.Dir(), "etc/stockade"), 0o755))
	must(t, os.WriteFile(filepath.Join(b.Dir(), "etc/stockade/config.yaml"), data, 0o644))
	must(t, os.WriteFile(filepath.Join(b.Dir(), "etc/stockade/nri.yaml"), []byte("metrics: none\ncontainerd: "+b.Address()+"\n"), 0o644))
}

// pluginProcess waits for a plugin that is connected, other than one known before.
func (b *bed) pluginProcess(t *testing.T, not int) int {
	t.Helper()
	var h health.Health
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if h, err = health.Read(b.StateDir()); err == nil && h.Connected && h.PID != not && h.Profiles == 1 {
			return h.PID
		}
	}
	t.Fatalf("no plugin is connected: %+v, %v\n%s", h, err, b.LogTail())
	return 0
}

// TestPreinstalled: --nri preinstalled puts the plugin where containerd starts it by itself, each time that it starts,
// and uninstall takes it away again.
func TestPreinstalled(t *testing.T) {
	b := newBed(t, withPlugin(t))
	b.admin(t)
	before := b.files(t)
	out := b.stockade(t, 0, "install", "--nri", "preinstalled")
	program := filepath.Join(b.Dir(), "opt/nri/plugins/10-stockade")
	if info, err := os.Stat(program); err != nil || info.Mode().Perm() != 0o755 || !strings.Contains(out, "/opt/nri/plugins/10-stockade") {
		t.Errorf("%v\n%s", err, out)
	}
	first := b.pluginProcess(t, 0)
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", first)); err != nil || exe != program {
		t.Errorf("the plugin is %s, %v", exe, err)
	}
	b.holds(t)
	must(t, b.Crash())
	must(t, b.Restart(t.Context(), b.conf))
	second := b.pluginProcess(t, first)
	n := b.restarts.Load()
	if out := b.stockade(t, 0, "install", "--nri", "preinstalled"); !strings.Contains(out, "nothing to do") || b.restarts.Load() != n {
		t.Errorf("%s", out)
	}
	b.stockade(t, 0, "uninstall")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", second)); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the plugin runs on after uninstall")
		}
	}
	same(t, b.files(t), before)
}

// TestUnit: --nri unit writes the unit, has it started at boot and now, and what it starts is there and connects.
// systemd itself is not here: what it is asked for is written down.
func TestUnit(t *testing.T) {
	b := newBed(t, withPlugin(t))
	b.admin(t)
	b.program(t, "systemctl")
	must(t, os.MkdirAll(filepath.Join(b.Dir(), "run/systemd/system"), 0o755))
	before := b.files(t)
	asked := func() string {
		data, _ := os.ReadFile(filepath.Join(b.Dir(), "systemctl.asked"))
		return string(data)
	}
	t.Run("the plugin does not start", func(t *testing.T) { b.unitFails(t, before) })
	b.stockade(t, 0, "install", "--nri", "unit")
	if got := asked(); !strings.HasSuffix(got, "daemon-reload\nrestart stockade-nri.service\n") {
		t.Errorf("systemctl was asked for %q", got)
	}
	unit, err := os.ReadFile(filepath.Join(b.Dir(), "etc/systemd/system/stockade-nri.service"))
	must(t, err)
	if link, err := os.Readlink(filepath.Join(b.Dir(), "etc/systemd/system/multi-user.target.wants/stockade-nri.service")); err != nil || link != "../stockade-nri.service" {
		t.Errorf("%s, %v", link, err)
	}
	start := ""
	for line := range strings.Lines(string(unit)) {
		if command, ok := strings.CutPrefix(line, "ExecStart="); ok {
			start = strings.TrimSpace(command)
		}
	}
	if start != "/usr/local/bin/stockade-nri" {
		t.Fatalf("the unit starts %q", start)
	}
	p, err := b.StartPlugin(t.Context(), filepath.Join(b.Dir(), filepath.Dir(start)), "metrics: none\n")
	must(t, err)
	b.pluginProcess(t, 0)
	b.holds(t)
	must(t, p.Stop())
	t.Run("somebody else runs the plugin then", func(t *testing.T) { b.leaveUnit(t, asked) })
	b.stockade(t, 0, "install", "--nri", "unit")
	must(t, os.Remove(filepath.Join(b.Dir(), "systemctl.asked")))
	b.stockade(t, 0, "uninstall")
	if got := asked(); !strings.Contains(got, "disable --now stockade-nri.service\n") {
		t.Errorf("systemctl was asked for %q", got)
	}
	same(t, b.files(t), before)
}

// unitFails has systemd fail once the handler is written, before and after containerd was restarted: what containerd
// reads is as before.
func (b *bed) unitFails(t *testing.T, before map[string]string) {
	t.Helper()
	fails := filepath.Join(b.Dir(), "systemctl.fails")
	for _, tc := range []struct {
		verb     string
		restarts int32
	}{{"daemon-reload", 0}, {"restart", 2}} {
		must(t, os.WriteFile(fails, []byte(tc.verb), 0o600))
		n := b.restarts.Load()
		out := b.stockade(t, 2, "install", "--nri", "unit")
		after := b.files(t)
		if after["/containerd.toml"] != before["/containerd.toml"] || after["/conf.d/stockade.toml"] != "" || b.restarts.Load() != n+tc.restarts {
			t.Errorf("%s: not put back, or %d restarts\n%s", tc.verb, b.restarts.Load()-n, out)
		}
	}
	must(t, os.Remove(fails))
}

// leaveUnit goes from the unit to no plugin of ours: the service must end, or it holds the lock for which the
// DaemonSet's plugin waits.
func (b *bed) leaveUnit(t *testing.T, asked func() string) {
	t.Helper()
	must(t, os.Remove(filepath.Join(b.Dir(), "systemctl.asked")))
	n := b.restarts.Load()
	out := b.stockade(t, 0, "install", "--nri", "none")
	const want = "disable --now stockade-nri.service\ndaemon-reload\n"
	if got := asked(); got != want || b.restarts.Load() != n {
		t.Errorf("systemctl was asked for %q, want %q; %d restarts\n%s", got, want, b.restarts.Load()-n, out)
	}
	if _, err := os.Stat(filepath.Join(b.Dir(), "usr/local/bin/stockade-nri")); err == nil {
		t.Error("the plugin's program is still there")
	}
	if out := b.stockade(t, 0, "install", "--nri", "none"); !strings.Contains(out, "nothing to do") {
		t.Errorf("%s", out)
	}
}
