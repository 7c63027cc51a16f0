package install

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"
)

// How the NRI plugin is run.
const (
	NRIAuto         = "auto"         // unit where systemd runs, else preinstalled; none where there is no stockade-nri to install
	NRIUnit         = "unit"         // a systemd unit, which connects to containerd's NRI socket and is restarted when it dies
	NRIPreinstalled = "preinstalled" // containerd starts it, once for each of its own starts
	NRINone         = "none"         // somebody else runs it: the DaemonSet
)

// Options say what to install, and where. Paths but Root, From and Address are those of the host.
type Options struct {
	Root             string // where the host's root is mounted; "/"
	From             string // folder of the programs to install
	BinDir           string // where they go
	ContainerdConfig string
	Address          string // containerd's socket as this process sees it; "" is what its configuration says, below Root
	Unit             string // systemd's name of containerd
	RestartCommand   string // a shell's line in place of systemctl
	NoRestart        bool   // leave it to somebody else
	NRI              string
	RequirePlugin    bool // containerd refuses containers while the plugin is not connected
	Overwrite        bool // replace configuration that others wrote or changed too
	Wait             time.Duration
	Version          string // of what is installed, for the manifest
}

// Default returns what holds where nothing is said.
func Default() Options {
	return Options{
		Root: "/", BinDir: "/usr/local/bin", ContainerdConfig: "/etc/containerd/config.toml",
		Unit: "containerd.service", NRI: NRIAuto, Wait: time.Minute,
	}
}

// Fixed places on the host.
const (
	etcDir       = "/etc/stockade"
	stateDir     = "/var/lib/stockade"
	manifestPath = stateDir + "/install.json"
	backupDir    = stateDir + "/backup"
	runDir       = "/run/stockade"
	sysctlFile   = "/etc/sysctl.d/90-stockade.conf"
	sysctlValue  = "/proc/sys/fs/fanotify/max_user_groups"
	unitFile     = "/etc/systemd/system/stockade-nri.service"
	unitLink     = "/etc/systemd/system/multi-user.target.wants/stockade-nri.service"
	systemdRuns  = "/run/systemd/system" // sd_booted(3)
	nriPluginDir = "/opt/nri/plugins"
	nriName      = "10-stockade"
)

// The programs; the plugin is installed where there is one.
const (
	shimProgram   = "containerd-shim-stockade-v1"
	guardProgram  = "stockade-guard"
	cliProgram    = "stockade"
	pluginProgram = "stockade-nri"
)

// containerdPath is where containerd, as distributions' units start it, looks for a shim.
var containerdPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// Check says what is wrong with the options themselves.
func (o Options) Check() error {
	var errs []error
	for name, p := range map[string]string{"--root": o.Root, "--bin-dir": o.BinDir, "--containerd-config": o.ContainerdConfig} {
		if !path.IsAbs(p) {
			errs = append(errs, fmt.Errorf("%s %q is not an absolute path", name, p))
		}
	}
	if !slices.Contains([]string{NRIAuto, NRIUnit, NRIPreinstalled, NRINone}, o.NRI) {
		errs = append(errs, fmt.Errorf("--nri %q: want auto, unit, preinstalled or none", o.NRI))
	}
	if o.RequirePlugin && o.NRI == NRINone {
		errs = append(errs, errors.New("--require-plugin with --nri none: where a pod runs the plugin, that pod could not start without it; "+
			"`requirePlugin: true` in "+etcDir+"/config.yaml asks it of pods of the runtime class only"))
	}
	return errors.Join(errs...)
}

// dropIn is where our file goes when no import leads elsewhere.
func (o Options) dropIn() string {
	return path.Join(path.Dir(o.ContainerdConfig), "conf.d", dropInName)
}

// importPattern matches dropIn. A pattern, because containerd does not start when an import without one is missing; and
// relative, because that is what it means to containerd wherever the host's root is mounted.
const importPattern = "conf.d/*.toml"
