package nri

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseConfig(t *testing.T) {
	got, err := ParseConfig("nri.yaml", []byte(`
node: /etc/other.yaml
socket: /run/nri.sock
index: "05"
kubernetes: /etc/kubeconfig
containerd: /run/c.sock
metrics: ":1"
metricsAccess: token
nodeName: n1
jsonLog: "-"
otlp: http://collector:4318
handlers: [stockade, stockade-systemd]
defaultHandler: crun
requireShim: {namespaces: [prod]}
exempt: {namespaces: [kube-system, stockade]}
otherHandlers: ignore
`))
	want := Config{
		Rules: Rules{
			Handlers: []string{"stockade", "stockade-systemd"}, DefaultHandler: "crun", RequireShim: []string{"prod"},
			Exempt: []string{"kube-system", "stockade"}, OtherHandlers: Ignore,
		},
		Node: "/etc/other.yaml", Socket: "/run/nri.sock", Index: "05", Kubernetes: "/etc/kubeconfig",
		Containerd: "/run/c.sock", Metrics: ":1", MetricsAccess: Token, NodeName: "n1", JSONLog: "-", OTLP: "http://collector:4318",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "# nothing\n", "exempt: {namespaces: [kube-system, stockade-system]}\n"} {
		if got, err := ParseConfig("nri.yaml", []byte(text)); err != nil || !reflect.DeepEqual(got, DefaultConfig()) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if got, err := ParseConfig("nri.yaml", []byte("exempt: {namespaces: []}\n")); err != nil || len(got.Exempt) > 0 {
		t.Errorf("nothing exempt: %+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"kubernetes: kubeconfig\n":                   "kubernetes: is \"kubeconfig\"; want auto, none or the absolute path",
		"exempts: {}\n":                              `unknown field "exempts"`,
		"requireShim: {namespace: [x]}\n":            `unknown field "namespace"`,
		"handlers: stockade\n":                       "[1:11]",
		"handlers: []\n":                             "handlers: is []",
		"otherHandlers: allow\n":                     `otherHandlers: is "allow"`,
		"index: 5\n":                                 "index",
		"socket: nri.sock\n":                         `socket: "nri.sock" is not absolute`,
		"exempt: {namespaces: ['*']}\n":              "every namespace",
		"requireShim: {namespaces: [kube-system]}\n": "kube-system is exempt as well",
		"a: 1\n---\nb: 1\n":                          "nri.yaml",
		"index: '10'\n---\nindex: '11'\n":            "more than one document",
		"metrics: 9477\n":                            `metrics: is "9477"`,
		"metricsAccess: all\n":                       `metricsAccess: is "all"`,
		"metricsAccess: token\nkubernetes: none\n":   "nobody could say whose",
		"jsonLog: log\n":                             `jsonLog: is "log"`,
		"otlp: collector:4318\n":                     `otlp: is "collector:4318"`,
		"index: [\n":                                 "nri.yaml",
	} {
		if got, err := ParseConfig("nri.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "nri.yaml") {
			t.Errorf("%q: %+v, %v; want %q", text, got, err, want)
		}
	}
}
