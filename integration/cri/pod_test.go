package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/stockade-dev/stockade/integration/node"
)

// client is a kubelet's view of a node, as far as pods go.
type client struct {
	node    *node.Node
	runtime runtime.RuntimeServiceClient
	serial  atomic.Uint64
}

func connect(ctx context.Context, n *node.Node) (*client, error) {
	conn, err := grpc.NewClient("unix://"+n.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	c := &client{node: n, runtime: runtime.NewRuntimeServiceClient(conn)}
	return c, c.ready(ctx)
}

// ready waits until the CRI serves, which is some time after containerd does.
func (c *client) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, err := c.runtime.Version(ctx, &runtime.VersionRequest{})
		if err == nil {
			if _, err = c.runtime.Status(ctx, &runtime.StatusRequest{}); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the CRI does not serve: %w\n%s", err, c.node.LogTail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pod is one sandbox. Its network is the host's, which needs no CNI plugin.
type pod struct {
	*client
	id       string
	config   *runtime.PodSandboxConfig
	attempts map[string]uint32 // of the next container of a name
}

type podSpec struct {
	namespace, handler  string // default: "prod", stockade
	labels, annotations map[string]string
}

func (c *client) pod(t *testing.T, s podSpec) *pod {
	t.Helper()
	p, err := c.tryPod(t, s)
	if err != nil {
		t.Fatalf("run the sandbox: %v\n%s", err, c.node.LogTail())
	}
	return p
}

func (c *client) tryPod(t *testing.T, s podSpec) (*pod, error) {
	name := fmt.Sprintf("pod-%d", c.serial.Add(1))
	if s.namespace == "" {
		s.namespace = "prod"
	}
	if s.handler == "" {
		s.handler = "stockade"
	}
	p := &pod{client: c, attempts: map[string]uint32{}, config: &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: s.namespace, Uid: "uid-" + name},
		Labels:   s.labels, Annotations: s.annotations,
		LogDirectory: filepath.Join(c.node.Dir(), "logs", name),
		Linux: &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE, Pid: runtime.NamespaceMode_CONTAINER},
		}},
	}}
	if err := os.MkdirAll(p.config.LogDirectory, 0o700); err != nil {
		t.Fatal(err)
	}
	resp, err := c.runtime.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: p.config, RuntimeHandler: s.handler})
	if err != nil {
		return nil, err
	}
	p.id = resp.PodSandboxId
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if _, err := c.runtime.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Errorf("stop %s: %v", name, err)
		}
		if _, err := c.runtime.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
	})
	return p, nil
}

// container is one that was created.
type container struct {
	*pod
	id, log string
}

const probeImage = "docker.io/stockade/probe:test"

// create makes a container of the probe image: as far as the runtime has it parked before its program.
func (p *pod) create(ctx context.Context, name string, args ...string) (*container, error) {
	attempt := p.attempts[name]
	p.attempts[name]++
	log := fmt.Sprintf("%s-%d.log", name, attempt)
	resp, err := p.runtime.CreateContainer(ctx, &runtime.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &runtime.ContainerConfig{
			Metadata: &runtime.ContainerMetadata{Name: name, Attempt: attempt},
			Image:    &runtime.ImageSpec{Image: probeImage, UserSpecifiedImage: probeImage},
			Command:  args, LogPath: log,
			Linux: &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
				NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions,
			}},
		},
	})
	if err != nil {
		return nil, err
	}
	return &container{pod: p, id: resp.ContainerId, log: filepath.Join(p.config.LogDirectory, log)}, nil
}

// run creates and starts.
func (p *pod) run(ctx context.Context, name string, args ...string) (*container, error) {
	c, err := p.create(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	_, err = p.runtime.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: c.id})
	return c, err
}

func (p *pod) mustRun(t *testing.T, name string, args ...string) *container {
	t.Helper()
	c, err := p.run(t.Context(), name, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, p.node.LogTail())
	}
	return c
}

// refused says that a container must not start, and with which reason.
func (p *pod) refused(t *testing.T, reason, name string, args ...string) {
	t.Helper()
	c, err := p.run(t.Context(), name, args...)
	if err == nil {
		t.Errorf("%s was started: %s", name, c.output())
		return
	}
	if !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: refused with %v, want %q", name, err, reason)
	}
}

// output is what the container has written.
func (c *container) output() string {
	data, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// exited waits for the end and returns the exit code.
func (c *container) exited(t *testing.T) int32 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		resp, err := c.runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: c.id})
		if err != nil {
			t.Fatalf("status: %v\n%s", err, c.output())
		}
		if resp.Status.State == runtime.ContainerState_CONTAINER_EXITED {
			return resp.Status.ExitCode
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// exec runs a program in the container, as an exec probe does.
func (c *container) exec(t *testing.T, args ...string) (string, error) {
	t.Helper()
	resp, err := c.runtime.ExecSync(t.Context(), &runtime.ExecSyncRequest{ContainerId: c.id, Cmd: args, Timeout: 10})
	if err != nil {
		return "", err
	}
	return string(resp.Stdout) + string(resp.Stderr), nil
}

// killed says that what the container does first is not declared: it must die of it, and nothing of it must be seen.
func (c *container) killed(t *testing.T, effect string) {
	t.Helper()
	if code := c.exited(t); code != 137 || strings.Contains(c.output(), effect) {
		t.Errorf("exit code %d, want 137; output without %q:\n%s", code, effect, c.output())
	}
}
