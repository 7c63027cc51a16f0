package features

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/stockade-dev/stockade/profiles"
)

// runcTime bounds each run of runc.
const runcTime = 2 * time.Second

// shimType is the runtime type under which containerd starts our shim.
const shimType = "io.containerd.stockade.v1"

// Paths of what [Runtime] looks at.
type Paths struct {
	Runc       string // name or path; "" is runc in PATH, or what containerd's configuration names
	Shim       string // containerd-shim-stockade-v1, name or path
	Guard      string // stockade-guard
	Containerd string // its configuration file
	Beside     string // folder to look in for what is not in PATH; "" is none
}

// Runtime checks the programs that a protected container needs, and whether
// containerd knows our runtime. It runs runc.
func Runtime(ctx context.Context, p Paths) []Check {
	conf, text := containerdConfig(p.Containerd)
	if p.Runc == "" {
		p.Runc = "runc"
		if conf.BinaryName != "" {
			p.Runc = conf.BinaryName
		}
	}
	return []Check{
		runc(ctx, p.find(p.Runc)),
		program("shim", p.find(p.Shim), "install containerd-shim-stockade-v1 into containerd's PATH (or beside containerd)"),
		program("guard", p.Guard, "install stockade-guard beside the shim, or name it in the node configuration (guard)"),
		text,
	}
}

// find prefers PATH: that is where containerd looks first.
func (p Paths) find(name string) string {
	if p.Beside == "" || strings.ContainsRune(name, '/') {
		return name
	}
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	if path := filepath.Join(p.Beside, name); isProgram(path) {
		return path
	}
	return name
}

func isProgram(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
}

func program(name, path, fix string) Check {
	c := Check{Name: name, Has: profiles.Yes, Needed: true}
	found, err := exec.LookPath(path)
	if err != nil {
		c.Has, c.Detail, c.Fix = profiles.No, err.Error(), fix
		return c
	}
	c.Detail = found
	return c
}

// runc asks runc for its version and its libseccomp: older ones know no
// notifications, and an unknown syscall name is one they ignore in silence.
func runc(ctx context.Context, path string) Check {
	c := program("runc", path, "install runc 1.1 or newer, built with libseccomp 2.5 or newer")
	if c.Has != profiles.Yes {
		return c
	}
	fix := "use runc 1.1 or newer, built with libseccomp 2.5 or newer"
	version, lib, err := runcVersion(ctx, c.Detail)
	if err != nil {
		c.Has, c.Fix = profiles.Unknown, fix
		c.Detail += ": " + err.Error()
		return c
	}
	c.Detail = fmt.Sprintf("%s, version %s, libseccomp %s", c.Detail, orUnknown(version), orUnknown(lib))
	switch notify, err := runcNotifies(ctx, path); {
	case err == nil && !notify:
		c.Has, c.Fix = profiles.No, fix
		c.Detail += ", without seccomp notifications"
	case lib == "":
		c.Has, c.Fix = profiles.Unknown, fix
	case !atLeast(lib, 2, 5):
		c.Has, c.Fix = profiles.No, fix
	}
	return c
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func runcVersion(ctx context.Context, path string) (version, libseccomp string, err error) {
	out, err := output(ctx, path, "--version")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "runc version "); ok {
			version = v
		} else if v, ok := strings.CutPrefix(line, "libseccomp: "); ok {
			libseccomp = v
		}
	}
	if version == "" {
		return "", "", fmt.Errorf("--version says %.60q", out)
	}
	return version, libseccomp, nil
}

// runcNotifies reads `runc features` (runc 1.1): the runtime specification's
// features.md.
func runcNotifies(ctx context.Context, path string) (bool, error) {
	out, err := output(ctx, path, "features")
	if err != nil {
		return false, err
	}
	var f struct {
		Linux struct {
			Seccomp struct {
				Enabled *bool    `json:"enabled"`
				Actions []string `json:"actions"`
			} `json:"seccomp"`
		} `json:"linux"`
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		return false, err
	}
	s := f.Linux.Seccomp
	if s.Enabled == nil {
		return false, errors.New("features does not speak of seccomp")
	}
	return *s.Enabled && slices.Contains(s.Actions, "SCMP_ACT_NOTIFY"), nil
}

func output(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runcTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = runcTime / 4
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s %s: no answer within %s", path, strings.Join(args, " "), runcTime)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %.200s", path, strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// atLeast compares the first two numbers of a version; what it cannot read is
// not at least.
func atLeast(version string, major, minor int) bool {
	a, rest, _ := strings.Cut(version, ".")
	b, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return err1 == nil && err2 == nil && (x > major || x == major && y >= minor)
}

// containerd is what its configuration says of our runtime.
type containerd struct {
	Handler    string // name of the runtime handler
	BinaryName string // the runc it is to use
	file       string // where it stands
}

// containerdConfig looks for our runtime in containerd's configuration. A file
// that does not exist is no fault: ctr and nerdctl name the runtime themselves.
func containerdConfig(path string) (containerd, Check) {
	c := Check{
		Name: "containerd's runtime handler", Has: profiles.No,
		Fix: "for Kubernetes: a runtime handler with runtime_type = \"" + shimType + "\" in " + path + " and a RuntimeClass of its name",
	}
	conf, err := scanContainerd(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.Detail = path + " does not exist; `ctr run --runtime " + shimType + "` needs none"
		return containerd{}, c
	}
	if err != nil {
		c.Has, c.Detail = profiles.Unknown, err.Error()
		return containerd{}, c
	}
	if conf.Handler == "" {
		c.Detail = "neither " + path + " nor what it imports has a runtime of type " + shimType
		return conf, c
	}
	c.Has, c.Fix, c.Detail = profiles.Yes, "", fmt.Sprintf("%q in %s", conf.Handler, conf.file)
	return conf, c
}

// scanContainerd finds the runtime whose runtime_type is ours, in a file or, as
// containerd does, in what that file imports. Imports of imports are not read.
func scanContainerd(path string) (containerd, error) {
	found, imports, err := readContainerd(path)
	if err != nil || found.Handler != "" {
		return found, err
	}
	for _, pattern := range imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(path), pattern)
		}
		files, err := filepath.Glob(pattern)
		if err != nil {
			return containerd{}, fmt.Errorf("%s: imports %q: %w", path, pattern, err)
		}
		for _, file := range files {
			if found, _, err := readContainerd(file); err != nil || found.Handler != "" {
				return found, err
			}
		}
	}
	return containerd{}, nil
}

// readContainerd reads one file. The table with the runtimes is that of the CRI
// plugin, which has another name in configurations of version 2.
func readContainerd(path string) (found containerd, imports []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return found, nil, err
	}
	var conf struct {
		Imports []string
		Plugins map[string]struct {
			Containerd struct {
				Runtimes map[string]struct {
					Type    string `toml:"runtime_type"`
					Options struct{ BinaryName string }
				}
			}
		}
	}
	if err := toml.Unmarshal(data, &conf); err != nil {
		return found, nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, plugin := range conf.Plugins {
		for name, r := range plugin.Containerd.Runtimes {
			if r.Type == shimType {
				return containerd{Handler: name, BinaryName: r.Options.BinaryName, file: path}, nil, nil
			}
		}
	}
	return found, conf.Imports, nil
}
