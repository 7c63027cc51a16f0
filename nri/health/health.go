// Package health is what stockade-nri says of itself, and the file in which `stockade doctor` reads it.
//
// The plugin writes the file every few seconds: one that is old means that the plugin is stopped or hangs, whatever it
// says. Whoever may write the folder, root, may lie; nothing is decided by it.
package health

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/stockade-dev/stockade/shim/record"
)

// Interval is how often the file is written. A file older than Stale says that
// the plugin does not answer.
const (
	Interval = 5 * time.Second
	Stale    = 4 * Interval
)

// Health is what the plugin knows of itself and of the node.
type Health struct {
	Time        time.Time         `json:"time"` // when it was written
	PID         int               `json:"pid"`
	Version     string            `json:"version,omitempty"`
	Connected   bool              `json:"connected"`          // to containerd's NRI
	Since       time.Time         `json:"since"`              // of Connected
	Runtime     string            `json:"runtime,omitempty"`  // containerd and its version
	Problems    []string          `json:"problems,omitempty"` // none: all is well
	Judgements  map[string]uint64 `json:"judgements"`         // by action
	Unprotected []Container       `json:"unprotected"`        // running, a profile is for it, and no shim of ours holds it
	Profiles    int               `json:"profiles"`           // in the set that is in use
	Changed     time.Time         `json:"changed,omitzero"`   // of that set
	Reloads     map[string]string `json:"reloads,omitempty"`  // why running containers keep an older profile, by id
	Extra       map[string]string `json:"extra,omitempty"`    // of whoever else runs in the plugin
}

// Container is one that is not protected, and why.
type Container struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Name      string `json:"name"`
	Profile   string `json:"profile,omitempty"`
	Why       string `json:"why"`
}

func path(state string) string { return filepath.Join(state, "nri", "health.json") }

// Write replaces the file in the node's state folder, which only root may read.
func Write(state string, h Health) error {
	file := path(state)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return record.Write(file, h)
}

// Read gives what the plugin said last. errors.Is(err, fs.ErrNotExist) if it has
// never run here.
func Read(state string) (Health, error) {
	var h Health
	file := path(state)
	if err := record.Read(file, &h); errors.Is(err, fs.ErrNotExist) {
		return h, err
	} else if err != nil {
		return h, fmt.Errorf("%s: %w", file, err)
	}
	return h, nil
}

// Verdict says in one line how the plugin is, for somebody who looks at now. ok
// is false if something is wrong. err is that of Read.
func Verdict(h Health, err error, now time.Time) (text string, ok bool) {
	switch age := now.Sub(h.Time).Round(time.Second); {
	case errors.Is(err, fs.ErrNotExist):
		return "stockade-nri has not run on this node since it booted", false
	case err != nil:
		return err.Error(), false
	case age > Stale:
		return fmt.Sprintf("stockade-nri (pid %d) has not given a sign of life for %s", h.PID, age), false
	case !h.Connected:
		return "stockade-nri is not connected to containerd", false
	case len(h.Problems) > 0:
		return "stockade-nri has a problem: " + h.Problems[0], false
	}
	return fmt.Sprintf("stockade-nri (pid %d) is connected to %s and chooses from %d profiles", h.PID, h.Runtime, h.Profiles), true
}
