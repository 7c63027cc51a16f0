package semantics

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/features"
)

var (
	rounds = flag.Int("rounds", 16, "profiles for each seed")
	asked  = flag.Int("asked", 160, "accesses for each profile, about")
)

// TestOneSemantics runs the fixed seed, and a fresh one.
func TestOneSemantics(t *testing.T) {
	n, file := start(t)
	target := features.Probe().Target
	seeds := map[string]uint64{"fixed": 1, "fresh": uint64(time.Now().UnixNano())}
	if text := os.Getenv("STOCKADE_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = map[string]uint64{"given": seed}
	}
	for name, seed := range seeds {
		t.Run(name, func(t *testing.T) {
			t.Logf("STOCKADE_SEED=%d, AppArmor: %v", seed, target.AppArmor)
			g := generator{rand.New(rand.NewPCG(seed, 1))}
			count := tally{}
			for i := range *rounds {
				compare(t, n, file, target, g, fmt.Sprintf("%s-%d", name, i), &count)
			}
			t.Logf("%d questions, %d allowed by all; AppArmor's text alone held %d of %d profiles", count.asked, count.allowed, count.plain, *rounds)
			if count.allowed == 0 || count.allowed == count.asked {
				t.Error("all answers are the same: nothing was compared")
			}
		})
	}
}

type tally struct{ asked, allowed, plain int }

// start runs a node. file is a program of the host's that every file of the volume is a link to.
func start(t *testing.T) (*node.Node, string) {
	ctx := t.Context()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := checkout.Bin(root, "containerd", "runc", "containerd-shim-runc-v2", "containerd-shim-stockade-v1", "stockade-guard")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(ctx, node.Config{Dir: filepath.Join(root, ".work/sem"), Bin: []string{bin}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	n.Runtime = node.Stockade
	img, err := (&image.Builder{Root: root, Log: os.Stderr}).Named(ctx, "probe")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Import(ctx, img.Tar); err != nil {
		t.Fatal(err)
	}
	return n, filepath.Join(n.Dir(), "hello")
}

// compare puts one profile and its questions to the kernel and to Decide.
func compare(t *testing.T, n *node.Node, file string, target profiles.Target, g generator, name string, count *tally) {
	t.Helper()
	p := g.profile(name)
	questions := g.questions(*asked)
	// Parsed again, as the shim reads it: what cannot be written down is not compared.
	parsed, err := profiles.Parse(name, p.YAML())
	if err != nil {
		t.Fatalf("%v\n%s", err, p.YAML())
	}
	plan, err := profiles.Compile(parsed[0], target)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.YAML())
	}
	if err := os.WriteFile(filepath.Join(n.ProfilesDir(), name+".yaml"), p.YAML(), 0o600); err != nil {
		t.Fatal(err)
	}
	if plan.AppArmor != nil && !plan.AsksOpens(top, false) {
		count.plain++
	}
	args := []string{"/bin/probe", "batch"}
	for _, q := range questions {
		args = append(args, string(q.op)+q.path)
	}
	results := run(t, n, file, name, args)
	if len(results) != len(questions) {
		t.Fatalf("%s: %d answers to %d questions\n%s\n%s", name, len(results), len(questions), strings.Join(results, "\n"), n.LogTail())
	}
	for i, q := range questions {
		a := profiles.Access{Kind: kinds[q.op], Path: q.path, Subject: profiles.Subject{Exe: "/bin/probe"}}
		v := plan.Decide(&a)
		_, errno, _ := strings.Cut(results[i], " ")
		allowed := errno == "0"
		count.asked++
		if allowed {
			count.allowed++
		}
		switch errno {
		case "0", "EPERM", "EACCES", "EROFS":
		case "ENOENT", "EEXIST": // of a name that an earlier question was refused, or had made
			continue
		default:
			t.Errorf("%s: %c %q: %s", name, q.op, q.path, errno)
		}
		if allowed != v.Allowed() {
			t.Errorf("%s: %c %q: the kernel says %s, Decide %s (%s, %v)", name, q.op, q.path, errno, v.Action, v.Reason, v.Rule)
		}
	}
	if t.Failed() {
		t.Fatalf("the profile:\n%s", p.YAML())
	}
}

// run has the probe try everything in a container of its own, and returns its lines.
func run(t *testing.T, n *node.Node, file, name string, args []string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	volume, err := os.MkdirTemp(n.Dir(), "t-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(volume)
	if err := os.Chmod(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	task, err := n.Run(ctx, node.RunOpts{
		Image: image.Ref("probe"), Args: args, Profile: name,
		Mounts:  []specs.Mount{{Destination: top, Type: "bind", Source: volume, Options: []string{"rbind", "rw"}}},
		Prepare: func(r node.Rootfs) error { return plant(r, file, volume) },
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, n.LogTail())
	}
	defer func() {
		if err := task.Delete(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	if code, err := task.Wait(ctx); err != nil || code != 0 {
		t.Fatalf("%s: exit code %d, %v: %s\n%s", name, code, err, task.Output(), n.LogTail())
	}
	lines := strings.Split(strings.TrimSpace(task.Output()), "\n")
	return lines[:len(lines)-1] // the last says that it did it
}

// plant makes the tree: every file is a program that ends at once.
func plant(r node.Rootfs, file, volume string) error {
	if _, err := os.Stat(file); err != nil {
		from, _, ok := r.Find("/bin/hello")
		if !ok {
			return fmt.Errorf("the image has no /bin/hello")
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o755); err != nil {
			return err
		}
	}
	for _, f := range tree() {
		at := filepath.Join(volume, strings.TrimPrefix(f, top))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.Link(file, at); err != nil {
			return err
		}
	}
	return nil
}
