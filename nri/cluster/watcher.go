package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/stockade-dev/stockade/nri/v1alpha1"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
)

var (
	kind     = v1alpha1.GroupVersion.WithKind(v1alpha1.Kind)
	resource = v1alpha1.GroupVersion.WithResource(v1alpha1.Resource)
)

// Config is what a Watcher needs.
type Config struct {
	REST  *rest.Config // how the API server is reached
	Roots store.Roots  // Cluster is written; the others say what containers get here
	Node  string       // this node's name in the status
	Log   logrus.FieldLogger

	Changed func(names []string)            // called after files have changed; may be nil
	Check   func(p *profiles.Profile) error // does a resolved profile hold on this node; may be nil
	Jitter  time.Duration                   // reports wait up to so long, at random, so that nodes do not come at once; 0: 5 s
}

// Watcher keeps the cluster folder as the API server's resources are.
type Watcher struct {
	cfg      Config
	folder   *store.ClusterFolder
	cache    cache.Cache
	queue    workqueue.TypedRateLimitingInterface[string]
	reporter *reporter
	contact  contact

	handled map[string]string // what was written last, by name: uid and generation; only the worker's
}

// New opens the folder. It does not talk to the API server.
func New(cfg Config) (*Watcher, error) {
	if cfg.Jitter == 0 {
		cfg.Jitter = 5 * time.Second
	}
	w := &Watcher{cfg: cfg, handled: map[string]string{}, contact: contact{log: cfg.Log}}
	// The mapping is known: asking for it would take an API server that answers.
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(kind, meta.RESTScopeRoot)
	var err error
	w.cache, err = cache.New(cfg.REST, cache.Options{
		Scheme: runtime.NewScheme(), Mapper: mapper,
		DefaultWatchErrorHandler: func(_ context.Context, _ *toolscache.Reflector, err error) { w.contact.lost(err) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch profiles: %w", err)
	}
	client, err := dynamic.NewForConfig(cfg.REST)
	if err != nil {
		return nil, fmt.Errorf("report profiles: %w", err)
	}
	if w.folder, err = store.OpenClusterFolder(cfg.Roots.Cluster); err != nil {
		return nil, err
	}
	w.reporter = newReporter(cfg, client, w.cache)
	w.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))
	return w, nil
}

// Contact tells whether the API server's list has ever been complete since Run,
// and why it does not answer now; nil: it does.
func (w *Watcher) Contact() (synced bool, err error) { return w.contact.state() }

// Refresh has the status looked at again: the node's own profiles have changed,
// which those of the cluster may extend.
func (w *Watcher) Refresh() { w.reporter.wake() }

// Run watches until ctx is done. It returns an error only if it cannot begin;
// that the API server does not answer is none.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.folder.Close()
	informer, err := w.cache.GetInformer(ctx, object(), cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch profiles: %w", err)
	}
	handlers, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    w.enqueue,
		UpdateFunc: func(_, after any) { w.enqueue(after) },
		DeleteFunc: w.enqueue,
	})
	if err != nil {
		return fmt.Errorf("watch profiles: %w", err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		if err := w.cache.Start(ctx); err != nil {
			w.cfg.Log.WithError(err).Error("stockade: profiles are not watched")
		}
	})
	running.Go(func() { w.reporter.run(ctx) })
	running.Go(func() { w.work(ctx) })
	defer w.queue.ShutDown()
	if toolscache.WaitForCacheSync(ctx.Done(), handlers.HasSynced) {
		w.contact.sync()
		w.sweep()
	}
	w.watch(ctx)
	return nil
}

// watch does what no event asks for.
func (w *Watcher) watch(ctx context.Context) {
	often, seldom := time.NewTicker(10*time.Second), time.NewTicker(10*time.Minute)
	defer often.Stop()
	defer seldom.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-often.C:
			// A refused connection is not told to the error handler, and a watch that goes on where it was
			// interrupted brings no event.
			if err := w.reporter.ask(ctx); err == nil {
				w.contact.found()
			} else if ctx.Err() == nil {
				w.contact.lost(err)
			}
		case <-seldom.C:
			w.sweep() // who edits the folder by hand finds it mended
		}
	}
}

func object() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(kind)
	return u
}

// enqueue is called for each change, and for those that a list showed in passing.
func (w *Watcher) enqueue(obj any) {
	key, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err == nil {
		w.contact.found()
		w.queue.Add(key)
	}
}

// sweep has every file of the folder, and every resource, looked at again.
func (w *Watcher) sweep() {
	names, err := w.folder.Names()
	if err != nil {
		w.cfg.Log.WithError(err).Error("stockade: the cluster folder cannot be listed")
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind)
	if err := w.cache.List(context.Background(), list); err != nil {
		w.cfg.Log.WithError(err).Error("stockade: list profiles")
	}
	for _, item := range list.Items {
		names = append(names, item.GetName())
	}
	for _, name := range names {
		w.queue.Add(again + name)
	}
	w.reporter.wake()
}

// again before a name in the queue: whatever was done before.
const again = "/"

func (w *Watcher) work(ctx context.Context) {
	for {
		name, shutdown := w.queue.Get()
		if shutdown {
			return
		}
		if err := w.reconcile(ctx, name); err != nil {
			if ctx.Err() == nil {
				w.cfg.Log.WithError(err).WithField("profile", name).Error("stockade: a profile of the cluster cannot be stored; it is tried again")
			}
			w.queue.AddRateLimited(name)
		} else {
			w.queue.Forget(name)
		}
		w.queue.Done(name)
	}
}

// reconcile makes the files of one resource what it is now.
func (w *Watcher) reconcile(ctx context.Context, name string) error {
	if name[:1] == again {
		name = name[1:]
		delete(w.handled, name)
	}
	u := object()
	err := w.cache.Get(ctx, client.ObjectKey{Name: name}, u)
	if apierrors.IsNotFound(err) {
		return w.remove(name)
	}
	if err != nil {
		return err
	}
	version := fmt.Sprintf("%s/%d", u.GetUID(), u.GetGeneration())
	if w.handled[name] == version {
		w.reporter.wake() // a status has changed, perhaps ours
		return nil
	}
	if err := w.write(name, u); err != nil {
		return err
	}
	w.handled[name] = version
	return nil
}

// remove is for resources that a complete list does not have.
func (w *Watcher) remove(name string) error {
	if synced, _ := w.contact.state(); !synced {
		return nil // the sweep after the list looks again
	}
	delete(w.handled, name)
	changed, err := w.folder.Remove(name)
	if changed {
		w.cfg.Log.WithField("profile", name).Warn("stockade: the profile was deleted in the cluster, and is not in use here any more")
		w.changed(name)
	}
	return err
}

func (w *Watcher) write(name string, u *unstructured.Unstructured) error {
	log := w.cfg.Log.WithFields(logrus.Fields{"profile": name, "generation": u.GetGeneration()})
	last := change(u)
	p, bad := parse(u)
	if bad != nil {
		if err := w.forgetPredecessor(name, u); err != nil {
			return err
		}
		changed, good, err := w.folder.Reject(name, bad, time.Now())
		if changed {
			what := "it is left out: there was no good version before"
			if good {
				what = "its last good version stays in use"
			}
			log.WithError(errors.New(short(bad))).Error("stockade: the cluster's profile is bad, " + changedBy(last) + "; " + what)
			w.changed(name)
		}
		return err
	}
	before := w.folder.Get(name)
	changed, err := w.folder.Put(p, about(u, last)...)
	if err != nil || !changed {
		return err
	}
	if before == nil || before.Digest() != p.Digest() {
		entry := log.WithField("digest", p.Digest())
		var looser []string
		if before != nil {
			looser = loosened(before, p)
		}
		if len(looser) > 0 {
			entry.WithField("looser", looser).Warn("stockade: the cluster's profile allows more than before, " + changedBy(last))
			w.reporter.loosened(u, last, looser)
		} else {
			entry.Info("stockade: the cluster's profile is new or changed, " + changedBy(last))
		}
	}
	w.changed(name)
	return nil
}

// forgetPredecessor takes away the good version of a resource of the same name that was deleted: it must not stand in
// for the one that was made since, whose author may have deleted the other for what it allows.
func (w *Watcher) forgetPredecessor(name string, u *unstructured.Unstructured) error {
	if before := w.folder.About(name); before == "" || strings.HasPrefix(before, whose(u)) {
		return nil
	}
	_, err := w.folder.Remove(name)
	return err
}

// whose begins what a file says of where it comes from.
func whose(u *unstructured.Unstructured) string {
	return "Profile resource " + u.GetName() + ", uid " + string(u.GetUID()) + ", "
}

// about is what the file says of where it comes from.
func about(u *unstructured.Unstructured, last *v1alpha1.Change) []string {
	return []string{
		whose(u) + fmt.Sprintf("generation %d, ", u.GetGeneration()) + changedBy(last) + ".",
		"Written by stockade-nri: what is changed here is overwritten.",
	}
}

func (w *Watcher) changed(name string) {
	w.reporter.wake()
	if w.cfg.Changed != nil {
		w.cfg.Changed([]string{name})
	}
}
