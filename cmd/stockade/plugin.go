package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/nri/health"
)

func (a *app) pluginCmd() *cobra.Command {
	var alive bool
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Say how the NRI plugin of this node is",
		Long: `plugin reads what stockade-nri wrote about itself last. It is what the DaemonSet's
probes run: ready is a plugin that is connected to containerd, alive is one that
has written at all within the last seconds.
` + exitHelp("the plugin is not connected, or does not answer"),
		Example: `  stockade plugin
  stockade plugin --alive`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.plugin(alive) },
	}
	cmd.Flags().BoolVar(&alive, "alive", false, "do not ask whether it is connected")
	return cmd
}

func (a *app) plugin(alive bool) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	h, err := health.Read(cfg.State)
	text, _ := health.Verdict(h, err, a.now())
	fresh := err == nil && a.now().Sub(h.Time) <= health.Stale
	if !fresh || !alive && !h.Connected {
		return &exit{code: exitNo, err: errors.New(text)}
	}
	if a.json {
		return a.printJSON(h)
	}
	fmt.Fprintln(a.out, safe(text))
	return nil
}
