package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func (c *Cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(c.Node.Environ(os.Getenv("PATH")), "HOME="+c.files.dir)
	return cmd
}

// spawn starts a program in a session of its own: a ^C in the terminal is for whoever owns the cluster.
func (c *Cluster) spawn(name string, args []string) error {
	log, err := os.OpenFile(c.Log(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p := &process{cmd: c.command(context.Background(), filepath.Join(c.config.Bin, name), args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, c.files.dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.cmd.Wait() // reaps it; how it ended is in the log
		close(p.exited)
	}()
	c.processes[name] = p
	return nil
}

// Kill ends one of the cluster's programs with SIGKILL, if it runs: etcd, kube-apiserver, kube-scheduler or kubelet.
func (c *Cluster) Kill(name string) error {
	p := c.processes[name]
	if p == nil {
		return nil
	}
	delete(c.processes, name)
	p.cmd.Process.Signal(syscall.SIGKILL) // fails only when it has ended already
	<-p.exited
	return nil
}

// Log is the path of the log of one of the cluster's programs.
func (c *Cluster) Log(name string) string { return c.files.path(name + ".log") }

// LogTail returns the last lines of a program's log: what to show when something failed.
func (c *Cluster) LogTail(name string) string {
	data, err := os.ReadFile(c.Log(name))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}

// ports are those that the cluster listens on.
type ports struct {
	etcd, etcdPeer, apiserver, kubelet, scheduler int
}

// freePorts finds ports that nobody listens on. Another process could take one before we do: then the program that
// wanted it ends, which Start reports.
func freePorts(host net.IP) (ports, error) {
	var p ports
	loopback := net.IPv4(127, 0, 0, 1)
	for _, want := range []struct {
		port *int
		ip   net.IP
	}{{&p.etcd, loopback}, {&p.etcdPeer, loopback}, {&p.apiserver, loopback}, {&p.scheduler, loopback}, {&p.kubelet, host}} {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: want.ip})
		if err != nil {
			return p, err
		}
		defer l.Close() // all are held until each is known, so that no two are the same
		*want.port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

// hostAddress is an address of this machine that is not the loopback's: kubelet takes no other for its node.
func hostAddress() (net.IP, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP, nil
		}
	}
	return nil, fmt.Errorf("this machine has no IPv4 address but the loopback's, and kubelet takes no node without one: %v", addrs)
}

func url(port int) string { return "https://127.0.0.1:" + strconv.Itoa(port) }

func (c *Cluster) etcd() []string {
	f := c.files
	return []string{
		"--name=e", "--data-dir=" + f.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=" + url(c.ports.etcd), "--advertise-client-urls=" + url(c.ports.etcd),
		"--listen-peer-urls=" + url(c.ports.etcdPeer), "--initial-advertise-peer-urls=" + url(c.ports.etcdPeer),
		"--initial-cluster=e=" + url(c.ports.etcdPeer),
		"--cert-file=" + f.cert("etcd"), "--key-file=" + f.key("etcd"), "--trusted-ca-file=" + f.cert("ca"), "--client-cert-auth",
		"--peer-cert-file=" + f.cert("etcd"), "--peer-key-file=" + f.key("etcd"), "--peer-trusted-ca-file=" + f.cert("ca"), "--peer-client-cert-auth",
	}
}

func (c *Cluster) apiserver() []string {
	f := c.files
	return append([]string{
		"--etcd-servers=" + url(c.ports.etcd), "--etcd-cafile=" + f.cert("ca"), "--etcd-certfile=" + f.cert("etcd"), "--etcd-keyfile=" + f.key("etcd"),
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(c.ports.apiserver),
		"--tls-cert-file=" + f.cert("apiserver"), "--tls-private-key-file=" + f.key("apiserver"), "--client-ca-file=" + f.cert("ca"),
		"--kubelet-certificate-authority=" + f.cert("ca"),
		"--kubelet-client-certificate=" + f.cert("kubelet-client"), "--kubelet-client-key=" + f.key("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + f.key("service-account"),
		"--service-account-signing-key-file=" + f.key("service-account"),
		"--service-cluster-ip-range=" + serviceRange, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		// It is the controller manager that takes the taint of a node that is not ready yet off again.
		"--disable-admission-plugins=TaintNodesByCondition",
		"--allow-privileged=true", "--endpoint-reconciler-type=none", "--advertise-address=" + c.nodeIP.String(), "--profiling=false",
	}, c.config.APIServer...)
}

func (c *Cluster) kubelet() []string {
	f := c.files
	return []string{
		"--config=" + f.path("kubelet.yaml"), "--kubeconfig=" + f.kubeconfig("node"), "--root-dir=" + f.path("kubelet"),
		"--cert-dir=" + f.path("kubelet/pki"), "--hostname-override=" + c.NodeName, "--node-ip=" + c.nodeIP.String(), "--v=2",
	}
}

func (c *Cluster) scheduler() []string {
	k := c.files.kubeconfig("scheduler")
	return []string{
		"--kubeconfig=" + k, "--authentication-kubeconfig=" + k, "--authorization-kubeconfig=" + k, "--leader-elect=false",
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(c.ports.scheduler), "--cert-dir=" + c.files.path("scheduler"),
	}
}
