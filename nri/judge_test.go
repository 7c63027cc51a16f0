package nri

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/stockade-dev/stockade/profiles/selection"
	"github.com/stockade-dev/stockade/profiles/store"
)

func profileDoc(name, spec string) string {
	return "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n---\n"
}

func storeOf(t testing.TB, docs ...string) *store.Store {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "set.yaml"), []byte(strings.Join(docs, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Problems(); len(p) > 0 {
		t.Fatal(p)
	}
	return s
}

func testPod(ns, handler string, labels, annotations map[string]string) *api.PodSandbox {
	return &api.PodSandbox{Id: "s1", Name: "pod", Uid: "u", Namespace: ns, RuntimeHandler: handler, Labels: labels, Annotations: annotations}
}

func testContainer(name string, more map[string]string) *api.Container {
	a := map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": name, "io.kubernetes.cri.sandbox-id": "s1",
		"io.kubernetes.cri.sandbox-namespace": "not looked at", "io.kubernetes.cri.image-name": "redis:7",
	}
	maps.Copy(a, more)
	return &api.Container{Id: "c-" + name, PodSandboxId: "s1", Name: name, Annotations: a}
}

func testRules() Rules {
	r := DefaultRules()
	r.RequireShim = []string{"strict"}
	return r
}

func testView(t testing.TB) *View {
	return &View{
		Key: &selection.Key{7}, Arch: "amd64", Kernel: "6.18",
		Set: storeOf(t,
			profileDoc("redis", "match: {images: ['docker.io/library/redis:*']}"),
			profileDoc("labelled", "match: {images: ['docker.io/library/redis:*'], podSelector: {matchLabels: {app: x}}}"),
			profileDoc("watched", "mode: monitor, match: {namespaces: [watched], containers: [main]}"),
			profileDoc("init-only", "match: {images: ['*'], containers: [init]}"),
			profileDoc("tie-a", "match: {namespaces: [tie], images: ['*']}"), profileDoc("tie-b", "match: {namespaces: [tie], containers: [main]}"),
		),
	}
}

func TestJudge(t *testing.T) {
	rules, view := testRules(), testView(t)
	broken := &View{Err: errors.New("the store is gone")}
	nobody := map[string]string{"io.kubernetes.cri.image-name": "nobody/knows:1"}
	forged := map[string]string{selection.Selected: "redis"}
	local := testContainer("main", nil)
	local.Linux = &api.LinuxContainer{SeccompProfile: &api.SecurityProfile{ProfileType: api.SecurityProfile_LOCALHOST}}
	main := testContainer("main", nil)
	for _, tc := range []struct {
		name string
		view *View
		pod  *api.PodSandbox
		c    *api.Container
		want string // action and profile, or ! and a part of the reason
	}{
		{"ours", view, testPod("a", "stockade", nil, nil), main, "deliver redis"},
		{"ours, by label", view, testPod("a", "stockade", map[string]string{"app": "x"}, nil), main, "deliver labelled"},
		{"ours, init container", view, testPod("a", "stockade", nil, nil), testContainer("init", nil), "deliver init-only"},
		{"ours, asked for", view, testPod("a", "stockade", map[string]string{"app": "x"}, map[string]string{selection.Annotation: "redis"}), main, "deliver redis"},
		{"ours, asked for what it may not have", view, testPod("a", "stockade", nil, map[string]string{selection.Annotation: "labelled"}), main, "!the pod has no label app=x"},
		{"ours, nothing matches", view, testPod("a", "stockade", nil, nil), testContainer("main", nobody), "deliver "},
		{"ours, a tie", view, testPod("tie", "stockade", nil, nil), main, "!match equally well"},
		{"ours, store gone", broken, testPod("a", "stockade", nil, nil), main, "!the store is gone"},
		{"ours, no key", &View{Set: view.Set, Err: errors.New("the key")}, testPod("a", "stockade", nil, nil), main, "!the key"},
		{"ours, exempt", view, testPod("kube-system", "stockade", nil, nil), main, "deliver redis"},
		{"ours, exempt, store gone", broken, testPod("kube-system", "stockade", nil, nil), main, "pass "},
		{"the pod sets our annotation", view, testPod("a", "stockade", nil, forged), main, "!only stockade-nri may set"},
		{"it comes with the container", view, testPod("a", "stockade", nil, nil), testContainer("main", forged), "!only stockade-nri may set"},
		{"the pod sets our annotation, other handler", view, testPod("a", "runc", nil, forged), main, "!only stockade-nri may set"},
		{"the pod sets our annotation, exempt: the shim refuses", view, testPod("kube-system", "stockade", nil, forged), main, "pass "},
		{"other handler", view, testPod("a", "", nil, nil), main, "filter redis"},
		{"other handler, nothing matches", view, testPod("a", "", nil, nil), testContainer("main", nobody), "pass "},
		{"other handler, own seccomp profile", view, testPod("a", "", nil, nil), local, "bare redis"},
		{"other handler, mode monitor", view, testPod("watched", "", nil, nil), testContainer("main", nil), "bare watched"},
		{"other handler, exempt", view, testPod("kube-system", "", nil, nil), main, "pass "},
		{"other handler, exempt, store gone", broken, testPod("kube-system", "", nil, nil), main, "pass "},
		{"other handler, store gone", broken, testPod("a", "", nil, nil), main, "!the store is gone"},
		{"other handler, shim required", view, testPod("strict", "kata", nil, nil), testContainer("main", nobody), `!has the runtime handler "kata"`},
		{"ours, shim required", view, testPod("strict", "stockade", nil, nil), main, "deliver redis"},
	} {
		j := rules.Judge(tc.view, tc.pod, tc.c)
		got := j.Action.String() + " " + j.Profile
		if reason, ok := strings.CutPrefix(tc.want, "!"); ok {
			if j.Action != Refuse || !strings.Contains(j.Why, reason) || j.adjust != nil {
				t.Errorf("%s: %s (%s), want a refusal with %q", tc.name, got, j.Why, reason)
			}
			continue
		}
		if got != tc.want {
			t.Errorf("%s: %s (%s), want %s", tc.name, got, j.Why, tc.want)
		}
		if (j.Action == Filter || j.Action == Bare) && !strings.Contains(j.Why, "are not enforced") {
			t.Errorf("%s does not say what is missing: %s", tc.name, j.Why)
		}
	}
	all := testRules()
	all.RequireShim = []string{"*"}
	if j := all.Judge(view, testPod("any", "", nil, nil), main); j.Action != Refuse {
		t.Errorf("shim required everywhere: %v", j.Action)
	}
	ignoring := testRules()
	ignoring.OtherHandlers = Ignore
	if j := ignoring.Judge(broken, testPod("a", "", nil, nil), main); j.Action != Pass {
		t.Errorf("other handlers ignored: %v %s", j.Action, j.Why)
	}
}

func TestFilterIsForNobodyWhoListens(t *testing.T) {
	rules := testRules()
	j := rules.Judge(testView(t), testPod("a", "", nil, nil), testContainer("main", nil))
	policy := j.adjust.GetLinux().GetSeccompPolicy()
	if policy.GetDefaultAction() != "SCMP_ACT_ERRNO" || policy.GetListenerPath() != "" || len(policy.GetSyscalls()) == 0 {
		t.Fatalf("%+v", policy)
	}
	for _, s := range policy.GetSyscalls() {
		if s.Action == "SCMP_ACT_NOTIFY" {
			t.Errorf("%v would wait for ever", s.Names)
		}
	}
}

// TestValidate: what reaches the runtime is what the plugin has chosen, whoever else has had a hand in it.
func TestValidate(t *testing.T) {
	rules, view := testRules(), testView(t)
	ours, other, c := testPod("a", "stockade", nil, nil), testPod("a", "", nil, nil), testContainer("main", nil)
	right := rules.Judge(view, ours, c).adjust
	with := func(change func(map[string]string)) *api.ContainerAdjustment {
		a := maps.Clone(right.Annotations)
		change(a)
		return &api.ContainerAdjustment{Annotations: a}
	}
	owned := func(by string) *api.OwningPlugins {
		o := api.NewOwningPlugins()
		if by != "" {
			if err := o.ClaimSeccompPolicy(c.Id, by); err != nil {
				t.Fatal(err)
			}
		}
		return o
	}
	filter := rules.Judge(view, other, c).adjust
	for _, tc := range []struct {
		name string
		req  *api.ValidateContainerAdjustmentRequest
		want string
	}{
		{"as chosen", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: c, Adjust: right}, ""},
		{"the handler timed out", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: c}, "did not get through"},
		{"another plugin takes it away", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: c, Adjust: with(func(a map[string]string) {
			a["-"+selection.Selected] = "" // beside the annotation, as NRI has it
		})}, "did not get through"},
		{"another plugin takes the facts away", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: c, Adjust: with(func(a map[string]string) {
			a["-"+selection.SelectedFacts] = ""
		})}, "did not get through"},
		{"it is gone", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: c, Adjust: with(func(a map[string]string) {
			delete(a, selection.Selected)
		})}, "did not get through"},
		{"another plugin sets its own", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: c, Adjust: with(func(a map[string]string) {
			a[selection.SelectedFacts] = `{"asked":"wide"}`
		})}, "did not get through"},
		{"made a pause container", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: c, Adjust: with(func(a map[string]string) {
			a["io.kubernetes.cri.container-type"] = "sandbox"
		})}, "by which the container is known"},
		{"no longer a pod's", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: c, Adjust: with(func(a map[string]string) {
			a["-io.kubernetes.cri.container-type"] = ""
		})}, "by which the container is known"},
		{"of another container", &api.ValidateContainerAdjustmentRequest{Pod: ours, Container: testContainer("init", nil), Adjust: right}, "did not get through"},
		{"filter as chosen", &api.ValidateContainerAdjustmentRequest{Pod: other, Container: c, Adjust: filter, Owners: owned("10-stockade")}, ""},
		{"filter lost", &api.ValidateContainerAdjustmentRequest{Pod: other, Container: c, Owners: owned("")}, "did not get through"},
		{"filter of another", &api.ValidateContainerAdjustmentRequest{Pod: other, Container: c, Adjust: filter, Owners: owned("99-other")}, `"99-other"`},
		{"shim required", &api.ValidateContainerAdjustmentRequest{Pod: testPod("strict", "", nil, nil), Container: c}, "requires a runtime class"},
		{"exempt", &api.ValidateContainerAdjustmentRequest{Pod: testPod("kube-system", "", nil, nil), Container: c}, ""},
	} {
		err := rules.Validate(view, "10-stockade", tc.req)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestPluginAndShimAgree: what a shim makes of the statement, from the same store, is what the plugin chose; and what
// the plugin refuses the shim would refuse too.
func TestPluginAndShimAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	one := func(from ...string) string { return from[r.IntN(len(from))] }
	delivered := 0
	for i := range 300 {
		var docs []string
		for n := range 1 + r.IntN(4) {
			docs = append(docs, profileDoc(fmt.Sprintf("p%d", n), "match: {"+one("", "images: ['*redis*'],", "images: [none],")+
				one("", "namespaces: [a],", "namespaces: [b],")+one("", "containers: [main],")+one("", "podSelector: {matchLabels: {app: x}}")+"}"))
		}
		view := &View{Key: &selection.Key{byte(i)}, Arch: "amd64", Set: storeOf(t, docs...)}
		labels := map[string]string{"app": one("x", "y")}
		annotations := map[string]string{}
		if asked := one("", "p0", "p1", "p9"); asked != "" {
			annotations[selection.Annotation+one("", ".main")] = asked
		}
		rules := testRules()
		pod, c := testPod(one("a", "b"), "stockade", labels, annotations), testContainer(one("main", "init"), nil)
		j := rules.Judge(view, pod, c)

		spec := maps.Clone(c.Annotations) // what the shim sees: containerd's annotations and NRI's
		spec["io.kubernetes.cri.sandbox-namespace"] = pod.Namespace
		if r.IntN(2) == 0 {
			maps.Copy(spec, annotations) // pod_annotations of the runtime handler
		}
		maps.Copy(spec, j.adjust.GetAnnotations())
		d := selection.FromAnnotations(c.Id, spec)
		if j.Action == Refuse {
			full := d.WithPod(annotations, labels)
			if p, err := selection.Select(full.Request, view.Set); err == nil {
				t.Fatalf("case %d: the plugin refuses (%s), the shim takes %s", i, j.Why, p.Name)
			}
			continue
		}
		delivered++
		said, err := view.Key.Verify(d.Bearer, spec)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		p, err := selection.Select(said.Request(d.Request), view.Set)
		switch {
		case j.Profile == "" && !errors.Is(err, selection.ErrNoMatch):
			t.Fatalf("case %d: the plugin finds none, the shim %v, %v", i, p, err)
		case j.Profile != "" && (err != nil || p.Name != j.Profile || p.Digest() != j.Digest):
			t.Fatalf("case %d: the plugin chooses %s, the shim %v, %v", i, j.Profile, p, err)
		}
	}
	if delivered < 50 {
		t.Errorf("only %d of 300 were delivered", delivered)
	}
}

// FuzzJudge: what a pod's author writes never makes the plugin crash, pass a container under our handler by, or sign
// for another container.
func FuzzJudge(f *testing.F) {
	view, rules := testView(f), testRules()
	f.Add("app", "x", "stockade.dev/profile", "redis", "redis:7", "main")
	f.Add("", "", "stockade.dev/selection", "redis@sha256:00", "sha256:00", "init")
	f.Fuzz(func(t *testing.T, label, value, annotation, text, image, name string) {
		pod := testPod("a", "stockade", map[string]string{label: value}, map[string]string{annotation: text})
		c := testContainer(name, map[string]string{"io.kubernetes.cri.image-name": image})
		j := rules.Judge(view, pod, c)
		switch j.Action {
		case Deliver:
			if _, err := view.Key.Verify(selection.Bearer{Container: c.Id, Sandbox: "s1", Name: name}, j.adjust.Annotations); err != nil {
				t.Fatal(err)
			}
		case Refuse:
			if j.Why == "" {
				t.Fatal("refused without a reason")
			}
		default:
			t.Fatalf("%v: %s", j.Action, j.Why)
		}
	})
}
