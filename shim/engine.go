package shim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/control"
	"github.com/stockade-dev/stockade/shim/enforce"
	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/features"
	"github.com/stockade-dev/stockade/shim/guard"
)

// engine is what all containers of one shim share: the fanotify group and the loop that answers it, the guard, the
// reporter, and what this node can do.
type engine struct {
	cfg     config.Config
	target  profiles.Target
	group   *fanotify.Group
	guard   *guard.Guard
	loop    *enforce.Loop
	report  *reporter
	control *control.Server // nil: it could not be opened
	fences  func() []*fence
	reloads atomic.Uint64 // that were asked for
	armor   *armor        // nil: this node has no AppArmor
	closing atomic.Bool
	broken  atomic.Pointer[error] // why nothing can be protected any more
}

func newEngine(cfg config.Config, pub containerd.Publisher, fences func() []*fence) (_ *engine, err error) {
	e := &engine{cfg: cfg, fences: fences}
	defer func() {
		if err != nil {
			e.close(context.Background())
		}
	}()
	if e.report, err = newReporter(cfg, pub); err != nil {
		return nil, err
	}
	if e.group, err = openGroup(cfg.RaiseLimits); err != nil {
		return nil, err
	}
	// After our own group, so that the probe's cannot take the last one.
	if e.target = features.Probe().Target; e.target.Fanotify != profiles.Yes && cfg.RaiseLimits && raiseGroups() == nil {
		e.target = features.Probe().Target
	}
	if err := features.SaveTarget(cfg.State, e.target); err != nil {
		logrus.WithError(err).Warn("stockade: others on this node will not know what it can do")
	}
	binary, err := cfg.GuardPath()
	if err != nil {
		return nil, err
	}
	log, err := guardLog(cfg)
	if err != nil {
		return nil, err
	}

	if e.guard, err = guard.Start(binary, e.group.File(), guard.WithLog(log)); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	if e.loop, err = enforce.NewLoop(e.group, e.guard); err != nil {
		return nil, err
	}
	if e.target.AppArmor == profiles.Yes {
		if e.armor, err = newArmor(cfg, e.fail); err != nil {
			return nil, err
		}
	}
	go e.run()
	go e.keepGuard()
	e.listen()
	return e, nil
}

// guardLog is where the guard says that it has killed: the shim, which says everything else, is gone by then.
func guardLog(cfg config.Config) (*os.File, error) {
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(cfg.State, "guard.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// run answers events for as long as the shim lives. If it cannot go on, no container may.
func (e *engine) run() {
	if err := e.loop.Run(); err != nil && !e.closing.Load() {
		e.fail(fmt.Errorf("the event loop has ended: %w", err))
	}
}

// keepGuard starts the guard again when it has died. Without a guard no container may go on.
func (e *engine) keepGuard() {
	for {
		<-e.guard.Done()
		if e.closing.Load() {
			return
		}
		logrus.Warn("stockade: the guard has died; starting it again")
		if err := e.guard.Restart(); err != nil && !e.closing.Load() {
			e.fail(fmt.Errorf("the guard has died and does not start again: %w", err))
			return
		}
	}
}

// fail kills every container: something that protects them is gone for good.
func (e *engine) fail(why error) {
	e.broken.Store(&why)
	for _, c := range e.loop.All() {
		if err := c.Kill(); err != nil {
			why = errors.Join(why, err)
		}
	}
	logrus.WithError(why).Error("stockade: every container of this shim was killed")
}

// healthy says why nothing can be started, if so.
func (e *engine) healthy() error {
	if why := e.broken.Load(); why != nil {
		return *why
	}
	return nil
}

func (e *engine) close(ctx context.Context) {
	if e.closing.Swap(true) {
		return
	}
	if e.control != nil {
		_ = e.control.Close()
	}
	if e.guard != nil {
		_ = e.guard.Close()
	}
	if e.armor != nil {
		e.armor.close()
	}
	if e.group != nil {
		_ = e.group.Close()
	}
	if e.report != nil {
		e.report.close(ctx)
	}
}

const maxUserGroups = "/proc/sys/fs/fanotify/max_user_groups"

// openGroup makes the fanotify group. The kernel allows a user, root too, 128 of them by default, which is fewer than
// a node has pods: when they are used up the limit is raised, if the node's configuration lets us.
func openGroup(raise bool) (*fanotify.Group, error) {
	for range 8 {
		g, err := fanotify.Open()
		if err == nil || !errors.Is(err, fanotify.ErrGroupLimit) {
			return g, err
		}
		if !raise {
			return nil, fmt.Errorf("%w: raise it (sysctl fs.fanotify.max_user_groups=4096), or set raiseLimits: true in the node's configuration", err)
		}
		if err := raiseGroups(); err != nil {
			return nil, fmt.Errorf("%w: and it cannot be raised: %w", fanotify.ErrGroupLimit, err)
		}
	}
	return nil, fanotify.ErrGroupLimit
}

func raiseGroups() error {
	data, err := os.ReadFile(maxUserGroups)
	if err != nil {
		return err
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("%s: %w", maxUserGroups, err)
	}
	next := max(2*now, 1024)
	logrus.Warnf("stockade: raising fs.fanotify.max_user_groups from %d to %d", now, next)
	return os.WriteFile(maxUserGroups, []byte(strconv.Itoa(next)), 0o644)
}

// socketDir makes the folder for the listener's socket of one container: a path short enough for sun_path (unix(7)),
// and one that whoever cleans up after a dead shim finds again.
func socketDir(state, namespace, id string) (string, error) {
	dir := socketPath(state, namespace, id)
	if err := os.RemoveAll(dir); err != nil { // of a shim that has died
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

func socketPath(state, namespace, id string) string {
	base := filepath.Join(state, "n")
	if len(base) > 60 {
		base = "/run/stockade/n"
	}
	sum := sha256.Sum256([]byte(state + "\x00" + namespace + "\x00" + id))
	return filepath.Join(base, hex.EncodeToString(sum[:10]))
}
