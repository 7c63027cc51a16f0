package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// EnvVar names the environment variable that names the configuration file.
const EnvVar = "STOCKADE_CONFIG"

// DefaultPath is read when nothing names another file. It may be missing.
const DefaultPath = "/etc/stockade/config.yaml"

// GuardName is the file name of the guard's binary.
const GuardName = "stockade-guard"

// NoProfile says what happens to a container for which no profile is found.
type NoProfile string

// The values of noProfile.
const (
	// Refuse: the container does not start.
	Refuse NoProfile = "refuse"
	// Monitor: it runs, and everything it does outside an empty profile is reported.
	Monitor NoProfile = "monitor"
	// Run: it runs as under plain runc, unwatched.
	Run NoProfile = "run"
)

// Config is the node configuration. The comments give each key's default.
type Config struct {
	// Profiles is the folder of profiles (default /etc/stockade/profiles.d).
	Profiles string
	// Cluster is the folder in which stockade-nri caches the cluster's Profile
	// resources; it may be missing (default /var/lib/stockade/cluster.d).
	Cluster string
	// LastGood is the folder in which stockade-nri keeps last good copies of the
	// files in Profiles; it may be missing (default /var/lib/stockade/last-good).
	LastGood string
	// Incidents is the folder that keeps incidents (default /var/lib/stockade/incidents).
	Incidents string
	// State is the folder with one file for each protected task, which
	// `stockade ps` reads (default /run/stockade).
	State string
	// NoProfile is what happens to a container without a profile (default refuse).
	NoProfile NoProfile
	// IncidentLimit bounds the folder of incidents (default 10000 files, 256 MiB).
	IncidentLimit Limit
	// Guard is the path of stockade-guard; empty (the default) means beside
	// the running binary. See [Config.GuardPath].
	Guard string
	// RaiseLimits lets the shim raise fs.fanotify.max_user_groups when it is
	// full (default true).
	RaiseLimits bool
	// SelectionKey is the file with the key that signs what stockade-nri says
	// to the shims (default /var/lib/stockade/selection.key).
	SelectionKey string
	// RequirePlugin refuses containers of pods that stockade-nri has not seen
	// (default false: the shim then chooses by itself, from what it knows).
	RequirePlugin bool
}

// Limit bounds a folder. The oldest files go first.
type Limit struct {
	Count int   // files, at least 1
	Bytes int64 // bytes of all files together, at least 64 KiB
}

// Default returns what holds where the file says nothing.
func Default() Config {
	return Config{
		Profiles:      "/etc/stockade/profiles.d",
		Cluster:       "/var/lib/stockade/cluster.d",
		LastGood:      "/var/lib/stockade/last-good",
		Incidents:     "/var/lib/stockade/incidents",
		State:         "/run/stockade",
		NoProfile:     Refuse,
		IncidentLimit: Limit{Count: 10000, Bytes: 256 << 20},
		RaiseLimits:   true,
		SelectionKey:  "/var/lib/stockade/selection.key",
	}
}

// Path returns the file that Load(named) reads and whether somebody named it:
// named if it is not empty, else $STOCKADE_CONFIG, else [DefaultPath].
func Path(named string) (path string, given bool) {
	if named != "" {
		return named, true
	}
	if env := os.Getenv(EnvVar); env != "" {
		return env, true
	}
	return DefaultPath, false
}

// Load reads the file that [Path] gives for path ("" lets the environment and
// the default decide). Errors name file, line and column; several are joined.
func Load(path string) (Config, error) {
	path, given := Path(path)
	data, err := ReadTrusted(path)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return Default(), nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the node configuration: %w", err)
	}
	return Parse(path, data)
}

// GuardPath returns the guard's binary: Guard, or stockade-guard beside the
// running binary (links resolved).
func (c Config) GuardPath() (string, error) {
	if c.Guard != "" {
		return c.Guard, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find stockade-guard beside this binary: %w", err)
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	return filepath.Join(filepath.Dir(self), GuardName), nil
}
