package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/features"
)

// pluginName is the plugin's name in containerd's required_plugins.
const pluginName = "stockade"

// examinePlugin checks the NRI plugin, and whether containerd goes on without it. A node can do without the plugin
// unless it is configured not to, or has had it: then something is broken.
func examinePlugin(cfg config.Config, containerd string, now time.Time) []features.Check {
	h, err := health.Read(cfg.State)
	text, ok := health.Verdict(h, err, now)
	required, reqErr := features.PluginRequired(containerd, pluginName)
	plugin := features.Check{
		Name: "NRI plugin", Has: profiles.Yes, Detail: text,
		Needed: cfg.RequirePlugin || required || !errors.Is(err, fs.ErrNotExist),
	}
	if !ok {
		plugin.Has = profiles.No
		plugin.Fix = "for pods: run stockade-nri (stockade install does; systemctl status stockade-nri); without it podSelector refuses, " +
			"and pods under other runtime handlers get nothing"
	}
	if n := len(h.Unprotected); ok && n > 0 {
		u := h.Unprotected[0]
		plugin.Detail += fmt.Sprintf("; running, and held by no shim of ours: %s that a profile is for, the first %s/%s %s (%s)",
			plural(n, "container"), u.Namespace, u.Pod, u.Name, u.Why)
	}
	require := features.Check{Name: "containerd requires the plugin", Has: profiles.Yes, Detail: "required_plugins names " + pluginName}
	switch {
	case reqErr != nil:
		require.Has, require.Detail = profiles.Unknown, reqErr.Error()
	case !required:
		require.Has, require.Detail = profiles.No, "pods under other runtime handlers start while the plugin is away; those under ours are the shim's"
		require.Fix = "to have none start: stockade-nri containerd-config > /etc/containerd/conf.d/stockade-nri.toml, and restart containerd; " +
			"the plugin must then be a service of the host"
	}
	return []features.Check{plugin, require}
}
