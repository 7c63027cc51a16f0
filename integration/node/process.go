package node

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
)

// Process is a container's first process, or one that Exec started.
type Process struct {
	process containerd.Process
	output  *output
	exit    <-chan containerd.ExitStatus
	done    bool
	code    int
}

// await asks for the exit status, which must be done before the process starts.
func (p *Process) await(ctx context.Context) error {
	// The request lives as long as the process: it must not end with the caller's time limit for Create.
	exit, err := p.process.Wait(context.WithoutCancel(ctx))
	p.exit = exit
	return err
}

// Wait waits for the end of the process and of its output and returns the exit code: 128+N after signal N. It is for
// one goroutine at a time.
func (p *Process) Wait(ctx context.Context) (int, error) {
	if p.done {
		return p.code, nil
	}
	select {
	case status := <-p.exit:
		code, _, err := status.Result()
		if err != nil {
			return 0, err
		}
		p.done, p.code = true, int(code)
		return p.code, p.drain(ctx)
	case <-ctx.Done():
		return 0, fmt.Errorf("still running: %w; output so far:\n%s", ctx.Err(), p.Output())
	}
}

// drain waits until the output has ended too. A process that was left behind can hold it open, and a shim that was
// killed may never close it: after a while what came is all there is.
func (p *Process) drain(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if s := p.process.IO(); s != nil {
			s.Wait()
		}
	}()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
	}
	return nil
}

// Output is what the process has written so far, standard output and standard error in the order of arrival.
func (p *Process) Output() string { return p.output.text(&p.output.all) }

// Stdout is what the process has written to its standard output so far.
func (p *Process) Stdout() string { return p.output.text(&p.output.stdout) }

// Stderr is what the process has written to its standard error so far.
func (p *Process) Stderr() string { return p.output.text(&p.output.stderr) }

// PID is the host's pid of the process.
func (p *Process) PID() int { return int(p.process.Pid()) }

// WaitOutput waits until the process has written text.
func (p *Process) WaitOutput(ctx context.Context, text string) error {
	for !strings.Contains(p.Output(), text) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%q was not written: %w; output:\n%s", text, ctx.Err(), p.Output())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// ExecOpts describes a further process of a running container, as `kubectl exec` starts one.
type ExecOpts struct {
	Args  []string
	Env   []string // added to the container's
	Cwd   string
	TTY   bool
	Stdin io.Reader
}

// Exec is a further process of a container.
type Exec struct {
	Process
	task *Task
}

// Exec starts a further process in the container. An error is that of containerd: the runtime refused it.
func (t *Task) Exec(ctx context.Context, o ExecOpts) (*Exec, error) {
	e, err := t.Prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	err = e.Start(ctx)
	// containerd's client and its shim did not meet at a pipe within 30 s, on an emulated machine that had too much to do;
	// nothing has run.
	if err != nil && strings.Contains(err.Error(), "unable to copy pipes") && ctx.Err() == nil {
		if e, err = t.Prepare(ctx, o); err == nil {
			err = e.Start(ctx)
		}
	}
	return e, err
}

// Prepare makes a further process of the container, to be started.
func (t *Task) Prepare(ctx context.Context, o ExecOpts) (*Exec, error) {
	ctx = t.node.Context(ctx)
	spec, err := t.Container.Spec(ctx)
	if err != nil {
		return nil, err
	}
	proc := *spec.Process
	proc.Args, proc.Terminal = o.Args, o.TTY
	proc.Env = append(append([]string{}, proc.Env...), o.Env...)
	if o.Cwd != "" {
		proc.Cwd = o.Cwd
	}
	e := &Exec{task: t}
	e.output = &output{}
	id := "e" + strconv.FormatUint(t.node.serial.Add(1), 10)
	if e.process, err = t.Task.Exec(ctx, id, &proc, t.node.creator(o.Stdin, e.output, o.TTY)); err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	return e, e.await(ctx)
}

// Start starts a process that was prepared. With an error there is none.
func (e *Exec) Start(ctx context.Context) error {
	ctx = e.task.node.Context(ctx)
	if err := e.process.Start(ctx); err != nil {
		e.process.Delete(ctx)
		return fmt.Errorf("exec: %w", err)
	}
	return nil
}

// Kill sends sig to the process.
func (e *Exec) Kill(ctx context.Context, sig syscall.Signal) error {
	return e.process.Kill(e.task.node.Context(ctx), sig)
}

// Delete kills the process when it still runs and removes it from its task.
func (e *Exec) Delete(ctx context.Context) error {
	_, err := e.process.Delete(e.task.node.Context(ctx), containerd.WithProcessKill)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
