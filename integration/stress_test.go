package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

func number(name string, otherwise, short int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	if testing.Short() {
		return short
	}
	return otherwise
}

// profile writes a profile into n's store. spec is what stands below spec.
func profile(t *testing.T, n *node.Node, name, spec string) {
	t.Helper()
	text := fmt.Sprintf("apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: %s}\nspec:\n%s", name, spec)
	file := filepath.Join(n.ProfilesDir(), name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
}

const onlyProbe = `
  mode: enforce
  allow: {exec: [/bin/probe], read: ["@image"]}
`

// stoppedBy asserts that the undeclared program did not run, that the container died of trying, and that there is the
// one incident about it.
func stoppedBy(t *testing.T, n *node.Node, task *node.Task, program, said string) {
	t.Helper()
	code, err := task.Wait(t.Context())
	if err != nil || code != 137 {
		t.Errorf("%s: exit code %d, %v; want 137\n%s", task.ID, code, err, task.Output())
	}
	if strings.Contains(task.Output(), said) {
		t.Errorf("%s: %s was not stopped: %s", task.ID, program, task.Output())
	}
	incs := incidentsOf(t, n, task)
	if len(incs) != 1 || incs[0].Access.Kind != "exec" || incs[0].Access.Path != program {
		t.Errorf("%s: incidents %+v; want one of %s", task.ID, incs, program)
	}
}

// many starts count containers under runtime, a few at a time.
func many(t *testing.T, count int, runtime, profile string) []*node.Task {
	t.Helper()
	tasks := make([]*node.Task, count)
	var wg sync.WaitGroup
	next := make(chan int)
	for range 4 {
		wg.Go(func() {
			for i := range next {
				task, err := shared.Run(t.Context(), node.RunOpts{
					Image: image.Ref("probe"), Runtime: runtime, Profile: profile,
					Args: []string{"/bin/probe", "onterm", "exec", "/bin/hello"},
				})
				if err != nil {
					t.Errorf("container %d: %v", i, err)
					continue
				}
				tasks[i] = task
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	wg.Wait()
	t.Cleanup(func() {
		each(tasks, func(task *node.Task) {
			if err := task.Delete(context.Background()); err != nil {
				t.Error(err)
			}
		})
	})
	if t.Failed() {
		t.FailNow()
	}
	return tasks
}

func each(tasks []*node.Task, f func(*node.Task)) {
	var wg sync.WaitGroup
	next := make(chan *node.Task)
	for range 4 {
		wg.Go(func() {
			for task := range next {
				f(task)
			}
		})
	}
	for _, task := range tasks {
		if task != nil {
			next <- task
		}
	}
	close(next)
	wg.Wait()
}

// parent is the parent of a process: a container's shim, for its first one.
func parent(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// guardOf is the guard of a shim, 0 if there is none.
func guardOf(shim int) int {
	return children(shim, func(exe string) bool { return filepath.Base(exe) == "stockade-guard" })
}

func children(pid int, is func(exe string) bool) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		data, _ := os.ReadFile(f)
		for _, c := range strings.Fields(string(data)) {
			if exe, err := os.Readlink("/proc/" + c + "/exe"); err == nil && is(exe) {
				child, _ := strconv.Atoi(c)
				return child
			}
		}
	}
	return 0
}

// pss is a process's share of memory in KiB (proc_pid_smaps(5)), and what of it is its own.
func pss(t *testing.T, pid int) (all, private int) {
	t.Helper()
	if pid == 0 {
		return 0, 0
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.Atoi(fields[1])
		switch fields[0] {
		case "Pss:":
			all = n
		case "Private_Clean:", "Private_Dirty:":
			private += n
		}
	}
	return all, private
}

// memory is the mean of what a container's shim and guard take, in KiB.
func memory(t *testing.T, tasks []*node.Task) (shim, guard int) {
	t.Helper()
	for _, task := range tasks {
		pid := parent(task.InitPID())
		s, _ := pss(t, pid)
		g, _ := pss(t, guardOf(pid))
		shim, guard = shim+s, guard+g
	}
	return shim / len(tasks), guard / len(tasks)
}

// TestManyContainers protects more containers than the kernel's default limit of fanotify groups lets one user have,
// each with a shim of its own, and proves of every one that it is.
func TestManyContainers(t *testing.T) {
	profile(t, shared, "many", onlyProbe)
	const few = 20
	plain := many(t, few, node.Runc, "")
	runc, _ := memory(t, plain)
	each(plain, func(task *node.Task) {
		if err := task.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	})
	tasks := many(t, few, node.Stockade, "many")
	shim, guard := memory(t, tasks)
	t.Logf("memory per container, %d of them: plain shim %d KiB; ours %d KiB and guard %d KiB", few, runc, shim, guard)
	// The design's bound is 8 MiB; twice that, because pages shared among shims are counted by how many there are.
	if extra := shim + guard - runc; extra > 16<<10 {
		t.Errorf("%d KiB more than the plain shim for each container", extra)
	}
	count := number("CONTAINERS", 300, 40)
	tasks = append(tasks, many(t, count-few, node.Stockade, "many")...)
	shim, guard = memory(t, tasks)
	t.Logf("memory per container, %d of them: ours %d KiB and guard %d KiB", count, shim, guard)
	each(tasks, func(task *node.Task) {
		if err := task.WaitOutput(t.Context(), "waiting"); err != nil {
			t.Error(err)
		} else if err := task.Kill(t.Context(), unix.SIGTERM); err != nil {
			t.Error(err)
		} else {
			stoppedBy(t, shared, task, "/bin/hello", "hello ran")
		}
		if err := task.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// inGroup starts containers that share one shim, as those of a pod do.
func inGroup(t *testing.T, n *node.Node, group, profile string, args ...string) *node.Task {
	t.Helper()
	return fenced(t, n, node.RunOpts{
		Image: image.Ref("probe"), Profile: profile, Args: args,
		Annotations: map[string]string{"io.containerd.runc.v2.group": group},
	})
}

// TestOneShimManyProfiles: each container of a shim is held to its own profile, and dies alone.
func TestOneShimManyProfiles(t *testing.T) {
	profile(t, shared, "pod-hello", "  allow: {exec: [/bin/probe, /bin/hello], read: [\"@image\"]}\n")
	profile(t, shared, "pod-other", "  allow: {exec: [/bin/probe, /bin/other], read: [\"@image\"]}\n")
	profile(t, shared, "pod-none", onlyProbe)
	hello := inGroup(t, shared, "pod", "pod-hello", "/bin/probe", "seq", "spawn", "/bin/hello", "--", "onterm", "exec", "/bin/other")
	other := inGroup(t, shared, "pod", "pod-other", "/bin/probe", "seq", "spawn", "/bin/other", "--", "onterm", "exec", "/bin/hello")
	none := inGroup(t, shared, "pod", "pod-none", "/bin/probe", "onterm", "exec", "/bin/hello")
	for _, task := range []*node.Task{hello, other, none} {
		if err := task.WaitOutput(t.Context(), "waiting"); err != nil {
			t.Fatal(err)
		}
	}
	shim := parent(hello.InitPID())
	for _, task := range []*node.Task{other, none} {
		if p := parent(task.InitPID()); p != shim {
			t.Fatalf("%s has the shim %d, not %d", task.ID, p, shim)
		}
	}
	if !strings.Contains(hello.Output(), "hello ran") || !strings.Contains(other.Output(), "other ran") {
		t.Errorf("what is declared did not run: %q, %q", hello.Output(), other.Output())
	}
	for _, c := range []struct {
		task       *node.Task
		path, said string
	}{{hello, "/bin/other", "other ran"}, {none, "/bin/hello", "hello ran"}, {other, "/bin/hello", "hello ran"}} {
		for _, alive := range []*node.Task{c.task, other} {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", alive.InitPID())); err != nil {
				t.Fatalf("%s died of another's violation", alive.ID)
			}
		}
		if err := c.task.Kill(t.Context(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code, err := c.task.Wait(t.Context()); code != 137 || err != nil || strings.Contains(c.task.Output(), c.said) {
			t.Errorf("%s: exit code %d, %v\n%s", c.task.ID, code, err, c.task.Output())
		}
		if err := c.task.DeleteTask(t.Context()); err != nil { // the fence of one goes, those of the others stay
			t.Error(err)
		}
	}
	if err := hello.WaitShim(t.Context()); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		task *node.Task
		path string
	}{{hello, "/bin/other"}, {none, "/bin/hello"}, {other, "/bin/hello"}} {
		if incs := incidentsNow(t, shared, c.task.ID); len(incs) != 1 || incs[0].Access.Path != c.path {
			t.Errorf("%s: incidents %+v; want one of %s", c.task.ID, incs, c.path)
		}
	}
}

// TestStorm executes what is declared, 256 processes at once, for a minute: a static program, a dynamic one (with its
// loader), a script (with its interpreter).
func TestStorm(t *testing.T) {
	profile(t, shared, "storm", `
  allow: {exec: [/bin/probe, /bin/hello, /bin/dynamic, /bin/script], read: ["@image"]}
  sessions: {allow: {exec: [/bin/dynamic]}}
`)
	seconds := strconv.Itoa(number("STORM", 60, 6) / 3)
	args := []string{"/bin/probe", "seq"}
	for i, program := range []string{"/bin/hello", "/bin/dynamic", "/bin/script"} {
		if i > 0 {
			args = append(args, "--")
		}
		args = append(args, "forkexec", "256", seconds, program)
	}
	task := fenced(t, shared, node.RunOpts{Image: image.Ref("probe"), Profile: "storm", Args: args})
	// Probes come in the middle of it, until it ends.
	probes := 0
	for strings.Count(task.Output(), " bad ") < 2 || probes == 0 {
		out, code, err := trySession(t.Context(), task, node.ExecOpts{Args: []string{"/bin/dynamic"}})
		if gone(task.InitPID()) {
			break
		}
		if code != 0 || err != nil || !strings.Contains(out, "ran as /bin/dynamic") {
			t.Errorf("probe %d: %q, %d, %v", probes, out, code, err)
			break
		}
		probes++
	}
	t.Logf("%d probes meanwhile", probes)
	code, err := task.Wait(t.Context())
	ran := regexp.MustCompile(`ran \d+ bad \d+`).FindAllString(task.Output(), -1)
	if code != 0 || err != nil || len(ran) != 3 {
		t.Errorf("exit code %d, %v, %q", code, err, ran)
	}
	for i, said := range []string{"hello ran as /bin/hello", "hello ran as /bin/dynamic"} {
		if i < len(ran) && !strings.HasPrefix(ran[i], fmt.Sprintf("ran %d bad 0", strings.Count(task.Output(), said))) {
			t.Errorf("%s, but %q was said %d times", ran[i], said, strings.Count(task.Output(), said))
		}
	}
	t.Logf("static, dynamic, script: %q", ran)
	noIncident(t, shared, task)
}

// TestFlood hides one undeclared exec among as many declared opens and execs as four threads and four more can make.
func TestFlood(t *testing.T) {
	importFlood(t)
	// Not all of /files is declared, so that each open is asked about.
	profile(t, shared, "flood", `
  allow: {exec: [/bin/flood, /bin/hello], read: ["@image", "/files/[0-9]*"]}
`)
	files := volume(t, 0o755, 0)
	for i := range 4000 {
		if err := os.WriteFile(filepath.Join(files, strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seconds := strconv.Itoa(number("FLOOD", 10, 2))
	run := func(bad string) *node.Task {
		return fenced(t, shared, node.RunOpts{
			Image: image.Ref("flood"), Profile: "flood",
			Mounts: []specs.Mount{bind(files, "/files")},
			Args:   []string{"/bin/flood", "/files", "4000", seconds, "/bin/hello", bad},
		})
	}
	task := run("/bin/other")
	stoppedBy(t, shared, task, "/bin/other", "other ran")
	t.Logf("before it was stopped: %s", line(task.Output(), "opened"))
	if !strings.Contains(task.Output(), "failed 0") {
		t.Errorf("declared accesses failed: %s", line(task.Output(), "opened"))
	}
	// The same without the undeclared one: nothing is stopped.
	task = run("/bin/hello")
	if code, err := task.Wait(t.Context()); code != 0 || err != nil {
		t.Errorf("exit code %d, %v\n%s", code, err, line(task.Output(), "in all"))
	}
	t.Log(line(task.Output(), "in all"))
	noIncident(t, shared, task)
}

func line(text, with string) string {
	for l := range strings.Lines(text) {
		if strings.Contains(l, with) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

func importFlood(t *testing.T) {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	img, err := (&image.Builder{Root: root, Log: os.Stderr}).Build(t.Context(), image.Spec{
		Name: "flood",
		Programs: []image.Program{
			{Path: "/bin/flood", Sources: []string{"flood.c"}, Flags: []string{"-pthread"}},
			{Path: "/bin/hello", Sources: []string{"hello.c"}},
			{Path: "/bin/other", Sources: []string{"hello.c"}, Flags: []string{"-DOTHER"}},
		},
		Files:  []image.File{{Path: "/proc", Dir: true}, {Path: "/sys", Dir: true}, {Path: "/dev", Dir: true}, {Path: "/run", Dir: true}},
		Config: v1.Config{Cmd: []string{"/bin/hello"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.Import(t.Context(), img.Tar); err != nil {
		t.Fatal(err)
	}
}
