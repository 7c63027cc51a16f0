package incident

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// plant makes n small incidents, oldest first, without the writer.
func plant(t *testing.T, dir string, n int) []string {
	t.Helper()
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ids := make([]string, n)
	for i := range ids {
		ids[i] = NewID(base.Add(time.Duration(i) * time.Second))
		body := fmt.Sprintf(`{"id":%q,"time":%q,"session":false,"action":"killed"}`, ids[i], base.Add(time.Duration(i)*time.Second).Format(time.RFC3339Nano))
		if err := os.WriteFile(filepath.Join(dir, ids[i]+".json"), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func count(t *testing.T, dir string) int {
	t.Helper()
	ids, err := names(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(ids)
}

func TestOldestGoFirst(t *testing.T) {
	dir := t.TempDir()
	ids := plant(t, dir, 105)
	w := open(t, dir, Limit{Count: 100})
	newest, _ := w.Put(sample())
	flush(t, w)
	left, err := names(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 90 || left[0] != ids[16] || left[len(left)-1] != newest {
		t.Errorf("%d left, from %s to %s; want 90, from %s to %s", len(left), left[0], left[len(left)-1], ids[16], newest)
	}
}

// TestAFloodDeletesNobodyElsesEvidence: a container that is not killed at its first violation makes as many incidents as
// it likes.
func TestAFloodDeletesNobodyElsesEvidence(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{Count: 100})
	n := 0
	put := func(container string) string {
		inc := sample()
		n++
		inc.Container, inc.Time = container, inc.Time.Add(time.Duration(n)*time.Second)
		inc.ID = NewID(inc.Time)
		for ok := false; !ok; time.Sleep(time.Millisecond) {
			_, ok = w.Put(inc)
		}
		return inc.ID
	}
	victims := []string{put("victim"), put("victim"), put("another")}
	for range 500 {
		put("flood")
	}
	flush(t, w)
	left, err := names(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 100 {
		t.Errorf("%d left, want at most 100", len(left))
	}
	for _, id := range victims {
		if !slices.Contains(left, id) {
			t.Errorf("%s is gone", id)
		}
	}
}

func TestBytesBoundTheFolder(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{Bytes: 20 << 10})
	var last string
	for i := range 100 {
		inc := sample()
		inc.Time = inc.Time.Add(time.Duration(i) * time.Millisecond) // IDs sort by it
		last, _ = w.Put(inc)
	}
	flush(t, w)
	var bytes int64
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			bytes += info.Size()
		}
	}
	if bytes > 21<<10 || bytes < 15<<10 {
		t.Errorf("%d bytes kept of at most 20 KiB", bytes)
	}
	if _, err := Read(dir, last); err != nil {
		t.Errorf("the newest is gone: %v", err)
	}
}

// One incident larger than the bound is still evidence.
func TestTheNewestAlwaysStays(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{Bytes: 10})
	id, _ := w.Put(sample())
	flush(t, w)
	if _, err := Read(dir, id); err != nil {
		t.Error(err)
	}
}

func TestShimsShareAFolder(t *testing.T) {
	dir := t.TempDir()
	const shims, each, limit = 8, 100, 200
	var wg sync.WaitGroup
	for range shims {
		w := open(t, dir, Limit{Count: limit})
		wg.Go(func() {
			for range each {
				w.Put(sample())
			}
			flush(t, w)
			if w.Dropped() > 0 {
				t.Errorf("%d lost", w.Dropped())
			}
		})
	}
	wg.Wait()
	// What a writer could not count at its end is the slack.
	if n := count(t, dir); n > limit+shims*each/4 || n < limit/2 {
		t.Errorf("%d incidents kept of at most %d", n, limit)
	}
	w := open(t, dir, Limit{Count: limit})
	w.Put(sample())
	flush(t, w)
	_, damaged, err := List(dir, Filter{})
	if err != nil || len(damaged) > 0 {
		t.Error(damaged, err)
	}
}

func TestWrongCountIsMended(t *testing.T) {
	huge := make([]byte, 16)
	binary.LittleEndian.PutUint64(huge, 1<<40)
	for name, usageFile := range map[string][]byte{
		"missing": nil, "short": []byte("abc"), "long": make([]byte, 100), "negative": []byte(strings.Repeat("\xff", 16)), "too high": huge,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			plant(t, dir, 50)
			if usageFile != nil {
				if err := os.WriteFile(filepath.Join(dir, usageName), usageFile, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w := open(t, dir, Limit{Count: 1000})
			w.Put(sample())
			flush(t, w)
			data, err := os.ReadFile(filepath.Join(dir, usageName))
			if err != nil || len(data) != 16 || binary.LittleEndian.Uint64(data) != 51 || count(t, dir) != 51 {
				t.Errorf("count %v, %d files, %v; want 51", data, count(t, dir), err)
			}
		})
	}
}

func TestAHeldCountDelaysNobody(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, 20)
	held, err := os.Create(filepath.Join(dir, usageName))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	w := open(t, dir, Limit{Count: 10})
	id, _ := w.Put(sample())
	flush(t, w)
	if _, err := Read(dir, id); err != nil || count(t, dir) != 21 {
		t.Errorf("%v, %d incidents; want all 21 while the count is held", err, count(t, dir))
	}
}

// Listing ten thousand names for every write is what rotation must not do: it
// is counted, because time is not.
func TestTheFolderIsListedRarely(t *testing.T) {
	dir := t.TempDir()
	f, err := openFolder(dir, Limit{Count: 1000})
	if err != nil {
		t.Fatal(err)
	}
	plant(t, dir, 990)
	for range 500 {
		inc := sample()
		inc.ID = NewID(time.Now())
		if err := f.write(inc); err != nil {
			t.Fatal(err)
		}
		if err := f.rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if f.trims > 10 {
		t.Errorf("listed %d times in 500 writes", f.trims)
	}
	if n := count(t, dir); n > 1000 {
		t.Errorf("%d incidents kept of at most 1000", n)
	}
}

func TestForgottenTemporaryFilesGo(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, tempPrefix+"old"), filepath.Join(dir, tempPrefix+"young")
	for _, p := range []string{old, young} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*staleTemp)); err != nil {
		t.Fatal(err)
	}
	w := open(t, dir, Limit{})
	w.Put(sample())
	flush(t, w)
	if _, err := os.Stat(old); err == nil {
		t.Error("the old one is still there")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("another writer's file was deleted")
	}
}
