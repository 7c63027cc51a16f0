package contrib

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/stockade-dev/stockade/nri"
)

var update = flag.Bool("update", false, "write what the chart holds copies of")

// The chart's copy of the generated CRD.
const chartCRD = "kubernetes/chart/templates/crd.yaml"

// chartTemplate makes the chart's copy of the CRD.
func chartTemplate(crd []byte) []byte {
	const keep = "    controller-gen.kubebuilder.io/version:"
	text := strings.TrimPrefix(string(crd), "---\n")
	text = strings.Replace(text, keep, "    {{- if .Values.crd.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n"+keep, 1)
	return []byte("{{- if .Values.crd.create }}\n# Made from contrib/kubernetes/crd by `go test ./contrib -run TestChartHoldsTheCRD -update`.\n" + text + "{{- end }}\n")
}

func TestChartHoldsTheCRD(t *testing.T) {
	want := chartTemplate(read(t, "kubernetes/crd/stockade.dev_profiles.yaml"))
	if *update {
		if err := os.WriteFile(chartCRD, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(read(t, chartCRD), want) {
		t.Errorf("%s is not what contrib/kubernetes/crd says: go test ./contrib -run TestChartHoldsTheCRD -update", chartCRD)
	}
}

// renderer is the pinned program that renders with the libraries of kustomize and Helm.
func renderer(t *testing.T) string {
	t.Helper()
	program, err := filepath.Abs("../.cache/bin/render")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err == nil {
		return program
	}
	program = filepath.Join(t.TempDir(), "render")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = "../integration/thirdparty/render"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the pinned renderer: %v\n%s", err, out)
	}
	return program
}

// objects renders and returns the objects by what they are.
func objects(t *testing.T, args ...string) map[string]map[string]any {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), renderer(t), args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("render %q: %v\n%s", args, err, errs.String())
	}
	return decode(t, out)
}

// decode returns the objects of a text by what they are.
func decode(t *testing.T, out []byte) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096); ; {
		var o map[string]any
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if o["kind"] == nil { // a template that makes nothing
			continue
		}
		meta := o["metadata"].(map[string]any)
		key := fmt.Sprint(o["kind"], " ", meta["namespace"], "/", meta["name"])
		if all[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		all[key] = o
	}
}

func TestChartEqualsKustomize(t *testing.T) {
	t.Run("base", func(t *testing.T) {
		same(t, objects(t, "kustomize", "kubernetes"), objects(t, "chart", "kubernetes/chart", "stockade-system"))
	})
	t.Run("metrics", func(t *testing.T) {
		chart := objects(t, "chart", "kubernetes/chart", "stockade-system", "metrics.enabled=true", "metrics.podMonitor.create=true")
		want := objects(t, "kustomize", "testdata/metrics")
		maps.Copy(want, decode(t, read(t, "kubernetes/metrics/podmonitor.yaml")))
		same(t, want, chart)
	})
	t.Run("choice", func(t *testing.T) {
		want := objects(t, "kustomize", "kubernetes")
		maps.Copy(want, decode(t, read(t, "kubernetes/policy/profile-choice.yaml")))
		same(t, want, objects(t, "chart", "kubernetes/chart", "stockade-system", "choicePolicy.create=true"))
	})
}

func same(t *testing.T, base, chart map[string]map[string]any) {
	t.Helper()
	if len(base) < 12 {
		t.Errorf("only %d objects", len(base))
	}
	delete(base, "Namespace <nil>/stockade-system") // Helm needs it before
	for key, want := range base {
		if !reflect.DeepEqual(chart[key], want) {
			t.Errorf("%s: the chart has\n%v\nkustomize\n%v", key, chart[key], want)
		}
		delete(chart, key)
	}
	for key := range chart {
		t.Errorf("only the chart has %s", key)
	}
}

// Values reach the places they are for.
func TestChartValues(t *testing.T) {
	all := objects(t, "chart", "kubernetes/chart", "other", "image.repository=registry.example/s", "image.tag=1", "installArgs={--unit=k3s.service}",
		"hostNetwork=true", "crd.keep=true", "runtimeClass.nodeSelector=null", "requirePolicy.create=false", "paths.containerd=/run/k3s/containerd",
		"podAnnotations.prometheus\\.io/scrape=yes")
	text := fmt.Sprint(all)
	for _, want := range []string{
		"registry.example/s:1", "--label-node=$(NODE_NAME) --unit=k3s.service", "hostNetwork:true", "helm.sh/resource-policy:keep", "system:serviceaccount:other:stockade",
		"path:/run/k3s/containerd", "prometheus.io/scrape:yes",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, not := range []string{"docker.io/stockade", "stockade-system", "stockade-require"} {
		if strings.Contains(text, not) {
			t.Errorf("%q is there still", not)
		}
	}
	if all["RuntimeClass <nil>/stockade"]["scheduling"] != nil {
		t.Errorf("%v", all["RuntimeClass <nil>/stockade"])
	}
}

// pluginConfig is what the plugin reads in a cluster, if it is mounted where the plugin looks.
func pluginConfig(t *testing.T, namespace string, all map[string]map[string]any) nri.Config {
	t.Helper()
	daemons := fmt.Sprint(all["DaemonSet "+namespace+"/stockade"])
	for _, want := range []string{"--config=/etc/stockade-nri/nri.yaml", "mountPath:/etc/stockade-nri name:config", "configMap:map[name:stockade-nri]"} {
		if !strings.Contains(daemons, want) {
			t.Errorf("%s: the DaemonSet has no %s", namespace, want)
		}
	}
	data, _ := all["ConfigMap "+namespace+"/stockade-nri"]["data"].(map[string]any)
	text, _ := data["nri.yaml"].(string)
	c, err := nri.ParseConfig("nri.yaml", []byte(text))
	if err != nil || text == "" {
		t.Errorf("%s: %v\n%s", namespace, err, text)
	}
	return c
}

// The plugin has its defaults in a cluster, unless told otherwise, and its own namespace is exempt in any case.
func TestPluginConfigInACluster(t *testing.T) {
	if got, want := pluginConfig(t, "stockade-system", objects(t, "kustomize", "kubernetes")), nri.DefaultConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	checksum := func(all map[string]map[string]any) string {
		_, rest, _ := strings.Cut(fmt.Sprint(all["DaemonSet other/stockade"]), "checksum/config:")
		sum, _, _ := strings.Cut(rest, " ")
		return sum
	}
	sums := map[string]bool{}
	for _, tc := range []struct {
		set  []string
		want func(*nri.Config)
	}{
		{nil, func(c *nri.Config) { c.Exempt = []string{"kube-system", "other"} }},
		{[]string{"config.exempt.namespaces={infra,other}"}, func(c *nri.Config) { c.Exempt = []string{"infra", "other"} }},
		{[]string{"config.requireShim.namespaces={prod}", "config.otlp=http://collector:4318"}, func(c *nri.Config) {
			c.Exempt, c.RequireShim, c.OTLP = []string{"kube-system", "other"}, []string{"prod"}, "http://collector:4318"
		}},
	} {
		all := objects(t, append([]string{"chart", "kubernetes/chart", "other"}, tc.set...)...)
		want := nri.DefaultConfig()
		tc.want(&want)
		if got := pluginConfig(t, "other", all); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", tc.set, got, want)
		}
		sum := checksum(all) // by which an upgrade makes new pods
		if sums[sum] || (sum == "") != (tc.set == nil) {
			t.Errorf("%q: checksum %q", tc.set, sum)
		}
		sums[sum] = true
	}
}

// What runs on every node as root keeps to what it needs.
func TestLeastPrivilege(t *testing.T) {
	for _, dir := range []string{"kubernetes", "kubernetes/uninstall"} {
		for key, o := range objects(t, "kustomize", dir) {
			if o["kind"] != "DaemonSet" {
				continue
			}
			spec := o["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
			for _, forbidden := range []string{"hostPID", "hostIPC", "hostNetwork"} {
				if spec[forbidden] != nil {
					t.Errorf("%s: %s", key, forbidden)
				}
			}
			for _, c := range append(spec["initContainers"].([]any), spec["containers"].([]any)...) {
				name := c.(map[string]any)["name"]
				sc := c.(map[string]any)["securityContext"].(map[string]any)
				caps := sc["capabilities"].(map[string]any)
				if sc["privileged"] != false || sc["allowPrivilegeEscalation"] != false || sc["readOnlyRootFilesystem"] != true ||
					!reflect.DeepEqual(caps["drop"], []any{"ALL"}) {
					t.Errorf("%s: %v: %v", key, name, sc)
				}
				if add := caps["add"]; add != nil && !reflect.DeepEqual(add, []any{"SYS_CHROOT"}) || name == "plugin" && add != nil {
					t.Errorf("%s: %v: capabilities %v", key, name, add)
				}
			}
		}
	}
}
