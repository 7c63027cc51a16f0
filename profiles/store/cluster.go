package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/profiles"
)

// ClusterFolder writes the cluster folder of a node: one file for each Profile
// resource, NAME.yaml, in canonical form below comments that say where it comes
// from. A resource that is bad has NAME.rejected beside the file of its last
// good version, or alone if there never was one.
//
// The folder outlives its writer and the API server: it is what containers are
// started from. Only one may write it.
type ClusterFolder struct{ root *os.Root }

// OpenClusterFolder makes the folder, for root alone.
func OpenClusterFolder(dir string) (*ClusterFolder, error) {
	root, err := makeDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cluster folder: %w", err)
	}
	return &ClusterFolder{root}, nil
}

// Close ends writing; the files stay.
func (c *ClusterFolder) Close() error { return c.root.Close() }

// Get returns the last good version of a resource, nil if there is none.
func (c *ClusterFolder) Get(name string) *profiles.Profile {
	if fileName(name) != nil {
		return nil
	}
	parsed, err := readFile(c.root, c.root.Name(), name+extension).parse()
	if err != nil || len(parsed) != 1 {
		return nil
	}
	return parsed[0]
}

// About returns the first line of comment of a resource's last good version, ""
// if there is none.
func (c *ClusterFolder) About(name string) string {
	if fileName(name) != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(readFile(c.root, c.root.Name(), name+extension).data), "\n")
	about, _ := strings.CutPrefix(first, "# ")
	return about
}

// Put makes p the resource's good version. about are lines of comment. It says
// whether anything changed.
func (c *ClusterFolder) Put(p *profiles.Profile, about ...string) (changed bool, err error) {
	if err := fileName(p.Name); err != nil {
		return false, err
	}
	var b bytes.Buffer
	for _, line := range about {
		fmt.Fprintf(&b, "# %s\n", strings.Map(printable, line))
	}
	b.Write(p.YAML())
	old := readFile(c.root, c.root.Name(), p.Name+extension)
	if changed = old.err != nil || !bytes.Equal(old.data, b.Bytes()); changed {
		err = writeFile(c.root, p.Name+extension, b.Bytes())
	}
	if err == nil && c.has(p.Name+markExtension) {
		changed, err = true, removeFile(c.root, p.Name+markExtension)
	}
	return changed, err
}

// printable keeps a comment a comment: a line break, of which YAML knows
// several, would begin a rule.
func printable(r rune) rune {
	if r < 0x20 || r > 0x7e {
		return '?'
	}
	return r
}

// Reject says that the resource is bad now, and why. Its last good version, if
// there is one, stays. It says whether anything changed, and whether a good
// version stays.
func (c *ClusterFolder) Reject(name string, why error, now time.Time) (changed, good bool, err error) {
	if err := fileName(name); err != nil {
		return false, false, err
	}
	good = c.has(name + extension)
	var old mark
	f := readFile(c.root, c.root.Name(), name+markExtension)
	if f.err == nil && json.Unmarshal(f.data, &old) == nil && old.Error == why.Error() {
		return false, good, nil
	}
	data, err := json.Marshal(mark{Error: why.Error(), Since: now.UTC().Truncate(time.Second)})
	if err != nil {
		return false, good, err
	}
	return true, good, writeFile(c.root, name+markExtension, data)
}

// Remove takes away all of a resource, and says whether there was anything.
func (c *ClusterFolder) Remove(name string) (changed bool, err error) {
	if err := fileName(name); err != nil {
		return false, err
	}
	for _, file := range []string{name + extension, name + markExtension} {
		if c.has(file) {
			changed, err = true, errors.Join(err, removeFile(c.root, file))
		}
	}
	return changed, err
}

// Names lists the resources that the folder knows, good or bad.
func (c *ClusterFolder) Names() ([]string, error) {
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, e := range entries {
		for _, ext := range []string{extension, markExtension} {
			if name, ok := strings.CutSuffix(e.Name(), ext); ok && fileName(name) == nil {
				names[name] = true
			}
		}
	}
	return sortedKeys(names), nil
}

func (c *ClusterFolder) has(file string) bool {
	_, err := c.root.Lstat(file)
	return err == nil
}
