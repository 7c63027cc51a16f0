package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// restart restarts containerd and waits until it works; with the handler if want. It returns containerd's version.
func (w *worker) restart(ctx context.Context, want bool) (string, error) {
	step("restart")
	if w.o.RestartCommand != "" {
		w.say("restarting containerd: " + w.o.RestartCommand)
		if err := w.r.run(ctx, "sh", "-c", w.o.RestartCommand); err != nil {
			return "", err
		}
	} else if err := w.systemctl(ctx, "restart", w.o.Unit); err != nil {
		return "", err
	}
	step("restarted")
	version, err := w.daemon().ready(ctx, want)
	if err == nil {
		w.say("containerd " + version + " answers")
	}
	return version, err
}

func (w *worker) daemon() daemon { return daemon{address: w.address(), wait: w.o.Wait} }

// address is where containerd listens, as this process reaches it.
func (w *worker) address() string {
	if w.o.Address != "" {
		return w.o.Address
	}
	at := "/run/containerd/containerd.sock"
	if main, imported, err := w.r.containerd(w.m.Options.ContainerdConfig, func(string) bool { return false }); err == nil && main != nil {
		for _, c := range append([]*conf{main}, imported...) {
			if a := c.address(); a != "" {
				at = a
			}
		}
	}
	if real, err := w.r.real(at); err == nil {
		return real
	}
	return filepath.Join(w.o.Root, at)
}

func (w *worker) systemctl(ctx context.Context, args ...string) error {
	w.say("systemctl " + strings.Join(args, " "))
	return w.r.run(ctx, "systemctl", args...)
}

// run runs a program of the host, inside its root. What it says is in the error.
func (r root) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if r != "/" {
		file, err := r.find(name)
		if err != nil {
			return err
		}
		cmd = &exec.Cmd{Path: file, Args: append([]string{name}, args...), Dir: "/", SysProcAttr: &syscall.SysProcAttr{Chroot: string(r)}}
		// systemctl refuses to talk to systemd from inside a chroot unless told so (systemd's docs/ENVIRONMENT.md).
		cmd.Env = []string{"PATH=" + strings.Join(containerdPath, ":"), "SYSTEMD_IGNORE_CHROOT=1"}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// find returns a program's path inside the root.
func (r root) find(name string) (string, error) {
	for _, dir := range containerdPath {
		p := filepath.Join(dir, name)
		real, err := r.real(p)
		if err != nil {
			return "", err
		}
		if info, err := os.Stat(real); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", errors.Join(exec.ErrNotFound, fmt.Errorf("%s is not in %s of %s", name, strings.Join(containerdPath, ":"), r))
}
