package shim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	runctask "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ptypes "github.com/containerd/containerd/v2/pkg/protobuf/types"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/stockade-dev/stockade/shim/bundle"
	"github.com/stockade-dev/stockade/shim/config"
)

func init() {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			pub, err := ic.GetByID(plugins.EventPlugin, "publisher")
			if err != nil {
				return nil, err
			}
			down, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			return newService(ic.Context, pub.(containerd.Publisher), down.(shutdown.Service))
		},
	})
}

// service is containerd's task service with a fence around each container.
type service struct {
	taskapi.TTRPCTaskService // containerd's own

	publisher containerd.Publisher

	engineOnce sync.Once
	engine     *engine
	engineErr  error // told to each container that needs the engine

	mu    sync.Mutex
	tasks map[string]*fence // by container id; guarded by mu
}

func newService(ctx context.Context, pub containerd.Publisher, down shutdown.Service) (*service, error) {
	s := &service{publisher: pub, tasks: map[string]*fence{}}
	inner, err := runctask.NewTaskService(ctx, &exits{pub, s.sigsys}, down)
	if err != nil {
		return nil, err
	}
	s.TTRPCTaskService = inner
	down.RegisterCallback(func(ctx context.Context) error {
		s.engineOnce.Do(func() { s.engineErr = errdefs.ErrUnavailable })
		if s.engine != nil {
			s.engine.close(ctx)
		}
		return nil
	})
	// Whatever container comes first needs it: in a pod it is ready by then, as the pause container is made meanwhile.
	go func() { _, _ = s.start() }()
	return s, nil
}

// RegisterTTRPC serves this service, not the one it decorates.
func (s *service) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, s)
	return nil
}

// UnaryServerInterceptor passes on the decorated service's, if it has one.
func (s *service) UnaryServerInterceptor() ttrpc.UnaryServerInterceptor {
	if o, ok := s.TTRPCTaskService.(containerd.TTRPCServerUnaryOptioner); ok {
		return o.UnaryServerInterceptor()
	}
	return func(ctx context.Context, u ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, m ttrpc.Method) (any, error) {
		return m(ctx, u)
	}
}

func (s *service) start() (*engine, error) {
	s.engineOnce.Do(func() {
		cfg, err := config.Load("")
		if err != nil {
			s.engineErr = fmt.Errorf("node configuration: %w", err)
			return
		}
		s.engine, s.engineErr = newEngine(cfg, s.publisher, s.fences)
	})
	return s.engine, s.engineErr
}

func (s *service) fence(id string) *fence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tasks[id]
}

func (s *service) fences() []*fence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.tasks))
}

// Create makes a container inside its fence: when it returns without an error every mechanism is armed and the
// container's first process has not begun its program.
func (s *service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	resp, err := s.create(ctx, r)
	if err != nil {
		return nil, refused(err)
	}
	return resp, nil
}

// refused makes an error that containerd carries to the caller as it is.
func refused(err error) error {
	if errors.Is(err, errRefused) {
		return errgrpc.ToGRPC(fmt.Errorf("%s: %w", err, errdefs.ErrPermissionDenied)) // one cause: each is told to the caller
	}
	return errgrpc.ToGRPC(err)
}

func (s *service) create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	if err := convertOptions(r); err != nil {
		return nil, err
	}
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := bundle.Read(r.Bundle)
	if err != nil {
		return nil, err
	}
	t := describe(ns, r.ID, spec)
	if t.sandbox {
		return s.TTRPCTaskService.Create(ctx, r)
	}
	e, err := s.start()
	if err != nil {
		return nil, fmt.Errorf("stockade cannot protect this container: %w", err)
	}
	reloads := e.reloads.Load()
	plan, err := e.choose(t)
	if err != nil {
		return nil, err
	}
	if plan == nil {
		logrus.WithField("id", r.ID).Warn("stockade: no profile: the container runs unprotected, as the node's configuration says (noProfile: run)")
		return s.TTRPCTaskService.Create(ctx, r)
	}
	if r.Checkpoint != "" {
		return nil, fmt.Errorf("%w: a container restored from a checkpoint runs before it can be armed", errRefused)
	}
	f := &fence{engine: e, task: t, plan: plan, spec: spec, bundle: r.Bundle, armed: make(chan struct{})}
	resp, err := s.createFenced(ctx, r, f)
	if err == nil && reloads != e.reloads.Load() {
		f.catchUp() // with a profile that was changed while the container was made: nobody knew of it then
	}
	return resp, err
}

func (s *service) createFenced(ctx context.Context, r *taskapi.CreateTaskRequest, f *fence) (_ *taskapi.CreateTaskResponse, err error) {
	defer func() {
		if err != nil {
			f.release()
		}
	}()
	if err := f.mountRoot(r.Rootfs); err != nil {
		return nil, err
	}
	if err := f.prepare(); err != nil {
		return nil, err
	}
	inner := proto.CloneOf(r)
	if f.mounted {
		inner.Rootfs = nil // mounted already: the plan had to be held against the root's files
	}
	resp, err := s.TTRPCTaskService.Create(ctx, inner)
	if err != nil {
		return nil, err
	}
	if err := f.arm(ctx, int(resp.Pid)); err != nil {
		return nil, errors.Join(fmt.Errorf("stockade cannot protect this container: %w", err), s.discard(f.task))
	}
	s.mu.Lock()
	s.tasks[r.ID] = f
	s.mu.Unlock()
	return resp, nil
}

// discard removes a container that was created and must never start.
func (s *service) discard(t task) error {
	// The caller's own context may be what has run out.
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), t.namespace), 30*time.Second)
	defer cancel()
	if _, err := s.Kill(ctx, &taskapi.KillRequest{ID: t.id, Signal: uint32(unix.SIGKILL), All: true}); err != nil {
		return err
	}
	if _, err := s.Wait(ctx, &taskapi.WaitRequest{ID: t.id}); err != nil {
		return err
	}
	_, err := s.TTRPCTaskService.Delete(ctx, &taskapi.DeleteRequest{ID: t.id})
	return err
}

// Start starts the container's program, or an exec session's.
func (s *service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	f := s.fence(r.ID)
	if f == nil {
		return s.TTRPCTaskService.Start(ctx, r)
	}
	if err := f.engine.healthy(); err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("stockade cannot protect this container: %w", err))
	}
	if r.ExecID == "" {
		resp, err := s.TTRPCTaskService.Start(ctx, r)
		if err == nil {
			f.verify(int(resp.Pid))
		}
		return resp, err
	}
	end := f.container.ExecBegin() // from here on a change of the profile does not make it a deviation
	if err := f.begin(r.ExecID); err != nil {
		end(0)
		return nil, refused(err)
	}
	ctx, cancel := lingering(ctx)
	defer cancel()
	resp, err := s.TTRPCTaskService.Start(ctx, r)
	pid := 0
	if err == nil {
		pid = int(resp.Pid)
	}
	end(pid)
	f.verify(pid)
	return resp, err
}

// Exec prepares an exec session. One whose program is not declared under sessions is refused here, with the rule to
// add; the exec itself is decided again when it happens.
func (s *service) Exec(ctx context.Context, r *taskapi.ExecProcessRequest) (*ptypes.Empty, error) {
	f := s.fence(r.ID)
	if f == nil {
		return s.TTRPCTaskService.Exec(ctx, r)
	}
	prepared, err := f.session(r)
	if err != nil {
		return nil, refused(err)
	}
	resp, err := s.TTRPCTaskService.Exec(ctx, r)
	if err == nil {
		f.sessions.Store(r.ExecID, prepared)
	}
	return resp, err
}

// Delete removes the container, and then its fence.
func (s *service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	resp, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.ExecID != "" {
		if f := s.fence(r.ID); f != nil {
			f.sessions.Delete(r.ExecID)
		}
		return resp, nil
	}
	s.mu.Lock()
	f := s.tasks[r.ID]
	delete(s.tasks, r.ID)
	s.mu.Unlock()
	if f != nil {
		if resp.ExitStatus == statusSIGSYS {
			f.ended(r.ID, int(resp.Pid))
		}
		f.release()
	}
	return resp, nil
}

// unmountRoot takes away what mountRoot has mounted.
func unmountRoot(dir string) error { return mount.UnmountRecursive(filepath.Join(dir, "rootfs"), 0) }
