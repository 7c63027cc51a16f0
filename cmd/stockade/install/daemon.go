package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	namespaces "github.com/containerd/containerd/api/services/namespaces/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	version "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// daemon is containerd, asked through its socket.
type daemon struct {
	address string
	wait    time.Duration
}

func (d daemon) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+d.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// ready waits until containerd answers and, if want, knows our handler and can start our shim.
func (d daemon) ready(ctx context.Context, want bool) (string, error) {
	conn, err := d.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, d.wait)
	defer cancel()
	for {
		v, err := check(ctx, conn, want)
		if err == nil {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, fmt.Errorf("%s: not within %s: %w", d.address, d.wait, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func check(ctx context.Context, conn *grpc.ClientConn, want bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	v, err := version.NewVersionClient(conn).Version(ctx, &emptypb.Empty{})
	if err != nil || !want {
		return v.GetVersion(), err
	}
	known, err := handlers(ctx, conn)
	if err == nil && !slices.Contains(known, handler) {
		err = fmt.Errorf("its CRI does not know the runtime handler %q, only %q", handler, known)
	}
	if err != nil && status.Code(err) != codes.Unimplemented { // the CRI is switched off: ctr and nerdctl need no handler
		return v.GetVersion(), err
	}
	return v.GetVersion(), startsShim(ctx, conn)
}

// handlers lists the runtime handlers that the CRI has. containerd 1.x says it in its verbose answer only.
func handlers(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	r, err := cri.NewRuntimeServiceClient(conn).Status(ctx, &cri.StatusRequest{Verbose: true})
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, h := range r.GetRuntimeHandlers() {
		names = append(names, h.GetName())
	}
	var info struct {
		Containerd struct {
			Runtimes map[string]json.RawMessage `json:"runtimes"`
		} `json:"containerd"`
	}
	if json.Unmarshal([]byte(r.GetInfo()["config"]), &info) == nil {
		for name := range info.Containerd.Runtimes {
			names = append(names, name)
		}
	}
	return names, nil
}

// startsShim has containerd run the shim to ask what it is (containerd 2.0 and later): it shows that containerd finds
// it in its own PATH, and that it runs on this machine.
func startsShim(ctx context.Context, conn *grpc.ClientConn) error {
	any, err := typeurl.MarshalAnyToProto(&types.RuntimeRequest{RuntimePath: runtimeType})
	if err != nil {
		return err
	}
	_, err = introspection.NewIntrospectionClient(conn).PluginInfo(ctx, &introspection.PluginInfoRequest{
		Type: "io.containerd.runtime.v2", ID: "task", Options: any,
	})
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	if err != nil {
		return fmt.Errorf("it cannot start %s: %w", shimProgram, err)
	}
	return nil
}

// protected lists the containers of our runtime that run, as namespace/id.
func (d daemon) protected(ctx context.Context) ([]string, error) {
	conn, err := d.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	all, err := namespaces.NewNamespacesClient(conn).List(ctx, &namespaces.ListNamespacesRequest{})
	if err != nil {
		return nil, err
	}
	var running []string
	var errs []error
	for _, ns := range all.GetNamespaces() {
		ids, err := protectedIn(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", ns.GetName()), conn)
		errs = append(errs, err)
		for _, id := range ids {
			running = append(running, ns.GetName()+"/"+id)
		}
	}
	return running, errors.Join(errs...)
}

func protectedIn(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	ours, err := containers.NewContainersClient(conn).List(ctx, &containers.ListContainersRequest{Filters: []string{`runtime.name=="` + runtimeType + `"`}})
	if err != nil {
		return nil, err
	}
	if len(ours.GetContainers()) == 0 {
		return nil, nil
	}
	live, err := tasks.NewTasksClient(conn).List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range ours.GetContainers() {
		if slices.ContainsFunc(live.GetTasks(), func(t *task.Process) bool { return t.GetID() == c.GetID() && t.GetStatus() != task.Status_STOPPED }) {
			ids = append(ids, c.GetID())
		}
	}
	return ids, nil
}
