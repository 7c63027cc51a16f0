//go:build kubernetes

package kubernetes_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What follows is what the cluster hears of a node, from the DaemonSet's own pod: Events, the node's condition, the
// status of profiles, metrics.

// deviating: the pod's author reads in its status and its Events what was tried, and by which container.
func (s *site) deviating(t *testing.T) {
	p := newPod("deviates", "runs", "spawn", "/bin/hello")
	p = create(t, p)
	awaitKilled(t, p, "runs", "exec /bin/hello is not declared")
	if out := logs(t, p, "runs"); strings.Contains(out, "hello ran") {
		t.Error(out)
	}
	awaitEvent(t, p, "StockadeKilled", "container runs killed: exec /bin/hello is not declared", `to allow it: spec.allow.exec: ["/bin/hello"]`)
	if out := describe(t, p.Name); !strings.Contains(out, "StockadeKilled") || !strings.Contains(out, "container runs killed: exec /bin/hello") {
		t.Errorf("kubectl describe does not show our Event:\n%s", out)
	}
	// The Event is that of the account, not of an admin.
	list, err := s.Client.CoreV1().Events(p.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID) + ",reason=StockadeKilled"})
	must(t, err)
	for _, e := range list.Items {
		if e.InvolvedObject.FieldPath != "spec.containers{runs}" || e.Source.Component != "stockade-nri" || e.Source.Host != s.NodeName {
			t.Errorf("%+v", e)
		}
	}
	// So is a refusal: the shim's, which kubelet tells of, and the plugin's own.
	stranger := create(t, newPod("stranger", "nobody-declared-this", "sleep", "1"))
	awaitRefused(t, stranger, "nobody-declared-this", "no profile for")
	awaitEvent(t, stranger, "Failed", "refused by stockade", "no profile for")
	forger := newPod("forger", "runs", "spawn", "/bin/hello")
	forger.Annotations = map[string]string{"stockade.dev/selection": "x"}
	forger = create(t, forger)
	awaitRefused(t, forger, "runs", "which only stockade-nri may set")
	awaitEvent(t, forger, "StockadeRefused", "refused: container runs: the pod sets an annotation")
}

// otherHandler: a pod that a profile is for and that does not run under Stockade gets what NRI can give, and everybody is
// told what that is not.
func (s *site) otherHandler(t *testing.T) {
	p := create(t, plain(newPod("elsewhere", "runs", "sleep", "3600")))
	awaitReady(t, p)
	awaitEvent(t, p, "StockadeUnprotected", "container runs:", "not under Stockade's", "set runtimeClassName", "undeclared system calls fail with EPERM")
	s.awaitCondition(t, corev1.ConditionFalse, "Unprotected", "default/elsewhere")
	must(t, remove(p.Namespace, p.Name))
	awaitGone(t, p)
	s.awaitCondition(t, corev1.ConditionTrue, "Ready", "profiles")
}

// doctor is what the admin of the node sees.
func (s *site) doctor(t *testing.T) string {
	t.Helper()
	cmd := osexec.CommandContext(t.Context(), s.at("usr/local/bin/stockade"), "doctor", "--config", s.Node.StockadeConfig())
	out, err := cmd.CombinedOutput()
	if exit := (*osexec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

func (s *site) stockadeReady(t *testing.T) corev1.NodeCondition {
	t.Helper()
	n, err := s.Client.CoreV1().Nodes().Get(t.Context(), s.NodeName, metav1.GetOptions{})
	must(t, err)
	for _, c := range n.Status.Conditions {
		if c.Type == "StockadeReady" {
			return c
		}
	}
	return corev1.NodeCondition{}
}

func (s *site) awaitCondition(t *testing.T, status corev1.ConditionStatus, reason, text string) {
	t.Helper()
	var got corev1.NodeCondition
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if got = s.stockadeReady(t); got.Status == status && got.Reason == reason && strings.Contains(got.Message, text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the condition is not %s, %s, %q: %+v", status, reason, text, got)
		}
	}
}

// condition: a node whose store is broken says so, and that it is well again. What runs does not stop for it.
func (s *site) condition(t *testing.T) {
	s.awaitCondition(t, corev1.ConditionTrue, "Ready", "profiles")
	runs := awaitReady(t, create(t, newPod("goes-on", "runs", "sleep", "3600")))
	bad := s.at("etc/stockade/profiles.d/zz-bad.yaml")
	must(t, os.WriteFile(bad, []byte("nonsense: ["), 0o600))
	t.Cleanup(func() { _ = os.Remove(bad) })
	s.awaitCondition(t, corev1.ConditionFalse, "Problem", "zz-bad.yaml")
	if out := s.kubectl(t, "describe", "node", s.NodeName); !strings.Contains(out, "StockadeReady") || !strings.Contains(out, "zz-bad.yaml") {
		t.Errorf("kubectl describe node does not say it:\n%s", out)
	}
	eventually(t, "stockade doctor says it", func() bool {
		out := s.doctor(t)
		return strings.Contains(out, "! "+bad) && strings.Contains(out, "stockade-nri has a problem: /etc/stockade/profiles.d/zz-bad.yaml")
	})
	must(t, os.Remove(bad))
	s.awaitCondition(t, corev1.ConditionTrue, "Ready", "profiles")
	eventually(t, "stockade doctor says nothing of it any more", func() bool { return !strings.Contains(s.doctor(t), "zz-bad.yaml") })
	if runs = awaitReady(t, runs); status(runs, "runs").RestartCount != 0 {
		t.Errorf("the broken store ended a container:\n%s", describe(t, runs.Name))
	}
	// The kubelet's own conditions are its own.
	if n, err := s.Client.CoreV1().Nodes().Get(t.Context(), s.NodeName, metav1.GetOptions{}); err != nil || len(n.Status.Conditions) < 4 {
		t.Errorf("%v: %+v", err, n.Status.Conditions)
	}
}

// doesNotHold: what a node cannot hold is said in the profile's status, and by nothing before a container needs it.
func (s *site) doesNotHold(t *testing.T) {
	text := probeProfile("listens", "{exec: [/bin/probe], listen: [tcp/80]}", "{}")
	s.apply(t, text)
	node := func() string {
		return s.kubectl(t, "get", "profile", "listens", "-o", "jsonpath={.status.nodes[?(@.name=='"+s.NodeName+"')].error}")
	}
	eventually(t, "the node says that the profile does not hold there", func() bool {
		return strings.Contains(node(), "does not hold on this node") && strings.Contains(node(), "spec.allowUnenforced")
	})
	if got := s.kubectl(t, "get", "profile", "listens", "-o", "jsonpath={.status.conditions[?(@.type=='Accepted')].status}"); got != "True" {
		t.Errorf("Accepted is %q: as a text it is right", got)
	}
	awaitRefused(t, create(t, newPod("listens", "listens", "sleep", "1")), "listens", "allowUnenforced")
	s.apply(t, strings.Replace(text, "mode: enforce", "mode: enforce\n  allowUnenforced: [network]", 1))
	eventually(t, "the node says that it holds now", func() bool {
		return node() == "" && s.kubectl(t, "get", "profile", "listens", "-o", "jsonpath={.status.nodes[*].digest}") != ""
	})
	awaitReady(t, create(t, newPod("listens-now", "listens", "sleep", "3600")))
}

// metrics: not to be reached but at the pod's own loopback, until somebody wants them scraped; then for those only who
// may read them.
func (s *site) metrics(t *testing.T) {
	n, err := s.Client.CoreV1().Nodes().Get(t.Context(), s.NodeName, metav1.GetOptions{})
	must(t, err)
	url := "https://" + net.JoinHostPort(n.Status.Addresses[0].Address, "9477") + "/metrics"
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func(token string) (int, string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		must(t, err)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	if code, _, err := get(""); err == nil {
		t.Errorf("metrics can be reached from outside before anybody asked for it: %d", code)
	}
	s.apply(t, s.render(t, "kustomize", filepath.Join(s.root, "contrib/testdata/metrics")))
	eventually(t, "the new pod serves metrics", func() bool { _, _, err := get(""); return err == nil })
	awaitReady(t, s.daemon(t, "stockade"))
	must(t, s.Namespace(t.Context(), "monitoring"))
	s.kubectl(t, "-n", "monitoring", "create", "serviceaccount", "prometheus")
	token := func(account string) string {
		return strings.TrimSpace(s.kubectl(t, "-n", "monitoring", "create", "token", account))
	}
	prometheus := token("prometheus")
	for what, c := range map[string]struct {
		token string
		want  int
	}{"nobody": {"", 401}, "a made-up token": {"x.y.z", 401}, "an account without the right": {token("default"), 403}, "one that has it not yet": {prometheus, 403}} {
		if code, body, err := get(c.token); code != c.want || strings.Contains(body, "stockade_") {
			t.Errorf("%s: %d, %v, want %d", what, code, err, c.want)
		}
	}
	s.kubectl(t, "create", "clusterrolebinding", "prometheus", "--clusterrole=stockade-metrics-reader", "--serviceaccount=monitoring:prometheus")
	p := create(t, newPod("counted", "runs", "spawn", "/bin/hello"))
	awaitKilled(t, p, "runs", "exec /bin/hello is not declared")
	awaitEvent(t, p, "StockadeKilled", "container runs killed")
	awaitReady(t, create(t, newPod("held-and-counted", "runs", "sleep", "3600")))
	text := ""
	says := func(wanted ...string) {
		t.Helper()
		for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
			code, body, err := get(prometheus)
			if err = errors.Join(err, lacks(body, wanted...)); code == 200 && err == nil {
				text = body
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d, %v", code, err)
			}
		}
	}
	says(`stockade_violations_total{action="killed",kind="exec",profile="runs"}`, `stockade_containers{mode="enforce",profile="runs"}`,
		"stockade_plugin_connected 1\n", `stockade_findings_told_total{sink="events"}`, `stockade_findings_lost_total{stage="events"} 0`+"\n",
		"stockade_profiles_bad 0\n", "stockade_plugin_problems 0\n", `stockade_decisions_total{`, "stockade_answer_duration_seconds_count",
		"stockade_shims_silent 0\n", "stockade_containers_unprotected 0\n")
	if strings.Contains(text, "/bin/hello") || strings.Contains(text, `"counted"`) {
		t.Errorf("metrics tell of paths or pods:\n%s", text)
	}
	// What the PodMonitor brings for the operator's Prometheus may read them too, and nothing else.
	monitor, err := os.ReadFile(s.contrib("metrics/podmonitor.yaml"))
	must(t, err)
	_, account, found := strings.Cut(string(monitor), "\n---\n") // this cluster has no PodMonitor
	if !found || strings.Contains(account, "kind: PodMonitor") {
		t.Fatalf("%s", monitor)
	}
	s.apply(t, account)
	t.Cleanup(func() { _, _ = s.Kubectl(context.Background(), account, "delete", "--ignore-not-found", "-f", "-") })
	scraper := strings.TrimSpace(s.kubectl(t, "-n", "stockade-system", "create", "token", "stockade-prometheus"))
	eventually(t, "the PodMonitor's account reads metrics", func() bool { code, _, err := get(scraper); return err == nil && code == 200 })
	if out, err := s.Kubectl(t.Context(), "", "auth", "can-i", "list", "pods", "-A", "--as=system:serviceaccount:stockade-system:stockade-prometheus"); err == nil {
		t.Errorf("it may more: %s", out)
	}
	// A node that is broken says so here as well.
	bad := s.at("etc/stockade/profiles.d/zz-bad.yaml")
	must(t, os.WriteFile(bad, []byte("nonsense: ["), 0o600))
	says("stockade_profiles_bad 1\n", "stockade_plugin_problems 1\n")
	must(t, os.Remove(bad))
	says("stockade_profiles_bad 0\n", "stockade_plugin_problems 0\n")
}

func lacks(text string, wanted ...string) error {
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			return fmt.Errorf("it lacks %q:\n%s", w, text)
		}
	}
	return nil
}

// helm: install, upgrade and uninstall with Helm itself.
func (s *site) helm(t *testing.T) {
	helm := func(args ...string) string {
		t.Helper()
		cmd := osexec.CommandContext(t.Context(), filepath.Join(s.root, ".cache/bin/helm"), append([]string{"-n", "stockade-system"}, args...)...)
		cmd.Env = append(s.Environ(), "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("helm %q: %v\n%s\n%s", args, err, out, s.kubectl(t, "get", "pods,daemonsets", "-A"))
		}
		return string(out)
	}
	// Helm keeps its record in the namespace, so that is there before.
	s.kubectl(t, "create", "namespace", "stockade-system")
	s.kubectl(t, "label", "namespace", "stockade-system", "pod-security.kubernetes.io/enforce=privileged")
	out := helm("install", "stockade", s.contrib("chart"), "--wait", "--timeout=90s")
	if !strings.Contains(out, "STATUS: deployed") {
		t.Error(out)
	}
	awaitReady(t, s.daemon(t, "stockade"))
	if got := s.label(t); got != "true" {
		t.Errorf("the node's label stockade.dev/ready is %q", got)
	}
	s.awaitCondition(t, corev1.ConditionTrue, "Ready", "profiles")
	s.apply(t, profileTexts["runs"])
	eventually(t, "the profile is accepted", func() bool {
		return s.kubectl(t, "get", "profile", "runs", "-o", "jsonpath={.status.nodes[*].digest}") != ""
	})
	runs := awaitReady(t, create(t, newPod("declared", "runs", "sleep", "3600")))
	awaitKilled(t, create(t, newPod("deviates", "runs", "spawn", "/bin/hello")), "runs", "exec /bin/hello is not declared")

	helm("upgrade", "stockade", s.contrib("chart"), "--set", "metrics.enabled=true", "--set", "config.exempt.namespaces={infra}", "--wait", "--timeout=90s")
	pod := awaitReady(t, s.daemon(t, "stockade"))
	if got := fmt.Sprint(pod.Spec.Containers[0].Args); !strings.Contains(got, "--metrics-access=token") {
		t.Errorf("after the upgrade the plugin has the arguments %s", got)
	}
	if got := s.kubectl(t, "-n", "stockade-system", "get", "configmap", "stockade-nri", "-o", "jsonpath={.data.nri\\.yaml}"); lacks(got, "- infra\n", "- stockade-system\n") != nil || pod.Annotations["checksum/config"] == "" {
		t.Errorf("after the upgrade the plugin's configuration is\n%s\nby %v", got, pod.Annotations)
	}
	if out := helm("history", "stockade"); !strings.Contains(out, "superseded") || !strings.Contains(out, "deployed") {
		t.Error(out)
	}
	helm("uninstall", "stockade", "--wait", "--timeout=90s")
	awaitGone(t, pod)
	for _, kind := range []string{"daemonset", "serviceaccount", "configmap", "clusterrole", "clusterrolebinding", "validatingadmissionpolicy", "runtimeclass", "customresourcedefinition"} {
		if out := s.kubectl(t, "get", kind, "-A", "-o", "name"); strings.Contains(out, "stockade") {
			t.Errorf("left behind: %s", out)
		}
	}
	// What runs stays protected.
	if out, err := s.Kubectl(t.Context(), "", "exec", runs.Name, "--", "/bin/other"); err == nil || !strings.Contains(out, "refused by stockade") {
		t.Errorf("%v: %s", err, out)
	}
}
