package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/shim/config"
)

// run is the program; what it returns is the exit code.
func run(args []string, out, errw io.Writer) int {
	cmd := root(out)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errw)
	if err := cmd.Execute(); err != nil {
		fmt.Fprintln(errw, "stockade-nri:", err)
		return 1
	}
	return 0
}

func root(out io.Writer) *cobra.Command {
	var over overrides
	cmd := &cobra.Command{
		Use:   "stockade-nri",
		Short: "The NRI plugin: tells containerd which profile each container of a pod gets",
		Long: `stockade-nri connects to containerd's NRI socket, or is started by containerd as
/opt/nri/plugins/10-stockade. It chooses the profile of each container of a pod,
with the pod's labels, and hands the choice to the shim, signed.

It reads ` + nri.DefaultConfigPath + ` (which may be missing) and the node's
configuration of Stockade.`,
		Args:          cobra.NoArgs,
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return serve(ctx, over)
		},
	}
	cmd.Flags().StringVar(&over.config, "config", "", "the plugin's configuration (default "+nri.DefaultConfigPath+")")
	cmd.Flags().StringVar(&over.metrics, "metrics", "", "`ADDRESS` of the metrics, in place of the configuration's (metrics)")
	cmd.Flags().StringVar(&over.access, "metrics-access", "", "who may read them, `open|token`, in place of the configuration's (metricsAccess)")
	cmd.AddCommand(&cobra.Command{
		Use: "containerd-config", Args: cobra.NoArgs,
		Short: "Print a drop-in for containerd that makes this plugin a required one",
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(out, nri.ContainerdConfig)
			return err
		},
	}, &cobra.Command{
		Use: "version", Args: cobra.NoArgs, Short: "Print the version",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(out, version)
			return err
		},
	})
	return cmd
}

// overrides are what the command line says; "" says nothing. A DaemonSet says it
// for all nodes, whatever their files say.
type overrides struct{ config, metrics, access string }

// load reads both configurations.
func load(o overrides) (nri.Config, config.Config, error) {
	c := nri.DefaultConfig()
	path := o.config
	name := path
	if name == "" {
		name = nri.DefaultConfigPath
	}
	data, err := config.ReadTrusted(name)
	switch {
	case err == nil:
		if c, err = nri.ParseConfig(name, data); err != nil {
			return c, config.Config{}, err
		}
	case path != "" || !errors.Is(err, fs.ErrNotExist):
		return c, config.Config{}, fmt.Errorf("read the plugin's configuration: %w", err)
	}
	if o.metrics != "" {
		c.Metrics = o.metrics
	}
	if o.access != "" {
		c.MetricsAccess = o.access
	}
	if err := c.Check(); err != nil {
		return c, config.Config{}, err
	}
	node, err := config.Load(c.Node)
	return c, node, err
}

func serve(ctx context.Context, o overrides) error {
	c, node, err := load(o)
	if err != nil {
		return err
	}
	flush, err := logs(node.State)
	if err != nil {
		return err
	}
	defer flush()
	unlock, err := lock(ctx, node.State)
	if err != nil {
		return err
	}
	defer unlock()
	watcher := nri.NewWatcher(roots(node),
		node.SelectionKey, runtime.GOARCH, kernel())
	reloads := newReloader(node.State)
	changed := make(chan struct{}, 1)
	watcher.OnChange = func(names []string) {
		poke(changed)
		reloads.changed(names)
	}
	plugin := nri.New(c, watcher)
	observer := newOutlets(ctx, c, node, plugin, watcher, reloads)
	plugin.OnEvent = func(e nri.Event) { say(e); observer.Event(e) }

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { watcher.Run(ctx) })
	wg.Go(func() { reloads.Run(ctx) })
	wg.Go(func() { keep(ctx, node) })
	wg.Go(func() { follow(ctx, c, node, changed) })
	wg.Go(func() { live(ctx, node.State, plugin, watcher, reloads) })
	wg.Go(func() { observer.Run(ctx) })
	wg.Go(func() { observer.report(ctx) })
	wg.Go(func() { exposeMetrics(ctx, c, observer.Handler()) })
	err = plugin.Run(ctx)
	cancel()
	wg.Wait()
	return err
}

// lock makes this the only plugin of the node: two would set the same annotations, and containerd refuses containers for
// which plugins contradict each other. A plugin that containerd has started may not wait.
func lock(ctx context.Context, state string) (func(), error) {
	dir := filepath.Join(state, "nri")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	said := false
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || nri.PreInstalled() {
			f.Close()
			return nil, fmt.Errorf("another stockade-nri runs on this node (%s: %w)", f.Name(), err)
		}
		if !said {
			logrus.Warnf("stockade-nri: another one runs on this node, waiting for it to end (%s)", f.Name())
			said = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// kernel is the node's release, uname(2)'s.
func kernel() string {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "" // the oldest is assumed then
	}
	return strings.TrimSpace(string(data))
}

// say logs what was decided about a container.
func say(e nri.Event) {
	log := logrus.WithFields(logrus.Fields{
		"namespace": e.Namespace, "pod": e.Pod, "container": e.Container, "id": e.ContainerID, "profile": e.Profile,
	})
	switch e.Action {
	case nri.Refuse:
		log.Warn("stockade-nri: refused: " + e.Text)
	case nri.Filter, nri.Bare:
		log.Warn("stockade-nri: not protected: " + e.Text)
	default:
		log.WithField("digest", e.Digest).Debug("stockade-nri: " + e.Action.String())
	}
}

// live shows that the plugin is alive: to doctor by a file, to systemd by its protocol.
func live(ctx context.Context, state string, p *nri.Plugin, w *nri.Watcher, r *reloader) {
	notify("READY=1")
	tick := time.NewTicker(health.Interval)
	defer tick.Stop()
	soon := time.NewTicker(200 * time.Millisecond)
	defer soon.Stop()
	last := "" // so that what changes is written at once
	for first := true; ; first = false {
		h := healthOf(p, w, r)
		now := fmt.Sprint(h.Connected, h.Problems, len(h.Unprotected), h.Changed, len(h.Reloads))
		if first || now != last || due(tick) {
			last = now
			notify("WATCHDOG=1")
			if err := health.Write(state, h); err != nil {
				logrus.WithError(err).Error("stockade-nri: doctor will not know how the plugin is")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-soon.C:
		}
	}
}

func due(t *time.Ticker) bool {
	select {
	case <-t.C:
		return true
	default:
		return false
	}
}
