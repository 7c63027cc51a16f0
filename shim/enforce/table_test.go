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
	tab.admit(8, 7, program{start: 100, file: script, path: "/bin/script"})
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
	tab.admit(8, 7, program{start: 100, file: shell, path: "/bin/sh"})
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
	tab.admit(os.Getpid(), os.Getpid(), program{start: start, file: shell})
	tab.admit(dead, dead, program{start: deadStart, file: script, session: true})
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
