package nri

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// DefaultConfigPath is read when nothing names another file. It may be missing.
const DefaultConfigPath = "/etc/stockade/nri.yaml"

// Config is the plugin's configuration. The comments give each key's default.
type Config struct {
	Rules
	// Node is Stockade's configuration of the node, with the folders of the
	// profiles and the key (default: as the shim finds it).
	Node string
	// Socket is containerd's NRI socket (default /var/run/nri/nri.sock). A
	// plugin that containerd has started itself does not need it.
	Socket string
	// Index orders the plugin among others, 00 to 99 (default 10). A plugin
	// that containerd has started itself has it from its file's name.
	Index string
	// Kubernetes is how the API server is reached for Profile resources: auto
	// (in a pod with a service account, as that; else not), none, or the path of
	// a kubeconfig (default auto).
	Kubernetes string
	// Containerd is containerd's own socket, for its event bus (default
	// /run/containerd/containerd.sock). Without it violations are taken from the
	// incident folder alone.
	Containerd string
	// Metrics is the address of /metrics, /healthz and /readyz, or none (default
	// 127.0.0.1:9477).
	Metrics string
	// MetricsAccess says who may read them: open (whoever reaches the address,
	// over HTTP), or token (who shows a token of the cluster whose owner may get
	// /metrics, over HTTPS; needs Kubernetes) (default open).
	MetricsAccess string
	// NodeName is the node's name in the cluster (default: $NODE_NAME, else the
	// host's).
	NodeName string
	// JSONLog is a file for violations as JSON lines, or - for standard output
	// (default none).
	JSONLog string
	// OTLP is the URL of a collector for violations as OTLP logs over HTTP
	// (default none).
	OTLP string
}

// The values of metricsAccess.
const (
	Open  = "open"
	Token = "token"
)

// DefaultConfig returns what holds where the file says nothing.
func DefaultConfig() Config {
	return Config{
		Rules: DefaultRules(), Socket: "/var/run/nri/nri.sock", Index: "10", Kubernetes: "auto",
		Containerd: "/run/containerd/containerd.sock", Metrics: "127.0.0.1:9477", MetricsAccess: Open,
	}
}

// file is the configuration as it is written.
type file struct {
	Node           *string `yaml:"node"`
	Socket         *string `yaml:"socket"`
	Index          *string `yaml:"index"`
	Kubernetes     *string `yaml:"kubernetes"`
	Containerd     *string `yaml:"containerd"`
	Metrics        *string `yaml:"metrics"`
	MetricsAccess  *string `yaml:"metricsAccess"`
	NodeName       *string `yaml:"nodeName"`
	JSONLog        *string `yaml:"jsonLog"`
	OTLP           *string `yaml:"otlp"`
	Handlers       *[]string
	DefaultHandler *string `yaml:"defaultHandler"`
	RequireShim    *struct {
		Namespaces []string
	} `yaml:"requireShim"`
	Exempt *struct {
		Namespaces []string
	}
	OtherHandlers *string `yaml:"otherHandlers"`
}

// ParseConfig reads a configuration; name is used in errors only. Unknown keys
// and wrong types are errors with line and column, as are values that make no
// sense.
func ParseConfig(name string, data []byte) (Config, error) {
	var f file
	d := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%s: %s", name, yaml.FormatError(err, false, false))
	}
	if err := d.Decode(&file{}); !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%s: more than one document", name)
	}
	c := DefaultConfig()
	set(&c.Node, f.Node)
	set(&c.Socket, f.Socket)
	set(&c.Index, f.Index)
	set(&c.Kubernetes, f.Kubernetes)
	set(&c.Containerd, f.Containerd)
	set(&c.Metrics, f.Metrics)
	set(&c.MetricsAccess, f.MetricsAccess)
	set(&c.NodeName, f.NodeName)
	set(&c.JSONLog, f.JSONLog)
	set(&c.OTLP, f.OTLP)
	set(&c.Handlers, f.Handlers)
	set(&c.DefaultHandler, f.DefaultHandler)
	set((*string)(&c.OtherHandlers), f.OtherHandlers)
	if f.RequireShim != nil {
		c.RequireShim = f.RequireShim.Namespaces
	}
	if f.Exempt != nil {
		c.Exempt = f.Exempt.Namespaces
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// Check says what makes no sense.
func (c *Config) Check() error {
	var errs []error
	for key, path := range map[string]string{"node": c.Node, "socket": c.Socket, "containerd": c.Containerd} {
		if path != "" && !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s: %q is not absolute; want an absolute path", key, path))
		}
	}
	if c.Socket == "" {
		errs = append(errs, errors.New("socket: is empty; want an absolute path"))
	}
	if c.Kubernetes != "auto" && c.Kubernetes != "none" && !filepath.IsAbs(c.Kubernetes) {
		errs = append(errs, fmt.Errorf("kubernetes: is %q; want auto, none or the absolute path of a kubeconfig", c.Kubernetes))
	}
	errs = append(errs, c.checkOutlets()...)
	if len(c.Index) != 2 || strings.Trim(c.Index, "0123456789") != "" {
		errs = append(errs, fmt.Errorf("index: is %q; want two digits, in quotes", c.Index))
	}
	if len(c.Handlers) == 0 || slices.Contains(c.Handlers, "") {
		errs = append(errs, fmt.Errorf("handlers: is %q; want the names of runtime handlers that start the shim", c.Handlers))
	}
	if c.DefaultHandler == "" {
		errs = append(errs, errors.New("defaultHandler: is empty; want containerd's default_runtime_name"))
	}
	if c.OtherHandlers != Inject && c.OtherHandlers != Ignore {
		errs = append(errs, fmt.Errorf("otherHandlers: is %q; want inject or ignore", c.OtherHandlers))
	}
	if slices.Contains(c.Exempt, "*") {
		errs = append(errs, errors.New("exempt.namespaces: * would exempt every namespace; name them"))
	}
	for _, ns := range c.RequireShim {
		if slices.Contains(c.Exempt, ns) {
			errs = append(errs, fmt.Errorf("requireShim.namespaces: %s is exempt as well; take it out of one of them", ns))
		}
	}
	return errors.Join(errs...)
}

// checkOutlets looks at what is told to whom.
func (c *Config) checkOutlets() (errs []error) {
	if c.Metrics != "none" {
		if _, _, err := net.SplitHostPort(c.Metrics); err != nil {
			errs = append(errs, fmt.Errorf("metrics: is %q; want an address, as 127.0.0.1:9477, or none", c.Metrics))
		}
	}
	if c.MetricsAccess != Open && c.MetricsAccess != Token {
		errs = append(errs, fmt.Errorf("metricsAccess: is %q; want open or token", c.MetricsAccess))
	}
	if c.MetricsAccess == Token && c.Kubernetes == "none" {
		errs = append(errs, errors.New("metricsAccess: is token, and kubernetes is none: nobody could say whose a token is"))
	}
	if c.JSONLog != "" && c.JSONLog != "-" && !filepath.IsAbs(c.JSONLog) {
		errs = append(errs, fmt.Errorf("jsonLog: is %q; want an absolute path, or - for standard output", c.JSONLog))
	}
	if c.OTLP != "" {
		if u, err := url.Parse(c.OTLP); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("otlp: is %q; want an URL, as http://collector:4318", c.OTLP))
		}
	}
	return errs
}

// ContainerdConfig is a drop-in for containerd (2.x) that makes the plugin a
// required one: without it no container of a pod starts, whatever its runtime
// handler. tolerate_missing_plugins_annotation stays unset, as a pod could set
// that annotation.
const ContainerdConfig = `# containerd 2.x: no container of a pod starts while the NRI plugin "stockade" is not connected. Copy to
# /etc/containerd/conf.d/, beside stockade.toml, once stockade-nri runs on the node as a service of the host (not as a
# pod: that pod could not start). containerd's own tolerate_missing_plugins_annotation stays unset, since pods set annotations.
version = 3

[plugins.'io.containerd.nri.v1.nri']
  disable = false

  [plugins.'io.containerd.nri.v1.nri'.default_validator]
    enable = true
    required_plugins = ['stockade']
`
