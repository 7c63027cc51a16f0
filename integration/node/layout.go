package node

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
)

//go:embed containerd.toml
var containerdTOML string

// The marker in the environment of every process that a node starts, by which Clean knows them again.
const marker = "STOCKADE_NODE="

// sun_path holds 107 bytes and a shim's socket is named by 64 hexadecimal digits, so containerd takes no socket
// directory longer than 42 (containerd's core/runtime/v2/socket_linux.go).
const maxRunDir = 42 - len("/s")

// layout knows the files of a node.
type layout struct {
	dir string // the node's folder
	run string // sockets and containerd's state: dir itself, or a folder of /run when dir is too long for sockets
}

func layoutOf(dir string) layout {
	l := layout{dir: filepath.Clean(dir), run: filepath.Clean(dir)}
	if len(l.run) > maxRunDir {
		l.run = "/run/" + l.uniqueName()
	}
	return l
}

// uniqueName differs between any two folders.
func (l layout) uniqueName() string {
	return fmt.Sprintf("stockade-%x", sha256.Sum256([]byte(l.dir)))[:17]
}

func (l layout) socket() string           { return filepath.Join(l.run, "containerd.sock") }
func (l layout) state() string            { return filepath.Join(l.run, "state") }
func (l layout) nriSocket() string        { return filepath.Join(l.run, "nri.sock") }
func (l layout) nriPlugins() string       { return filepath.Join(l.dir, "nri/plugins") }
func (l layout) stockadeState() string    { return filepath.Join(l.run, "stockade") }
func (l layout) fifos() string            { return filepath.Join(l.run, "fifo") }
func (l layout) runcRoot() string         { return filepath.Join(l.run, "runc") }
func (l layout) bundles() string          { return filepath.Join(l.state(), "io.containerd.runtime.v2.task") }
func (l layout) containerdConfig() string { return filepath.Join(l.dir, "containerd.toml") }
func (l layout) stockadeConfig() string   { return filepath.Join(l.dir, "config.yaml") }
func (l layout) profiles() string         { return filepath.Join(l.dir, "profiles.d") }
func (l layout) cluster() string          { return filepath.Join(l.dir, "cluster.d") }
func (l layout) lastGood() string         { return filepath.Join(l.dir, "last-good") }
func (l layout) incidents() string        { return filepath.Join(l.dir, "incidents") }
func (l layout) log() string              { return filepath.Join(l.dir, "containerd.log") }
func (l layout) record() string           { return filepath.Join(l.dir, "node.json") }
func (l layout) selectionKey() string     { return filepath.Join(l.dir, "selection.key") }
func (l layout) dropIns() string          { return filepath.Join(l.dir, "conf.d") }
func (l layout) tmp() string              { return filepath.Join(l.dir, "tmp") }
func (l layout) cni() string              { return filepath.Join(l.dir, "cni") }

func (l layout) env(path string) []string {
	return []string{
		"PATH=" + path,
		"TMPDIR=" + l.tmp(),
		"STOCKADE_CONFIG=" + l.stockadeConfig(),
		marker + l.dir,
	}
}

// write makes the folders and the configuration of containerd and of Stockade.
func (l layout) write(c Config) error {
	dirs := []string{l.dir, l.run, l.profiles(), l.incidents(), l.stockadeState(), l.fifos(), l.runcRoot(), l.tmp()}
	for _, d := range append(dirs, l.cni(), l.dropIns(), l.nriPlugins(), filepath.Join(l.dir, "nri/conf.d")) {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if l.run != l.dir {
		if err := os.Symlink(l.socket(), filepath.Join(l.dir, "containerd.sock")); err != nil {
			return err
		}
	}
	var toml strings.Builder
	t := template.Must(template.New("containerd.toml").Parse(containerdTOML))
	if err := t.Execute(&toml, map[string]any{"Dir": l.dir, "Run": l.run, "Runc": l.runcRoot(), "NRI": c.NRI, "Older": c.Containerd != ""}); err != nil {
		return err
	}
	if err := os.WriteFile(l.containerdConfig(), []byte(toml.String()), 0o600); err != nil {
		return err
	}
	yaml := fmt.Sprintf("profiles: %s\ncluster: %s\nlastGood: %s\nselectionKey: %s\nincidents: %s\nstate: %s\n%s",
		l.profiles(), l.cluster(), l.lastGood(), l.selectionKey(), l.incidents(), l.stockadeState(), c.Stockade)
	return os.WriteFile(l.stockadeConfig(), []byte(yaml), 0o600)
}

// lockDir makes dir and takes it: the lock holds until the file is closed or the process ends.
func lockDir(dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by the holder, who is just ending
		}
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w (%w)", dir, ErrRunning, err)
		}
		if sameFile(f, dir) {
			return f, nil
		}
		f.Close()
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
