package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/stockade-dev/stockade/nri/v1alpha1"
	"github.com/stockade-dev/stockade/profiles/store"
)

// Manager is the field manager of what all nodes say alike; a node's own begins
// with it.
const Manager = "stockade-nri"

// Loosened is the reason of the Event of a generation that allows more than the
// one before.
const Loosened = "ProfileLoosened"

// reporter writes statuses and Events. It is never waited for.
type reporter struct {
	cfg    Config
	client dynamic.Interface
	cache  cache.Cache
	due    chan struct{}
	events chan *unstructured.Unstructured
}

func newReporter(cfg Config, client dynamic.Interface, c cache.Cache) *reporter {
	return &reporter{cfg: cfg, client: client, cache: c, due: make(chan struct{}, 1), events: make(chan *unstructured.Unstructured, 256)}
}

// wake asks for a look at all statuses, soon.
func (r *reporter) wake() {
	select {
	case r.due <- struct{}{}:
	default:
	}
}

func (r *reporter) run(ctx context.Context) {
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.events:
			r.event(ctx, e)
			continue
		case <-r.due:
		case <-retry.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(r.cfg.Jitter)):
		}
		select { // what was asked for while we waited is done now too
		case <-r.due:
		default:
		}
		retry.Reset(10 * time.Minute)
		if err := r.all(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.WithError(err).Warn("stockade: the status of profiles cannot be written; it is tried again")
			retry.Reset(30 * time.Second)
		}
	}
}

// ask tells whether the API server answers. (With resourceVersion 0 the limit would not hold.)
func (r *reporter) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := r.client.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
	return err
}

// all brings every resource's status up to date. The store is read once.
func (r *reporter) all(ctx context.Context) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind)
	if err := r.cache.List(ctx, list); err != nil {
		return err
	}
	st, storeErr := store.OpenRoots(r.cfg.Roots)
	var failed error
	for i := range list.Items {
		if err := r.one(ctx, &list.Items[i], st, storeErr); err != nil {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

func (r *reporter) one(ctx context.Context, u *unstructured.Unstructured, st *store.Store, storeErr error) error {
	now, err := current(u)
	if err != nil {
		now = v1alpha1.ProfileStatus{} // not ours; applying puts it right
	}
	if want := shared(u, now); !sameShared(now, want) && now.ObservedGeneration <= want.ObservedGeneration {
		if err := r.apply(ctx, u.GetName(), Manager, want); err != nil {
			return err
		}
	}
	return r.own(ctx, u, own(r.cfg.Node, u, st, storeErr, r.cfg.Check), now.Nodes)
}

// errNoRoom: other nodes were faster each time. It is tried again later.
var errNoRoom = errors.New("no room for this node's entry in the status")

// own writes this node's entry, where it has something to say and there is room or can be made. there may be old: what
// the API server then refuses is looked at again.
func (r *reporter) own(ctx context.Context, u *unstructured.Unstructured, mine v1alpha1.NodeStatus, there []v1alpha1.NodeStatus) error {
	for range 5 {
		if !says(mine, there) {
			if !absent(mine, there) {
				return nil
			}
			i := room(mine, there)
			if i < 0 {
				return nil
			}
			if err := r.drop(ctx, u.GetName(), i, there[i]); err != nil {
				return err
			}
		}
		err := r.apply(ctx, u.GetName(), nodeManager(r.cfg.Node), v1alpha1.ProfileStatus{Nodes: []v1alpha1.NodeStatus{mine}})
		if !apierrors.IsInvalid(err) {
			return err
		}
		fresh, err := r.client.Resource(resource).Get(ctx, u.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		now, err := current(fresh)
		if err != nil {
			return err
		}
		there = now.Nodes
	}
	return errNoRoom
}

// absent: the node has no entry.
func absent(mine v1alpha1.NodeStatus, there []v1alpha1.NodeStatus) bool {
	for _, n := range there {
		if n.Name == mine.Name {
			return false
		}
	}
	return true
}

// nodeManager is the node's own field manager: at most 128 characters.
func nodeManager(node string) string {
	name := Manager + "-" + node
	if len(name) > 128 {
		sum := sha256.Sum256([]byte(node))
		name = name[:100] + "-" + hex.EncodeToString(sum[:8])
	}
	return name
}

// apply gives the fields of s to a field manager, and no others.
func (r *reporter) apply(ctx context.Context, name, manager string, s v1alpha1.ProfileStatus) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&s)
	if err != nil {
		return err
	}
	u := object()
	u.SetName(name)
	u.Object["status"] = fields
	_, err = r.client.Resource(resource).ApplyStatus(ctx, name, u, metav1.ApplyOptions{FieldManager: manager, Force: true})
	if apierrors.IsNotFound(err) {
		return nil // deleted in the meantime
	}
	return err
}

// drop removes another node's entry, if it still is what we saw.
func (r *reporter) drop(ctx context.Context, name string, i int, entry v1alpha1.NodeStatus) error {
	path := fmt.Sprintf("/status/nodes/%d", i)
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": path, "value": entry},
		{"op": "remove", "path": path},
	})
	if err != nil {
		return err
	}
	_, err = r.client.Resource(resource).Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: Manager}, "status")
	if apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
		return nil // another node was faster
	}
	return err
}

// loosened prepares the Event of a generation. Its name is the generation's, so
// that it is one Event however many nodes saw the change.
func (r *reporter) loosened(u *unstructured.Unstructured, last *v1alpha1.Change, what []string) {
	note := "generation " + fmt.Sprint(u.GetGeneration()) + " allows more than before, " + changedBy(last) + ": " + strings.Join(what, "; ")
	now := metav1.NewTime(time.Now())
	event := &corev1.Event{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%s.%d", u.GetName(), shortUID(u), u.GetGeneration()), Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: u.GetAPIVersion(), Kind: u.GetKind(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
		},
		Type: corev1.EventTypeWarning, Reason: Loosened, Message: cut(note, 1000), Count: 1,
		FirstTimestamp: now, LastTimestamp: now, Source: corev1.EventSource{Component: Manager, Host: r.cfg.Node},
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(event)
	if err != nil {
		return // a struct of ours always converts
	}
	select {
	case r.events <- &unstructured.Unstructured{Object: fields}:
	default:
		r.cfg.Log.WithField("profile", u.GetName()).Warn("stockade: too many events at once: this one is in the log only")
	}
}

func shortUID(u *unstructured.Unstructured) string { return cut(string(u.GetUID()), 8) }

func (r *reporter) event(ctx context.Context, e *unstructured.Unstructured) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(rand.N(r.cfg.Jitter)):
	}
	_, err := r.client.Resource(corev1.SchemeGroupVersion.WithResource("events")).Namespace(e.GetNamespace()).Create(ctx, e, metav1.CreateOptions{FieldManager: Manager})
	if err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
		r.cfg.Log.WithError(err).WithField("profile", e.GetName()).Warn("stockade: the event of a profile that allows more cannot be written")
	}
}
