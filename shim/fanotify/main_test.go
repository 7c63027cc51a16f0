package fanotify_test

import (
	"context"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/shim/fanotify/fanotifytest"
)

func TestMain(m *testing.M) {
	fanotifytest.Main(m, map[string]fanotifytest.ActorFunc{
		"openloop":    openLoop,
		"grouplimit":  groupLimit,
		"hung":        hungListener,
		"mmapwriter":  mmapWriter,
		"blockedopen": blockedOpen,
		"lease":       leaseHolder,
	})
}

// timeout ends a hung test: it kills the children, and the group's Close lets
// everybody else go on.
func timeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// sh runs a script in root and returns what it printed.
func sh(t testing.TB, root, script string) string {
	t.Helper()
	out, err := fanotifytest.Command(timeout(t), root, "/bin/sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}
