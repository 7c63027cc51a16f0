package enforce

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/fanotify"
)

func TestEventsThatCouldNotBeDeliveredAreTold(t *testing.T) {
	var told []Violation
	c := &Container{report: func(v Violation) { told = append(told, v) }}
	c.plan.arm(compile(t, "{}"))
	l := &Loop{proc: openProc(t), clock: time.Now(), ended: make(chan struct{})}
	l.containers.Store(&[]*Container{c})
	for range 3 {
		// A thread that is gone, as one that cannot be looked at: whose it was cannot be told.
		l.handle(asked{Event: fanotify.Event{FD: -int(unix.EMFILE), TID: 1 << 30, Mask: fanotify.OpenExecPerm}})
	}
	if len(told) != 1 {
		t.Fatalf("told %d times, want once", len(told))
	}
	v := told[0]
	if v.Verdict.Action != profiles.Deny || v.Access.Kind != profiles.Exec || !errors.Is(v.Err, unix.EMFILE) {
		t.Errorf("told %+v", v)
	}
}
