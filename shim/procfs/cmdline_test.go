package procfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Reads that wait, here for the writer of a FIFO: each call returns with its
// context, at most four goroutines stay, and they end when what they wait for
// does.
func TestCmdlineIsBounded(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "7", "cmdline")
	if err := errors.Join(os.Mkdir(filepath.Dir(fifo), 0o755), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	proc, err := openPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	p := &FS{proc: proc}

	var got []error
	for range cmdlineReaders + 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		_, err := p.Cmdline(ctx, 7)
		cancel()
		got = append(got, err)
	}
	for i, err := range got {
		want := context.DeadlineExceeded
		if i >= cmdlineReaders {
			want = ErrBusy
		}
		if !errors.Is(err, want) {
			t.Errorf("call %d: %v, want %v", i, err, want)
		}
	}

	deadline := time.After(30 * time.Second)
	for taken := 0; taken < cmdlineReaders; { // all slots come back
		// Again for each: a reader that comes to the FIFO after a writer has gone waits for the next.
		if w, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			w.Close()
		} else if !errors.Is(err, unix.ENXIO) {
			t.Fatal(err)
		}
		select {
		case cmdlineSlots <- struct{}{}:
			taken++
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatal("a reader is still there")
		}
	}
	for range cmdlineReaders {
		<-cmdlineSlots
	}
}
