package procfs

import (
	"bytes"
	"context"
	"errors"
)

// ErrBusy says that earlier Cmdline calls still wait for their processes.
var ErrBusy = errors.New("too many reads of process memory are waiting")

// cmdlineMax bounds the goroutines that wait, and what is read.
const (
	cmdlineReaders = 4
	cmdlineMax     = 4096 // bytes
)

var cmdlineSlots = make(chan struct{}, cmdlineReaders)

// Cmdline reads a process's arguments, at most 4096 bytes of them. They lie in
// the process's memory: it may have changed them, and whoever reads waits for
// the lock of that memory (and, before Linux 6.4 or so, for the process's own
// userfaultfd) for as long as it lives. So never call this before an answer.
// It returns with ctx; a read that still waits then ends with the process, and
// at most four do (ErrBusy).
func (p *FS) Cmdline(ctx context.Context, pid int) ([]string, error) {
	select {
	case cmdlineSlots <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	type result struct {
		args []string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-cmdlineSlots }()
		b, err := p.read(pid, "cmdline", make([]byte, cmdlineMax))
		done <- result{splitArgs(b), err}
	}()
	select {
	case r := <-done:
		return r.args, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func splitArgs(b []byte) []string {
	b = bytes.TrimSuffix(b, []byte{0})
	if len(b) == 0 {
		return nil
	}
	var args []string
	for _, a := range bytes.Split(b, []byte{0}) {
		args = append(args, string(a))
	}
	return args
}
