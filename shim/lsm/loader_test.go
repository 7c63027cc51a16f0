package lsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stockade-dev/stockade/shim/lsm/lsmtest"
)

// fakeParser behaves as apparmor_parser does, for what a real one cannot be made to do; the kernel is a folder, on a
// machine without AppArmor.
const fakeParser = `#!/bin/sh
echo "$*" >>%[1]s/log
while [ $# -gt 1 ]; do [ "$1" = --ofile ] && into=$2; shift; done
if grep -q broken "$1"; then echo "AppArmor parser error for $1 in profile $1 at line 3: syntax error" >&2; echo "second line"; exit 1; fi
if grep -q nameless "$1"; then :>"$into"; exit; fi
printf 'policy %%s\0' "$(basename "$1")" >"$into"
grep -q lost "$1" && echo lost >>"$into"
exit 0
`

func fake(t *testing.T) *Loader {
	t.Helper()
	dir := t.TempDir()
	list := filepath.Join(dir, "sys/kernel/security/apparmor/profiles")
	for name, content := range map[string]string{
		"sys/module/apparmor/parameters/enabled": "Y\n",
		"sys/module/apparmor/parameters/mode":    "enforce\n",
		"sys/module/apparmor/parameters/audit":   "normal\n",
		"sys/kernel/security/apparmor/profiles":  "stockade.other (enforce)\n/usr/bin/man (enforce)\n",
		"proc/1/attr/apparmor/current":           "unconfined\n",
		"proc/7/attr/current":                    "stockade.other//p1 (enforce)\n",
		"log":                                    "",
	} {
		write(t, filepath.Join(dir, name), content)
	}
	parser := filepath.Join(dir, "parser")
	write(t, parser, fmt.Sprintf(fakeParser, dir))
	if err := os.Chmod(parser, 0o755); err != nil {
		t.Fatal(err)
	}
	change := func(f func(string) string) error {
		data, err := os.ReadFile(list)
		if err != nil {
			return err
		}
		return os.WriteFile(list, []byte(f(string(data))), 0o644)
	}
	return &Loader{
		Parser: &Parser{Path: parser}, Prefix: "stockade.", Dir: filepath.Join(dir, "state"),
		Kernel: Kernel{Sys: filepath.Join(dir, "sys"), Proc: filepath.Join(dir, "proc")},
		replace: func(policy []byte) error {
			name, rest, _ := strings.Cut(strings.TrimPrefix(string(policy), "policy "), "\x00")
			return change(func(list string) string {
				if rest != "" || strings.Contains(list, name+" (") {
					return list
				}
				return list + name + " (enforce)\n"
			})
		},
		remove: func(name string) error {
			return change(func(list string) string { return strings.ReplaceAll(list, name+" (enforce)\n", "") })
		},
	}
}

// load is Load under the name that Copy gives.
func (l *Loader) load(p Profile, holder string) (string, error) {
	return p.Copy(holder), l.Load(p, p.Copy(holder), holder)
}

func profile(name, text string) Profile {
	return Profile{Name: name + ".0000", Text: text, Slot: "0000"}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (l *Loader) log(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(l.Dir), "log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (l *Loader) has(t *testing.T, name string) bool {
	t.Helper()
	loaded, err := l.Kernel.Loaded()
	if err != nil {
		t.Fatal(err)
	}
	_, there := loaded[name]
	return there
}

func TestCompiledOnceLoadedForEach(t *testing.T) {
	l := fake(t)
	p := profile("stockade.a.1", "text")
	var all sync.WaitGroup
	copies := make([]string, 8)
	for i := range copies {
		all.Go(func() {
			holder := fmt.Sprintf("k8s.io/%d", i)
			copies[i] = p.Copy(holder)
			if err := l.Load(p, copies[i], holder); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := strings.Count(l.log(t), "--ofile"); n != 1 {
		t.Fatalf("compiled %d times", n)
	}
	seen := map[string]bool{}
	for i, name := range copies {
		if !l.has(t, name) || seen[name] || len(name) != len(p.Name) {
			t.Fatalf("%q, of %q", name, copies)
		}
		seen[name] = true
		if err := l.Release(name, fmt.Sprintf("k8s.io/%d", i)); err != nil {
			t.Fatal(err)
		}
		if l.has(t, name) {
			t.Errorf("%s is still there", name)
		}
	}
	if err := l.Release(copies[0], "k8s.io/0"); err != nil {
		t.Errorf("released twice: %v", err)
	}
}

func TestRefused(t *testing.T) {
	l := fake(t)
	_, err := l.load(profile("stockade.b.1", "broken"), "c")
	var parser *ParserError
	if !errors.As(err, &parser) || !strings.Contains(err.Error(), "at line 3: syntax error\nsecond line") {
		t.Errorf("the parser's words are not whole: %v", err)
	}
	for text, want := range map[string]string{"lost": "does not have it", "nameless": "does not name it"} {
		if _, err := l.load(profile("stockade."+text, text), "c"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(l.Dir, refsDir)); len(entries) != 0 {
		t.Errorf("references of what was refused: %v", entries)
	}
	name, err := l.load(profile("stockade.b.1", "text"), "c")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.load(profile("stockade.b.1", "other text"), "d"); err == nil {
		t.Error("another text under the same name")
	}
	if !l.has(t, name) {
		t.Error("a refused second text took the first away")
	}
	for _, name := range []string{"man", "stockade.a/b", "stockade.a b", "stockade.../x", "", "stockade.a\n"} {
		if _, err := l.load(Profile{Name: name, Text: "text"}, "c"); err == nil {
			t.Errorf("name %q", name)
		}
	}
}

func TestSweepAfterACrash(t *testing.T) {
	l := fake(t)
	name, err := l.load(profile("stockade.c.1", "text"), "mine")
	if err != nil {
		t.Fatal(err)
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	orphan, err := json.Marshal(reference{PID: dead.Process.Pid, Start: 1})
	if err != nil {
		t.Fatal(err)
	}
	reused, err := json.Marshal(reference{PID: os.Getpid(), Start: 1})
	if err != nil {
		t.Fatal(err)
	}
	for holder, content := range map[string][]byte{"orphan": orphan, "reused": reused, "short": []byte(`{"pi`)} {
		write(t, l.refFile(name, holder), string(content))
	}
	unloaded, err := l.Sweep()
	if err != nil || len(unloaded) != 0 || !l.has(t, name) {
		t.Fatalf("held by a living process: %v, %v", unloaded, err)
	}
	if entries, _ := os.ReadDir(filepath.Join(l.Dir, refsDir, name)); len(entries) != 1 {
		t.Errorf("references of the dead: %v", entries)
	}
	if err := os.Remove(l.refFile(name, "mine")); err != nil {
		t.Fatal(err)
	}
	unloaded, err = l.Sweep()
	if err != nil || len(unloaded) != 1 || unloaded[0] != name {
		t.Errorf("unloaded %v, %v", unloaded, err)
	}
	if !l.has(t, "stockade.other") || !l.has(t, "/usr/bin/man") {
		t.Error("a profile that a process has, or that is not ours, was unloaded")
	}
}

func TestUnavailable(t *testing.T) {
	l := fake(t)
	l.Kernel.Sys = t.TempDir()
	for _, step := range []struct{ file, content, want string }{
		{"module/apparmor/parameters/enabled", "N\n", "not in this kernel"},
		{"module/apparmor/parameters/enabled", "Y\n", "compiled in and not enabled"},
		{"kernel/security/apparmor/profiles", "", "securityfs is not mounted"},
		{"module/apparmor/parameters/mode", "complain\n", "its mode cannot be read"},
		{"module/apparmor/parameters/mode", "enforce\n", "apparmor.mode=complain on the whole node"},
		{"module/apparmor/parameters/audit", "quiet_denied\n", "its audit cannot be read"},
		{"module/apparmor/parameters/audit", "normal\n", "apparmor.audit=quiet_denied on the whole node"},
	} {
		_, err := l.load(profile("stockade.d.1", "text"), "c")
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), step.want) {
			t.Errorf("%v, want %s", err, step.want)
		}
		write(t, filepath.Join(l.Kernel.Sys, step.file), step.content)
	}
	if err := l.Kernel.Available(); err != nil {
		t.Error(err)
	}
}

// TestRealParser checks texts with Debian's parser, which needs no kernel for that.
func TestRealParser(t *testing.T) {
	path, args := lsmtest.Parser(t)
	p := &Parser{Path: path, Args: args, Base: args[3]}
	if err := p.Check("abi <abi/" + p.ABI() + ">,\nprofile stockade.x.1 {\n  /a r,\n}\n"); err != nil {
		t.Error(err)
	}
	var bad *ParserError
	if err := p.Check("profile stockade.x.1 {\n  /a zz,\n}\n"); !errors.As(err, &bad) || !strings.Contains(bad.Output, "line 2") {
		t.Errorf("%v", err)
	}
}

// TestRealKernel loads, attaches and unloads where there is AppArmor.
func TestRealKernel(t *testing.T) {
	var k Kernel
	if err := k.Available(); err != nil {
		t.Skip(err)
	}
	p, err := FindParser()
	if err != nil {
		t.Skip(err)
	}
	l := &Loader{Parser: p, Dir: t.TempDir(), Prefix: "stockade-test."}
	abi := ""
	if v := p.ABI(); v != "" {
		abi = "abi <abi/" + v + ">,\n"
	}
	const written = "stockade-test.lsm.0000000000000000"
	text := abi + "profile " + written + " flags=(attach_disconnected,mediate_deleted) {\n  /** mrix,\n  profile session {\n    /** mrix,\n  }\n}\n"
	name, err := l.load(Profile{Name: written, Text: text, Slot: "0000000000000000"}, "one")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release(name, "one") })
	loaded, err := k.Loaded()
	if err != nil || loaded[name] != "enforce" || loaded[name+"//session"] != "enforce" || loaded[written] != "" {
		t.Fatalf("%v, %v", loaded, err)
	}
	// A shell that takes the profile for its next program, which waits for its input to end.
	sleeper := exec.Command("/bin/sh", "-c", `a=/proc/self/attr/apparmor/exec; [ -e $a ] || a=/proc/self/attr/exec
echo "exec $1" >$a && exec /bin/sh -c 'echo ready; read x'`, "sh", name)
	in, err := sleeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := sleeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
	ready := make([]byte, 6)
	if _, err := out.Read(ready); err != nil {
		t.Fatal(err)
	}
	if label, err := k.Label(sleeper.Process.Pid); err != nil || label != name {
		t.Fatalf("label %q, %v", label, err)
	}
	if err := l.Release(name, "one"); err != nil || !l.has(t, name) {
		t.Fatalf("taken from under a process: %v", err)
	}
	_ = in.Close()
	_ = sleeper.Wait()
	if unloaded, err := l.Sweep(); err != nil || len(unloaded) != 1 || l.has(t, name) {
		t.Errorf("unloaded %v, %v", unloaded, err)
	}
}
