package nri

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"

	"github.com/stockade-dev/stockade/profiles/selection"
)

// Rules say how containers are treated.
type Rules struct {
	// Handlers are the runtime handlers that start our shim (default
	// stockade).
	Handlers []string
	// DefaultHandler is the handler of pods that name none: containerd's
	// default_runtime_name (default runc).
	DefaultHandler string
	// RequireShim are namespaces in which a container under another handler is
	// refused. * stands for all that are not exempt.
	RequireShim []string
	// Exempt are namespaces in which the plugin refuses nothing: what a node
	// needs to boot (default kube-system, and stockade-system, where the plugin
	// itself may run).
	Exempt []string
	// OtherHandlers is what is done for containers under another handler.
	OtherHandlers OtherHandlers
}

// OtherHandlers is what is done for containers that do not run under our shim
// and that a profile is for.
type OtherHandlers string

// The values of otherHandlers.
const (
	Inject OtherHandlers = "inject" // what NRI can
	Ignore OtherHandlers = "ignore" // nothing
)

// DefaultRules returns what holds where the configuration says nothing.
func DefaultRules() Rules {
	return Rules{Handlers: []string{"stockade"}, DefaultHandler: "runc", Exempt: []string{"kube-system", "stockade-system"}, OtherHandlers: Inject}
}

// View is what the plugin decides from.
type View struct {
	Set  selection.Set  // nil: it could not be read, see Err
	Err  error          // why not, or why the key cannot be used
	Key  *selection.Key // nil: see Err
	Arch string         // in Go's words
	// Kernel is the node's release.
	Kernel string
}

// Action is what is done with a container.
type Action uint8

// The actions.
const (
	Pass    Action = iota // nothing
	Deliver               // the statement to the shim
	Filter                // a seccomp filter in place of the shim
	Bare                  // nothing, though a profile is for it: it says why
	Refuse
)

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

var actionNames = [...]string{"pass", "deliver", "filter", "bare", "refuse"}

// Judgement is what is to be done with a container, and why.
type Judgement struct {
	Action  Action
	Profile string // name; empty if none is for it
	Digest  string
	Why     string // of Filter, Bare and Refuse: what is missing, or wrong
	adjust  *api.ContainerAdjustment
}

func refuse(err error) Judgement { return Judgement{Action: Refuse, Why: err.Error()} }

// Judge decides about a container that is to be made.
func (r *Rules) Judge(v *View, pod *api.PodSandbox, c *api.Container) Judgement {
	ours := r.ours(pod)
	if r.exempt(pod.GetNamespace()) {
		if !ours {
			return Judgement{}
		}
		if j := r.deliver(v, pod, c); j.Action != Refuse && !forges(pod, c) {
			return j
		}
		return Judgement{} // the shim refuses what is to be refused
	}
	switch {
	case forges(pod, c):
		return refuse(fmt.Errorf("the pod sets an annotation %s*, which only stockade-nri may set", selection.Selected))
	case ours:
		return r.deliver(v, pod, c)
	case slices.Contains(r.RequireShim, pod.GetNamespace()), slices.Contains(r.RequireShim, "*"):
		return refuse(fmt.Errorf("namespace %.253q requires a runtime class of Stockade, and this pod has the runtime handler %q: "+
			"set its runtimeClassName", pod.GetNamespace(), r.handler(pod)))
	case r.OtherHandlers == Ignore:
		return Judgement{}
	}
	return v.inject(pod, c, r.handler(pod))
}

func (r *Rules) handler(pod *api.PodSandbox) string {
	if h := pod.GetRuntimeHandler(); h != "" {
		return h
	}
	return r.DefaultHandler
}

func (r *Rules) ours(pod *api.PodSandbox) bool { return slices.Contains(r.Handlers, r.handler(pod)) }

func (r *Rules) exempt(namespace string) bool { return slices.Contains(r.Exempt, namespace) }

// forges reports whether somebody has set what is ours to set.
func forges(pod *api.PodSandbox, c *api.Container) bool {
	for _, annotations := range []map[string]string{pod.GetAnnotations(), c.GetAnnotations()} {
		for a := range annotations {
			if selection.Reserved(a) {
				return true
			}
		}
	}
	return false
}

// describe is what is known of a container. NRI's own fields come from
// containerd, as do the annotations that containerd's CRI plugin sets.
func describe(pod *api.PodSandbox, c *api.Container) selection.Container {
	d := selection.FromAnnotations(c.GetId(), c.GetAnnotations()).WithPod(pod.GetAnnotations(), pod.GetLabels())
	d.Request.Facts.CRI = true
	d.Request.Facts.Namespace, d.Request.Facts.Container = pod.GetNamespace(), c.GetName()
	d.Bearer.Sandbox, d.Bearer.Name = c.GetPodSandboxId(), c.GetName()
	return d
}

// deliver chooses for a container under our shim.
func (r *Rules) deliver(v *View, pod *api.PodSandbox, c *api.Container) Judgement {
	if v.Set == nil || v.Key == nil {
		return refuse(fmt.Errorf("stockade-nri cannot choose a profile: %w", v.Err))
	}
	d := describe(pod, c)
	said := selection.Statement{Facts: selection.Facts{Asked: d.Request.Asked, Labels: d.Request.Facts.Labels}}
	switch p, err := selection.Select(d.Request, v.Set); {
	case err == nil:
		said.Name, said.Digest = p.Name, p.Digest()
	case !errors.Is(err, selection.ErrNoMatch):
		return refuse(err)
	}
	annotations, err := v.Key.Sign(d.Bearer, said)
	if err != nil {
		return refuse(err)
	}
	j := Judgement{Action: Deliver, Profile: said.Name, Digest: said.Digest, adjust: &api.ContainerAdjustment{}}
	for key, value := range annotations {
		j.adjust.AddAnnotation(key, value)
	}
	return j
}

// inject does for a container under another handler what NRI can.
func (v *View) inject(pod *api.PodSandbox, c *api.Container, handler string) Judgement {
	if v.Set == nil {
		return refuse(fmt.Errorf("it cannot be told whether a profile is for this container: %w", v.Err))
	}
	p, err := selection.Select(describe(pod, c).Request, v.Set)
	if errors.Is(err, selection.ErrNoMatch) {
		return Judgement{}
	}
	if err != nil {
		return refuse(err)
	}
	filter, err := p.SeccompAlone(v.Arch, v.Kernel)
	if err != nil {
		return refuse(fmt.Errorf("profile %s does not hold on this node: %w", p.Name, err))
	}
	j := Judgement{Action: Bare, Profile: p.Name, Digest: p.Digest()}
	lacks := fmt.Sprintf("the pod runs under the handler %q, not under Stockade's: programs, files and sessions of profile %s are not enforced; "+
		"set runtimeClassName", handler, p.Name)
	switch own := c.GetLinux().GetSeccompProfile(); {
	case filter == nil:
		j.Why = lacks + fmt.Sprintf("; its mode is %s, so nothing is injected", p.Mode)
	case own.GetProfileType() == api.SecurityProfile_LOCALHOST:
		j.Why = lacks + "; the container's own seccomp profile is kept, the profile's system calls are not enforced either"
	default:
		j.Action, j.Why = Filter, lacks+"; undeclared system calls fail with EPERM and are not reported"
		j.adjust = &api.ContainerAdjustment{}
		j.adjust.SetLinuxSeccompPolicy(api.FromOCILinuxSeccomp(filter))
	}
	return j
}

// criPrefix begins the annotations by which the shim knows what a container is:
// containerd's own.
const criPrefix = "io.kubernetes.cri."

// Validate decides about what all plugins together made of a container.
func (r *Rules) Validate(v *View, self string, req *api.ValidateContainerAdjustmentRequest) error {
	pod, c := req.GetPod(), req.GetContainer()
	j := r.Judge(v, pod, c)
	for key := range req.GetAdjust().GetAnnotations() {
		name := strings.TrimPrefix(key, "-") // NRI's mark for what is taken away
		if strings.HasPrefix(name, criPrefix) && !r.exempt(pod.GetNamespace()) {
			return fmt.Errorf("a plugin changes the annotation %.200q, by which the container is known", name)
		}
	}
	switch j.Action {
	case Refuse:
		return errors.New(j.Why)
	case Deliver:
		// NRI keeps what was set beside the mark of who takes it away, and then does both in no order.
		for key := range req.GetAdjust().GetAnnotations() {
			if name, taken := strings.CutPrefix(key, "-"); taken && selection.Reserved(name) {
				return fmt.Errorf("stockade-nri's choice did not get through: another plugin takes the annotation %.200q away", name)
			}
		}
		if _, err := v.Key.Verify(describe(pod, c).Bearer, req.GetAdjust().GetAnnotations()); err != nil {
			return fmt.Errorf("stockade-nri's choice did not get through: %w", err)
		}
	case Filter:
		if owner, ok := req.GetOwners().SeccompPolicyOwner(c.GetId()); !ok || owner != self {
			return fmt.Errorf("the system calls of profile %s did not get through: the seccomp policy is %q's", j.Profile, owner)
		}
	}
	return nil
}
