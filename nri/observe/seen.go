package observe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stockade-dev/stockade/shim/record"
)

// recent is how long an incident that is in no folder is remembered, and how far
// behind the newest one a restarted plugin looks: its file may come late.
const recent = 10 * time.Minute

// seen remembers what was told.
type seen struct {
	file string

	mu     sync.Mutex
	ids    map[string]time.Time // when told; guarded by mu
	before string               // IDs that sort before this one count as told; guarded by mu
	dirty  bool                 // guarded by mu
}

// told is the file: IDs that are not Before.
type told struct {
	Before string   `json:"before"`
	IDs    []string `json:"ids"`
}

// newSeen has its file in the incident folder, which outlives a reboot.
func newSeen(dir string) *seen {
	return &seen{file: filepath.Join(dir, ".told"), ids: map[string]time.Time{}}
}

// idTime is the first part of an ID; it sorts as time does.
const idTime = "20060102-150405.000000"

// load reads the file. Without one everything up to now counts as told.
func (s *seen) load() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.before, s.dirty = now.UTC().Format(idTime), true
	data, err := os.ReadFile(s.file)
	if err != nil {
		return
	}
	var t told
	if json.Unmarshal(data, &t) != nil || t.Before > s.before {
		return
	}
	s.before = t.Before
	for _, id := range t.IDs {
		s.ids[id] = now
	}
}

// has reports whether an ID was told.
func (s *seen) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ids[id]
	return ok || id < s.before
}

// add reports whether an ID is new. What the bus brings may be older than the
// plugin; only what was told is not new.
func (s *seen) add(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.ids[id]; ok {
		return false
	}
	s.ids[id] = time.Now()
	s.dirty = true
	return true
}

// forget drops what is in the folder no more, after a while: the bus may be
// quicker than the folder.
func (s *seen) forget(there map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, t := range s.ids {
		if !there[id] && time.Since(t) > recent {
			delete(s.ids, id)
		}
	}
}

// save writes the file, if there is something new. What is older than a while is
// told by its time alone.
func (s *seen) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil
	}
	t := told{Before: max(s.before, time.Now().Add(-recent).UTC().Format(idTime))}
	for id := range s.ids {
		if id >= t.Before {
			t.IDs = append(t.IDs, id)
		}
	}
	if err := record.Write(s.file, t); err != nil {
		return err
	}
	s.dirty = false
	return nil
}
