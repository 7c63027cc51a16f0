package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

const startsEach = 4

// measureStarts creates and starts a container whose program does nothing. The clock starts when the container's
// file system is there, which is not the runtime's work.
func measureStarts(ctx context.Context, b *bench, h *host, v variant) error {
	for range startsEach {
		var begin time.Time
		t, err := b.node.Run(ctx, node.RunOpts{
			Image: image.Ref("bench"), Runtime: h.runtime, Profile: "bench", Args: []string{"/bin/nothing"},
			Prepare: func(node.Rootfs) error { begin = time.Now(); return nil },
		})
		if err != nil {
			return err
		}
		started := time.Since(begin)
		code, err := t.Wait(ctx)
		ended := time.Since(begin)
		if err := errors.Join(err, t.Delete(ctx)); err != nil || code != 0 {
			return fmt.Errorf("exit code %d: %w", code, err)
		}
		b.results.add("create+start", v, milliseconds(started))
		b.results.add("create, start, run to the end", v, milliseconds(ended))
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

const (
	killsEach = 8
	crowd     = 100 // processes of a container that is killed
)

// measureKills has one of a hundred processes deviate, and waits for the end of all. Under plain runc, where nothing
// deviates, the first process gets a SIGKILL from outside: what the kernel itself takes.
func measureKills(ctx context.Context, b *bench, h *host, v variant) error {
	for range killsEach {
		w, err := b.startWorker(ctx, h.runtime)
		if err != nil {
			return err
		}
		ms, err := b.kill(ctx, w, v)
		if err := errors.Join(err, w.end(ctx)); err != nil {
			return err
		}
		b.results.add("kill 100 processes, p50", v, ms)
		b.results.add("kill 100 processes, p99", v, ms)
	}
	return nil
}

func (b *bench) kill(ctx context.Context, w *worker, v variant) (ms float64, err error) {
	if _, err := w.do(ctx, "crowd %d", crowd-1); err != nil {
		return 0, err
	}
	pids, err := w.PIDs(ctx)
	if err != nil {
		return 0, err
	}
	if len(pids) != crowd {
		return 0, fmt.Errorf("%d processes, not %d", len(pids), crowd)
	}
	held, err := hold(pids, w.InitPID())
	if err != nil {
		return 0, err
	}
	defer held.release()
	ended := make(chan error, 1)
	var end time.Duration
	go func() { err := held.wait(); end = monotonic(); ended <- err }()
	time.Sleep(5 * time.Millisecond) // until it waits
	var begin time.Duration
	if v == fenced {
		ns, err := w.do(ctx, "deviate %s", undeclared)
		if err != nil {
			return 0, err
		}
		begin = time.Duration(ns)
	} else {
		begin = monotonic()
		if err := unix.PidfdSendSignal(held.init, unix.SIGKILL, nil, 0); err != nil {
			return 0, err
		}
	}
	err = <-ended
	return milliseconds(end - begin), err
}

// held is processes by descriptors that tell when they end (pidfd_open(2)).
type held struct {
	init   int // the first process: the kernel lets it end after all the others of its pid namespace
	others []int
}

func hold(pids []int, init int) (*held, error) {
	h := &held{init: -1}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			h.release()
			return nil, os.NewSyscallError("pidfd_open", err)
		}
		if pid == init {
			h.init = fd
		} else {
			h.others = append(h.others, fd)
		}
	}
	return h, nil
}

// wait waits for the first process first, so that this process wakes once and takes no time from those that die.
func (h *held) wait() error {
	for _, fd := range append([]int{h.init}, h.others...) {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20000)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 {
				return fmt.Errorf("the container does not die (%w)", err)
			}
			break
		}
	}
	return nil
}

func (h *held) release() {
	for _, fd := range append([]int{h.init}, h.others...) {
		_ = unix.Close(fd)
	}
}

func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}

// measureMemory looks at the shim of the long-lived container: alone under runc, with its guard under Stockade.
func measureMemory(_ context.Context, b *bench, h *host, v variant) error {
	shim, err := h.micro.ShimPID()
	if err != nil {
		return err
	}
	pids := []int{shim}
	if v == fenced {
		children, err := childrenOf(shim, "stockade-guard")
		if err != nil || len(children) != 1 {
			return fmt.Errorf("guards of the shim: %v (%w)", children, err)
		}
		pids = append(pids, children...)
	}
	for _, kind := range []string{"Pss", "Rss"} {
		total := 0
		for _, pid := range pids {
			kb, err := rollup(pid, kind)
			if err != nil {
				return err
			}
			total += kb
		}
		b.results.add("shim memory, "+kind, v, float64(total)/1024)
	}
	return nil
}

// rollup reads a line of /proc/PID/smaps_rollup, in KiB (proc_pid_smaps(5)).
func rollup(pid int, kind string) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, kind+":"); ok {
			return strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return 0, fmt.Errorf("no %s of process %d", kind, pid)
}

func childrenOf(parent int, comm string) (pids []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		data, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		var pid, ppid int
		var name, state string
		if _, err := fmt.Sscan(string(data), &pid, &name, &state, &ppid); err == nil && ppid == parent && name == "("+comm+")" {
			pids = append(pids, pid)
		}
	}
	return pids, err
}
