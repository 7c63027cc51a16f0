package enforce

import (
	"slices"
	"sync"

	"github.com/stockade-dev/stockade/profiles"
)

// setups are the exec sessions that the runtime is setting up, in the order in which they began, and by which plan they
// were let in.
type setups struct {
	mu    sync.Mutex
	began uint64         // how many there have been
	live  []uint64       // those under way by their number, the oldest first
	begun *profiles.Plan // in force when the first of those under way began; nil: there are none
}

func (s *setups) begin(plan *profiles.Plan) (number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.live) == 0 {
		s.begun = plan
	}
	s.began++
	s.live = append(s.live, s.began)
	return s.began
}

func (s *setups) end(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = slices.DeleteFunc(s.live, func(n uint64) bool { return n == number })
	if len(s.live) == 0 {
		s.begun = nil
	}
}

// latest is the number of the one that began last.
func (s *setups) latest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.began
}

// underWay says whether one of those up to this number has not ended.
func (s *setups) underWay(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live) > 0 && s.live[0] <= number
}

// plan is what a session whose process has just appeared was let in by; now is the plan in force.
func (s *setups) plan(now *profiles.Plan) *profiles.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun == nil {
		return now
	}
	return s.begun
}

// spared is verdict v of plan on an access of a process that runs p. A session that was let in by an earlier plan may
// still try what that one declared: it is stopped, and for that alone the container is neither killed nor frozen. It
// was not the container that deviated: somebody changed the profile while somebody else was inside.
func (p program) spared(plan *profiles.Plan, a *profiles.Access, v profiles.Verdict) profiles.Verdict {
	if v.Action != profiles.Kill && v.Action != profiles.Freeze || !p.session || p.begun == nil || p.begun == plan {
		return v
	}
	if p.begun.Decide(a).Allowed() {
		v.Action = profiles.Deny
	}
	return v
}
