package cluster

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed kubelet.yaml
var kubeletYAML string

// loopbackConf is the smallest CNI configuration with which containerd's CRI, and so kubelet, calls the network ready.
const loopbackConf = `{"cniVersion": "1.0.0", "name": "host-network-only", "plugins": [{"type": "loopback"}]}
`

// files knows the files of a cluster.
type files struct{ dir string }

func (f files) path(name string) string       { return filepath.Join(f.dir, name) }
func (f files) cert(name string) string       { return f.path("pki/" + name + ".crt") }
func (f files) key(name string) string        { return f.path("pki/" + name + ".key") }
func (f files) kubeconfig(user string) string { return f.path(user + ".kubeconfig") }

func (c *Cluster) writeFiles() error {
	for _, d := range []string{"pki", "etcd", "kubelet", "manifests", "podlogs", "volplugins"} {
		if err := os.MkdirAll(c.files.path(d), 0o700); err != nil {
			return err
		}
	}
	if err := c.writePKI(); err != nil {
		return err
	}
	for _, user := range []string{"admin", "node", "scheduler"} {
		if err := c.writeKubeconfig(user); err != nil {
			return err
		}
	}
	if err := c.writeKubeletConfig(); err != nil {
		return err
	}
	return c.writeCNI()
}

func (c *Cluster) writeKubeconfig(user string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, url(c.ports.apiserver), c.files.cert("ca"), c.files.cert(user), c.files.key(user))
	return os.WriteFile(c.files.kubeconfig(user), []byte(text), 0o600)
}

func (c *Cluster) writeKubeletConfig() error {
	root, err := c.Node.CgroupRoot()
	if err != nil {
		return err
	}
	var text strings.Builder
	t := template.Must(template.New("kubelet.yaml").Parse(kubeletYAML))
	if err := t.Execute(&text, map[string]any{
		"Dir": c.files.dir, "Containerd": c.Node.Address(), "CgroupRoot": root, "Address": c.nodeIP.String(), "Port": c.ports.kubelet,
	}); err != nil {
		return err
	}
	return os.WriteFile(c.files.path("kubelet.yaml"), []byte(text.String()), 0o600)
}

// writeCNI puts the plugin first: containerd looks again whenever a configuration comes.
func (c *Cluster) writeCNI() error {
	if err := os.Symlink(filepath.Join(c.config.Bin, "loopback"), filepath.Join(c.Node.CNIDir(), "loopback")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Node.CNIDir(), "10-loopback.conflist"), []byte(loopbackConf), 0o600)
}
