package incident

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestList(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{})
	base := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for i, who := range []struct{ container, profile string }{{"aa11", "redis"}, {"aa22", "nginx"}, {"bb33", "redis"}, {"aa11", "redis"}} {
		inc := sample()
		inc.Time, inc.Container, inc.Profile = base.Add(time.Duration(i)*time.Minute), who.container, who.profile
		w.Put(inc)
	}
	flush(t, w)
	for _, tc := range []struct {
		name string
		f    Filter
		want string
	}{
		{"all, newest first", Filter{}, "aa11 bb33 aa22 aa11"},
		{"container", Filter{Container: "aa11"}, "aa11 aa11"},
		{"beginning of a container", Filter{Container: "aa"}, "aa11 aa22 aa11"},
		{"profile", Filter{Profile: "redis"}, "aa11 bb33 aa11"},
		{"profile is whole", Filter{Profile: "red"}, ""},
		{"since, inclusive", Filter{Since: base.Add(2 * time.Minute)}, "aa11 bb33"},
		{"since, later", Filter{Since: base.Add(2*time.Minute + time.Nanosecond)}, "aa11"},
		{"limit", Filter{Limit: 1}, "aa11"},
		{"limit counts what is selected", Filter{Profile: "nginx", Limit: 1}, "aa22"},
	} {
		got, damaged, err := List(dir, tc.f)
		var ids []string
		for _, inc := range got {
			ids = append(ids, inc.Container)
		}
		if err != nil || len(damaged) > 0 || strings.Join(ids, " ") != tc.want {
			t.Errorf("%s: %v %v %v; want %q", tc.name, ids, damaged, err, tc.want)
		}
	}
	if got, damaged, err := List(filepath.Join(dir, "none"), Filter{}); got != nil || damaged != nil || err != nil {
		t.Errorf("no folder: %v %v %v", got, damaged, err)
	}
}

func TestDamagedFilesAreNamedAndHideNothing(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{})
	good, _ := w.Put(sample())
	flush(t, w)
	bad := func(content string) string {
		id := NewID(time.Now())
		if err := os.WriteFile(filepath.Join(dir, id+".json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return id
	}
	ids := []string{bad(""), bad("{"), bad(`{"id":"another"}`), bad(`[]`), bad(`{"time":7}`)}
	big := bad("")
	if err := os.Truncate(filepath.Join(dir, big+".json"), maxFile+1); err != nil {
		t.Fatal(err)
	}
	link, fifo := NewID(time.Now()), NewID(time.Now())
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, link+".json")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, fifo+".json"), 0o600); err != nil {
		t.Fatal(err)
	}
	ids = append(ids, big, link, fifo)
	for _, name := range []string{"notes.txt", "x.json", ".tmp-abc"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, damaged, err := List(dir, Filter{})
	if err != nil || len(got) != 1 || got[0].ID != good || len(damaged) != len(ids) {
		t.Fatalf("%d read, %d damaged, %v; want 1 and %d", len(got), len(damaged), err, len(ids))
	}
	for _, id := range ids {
		_, err := Read(dir, id)
		var d *Damaged
		if !errors.As(err, &d) || !strings.Contains(d.Error(), id) {
			t.Errorf("%s: %v; want Damaged", id, err)
		}
	}
}

func TestReadByPrefix(t *testing.T) {
	dir := t.TempDir()
	ids := plant(t, dir, 2)
	for _, tc := range []struct {
		id   string
		want error
	}{
		{ids[0], nil},
		{ids[1][:len(ids[1])-2], nil},
		{"2026", ErrAmbiguous},
		{"2027", ErrNotFound},
		{"", ErrNotFound},
		{"../../etc/passwd", ErrNotFound},
		{NewID(time.Now()), ErrNotFound},
	} {
		if _, err := Read(dir, tc.id); !errors.Is(err, tc.want) {
			t.Errorf("%q: %v; want %v", tc.id, err, tc.want)
		}
	}
	if _, err := Read(filepath.Join(dir, "none"), "2026"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestIDsSortByTime(t *testing.T) {
	base := time.Date(2026, 12, 31, 23, 59, 59, 999_998_000, time.FixedZone("x", 3600))
	last := ""
	for i := range 5 {
		id := NewID(base.Add(time.Duration(i) * time.Microsecond))
		if at, ok := validID(id); id <= last || !ok || !at.Equal(base.Add(time.Duration(i)*time.Microsecond)) {
			t.Errorf("%q after %q, %v", id, last, at)
		}
		last = id
	}
}
