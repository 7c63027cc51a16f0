package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/enforce"
	"github.com/stockade-dev/stockade/shim/incident"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// Topic is where violations are published on containerd's event bus. The event is a google.protobuf.Struct with the
// fields of incident.Incident.
const Topic = "/stockade/violation"

// reporter tells of violations: to the incident folder, the log, containerd's event bus and the container's
// termination message. It takes note without waiting and tells in a goroutine of its own: whatever of these blocks,
// no answer waits for it.
type reporter struct {
	publisher containerd.Publisher
	writer    *incident.Writer
	node      string
	queue     chan told
	lost      atomic.Uint64 // since the last one that was told
	told      atomic.Uint64
	missed    atomic.Uint64 // lost in all
	hurry     atomic.Bool   // what is not told yet is counted as lost
	done      chan struct{}
}

type told struct {
	f      *fence
	v      enforce.Violation
	reload *incident.Incident // instead of v: a reload that failed
}

const reportQueue = 4096

func newReporter(cfg config.Config, pub containerd.Publisher) (*reporter, error) {
	w, err := incident.NewWriter(cfg.Incidents, incident.Limit{Count: cfg.IncidentLimit.Count, Bytes: cfg.IncidentLimit.Bytes},
		func(line string) { logrus.Warn("stockade: " + line) })
	if err != nil {
		return nil, fmt.Errorf("incidents: %w", err)
	}
	node, _ := os.Hostname()
	r := &reporter{publisher: pub, writer: w, node: node, queue: make(chan told, reportQueue), done: make(chan struct{})}
	go r.run()
	return r, nil
}

// put takes note of a violation. It never waits.
func (r *reporter) put(f *fence, v enforce.Violation) { r.enqueue(told{f: f, v: v}) }

// notReloaded takes note of a running container that keeps its older profile.
func (r *reporter) notReloaded(f *fence, plan *profiles.Plan, why string) {
	inc := r.of(f, plan, time.Now())
	inc.Action, inc.Reason = incident.NotReloaded, why
	r.enqueue(told{f: f, reload: &inc})
}

func (r *reporter) enqueue(t told) {
	select {
	case r.queue <- t:
	default:
		r.lost.Add(1)
		r.missed.Add(1)
	}
}

// close tells what is still to be told until it has to end. What there is no time for is counted, and the count is told.
func (r *reporter) close(ctx context.Context) {
	close(r.queue)
	select {
	case <-r.done:
	case <-before(ctx, 2*time.Second):
		r.hurry.Store(true)
		select {
		case <-r.done:
		case <-before(ctx, time.Second): // one of them blocks
		}
	}
	if n := r.lost.Swap(0); n > 0 { // nothing came after them that could have said so
		r.writer.Put(incident.Incident{Node: r.node, Action: incident.Lost, Lost: n})
	}
	_ = r.writer.Close(ctx)
}

// before is closed some time before ctx ends.
func before(ctx context.Context, reserve time.Duration) <-chan struct{} {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx.Done()
	}
	early, cancel := context.WithDeadline(ctx, deadline.Add(-reserve))
	context.AfterFunc(early, cancel)
	return early.Done()
}

func (r *reporter) run() {
	defer close(r.done)
	for t := range r.queue {
		if r.hurry.Load() {
			r.lost.Add(1)
			r.missed.Add(1)
			continue
		}
		var inc incident.Incident
		if t.reload != nil {
			inc = *t.reload
		} else {
			inc = r.incident(t.f, &t.v)
		}
		inc.Lost = r.lost.Swap(0)
		r.told.Add(1)
		r.writer.Put(inc)
		r.terminationMessage(t.f, &inc)
		r.publish(t.f, &inc)
		entry := logrus.WithFields(logrus.Fields{"id": inc.Container, "incident": inc.ID, "profile": inc.Profile})
		if t.v.Err != nil {
			entry = entry.WithError(t.v.Err)
		}
		entry.Warn(incident.Cause(&inc))
	}
}

// of is what the shim knows of a container.
func (r *reporter) of(f *fence, plan *profiles.Plan, at time.Time) incident.Incident {
	facts := f.task.request.Facts
	return incident.Incident{
		ID: incident.NewID(at), Time: at.UTC(), Node: r.node, Namespace: f.task.namespace, Container: f.task.id,
		Pod:   incident.Pod{Namespace: facts.Namespace, Name: f.task.pod, UID: f.task.podUID, Container: facts.Container},
		Image: facts.Image, Profile: plan.Name, Digest: plan.Digest, Mode: plan.Mode.String(),
	}
}

// incident is a violation with what the shim knows of its container.
func (r *reporter) incident(f *fence, v *enforce.Violation) incident.Incident {
	inc := r.of(f, v.Plan, v.Time)
	inc.Session, inc.Action = v.Access.Subject.Session, actions[v.Verdict.Action]
	inc.Access = incident.Access{Kind: v.Access.Kind.String(), Path: v.Access.Path, Syscall: v.Access.Name, Flags: openFlags(v)}
	inc.Subject = incident.Subject{
		PID: v.PID, TID: v.TID, UID: v.Access.Subject.UID, Comm: v.Comm, Exe: v.Access.Subject.Exe, Cmdline: v.Cmdline,
	}
	inc.Parents, inc.Reason, inc.Suggestion = parents(v.Parents), v.Verdict.Reason.String(), v.Suggest
	inc.KillLatency = incident.KillLatency{Signalled: v.Killed}
	if v.Verdict.Reason == 0 && v.Err != nil {
		inc.Reason = "what it was could not be told: " + v.Err.Error()
	}
	if v.Verdict.Rule != nil {
		inc.Rule = v.Verdict.Rule.String()
	}
	if v.Call != "" {
		inc.Access.Syscall = v.Call
		for _, a := range v.Args {
			inc.Access.Args = append(inc.Access.Args, fmt.Sprintf("%#x", a))
		}
	}
	return inc
}

var actions = map[profiles.Action]string{
	profiles.Kill: incident.Killed, profiles.Deny: incident.Denied, profiles.Freeze: incident.Frozen, profiles.Report: incident.Reported,
}

func parents(ps []procfs.Process) []incident.Parent {
	var out []incident.Parent
	for _, p := range ps {
		out = append(out, incident.Parent{PID: p.PID, Comm: p.Comm, Exe: p.Exe})
	}
	return out
}

// openFlags names an open's flags as open(2) does.
func openFlags(v *enforce.Violation) string {
	if v.Call != "" || v.Access.Kind != profiles.Read && v.Access.Kind != profiles.Write {
		return ""
	}
	names := []string{[]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[v.Flags&unix.O_ACCMODE]}
	for _, f := range []struct {
		bit  uint64
		name string
	}{{unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"}, {unix.O_TRUNC, "O_TRUNC"}, {unix.O_APPEND, "O_APPEND"}} {
		if v.Flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, "|")
}

func (r *reporter) publish(f *fence, inc *incident.Incident) {
	data, err := json.Marshal(inc)
	if err != nil {
		return
	}
	var event structpb.Struct
	if err := protojson.Unmarshal(data, &event); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), f.task.namespace), 5*time.Second)
	defer cancel()
	if err := r.publisher.Publish(ctx, Topic, &event); err != nil {
		logrus.WithError(err).Warn("stockade: publish violation")
	}
}

// terminationMessage writes the cause where kubelet reads it into the pod's status. The file is the host's; the path
// is what the container runtime asked for, so it is followed nowhere.
func (r *reporter) terminationMessage(f *fence, inc *incident.Incident) {
	if inc.Action != incident.Killed || f.termination == "" {
		return
	}
	file, err := os.OpenFile(f.termination, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		logrus.WithError(err).Warn("stockade: termination message")
		return
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() || file.Truncate(0) != nil {
		return
	}
	_, _ = file.WriteString(incident.Cause(inc) + "\n")
}

// terminationLog is the host's file for a container's termination message, "" if it has none. A pod can put a volume
// of its own in that place: where it may not write we must not write for it, and we write as the host's root. So for a
// pod's container it must be the file that kubelet has made for just this container (kuberuntime, getPodContainerDir).
func terminationLog(spec *specs.Spec, t *task) string {
	for _, m := range spec.Mounts {
		if m.Destination != "/dev/termination-log" || slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro") {
			continue
		}
		facts := t.request.Facts
		dir := "/pods/" + t.podUID + "/containers/" + facts.Container
		if facts.CRI && (t.podUID == "" || facts.Container == "" || !strings.HasSuffix(filepath.Dir(m.Source), dir)) {
			return ""
		}
		return m.Source
	}
	return ""
}
