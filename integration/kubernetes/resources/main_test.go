//go:build kubernetes

// Package resources_test holds the Profile resource, its policies and its watcher against a real API server.
package resources_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/kubernetes/cluster"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/integration/suite"
	"github.com/stockade-dev/stockade/nri/v1alpha1"
)

var (
	root   string
	shared *cluster.Cluster // etcd and kube-apiserver only
	client dynamic.ResourceInterface
)

var resource = v1alpha1.GroupVersion.WithResource(v1alpha1.Resource)

func TestMain(m *testing.M) {
	suite.Main(m, "resources", setUp, func(ctx context.Context) error {
		if shared == nil {
			return nil
		}
		return shared.Stop(ctx)
	})
}

func setUp(ctx context.Context) (err error) {
	if root, err = checkout.Root(); err != nil {
		return err
	}
	bin, err := cluster.Bin(root)
	if err != nil {
		return err
	}
	if shared, err = cluster.Start(ctx, cluster.Config{
		Node: node.Config{Dir: filepath.Join(root, ".work/resources"), Bin: []string{filepath.Join(root, ".cache/bin")}},
		Bin:  bin, ControlPlane: true,
	}); err != nil {
		return err
	}
	dyn, err := dynamic.NewForConfig(shared.REST)
	if err != nil {
		return err
	}
	client = dyn.Resource(resource)
	if err := shared.Namespace(ctx, "stockade-system"); err != nil {
		return err
	}
	for _, f := range []string{"crd", "rbac", "policy"} {
		if out, err := shared.Kubectl(ctx, "", "apply", "-f", filepath.Join(root, "contrib/kubernetes", f)); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	return inForce(ctx)
}

// inForce waits until the API server knows the resource and holds the policies: it takes them up a little later.
func inForce(ctx context.Context) error {
	if out, err := shared.Kubectl(ctx, "", "wait", "--for=condition=Established", "crd/profiles.stockade.dev"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	for range 300 {
		_, wrong := client.Create(ctx, profile("wrong", "allow: {exec: [relative]}"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		_, chosen := create(ctx, pod("probe", map[string]string{"stockade.dev/selection": "x"}, "default"), "admin-dry-run")
		if apierrors.IsInvalid(wrong) && apierrors.IsForbidden(chosen) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the policies are not in force")
}

// profile is a resource with this spec.
func profile(name, spec string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	text := "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		panic(text + err.Error())
	}
	return u
}

// eventually waits up to half a minute.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	var err error
	for range 600 {
		if err = holds(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: %v", what, err)
}

// apply creates or changes a resource as `kubectl apply --validate=strict` does, and removes it when the test ends.
func apply(t *testing.T, text string) (string, error) {
	t.Helper()
	out, err := shared.Kubectl(t.Context(), text, "apply", "--validate=strict", "-f", "-")
	t.Cleanup(func() {
		_, _ = shared.Kubectl(context.Background(), text, "delete", "--ignore-not-found", "-f", "-")
	})
	return out, err
}

func mustApply(t *testing.T, name, spec string) {
	t.Helper()
	data, err := yaml.Marshal(profile(name, spec).Object)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := apply(t, string(data)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func lacks(text string, wanted ...string) error {
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			return fmt.Errorf("it lacks %q: %s", w, text)
		}
	}
	return nil
}
