package fanotify_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/fanotify/fanotifytest"
)

// ignoring prepares a marked root with files below /d.
func ignoring(t *testing.T) (string, *fanotify.Group, *fanotifytest.Log) {
	root := fanotifytest.Root(t)
	for _, d := range []string{"d", "d/sub"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"d/file", "d/other", "d/sub/file"} {
		if err := os.WriteFile(filepath.Join(root, f), []byte("hello"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "d/run"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	g := fanotifytest.Open(t)
	log := fanotifytest.Listen(t, g, root, nil)
	mustMark(t, g, root)
	return root, g, log
}

func TestIgnoreChildren(t *testing.T) {
	root, g, log := ignoring(t)
	if err := g.IgnoreChildren(fanotifytest.Path(t, filepath.Join(root, "d"))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, script string
		want         []string
	}{
		{"a child", "cat /d/file", nil},
		{"a child, written to", "echo x >/d/file; cat /d/file", nil},
		{"a child made later", "echo x >/d/new; cat /d/new", nil},
		{"below a subdirectory", "cat /d/sub/file", []string{"open /d/sub/file"}},
		{"exec of a child", "/d/run", []string{"exec /d/run"}},
		{"a child through another name", "ln /d/file /d/sub/link; cat /d/sub/link", []string{"open /d/sub/link"}},
		{"moved out", "mv /d/other /d/sub/other; cat /d/sub/other", []string{"open /d/sub/other"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log.Take()
			sh(t, root, c.script)
			if got := log.Strings("/d"); !slices.Equal(got, c.want) {
				t.Errorf("saw %q, want %q", got, c.want)
			}
		})
	}
	if err := g.Unignore(); err != nil {
		t.Fatal(err)
	}
	log.Take()
	sh(t, root, "cat /d/file")
	if got := log.Strings("/d"); len(got) != 1 {
		t.Errorf("saw %q after Unignore", got)
	}
}

func TestIgnoreFile(t *testing.T) {
	for _, c := range []struct {
		name, change string
		seen         bool
	}{
		{"unchanged", "cat /d/file", false},
		{"written to", "echo x >>/d/file", true},
		{"truncated", ": >/d/file", true},
		{"another name", "ln /d/file /d/sub/link; cat /d/sub/link", false},
		{"replaced", "echo x >/d/new; mv /d/new /d/file", true},
		{"mode changed", "chmod 600 /d/file", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, g, log := ignoring(t)
			if err := g.IgnoreFile(fanotifytest.Path(t, filepath.Join(root, "d/file"))); err != nil {
				t.Fatal(err)
			}
			sh(t, root, c.change)
			log.Take()
			sh(t, root, "cat /d/file")
			if got := log.Strings("/d/file"); (len(got) == 1) != c.seen {
				t.Errorf("saw %q", got)
			}
		})
	}
}

// On a file of a lower layer the first write copies it up.
func TestIgnoreFileOfLowerLayer(t *testing.T) {
	root, g, log := ignoring(t)
	path := filepath.Join(root, "etc/passwd")
	if err := g.IgnoreFile(fanotifytest.Path(t, path)); err != nil {
		t.Fatal(err)
	}
	sh(t, root, "cat /etc/passwd")
	if got := log.Strings("/etc/passwd"); len(got) != 0 {
		t.Errorf("saw %q", got)
	}
	sh(t, root, "echo x >>/etc/passwd")
	log.Take()
	sh(t, root, "cat /etc/passwd")
	if got := log.Strings("/etc/passwd"); len(got) != 1 {
		t.Errorf("after a copy up saw %q", got)
	}
}

// mmapWriter changes a file without write(2).
func mmapWriter(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 5, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[0] = 'j'
	return unix.Munmap(m)
}

// A limit that the package states: should a kernel ever end the ignore mark
// here, the statement can go.
func TestIgnoreFileMissesMappedWrites(t *testing.T) {
	root, g, log := ignoring(t)
	path := filepath.Join(root, "d/file")
	if err := g.IgnoreFile(fanotifytest.Path(t, path)); err != nil {
		t.Fatal(err)
	}
	if out, err := fanotifytest.Actor(timeout(t), "mmapwriter", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out := sh(t, root, "cat /d/file"); out != "jello" {
		t.Fatalf("the file holds %q", out)
	}
	if got := log.Strings("/d/file"); len(got) != 0 {
		t.Errorf("saw %q: the limit is gone", got)
	}
}

func TestIgnoreNode(t *testing.T) {
	root, g, log := ignoring(t)
	if err := g.IgnoreNode(fanotifytest.Path(t, filepath.Join(root, "d/file"))); err != nil {
		t.Fatal(err)
	}
	sh(t, root, "echo x >/d/file; cat /d/file; echo x >>/d/file; cat /d/file")
	if got := log.Strings("/d/file"); len(got) != 0 {
		t.Errorf("saw %q", got)
	}
}

// A mark by the event's own fd, which is not O_PATH.
func TestIgnoreByEventFD(t *testing.T) {
	root := fanotifytest.Root(t)
	g := fanotifytest.Open(t)
	log := fanotifytest.Listen(t, g, root, func(s fanotifytest.Seen) bool {
		if s.Path == "/etc/passwd" {
			if err := g.IgnoreFile(s.FD); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	mustMark(t, g, root)
	sh(t, root, "cat /etc/passwd /etc/passwd /etc/passwd")
	if got := log.Strings("/etc/passwd"); len(got) != 1 {
		t.Errorf("saw %q", got)
	}
}
