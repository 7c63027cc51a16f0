package shim

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/selection"
	"github.com/stockade-dev/stockade/profiles/selection/nodekey"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
)

// errRefused: the container or session is not to run, by decision and not by mishap.
var errRefused = errors.New("refused by stockade")

// task is what is known of a container before it runs.
type task struct {
	namespace   string // containerd's
	id          string
	sandbox     bool // a pod's pause container
	request     selection.Request
	bearer      selection.Bearer
	annotations map[string]string
	pod         string
	podUID      string
}

func describe(ns, id string, spec *specs.Spec) task {
	c := selection.FromAnnotations(id, spec.Annotations)
	return task{
		namespace: ns, id: id, sandbox: c.Pause, request: c.Request, bearer: c.Bearer, annotations: spec.Annotations,
		pod: c.Pod, podUID: c.PodUID,
	}
}

// choose picks the profile of a task and compiles it for this node. A nil plan means that the node's configuration
// lets the container run without.
func (e *engine) choose(t task) (*profiles.Plan, error) {
	p, err := e.profile(t)
	if errors.Is(err, selection.ErrNoMatch) {
		switch e.cfg.NoProfile {
		case config.Run:
			return nil, nil
		case config.Monitor:
			p, err = unprofiled(), nil
		default:
			err = e.noProfile(t, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return e.compile(p)
}

// compile makes the plan of a profile on this node.
func (e *engine) compile(p *profiles.Profile) (*profiles.Plan, error) {
	plan, err := profiles.Compile(p, e.target)
	if err != nil {
		return nil, fmt.Errorf("%w: profile %s does not hold on this node: %w", errRefused, p.Name, err)
	}
	return plan, nil
}

// profile finds the declared profile of t. errors.Is(err, selection.ErrNoMatch) when there is none.
func (e *engine) profile(t task) (*profiles.Profile, error) {
	st, err := store.OpenRoots(store.Roots{Profiles: e.cfg.Profiles, Cluster: e.cfg.Cluster, LastGood: e.cfg.LastGood})
	if err != nil {
		return nil, err
	}
	p, err := e.selectFrom(st, t)
	if err == nil {
		if s := st.StandIn(p.Name); s != nil {
			logrus.WithFields(logrus.Fields{"id": t.id, "profile": p.Name}).Error("stockade: " + s.Error())
		}
	}
	return p, err
}

// selectFrom chooses from the store by what the plugin has said of the container, or by what the shim itself knows if
// the plugin has not seen it.
func (e *engine) selectFrom(set selection.Set, t task) (*profiles.Profile, error) {
	if !signed(t.annotations) {
		if e.cfg.RequirePlugin && t.request.Facts.CRI {
			return nil, errors.New("stockade-nri has not seen this container, and `requirePlugin: true` in the node's configuration asks for that: " +
				"is the plugin running? `stockade doctor` says")
		}
		return selection.Select(t.request, set)
	}
	key, err := nodekey.Load(e.cfg.SelectionKey)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", selection.ErrForged, err)
	}
	said, err := key.Verify(t.bearer, t.annotations)
	if err != nil {
		return nil, err
	}
	return confirm(said, t, set)
}

// signed reports whether any annotation claims to be the plugin's.
func signed(annotations map[string]string) bool {
	for a := range annotations {
		if selection.Reserved(a) {
			return true
		}
	}
	return false
}

// confirm chooses again, from the root-owned store and with the facts that the plugin has vouched for. The plugin may
// have seen an earlier state of the store: a newer version of the same profile is taken, another profile is not.
func confirm(said *selection.Statement, t task, set selection.Set) (*profiles.Profile, error) {
	p, err := selection.Select(said.Request(t.request), set)
	if said.Name == "" {
		return p, err
	}
	if errors.Is(err, selection.ErrNoMatch) {
		return nil, fmt.Errorf("stockade-nri has chosen profile %s, which is no longer in the store for this container (%s)", said.Name, err)
	}
	if err != nil {
		return nil, err
	}
	if p.Name != said.Name {
		return nil, fmt.Errorf("stockade-nri has chosen profile %s, and the store now says %s: it has changed in between, try again", said.Name, p.Name)
	}
	if d := p.Digest(); d != said.Digest {
		logrus.WithFields(logrus.Fields{"id": t.id, "profile": p.Name, "chosen": said.Digest, "taken": d}).
			Warn("stockade: the profile has changed since stockade-nri has chosen it; the newer one is taken")
	}
	return p, nil
}

func (e *engine) noProfile(t task, why error) error {
	what := "container " + t.id
	if image := t.request.Facts.Image; image != "" {
		what = fmt.Sprintf("container %s (image %s)", t.id, image)
	}
	return fmt.Errorf("no profile for %s: write one into %s with a match for it, or name one in the annotation %s; "+
		"`noProfile: monitor` in the node's configuration would let it run and report (%w)", what, e.cfg.Profiles, selection.Annotation, why)
}

// unprofiled declares nothing and stops nothing: what a container without a profile is watched with.
func unprofiled() *profiles.Profile {
	ps, err := profiles.Parse("builtin", []byte("apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: unprofiled}\nspec: {mode: monitor}\n"))
	if err != nil {
		panic(err) // the text above is a constant
	}
	return ps[0]
}
