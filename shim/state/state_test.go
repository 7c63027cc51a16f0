package state

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func task(ns, id string) Task {
	return Task{
		ID: id, Namespace: ns, Pod: "redis-0", PodNamespace: "prod", Image: "redis:7", Profile: "redis", Digest: "sha256:ab", Mode: "enforce",
		OnViolation: "kill", ShimPID: 1, ShimStart: 5, InitPID: 9, Cgroup: "/k8s.io/x", Since: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC),
		Guarantees: []Guarantee{{"exec", "kill", "fanotify", ""}},
	}
}

func TestWriteListRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "stockade")
	if got, damaged, err := List(dir); got != nil || damaged != nil || err != nil {
		t.Errorf("no folder: %v %v %v", got, damaged, err)
	}
	a, b := task("default", "b"), task("k8s.io", "a")
	for _, w := range []Task{b, a, a} {
		if err := Write(dir, w); err != nil {
			t.Fatal(err)
		}
	}
	got, damaged, err := List(dir)
	if err != nil || len(damaged) > 0 || !reflect.DeepEqual(got, []Task{a, b}) {
		t.Errorf("got %+v %v %v", got, damaged, err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder %v %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".tmp*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for range 2 {
		if err := Remove(dir, "default", "b"); err != nil {
			t.Error(err)
		}
	}
	if got, _, _ := List(dir); len(got) != 1 || got[0].ID != "a" {
		t.Errorf("after Remove: %+v", got)
	}
}

// Every pair has a file of its own, directly in the folder.
func TestIDsCannotEscapeOrCollide(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "state")
	long := strings.Repeat("x", 5000)
	pairs := [][2]string{
		{"default", "../../etc/passwd"},
		{"..", ".."},
		{"", ""},
		{".", "/"},
		{"a", "b~c"},
		{"a~b", "c"},
		{"a", "b/c"},
		{"a/b", "c"},
		{"a", "b%2fc"},
		{"a", ".hidden"},
		{"a", "\x00"},
		{"a", "é\n"},
		{"a", long},
		{"a", long + "y"},
		{long, "a"},
		{"a", "A"},
		{"a", "x.json"},
	}
	for _, p := range pairs {
		if err := Write(dir, task(p[0], p[1])); err != nil {
			t.Errorf("%.40q: %v", p, err)
		}
	}
	if entries, _ := os.ReadDir(root); len(entries) != 1 {
		t.Errorf("something escaped: %v", entries)
	}
	got, damaged, err := List(dir)
	if err != nil || len(damaged) > 0 || len(got) != len(pairs) {
		t.Fatalf("%d tasks, %v, %v; want %d", len(got), damaged, err, len(pairs))
	}
	for _, p := range pairs {
		if err := Remove(dir, p[0], p[1]); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestDamagedFilesAreReportedAndSkipped(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, task("a", "good")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"a~empty.json": "", "a~half.json": `{"id":"ha`, "a~other.json": `{"id":"x","namespace":"a"}`, "a~type.json": `{"id":7}`,
		"a~not-json.txt": "", ".tmp-1": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "a~fifo.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a~good.json", filepath.Join(dir, "a~link.json")); err != nil {
		t.Fatal(err)
	}
	got, damaged, err := List(dir)
	if err != nil || len(got) != 1 || len(damaged) != 6 {
		t.Fatalf("%d tasks, damaged %v, %v; want 1 and 6", len(got), damaged, err)
	}
	if !strings.Contains(damaged[0].Error(), filepath.Join(dir, "a~empty.json")) {
		t.Errorf("does not name the file: %v", damaged[0])
	}
}

func TestShimAlive(t *testing.T) {
	dir := t.TempDir()
	mine := task("a", "mine")
	mine.ShimPID, mine.ShimStart = 0, 0
	if err := Write(dir, mine); err != nil {
		t.Fatal(err)
	}
	got, _, err := List(dir)
	if err != nil || len(got) != 1 || got[0].ShimPID != os.Getpid() || !got[0].ShimAlive() {
		t.Fatalf("this process as shim: %+v %v", got, err)
	}
	reused := got[0]
	reused.ShimStart++
	if reused.ShimAlive() {
		t.Error("another process with that pid counts as the shim")
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	gone := got[0]
	gone.ShimPID = cmd.Process.Pid
	if gone.ShimAlive() {
		t.Error("a dead process counts as the shim")
	}
}

func TestReadersSeeWholeFiles(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 500 {
			w := task("a", "x")
			w.Image = strings.Repeat("i", i*20)
			if err := Write(dir, w); err != nil {
				t.Error(err)
			}
		}
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		if _, damaged, err := List(dir); err != nil || len(damaged) > 0 {
			t.Fatal(damaged, err)
		}
	}
	wg.Wait()
}

func FuzzFileName(f *testing.F) {
	f.Add("a", "../b", "a", "b")
	f.Fuzz(func(t *testing.T, ns1, id1, ns2, id2 string) {
		one, two := fileName(ns1, id1), fileName(ns2, id2)
		if strings.ContainsAny(one, "/\x00") || len(one) > 255 || strings.HasPrefix(one, ".") {
			t.Errorf("%q", one)
		}
		if (one == two) != (ns1 == ns2 && id1 == id2) {
			t.Error(fmt.Sprintf("%q %q and %q %q", ns1, id1, ns2, id2), one, two)
		}
	})
}
