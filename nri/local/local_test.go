package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles/store"
)

func doc(name, spec string) string {
	return "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
}

// log is what was logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 600 {
		if holds() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("it never came to this: %s", what)
}

func TestTheKeeperFollowsTheFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: profiles must belong to root")
	}
	r := store.Roots{Profiles: filepath.Join(t.TempDir(), "p"), LastGood: filepath.Join(t.TempDir(), "g")}
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(r.Profiles, name)
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var changed []string
	out := &log{}
	logger := logrus.New()
	logger.SetOutput(io.Writer(out))
	k, err := New(Config{Roots: r, Log: logger, Changed: func(files []string) {
		mu.Lock()
		defer mu.Unlock()
		changed = append(changed, files...)
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	defer func() { cancel(); <-done }()

	// The folder may come later.
	eventually(t, "the missing folder is said", func() bool { return out.has("no such file or directory") })
	if err := os.Mkdir(r.Profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	put("a.yaml", doc("a", "mode: monitor"))
	eventually(t, "a.yaml is kept", func() bool { _, err := os.Stat(r.LastGood + "/a.yaml"); return err == nil })
	put("a.yaml", "spec: [")
	eventually(t, "a.yaml is said to be bad", func() bool { return out.has("a profile file is bad") && out.has("a.yaml:1:") })
	s, err := store.OpenRoots(r)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.Get("a"); err != nil || s.StandIn("a") == nil {
		t.Fatal(p, err)
	}
	put("b.yaml", "spec: [")
	eventually(t, "b.yaml is left out", func() bool { return out.has("it is left out") })
	if err := errors.Join(os.Remove(r.Profiles+"/a.yaml"), os.Remove(r.Profiles+"/b.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is left of what was deleted", func() bool { left, err := os.ReadDir(r.LastGood); return err == nil && len(left) == 0 })
	mu.Lock()
	defer mu.Unlock()
	if !slices.Contains(changed, "a.yaml") || !slices.Contains(changed, "b.yaml") {
		t.Errorf("told of %v", changed)
	}
}
