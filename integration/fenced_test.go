package integration_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/shim/incident"
)

// fenced runs a container under Stockade on n until end is called, or the test ends.
func fenced(t *testing.T, n *node.Node, o node.RunOpts) *node.Task {
	t.Helper()
	o.Runtime = node.Stockade
	task, err := n.Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, n.LogTail())
	}
	t.Cleanup(func() {
		if err := task.Delete(context.Background()); err != nil {
			t.Errorf("delete %s: %v", task.ID, err)
		}
	})
	return task
}

// incidentsOf lists a container's incidents after its task was deleted: its shim writes the last one before it ends.
func incidentsOf(t *testing.T, n *node.Node, task *node.Task) []incident.Incident {
	t.Helper()
	if err := task.DeleteTask(t.Context()); err != nil {
		t.Errorf("delete the task %s: %v", task.ID, err)
	}
	if err := task.WaitShim(t.Context()); err != nil {
		t.Error(err)
	}
	return incidentsNow(t, n, task.ID)
}

func incidentsNow(t *testing.T, n *node.Node, id string) []incident.Incident {
	t.Helper()
	all, damaged, err := incident.List(n.IncidentsDir(), incident.Filter{Container: id})
	if err != nil || len(damaged) > 0 {
		t.Errorf("incidents: %v, damaged: %v", err, damaged)
	}
	var own []incident.Incident
	for _, i := range all {
		if i.Container == id {
			own = append(own, i)
		}
	}
	return own
}

// noIncident ends the task and fails when anything was held against it.
func noIncident(t *testing.T, n *node.Node, task *node.Task) {
	t.Helper()
	for _, i := range incidentsOf(t, n, task) {
		t.Errorf("%s: wrongly: %s\n%+v\n%s", task.ID, incident.Cause(&i), i, n.LogTail())
	}
}

// stop sends sig and expects the exit code that a service which ends in order has.
func stop(t *testing.T, task *node.Task, sig unix.Signal, want int) {
	t.Helper()
	if err := task.Kill(t.Context(), sig); err != nil {
		t.Fatalf("kill: %v\n%s", err, task.Output())
	}
	if code, err := task.Wait(t.Context()); err != nil || code != want {
		t.Fatalf("exit code %d, %v; want %d\n%s", code, err, want, task.Output())
	}
}

// session runs a program in the container and returns what it wrote to its standard output.
func session(t *testing.T, task *node.Task, args ...string) string {
	t.Helper()
	out, code, err := trySession(t.Context(), task, node.ExecOpts{Args: args})
	if err != nil || code != 0 {
		t.Fatalf("%q: exit code %d, %v\n%s\ncontainer: %s", args, code, err, out, task.Output())
	}
	return out
}

func trySession(ctx context.Context, task *node.Task, o node.ExecOpts) (output string, code int, err error) {
	e, err := task.Exec(ctx, o)
	if err != nil {
		return "", 0, err
	}
	code, err = e.Wait(ctx)
	return e.Output(), code, errors.Join(err, e.Delete(ctx))
}

// dial connects from inside the container's network namespace. The thread that enters it never comes back.
func dial(task *node.Task, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", task.InitPID()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- result{err: err}
			return
		}
		defer unix.Close(ns)
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- result{err: err}
			return
		}
		conn, err := net.DialTimeout(network, address, 10*time.Second)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// eventually tries until what is expected comes, or the test's container is dead.
func eventually(t *testing.T, task *node.Task, what string, try func() error) {
	t.Helper()
	var err error
	for range 4800 { // two minutes: a database is made slowly where every instruction is translated
		if err = try(); err == nil {
			return
		}
		if _, gone := os.Stat(fmt.Sprintf("/proc/%d", task.InitPID())); gone != nil {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	for _, i := range incidentsNow(t, shared, task.ID) {
		t.Log(incident.Cause(&i))
	}
	t.Fatalf("%s: %v\n%s", what, err, task.Output())
}

// redisConn speaks as much of Redis's protocol as inline commands need.
type redisConn struct {
	net.Conn
	r *bufio.Reader
}

func dialRedis(task *node.Task) (*redisConn, error) {
	c, err := dial(task, "tcp", "127.0.0.1:6379")
	if err != nil {
		return nil, err
	}
	return &redisConn{c, bufio.NewReader(c)}, nil
}

// do sends one command and returns its reply: a line, or the text of a bulk string.
func (c *redisConn) do(command string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	switch {
	case strings.HasPrefix(line, "-"):
		return "", errors.New(line)
	case strings.HasPrefix(line, "$") && line != "$-1":
		var n int
		if _, err := fmt.Sscanf(line, "$%d", &n); err != nil {
			return "", err
		}
		buf := make([]byte, n+2)
		for got := 0; got < len(buf); {
			k, err := c.r.Read(buf[got:])
			if err != nil {
				return "", err
			}
			got += k
		}
		return string(buf[:n]), nil
	}
	return line, nil
}

// volume makes a directory on the host that containers mount; everybody may write to it.
func volume(t *testing.T, mode os.FileMode, uid int) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, mode), os.Chown(dir, uid, uid)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// keeping is a volume with a file, keep, and a folder, tmp, of which profiles declare the folder alone writable.
func keeping(t *testing.T) string {
	t.Helper()
	dir := volume(t, 0o777, 0)
	if err := errors.Join(os.Mkdir(dir+"/tmp", 0o777), os.WriteFile(dir+"/keep", nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	return dir
}
