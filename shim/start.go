package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Run is the whole program of the shim for the runtime name. It does not return.
//
// containerd 2.3 and newer tell a shim what to start by a message on its standard input, and the library that does the
// rest understands nothing else. Older ones (2.0 to 2.2) have it in arguments and environment, and want JSON for an
// answer: these are answered here. What comes after the start is the same for all of them.
func Run(ctx context.Context, name string) {
	m := NewManager(name)
	if c := parseCall(os.Args[1:]); c.action == "start" {
		input, err := io.ReadAll(io.LimitReader(os.Stdin, maxInput))
		if err == nil && c.older(input) {
			err = c.start(ctx, m, input, os.Stdout)
			exit(name, err)
		}
		if err == nil {
			os.Stdin, err = replay(input)
		}
		if err != nil {
			exit(name, err)
		}
	}
	containerd.RunShim(ctx, m)
	os.Exit(0)
}

func exit(name string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s", name, err) // containerd shows it as it is
		os.Exit(1)
	}
	os.Exit(0)
}

// answer is what containerd 2.0 to 2.2 read from a shim that was started.
type answer struct {
	Version  int32  `json:"version"`
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
}

const maxInput = 10 << 20

// call is how containerd calls a shim.
type call struct {
	id, namespace, address, action string
	debug                          bool
}

// parseCall reads arguments. Those that it does not understand are for the library to refuse.
func parseCall(args []string) (c call) {
	var none string
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&c.id, "id", "", "")
	f.StringVar(&c.namespace, "namespace", "", "")
	f.StringVar(&c.address, "address", "", "")
	f.BoolVar(&c.debug, "debug", false, "")
	for _, other := range []string{"socket", "debug-socket", "bundle", "publish-binary"} {
		f.StringVar(&none, other, "", "")
	}
	if f.Parse(args) == nil {
		c.action = f.Arg(0)
	}
	return c
}

// older says whether what came on the standard input is no message for this start. The options of a runtime, which older
// containerds send, can be read as one: what it says of whom it is for tells them apart.
func (c *call) older(input []byte) bool {
	var p bootapi.BootstrapParams
	return proto.Unmarshal(input, &p) != nil || p.GetInstanceID() != c.id || p.GetNamespace() != c.namespace
}

// start starts a shim as containerd 2.0 to 2.2 want it started (their core/runtime/v2/README.md).
func (c *call) start(ctx context.Context, m Manager, input []byte, out io.Writer) error {
	if c.id == "" || c.namespace == "" {
		return fmt.Errorf("id %q in namespace %q: neither may be empty", c.id, c.namespace)
	}
	p := &bootapi.BootstrapParams{
		InstanceID: c.id, Namespace: c.namespace,
		ContainerdGrpcAddress: c.address, ContainerdTtrpcAddress: os.Getenv("TTRPC_ADDRESS"),
	}
	if c.debug {
		p.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	if len(bytes.TrimSpace(input)) > 0 {
		var sent anypb.Any
		if err := proto.Unmarshal(input, &sent); err != nil {
			return fmt.Errorf("parse options: %w", err)
		}
		o, err := runcOptions(&sent)
		if err == nil {
			err = p.AddExtension(o)
		}
		if err != nil {
			return err
		}
	}
	r, err := m.Start(namespaces.WithNamespace(ctx, c.namespace), p)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer{r.GetVersion(), r.GetAddress(), r.GetProtocol()})
}

// replay is a file that gives input once more.
func replay(input []byte) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = w.Write(input)
		_ = w.Close()
	}()
	return r, nil
}
