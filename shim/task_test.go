package shim

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/profiles/selection"
	"github.com/stockade-dev/stockade/profiles/selection/nodekey"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
)

// selecting is a shim's engine as far as choosing goes, with a store in a folder of its own.
type selecting struct {
	*engine
	t *testing.T
}

func newSelecting(t *testing.T) *selecting {
	dir := t.TempDir()
	e := &engine{cfg: config.Config{Profiles: filepath.Join(dir, "p"), SelectionKey: filepath.Join(dir, "k", "selection.key")}}
	if err := errors.Join(os.Mkdir(e.cfg.Profiles, 0o755), os.Mkdir(filepath.Dir(e.cfg.SelectionKey), 0o700)); err != nil {
		t.Fatal(err)
	}
	s := &selecting{e, t}
	s.profile("wide", "match: {namespaces: [other]}")
	s.profile("labelled", "match: {namespaces: [prod], podSelector: {matchLabels: {app: x}}}")
	s.profile("prod", "match: {namespaces: [prod]}")
	return s
}

func (s *selecting) profile(name, spec string) {
	s.t.Helper()
	text := "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
	if err := os.WriteFile(filepath.Join(s.cfg.Profiles, name+".yaml"), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// pod is a container of a pod as containerd describes it, with what the pod's author adds.
func pod(id string, more map[string]string) task {
	a := map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": "main", "io.kubernetes.cri.sandbox-id": "s-" + id,
		"io.kubernetes.cri.sandbox-namespace": "prod", "io.kubernetes.cri.image-name": "redis:7",
	}
	maps.Copy(a, more)
	return describe("k8s.io", id, &specs.Spec{Annotations: a})
}

// say is what the plugin would put into the container's annotations.
func (s *selecting) say(t task, labels map[string]string) map[string]string {
	s.t.Helper()
	key, err := nodekey.LoadOrMake(s.cfg.SelectionKey)
	if err != nil {
		s.t.Fatal(err)
	}
	st, err := store.Open(s.cfg.Profiles)
	if err != nil {
		s.t.Fatal(err)
	}
	said := selection.Statement{Facts: selection.Facts{Labels: labels}}
	if p, err := selection.Select(said.Request(t.request), st); err == nil {
		said.Name, said.Digest = p.Name, p.Digest()
	} else if !errors.Is(err, selection.ErrNoMatch) {
		s.t.Fatal(err)
	}
	a, err := key.Sign(t.bearer, said)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *selecting) want(name string, t task, want string) {
	s.t.Helper()
	p, err := s.engine.profile(t)
	text, refusal := strings.CutPrefix(want, "!")
	switch {
	case refusal && (err == nil || !strings.Contains(err.Error(), text)):
		s.t.Errorf("%s: %v, %v; want an error with %q", name, p, err, text)
	case !refusal && (err != nil || p.Name != want):
		s.t.Errorf("%s: %v, %v; want %s", name, p, err, want)
	}
}

const forged = "!was not made by this node's stockade-nri"

func TestShimTakesWhatThePluginSays(t *testing.T) {
	s := newSelecting(t)
	s.want("without the plugin", pod("c1", nil), "!stockade-nri has not seen this container")
	labelled := s.say(pod("c1", nil), map[string]string{"app": "x"})
	s.want("with the label", pod("c1", labelled), "labelled")
	s.want("with other labels", pod("c1", s.say(pod("c1", nil), map[string]string{"app": "y"})), "prod")

	s.want("replayed in another container", pod("c2", labelled), forged)
	changed := maps.Clone(labelled)
	changed[selection.Selected] = strings.Replace(changed[selection.Selected], "labelled", "wide", 1)
	s.want("another profile", pod("c1", changed), forged)
	s.want("set by the pod", pod("c1", map[string]string{selection.Selected: "wide"}), forged)
	s.want("any reserved key", pod("c1", map[string]string{selection.Selected + "x": ""}), forged)
	changed = maps.Clone(labelled)
	changed["io.kubernetes.cri.sandbox-id"] = "s-other"
	s.want("another sandbox", pod("c1", changed), forged)

	if err := os.Chmod(s.cfg.SelectionKey, 0o644); err != nil {
		t.Fatal(err)
	}
	s.want("the key could be read", pod("c1", labelled), forged)
	if err := os.Remove(s.cfg.SelectionKey); err != nil {
		t.Fatal(err)
	}
	s.want("no key", pod("c1", labelled), forged)
	if _, err := nodekey.LoadOrMake(s.cfg.SelectionKey); err != nil {
		t.Fatal(err)
	}
	s.want("another key", pod("c1", labelled), forged)
}

func TestStoreChangesAfterThePluginHasChosen(t *testing.T) {
	s := newSelecting(t)
	c := pod("c1", s.say(pod("c1", nil), map[string]string{"app": "x"}))
	s.profile("labelled", "match: {namespaces: [prod], podSelector: {matchLabels: {app: x}}}, allow: {exec: [/new]}")
	if p, err := s.engine.profile(c); err != nil || len(p.Allow.Exec) != 1 {
		t.Errorf("the newer version of the same profile: %v, %v", p, err)
	}
	s.profile("labelled", "match: {namespaces: [prod], podSelector: {matchLabels: {app: other}}}")
	s.want("it selects otherwise now", c, "!the store now says prod")
	if err := errors.Join(os.Remove(s.cfg.Profiles+"/labelled.yaml"), os.Remove(s.cfg.Profiles+"/prod.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err := s.engine.profile(c)
	if err == nil || errors.Is(err, selection.ErrNoMatch) {
		t.Errorf("a profile that is gone must refuse, whatever noProfile says: %v", err)
	}
	// That no profile matches is said with the labels, so noProfile decides.
	s.profile("labelled", "match: {podSelector: {matchLabels: {app: x}}}")
	_, err = s.engine.profile(pod("c1", s.say(pod("c1", nil), map[string]string{"app": "y"})))
	if !errors.Is(err, selection.ErrNoMatch) {
		t.Errorf("none: %v", err)
	}
	c = pod("c1", s.say(pod("c1", nil), map[string]string{"app": "y"}))
	s.profile("prod", "match: {namespaces: [prod]}")
	s.want("one has come since", c, "prod")
}

func TestRequirePlugin(t *testing.T) {
	s := newSelecting(t)
	if err := os.Remove(s.cfg.Profiles + "/labelled.yaml"); err != nil {
		t.Fatal(err)
	}
	s.want("chosen by the shim", pod("c1", nil), "prod")
	s.cfg.RequirePlugin = true
	s.want("not seen by the plugin", pod("c1", nil), "!stockade-nri has not seen this container")
	s.want("seen", pod("c1", s.say(pod("c1", nil), nil)), "prod")
	s.want("no pod's", describe("ns", "c1", &specs.Spec{Annotations: map[string]string{selection.Annotation: "prod"}}), "prod")
}
