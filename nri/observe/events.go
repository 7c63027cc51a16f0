package observe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/shim/incident"
)

// Component is the source of Events and the field manager of the condition.
const Component = "stockade-nri"

// Bounds of the Events of one pod: so many at once, then one for each interval.
const (
	eventBurst    = 5
	eventInterval = 30 * time.Second
	eventPods     = 2048 // pods that are remembered
	eventNote     = 1000 // bytes; the API server takes 1024
)

// Events writes Kubernetes Events on pods. What it leaves out for a pod that has
// many is counted, and the pod's next Event says how many those were.
type Events struct {
	// Lost is told how many of those that were left out will not be told of any
	// more; may be nil.
	Lost func(n int)

	client kubernetes.Interface
	node   string

	now  func() time.Time
	pods map[types.UID]*podEvents // used by one goroutine
}

// podEvents is a pod's bucket of tokens.
type podEvents struct {
	ref     corev1.ObjectReference
	tokens  float64
	at      time.Time
	left    int    // out since the last Event
	example string // the last one of them
}

// NewEvents makes a sink that writes with client.
func NewEvents(client kubernetes.Interface, node string) *Events {
	return &Events{client: client, node: node, now: time.Now, pods: map[types.UID]*podEvents{}}
}

// Name is that of the sink.
func (*Events) Name() string { return "events" }

// Put writes an Event, or counts it for the next one.
func (e *Events) Put(ctx context.Context, f Finding) error {
	ref, reason, note := describe(f)
	if ref.Name == "" || ref.Namespace == "" {
		return nil // no pod's
	}
	p := e.pod(ref)
	if p.tokens < 1 {
		p.left++
		p.example = note
		return nil
	}
	p.tokens--
	if p.left > 0 {
		note = fmt.Sprintf("%s (%d more since the last event of this pod were left out)", shorten(note, eventNote-100), p.left)
	}
	if err := e.write(ctx, ref, reason, note, f.Time()); err != nil {
		return err
	}
	p.left = 0
	return nil
}

// Tick tells of what was left out where no next Event came.
func (e *Events) Tick(ctx context.Context) {
	for uid, p := range e.pods {
		e.refill(p)
		switch {
		case p.left > 0 && p.tokens >= 1:
			p.tokens--
			note := fmt.Sprintf("%d more were left out, the last one: %s", p.left, p.example)
			err := e.write(ctx, p.ref, "StockadeMore", note, e.now())
			switch {
			case err == nil:
				p.left = 0
			case final(err): // its namespace is gone, or we may not: each further try would be for nothing
				e.drop(uid)
			}
		case p.left == 0 && p.tokens >= eventBurst:
			delete(e.pods, uid)
		}
	}
}

// Close tells of what is left out still.
func (e *Events) Close(ctx context.Context) {
	for _, p := range e.pods {
		p.tokens++
	}
	e.Tick(ctx)
}

func (e *Events) pod(ref corev1.ObjectReference) *podEvents {
	id := ref.UID
	if id == "" {
		id = types.UID(ref.Namespace + "/" + ref.Name)
	}
	p := e.pods[id]
	if p == nil {
		if len(e.pods) >= eventPods {
			e.evict()
		}
		p = &podEvents{tokens: eventBurst, at: e.now()}
		e.pods[id] = p
	}
	p.ref = ref
	e.refill(p)
	return p
}

// evict makes room: of a pod that has nothing to say if there is one, else of any.
func (e *Events) evict() {
	var some types.UID
	for uid, p := range e.pods {
		if some = uid; p.left == 0 {
			break
		}
	}
	e.drop(some)
}

// drop forgets a pod. What was left out for it is lost then.
func (e *Events) drop(uid types.UID) {
	if n := e.pods[uid].left; n > 0 && e.Lost != nil {
		e.Lost(n)
	}
	delete(e.pods, uid)
}

func (e *Events) refill(p *podEvents) {
	now := e.now()
	p.tokens = min(eventBurst, p.tokens+now.Sub(p.at).Seconds()/eventInterval.Seconds())
	p.at = now
}

// describe is what an Event says.
func describe(f Finding) (ref corev1.ObjectReference, reason, note string) {
	ref = corev1.ObjectReference{APIVersion: "v1", Kind: "Pod"}
	if inc := f.Incident; inc != nil {
		ref.Namespace, ref.Name, ref.UID = inc.Pod.Namespace, inc.Pod.Name, types.UID(inc.Pod.UID)
		note = strings.TrimPrefix(incident.Cause(inc), "stockade: ")
		if inc.Pod.Container != "" {
			ref.FieldPath = fieldPath(inc.Pod.Container)
			note = "container " + shorten(incident.Safe(inc.Pod.Container), 100) + " " + note
		}
		return ref, reasons[inc.Action], note
	}
	v := f.Event
	ref.Namespace, ref.Name, ref.UID = v.Namespace, v.Pod, types.UID(v.PodUID)
	if v.Container != "" {
		ref.FieldPath = fieldPath(v.Container)
	}
	what := fmt.Sprintf("container %s: %s", incident.Safe(v.Container), incident.Safe(v.Text))
	if v.Action == nri.Refuse {
		return ref, "StockadeRefused", "refused: " + what
	}
	return ref, "StockadeUnprotected", "not protected: " + what
}

// fieldPath names a container as kubelet does. Of which kind it is we are not told.
func fieldPath(container string) string {
	return fmt.Sprintf("spec.containers{%s}", shorten(incident.Safe(container), 100))
}

var reasons = map[string]string{
	incident.Killed: "StockadeKilled", incident.Denied: "StockadeDenied", incident.Frozen: "StockadeFrozen", incident.Reported: "StockadeReported",
	incident.NotReloaded: "StockadeNotReloaded",
}

// write tries a few times: what the API server does not take is in the folder.
func (e *Events) write(ctx context.Context, ref corev1.ObjectReference, reason, note string, at time.Time) error {
	if reason == "" {
		reason = "StockadeViolation"
	}
	t := metav1.NewTime(at)
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: shorten(ref.Name, 200) + ".", Namespace: ref.Namespace},
		InvolvedObject: ref, Type: corev1.EventTypeWarning, Reason: reason, Message: shorten(note, eventNote), Count: 1,
		FirstTimestamp: t, LastTimestamp: t, Source: corev1.EventSource{Component: Component, Host: e.node},
		ReportingController: "stockade.dev/nri", ReportingInstance: e.node,
	}
	wait := 500 * time.Millisecond
	for {
		tried, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := e.client.CoreV1().Events(ref.Namespace).Create(tried, event, metav1.CreateOptions{FieldManager: Component})
		cancel()
		if err == nil || final(err) || wait > 4*time.Second || !sleep(ctx, wait) {
			return err
		}
		wait *= 2
	}
}

// final: trying again would not help.
func final(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= 400 && code < 500 && code != http.StatusTooManyRequests
}

// shorten cuts at most to limit bytes, at a character, and says so.
func shorten(s string, limit int) string {
	const mark = "..."
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-len(mark)], "") + mark
}
