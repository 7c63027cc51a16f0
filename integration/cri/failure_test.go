package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/health"
)

// storm makes pods while what does something to the plugin, and counts what became of them. Each pod's container does
// what is not declared: it is refused, or killed, or it was not protected.
func storm(t *testing.T, pods int, what func()) (refused, killed int) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	work := make(chan int)
	for range 2 {
		wg.Go(func() {
			for i := range work {
				if i == pods/3 {
					what()
				}
				p, err := shared.tryPod(t, podSpec{namespace: "labels", labels: map[string]string{"app": "probe"}})
				if err != nil {
					t.Errorf("pod %d: %v", i, err)
					continue
				}
				c, err := p.run(t.Context(), "main", deviates...)
				if err != nil {
					mu.Lock()
					refused++
					mu.Unlock()
					if !strings.Contains(err.Error(), "stockade") {
						t.Errorf("pod %d: refused without us: %v", i, err)
					}
					continue
				}
				c.killed(t, otherRan)
				mu.Lock()
				killed++
				mu.Unlock()
			}
		})
	}
	for i := range pods {
		work <- i
	}
	close(work)
	wg.Wait()
	if refused+killed != pods {
		t.Errorf("%d refused and %d killed of %d", refused, killed, pods)
	}
	return refused, killed
}

// TestPluginFails: whatever happens to the plugin while pods are made, none starts unprotected, and what runs stays
// protected.
func TestPluginFails(t *testing.T) {
	const pods = 12
	for _, tc := range []struct {
		name string
		do   func(p *node.Plugin) error
		back bool // it is there again afterwards
	}{
		{"killed", func(p *node.Plugin) error { return p.Signal(syscall.SIGKILL) }, false},
		{"stopped", func(p *node.Plugin) error { return p.Signal(syscall.SIGSTOP) }, false},
		{"stopped for a while", func(p *node.Plugin) error {
			time.AfterFunc(3*time.Second, func() { _ = p.Signal(syscall.SIGCONT) })
			return p.Signal(syscall.SIGSTOP)
		}, true},
		{"ended", func(p *node.Plugin) error { return p.Signal(syscall.SIGTERM) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plugin := shared.plugin(t, "")
			runs := shared.pod(t, podSpec{namespace: "labels", labels: map[string]string{"app": "probe"}}).mustRun(t, "main", sleeps...)
			var done time.Time
			refused, killed := storm(t, pods, func() {
				done = time.Now()
				if err := tc.do(plugin); err != nil {
					t.Error(err)
				}
			})
			t.Logf("%d refused, %d killed", refused, killed)
			if killed == 0 {
				t.Error("none was made while the plugin was well")
			}
			if !tc.back && refused == 0 {
				t.Error("none was made while the plugin was away")
			}
			if out, err := runs.exec(t, "/bin/other"); err == nil || strings.Contains(out, otherRan) {
				t.Errorf("what runs is no longer protected: %q %v", out, err)
			}
			if got := profileOf(t, runs); got != "label" {
				t.Errorf("it runs under %q", got)
			}
			if tc.back {
				if err := plugin.WaitHealth(t.Context(), func(h health.Health) bool { return h.Connected && h.Since.After(done) }); err != nil {
					t.Error(err)
				}
				protected(t, shared.pod(t, podSpec{namespace: "labels", labels: map[string]string{"app": "probe"}}), "main", "label")
			}
		})
	}
}

// restart has containerd read its configuration again.
func (c *client) restart(t *testing.T) {
	t.Helper()
	if err := c.node.Crash(); err != nil {
		t.Fatal(err)
	}
	if err := c.node.Restart(t.Context(), node.Config{Bin: []string{bin}}); err != nil {
		t.Fatal(err)
	}
	if err := c.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestRequiredPlugin: with required_plugins in containerd's configuration nothing starts without the plugin, whatever
// its handler; and a plugin that containerd starts itself is there before the first pod.
func TestRequiredPlugin(t *testing.T) {
	c, err := setUp(t.Context(), "cri-required", node.Config{Stockade: "requirePlugin: true\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.node.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(c.node.DropIns(), "stockade-nri.toml"), []byte(nri.ContainerdConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	c.restart(t)
	run := func(name, handler string) error {
		p := c.pod(t, podSpec{handler: handler})
		_, err := p.run(t.Context(), "main", sleeps...)
		if err != nil {
			return fmt.Errorf("%s, handler %s: %w", name, handler, err)
		}
		return nil
	}
	for _, handler := range []string{"runc", "stockade"} {
		if err := run("no plugin", handler); err == nil || !strings.Contains(err.Error(), `required plugin "stockade" not present`) {
			t.Errorf("without the plugin: %v", err)
		}
	}
	t.Run("connected", func(t *testing.T) {
		p, err := c.node.StartPlugin(t.Context(), bin, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, handler := range []string{"runc", "stockade"} {
			if err := run("plugin", handler); err != nil {
				t.Error(err)
			}
		}
		// Its first request after this runs into NRI's time limit, the next ones find no plugin.
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := run("stopped", "runc"); err == nil {
				t.Error("a container was made while the plugin was stopped")
			}
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("pre-installed", func(t *testing.T) {
		if err := c.node.PreInstall(bin, ""); err != nil {
			t.Fatal(err)
		}
		c.restart(t)
		for _, handler := range []string{"runc", "stockade"} {
			if err := run("pre-installed", handler); err != nil {
				t.Errorf("%v\n%s", err, c.node.LogTail())
			}
		}
	})
}
