package enforce

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stockade-dev/stockade/shim/procfs"
)

func openProc(t *testing.T) *procfs.FS {
	t.Helper()
	proc, err := procfs.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Close() })
	return proc
}

var (
	shell  = identity{1, 10}
	script = identity{1, 11}
	loader = identity{1, 12}
)

func TestTable(t *testing.T) {
	tab := &table{proc: openProc(t)}
	if _, ok := tab.get(7, 100); ok || tab.pending(7) || tab.known(shell) || tab.hasLineages() {
		t.Error("an empty table knows something")
	}
	tab.admit(8, 7, 1, program{}, program{start: 100, file: script, path: "/bin/script"})
	if !tab.pending(8) || tab.pending(7) {
		t.Error("an exec is its thread's")
	}
	if p, ok := tab.get(7, 100); !ok || p.path != "/bin/script" || p.script {
		t.Errorf("after the exec: %+v, %t", p, ok)
	}
	if _, ok := tab.get(7, 101); ok {
		t.Error("a later process with the same id has the record of the earlier one")
	}
	if tab.known(shell) || !tab.interpreter(8, 7, shell, true) || !tab.known(shell) {
		t.Error("a script's interpreter is admitted as such, and not before")
	}
	if p, _ := tab.get(7, 100); !p.script || p.path != "/bin/script" || !tab.hasLineages() {
		t.Errorf("after the interpreter: %+v", p)
	}
	if !tab.interpreter(8, 7, loader, false) || tab.known(loader) {
		t.Error("an ELF interpreter is not what the process runs")
	}
	if tab.interpreter(9, 7, shell, true) {
		t.Error("an interpreter without an exec")
	}
	for range 6 {
		tab.interpreter(8, 7, loader, false)
	}
	if tab.interpreter(8, 7, loader, false) {
		t.Error("interpreters without end")
	}
	tab.admit(8, 7, 1, program{}, program{start: 100, file: shell, path: "/bin/sh"})
	if p, _ := tab.get(7, 100); p.script || tab.hasLineages() {
		t.Errorf("after another exec: %+v", p)
	}
}

func TestTableForgetsTheDead(t *testing.T) {
	tab := &table{proc: openProc(t)}
	start, err := tab.proc.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/bin/sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	dead := child.Process.Pid
	deadStart, err := tab.proc.StartTime(dead)
	if err != nil {
		t.Fatal(err)
	}
	tab.admit(os.Getpid(), os.Getpid(), 1, program{}, program{start: start, file: shell})
	tab.admit(dead, dead, 1, program{}, program{start: deadStart, file: script, session: true})
	tab.sweepLocked()
	if !tab.hasLineages() || !tab.pending(dead) {
		t.Error("a living session was forgotten")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it says that it was killed
	tab.sweepLocked()
	if _, ok := tab.get(dead, deadStart); ok || tab.pending(dead) || tab.hasLineages() {
		t.Error("a dead session is remembered")
	}
	if _, ok := tab.get(os.Getpid(), start); !ok {
		t.Error("the living were forgotten")
	}
}

// An exec can fail after it was admitted: the process is then what it was. And it is nothing else before it took place.
func TestTableTellsAnExecThatFailed(t *testing.T) {
	const before, after, pid, tid = 5, 6, 7, 7
	entry := program{start: 100, file: script, path: "/bin/entry", script: true}
	other := program{start: 100, file: script, path: "/bin/other"}
	named := func(p program) string {
		if p.script {
			return p.path
		}
		return ""
	}
	tests := []struct {
		name  string
		self  program
		tries []int // the threads that try other, a script
		image uint64
		fixed bool
		want  string // the script that the process runs
	}{
		{"failed", entry, []int{tid}, before, false, "/bin/entry"},
		{"took place", entry, []int{tid}, after, false, "/bin/other"},
		{"failed in what runs no script", program{start: 100}, []int{tid}, before, false, ""},
		{"failed twice", entry, []int{tid, tid}, before, false, "/bin/entry"},
		{"cannot be told", entry, []int{tid}, before, true, ""},
		{"took place, and can be told", entry, []int{tid}, after, true, "/bin/other"},
		{"two threads, one of them", entry, []int{tid, 8}, after, false, ""},
		{"two threads, neither", entry, []int{tid, 8}, before, false, "/bin/entry"},
	}
	for _, tt := range tests {
		tab := &table{proc: openProc(t)}
		tab.set(pid, tt.self)
		for _, try := range tt.tries {
			self, _ := tab.get(pid, 100)
			tab.admit(try, pid, before, self.at(before, false), other)
			tab.interpreter(try, pid, shell, true)
		}
		if got := named(tab.settle(pid, 100, tt.image, tt.fixed)); got != tt.want {
			t.Errorf("%s: it runs the script %q, want %q", tt.name, got, tt.want)
		}
		if tt.want != "" && !tab.hasLineages() {
			t.Errorf("%s: its children's verdicts do not depend on it", tt.name)
		}
	}
}
