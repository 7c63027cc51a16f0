package shim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/selection"
	"github.com/stockade-dev/stockade/shim/control/api"
)

// live is what of a fence changes while its container runs.
type live struct {
	sync.Mutex
	waits  []profiles.Wait // what of the plan in force waits for the container's next start
	failed string          // why the last reload changed nothing
	when   time.Time       // of the last change
	ended  bool
}

// errEnded: there is nothing to change any more.
var errEnded = errors.New("the container has ended")

// Reload chooses the profiles of running containers again and puts in force what can be.
func (e *engine) Reload(ctx context.Context, peer api.Peer, r api.ReloadRequest) (*api.ReloadResponse, error) {
	if !r.DryRun {
		e.reloads.Add(1)
	}
	resp := &api.ReloadResponse{Containers: []api.Reloaded{}}
	for _, f := range e.sorted() {
		if !f.asked(r) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err // the store is being read for nobody
		}
		done, err := f.reload(r.DryRun, fmt.Sprintf("pid %d, uid %d", peer.PID, peer.UID))
		if errors.Is(err, errEnded) {
			continue
		}
		resp.Containers = append(resp.Containers, done)
	}
	return resp, nil
}

func (e *engine) sorted() []*fence {
	all := e.fences()
	slices.SortFunc(all, func(a, b *fence) int { return strings.Compare(a.key(), b.key()) })
	return all
}

// asked says whether a request is about f.
func (f *fence) asked(r api.ReloadRequest) bool {
	return (r.Namespace == "" || r.Namespace == f.task.namespace) &&
		(r.Container == "" || r.Container == f.task.id) &&
		(r.Profile == "" || r.Profile == f.now().Name)
}

// catchUp reloads a container that was made while a reload was asked for.
func (f *fence) catchUp() {
	_, _ = f.reload(false, "the shim: the profiles have changed while the container was made")
}

// reload chooses the container's profile again, as Create did, and puts it in force. With an error nothing has
// changed; the answer has it too.
func (f *fence) reload(dry bool, by string) (api.Reloaded, error) {
	f.live.Lock()
	defer f.live.Unlock()
	done := api.Reloaded{
		Namespace: f.task.namespace, ID: f.task.id, Pod: f.task.pod, PodNamespace: f.task.request.Facts.Namespace,
		Before: stateOf(f.now()),
	}
	if f.live.ended || f.container.Dead() {
		return done, errEnded
	}
	plan, waits, err := f.adapted()
	if err == nil && !dry {
		err = f.replace(plan)
	}
	if errors.Is(err, os.ErrClosed) {
		return done, errEnded
	}
	done.After, done.Waits = stateOf(plan), waitsOf(waits)
	if err != nil {
		done.After, done.Waits, done.Failed = done.Before, waitsOf(f.live.waits), err.Error()
	}
	if !dry {
		f.reloadedLocked(done, waits, by)
	}
	return done, err
}

// replace puts plan in force. One that is in force already is left alone: what the kernel was told not to ask about
// any more need not be asked about again.
func (f *fence) replace(plan *profiles.Plan) error {
	before := f.now()
	if plan == before {
		return nil
	}
	err := f.rearm(plan)
	if err == nil {
		err = f.engine.loop.Replace(f.container, plan)
	}
	if err == nil || errors.Is(err, os.ErrClosed) {
		return err
	}
	if back := f.rearm(before); back != nil { // the old one, whole, or none: AppArmor may have what nobody decides by
		f.kill()
		return errors.Join(err, fmt.Errorf("the profile before cannot be put back, the container is killed: %w", back))
	}
	return err
}

// rearm replaces AppArmor's text by plan's, if there is one.
func (f *fence) rearm(plan *profiles.Plan) error {
	if f.armor == nil || plan.AppArmor == nil {
		return nil
	}
	return f.engine.armor.renew(f.armor, plan)
}

// adapted is the plan that the store now gives the container, as far as it can hold while it runs.
func (f *fence) adapted() (*profiles.Plan, []profiles.Wait, error) {
	now := f.now()
	p, err := f.engine.profile(f.task)
	if errors.Is(err, selection.ErrNoMatch) && now.Digest == unprofiled().Digest() {
		return now, f.live.waits, nil
	}
	if err != nil {
		// What the node does with containers that have no profile (noProfile) is for those that start: one that runs
		// under a profile is not let loose because that was deleted.
		return now, nil, err
	}
	next, err := f.engine.compile(p)
	if err != nil {
		return now, nil, err
	}
	if next.Digest == now.Digest && next.Name == now.Name {
		return now, f.live.waits, nil
	}
	plan, waits := profiles.Adapt(f.plan, next, f.container.Places())
	if f.reach != "" && next.Mode == profiles.ModeEnforce && !next.Accepts(profiles.UnenforcedHost) {
		waits = append(waits, profiles.Wait{Part: "host", Weaker: true, What: "the profile does not accept any more that " + f.reach + "; it would not be started"})
	}
	return plan, waits, nil
}

// reloadedLocked takes note of a reload and tells of it. live is held.
func (f *fence) reloadedLocked(done api.Reloaded, waits []profiles.Wait, by string) {
	entry := logrus.WithFields(logrus.Fields{
		"id": f.task.id, "profile": done.Before.Profile, "digest": done.Before.Digest, "mode": done.Before.Mode, "by": by,
	})
	failed := f.live.failed
	f.live.failed = done.Failed
	switch {
	case done.Failed != "":
		entry.Error("stockade: the profile of a running container cannot be reloaded; the old one stays in force: " + done.Failed)
		if done.Failed != failed {
			f.engine.report.notReloaded(f, f.now(), done.Failed)
		}
	case !done.Changed():
		entry.Debug("stockade: reloaded: nothing has changed")
	default:
		f.live.waits, f.live.when = waits, time.Now()
		entry.WithFields(logrus.Fields{
			"newProfile": done.After.Profile, "newDigest": done.After.Digest, "newMode": done.After.Mode,
		}).Warn("stockade: the profile of a running container was changed")
		for _, w := range waits {
			if w.Weaker {
				entry.Warn("stockade: until the container is started again: " + w.What)
			}
		}
	}
	if done.Changed() || failed != done.Failed {
		f.recordLocked()
	}
}

func stateOf(p *profiles.Plan) api.State {
	return api.State{Profile: p.Name, Digest: p.Digest, Mode: p.Mode.String(), OnViolation: p.OnViolation.String()}
}

func waitsOf(waits []profiles.Wait) []api.Wait {
	var out []api.Wait
	for _, w := range waits {
		out = append(out, api.Wait{Part: w.Part, What: w.What, Weaker: w.Weaker})
	}
	// What an admin must act on comes first.
	slices.SortStableFunc(out, func(a, b api.Wait) int { return cmp.Compare(weight(b), weight(a)) })
	return out
}

func weight(w api.Wait) int {
	if w.Weaker {
		return 1
	}
	return 0
}
