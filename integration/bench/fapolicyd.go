package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/node"
)

// fapolicyd is the daemon of Debian's package, unpacked and not installed. It runs in a mount namespace and a root of
// its own in which the containers' roots are the only overlays, and watches nothing but these, so the rest of the
// machine does not feel it.
type fapolicyd struct {
	dir      string   // its root
	packages string   // where the packages are unpacked
	roots    []string // of the containers
	cmd      *exec.Cmd
	exited   chan struct{}
}

const fapolicydConf = `permissive = 1
nice_val = 0
q_size = 640
uid = 0
gid = 0
do_stat_report = 0
detailed_report = 0
db_max_size = 50
subj_cache_size = 1549
obj_cache_size = 8191
watch_fs = overlay
trust = file
integrity = none
syslog_format = rule,dec,perm,pid,exe,:,path
allow_filesystem_mark = 1
`

// With the mounts that it needs the shell makes the namespace ready, and becomes the daemon.
const fapolicydStart = `set -eu
cd "$1"; shift
for d in usr proc dev; do mount --rbind /$d $d; done
mount --rbind "$1" opt/fapolicyd; shift
n=0
for r in "$@"; do mkdir -p watch/$n; mount --bind "$r" watch/$n; n=$((n + 1)); done
exec chroot . /opt/fapolicyd/usr/sbin/fapolicyd --debug-deny --permissive
`

// preparePeer fetches fapolicyd and tries it. Without it the other columns are worth having: the reason becomes a note.
func (b *bench) preparePeer(ctx context.Context) error {
	p := &fapolicyd{dir: b.dir("bench-fapolicyd"), packages: filepath.Join(b.root, ".cache", "fapolicyd", "root")}
	h := b.hosts[plain]
	for _, t := range []*node.Task{h.micro.Task, h.redis, h.nginx} {
		if t != nil {
			p.roots = append(p.roots, filepath.Join(t.Bundle(), "rootfs"))
		}
	}
	b.peer = p
	err := errors.Join(p.fetch(ctx), p.remove())
	if err == nil {
		err = p.lay()
	}
	if err == nil {
		err = errors.Join(p.start(ctx), p.stop())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		b.notes = append(b.notes, "No fapolicyd: "+err.Error())
		b.peer = nil
		return p.remove()
	}
	b.notes = append(b.notes, "fapolicyd: Debian's package, permissive, one rule (allow perm=any all : all), file system "+
		"marks on the overlay roots of the measured runc containers and on nothing else.")
	return nil
}

// fetch downloads and unpacks the package with the libraries that this machine may lack.
func (p *fapolicyd) fetch(ctx context.Context) error {
	if _, err := os.Stat(p.program()); err == nil {
		return nil
	}
	debs := filepath.Dir(p.packages)
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	download := append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, "fapolicyd", "liblmdb0", "libmagic1", "libcap-ng0", "libudev1")
	err := execute(ctx, debs, "apt-get", download...)
	if err != nil { // the lists of packages are absent or stale
		err = errors.Join(execute(ctx, debs, "apt-get", "-q", "update"), execute(ctx, debs, "apt-get", download...))
	}
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	for _, f := range files {
		err = errors.Join(err, execute(ctx, debs, "dpkg", "-x", f, p.packages))
	}
	return err
}

func execute(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (p *fapolicyd) program() string { return filepath.Join(p.packages, "usr/sbin/fapolicyd") }

// lay makes the daemon's root.
func (p *fapolicyd) lay() error {
	for _, d := range []string{
		"usr", "proc", "dev", "tmp", "run/fapolicyd", "var/lib/fapolicyd", "var/log", "etc/fapolicyd/trust.d", "opt/fapolicyd", "watch",
	} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		if target, err := os.Readlink("/" + l); err == nil {
			if err := os.Symlink(target, filepath.Join(p.dir, l)); err != nil {
				return err
			}
		}
	}
	for name, text := range map[string]string{
		"fapolicyd.conf": fapolicydConf, "fapolicyd.rules": "allow perm=any all : all\n", "fapolicyd.trust": "",
	} {
		if err := os.WriteFile(filepath.Join(p.dir, "etc/fapolicyd", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(p.dir, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)
}

// start returns when the daemon watches all roots.
func (p *fapolicyd) start(ctx context.Context) error {
	log, err := os.Create(p.log())
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"-m", "--propagation", "private", "sh", "-c", fapolicydStart, "sh", p.dir, p.packages}, p.roots...)
	p.cmd = exec.Command("unshare", args...)
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LD_LIBRARY_PATH=" + p.libraries()}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	p.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		// The kernel sends the death signal when the thread ends that made the process: prctl(2), PR_SET_PDEATHSIG.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(exited)
	}(p.cmd, p.exited)
	if err := <-started; err != nil {
		p.cmd = nil
		return err
	}
	return p.ready(ctx)
}

// libraries are the unpacked packages' as the daemon's root shows them.
func (p *fapolicyd) libraries() string {
	found, _ := filepath.Glob(filepath.Join(p.packages, "usr/lib/*-linux-gnu"))
	var dirs []string
	for _, f := range found {
		dirs = append(dirs, "/opt/fapolicyd"+strings.TrimPrefix(f, p.packages))
	}
	return strings.Join(dirs, ":")
}

func (p *fapolicyd) ready(ctx context.Context) error {
	for range 500 {
		text, _ := os.ReadFile(p.log())
		if bytes.Contains(text, []byte("Starting to listen")) {
			for i := range p.roots {
				if !bytes.Contains(text, fmt.Appendf(nil, "added /watch/%d mount point", i)) {
					return fmt.Errorf("fapolicyd does not watch the containers: %s", text)
				}
			}
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("fapolicyd has ended: %s", text)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return errors.New("fapolicyd does not begin to listen")
}

func (p *fapolicyd) log() string { return filepath.Join(p.dir, "log") }

// stop kills the daemon: its marks go with it, and the kernel lets through whatever still waits for it.
func (p *fapolicyd) stop() error {
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(unix.SIGKILL)
	select {
	case <-p.exited:
		p.cmd = nil
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("fapolicyd does not end")
	}
}

// remove takes its root away. Its mounts were in a namespace that ended with it.
func (p *fapolicyd) remove() error { return os.RemoveAll(p.dir) }
