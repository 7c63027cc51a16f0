package enforce

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/stockade-dev/stockade/profiles"
)

// livePlan is what a container is judged by.
type livePlan struct {
	armed *profiles.Plan // with which it was made: its filter and its mounts stay those of this plan
	now   atomic.Pointer[profiles.Plan]
	text  atomic.Pointer[profiles.Plan] // whose AppArmor text the kernel has for the container
	// The text is, or may be, one that only complains.
	complains atomic.Bool
}

func (p *livePlan) arm(plan *profiles.Plan) {
	p.armed = plan
	p.now.Store(plan)
	p.text.Store(plan)
	p.complains.Store(plan.Mode != profiles.ModeEnforce)
}

// Confining tells that the kernel is about to be given plan's AppArmor text for the container.
func (c *Container) Confining(plan *profiles.Plan) {
	if plan.Mode != profiles.ModeEnforce {
		c.plan.complains.Store(true)
	}
}

// Confined tells that the kernel has plan's AppArmor text for the container now, and that every record of the text before
// has been taken. It comes before Replace.
func (c *Container) Confined(plan *profiles.Plan) {
	c.plan.text.Store(plan)
	c.plan.complains.Store(plan.Mode != profiles.ModeEnforce)
}

// Plan is the plan in force.
func (c *Container) Plan() *profiles.Plan { return c.plan.now.Load() }

// Replace puts plan in force for a running container. When it returns without an error every decision is by plan: the
// mounts that plan has to be asked about are marked before it decides the first event, and no ignore mark of the plan
// before is left. With an error the plan before stays in force, whole.
//
// What is not decided here but by what the container was made with (see profiles.Adapt) is not for Replace: plan must
// be one that holds with that.
func (l *Loop) Replace(c *Container, plan *profiles.Plan) error {
	c.marks.Lock()
	defer c.marks.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	want := c.masks(plan)
	for m, mask := range want { // before the first decision by plan
		more := mask &^ m.marked
		if more == 0 {
			continue
		}
		err := m.err
		if err == nil {
			err = m.mark(l.group, more)
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", m.dest, err)
		}
	}
	if opensUring(plan) {
		c.uring.Store(true)
	}
	if fixes(plan) {
		c.fixed.Store(true)
	}
	if plan.MountsLater {
		c.mounting.Store(true)
	}
	before := c.plan.now.Swap(plan)
	if err := l.forget(c); err != nil {
		c.plan.now.Store(before)
		return errors.Join(err, l.forget(c))
	}
	for m, mask := range want {
		if less := m.marked &^ mask; less != 0 && m.fd >= 0 {
			m.unmark(l.group, less)
		}
	}
	return nil
}

// forget ends every ignore mark that c's earlier plan has caused. Whoever is about to set one holds c.mu and looks at
// the plan under it, so none of an earlier plan comes after. The kernel takes the marks of the whole group away: the
// other containers are looked at anew, which costs them a question for each directory.
func (l *Loop) forget(c *Container) error {
	c.mu.Lock()
	clear(c.ignored)
	err := l.group.Unignore()
	c.mu.Unlock()
	for _, o := range l.All() {
		if o != c {
			o.mu.Lock()
			clear(o.ignored)
			o.mu.Unlock()
		}
	}
	return err
}

// Places lists the container's mounts as they were when it was armed.
func (c *Container) Places() []profiles.Place {
	var places []profiles.Place
	for _, m := range c.mounts {
		places = append(places, profiles.Place{Path: m.dest, ReadOnly: m.readOnly, NoExec: m.noexec})
	}
	slices.SortFunc(places, func(a, b profiles.Place) int { return strings.Compare(a.Path, b.Path) })
	return places
}

// Dead reports whether the container was killed.
func (c *Container) Dead() bool { return c.dead.Load() }

// fixes says whether a process may take the randomness from where its programs' stacks lie (personality(2)). The sets
// of calls let it do so with no arguments that would.
func fixes(plan *profiles.Plan) bool { return declares(plan, "personality") }

func opensUring(plan *profiles.Plan) bool {
	return plan.Decide(&profiles.Access{Kind: profiles.Syscall, Name: "io_uring_setup"}).Allowed()
}
