package enforce

import (
	"sync"

	"github.com/stockade-dev/stockade/profiles"
)

// setups counts the exec sessions that the runtime is setting up, and remembers by which plan they were let in.
type setups struct {
	mu    sync.Mutex
	n     int
	begun *profiles.Plan // in force when the first of them began; nil: there are none
}

func (s *setups) begin(plan *profiles.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		s.begun = plan
	}
	s.n++
}

func (s *setups) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n--; s.n == 0 {
		s.begun = nil
	}
}

func (s *setups) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n > 0
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
