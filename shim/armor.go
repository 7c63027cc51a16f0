package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/apparmor"
	"github.com/stockade-dev/stockade/shim/audit"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/enforce"
	"github.com/stockade-dev/stockade/shim/lsm"
)

// armor is AppArmor's part of an engine: it loads profiles, and reads what the kernel records of them.
type armor struct {
	loader  *lsm.Loader
	records *audit.Reader
	fail    func(error) // what is called when records can no longer be read
	lost    *uint32     // by the kernel, so far; nil: it was not asked yet; the ticker's own
	over    chan struct{}

	taking sync.Mutex // held while a record is handled: who is forgotten is not in the middle of one

	mu      sync.Mutex
	wearers map[string]*wearer // by the name of the container's profile; guarded by mu
}

// wearer is a container with a profile of AppArmor's.
type wearer struct {
	f             *fence
	name, session string
	gone          chan struct{} // closed when the kernel has recorded that the profile went

	// Guarded by the armor's mu.
	loaded  chan struct{} // closed when the kernel has recorded that the profile came
	leaving bool          // that it goes is our doing
	harm    string        // what somebody else has done to the profile, "" for nothing
}

const (
	// recordWait bounds how long a record may be on its way from the kernel. It takes a fraction of a millisecond.
	recordWait = 5 * time.Second
	// lookEvery is how often the kernel is asked whether it has lost records, and still enforces.
	lookEvery = 10 * time.Second
)

func armorLoader(cfg config.Config) (*lsm.Loader, error) {
	parser, err := lsm.FindParser()
	return &lsm.Loader{Parser: parser, Dir: filepath.Join(cfg.State, "apparmor"), Prefix: apparmor.Prefix}, err
}

// newArmor is for a node with AppArmor. What shims that have died left behind is unloaded.
func newArmor(cfg config.Config, fail func(error)) (*armor, error) {
	loader, err := armorLoader(cfg)
	if err != nil {
		return nil, err
	}
	a := &armor{loader: loader, fail: fail, wearers: map[string]*wearer{}, over: make(chan struct{})}
	if a.records, err = audit.Open(); err != nil {
		return nil, fmt.Errorf("what AppArmor refuses would not be seen: %w", err)
	}
	if _, err := loader.Sweep(); err != nil {
		logrus.WithError(err).Warn("stockade: AppArmor profiles of shims that have died")
	}
	a.count()
	go a.run()
	go a.look()
	return a, nil
}

func (a *armor) close() {
	close(a.over)
	_ = a.records.Close()
}

// run hands on records for as long as the engine lives.
func (a *armor) run() {
	for {
		r, err := a.records.Read()
		switch {
		case errors.Is(err, audit.ErrLost):
			a.tellLost()
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			a.fail(err)
			return
		case r.AppArmor != nil:
			a.take(&r)
		}
	}
}

// look asks the kernel from time to time what no record says.
func (a *armor) look() {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		select {
		case <-a.over:
			return
		case <-ticks.C:
		}
		if a.count() {
			a.tellLost()
		}
		if above, err := a.loader.Kernel.Overruled(); err == nil && above != "" {
			a.disarmed(above)
		}
	}
}

// count looks whether the kernel has lost records before they reached anybody, since it was last asked.
func (a *armor) count() bool {
	now, err := a.records.Lost()
	if err != nil {
		return false
	}
	before := a.lost
	a.lost = &now
	return before != nil && *before != now
}

// disarmed: AppArmor was told to complain only, or to record nothing, on the whole node and after containers had begun.
// Nothing holds the profiles of those that are to be held by it.
func (a *armor) disarmed(why string) {
	for _, w := range a.all() {
		if c := w.f.enforced(); c != nil && c.Plan().Mode == profiles.ModeEnforce && !c.Dead() {
			logrus.WithField("id", w.f.task.id).Error("stockade: AppArmor does not hold the container any more, it is killed: " + why)
			w.f.kill()
		}
	}
}

// tellLost makes an incident of each container's: what was refused and not recorded was refused all the same.
func (a *armor) tellLost() {
	for _, w := range a.all() {
		w.f.engine.report.put(w.f, enforce.Violation{
			Time: time.Now(), Plan: w.f.now(), Access: profiles.Access{Kind: profiles.Write},
			Verdict: profiles.Verdict{Action: profiles.Report, Reason: profiles.ReasonLost},
		})
	}
}

func (a *armor) all() (list []*wearer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.wearers {
		list = append(list, w)
	}
	return list
}

// take hands one record to the container whose profile it names. A child profile is its parent's.
func (a *armor) take(r *audit.Event) {
	name := r.AppArmor.Profile
	if r.AppArmor.Verdict == "STATUS" {
		name = r.AppArmor.Name
	}
	name, child, _ := strings.Cut(name, "//")
	a.taking.Lock()
	defer a.taking.Unlock()
	a.mu.Lock()
	w := a.wearers[name]
	a.mu.Unlock()
	switch {
	case w == nil:
	case r.AppArmor.Verdict == "STATUS" && child == "":
		a.changed(w, r.AppArmor.Operation)
	case r.AppArmor.Verdict != "STATUS":
		if c := w.f.enforced(); c != nil {
			c.Refused(r)
		}
	}
}

// changed takes note that the profile came, went, or was replaced by somebody else.
func (a *armor) changed(w *wearer, operation string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case operation == "profile_remove":
		closeOnce(w.gone)
		if !w.leaving {
			w.tamperedLocked("removed")
		}
	case closed(w.loaded):
		w.tamperedLocked("replaced")
	default:
		close(w.loaded)
	}
}

// tamperedLocked: somebody has changed the profile in the kernel, and who was confined by it may not be any more. A
// container that is not armed yet cannot be killed: intact tells who arms it.
func (w *wearer) tamperedLocked(how string) {
	w.harm = how
	logrus.WithField("id", w.f.task.id).Errorf("stockade: the container's AppArmor profile %s was %s by somebody else: the container is killed", w.name, how)
	w.f.kill()
}

// intact returns an error if somebody else has changed the profile since it was loaded.
func (a *armor) intact(w *wearer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.harm != "" {
		return fmt.Errorf("the AppArmor profile %s was %s by somebody else", w.name, w.harm)
	}
	return nil
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// closeOnce is for the one goroutine that closes c.
func closeOnce(c chan struct{}) {
	if !closed(c) {
		close(c)
	}
}

// put loads the profile of a container. When it returns the kernel has it, and records of it do arrive here.
func (a *armor) put(f *fence) (*wearer, error) {
	p, session, err := a.text(f.plan, f.plan.Name)
	if err != nil {
		return nil, err
	}
	w := &wearer{f: f, name: p.Copy(f.key()), gone: make(chan struct{})}
	w.session = w.name + session
	a.mu.Lock()
	a.wearers[w.name] = w
	a.mu.Unlock()
	if err := a.load(w, p); err != nil {
		a.forget(w)
		return nil, errors.Join(err, a.loader.Release(w.name, f.key()))
	}
	return w, nil
}

// renew replaces the profile of a running container by that of another plan. The name stays as it is, and with it the
// digest of the first.
func (a *armor) renew(w *wearer, plan *profiles.Plan) error {
	p, session, err := a.text(plan, w.f.plan.Name)
	if err != nil {
		return err
	}
	w.f.container.Confining(plan)
	if err := a.load(w, p); err != nil {
		return err
	}
	w.f.container.Confined(plan)
	a.mu.Lock()
	defer a.mu.Unlock()
	w.session = w.name + session
	return nil
}

// text is what is to be loaded for a plan, under the name of a profile, and what the profile for sessions has behind
// that.
func (a *armor) text(plan *profiles.Plan, name string) (lsm.Profile, string, error) {
	policy := *plan.AppArmor
	policy.Profile = name
	policy.ABI = a.loader.Parser.ABI()
	if plan.Mode == profiles.ModeEnforce && plan.OnViolation == profiles.Kill && a.loader.Parser.Kills() {
		policy.Mode = apparmor.Kill
	}
	text, err := apparmor.Build(policy)
	if err != nil {
		return lsm.Profile{}, "", err
	}
	return lsm.Profile{Name: text.Name, Text: text.Body, Slot: apparmor.Slot}, strings.TrimPrefix(text.Session, text.Name), nil
}

// load gives the kernel a text under the wearer's name, and waits for its record.
func (a *armor) load(w *wearer, p lsm.Profile) error {
	loaded := make(chan struct{})
	a.mu.Lock()
	w.loaded = loaded
	a.mu.Unlock()
	if err := a.loader.Load(p, w.name, w.f.key()); err != nil {
		return err
	}
	select {
	case <-loaded:
		return nil
	case <-time.After(recordWait):
		return errors.New("the kernel has loaded the AppArmor profile, and no audit record of it has come: refusals would not be seen (audit rules of this node that exclude AppArmor's records?)")
	}
}

// sessionOf is the profile that an exec session gets.
func (a *armor) sessionOf(w *wearer) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return w.session
}

// drop unloads a container's profile. Records come in order, so when that of the unloading has come all that the
// container left have been told.
func (a *armor) drop(w *wearer) {
	a.mu.Lock()
	w.leaving = true
	a.mu.Unlock()
	if err := a.loader.Release(w.name, w.f.key()); err != nil {
		logrus.WithError(err).Warn("stockade: unload an AppArmor profile")
	} else {
		select {
		case <-w.gone:
		case <-a.over:
		case <-time.After(time.Second): // a process that is ending still has it; a sweep takes it away later
		}
	}
	a.forget(w)
}

func (a *armor) forget(w *wearer) {
	a.taking.Lock()
	defer a.taking.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.wearers, w.name)
}

// verify looks whether a process that was started does get the container's profile, or a session's. The runtime fails
// when it cannot set it, but which one it set can be seen from outside only once the program is there: until then the
// process runs the runtime's own code.
func (a *armor) verify(w *wearer, pid int) {
	pause := 10 * time.Millisecond
	for wrong := 0; ; time.Sleep(pause) {
		own, err := w.f.container.Runs(pid) // before the label: with its program it has its label
		if err != nil || w.f.container.Dead() {
			return
		}
		label, err := a.loader.Kernel.Label(pid)
		if err != nil || label == w.name || strings.HasPrefix(label, w.name+"//") {
			return // it is gone, or has it
		}
		if pause = min(2*pause, time.Second); own {
			wrong++ // at first it may have been between the two: the kernel sets them one after the other
		}
		if wrong > 1 {
			logrus.WithField("id", w.f.task.id).Errorf("stockade: a process of the container runs with AppArmor's %q and not with %s: it is killed", label, w.name)
			w.f.kill()
			return
		}
	}
}

// sweepArmor unloads what shims that are gone have left.
func sweepArmor(cfg config.Config) {
	if loader, err := armorLoader(cfg); err == nil {
		_, _ = loader.Sweep()
	}
}
