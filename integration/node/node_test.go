package node_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

// helperDir, when set, makes the test binary start a node there, run a container and wait to be killed.
const helperDir = "NODE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		helper(dir)
	}
	os.Exit(m.Run())
}

func helper(dir string) {
	ctx := context.Background()
	n, err := start(ctx, dir)
	if err == nil {
		_, err = n.Run(ctx, node.RunOpts{Image: image.Ref("probe")})
	}
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	println("ready")
	select {}
}

func start(ctx context.Context, dir string) (*node.Node, error) {
	root, err := checkout.Root()
	if err != nil {
		return nil, err
	}
	bin, err := checkout.Bin(root, "containerd", "runc", "containerd-shim-runc-v2")
	if err != nil {
		return nil, err
	}
	img, err := (&image.Builder{Root: root, Log: os.Stderr}).Named(ctx, "probe")
	if err != nil {
		return nil, err
	}
	n, err := node.Start(ctx, node.Config{Dir: dir, Bin: []string{bin}})
	if err != nil {
		return nil, err
	}
	return n, errors.Join(n.Import(ctx, img.Tar))
}

func started(t *testing.T, dir string) *node.Node {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	n, err := start(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		nothingLeft(t, dir, n.Namespace)
	})
	return n
}

// nothingLeft checks that neither the folder, nor a mount, a cgroup or a process of a node is there.
func nothingLeft(t *testing.T, dir, namespace string) {
	t.Helper()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", dir, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left below %s:\n%s", dir, mounts)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + namespace, "/sys/fs/cgroup/*/" + namespace, "/run/" + namespace} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, p := range procs {
		if env, err := os.ReadFile(p); err == nil && strings.Contains(string(env), "STOCKADE_NODE="+dir) {
			t.Errorf("a process of the node still runs: %s", p)
		}
	}
}

func run(t *testing.T, n *node.Node, o node.RunOpts) *node.Task {
	t.Helper()
	o.Image = image.Ref("probe")
	task, err := n.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestNode(t *testing.T) {
	n := started(t, filepath.Join(t.TempDir(), "n"))
	t.Run("output and exit code", func(t *testing.T) {
		task := run(t, n, node.RunOpts{Args: []string{"/bin/probe", "seq", "cat", "/etc/app.conf", "--", "cat", "/nothing"}})
		code, err := task.Wait(t.Context())
		if err != nil || code != 1 {
			t.Errorf("exit code %d, %v; want 1", code, err)
		}
		if want := "configuration of the image\ndid cat\nfailed cat ENOENT\n"; task.Output() != want {
			t.Errorf("output %q; want %q", task.Output(), want)
		}
		if err := task.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("exec, pids, kill", func(t *testing.T) { testExec(t, n) })
	t.Run("loopback", func(t *testing.T) {
		task := run(t, n, node.RunOpts{Args: []string{"/bin/probe", "serve", "4000"}})
		if err := task.WaitOutput(t.Context(), "listening"); err != nil {
			t.Fatal(err)
		}
		e, err := task.Exec(t.Context(), node.ExecOpts{Args: []string{"/bin/probe", "connect", "127.0.0.1", "4000"}})
		if err != nil {
			t.Fatal(err)
		}
		if code, err := e.Wait(t.Context()); code != 0 || err != nil {
			t.Errorf("connect: %d, %v\n%s", code, err, e.Output())
		}
	})
	t.Run("what a container changed", func(t *testing.T) {
		task := run(t, n, node.RunOpts{Args: []string{"/bin/probe", "seq", "write", "/new", "x", "--", "unlink", "/etc/app.conf"}})
		if code, err := task.Wait(t.Context()); code != 0 || err != nil {
			t.Fatalf("%d, %v\n%s", code, err, task.Output())
		}
		if _, changed, ok := task.Rootfs().Find("/new"); !changed || !ok {
			t.Errorf("/new: changed %v, there %v; want both", changed, ok)
		}
		if _, changed, ok := task.Rootfs().Find("/etc/app.conf"); !changed || ok {
			t.Errorf("/etc/app.conf: changed %v, there %v; want changed and gone", changed, ok)
		}
		if _, changed, ok := task.Rootfs().Find("/etc/passwd"); changed || !ok {
			t.Errorf("/etc/passwd: changed %v, there %v; want unchanged and there", changed, ok)
		}
	})
	t.Run("the CRI is on", func(t *testing.T) {
		plugins, err := n.Client.IntrospectionService().Plugins(t.Context(), "id==cri")
		if err != nil || len(plugins.GetPlugins()) == 0 {
			t.Fatalf("%v, %v", plugins, err)
		}
		for _, p := range plugins.GetPlugins() {
			if e := p.GetInitErr(); e != nil {
				t.Errorf("%s: %s", p.GetType(), e.GetMessage())
			}
		}
	})
	t.Run("a second node in the folder", func(t *testing.T) {
		if _, err := node.Start(t.Context(), node.Config{Dir: n.Dir()}); !errors.Is(err, node.ErrRunning) {
			t.Errorf("got %v, want ErrRunning", err)
		}
		if err := node.Clean(n.Dir()); !errors.Is(err, node.ErrRunning) {
			t.Errorf("Clean: got %v, want ErrRunning", err)
		}
	})
}

func testExec(t *testing.T, n *node.Node) {
	task := run(t, n, node.RunOpts{Args: []string{"/bin/probe", "fork", "3", "1000"}})
	if err := task.WaitOutput(t.Context(), "forked 3"); err != nil {
		t.Fatal(err)
	}
	e, err := task.Exec(t.Context(), node.ExecOpts{Args: []string{"/bin/hello"}})
	if err != nil {
		t.Fatal(err)
	}
	if code, err := e.Wait(t.Context()); code != 0 || err != nil || e.Stdout() != "hello ran as /bin/hello\n" {
		t.Errorf("exec: %d, %v, %q", code, err, e.Output())
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if pids, err := task.PIDs(t.Context()); len(pids) != 4 || err != nil {
		t.Errorf("pids %v, %v; want 4", pids, err)
	}
	if shim, err := task.ShimPID(); shim == 0 || err != nil {
		t.Errorf("shim: %d, %v", shim, err)
	}
	if dirs := task.CgroupDirs(); len(dirs) == 0 {
		t.Error("no cgroup")
	}
	if err := task.Kill(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, err := task.Wait(t.Context()); code != 137 || err != nil {
		t.Errorf("exit code %d, %v; want 137", code, err)
	}
}

// A folder whose path is too long for sockets must work as any other.
func TestLongPath(t *testing.T) {
	n := started(t, filepath.Join(t.TempDir(), strings.Repeat("long/", 30)+"n"))
	task := run(t, n, node.RunOpts{Args: []string{"/bin/hello"}})
	if code, err := task.Wait(t.Context()); code != 0 || err != nil {
		t.Errorf("%d, %v\n%s", code, err, task.Output())
	}
}

// What a node leaves whose owner was killed must be ended by Clean, and by the next Start.
func TestKilledOwner(t *testing.T) {
	for name, clean := range map[string]func(t *testing.T, dir string){
		"Clean": func(t *testing.T, dir string) {
			if err := node.Clean(dir); err != nil {
				t.Error(err)
			}
		},
		"Start": func(t *testing.T, dir string) {
			n, err := start(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Short enough for sockets, so that the bundles are to be found in it.
			dir, err := os.MkdirTemp("/tmp", "n")
			if err != nil {
				t.Fatal(err)
			}
			namespace := killedOwner(t, dir)
			clean(t, dir)
			nothingLeft(t, dir, namespace)
		})
	}
}

// killedOwner leaves a node with a running container in dir, and its namespace.
func killedOwner(t *testing.T, dir string) (namespace string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for buf := make([]byte, 1024); !strings.Contains(said.String(), "ready\n"); {
		n, err := errs.Read(buf)
		if err != nil {
			t.Fatalf("the helper ended: %v\n%s", err, said.String())
		}
		said.Write(buf[:n])
	}
	cmd.Process.Kill()
	cmd.Wait()
	bundles, _ := filepath.Glob(dir + "/state/io.containerd.runtime.v2.task/*/*")
	if len(bundles) != 1 {
		t.Fatalf("bundles: %q; want one", bundles)
	}
	return filepath.Base(filepath.Dir(bundles[0]))
}
