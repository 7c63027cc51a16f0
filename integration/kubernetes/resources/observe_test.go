//go:build kubernetes

package resources_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/nri/observe"
	"github.com/stockade-dev/stockade/shim/incident"
)

func typed(t *testing.T, c *rest.Config) *kubernetes.Clientset {
	t.Helper()
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestEvents writes with the plugin's own rights: many violations of a pod are few Events, and no violation is passed
// over in silence.
func TestEvents(t *testing.T) {
	ctx := t.Context()
	const namespace, pod = "default", "deviates"
	sink := observe.NewEvents(typed(t, pluginOf("n1")), "n1")
	const violations = 12
	for i := range violations {
		inc := &incident.Incident{
			Time: time.Now(), Action: incident.Killed, Profile: "redis", Pod: incident.Pod{Namespace: namespace, Name: pod, UID: "uid-1", Container: "main"},
			Access:  incident.Access{Kind: "exec", Path: fmt.Sprintf("/bin/\x1b[2J%d%s", i, strings.Repeat("x", 3000))},
			Subject: incident.Subject{Exe: "/bin/redis"}, Suggestion: `spec.allow.exec: ["/bin/x"]`,
		}
		if err := sink.Put(ctx, observe.Finding{Incident: inc}); err != nil {
			t.Fatal(err)
		}
	}
	sink.Close(ctx)
	refused := nri.Event{Time: time.Now(), Action: nri.Refuse, Namespace: namespace, Pod: "refused", PodUID: "uid-2", Container: "main", Text: "no profile"}
	if err := sink.Put(ctx, observe.Finding{Event: &refused}); err != nil {
		t.Fatal(err)
	}
	got := map[string][]corev1.Event{}
	list, err := typed(t, shared.REST).CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Items {
		got[e.InvolvedObject.Name] = append(got[e.InvolvedObject.Name], e)
	}
	killed, more := 0, false
	for _, e := range got[pod] {
		if e.InvolvedObject.UID != "uid-1" || e.InvolvedObject.FieldPath != "spec.containers{main}" || e.Type != corev1.EventTypeWarning || strings.Contains(e.Message, "\x1b") {
			t.Errorf("%+v", e)
		}
		switch e.Reason {
		case "StockadeKilled":
			killed++
			if lacks(e.Message, "container main killed: exec /bin/", "profile redis", "to allow it: spec.allow.exec") != nil {
				t.Error(e.Message)
			}
		case "StockadeMore":
			more = strings.Contains(e.Message, fmt.Sprintf("%d more were left out", violations-5))
		}
	}
	if killed != 5 || !more {
		t.Errorf("%d events, the rest told: %v; %+v", killed, more, got[pod])
	}
	if len(got["refused"]) != 1 || got["refused"][0].Reason != "StockadeRefused" || got["refused"][0].InvolvedObject.FieldPath != "spec.containers{main}" {
		t.Errorf("%+v", got["refused"])
	}
	if err := sink.Put(ctx, observe.Finding{Event: &nri.Event{Action: nri.Refuse, Namespace: "nowhere", Pod: "x", PodUID: "3"}}); !apierrors.IsNotFound(err) {
		t.Errorf("a namespace that is not there: %v", err)
	}
}

func condition(t *testing.T, node, kind string) corev1.NodeCondition {
	t.Helper()
	n, err := typed(t, shared.REST).CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range n.Status.Conditions {
		if string(c.Type) == kind {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// TestNodeCondition: the condition follows the plugin's health, with its own rights, leaves the kubelet's alone, and
// says when the plugin has ended.
func TestNodeCondition(t *testing.T) {
	const name = "observed"
	nodes := typed(t, shared.REST).CoreV1().Nodes()
	if _, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nodes.Delete(context.Background(), name, metav1.DeleteOptions{}) })
	kubelets := []byte(`{"status":{"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"}]}}`)
	if _, err := nodes.Patch(t.Context(), name, types.StrategicMergePatchType, kubelets, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	states := make(chan health.Health, 1)
	now := health.Health{Time: time.Now(), Connected: true, Profiles: 3}
	c := &observe.Condition{Client: typed(t, pluginOf(name)), Node: name, Log: logrus.StandardLogger(), Health: func() health.Health {
		select {
		case now = <-states:
		default:
		}
		return now
	}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	is := func(status corev1.ConditionStatus, reason, text string) {
		t.Helper()
		eventually(t, reason, func() error {
			got := condition(t, name, "StockadeReady")
			if got.Status != status || got.Reason != reason || !strings.Contains(got.Message, text) || got.LastHeartbeatTime.IsZero() {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	is(corev1.ConditionTrue, "Ready", "3 profiles")
	states <- health.Health{Time: time.Now(), Connected: true, Problems: []string{"redis.yaml:3: \x1b[2Jbad"}}
	is(corev1.ConditionFalse, "Problem", `redis.yaml:3: \x1b[2Jbad`)
	states <- health.Health{Time: time.Now()}
	is(corev1.ConditionFalse, "NotConnected", "not connected")
	stop()
	<-done
	is(corev1.ConditionFalse, "PluginStopped", "stay protected")
	if got := condition(t, name, "Ready"); got.Status != corev1.ConditionTrue || got.Reason != "KubeletReady" {
		t.Errorf("the kubelet's: %+v", got)
	}
	patch := func(c *rest.Config, text string) error {
		_, err := typed(t, c).CoreV1().Nodes().Patch(t.Context(), name, types.StrategicMergePatchType, []byte(text), metav1.PatchOptions{}, "status")
		return err
	}
	for what, err := range map[string]error{
		"another node's plugin":     patch(pluginOf("n1"), `{"status":{"conditions":[{"type":"StockadeReady","status":"True"}]}}`),
		"the kubelet's condition":   patch(pluginOf(name), `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`),
		"what the node has to give": patch(pluginOf(name), `{"status":{"capacity":{"cpu":"1000"}}}`),
	} {
		if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
