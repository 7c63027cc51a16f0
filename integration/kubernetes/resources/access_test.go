//go:build kubernetes

package resources_test

import (
	"context"
	"fmt"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const plugin = "system:serviceaccount:stockade-system:stockade"

// as is the configuration of somebody else: kube-apiserver takes system:masters' word for who it is.
func as(user string, extra map[string][]string, groups ...string) *rest.Config {
	c := rest.CopyConfig(shared.REST)
	c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated"), Extra: extra}
	return c
}

// pluginOf is the plugin on a node, as its pod's token says.
func pluginOf(node string) *rest.Config {
	return as(plugin, map[string][]string{"authentication.kubernetes.io/node-name": {node}}, "system:serviceaccounts", "system:serviceaccounts:stockade-system")
}

func clientOf(t *testing.T, c *rest.Config) dynamic.ResourceInterface {
	t.Helper()
	d, err := dynamic.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return d.Resource(resource)
}

func bind(t *testing.T, role, user string) {
	t.Helper()
	name := "test-" + role + "-" + user
	if out, err := shared.Kubectl(t.Context(), "", "create", "clusterrolebinding", name, "--clusterrole="+role, "--user="+user); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { _, _ = shared.Kubectl(context.Background(), "", "delete", "clusterrolebinding", name) })
}

func TestWhoMayWriteProfiles(t *testing.T) {
	mustApply(t, "written", "mode: enforce")
	bind(t, "stockade-profile-editor", "editor")
	bind(t, "stockade-profile-viewer", "viewer")
	bind(t, "admin", "namespace-admin")
	relax := []byte(`{"spec":{"mode":"monitor"}}`)
	for _, tc := range []struct {
		name  string
		as    *rest.Config
		read  bool
		write bool
	}{
		{"editor", as("editor", nil), true, true},
		{"viewer", as("viewer", nil), true, false},
		// Nor may it read here: it is the controller manager that adds the viewer's rules to view and admin.
		{"admin of everything in namespaces", as("namespace-admin", nil), false, false},
		{"anybody", as("anybody", nil), false, false},
		{"the plugin", pluginOf("n1"), true, false},
	} {
		c := clientOf(t, tc.as)
		eventually(t, tc.name, func() error { // the authorizer takes up bindings a little later
			if _, err := c.Get(t.Context(), "written", metav1.GetOptions{}); apierrors.IsForbidden(err) == tc.read {
				return fmt.Errorf("reads: %v", err)
			}
			if _, err := c.Patch(t.Context(), "written", types.MergePatchType, relax, metav1.PatchOptions{}); apierrors.IsForbidden(err) == tc.write {
				return fmt.Errorf("writes: %v", err)
			}
			if err := c.Delete(t.Context(), "written", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); apierrors.IsForbidden(err) == tc.write {
				return fmt.Errorf("deletes: %v", err)
			}
			return nil
		})
	}
	// Whoever may write profiles may not thereby write what the nodes say of them.
	_, err := clientOf(t, as("editor", nil)).Patch(t.Context(), "written", types.MergePatchType, []byte(`{"status":{"digest":"x"}}`), metav1.PatchOptions{}, "status")
	if !apierrors.IsForbidden(err) {
		t.Errorf("the editor writes the status: %v", err)
	}
	u, err := clientOf(t, as("editor", nil)).Patch(t.Context(), "written", types.MergePatchType, []byte(`{"status":{"digest":"x"}}`), metav1.PatchOptions{})
	if err != nil || u.Object["status"] != nil {
		t.Errorf("the status is written beside the spec: %v %v", u.Object["status"], err)
	}
}

// TestThePluginMaySpeakForItsNodeOnly also goes through what else its role must not give.
func TestThePluginMaySpeakForItsNodeOnly(t *testing.T) {
	mustApply(t, "spoken", "mode: enforce")
	say := func(c *rest.Config, node string) error {
		u := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "stockade.dev/v1alpha1", "kind": "Profile", "metadata": map[string]any{"name": "spoken"},
			"status": map[string]any{"nodes": []any{map[string]any{"name": node, "digest": "x"}}},
		}}
		_, err := clientOf(t, c).ApplyStatus(t.Context(), "spoken", u, metav1.ApplyOptions{FieldManager: "test-" + node, Force: true})
		return err
	}
	for _, node := range []string{"n1", "n2"} {
		if err := say(pluginOf(node), node); err != nil {
			t.Fatal(err)
		}
	}
	if err := say(pluginOf("n1"), "n3"); !apierrors.IsForbidden(err) {
		t.Errorf("for a node that has not spoken: %v", err)
	}
	if err := say(as(plugin, nil, "system:serviceaccounts"), "n1x"); !apierrors.IsForbidden(err) {
		t.Errorf("without a node in the token: %v", err)
	}
	_, err := clientOf(t, pluginOf("n1")).Patch(t.Context(), "spoken", types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/status/nodes/1/digest","value":"lie"}]`), metav1.PatchOptions{}, "status")
	if !apierrors.IsForbidden(err) {
		t.Errorf("the entry of another: %v", err)
	}
	for _, attempt := range [][]string{
		{"get", "secrets", "-A"},
		{"get", "pods", "-A"},
		{"delete", "node", "n1"},
		{"create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--user=x"},
		{"delete", "profile", "spoken"},
		{"delete", "validatingadmissionpolicy", "stockade-profile-status"},
	} {
		args := append([]string{"--as", plugin, "--as-group", "system:authenticated", "--as-group", "system:serviceaccounts"}, attempt...)
		if out, err := shared.Kubectl(t.Context(), "", args...); err == nil || lacks(out, "orbidden") != nil {
			t.Errorf("the plugin may %v: %s", attempt, out)
		}
	}
}

// TestThePluginMayChangeTwoThingsOfItsNode goes through the fields of a node: the label and the condition may differ, and
// nothing else, by neither of the two ways to write one.
func TestThePluginMayChangeTwoThingsOfItsNode(t *testing.T) {
	const name = "touched"
	admin, mine := typed(t, shared.REST).CoreV1().Nodes(), typed(t, pluginOf(name)).CoreV1().Nodes()
	if _, err := admin.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}, Annotations: map[string]string{"a": "b"}, Finalizers: []string{"example.com/kept"},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = admin.Patch(context.Background(), name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		_ = admin.Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	full := `{"status":{"capacity":{"cpu":"2"},"allocatable":{"cpu":"2"},"conditions":[{"type":"Ready","status":"True"}],
		"addresses":[{"type":"InternalIP","address":"10.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":10250}},"nodeInfo":{"bootID":"b","kubeletVersion":"v1.37.2"},
		"images":[{"names":["example.com/a:1"],"sizeBytes":1}],"volumesInUse":["v"],"volumesAttached":[{"name":"v","devicePath":"/dev/x"}]}}`
	if _, err := admin.Patch(t.Context(), name, types.StrategicMergePatchType, []byte(full), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	for _, may := range []struct{ what, patch, by string }{
		{"its label", `{"metadata":{"labels":{"stockade.dev/ready":"true"}}}`, ""},
		{"another value", `{"metadata":{"labels":{"stockade.dev/ready":"false"}}}`, ""},
		{"without its label", `{"metadata":{"labels":{"stockade.dev/ready":null}}}`, ""},
		{"its condition", `{"status":{"conditions":[{"type":"StockadeReady","status":"True"}]}}`, "status"},
		{"another status of it", `{"status":{"conditions":[{"type":"StockadeReady","status":"False","reason":"x"}]}}`, "status"},
	} {
		if _, err := mine.Patch(t.Context(), name, types.StrategicMergePatchType, []byte(may.patch), metav1.PatchOptions{}, sub(may.by)...); err != nil {
			t.Errorf("%s: %v", may.what, err)
		}
	}
	const metadata, status = "", "status"
	for _, tc := range []struct{ by, patch string }{
		{metadata, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`},
		{metadata, `{"metadata":{"labels":{"kubernetes.io/hostname":null}}}`},
		{metadata, `{"metadata":{"annotations":{"a":"c"}}}`},
		{metadata, `{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":"x"}}}`},
		{metadata, `{"metadata":{"annotations":null}}`},
		{metadata, `{"metadata":{"finalizers":["example.com/kept","example.com/added"]}}`},
		{metadata, `{"metadata":{"finalizers":null}}`},
		{metadata, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n1","uid":"u"}]}}`},
		{metadata, `{"spec":{"taints":[{"key":"x","effect":"NoExecute"}]}}`},
		{metadata, `{"spec":{"unschedulable":true}}`},
		{metadata, `{"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"]}}`},
		{metadata, `{"spec":{"providerID":"x"}}`},
		{status, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`},
		{status, `{"metadata":{"annotations":{"a":"c"}}}`},
		{status, `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`},
		{status, `{"status":{"conditions":[{"type":"Ready","$patch":"delete"}]}}`},
		{status, `{"status":{"conditions":[{"type":"DiskPressure","status":"True"}]}}`},
		{status, `{"status":{"capacity":{"cpu":"1000"}}}`},
		{status, `{"status":{"allocatable":{"example.com/gpu":"8"}}}`},
		{status, `{"status":{"addresses":[{"type":"ExternalIP","address":"10.0.0.2"}]}}`},
		{status, `{"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":1}}}}`},
		{status, `{"status":{"nodeInfo":{"bootID":"c"}}}`},
		{status, `{"status":{"images":[{"names":["example.com/a:2"]}]}}`},
		{status, `{"status":{"images":null}}`},
		{status, `{"status":{"volumesInUse":["w"]}}`},
		{status, `{"status":{"volumesAttached":null}}`},
		{status, `{"status":{"volumesAttached":[{"name":"v","devicePath":"/dev/y"}]}}`},
		{status, `{"status":{"runtimeHandlers":[{"name":"stockade","features":{"userNamespaces":true}}]}}`},
		{status, `{"status":null}`},
	} {
		_, err := mine.Patch(t.Context(), name, types.StrategicMergePatchType, []byte(tc.patch), metav1.PatchOptions{}, sub(tc.by)...)
		if err == nil || lacks(err.Error(), "stockade may") != nil {
			t.Errorf("%s %s: %v", tc.by, tc.patch, err)
		}
	}
	for what, c := range map[string]*rest.Config{"another node's plugin": pluginOf("n1"), "without a node in the token": as(plugin, nil, "system:serviceaccounts")} {
		_, err := typed(t, c).CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"stockade.dev/ready":"true"}}}`), metav1.PatchOptions{})
		if err == nil || lacks(err.Error(), "the node that its pod runs on") != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Who is not the plugin is not asked.
	if _, err := admin.Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}

// sub is the subresource as a client wants it; "" is none.
func sub(resource string) []string {
	if resource == "" {
		return nil
	}
	return []string{resource}
}

// TestThePluginMakesEventsOfItsNodeOnly: an event says of which node it is, and none of it may be changed later.
func TestThePluginMakesEventsOfItsNodeOnly(t *testing.T) {
	event := func(host, instance, component, controller string) *corev1.Event {
		return &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "made.", Namespace: "default"},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: "made", UID: "u"},
			Type:           corev1.EventTypeWarning, Reason: "StockadeKilled", Message: "m", Source: corev1.EventSource{Component: component, Host: host},
			ReportingController: controller, ReportingInstance: instance,
		}
	}
	try := func(c *rest.Config, e *corev1.Event) error {
		_, err := typed(t, c).CoreV1().Events("default").Create(t.Context(), e, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	const own, by = "stockade-nri", "stockade.dev/nri"
	eventually(t, "the policy is in force", func() error {
		if try(pluginOf("n1"), event("n2", "", own, "")) == nil {
			return fmt.Errorf("it may")
		}
		return nil
	})
	for _, tc := range []struct {
		what string
		as   *rest.Config
		e    *corev1.Event
		may  bool
	}{
		{"as for pods", pluginOf("n1"), event("n1", "n1", own, by), true},
		{"as for profiles", pluginOf("n1"), event("n1", "", own, ""), true},
		{"somebody else", shared.REST, event("n2", "n2", "x", ""), true},
		{"another node", pluginOf("n1"), event("n2", "n2", own, by), false},
		{"another instance", pluginOf("n1"), event("n1", "n2", own, by), false},
		{"no node", pluginOf("n1"), event("", "", own, by), false},
		{"no node in the token", as(plugin, nil, "system:serviceaccounts"), event("n1", "n1", own, by), false},
		{"no node anywhere", as(plugin, nil, "system:serviceaccounts"), event("", "", own, by), false},
		{"the kubelet's name", pluginOf("n1"), event("n1", "n1", "kubelet", ""), false},
		{"the scheduler's name", pluginOf("n1"), event("n1", "n1", own, "default-scheduler"), false},
	} {
		if err := try(tc.as, tc.e); tc.may != (err == nil) || err != nil && lacks(err.Error(), "stockade may make events") != nil {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
	there, err := typed(t, shared.REST).CoreV1().Events("default").Create(t.Context(), event("n1", "n1", own, by), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = typed(t, shared.REST).CoreV1().Events("default").Delete(context.Background(), there.Name, metav1.DeleteOptions{})
	})
	if _, err := typed(t, pluginOf("n1")).CoreV1().Events("default").Patch(t.Context(), there.Name, types.MergePatchType, []byte(`{"count":2}`), metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("it changes an event: %v", err)
	}
}

// TestThePluginsVerbs: a role has what the plugin does, and no more.
func TestThePluginsVerbs(t *testing.T) {
	for _, tc := range []struct {
		verb, group, resource, sub string
		may                        bool
	}{
		{"list", "stockade.dev", "profiles", "", true},
		{"patch", "stockade.dev", "profiles", "status", true},
		{"update", "stockade.dev", "profiles", "status", false},
		{"patch", "stockade.dev", "profiles", "", false},
		{"use", "stockade.dev", "profiles", "", false},
		{"get", "", "nodes", "", true},
		{"list", "", "nodes", "", false},
		{"update", "", "nodes", "", false},
		{"update", "", "nodes", "status", false},
		{"get", "", "nodes", "proxy", false},
		{"create", "", "events", "", true},
		{"patch", "", "events", "", false},
		{"list", "", "events", "", false},
		{"create", "events.k8s.io", "events", "", false},
		{"get", "", "configmaps", "", false},
		{"create", "authentication.k8s.io", "tokenreviews", "", false}, // the metrics component gives it
	} {
		r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: plugin, Groups: []string{"system:serviceaccounts", "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: tc.verb, Group: tc.group, Resource: tc.resource, Subresource: tc.sub, Namespace: "default"},
		}}
		got, err := typed(t, shared.REST).AuthorizationV1().SubjectAccessReviews().Create(t.Context(), r, metav1.CreateOptions{})
		if err != nil || got.Status.Allowed != tc.may {
			t.Errorf("%+v: %v, %v", tc, got.Status, err)
		}
	}
}

func pod(name string, annotations map[string]string, account string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{Name: "c", Image: "x"}}},
	}
}

// create creates a pod as user in the namespace chooses; "admin-dry-run" is the admin, in default, and only asks.
func create(ctx context.Context, p *corev1.Pod, user string) (*corev1.Pod, error) {
	c, ns, o := as(user, nil), "chooses", metav1.CreateOptions{}
	if user == "admin-dry-run" {
		c, ns, o.DryRun = shared.REST, "default", []string{metav1.DryRunAll}
	}
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, err
	}
	return k.CoreV1().Pods(ns).Create(ctx, p, o)
}

func TestWhoMayChooseAProfile(t *testing.T) {
	ctx := t.Context()
	if err := shared.Namespace(ctx, "chooses"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"create", "serviceaccount", "trusted", "-n", "chooses"},
		{"create", "clusterrolebinding", "use-redis", "--clusterrole=use-redis", "--serviceaccount=chooses:trusted", "--user=chooser"},
	} {
		if out, err := shared.Kubectl(ctx, "", args...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if out, err := apply(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: use-redis},
  rules: [{apiGroups: [stockade.dev], resources: [profiles], resourceNames: [redis], verbs: [use]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: make-pods},
  rules: [{apiGroups: [""], resources: [pods], verbs: [create, get, patch]}]}`); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bind(t, "make-pods", "maker")
	bind(t, "make-pods", "chooser")
	names := 0
	try := func(user, account string, annotations map[string]string) error {
		names++
		_, err := create(ctx, pod(fmt.Sprintf("p%d", names), annotations, account), user)
		return err
	}
	one := func(k, v string) map[string]string { return map[string]string{k: v} }
	const key = "stockade.dev/profile"
	eventually(t, "the bindings are in force", func() error { return try("chooser", "default", one(key, "redis")) })
	eventually(t, "the bindings are in force", func() error { return try("maker", "trusted", one(key, "redis")) })
	for _, tc := range []struct {
		name, user, account string
		annotations         map[string]string
		may                 bool
	}{
		{"nothing is asked for", "maker", "default", nil, true},
		{"an annotation of others", "maker", "default", one("example.com/profile", "redis"), true},
		{"neither may", "maker", "default", one(key, "redis"), false},
		{"no account is that called default", "maker", "", one(key, "redis"), false},
		{"the maker may", "chooser", "default", one(key, "redis"), true},
		{"the account may", "maker", "trusted", one(key, "redis"), true},
		{"pinned", "maker", "trusted", one(key, "redis@sha256:0"), true},
		{"another profile", "chooser", "trusted", one(key, "postgres"), false},
		{"for one container", "maker", "default", one(key+".c", "redis"), false},
		{"for one container, the account may", "maker", "trusted", one(key+".c", "redis"), true},
		{"one of two", "maker", "trusted", map[string]string{key: "redis", key + ".c": "postgres"}, false},
		{"four", "maker", "trusted", map[string]string{key: "redis", key + ".a": "redis", key + ".b": "redis", key + ".c": "redis"}, true},
		{"the last of four", "maker", "trusted", map[string]string{key: "redis", key + ".a": "redis", key + ".b": "redis", key + ".c": "postgres"}, false},
		{"five", "maker", "trusted", map[string]string{key: "redis", key + ".a": "redis", key + ".b": "redis", key + ".c": "redis", key + ".d": "redis"}, false},
		{"empty", "maker", "trusted", one(key, ""), false},
		{"every profile", "maker", "trusted", one(key, "*"), false},
		{"a path", "maker", "trusted", one(key, "redis/status"), false},
		{"what the plugin writes", "chooser", "trusted", one("stockade.dev/selection", "redis@sha256:0:0"), false},
		{"what the plugin writes, for a container", "chooser", "trusted", one("stockade.dev/selection.c", "x"), false},
		{"one who says it is a mirror", "maker", "default", map[string]string{key: "redis", "kubernetes.io/config.mirror": "x"}, false},
	} {
		err := try(tc.user, tc.account, tc.annotations)
		if tc.may != (err == nil) || err != nil && !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if !tc.may && err != nil && len(tc.annotations) == 1 && tc.annotations[key] == "redis" {
			if err := lacks(err.Error(), "may use profile redis", "stockade.dev/choose=true", "maker"); err != nil {
				t.Error(err)
			}
		}
	}

	// A pod that is there already: its annotations count again when they change.
	k, err := kubernetes.NewForConfig(as("maker", nil))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := create(ctx, pod("plain", nil, "default"), "maker")
	if err != nil {
		t.Fatal(err)
	}
	patch := func(what string) error {
		_, err := k.CoreV1().Pods("chooses").Patch(ctx, plain.Name, types.MergePatchType, []byte(`{"metadata":`+what+`}`), metav1.PatchOptions{})
		return err
	}
	if err := patch(`{"annotations":{"stockade.dev/profile":"redis"}}`); !apierrors.IsForbidden(err) {
		t.Errorf("chosen later: %v", err)
	}
	if err := patch(`{"labels":{"a":"b"}}`); err != nil {
		t.Error(err)
	}
	if out, err := shared.Kubectl(ctx, "", "label", "namespace", "chooses", "stockade.dev/choose=true"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	eventually(t, "the namespace may choose", func() error { return try("maker", "default", one(key, "postgres")) })
	if err := try("maker", "default", one("stockade.dev/selection", "x")); !apierrors.IsForbidden(err) {
		t.Errorf("what the plugin writes, in a namespace that may choose: %v", err)
	}
	if err := patch(`{"annotations":{"stockade.dev/profile":"redis"}}`); err != nil {
		t.Error(err)
	}
	if out, err := shared.Kubectl(ctx, "", "label", "namespace", "chooses", "stockade.dev/choose-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	eventually(t, "the namespace may not any more", func() error {
		if try("maker", "default", one(key, "postgres")) == nil {
			return fmt.Errorf("it may")
		}
		return nil
	})
	if err := patch(`{"labels":{"a":"c"}}`); err != nil {
		t.Errorf("a pod that had chosen cannot be changed at all: %v", err)
	}
}

func status(t *testing.T, name string) map[string]any {
	t.Helper()
	u, err := client.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ := unstructured.NestedMap(u.Object, "status")
	return runtime.DeepCopyJSON(s)
}
