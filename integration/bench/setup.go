package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/shim/incident"
)

//go:embed profiles.yaml
var profileText string

const termination = unix.SIGTERM

// trees is how many directories the image has for first opens: each is used once.
const trees = 2000

// runtimes are plain and fenced, in the order of bench.hosts.
var runtimes = [2]string{node.Runc, node.Stockade}

// host is the long-lived containers of one runtime.
type host struct {
	runtime string
	micro   *worker
	redis   *node.Task
	nginx   *node.Task
	used    int // directories of /tree
}

func benchImage() image.Spec {
	files := []image.File{
		{Path: "/proc", Dir: true},
		{Path: "/sys", Dir: true},
		{Path: "/dev", Dir: true},
		{Path: "/run", Dir: true},
		{Path: "/tmp", Dir: true, Mode: 0o1777},
		{Path: "/etc/app.conf", Text: "configuration of the image\n"},
		{Path: "/var/lib/app/state", Text: "state\n"},
	}
	for i := range trees {
		for _, name := range []string{"a", "b"} {
			files = append(files, image.File{Path: fmt.Sprintf("/tree/%d/%s", i, name), Text: name + "\n"})
		}
	}
	return image.Spec{
		Name: "bench",
		Programs: []image.Program{
			{Path: "/bin/bench", Sources: []string{"bench.c"}},
			{Path: "/bin/nothing", Sources: []string{"nothing.c"}},
			{Path: "/bin/dynamic", Sources: []string{"nothing.c"}, Dynamic: true},
			{Path: "/bin/undeclared", Sources: []string{"nothing.c"}},
		},
		Files:  files,
		Config: v1.Config{Cmd: []string{"/bin/bench"}, WorkingDir: "/"},
	}
}

func (b *bench) setUp(ctx context.Context) error {
	builder := &image.Builder{Root: b.root, Log: os.Stderr}
	var tars []string
	own, err := builder.Build(ctx, benchImage())
	if err != nil {
		return err
	}
	tars = append(tars, own.Tar)
	for _, name := range []string{"redis", "nginx"} {
		img, err := builder.Named(ctx, name)
		if err != nil {
			return err
		}
		tars = append(tars, img.Tar)
	}
	if err := b.startNode(ctx, tars); err != nil {
		return err
	}
	for i, runtime := range runtimes {
		if b.hosts[i], err = b.startHost(ctx, runtime); err != nil {
			return fmt.Errorf("%s: %w\n%s", runtime, err, b.node.LogTail())
		}
	}
	return b.preparePeer(ctx)
}

func (b *bench) startNode(ctx context.Context, tars []string) error {
	bin, err := checkout.Bin(b.root, "containerd-shim-stockade-v1", "stockade-guard", "containerd")
	if err != nil {
		return err
	}
	path := []string{bin, filepath.Join(b.root, ".cache", "bin")}
	if other := os.Getenv("BENCH_SHIM"); other != "" {
		path = append([]string{other}, path...)
	}
	if b.node, err = node.Start(ctx, node.Config{Dir: b.dir("bench"), Bin: path}); err != nil {
		return err
	}
	for _, tar := range tars {
		if err := b.node.Import(ctx, tar); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(b.node.ProfilesDir(), "bench.yaml"), []byte(profileText), 0o600)
}

func (b *bench) startHost(ctx context.Context, runtime string) (h *host, err error) {
	h = &host{runtime: runtime}
	if h.micro, err = b.startWorker(ctx, runtime); err != nil {
		return nil, err
	}
	if asked("redis") {
		if h.redis, err = b.startService(ctx, runtime, "redis", "Ready to accept connections"); err != nil {
			return nil, err
		}
	}
	if asked("nginx") {
		if h.nginx, err = b.startService(ctx, runtime, "nginx", ""); err != nil {
			return nil, err
		}
		if err := awaitPage(ctx, h.nginx); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (b *bench) startService(ctx context.Context, runtime, name, ready string) (*node.Task, error) {
	t, err := b.node.Run(ctx, node.RunOpts{Image: image.Ref(name), Runtime: runtime, Profile: "bench-" + name})
	if err != nil || ready == "" {
		return t, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return t, t.WaitOutput(ctx, ready)
}

// tearDown ends everything, and fails when declared work was stopped: then the numbers say nothing.
func (b *bench) tearDown(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if b.peer != nil {
		errs = append(errs, b.peer.stop(), b.peer.remove())
	}
	if b.node != nil {
		errs = append(errs, b.wrongly(), b.node.Stop(ctx))
	}
	return errors.Join(errs...)
}

func (b *bench) wrongly() error {
	found, _, err := incident.List(b.node.IncidentsDir(), incident.Filter{})
	if err != nil {
		return err
	}
	for _, inc := range found {
		if inc.Access.Path != undeclared {
			return fmt.Errorf("declared work was stopped: %s", incident.Cause(&inc))
		}
	}
	return nil
}

// worker is a container that runs /bin/bench and is told what to do.
type worker struct {
	*node.Task
	in *io.PipeWriter
	n  int
}

func (b *bench) startWorker(ctx context.Context, runtime string) (*worker, error) {
	r, w := io.Pipe()
	t, err := b.node.Run(ctx, node.RunOpts{Image: image.Ref("bench"), Runtime: runtime, Profile: "bench", Stdin: r})
	if err != nil {
		return nil, err
	}
	return &worker{Task: t, in: w}, nil
}

// do has the worker run one command and returns its answer.
func (w *worker) do(ctx context.Context, format string, args ...any) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w.n++
	if _, err := fmt.Fprintf(w.in, format+"\n", args...); err != nil {
		return 0, err
	}
	mark := fmt.Sprintf("= %d ", w.n)
	for {
		// WaitOutput asks every few milliseconds; the answer is one write, so it is whole.
		if err := w.WaitOutput(ctx, mark); err != nil {
			return 0, fmt.Errorf(format+": %w", append(args, err)...)
		}
		_, rest, _ := strings.Cut(w.Stdout(), mark)
		if line, _, whole := strings.Cut(rest, "\n"); whole {
			return strconv.ParseFloat(line, 64)
		}
	}
}

func (w *worker) end(ctx context.Context) error {
	_ = w.in.Close()
	return w.Delete(context.WithoutCancel(ctx))
}
