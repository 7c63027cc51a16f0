package incident

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/shim/record"
)

// Filter selects incidents. Empty fields select all.
type Filter struct {
	Container string    // the ID or the beginning of it
	Profile   string    // the name
	Since     time.Time // at this time or later
	Limit     int       // at most so many, the newest
}

// Damaged is a file that should be an incident and cannot be read as one.
type Damaged struct {
	File string
	Err  error
}

func (d *Damaged) Error() string { return fmt.Sprintf("%s: %v", d.File, d.Err) }
func (d *Damaged) Unwrap() error { return d.Err }

// ErrNotFound: no incident has that ID. ErrAmbiguous: several begin with it.
var (
	ErrNotFound  = errors.New("no such incident")
	ErrAmbiguous = errors.New("several incidents begin so")
)

// List returns the incidents in dir that f selects, newest first, and the
// files that are damaged. A folder that does not exist holds none. Files that
// are deleted meanwhile are left out.
func List(dir string, f Filter) ([]Incident, []*Damaged, error) {
	ids, err := names(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list incidents: %w", err)
	}
	slices.Reverse(ids)
	var out []Incident
	var damaged []*Damaged
	for _, id := range ids {
		if f.Limit > 0 && len(out) == f.Limit {
			break
		}
		// IDs carry microseconds, so one of Since's own microsecond stays.
		if t, _ := validID(id); t.Before(f.Since.Truncate(time.Microsecond)) {
			break
		}
		inc, err := readFile(dir, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			damaged = append(damaged, &Damaged{File: filepath.Join(dir, id+suffix), Err: err})
			continue
		}
		if f.selects(&inc) {
			out = append(out, inc)
		}
	}
	return out, damaged, nil
}

func (f Filter) selects(inc *Incident) bool {
	return strings.HasPrefix(inc.Container, f.Container) &&
		(f.Profile == "" || f.Profile == inc.Profile) &&
		!inc.Time.Before(f.Since)
}

// Read returns the incident whose ID is id, or the only one whose ID begins
// with it. errors.Is(err, ErrNotFound) or ErrAmbiguous otherwise.
func Read(dir, id string) (Incident, error) {
	if _, whole := validID(id); !whole {
		all, err := names(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Incident{}, err
		}
		found := slices.DeleteFunc(all, func(s string) bool { return id == "" || !strings.HasPrefix(s, id) })
		switch len(found) {
		case 0:
			return Incident{}, fmt.Errorf("%q: %w", id, ErrNotFound)
		case 1:
			id = found[0]
		default:
			return Incident{}, fmt.Errorf("%q: %w: %s, %s ... (%d)", id, ErrAmbiguous, found[0], found[1], len(found))
		}
	}
	inc, err := readFile(dir, id)
	if errors.Is(err, fs.ErrNotExist) {
		return Incident{}, fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	if err != nil {
		return Incident{}, &Damaged{File: filepath.Join(dir, id+suffix), Err: err}
	}
	return inc, nil
}

func readFile(dir, id string) (inc Incident, err error) {
	if err := record.Read(filepath.Join(dir, id+suffix), &inc); err != nil {
		return Incident{}, err
	}
	if inc.ID != id {
		return Incident{}, fmt.Errorf("holds the incident %q", inc.ID)
	}
	return inc, nil
}
