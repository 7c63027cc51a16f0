package features

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

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
}

// containerdConfig looks for our runtime in containerd's configuration. A file
// that does not exist is no fault: ctr and nerdctl name the runtime themselves.
func containerdConfig(path string) (containerd, Check) {
	c := Check{
		Name: "containerd's runtime handler", Has: profiles.No,
		Fix: "for Kubernetes: a runtime handler with runtime_type = \"" + shimType + "\" in " + path + " and a RuntimeClass of its name",
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.Detail = path + " does not exist; `ctr run --runtime " + shimType + "` needs none"
		return containerd{}, c
	}
	if err != nil {
		c.Has, c.Detail = profiles.Unknown, err.Error()
		return containerd{}, c
	}
	defer file.Close()
	conf := scanRuntime(io.LimitReader(file, 1<<20))
	if conf.Handler == "" {
		c.Detail = path + " has no runtime of type " + shimType + " (files it imports are not read)"
		return conf, c
	}
	c.Has, c.Fix, c.Detail = profiles.Yes, "", fmt.Sprintf("%q in %s", conf.Handler, path)
	return conf, c
}

var (
	tableLine = regexp.MustCompile(`^\s*\[\s*(.*?)\s*\]\s*(?:#.*)?$`)
	keyLine   = regexp.MustCompile(`^\s*(\w+)\s*=\s*["']([^"']*)["']`)
	handler   = regexp.MustCompile(`\.runtimes\.["']?([^."']+)["']?(\.options)?$`)
)

// scanRuntime finds the runtime whose runtime_type is ours. It reads line by
// line what containerd's own configuration looks like; TOML that puts tables
// inline is not understood, and then simply not found.
func scanRuntime(r io.Reader) containerd {
	var found containerd
	binaries := map[string]string{}
	table := ""
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := lines.Text()
		if m := tableLine.FindStringSubmatch(line); m != nil {
			table = m[1]
			continue
		}
		m := keyLine.FindStringSubmatch(line)
		h := handler.FindStringSubmatch(table)
		if m == nil || h == nil {
			continue
		}
		switch {
		case m[1] == "runtime_type" && m[2] == shimType && h[2] == "":
			found.Handler = h[1]
		case m[1] == "BinaryName":
			binaries[h[1]] = m[2]
		}
	}
	found.BinaryName = binaries[found.Handler]
	return found
}
