package notify

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// measure prints what one notified call takes, in nanoseconds.
func measure(n int) error {
	start := time.Now()
	for range n {
		unix.Syscall(unix.SYS_KEYCTL, 0, 0, 0)
	}
	fmt.Println(time.Since(start).Nanoseconds() / int64(n))
	return nil
}

// The round trip of one notified call, from a process that does nothing else.
func BenchmarkRoundTrip(b *testing.B) {
	path := b.TempDir() + "/s/notify.sock"
	l, err := Listen(path)
	must(b, err)
	defer l.Close()
	go l.Serve(func(*Call) (Answer, error) { return Deny(syscall.EPERM), nil },
		func(_ Process, err error) { b.Error(err) })
	c := startChild(b, "speed", path, "20000")
	if err := c.cmd.Wait(); err != nil {
		b.Fatal(err, c.err.String())
	}
	var ns float64
	fmt.Sscan(c.out.String(), &ns)
	b.ReportMetric(ns, "ns/call")
	b.ReportMetric(0, "ns/op")
}
