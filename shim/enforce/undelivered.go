package enforce

import (
	"fmt"
	"time"

	"github.com/stockade-dev/stockade/profiles"
)

// sayAgain is how long nothing more is said of events that the kernel could not deliver: they come by the thousand.
const sayAgain = 10 * time.Second

// undelivered tells of an event that came without a descriptor, mostly because this process has none left. The kernel
// has denied the access, declared or not, and the group has counted it. Nobody is killed for it: it is not the
// container's doing. Whose it was can often not be told, since that takes a descriptor too: then it is told of all.
func (l *Loop) undelivered(ev asked) {
	now := time.Since(l.clock)
	if !l.said.IsZero() && now-l.said.Sub(l.clock) < sayAgain {
		return
	}
	of := l.All()
	if c, err := l.owner(ev.TID); err == nil && c == nil {
		return // not of a container of ours
	} else if err == nil {
		of = []*Container{c}
	}
	l.said = l.clock.Add(now)
	kind := profiles.Read
	if ev.Exec() {
		kind = profiles.Exec
	}
	for _, c := range of {
		c.report(Violation{
			Time: time.Now(), Plan: c.Plan(), TID: ev.TID,
			Access:  profiles.Access{Kind: kind},
			Verdict: profiles.Verdict{Action: profiles.Deny},
			Err:     fmt.Errorf("denied by the kernel, which could not deliver the event: %w", ev.Undelivered()),
		})
	}
}
