package shim

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/profiles"
)

// A session has no more than the plan in force gives, and no more than the container was made with.
func TestNarrow(t *testing.T) {
	plan := func(mode profiles.Mode, noNewPrivileges bool, capabilities ...string) *profiles.Plan {
		return &profiles.Plan{Mode: mode, NoNewPrivileges: noNewPrivileges, Capabilities: capabilities}
	}
	const enforce, monitor = profiles.ModeEnforce, profiles.ModeMonitor
	for _, c := range []struct {
		what       string
		armed, now *profiles.Plan
		want       []string
		nnp        bool
	}{
		{"nothing has changed", plan(enforce, true, "CAP_CHOWN"), plan(enforce, true, "CAP_CHOWN"), []string{"CAP_CHOWN"}, true},
		{"the profile gives more now", plan(enforce, true, "CAP_CHOWN"), plan(enforce, false, "CAP_CHOWN", "CAP_FOWNER"), []string{"CAP_CHOWN"}, true},
		{"the profile gives less now", plan(enforce, false, "CAP_CHOWN", "CAP_FOWNER"), plan(enforce, true, "CAP_FOWNER"), []string{"CAP_FOWNER"}, true},
		{"it is monitored now", plan(enforce, true), plan(monitor, true), nil, true},
		{"it was made to be monitored", plan(monitor, true), plan(monitor, false), []string{"CAP_CHOWN", "CAP_FOWNER"}, false},
	} {
		all := []string{"CAP_CHOWN", "CAP_FOWNER"}
		p := &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}}
		narrow(p, c.armed, c.now)
		for _, got := range [][]string{p.Capabilities.Bounding, p.Capabilities.Effective, p.Capabilities.Permitted} {
			if !slices.Equal(got, c.want) || p.NoNewPrivileges != c.nnp {
				t.Errorf("%s: %q, no_new_privs %t; want %q, %t", c.what, got, p.NoNewPrivileges, c.want, c.nnp)
			}
		}
	}
}

type key struct{}

func TestLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, hangUp := context.WithTimeout(context.WithValue(t.Context(), key{}, "namespace"), time.Second)
		defer hangUp()
		late, cancel := lingering(ctx)
		defer cancel()
		if _, ok := late.Deadline(); ok || late.Value(key{}) != "namespace" {
			t.Error("it has a deadline, or lacks a value")
		}
		time.Sleep(time.Second + linger - 1)
		synctest.Wait()
		if ctx.Err() == nil || late.Err() != nil {
			t.Errorf("%v, %v: the runtime is killed with the client's call", ctx.Err(), late.Err())
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if late.Err() == nil {
			t.Error("it lingers for ever")
		}
		ended, cancel := lingering(ctx)
		cancel()
		if ended.Err() == nil {
			t.Error("it does not end when it is done with")
		}
	})
}
