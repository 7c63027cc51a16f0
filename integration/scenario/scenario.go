// Package scenario runs end-to-end cases that are text files: a container under a profile, what it does, and what must
// have come of it. A new case is a new file, not new code.
//
// A case says above all which side effect must not happen: a container that died proves little. And each case is run a
// second time under plain runc, where that same side effect must happen (the control): a case whose attack never works
// would pass for ever.
//
//	title: a program that nobody declared does not run
//	image: probe                     # of integration/image's catalogue
//	profile:                         # the spec of the container's profile; its name is the file's
//	  allow: {exec: [/bin/probe], read: ["@image"]}
//	args: [/bin/probe, exec, /bin/hello]
//	expect:
//	  dead: true
//	  lacks: [hello ran]
//	  incidents: [{access: exec, object: /bin/hello}]
//
// A case with since is about something that older kernels than that do not have at all: nothing is to be stopped there.
//
// A case with not-yet is one that Stockade does not stop in this build. Its expectations are those of the day when it
// will be; until then the test passes when the side effect does happen, and says which mechanism is missing. When it
// begins to be stopped the test fails and asks for not-yet to be removed. Where not-yet is the name of one of doctor's
// checks, as AppArmor is, the case must be stopped on nodes for which the answer to that is yes, and is still a hole on
// others.
package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
)

// Scenario is one case.
type Scenario struct {
	Name        string            `yaml:"-"` // the file's, without its ending
	Title       string            `yaml:"title"`
	Image       string            `yaml:"image"`
	Profile     any               `yaml:"profile"` // none: the container has no annotation
	Annotations map[string]string `yaml:"annotations"`
	Args        []string          `yaml:"args"` // default: the image's
	Env         []string          `yaml:"env"`
	User        string            `yaml:"user"`
	Cwd         string            `yaml:"cwd"`
	TTY         bool              `yaml:"tty"`
	Capability  []string          `yaml:"capabilities"` // added to containerd's default ones
	Mounts      []Mount           `yaml:"mounts"`
	Files       []File            `yaml:"files"` // there before the container starts, and not the image's
	Exec        []Session         `yaml:"exec"`
	End         End               `yaml:"end"`
	Expect      Expect            `yaml:"expect"`
	Armored     *Expect           `yaml:"expect-apparmor"` // on nodes with AppArmor, if that differs
	Since       string            `yaml:"since"`           // the first Linux that has what the case does, as in "6.10"
	NotYet      string            `yaml:"not-yet"`         // the mechanism that will stop it
	Control     Control           `yaml:"control"`
}

// Mount is a file system of the container beside its root.
type Mount struct {
	Path    string   `yaml:"path"`
	Type    string   `yaml:"type"`    // volume: a new host directory; tmpfs
	Options []string `yaml:"options"` // default: rw
}

// File is one that lies in a volume or in the container's writable layer.
type File struct {
	Path string `yaml:"path"`
	Text string `yaml:"text"`
	From string `yaml:"from"` // a copy of this file of the image, executable
	Mode int    `yaml:"mode"` // default: 0644, and 0755 with from
}

// Session is a further process, started as `kubectl exec` does.
type Session struct {
	After  string   `yaml:"after"` // what the container has written by then
	Args   []string `yaml:"args"`
	Env    []string `yaml:"env"`
	TTY    bool     `yaml:"tty"`
	Expect Outcome  `yaml:"expect"`
}

// End says what happens when all sessions have ended.
type End struct {
	After    string `yaml:"after"`    // what the container has written by then
	Incident bool   `yaml:"incident"` // and there has been an incident
	Signal   int    `yaml:"signal"`   // sent to its first process; 0: none, it ends by itself
}

// Outcome is what became of a process.
type Outcome struct {
	Refused  string   `yaml:"refused"` // it was not started, and the error has this text
	Exit     *int     `yaml:"exit"`
	Contains []string `yaml:"contains"` // its output
	Lacks    []string `yaml:"lacks"`
}

// Expect is what became of the container.
type Expect struct {
	Outcome   `yaml:",inline"`
	Dead      bool              `yaml:"dead"`      // killed: exit code 137
	Absent    []string          `yaml:"absent"`    // paths that do not exist afterwards
	Unchanged []string          `yaml:"unchanged"` // files that are as they were
	Content   map[string]string `yaml:"content"`   // of files, afterwards
	Incidents []Incident        `yaml:"incidents"` // all that there are
}

// Incident matches kept incidents. Empty fields match anything; Rule and Reason match a part.
type Incident struct {
	Access  string `yaml:"access"`
	Object  string `yaml:"object"`
	Action  string `yaml:"action"`
	Rule    string `yaml:"rule"`
	Reason  string `yaml:"reason"`
	Session *bool  `yaml:"session"`
	Count   *int   `yaml:"count"` // default: 1; 0: one or more
}

// Control is about the second run.
type Control struct {
	Skip string `yaml:"skip"` // why there is none
}

// Load reads every case below dir.
func Load(dir string) ([]*Scenario, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var all []*Scenario
	var errs []error
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		s, err := Parse(strings.TrimSuffix(filepath.Base(f), ".yaml"), data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		}
		all = append(all, s)
	}
	if len(files) == 0 {
		errs = append(errs, fmt.Errorf("%s: no scenario", dir))
	}
	return all, errors.Join(errs...)
}

// Parse reads one case. Unknown fields are errors.
func Parse(name string, data []byte) (*Scenario, error) {
	s := &Scenario{Name: name}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(s); err != nil {
		return nil, err
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Scenario) validate() error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Title == "" || s.Image == "" {
		complain("a scenario needs a title and an image")
	}
	stopped := s.Expect.Dead || s.NotYet != ""
	if stopped && len(s.effects()) == 0 {
		complain("say which side effect does not happen: absent, unchanged or lacks")
	}
	if s.NotYet != "" && s.Control.Skip != "" {
		complain("not-yet without a control proves nothing")
	}
	if _, ok := version(s.Since); !ok && s.Since != "" {
		complain("since %q: a version of Linux as in 6.10", s.Since)
	}
	for _, m := range s.Mounts {
		if m.Type != "volume" && m.Type != "tmpfs" {
			complain("mount %s: type is volume or tmpfs, not %q", m.Path, m.Type)
		}
	}
	for _, f := range s.Files {
		if (f.Text == "") == (f.From == "") {
			complain("file %s: one of text and from", f.Path)
		}
	}
	for _, e := range s.Exec {
		if len(e.Args) == 0 {
			complain("exec without args")
		}
	}
	return errors.Join(errs...)
}

// ProfileYAML is the document of the case's profile, nil when it has none.
func (s *Scenario) ProfileYAML() ([]byte, error) {
	if s.Profile == nil {
		return nil, nil
	}
	return yaml.Marshal(yaml.MapSlice{
		{Key: "apiVersion", Value: "stockade.dev/v1alpha1"},
		{Key: "kind", Value: "Profile"},
		{Key: "metadata", Value: map[string]string{"name": s.Name}},
		{Key: "spec", Value: s.Profile},
	})
}

// Missing says why the case makes no sense on a kernel of this release (uname -r), or nothing.
func (s *Scenario) Missing(release string) string {
	since, _ := version(s.Since)
	if now, ok := version(release); ok && (now[0] < since[0] || now[0] == since[0] && now[1] < since[1]) {
		return fmt.Sprintf("Linux %s: what this case does came with Linux %s", release, s.Since)
	}
	return ""
}

// version reads the first two numbers.
func version(text string) (v [2]int, ok bool) {
	n, err := fmt.Sscanf(text, "%d.%d", &v[0], &v[1])
	return v, n == 2 && err == nil
}
