package install

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
)

// Kind is what a file is to us; it decides what happens to one that others wrote.
type Kind string

// The kinds.
const (
	Program    Kind = "program"    // ours by name: replaced
	Config     Kind = "config"     // the admin's once it is there
	Containerd Kind = "containerd" // what containerd reads when it starts
	Link       Kind = "link"       // a symbolic link
)

// Manifest is what is known of an installation: install.json. It is written before anything is done.
type Manifest struct {
	Format  int    `json:"format"`
	Version string `json:"version"` // Stockade's
	// Restart: containerd has not yet been seen to work with what is installed.
	Restart bool `json:"restart"`
	// Reload: systemd has not yet been told of the unit as it is, nor has the plugin been started by it.
	Reload  bool    `json:"reload,omitempty"`
	Options Kept    `json:"options"`
	Files   []Entry `json:"files"`
	// Dirs were made by install, parents first.
	Dirs   []string `json:"dirs"`
	Sysctl *Sysctl  `json:"sysctl,omitempty"`
}

// Kept are the options that uninstall must know.
type Kept struct {
	BinDir           string `json:"binDir"`
	ContainerdConfig string `json:"containerdConfig"`
	Address          string `json:"address,omitempty"`
	Unit             string `json:"unit"`
	NRI              string `json:"nri"`
	Import           string `json:"import,omitempty"` // the pattern that was added to containerd's imports
}

// Entry is a file that install wrote or is about to write.
type Entry struct {
	Path string `json:"path"`
	Kind Kind   `json:"kind"`
	// Digest is of what is there, Next of what is being written; "" is no file.
	Digest string `json:"digest"`
	Next   string `json:"next,omitempty"`
	// Original is what was there before the first install, Previous before the
	// last one: digests of files in the backup folder. Only for Kind Containerd.
	Original string `json:"original,omitempty"`
	Previous string `json:"previous,omitempty"`
	// Unverified: containerd has not been seen to work with it, and Previous is what to go back to.
	Unverified bool `json:"unverified,omitempty"`
	// Shared: somebody else has changed it between two installs, so that Original is history.
	Shared bool `json:"shared,omitempty"`
}

// Sysctl is a kernel setting that install raised.
type Sysctl struct {
	Before int `json:"before"`
	After  int `json:"after"`
}

const manifestFormat = 1

func parseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", manifestPath, err)
	}
	if m.Format > manifestFormat {
		return m, fmt.Errorf("%s was written by a newer stockade (%s): use that one", manifestPath, m.Version)
	}
	return m, nil
}

func (m *Manifest) bytes() []byte {
	m.Format = manifestFormat
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic(err) // strings, numbers and lists of them cannot fail
	}
	return append(data, '\n')
}

// clone is a copy that shares nothing.
func (m Manifest) clone() Manifest {
	m.Files, m.Dirs = slices.Clone(m.Files), slices.Clone(m.Dirs)
	if m.Sysctl != nil {
		s := *m.Sysctl
		m.Sysctl = &s
	}
	return m
}

// entry finds a path's, or nil.
func (m *Manifest) entry(path string) *Entry {
	for i := range m.Files {
		if m.Files[i].Path == path {
			return &m.Files[i]
		}
	}
	return nil
}

// restate makes the manifest say of a path what it said before; nil is nothing.
func (m *Manifest) restate(path string, old *Entry) {
	e := m.entry(path)
	switch {
	case old == nil:
		m.Files = slices.DeleteFunc(m.Files, func(e Entry) bool { return e.Path == path })
	case e == nil:
		m.Files = append(m.Files, *old)
	default:
		*e = *old
	}
}

// wrote reports whether a file of this digest is one that install put there.
func (e *Entry) wrote(digest string) bool {
	return e != nil && digest != "" && (digest == e.Digest || digest == e.Next)
}

// File is one on the host, as it was read.
type File struct {
	Exists bool
	Dir    bool
	Mode   fs.FileMode // permissions
	Data   []byte      // not of programs
	Link   string      // target of a symbolic link, for Kind Link only
	Digest string      // "" for no file, and for a folder
}

// digest names a content.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
