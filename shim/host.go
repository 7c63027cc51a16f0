package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/config"
)

// What of the host a pod asks for is not its profile's matter, and some of it reaches Stockade itself: root in a
// container needs no capability to send SIGKILL to root's processes (kill(2)), so in the host's pid namespace it ends
// shim, guard and containerd; and a volume over the folder of profiles is written through whatever path is declared.

// apart refuses a container that reaches Stockade, unless its profile accepts that. The specification is the one that
// the plan has narrowed: what it may not write is read-only by then.
func (f *fence) apart() error {
	f.reach = reach(f.spec, ownFolders(f.engine.cfg), real(f.engine.cfg.State))
	switch {
	case f.reach == "":
	case f.plan.Mode == profiles.ModeEnforce && !f.plan.Accepts(profiles.UnenforcedHost):
		return fmt.Errorf("%w: %s; profile %s would have to accept that (allowUnenforced: [%s])", errRefused, f.reach, f.plan.Name, profiles.UnenforcedHost)
	default:
		logrus.WithField("id", f.task.id).Warn("stockade: nothing holds this container if it turns against Stockade itself: " + f.reach)
	}
	return nil
}

// reach says how the container's processes can reach Stockade, "" if they cannot. In the folder state are sockets, and to
// those a read-only mount is no obstacle (connect(2)).
func reach(spec *specs.Spec, own []string, state string) string {
	if hostPIDs(spec) {
		return "it shares the host's pid namespace, from which root can kill the shim and the guard"
	}
	for _, m := range spec.Mounts {
		if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
			continue
		}
		source, ro := real(m.Source), readOnly(m.Options)
		for _, name := range own {
			if (name == state || !ro) && (under(name, source) || under(source, name)) {
				return fmt.Sprintf("%q is the host's %q, where Stockade's own %s is", m.Destination, m.Source, name)
			}
		}
	}
	return ""
}

// hostPIDs tells that the container has no pid namespace of its own, nor its pod's.
func hostPIDs(spec *specs.Spec) bool {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path != "" && sameFile(ns.Path, "/proc/self/ns/pid")
		}
	}
	return true
}

func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	// What cannot be looked at might be.
	return unix.Stat(a, &x) != nil || unix.Stat(b, &y) != nil || x.Dev == y.Dev && x.Ino == y.Ino
}

// readOnly: the last of the options counts, as in mount(8). A bind that is not recursive brings nothing along.
func readOnly(options []string) bool {
	is := false
	for _, o := range options {
		switch o {
		case "ro", "rro":
			is = true
		case "rw", "rrw":
			is = false
		}
	}
	return is && (slices.Contains(options, "rro") || !slices.Contains(options, "rbind"))
}

// ownFolders are the folders and files that Stockade believes, links resolved.
func ownFolders(c config.Config) []string {
	all := []string{config.DefaultPath, os.Getenv(config.EnvVar), c.SelectionKey, c.Profiles, c.Cluster, c.LastGood, c.State, c.Incidents}
	all = slices.DeleteFunc(all, func(name string) bool { return name == "" })
	for i := range all {
		all[i] = real(all[i])
	}
	return all
}

// real is a path without links; of what does not exist, as far as it does.
func real(name string) string {
	rest, at := "", filepath.Clean(name)
	for {
		if full, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(full, rest)
		}
		if at == "/" || at == "." {
			return filepath.Join(at, rest)
		}
		rest, at = filepath.Join(filepath.Base(at), rest), filepath.Dir(at)
	}
}

// under says whether name is dir or below it.
func under(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}
