package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

// pod asks the node's CRI for a pod, as a kubelet would, with one container under the runtime class stockade. It shows
// what the container writes until that ends, or until ^C, and takes the pod away.
func pod(ctx context.Context, dir string, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: nodectl pod IMAGE [LABEL=VALUE ...] [-- COMMAND ...]")
	}
	address, ok := node.Running(dir)
	if !ok {
		return errors.New("no node is up: make node")
	}
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	p := podOf(dir, args)
	client := cri.NewRuntimeServiceClient(conn)
	defer p.remove(client)
	id, err := p.run(ctx, client)
	if err != nil {
		return err
	}
	return p.follow(ctx, client, id)
}

type onePod struct {
	sandbox   *cri.PodSandboxConfig
	container *cri.ContainerConfig
	id        string
}

func podOf(dir string, args []string) *onePod {
	name := fmt.Sprintf("%s-%d", args[0], os.Getpid())
	labels, command := map[string]string{}, []string(nil)
	for i, a := range args[1:] {
		if a == "--" {
			command = args[i+2:]
			break
		}
		key, value, _ := strings.Cut(a, "=")
		labels[key] = value
	}
	// The host's network needs no CNI plugin.
	ns := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}
	return &onePod{
		sandbox: &cri.PodSandboxConfig{
			Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name}, Labels: labels,
			LogDirectory: filepath.Join(dir, "tmp", name),
			Linux:        &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: ns}},
		},
		container: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: args[0]},
			Image:    &cri.ImageSpec{Image: image.Ref(args[0]), UserSpecifiedImage: image.Ref(args[0])},
			Command:  command, LogPath: "log",
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: ns}},
		},
	}
}

func (p *onePod) run(ctx context.Context, client cri.RuntimeServiceClient) (string, error) {
	if err := os.MkdirAll(p.sandbox.LogDirectory, 0o700); err != nil {
		return "", err
	}
	sandbox, err := client.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.sandbox, RuntimeHandler: "stockade"})
	if err != nil {
		return "", err
	}
	p.id = sandbox.PodSandboxId
	c, err := client.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.id, Config: p.container, SandboxConfig: p.sandbox})
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "pod %s, container %s\n", p.sandbox.Metadata.Name, c.ContainerId)
	_, err = client.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.ContainerId})
	return c.ContainerId, err
}

// follow shows the container's log as it grows.
func (p *onePod) follow(ctx context.Context, client cri.RuntimeServiceClient, id string) error {
	log, err := os.Open(filepath.Join(p.sandbox.LogDirectory, p.container.LogPath))
	if err != nil {
		return err
	}
	defer log.Close()
	for {
		s, err := client.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(os.Stdout, log); err != nil {
			return err
		}
		if s.Status.State == cri.ContainerState_CONTAINER_EXITED {
			fmt.Fprintf(os.Stderr, "exit code %d %s\n", s.Status.ExitCode, s.Status.Message)
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (p *onePod) remove(client cri.RuntimeServiceClient) {
	if p.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id})
	if err == nil {
		_, err = client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodectl: the pod is not gone:", err)
	}
}
