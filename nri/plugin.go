package nri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/sirupsen/logrus"
	"golang.org/x/mod/semver"

	"github.com/stockade-dev/stockade/nri/health"
)

// Name is the plugin's name, as containerd's required_plugins has it.
const Name = "stockade"

// Source gives the View that holds now. It must not wait: handlers call it.
type Source interface {
	View() *View
}

// Event is something that happened to a container and that somebody should know.
type Event struct {
	Time                         time.Time
	Action                       Action
	Namespace, Pod, PodUID       string
	Container, ContainerID, Text string
	Profile, Digest              string
}

// Plugin is the NRI plugin. Make it with New.
type Plugin struct {
	config Config
	source Source
	// OnEvent is told of every judgement but Pass, of what a validation
	// refused, and of running containers that are not protected. It is called
	// from handlers: it must not wait. Set it before Run.
	OnEvent func(Event)

	counts [len(actionNames)]atomic.Uint64

	mu          sync.Mutex
	connected   bool             // guarded by mu
	since       time.Time        // of the last change of connected; guarded by mu
	lost        error            // why it is not connected; guarded by mu
	runtime     string           // the peer; guarded by mu
	unprotected map[string]Event // running containers, by id, that a profile is for and that our shim does not hold; guarded by mu
}

// New makes the plugin.
func New(c Config, source Source) *Plugin {
	return &Plugin{
		config: c, source: source, since: time.Now(), lost: errors.New("it has not connected yet"), unprotected: map[string]Event{},
		OnEvent: func(Event) {},
	}
}

// PreInstalled reports whether containerd has started this process as a plugin.
func PreInstalled() bool { return os.Getenv(api.PluginSocketEnvVar) != "" }

// Run serves containerd until ctx ends. A lost connection is made again, except
// by a pre-installed plugin: its connection was a gift of containerd, which
// starts it again when it starts itself.
func (p *Plugin) Run(ctx context.Context) error {
	const least, most = 100 * time.Millisecond, 5 * time.Second
	wait := least
	for {
		begun := time.Now()
		err := p.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		p.setConnected(false, err)
		logrus.WithError(err).Error("stockade-nri: not connected to containerd: without a statement the shims choose by themselves, or refuse")
		if PreInstalled() {
			return err
		}
		if time.Since(begun) > most {
			wait = least
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, most)
	}
}

// registering bounds the time until containerd has taken the plugin on. NRI's
// stub waits for that without a limit of its own.
const registering = 30 * time.Second

// serve is one connection's life.
func (p *Plugin) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opts := []stub.Option{stub.WithPluginName(Name), stub.WithOnClose(cancel)}
	if !PreInstalled() {
		dial := func(path string) (net.Conn, error) {
			d := net.Dialer{Timeout: 2 * time.Second}
			return d.DialContext(ctx, "unix", path)
		}
		opts = append(opts, stub.WithPluginIdx(p.config.Index), stub.WithSocketPath(p.config.Socket), stub.WithDialer(dial))
	}
	s, err := stub.New(handler{p}, opts...)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	late := time.NewTimer(registering)
	defer late.Stop()
	for {
		select {
		case err := <-ended:
			if err == nil {
				err = errors.New("containerd has closed the connection")
			}
			return err
		case <-ctx.Done():
			return errors.New("containerd has closed the connection")
		case <-late.C:
			if !p.isConnected() {
				return fmt.Errorf("containerd has not taken the plugin on within %s", registering)
			}
		}
	}
}

func (p *Plugin) isConnected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected
}

func (p *Plugin) setConnected(is bool, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connected != is {
		p.since = time.Now()
	}
	p.connected, p.lost = is, why
}

// event tells of a judgement.
func (p *Plugin) event(j Judgement, pod *api.PodSandbox, c *api.Container) Event {
	e := Event{
		Time: time.Now(), Action: j.Action, Namespace: pod.GetNamespace(), Pod: pod.GetName(), PodUID: pod.GetUid(),
		Container: c.GetName(), ContainerID: c.GetId(), Text: j.Why, Profile: j.Profile, Digest: j.Digest,
	}
	p.counts[j.Action].Add(1)
	if j.Action != Pass {
		p.OnEvent(e)
	}
	return e
}

// handler has the methods that NRI's stub looks for, and no others: each event
// that is subscribed to is one more in which a slow plugin holds up the node.
type handler struct{ p *Plugin }

// Configure is the first call of a connection.
func (h handler) Configure(_ context.Context, config, runtime, version string) (api.EventMask, error) {
	if config != "" && !PreInstalled() {
		logrus.Warn("stockade-nri: containerd has sent a configuration, which only a pre-installed plugin takes")
	}
	h.p.mu.Lock()
	h.p.runtime = runtime + " " + version
	h.p.mu.Unlock()
	var events api.EventMask // none: all that the handler has methods for
	if !validates(runtime, version) {
		logrus.Warn("stockade-nri: this containerd asks no plugin about what another has changed (2.2 and newer do): " +
			"what takes our choice from a container is noticed by the shim, with `requirePlugin: true` in its configuration")
		events.Set(api.Event_CREATE_CONTAINER, api.Event_STOP_CONTAINER, api.Event_REMOVE_CONTAINER)
	}
	return events, nil
}

// validates says whether a runtime knows ValidateContainerAdjustment (NRI 0.10), and would not close the connection of
// a plugin that asks for it. Of one that is not known that is expected.
func validates(runtime, version string) bool {
	version, _, _ = strings.Cut("v"+strings.TrimPrefix(version, "v"), "+")
	known, err := api.InferVersionFromRuntime(runtime, version)
	return err != nil || semver.Compare(known, "v0.10.0") >= 0
}

// Synchronize tells of what runs already: containers that were made while the
// plugin was away are looked at now, and those that should have been protected
// are told of.
func (h handler) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	byID := map[string]*api.PodSandbox{}
	for _, pod := range pods {
		byID[pod.GetId()] = pod
	}
	found := map[string]Event{}
	view := h.p.source.View()
	for _, c := range containers {
		pod := byID[c.GetPodSandboxId()]
		if pod == nil {
			continue
		}
		if j, bare := h.p.config.running(view, pod, c); bare {
			found[c.GetId()] = h.p.event(j, pod, c)
		}
	}
	h.p.mu.Lock()
	h.p.unprotected = found
	h.p.mu.Unlock()
	h.p.setConnected(true, nil)
	logrus.WithFields(logrus.Fields{"pods": len(pods), "containers": len(containers), "unprotected": len(found)}).Info("stockade-nri: connected")
	return nil, nil
}

// running judges a container that has been made already. Those under our shim
// are held by it, or were refused by it.
func (r *Rules) running(v *View, pod *api.PodSandbox, c *api.Container) (Judgement, bool) {
	j := r.Judge(v, pod, c)
	if r.ours(pod) || j.Action == Pass {
		return j, false
	}
	if j.Action == Refuse {
		j.Why = "it runs, and would not be let start: " + j.Why
	}
	if j.Action == Filter && c.GetLinux().GetSeccompPolicy() == nil {
		j.Why += "; whether they do in this container, which was made before stockade-nri connected, is not known"
	}
	j.Action = Bare
	return j, true
}

// CreateContainer chooses, delivers, or refuses.
func (h handler) CreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	j := h.p.config.Judge(h.p.source.View(), pod, c)
	e := h.p.event(j, pod, c)
	switch j.Action {
	case Refuse:
		return nil, nil, refusal(j.Why)
	case Filter, Bare:
		h.p.mu.Lock()
		h.p.unprotected[c.GetId()] = e
		h.p.mu.Unlock()
	}
	return j.adjust, nil, nil
}

// ValidateContainerAdjustment sees what all plugins together have made of it.
func (h handler) ValidateContainerAdjustment(_ context.Context, req *api.ValidateContainerAdjustmentRequest) error {
	self := h.p.fullName()
	err := h.p.config.Validate(h.p.source.View(), self, req)
	if err == nil {
		return nil
	}
	h.p.event(Judgement{Action: Refuse, Why: err.Error()}, req.GetPod(), req.GetContainer())
	return refusal(err.Error())
}

// StopContainer forgets one that has ended, however it did: it is kept, and may
// not be removed for days, but does not run.
func (h handler) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	h.p.forget(c)
	return nil, nil
}

// RemoveContainer forgets one that never ran.
func (h handler) RemoveContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	h.p.forget(c)
	return nil
}

func (p *Plugin) forget(c *api.Container) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.unprotected, c.GetId())
}

func refusal(why string) error { return errors.New("refused by stockade: " + why) }

func (p *Plugin) fullName() string {
	if index := os.Getenv(api.PluginIdxEnvVar); index != "" {
		return index + "-" + Name
	}
	return p.config.Index + "-" + Name
}

// Health says how the plugin is. It may be called from any goroutine.
func (p *Plugin) Health() health.Health {
	h := health.Health{Time: time.Now(), PID: os.Getpid(), Judgements: map[string]uint64{}, Unprotected: []health.Container{}}
	for i := range p.counts {
		h.Judgements[Action(i).String()] = p.counts[i].Load()
	}
	if v := p.source.View(); v.Err != nil {
		for line := range strings.Lines(v.Err.Error()) {
			h.Problems = append(h.Problems, strings.TrimRight(line, "\n"))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h.Connected, h.Since, h.Runtime = p.connected, p.since, p.runtime
	if !p.connected {
		h.Problems = append(h.Problems, fmt.Sprintf("not connected to containerd: %v", p.lost))
	}
	for _, id := range slices.Sorted(maps.Keys(p.unprotected)) {
		e := p.unprotected[id]
		h.Unprotected = append(h.Unprotected, health.Container{
			ID: id, Namespace: e.Namespace, Pod: e.Pod, Name: e.Container, Profile: e.Profile, Why: e.Text,
		})
	}
	return h
}
