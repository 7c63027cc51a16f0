package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Config of the guest. Two processors: races between them are what some of the attacks are about.
const (
	processors = "2"
	// The guest's time is the number of its instructions, at 2 ns each, and jumps to the next timer when all of it waits.
	// So however slow QEMU is and whatever else this machine does, the guest does not notice: no time limit in it is too
	// short, and waiting costs nothing. This holds only as long as nothing outside keeps the guest waiting. So it has
	// neither disk nor network, and its serial lines answer at once.
	clock = "shift=1,sleep=off"
	// Without cmpxchg16b: QEMU 7.2 leaves wrong flags behind it, the trap flag among them (seen as a double fault in Linux
	// 6.12's slab allocator, EFLAGS being the low half of RAX). Without five-level page tables, which only cost time.
	cpu    = "max,cx16=off,la57=off"
	memory = "3072"
)

// silence is how long a guest may say nothing before it counts as hung.
const silence = 4 * time.Minute

// oops is what the kernel prints when something is wrong with it.
var oops = []string{"Kernel panic", "BUG:", "Oops:", "general protection fault", "Unable to mount", "blocked for more than"}

// System is what guests boot from, whatever their kernel.
type System struct {
	builder   *Builder
	initramfs string
}

// Build makes it, for any number of guests at once. Close removes it.
func (b *Builder) Build(ctx context.Context) (*System, error) {
	if err := os.MkdirAll(b.cache(), 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(b.cache(), "initramfs-")
	if err != nil {
		return nil, err
	}
	s := &System{b, f.Name()}
	if err := errors.Join(b.initramfs(ctx, f), f.Close()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close removes the files. No guest may run any more.
func (s *System) Close() error { return os.Remove(s.initramfs) }

// Run boots k, runs the suites and returns what the guest said; echo gets each line as it comes. The error is for what
// makes the report worthless or incomplete: no QEMU, a panic, silence, an end before the guest's own.
func (s *System) Run(ctx context.Context, k Kernel, echo func(line string)) (*Report, error) {
	bt, err := s.builder.kernel(ctx, k)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.builder.cache(), "run-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initramfs")
	if err := s.own(initrd, k, bt); err != nil {
		return nil, err
	}
	r := &reader{echo: echo}
	console := filepath.Join(dir, "console")
	err = qemu(ctx, guest{bt.vmlinuz, initrd, console, k.realTime}, r)
	err = errors.Join(err, checkConsole(console))
	for _, s := range r.report.Suites {
		err = errors.Join(err, s.parse(ctx))
	}
	if err == nil && !r.report.Done {
		err = errors.New("the guest ended before its last line")
	}
	if err != nil {
		err = fmt.Errorf("%w\nconsole:\n%s", err, tail(console))
	}
	return &r.report, err
}

// own writes the initramfs of one kernel's guest. QEMU takes one file, and the kernel unpacks archives that follow one
// another.
func (s *System) own(path string, k Kernel, bt boot) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	common, err := os.Open(s.initramfs)
	if err != nil {
		return err
	}
	defer common.Close()
	if _, err := io.Copy(f, common); err != nil {
		return err
	}
	own := newArchive(f)
	own.text("stockade/suites", 0o644, s.builder.Only.script(k, s.builder.Root))
	for i, m := range bt.modules {
		own.file(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(m)), m)
	}
	return errors.Join(own.close(), f.Close())
}

// guest is the files of one run.
type guest struct {
	vmlinuz, initrd, console string
	realTime                 bool
}

// qemu runs the guest to its end. However it ends, no process is left.
func qemu(ctx context.Context, g guest, r *reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	accel := []string{"-accel", "tcg,thread=single,tb-size=1024", "-icount", clock}
	if g.realTime {
		accel = []string{"-accel", "tcg,thread=multi,tb-size=1024"}
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(accel, "-cpu", cpu, "-smp", processors, "-m", memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", g.vmlinuz, "-initrd", g.initrd, "-append", cmdline,
		"-chardev", "file,id=console,path="+g.console, "-serial", "chardev:console",
		"-chardev", "stdio,id=tests,signal=off", "-serial", "chardev:tests")...)
	// The guest must not outlive who is killed. The signal comes when the thread ends that started it, so this one stays.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	hung := time.AfterFunc(silence, func() { cancel(fmt.Errorf("nothing came from the guest for %v", silence)) })
	defer hung.Stop()
	readErr := r.read(out, func() { hung.Reset(silence) })
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	} else if err != nil {
		return fmt.Errorf("qemu: %w: %s", err, errs.String())
	}
	return readErr
}

// cmdline of the kernel: a panic ends QEMU, for it may not reboot; an oops is a panic. The time stamp counter is as good
// as QEMU's other clocks, and the only one that does not cost the guest a trip out.
const cmdline = "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off nokaslr clocksource=tsc tsc=reliable " +
	"apparmor=1 hung_task_panic=0 rdinit=/init"

func checkConsole(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		for _, o := range oops {
			if strings.Contains(line, o) {
				return fmt.Errorf("the kernel says: %s", strings.TrimSpace(line))
			}
		}
	}
	return nil
}

func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-6000):])
}
