package enforce

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestHash(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	sum := func(text string) string {
		s := sha256.Sum256([]byte(text))
		return hex.EncodeToString(s[:])
	}
	var h hashCache
	check := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// A forged time of change does not help: the change of the time is one, too.
		if err := os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, known := h.get(int(f.Fd())); known && got != sum(text) {
			t.Errorf("%q: remembered as %s", text, got)
		}
		if got, err := h.read(int(f.Fd())); err != nil || got != sum(text) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
		if _, known := h.get(int(f.Fd())); known {
			t.Errorf("%q: remembered although it may change within the same tick", text)
		}
	}
	check("")
	for range 200 { // as fast as they come, of one length
		check("good")
		check("evil")
	}
}

func TestHashRemembersWhatIsOld(t *testing.T) {
	f, err := os.Open("/bin/sh") // installed long ago
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var h hashCache
	want, err := h.read(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if got, known := h.get(int(f.Fd())); !known || got != want {
		t.Errorf("%q, %t: want %s", got, known, want)
	}
}
