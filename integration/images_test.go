package integration_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

// TestImages runs what the images are for, under plain runc: a case that fails under Stockade must not fail for want of
// a working image.
func TestImages(t *testing.T) {
	const probe = "/usr/local/bin/probe"
	for name, c := range map[string]struct {
		exec []string // tried until it succeeds: the service needs a moment
		want string
	}{
		"redis": {[]string{probe, "send", "127.0.0.1", "6379", "PING"}, "+PONG"},
		"nginx": {[]string{probe, "send", "127.0.0.1", "8080", "GET / HTTP/1.0"}, "It works."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := runTask(t, node.RunOpts{Image: image.Ref(name), Runtime: node.Runc})
			for ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second); ; {
				defer cancel()
				e, err := task.Exec(ctx, node.ExecOpts{Args: c.exec})
				if err != nil {
					t.Fatalf("%v\n%s", err, task.Output())
				}
				if _, err := e.Wait(ctx); err != nil {
					t.Fatalf("%v\n%s", err, task.Output())
				}
				if strings.Contains(e.Output(), c.want) {
					return
				}
			}
		})
	}
	for name, args := range map[string][]string{
		"tools, shell":       {"/bin/sh", "-c", "ls /etc >/dev/null && expr 6 '*' 7 && /usr/local/bin/script"},
		"tools, interpreter": {"/usr/bin/python3", "-c", "print(6*7)"},
		"tools, perl":        {"/usr/bin/perl", "-e", "print 6*7"},
		"tools, dynamic":     {"/bin/bash", "-c", "/usr/local/bin/dynamic; LD_PRELOAD=/usr/local/bin/preload.so echo 42"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := runTask(t, node.RunOpts{Image: image.Ref("tools"), Runtime: node.Runc, Args: args})
			if code, err := task.Wait(t.Context()); code != 0 || err != nil || !strings.Contains(task.Output(), "42") {
				t.Errorf("exit code %d, %v\n%s", code, err, task.Output())
			}
		})
	}
}

// runTask runs a container on the shared node until the test ends.
func runTask(t *testing.T, o node.RunOpts) *node.Task {
	t.Helper()
	task, err := shared.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := task.Delete(context.Background()); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	return task
}
