package incident

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func sample() Incident {
	return Incident{
		Time: time.Date(2026, 11, 23, 18, 54, 12, 123456789, time.UTC), Node: "n1", Namespace: "k8s.io", Container: "abc123",
		Pod: Pod{"prod", "redis-0", "u-1", "main"}, Image: "docker.io/library/redis:7", Profile: "redis", Digest: "sha256:ab", Mode: "enforce",
		Action: Killed, Access: Access{Kind: "exec", Path: "/bin/sh", Syscall: "execve", Args: []string{"0x1"}, Flags: "O_RDONLY", ViaMount: "/data"},
		Subject: Subject{PID: 7, TID: 8, UID: 999, Comm: "redis-server", Exe: "/usr/local/bin/redis-server", Cmdline: []string{"redis-server", "*:6379"}, Cwd: "/data"},
		Parents: []Parent{{1, "tini", "/sbin/tini"}}, Reason: "not declared", Suggestion: `spec.allow.exec: ["/bin/sh"]`,
		KillLatency: KillLatency{Signalled: 120 * time.Microsecond, Answered: 130 * time.Microsecond, Dead: 2 * time.Millisecond},
	}
}

func open(t *testing.T, dir string, l Limit) *Writer {
	t.Helper()
	w, err := NewWriter(dir, l, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func flush(t *testing.T, w *Writer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsPutIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var", "incidents")
	w := open(t, dir, Limit{})
	want := sample()
	id, ok := w.Put(want)
	if !ok {
		t.Fatal("lost")
	}
	flush(t, w)
	want.ID = id
	for _, name := range []string{id, id[:10], id[:len(id)-1]} {
		got, err := Read(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	for path, mode := range map[string]fs.FileMode{dir: 0o700 | fs.ModeDir, filepath.Join(dir, id+".json"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v, want %v", path, info.Mode(), err, mode)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".tmp*")); len(left) > 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

// A reader of the files needs the names of the fields to stay.
func TestJSONNames(t *testing.T) {
	inc := sample()
	inc.ID, inc.Rule, inc.Lost = "x", "redis.yaml:3: deny.exec /bin/sh", 4
	data, err := json.Marshal(inc)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"x","time":"2026-11-23T18:54:12.123456789Z","node":"n1","namespace":"k8s.io","container":"abc123",` +
		`"pod":{"namespace":"prod","name":"redis-0","uid":"u-1","container":"main"},"image":"docker.io/library/redis:7","profile":"redis","digest":"sha256:ab","mode":"enforce","session":false,"action":"killed",` +
		`"access":{"kind":"exec","path":"/bin/sh","syscall":"execve","args":["0x1"],"flags":"O_RDONLY","viaMount":"/data"},` +
		`"subject":{"pid":7,"tid":8,"uid":999,"comm":"redis-server","exe":"/usr/local/bin/redis-server","cmdline":["redis-server","*:6379"],"cwd":"/data"},` +
		`"parents":[{"pid":1,"comm":"tini","exe":"/sbin/tini"}],"rule":"redis.yaml:3: deny.exec /bin/sh","reason":"not declared","suggestion":"spec.allow.exec: [\"/bin/sh\"]",` +
		`"killLatency":{"signalledNanoseconds":120000,"answeredNanoseconds":130000,"deadNanoseconds":2000000},"lost":4}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
}

func TestFolderIsClosedToOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	flush(t, open(t, dir, Limit{}))
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 1000, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := NewWriter(dir, Limit{}, nil); err == nil || !strings.Contains(err.Error(), "belongs to uid 1000") {
			t.Errorf("a folder of another user: %v", err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := NewWriter(link, Limit{}, nil); err == nil {
		t.Error("a link was accepted as the folder")
	}
}

// blockDisk stops the writer's goroutine as a hanging disk would.
func blockDisk(w *Writer) (release func()) {
	gate := make(chan struct{})
	w.dir.before = func() { <-gate }
	return func() { close(gate) }
}

func TestPutNeverWaitsAndLossesAreSaid(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{})
	release := blockDisk(w)
	lost := uint64(0)
	const puts = queueLength + 200
	for range puts { // would hang here if Put waited
		if _, ok := w.Put(sample()); !ok {
			lost++
		}
	}
	carried := sample()
	carried.Lost = 7 // of the caller's: they were not told of before, nor are they now
	if _, ok := w.Put(carried); ok {
		t.Fatal("there is room")
	}
	lost++
	if lost < puts-queueLength-1 || lost != w.Dropped() {
		t.Errorf("%d puts: %d lost, Dropped says %d", puts, lost, w.Dropped())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close with a blocked disk: %v", err)
	}
	release()
	flush(t, w)
	got, damaged, err := List(dir, Filter{})
	if err != nil || len(damaged) > 0 {
		t.Fatal(damaged, err)
	}
	var said uint64
	for _, inc := range got {
		said += inc.Lost
	}
	if uint64(len(got))+lost != puts+1 || said != lost+7 {
		t.Errorf("%d written, %d lost of %d; the incidents say %d lost", len(got), lost, puts, said)
	}
	if _, ok := w.Put(sample()); ok {
		t.Error("Put after Close says ok")
	}
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("mount tmpfs: ", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	var mu sync.Mutex
	var warned []string
	w, err := NewWriter(dir, Limit{}, func(s string) { mu.Lock(); warned = append(warned, s); mu.Unlock() })
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	w.Put(sample())
	w.Put(sample())
	for w.pending() < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.Put(sample())
	flush(t, w)
	got, damaged, err := List(dir, Filter{})
	if err != nil || len(damaged) > 0 || len(got) != 1 || got[0].Lost != 2 {
		t.Errorf("after the disk was full: %+v %v %v; want one incident that says 2 were lost", got, damaged, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(strings.Join(warned, "\n"), "no space left") {
		t.Errorf("the log does not say why: %q", warned)
	}
}

// When no incident follows, the loss is on record all the same.
func TestLossWithoutASuccessor(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{})
	w.mu.Lock()
	w.lost, w.total = 3, 3
	w.mu.Unlock()
	flush(t, w)
	got, _, err := List(dir, Filter{})
	if err != nil || len(got) != 1 || got[0].Action != Lost || got[0].Lost != 3 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestFolderRemovedMeanwhile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "i")
	w := open(t, dir, Limit{})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	id, _ := w.Put(sample())
	flush(t, w)
	if _, err := Read(dir, id); err != nil {
		t.Error(err)
	}
}

func TestHugeAndBrokenTextIsBounded(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{})
	inc := sample()
	inc.Access.Path = "/tmp/\xff\x1b[2J" + strings.Repeat("é", MaxField)
	inc.Subject.Cmdline = make([]string, 100_000)
	for i := range inc.Subject.Cmdline {
		inc.Subject.Cmdline[i] = fmt.Sprintf("argument-%d", i)
	}
	inc.Parents = make([]Parent, 1000)
	before := inc.Subject.Cmdline[5]
	id, _ := w.Put(inc)
	flush(t, w)
	info, err := os.Stat(filepath.Join(dir, id+".json"))
	if err != nil || info.Size() > 256<<10 {
		t.Fatalf("%v, %v", info, err)
	}
	got, err := Read(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.Access.Path, `/tmp/\xff`+"\x1b[2J") || !strings.Contains(got.Access.Path, "bytes more)") {
		t.Errorf("path %.60q", got.Access.Path)
	}
	last := got.Subject.Cmdline[len(got.Subject.Cmdline)-1]
	if !strings.Contains(last, " more)") || len(got.Parents) != 64 || inc.Subject.Cmdline[5] != before {
		t.Errorf("cmdline ends %q, %d parents", last, len(got.Parents))
	}
}

// TestNoTimeToWriteAll: what a shim that ends cannot write any more is counted, and the count is written.
func TestNoTimeToWriteAll(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, Limit{})
	w.dir.before = func() { time.Sleep(20 * time.Millisecond) } // a slow disk
	const all = 200
	for range all {
		w.Put(sample())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = w.Close(ctx)
	<-w.done
	found, damaged, err := List(dir, Filter{})
	if err != nil || len(damaged) > 0 {
		t.Fatal(err, damaged)
	}
	written, lost := 0, uint64(0)
	for _, inc := range found {
		if inc.Action != Lost {
			written++
		}
		lost += inc.Lost
	}
	lost -= uint64(written) * sample().Lost // the samples say that there were some before
	if written == all || written+int(lost) != all {
		t.Errorf("%d written and %d said to be lost of %d", written, lost, all)
	}
}
