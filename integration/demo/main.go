// Command demo shows Stockade at work on a containerd of its own: redis runs under its profile and serves; then
// whoever breaks into it tries what intruders try, each time in a fresh container, and each time is stopped before it
// takes effect, the container killed and the cause kept. Its exit status says whether all of that really happened.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/shim/incident"
)

//go:embed redis.yaml
var profile string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: "+err.Error())
		os.Exit(1)
	}
	fmt.Println("\nAll of it happened as told.")
}

// demo is one run.
type demo struct {
	root string // of the checkout
	node *node.Node
	ref  string // of the image
	wait time.Duration
}

func run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	d := &demo{root: root, wait: 20 * time.Second}
	say("A private containerd starts, and an image is made from Debian's package redis-server.")
	img, err := buildImage(ctx, root)
	if err != nil {
		return err
	}
	bin, err := checkout.Bin(root)
	if err != nil {
		return err
	}
	d.node, err = node.Start(ctx, node.Config{Dir: filepath.Join(root, ".work", "demo"), Bin: []string{bin, filepath.Join(root, ".cache", "bin")}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.node.Stop(context.WithoutCancel(ctx))) }()
	d.ref = img.Ref
	return d.show(ctx, img.Tar)
}

// show tells the story.
func (d *demo) show(ctx context.Context, tar string) error {
	if err := d.node.Import(ctx, tar); err != nil {
		return err
	}
	file := filepath.Join(d.node.ProfilesDir(), "redis.yaml")
	if err := os.WriteFile(file, []byte(profile), 0o600); err != nil {
		return err
	}
	say("This is all that redis is declared to do:")
	fmt.Println(indent(profile[strings.Index(profile, "spec:"):]))
	if err := d.serves(ctx); err != nil {
		return err
	}
	for i, a := range attacks {
		say("Deviation %d of %d: %s.", i+1, len(attacks), a.title)
		if err := d.attack(ctx, a); err != nil {
			return fmt.Errorf("%s: %w\n%s", a.title, err, d.node.LogTail())
		}
	}
	say("What this node enforces, and what it does not (bin/stockade profile explain):")
	return d.stockade(ctx, "profile", "explain", file)
}

func say(format string, args ...any) { fmt.Printf("\n--- "+format+"\n", args...) }

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}

func buildImage(ctx context.Context, root string) (image.Image, error) {
	b := &image.Builder{Root: root, Log: os.Stdout}
	return b.Named(ctx, "demo-redis")
}

// serves shows the declared life: requests are answered, and an operator's session is let in or refused.
func (d *demo) serves(ctx context.Context) error {
	say("redis runs under this profile and serves.")
	s, err := startServer(ctx, d.node, d.ref)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.node.LogTail())
	}
	defer func() { _ = s.Delete(context.WithoutCancel(ctx)) }()
	for _, c := range [][]string{{"SET", "greeting", "hello from inside the fence"}, {"GET", "greeting"}, {"BGREWRITEAOF"}, {"DBSIZE"}} {
		reply, err := s.ask(ctx, c...)
		if err != nil {
			return err
		}
		fmt.Printf("    redis> %s\n    %s\n", strings.Join(c, " "), reply)
	}
	if err := d.session(ctx, s); err != nil {
		return err
	}
	fmt.Println("    bin/stockade ps:")
	if err := d.stockade(ctx, "ps"); err != nil {
		return err
	}
	return d.quiet()
}

func (d *demo) session(ctx context.Context, s *server) error {
	host, port, _ := strings.Cut(s.addr, ":")
	cli, err := s.Exec(ctx, node.ExecOpts{Args: []string{"redis-cli", "-h", host, "-p", port, "GET", "greeting"}})
	if err != nil {
		return fmt.Errorf("a declared session: %w", err)
	}
	if _, err := cli.Wait(ctx); err != nil {
		return err
	}
	fmt.Printf("    exec session redis-cli (declared):   %s", cli.Output())
	if _, err = s.Exec(ctx, node.ExecOpts{Args: []string{"/bin/sh"}}); err == nil {
		return errors.New("an undeclared session was let in")
	}
	fmt.Printf("    exec session /bin/sh (not declared): %v\n", firstLine(err))
	return nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// quiet checks that nothing of the declared life was taken for a deviation.
func (d *demo) quiet() error {
	found, _, err := incident.List(d.node.IncidentsDir(), incident.Filter{})
	if err != nil {
		return err
	}
	for _, inc := range found {
		if inc.Action != incident.Denied || inc.Access.Path != "/usr/bin/dash" {
			return fmt.Errorf("declared work was stopped: %s", incident.Cause(&inc))
		}
	}
	return nil
}

// attack does one attack in a fresh container and checks that it was stopped, that the container died of it, and that
// the cause was kept.
func (d *demo) attack(ctx context.Context, a attack) error {
	s, err := startServer(ctx, d.node, d.ref)
	if err != nil {
		return err
	}
	defer func() { _ = s.Delete(context.WithoutCancel(ctx)) }()
	fmt.Printf("    redis> %s\n", strings.Join(a.command, " "))
	reply, err := s.ask(ctx, a.command...)
	if err != nil {
		fmt.Println("    (the connection is gone)")
	} else {
		fmt.Println("    " + reply)
	}
	waitCtx, cancel := context.WithTimeout(ctx, d.wait)
	defer cancel()
	code, err := s.Wait(waitCtx)
	if err != nil {
		return fmt.Errorf("the container still runs: %w", err)
	}
	root := s.Rootfs()
	if err := s.DeleteTask(ctx); err != nil {
		return err
	}
	_ = s.WaitShim(waitCtx)
	if a.happened(reply, root) {
		return errors.New("it took effect")
	}
	fmt.Printf("    the container is dead, exit status %d; no effect of it is found\n", code)
	return d.explain(ctx, s.ID, a)
}

// explain prints the cause from the incident, and checks that it is the right one.
func (d *demo) explain(ctx context.Context, id string, a attack) error {
	found, _, err := incident.List(d.node.IncidentsDir(), incident.Filter{Container: id})
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%d incidents, not one", len(found))
	}
	inc := found[0]
	if inc.Action != incident.Killed || inc.Access.Kind != a.access || inc.Access.Object() != a.object {
		return fmt.Errorf("another incident: %s", incident.Cause(&inc))
	}
	return d.stockade(ctx, "incident", "show", inc.ID)
}

// stockade runs the command of that name on the demo's node.
func (d *demo) stockade(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(d.root, "bin", "stockade"), append(args, "--config", d.node.StockadeConfig())...)
	out, err := cmd.CombinedOutput()
	fmt.Println(indent(string(out)))
	if err != nil {
		return fmt.Errorf("stockade %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
