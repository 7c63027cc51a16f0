package shim

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
)

// errRefused: the container or session is not to run, by decision and not by mishap.
var errRefused = errors.New("refused by stockade")

// annotation names the profile of a container; with ".CONTAINER" appended, that of one container of a pod.
const annotation = "stockade.dev/profile"

// Annotations that containerd's CRI plugin sets itself, over whatever a pod asks for.
const (
	criType      = "io.kubernetes.cri.container-type"
	criContainer = "io.kubernetes.cri.container-name"
	criImage     = "io.kubernetes.cri.image-name"
	criSandbox   = "io.kubernetes.cri.sandbox-id"
	criPod       = "io.kubernetes.cri.sandbox-name"
	criNamespace = "io.kubernetes.cri.sandbox-namespace"
	criPodUID    = "io.kubernetes.cri.sandbox-uid"
)

// task is what is known of a container before it runs.
type task struct {
	namespace string // containerd's
	id        string
	sandbox   bool // a pod's pause container
	asked     string
	facts     profiles.MatchFacts
	pod       string
	podUID    string
}

func describe(ns, id string, spec *specs.Spec) task {
	a := spec.Annotations
	t := task{namespace: ns, id: id, pod: a[criPod], podUID: a[criPodUID]}
	t.facts = profiles.MatchFacts{
		CRI: a[criType] != "", Image: fullReference(a[criImage]), Namespace: a[criNamespace], Container: a[criContainer],
	}
	t.sandbox = a[criType] == "sandbox" && a[criSandbox] == id
	t.asked = a[annotation]
	if own, ok := a[annotation+"."+a[criContainer]]; ok && a[criContainer] != "" {
		t.asked = own
	}
	return t
}

// fullReference is an image's name as containerd stores it, docker.io/library/redis:7: containerd's annotation has it as
// the pod's author wrote it, which may be redis:7. What is no reference is left as it is.
func fullReference(image string) string {
	if strings.HasPrefix(image, "sha256:") {
		return image // an image's ID, which would pass for the repository sha256
	}
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return image
	}
	return named.String()
}

// choose picks the profile of a task and compiles it for this node. A nil plan means that the node's configuration
// lets the container run without.
func (e *engine) choose(t task) (*profiles.Plan, error) {
	p, err := e.profile(t)
	if errors.Is(err, store.ErrNoMatch) {
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
	plan, err := profiles.Compile(p, e.target)
	if err != nil {
		return nil, fmt.Errorf("%w: profile %s does not hold on this node: %w", errRefused, p.Name, err)
	}
	return plan, nil
}

// profile finds the declared profile of t. errors.Is(err, store.ErrNoMatch) when there is none.
func (e *engine) profile(t task) (*profiles.Profile, error) {
	st, err := store.OpenRoots(store.Roots{Profiles: e.cfg.Profiles, Cluster: e.cfg.Cluster, LastGood: e.cfg.LastGood})
	if err != nil {
		return nil, err
	}
	p, err := e.selected(st, t)
	if err == nil {
		if s := st.StandIn(p.Name); s != nil {
			logrus.WithFields(logrus.Fields{"id": t.id, "profile": p.Name}).Error("stockade: " + s.Error())
		}
	}
	return p, err
}

func (e *engine) selected(st *store.Store, t task) (*profiles.Profile, error) {
	if t.asked == "" {
		return st.Match(t.facts)
	}
	p, err := st.Get(t.asked)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", annotation, err)
	}
	// Outside Kubernetes whoever sets annotations is the node's root, and nothing of what a match asks is known.
	if t.facts.CRI {
		if p.Match == nil {
			return nil, fmt.Errorf("annotation %s: profile %s gives no match, so no pod may choose it", annotation, t.asked)
		}
		if ok, why := p.Match.Holds(t.facts); !ok {
			return nil, fmt.Errorf("annotation %s: profile %s is not for this container: %s", annotation, t.asked, why)
		}
	}
	return p, nil
}

func (e *engine) noProfile(t task, why error) error {
	what := "container " + t.id
	if t.facts.Image != "" {
		what = fmt.Sprintf("container %s (image %s)", t.id, t.facts.Image)
	}
	return fmt.Errorf("no profile for %s: write one into %s with a match for it, or name one in the annotation %s; "+
		"`noProfile: monitor` in the node's configuration would let it run and report (%w)", what, e.cfg.Profiles, annotation, why)
}

// unprofiled declares nothing and stops nothing: what a container without a profile is watched with.
func unprofiled() *profiles.Profile {
	ps, err := profiles.Parse("builtin", []byte("apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: unprofiled}\nspec: {mode: monitor}\n"))
	if err != nil {
		panic(err) // the text above is a constant
	}
	return ps[0]
}
