package integration_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

// TestDeviationToDead has one of a hundred processes remove a file that it may not, and says how long it was from right
// before the call until the last of them was dead. What stops it is AppArmor where the node has it, else the filter. For
// comparison: the same crowd under runc, whose first process gets a SIGKILL.
func TestDeviationToDead(t *testing.T) {
	const spec = `
  allow: {exec: [/bin/probe], read: ["@image", /vol/**], write: [/vol/tmp/**]}
  sessions: {allow: {exec: [/bin/probe]}}
`
	profile(t, shared, "to-dead", spec)
	for _, c := range []struct {
		name, runtime string
		deviate       func(*crowd, *testing.T) (begin time.Duration)
	}{
		{"the first process", node.Stockade, (*crowd).first},
		{"a session", node.Stockade, (*crowd).session},
		{"SIGKILL under runc", node.Runc, (*crowd).killed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var took []time.Duration
			for range number("REPEAT", 5, 2) {
				took = append(took, gather(t, c.runtime).end(t, c.deviate))
			}
			t.Logf("100 processes, from the call until the last is dead: %v", took)
		})
	}
}

// crowd is a container of a hundred processes.
type crowd struct {
	task *node.Task
	vol  string
	fds  []unix.PollFd // of its processes (pidfd_open(2))
}

// remove is what the crowd's members may not do.
var remove = []string{"stamp", "unlink", "/vol/keep"}

func gather(t *testing.T, runtime string) *crowd {
	t.Helper()
	c := &crowd{vol: keeping(t)}
	var err error
	c.task, err = shared.Run(t.Context(), node.RunOpts{
		Image: image.Ref("probe"), Profile: "to-dead", Runtime: runtime, Mounts: []specs.Mount{bind(c.vol, "/vol")},
		Args: append([]string{"/bin/probe", "onterm"}, remove...),
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, shared.LogTail())
	}
	if err := c.task.WaitOutput(t.Context(), "waiting"); err != nil {
		t.Fatal(err)
	}
	others, err := c.task.Exec(t.Context(), node.ExecOpts{Args: []string{"/bin/probe", "fork", "98", "3600"}})
	if err == nil {
		err = others.WaitOutput(t.Context(), "forked")
	}
	if err != nil {
		t.Fatal(err)
	}
	pids, err := c.task.PIDs(t.Context())
	if err != nil || len(pids) != 100 {
		t.Fatalf("%d processes, %v", len(pids), err)
	}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(os.NewSyscallError("pidfd_open", err))
		}
		c.fds = append(c.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return c
}

// end has the crowd deviate and returns how long it took until nobody was left.
func (c *crowd) end(t *testing.T, deviate func(*crowd, *testing.T) time.Duration) time.Duration {
	t.Helper()
	ended := make(chan time.Duration, 1)
	go func() {
		for i := range c.fds {
			for {
				if n, err := unix.Poll(c.fds[i:i+1], -1); n == 1 || !errors.Is(err, unix.EINTR) {
					break
				}
			}
			_ = unix.Close(int(c.fds[i].Fd))
		}
		ended <- monotonic()
	}()
	begin := deviate(c, t)
	took := <-ended - begin
	if _, err := c.task.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.vol + "/keep"); err != nil {
		t.Errorf("what may not be removed is not there: %v", err)
	}
	if err := c.task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	return took
}

func (c *crowd) first(t *testing.T) time.Duration {
	t.Helper()
	if err := c.task.Kill(t.Context(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return c.said(t, c.task.Output)
}

func (c *crowd) session(t *testing.T) time.Duration {
	t.Helper()
	e, err := c.task.Exec(t.Context(), node.ExecOpts{Args: append([]string{"/bin/probe"}, remove...)})
	if err != nil {
		t.Fatal(err)
	}
	return c.said(t, e.Output)
}

func (c *crowd) killed(t *testing.T) time.Duration {
	t.Helper()
	begin := monotonic()
	if err := c.task.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return begin
}

// said is the time that a member of the crowd has said right before it deviated.
func (c *crowd) said(t *testing.T, output func() string) time.Duration {
	t.Helper()
	for range 1200 {
		var at int64
		if _, err := fmt.Sscanf(output()[max(strings.Index(output(), "at "), 0):], "at %d ns", &at); err == nil {
			return time.Duration(at)
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("it says no time: %q", output())
	return 0
}

// monotonic is the clock of stamp (clock_gettime(2)).
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}
