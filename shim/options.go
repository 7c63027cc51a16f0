package shim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/typeurl/v2"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/control"
	"github.com/stockade-dev/stockade/shim/state"
)

// runcOptions turns the options that containerd sends for a runtime that is not its own into the runc shim's. Both
// kinds are taken. In a runtimeoptions body the keys are those of the runc shim's options, in TOML, as under
// [plugins...runtimes.runc.options].
func runcOptions(sent typeurl.Any) (*options.Options, error) {
	if sent == nil || sent.GetValue() == nil {
		return &options.Options{}, nil
	}
	v, err := typeurl.UnmarshalAny(sent)
	if err != nil {
		return nil, fmt.Errorf("runtime options: %w", err)
	}
	switch o := v.(type) {
	case *options.Options:
		return o, nil
	case *runtimeoptions.Options:
		runc := &options.Options{}
		d := toml.NewDecoder(bytes.NewReader(o.GetConfigBody())).DisallowUnknownFields()
		if err := d.Decode(runc); err != nil {
			return nil, fmt.Errorf("runtime options: not the options of the runc shim: %w", err)
		}
		return runc, nil
	}
	return nil, fmt.Errorf("runtime options: type %s is neither runc's nor runtimeoptions.v1.Options", sent.GetTypeUrl())
}

// convertOptions replaces a request's options by runc's, which is all that the runc shim takes.
func convertOptions(r *taskapi.CreateTaskRequest) error {
	if r.Options == nil {
		return nil
	}
	o, err := runcOptions(r.Options)
	if err != nil {
		return err
	}
	r.Options, err = typeurl.MarshalAnyToProto(o)
	return err
}

// Manager starts and removes shims: containerd's own, told apart by name.
type Manager struct{ containerd.Shim }

// NewManager makes the manager of the runtime name.
func NewManager(name string) Manager { return Manager{manager.NewShimManager(name)} }

// Info describes the runtime, features included, whichever kind of options is asked about.
func (m Manager) Info(ctx context.Context, in io.Reader) (*types.RuntimeInfo, error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("read options: %w", err)
	}
	if len(data) > 0 {
		var sent anypb.Any
		if err := proto.Unmarshal(data, &sent); err != nil {
			return nil, fmt.Errorf("parse options: %w", err)
		}
		o, err := runcOptions(&sent)
		if err != nil {
			return nil, err
		}
		runc, err := typeurl.MarshalAnyToProto(o)
		if err != nil {
			return nil, err
		}
		if data, err = proto.Marshal(runc); err != nil {
			return nil, err
		}
	}
	return m.Shim.Info(ctx, bytes.NewReader(data))
}

// Stop cleans up after a shim that has died.
func (m Manager) Stop(ctx context.Context, id string) (containerd.StopStatus, error) {
	status, err := m.Shim.Stop(ctx, id)
	ns, nsErr := namespaces.NamespaceRequired(ctx)
	if cfg, cfgErr := config.Load(""); cfgErr == nil && nsErr == nil {
		if t, err := state.Get(cfg.State, ns, id); err == nil && t.Control != "" {
			_ = control.Remove(t.Control) // of a shim that lives it is left alone
		}
		_ = state.Remove(cfg.State, ns, id) // only what `stockade ps` shows
		_ = os.RemoveAll(socketPath(cfg.State, ns, id))
		sweepArmor(cfg)
	}
	return status, err
}
