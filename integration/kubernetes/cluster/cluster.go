// Package cluster runs a private Kubernetes node: etcd, kube-apiserver, kube-scheduler and kubelet around the containerd
// of package node, for tests and for `make cluster`.
//
// Everything of it lies in the node's folder, listens on ports that were free, and ends with the node: node.Clean also
// ends a cluster whose owner was killed. What kubelet changes outside (sysctls, /var/lib/kubelet/device-plugins,
// /var/log/containers) is put back as it was.
//
// There is no controller manager: no Deployments, and namespaces get their default service account from Namespace. The
// only CNI plugin is the loopback one, which makes kubelet call the node ready: pods must use the host's network.
//
// It needs root, and the programs of `make build kubernetes`.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/stockade-dev/stockade/integration/node"
)

// Programs are what a cluster runs, beside those of a node: built by `make kubernetes`.
func Programs() []string {
	return []string{"etcd", "kube-apiserver", "kube-scheduler", "kubelet", "kubectl", "loopback"}
}

// Bin returns the folder of the cluster's programs in a checkout, and fails when one is missing there.
func Bin(root string) (string, error) {
	bin := filepath.Join(root, ".cache/kubernetes/bin")
	for _, p := range Programs() {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			return "", fmt.Errorf("%s is not built, run make kubernetes: %w", p, err)
		}
	}
	return bin, nil
}

// Config says where a cluster lives and what it runs.
type Config struct {
	Node      node.Config
	Bin       string   // the folder of Programs
	APIServer []string // further arguments of kube-apiserver

	ControlPlane bool // etcd and kube-apiserver only, for tests of what is in the API: no kubelet, no node
}

// Cluster is a running cluster of one node.
type Cluster struct {
	Node     *node.Node
	NodeName string
	REST     *rest.Config // as a member of system:masters
	Client   *kubernetes.Clientset

	config    Config
	files     files
	ports     ports
	nodeIP    net.IP
	processes map[string]*process
}

// Start starts a cluster and waits until its node is ready.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg.Node.Restore = node.Restore{
		Sysctls: append(cfg.Node.Restore.Sysctls, kubeletSysctls...),
		Dirs:    append(cfg.Node.Restore.Dirs, kubeletDirs...),
	}
	n, err := node.Start(ctx, cfg.Node)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Node: n, NodeName: "node", config: cfg, processes: map[string]*process{}, files: files{filepath.Join(n.Dir(), "kubernetes")}}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// What kubelet writes whatever its configuration says (k8s.io/kubernetes/pkg/kubelet/cm: setupKernelTunables).
var (
	kubeletSysctls = []string{
		"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
		"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes",
	}
	kubeletDirs = []string{"/var/lib/kubelet", "/var/log/containers", "/var/log/pods", "/usr/libexec/kubernetes"}
)

func (c *Cluster) start(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	if err := c.Namespace(ctx, metav1.NamespaceDefault); err != nil {
		return err
	}
	if c.config.ControlPlane {
		return nil
	}
	if err := c.StartKubelet(); err != nil {
		return err
	}
	if err := c.spawn("kube-scheduler", c.scheduler()); err != nil {
		return err
	}
	return c.WaitReady(ctx)
}

// prepare writes the files and finds out what the processes need to know.
func (c *Cluster) prepare() error {
	var err error
	if c.nodeIP, err = hostAddress(); err != nil {
		return err
	}
	if c.ports, err = freePorts(c.nodeIP); err != nil {
		return err
	}
	if err := c.writeFiles(); err != nil {
		return err
	}
	if c.REST, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		return err
	}
	c.REST.QPS, c.REST.Burst = 200, 400
	c.Client, err = kubernetes.NewForConfig(c.REST)
	return err
}

func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := c.spawn("etcd", c.etcd()); err != nil {
		return err
	}
	return c.StartAPIServer(ctx)
}

// StartAPIServer starts kube-apiserver, again after Kill, and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.spawn("kube-apiserver", c.apiserver()); err != nil {
		return err
	}
	return c.poll(ctx, "kube-apiserver", func(ctx context.Context) error {
		return c.Client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// StartKubelet starts kubelet, again after Kill.
func (c *Cluster) StartKubelet() error { return c.spawn("kubelet", c.kubelet()) }

// WaitReady waits until the API server calls the node ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return c.poll(ctx, "kubelet", func(ctx context.Context) error {
		n, err := c.Client.CoreV1().Nodes().Get(ctx, c.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, cond := range n.Status.Conditions {
			if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("the node is not ready: %+v", n.Status.Conditions)
	})
}

// poll tries until it succeeds, for two minutes, as long as the process lives.
func (c *Cluster) poll(ctx context.Context, process string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-c.processes[process].exited:
			return fmt.Errorf("%s ended: %w\n%s", process, err, c.LogTail(process))
		case <-ctx.Done():
			return fmt.Errorf("%s: %w\n%s", process, err, c.LogTail(process))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Namespace makes a namespace with the service account that each pod there needs, which has no token.
func (c *Cluster) Namespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	no := false
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: name}, AutomountServiceAccountToken: &no}
	_, err := c.Client.CoreV1().ServiceAccounts(name).Create(ctx, sa, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// Stop ends the cluster and the node, and puts the machine back as it was.
func (c *Cluster) Stop(ctx context.Context) error {
	var errs []error
	for _, name := range []string{"kubelet", "kube-scheduler", "kube-apiserver", "etcd"} {
		errs = append(errs, c.Kill(name))
	}
	return errors.Join(append(errs, c.Node.Stop(ctx))...)
}

// Detach lets go of the cluster and leaves it running: node.Clean ends it.
func (c *Cluster) Detach() error { return c.Node.Detach() }

// Config is what the cluster was started with.
func (c *Cluster) Config() Config { return c.config }

// Environ is the environment of a shell in which kubectl, ctr and stockade talk to the cluster and its node.
func (c *Cluster) Environ() []string {
	path := strings.Join(append(append([]string{c.config.Bin}, c.config.Node.Bin...), os.Getenv("PATH")), ":")
	return []string{
		"KUBECONFIG=" + c.Kubeconfig(), "PATH=" + path, "STOCKADE_CONFIG=" + c.Node.StockadeConfig(),
		"CONTAINERD_ADDRESS=" + c.Node.Address(), "CONTAINERD_NAMESPACE=k8s.io", "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1",
	}
}

// Kubeconfig is the path of the kubeconfig of a member of system:masters.
func (c *Cluster) Kubeconfig() string { return c.files.kubeconfig("admin") }

// StaticPods is the folder from which kubelet takes pods without asking the API server.
func (c *Cluster) StaticPods() string { return c.files.path("manifests") }

// PodLogs is the folder of the pods' logs: NAMESPACE_POD_UID/CONTAINER/N.log.
func (c *Cluster) PodLogs() string { return c.files.path("podlogs") }

// Kubectl runs kubectl as a member of system:masters and returns what it wrote, to standard output and standard error.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := c.command(ctx, filepath.Join(c.config.Bin, "kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return string(out), err
}
