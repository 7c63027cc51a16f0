//go:build kubernetes

package resources_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/stockade-dev/stockade/nri/cluster"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
)

// watched is a node of which only the watcher runs.
type watched struct {
	t       *testing.T
	roots   store.Roots
	watcher *cluster.Watcher
	stop    func()
}

func newNode(t *testing.T) *watched {
	t.Helper()
	dir := t.TempDir()
	w := &watched{t: t, roots: store.Roots{Profiles: filepath.Join(dir, "p"), Cluster: filepath.Join(dir, "c"), LastGood: filepath.Join(dir, "g")}}
	if err := os.Mkdir(w.roots.Profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

// start runs the watcher until the test ends or stop is called.
func (w *watched) start(name string, c *rest.Config) *watched {
	w.t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	if testing.Verbose() && name == "n1" {
		log.SetOutput(os.Stderr)
	}
	watcher, err := cluster.New(cluster.Config{REST: c, Roots: w.roots, Node: name, Log: log, Jitter: 50 * time.Millisecond})
	if err != nil {
		w.t.Fatal(err)
	}
	w.watcher = watcher
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := watcher.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	w.stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	w.t.Cleanup(func() { w.stop() })
	return w
}

// get is what a container on the node would get.
func (w *watched) get(name string) (*profiles.Profile, error) {
	s, err := store.OpenRoots(w.roots)
	if err != nil {
		return nil, err
	}
	return s.Get(name)
}

func (w *watched) has(name string, mode profiles.Mode) {
	w.t.Helper()
	eventually(w.t, name+" is on the node", func() error {
		p, err := w.get(name)
		if err == nil && p.Mode != mode {
			err = fmt.Errorf("mode is %s", p.Mode)
		}
		return err
	})
}

func (w *watched) lacks(name string) {
	w.t.Helper()
	eventually(w.t, name+" is not on the node", func() error {
		if _, err := w.get(name); !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("it is: %v", err)
		}
		return nil
	})
}

func (w *watched) synced() {
	w.t.Helper()
	eventually(w.t, "the list is complete", func() error {
		if done, err := w.watcher.Contact(); !done {
			return fmt.Errorf("not yet: %v", err)
		}
		return nil
	})
}

// TestTheLifeOfAProfile: with the rights of the plugin's own role.
func TestTheLifeOfAProfile(t *testing.T) {
	n := newNode(t).start("n1", pluginOf("n1"))
	mustApply(t, "life", "mode: enforce, allow: {exec: [/a]}")
	n.has("life", profiles.ModeEnforce)
	p, err := n.get("life")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the status says so", func() error {
		return lacks(fmt.Sprint(status(t, "life")), p.Digest(), "observedGeneration:1", "status:True", "name:n1", "by:kubectl-client-side-apply")
	})

	// Right for the schema, wrong for the parser: the last good version stays, and is said to be that.
	mustApply(t, "life", "mode: monitor, allow: {syscalls: [nosuchcall]}")
	eventually(t, "the status says what is wrong", func() error {
		return lacks(fmt.Sprint(status(t, "life")), "observedGeneration:2", "status:False", "spec.allow.syscalls[0]", "nosuchcall", "its last good version is in use")
	})
	n.has("life", profiles.ModeEnforce)
	if s, err := store.OpenRoots(n.roots); err != nil || s.StandIn("life") == nil {
		t.Errorf("the store does not say that it is an old one: %v", err)
	}

	// Mended, and looser: who, when, what.
	mustApply(t, "life", "mode: monitor, allow: {exec: [/a, /bin/sh]}")
	n.has("life", profiles.ModeMonitor)
	eventually(t, "an event says that it allows more", func() error {
		out, err := shared.Kubectl(t.Context(), "", "get", "events", "-n", "default", "-o", "jsonpath={range .items[*]}{.involvedObject.name} {.reason}: {.message}{'\\n'}{end}")
		return errors.Join(err, lacks(out, "life ProfileLoosened: generation 3 allows more than before, last changed by kubectl-client-side-apply (Update) at 20", "mode monitor", "+ allow.exec /bin/sh"))
	})
	eventually(t, "kubectl get shows it", func() error {
		out, err := shared.Kubectl(t.Context(), "", "get", "profiles")
		return errors.Join(err, lacks(out, "life", "monitor", "True", "kubectl-client-side-apply"))
	})
	if err := client.Delete(t.Context(), "life", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.lacks("life")
}

func TestTheAPIServerIsDown(t *testing.T) {
	n := newNode(t).start("n1", shared.REST)
	mustApply(t, "stays", "mode: enforce")
	mustApply(t, "goes", "mode: enforce")
	n.has("stays", profiles.ModeEnforce)
	n.has("goes", profiles.ModeEnforce)
	if err := shared.Kill("kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the other tests need it
		if shared.Client.RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error() != nil {
			_ = shared.StartAPIServer(context.Background())
		}
	})
	eventually(t, "it is noticed", func() error {
		if _, err := n.watcher.Contact(); err == nil {
			return errors.New("it is not")
		}
		return nil
	})
	n.stop() // and the plugin is started again, with nobody to ask
	n.start("n1", shared.REST)
	time.Sleep(2 * time.Second) // nothing is to happen: there is nothing to wait for
	for _, name := range []string{"stays", "goes"} {
		if _, err := n.get(name); err != nil {
			t.Errorf("without the API server: %v", err)
		}
	}
	n.stop()
	if err := shared.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(t.Context(), "goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.get("goes"); err != nil {
		t.Errorf("while nobody watched: %v", err)
	}
	n.start("n1", shared.REST)
	n.lacks("goes")
	n.has("stays", profiles.ModeEnforce)
}

// broken breaks the answers to lists of profiles.
type broken struct {
	how  func(*http.Response)
	base http.RoundTripper
	hits *atomic.Int32
}

func (b broken) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.base.RoundTrip(r)
	if err == nil && strings.HasSuffix(r.URL.Path, "/profiles") && r.Method == http.MethodGet {
		b.hits.Add(1)
		b.how(resp)
	}
	return resp, err
}

func body(resp *http.Response, text string) {
	resp.Body.Close()
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader([]byte(text))), -1
}

// TestNoAnswerRemovesNothing: only a completed list may.
func TestNoAnswerRemovesNothing(t *testing.T) {
	mustApply(t, "kept", "mode: enforce")
	for name, how := range map[string]func(*http.Response){
		"error": func(r *http.Response) { r.StatusCode = 500; body(r, "boom") },
		"forbidden": func(r *http.Response) {
			r.StatusCode = 403
			body(r, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
		},
		"not found": func(r *http.Response) {
			r.StatusCode = 404
			body(r, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
		},
		"cut off": func(r *http.Response) {
			body(r, `{"apiVersion":"stockade.dev/v1alpha1","kind":"ProfileList","metadata":{"resourceVersion":"1"},"items":[`)
		},
		"empty":  func(r *http.Response) { body(r, "") },
		"a page": func(r *http.Response) { body(r, "<html>sign in</html>") },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t).start("n1", shared.REST)
			n.has("kept", profiles.ModeEnforce)
			n.synced()
			n.stop()
			hits := &atomic.Int32{}
			c := rest.CopyConfig(shared.REST)
			c.Wrap(func(base http.RoundTripper) http.RoundTripper { return broken{how, base, hits} })
			n.start("n1", c)
			eventually(t, "it has asked twice", func() error {
				if hits.Load() < 2 {
					return errors.New("it has not")
				}
				return nil
			})
			if _, err := n.get("kept"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestManyNodes: the status stays bounded, nodes do not fight, and errors find room.
func TestManyNodes(t *testing.T) {
	const nodes = 100
	mustApply(t, "many", "mode: enforce, extends: [base]")
	var all []*watched
	for i := range nodes {
		n := newNode(t)
		if i%10 != 0 { // every tenth lacks what it extends
			base := "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: base}\nspec: {}\n"
			if err := os.WriteFile(n.roots.Profiles+"/base.yaml", []byte(base), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		name := fmt.Sprintf("node-%d", i)
		all = append(all, n.start(name, pluginOf(name)))
	}
	for i, n := range all {
		if i%10 != 0 {
			n.has("many", profiles.ModeEnforce)
		}
	}
	bad := func(s map[string]any) (with, without int) {
		list, _ := s["nodes"].([]any)
		for _, e := range list {
			if e.(map[string]any)["error"] != nil {
				with++
			} else {
				without++
			}
		}
		return with, without
	}
	eventually(t, "the nodes have spoken", func() error {
		if with, without := bad(status(t, "many")); with < nodes/10 || without < cluster.HealthyNodes-nodes/10 {
			return fmt.Errorf("%d with errors, %d without", with, without)
		}
		return nil
	})
	u, err := client.Get(t.Context(), "many", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := u.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	with, without := bad(status(t, "many"))
	t.Logf("%d nodes: %d entries with an error, %d without; the object has %d bytes, %d field managers", nodes, with, without, len(data), len(u.GetManagedFields()))
	if with+without > 64 {
		t.Errorf("%d entries", with+without)
	}
}
