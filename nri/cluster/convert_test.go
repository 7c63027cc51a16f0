package cluster

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/stockade-dev/stockade/nri/v1alpha1"
	"github.com/stockade-dev/stockade/profiles"
)

func resourceOf(spec map[string]any) *unstructured.Unstructured {
	u := object()
	u.SetName("x")
	u.SetLabels(map[string]string{"argocd.argoproj.io/instance": "a"}) // metadata is the API's affair
	u.Object["spec"] = spec
	return u
}

// TestStringsArriveAsTheyAre: JSON's escapes are read by a YAML parser.
func TestStringsArriveAsTheyAre(t *testing.T) {
	for _, path := range []string{"/a", "/a b", "/<&>", "/é", "/\u2028\u2029", "/\x01\x7f", `/\*"'`, "/true", "/😀", "/a: b #c", "/\t\r\n"} {
		p, err := parse(resourceOf(map[string]any{"allow": map[string]any{"read": []any{path}, "exec": []any{map[string]any{"path": path, "uid": []any{int64(4294967294)}}}}}))
		if err != nil || p.Allow.Read[0].Text != path || p.Allow.Exec[0].Text != path || p.Allow.Exec[0].UID[0] != 4294967294 {
			t.Errorf("%q: %+v %v", path, p, err)
		}
	}
}

func TestWhatThisVersionDoesNotKnowIsAnError(t *testing.T) {
	for field, spec := range map[string]map[string]any{
		"spec.deny.mount":       {"deny": map[string]any{"mount": []any{"/a"}}}, // of a newer definition, say
		"spec.allow.exec[0].by": {"allow": map[string]any{"exec": []any{map[string]any{"path": "/a", "by": "x"}}}},
		"spec.mode":             {"mode": "hard"},
		"spec.allow.read[0]":    {"allow": map[string]any{"read": []any{1.5}}},
	} {
		p, err := parse(resourceOf(spec))
		if err == nil || !strings.HasPrefix(err.Error(), field+": ") {
			t.Errorf("%s: %+v %v", field, p, err)
		}
	}
	u := resourceOf(nil)
	delete(u.Object, "spec")
	if p, err := parse(u); err == nil {
		t.Errorf("no spec: %+v", p)
	}
}

func TestLoosenedIsBounded(t *testing.T) {
	with := func(n int, at string) *profiles.Profile {
		p := &profiles.Profile{Name: "x"}
		for i := range n {
			p.Allow.Read = append(p.Allow.Read, profiles.Rule{Text: fmt.Sprintf("/%s%d/*", at, i)})
		}
		return p
	}
	if got := loosened(with(2, "a"), with(3, "a")); len(got) != 1 || !strings.Contains(got[0], "+ allow.read /a2/*") {
		t.Error(got)
	}
	if got := loosened(with(3, "a"), with(2, "a")); got != nil {
		t.Errorf("stricter: %v", got)
	}
	if got := loosened(with(10000, "a"), with(10000, "b")); len(got) != 1 {
		t.Errorf("%d lines", len(got))
	}
}

func TestWhichNodesSpeak(t *testing.T) {
	list := func(n int) []v1alpha1.NodeStatus {
		var all []v1alpha1.NodeStatus
		for i := range n {
			all = append(all, v1alpha1.NodeStatus{Name: fmt.Sprint(i), Generation: 1})
		}
		return all
	}
	well, bad := v1alpha1.NodeStatus{Name: "me", Generation: 1}, v1alpha1.NodeStatus{Name: "me", Generation: 1, Error: "x"}
	for _, tc := range []struct {
		name  string
		mine  v1alpha1.NodeStatus
		there []v1alpha1.NodeStatus
		want  bool
	}{
		{"the first", well, nil, true},
		{"one too many", well, list(HealthyNodes), false},
		{"an error finds room", bad, list(HealthyNodes), true},
		{"until there is none", bad, list(v1alpha1.MaxNodes), false},
		{"said already", well, append(list(40), well), false},
		{"well again", well, append(list(40), bad), true},
	} {
		if got := says(tc.mine, tc.there); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	long := strings.Repeat("n", 253)
	if a, b := nodeManager(long+"a"), nodeManager(long+"b"); len(a) > 128 || a == b {
		t.Error(a, b)
	}
}
