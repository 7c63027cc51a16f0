package fanotify_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/fanotify/fanotifytest"
)

// openLoop opens and closes a file n times and prints the nanoseconds.
func openLoop(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	start := time.Now()
	for range n {
		fd, err := unix.Open(args[0], unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	fmt.Print(time.Since(start).Nanoseconds())
	return nil
}

func benchOpen(b *testing.B, path string) {
	out, err := fanotifytest.Actor(timeout(b), "openloop", path, strconv.Itoa(b.N)).Output()
	if err != nil {
		b.Fatal(err)
	}
	ns, err := strconv.ParseFloat(string(out), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(ns/float64(b.N), "ns/op")
}

func BenchmarkOpen(b *testing.B) {
	root := fanotifytest.Root(b)
	dir := filepath.Join(root, "etc")
	file := filepath.Join(dir, "passwd")
	b.Run("bare", func(b *testing.B) { benchOpen(b, file) })

	g := fanotifytest.Open(b)
	b.Cleanup(func() { g.Close() })
	go answerAll(b, g)
	if err := g.MarkFilesystem(fanotifytest.Path(b, root), all); err != nil {
		b.Fatal(err)
	}
	b.Run("roundtrip", func(b *testing.B) { benchOpen(b, file) })
	if err := g.IgnoreChildren(fanotifytest.Path(b, dir)); err != nil {
		b.Fatal(err)
	}
	b.Run("children ignored", func(b *testing.B) { benchOpen(b, file) })
	if err := g.Unignore(); err != nil {
		b.Fatal(err)
	}
	if err := g.IgnoreFile(fanotifytest.Path(b, file)); err != nil {
		b.Fatal(err)
	}
	b.Run("file ignored", func(b *testing.B) { benchOpen(b, file) })
}

// BenchmarkAnswer counts what the answering side allocates: nothing.
func BenchmarkAnswer(b *testing.B) {
	root := fanotifytest.Root(b)
	g := fanotifytest.Open(b)
	if err := g.MarkFilesystem(fanotifytest.Path(b, root), all); err != nil {
		b.Fatal(err)
	}
	cmd := fanotifytest.Actor(timeout(b), "openloop", filepath.Join(root, "etc/passwd"), strconv.Itoa(b.N))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	evs := make([]fanotify.Event, fanotify.Batch)
	b.ReportAllocs()
	b.ResetTimer()
	for seen := 0; seen < b.N; {
		n, err := g.Read(evs)
		if err != nil {
			b.Fatal(err)
		}
		for _, ev := range evs[:n] {
			if err := g.Respond(ev, true); err != nil {
				b.Fatal(err)
			}
		}
		seen += n
	}
	b.StopTimer()
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
}

func answerAll(b *testing.B, g *fanotify.Group) {
	evs := make([]fanotify.Event, fanotify.Batch)
	for {
		n, err := g.Read(evs)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				b.Error(err)
			}
			return
		}
		for _, ev := range evs[:n] {
			if err := g.Respond(ev, true); err != nil {
				b.Error(err)
			}
		}
	}
}
