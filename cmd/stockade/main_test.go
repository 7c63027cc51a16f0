package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// The test binary is the program itself when it is told so: exit codes are
// those of a process.
func TestMain(m *testing.M) {
	if os.Getenv("STOCKADE_TEST_MAIN") == "1" {
		main()
	}
	os.Exit(m.Run())
}

// now is when golden files are printed.
var now = time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)

// result is one run of the program.
type result struct {
	out, err string
	code     int
}

// stockade runs the program with a configuration of its own and without colour.
func stockade(t *testing.T, conf string, args ...string) result {
	t.Helper()
	var out, errw bytes.Buffer
	a := &app{out: &out, err: &errw, now: func() time.Time { return now }}
	root := a.root()
	root.SetArgs(append(args, "--config", conf))
	root.SetOut(&out)
	root.SetErr(&errw)
	code := a.finish(root.Execute())
	return result{out.String(), errw.String(), code}
}

// node is the configuration file of a node whose folders are temporary.
func node(t *testing.T) (conf, dir string) {
	t.Helper()
	dir = t.TempDir()
	conf = filepath.Join(dir, "config.yaml")
	text := "profiles: " + dir + "/profiles.d\nincidents: " + dir + "/incidents\nstate: " + dir + "/state\n"
	if err := errors.Join(os.WriteFile(conf, []byte(text), 0o600), os.Mkdir(dir+"/profiles.d", 0o755)); err != nil {
		t.Fatal(err)
	}
	return conf, dir
}

// golden compares with testdata/NAME.golden; names of temporary folders are
// taken out first.
func golden(t *testing.T, name, got string, cut ...string) {
	t.Helper()
	for _, c := range cut {
		got = strings.ReplaceAll(got, c, "DIR")
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test -update writes it):\n--- got\n%s--- want\n%s", path, got, want)
	}
}

// isJSON decodes what --json printed.
func isJSON(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, text)
	}
	return v
}

func TestExitCodesOfTheProcess(t *testing.T) {
	conf, _ := node(t)
	for _, tc := range []struct {
		args string
		code int
	}{
		{"version", 0},
		{"--help", 0},
		{"help profile explain", 0},
		{"completion bash", 0},
		{"ps", 0},
		{"reload --all", 0},
		{"reload", 2},
		{"reload --all --profile x", 2},
		{"reload nobody", 2},
		{"reload a b", 2},
		{"nonsense", 2},
		{"ps --nonsense", 2},
		{"ps argument", 2},
		{"profile check testdata/redis.yaml testdata/base.yaml", 0},
		{"profile check testdata/wrong", 1},
		{"profile list", 0},
		{"profile list x", 2},
		{"profile check", 2},
		{"profile explain testdata/redis.yaml --target full --exec /usr/local/bin/redis-server", 0},
		{"profile explain testdata/redis.yaml --target full --exec /bin/sh", 1},
		{"profile explain testdata/none.yaml --exec /bin/sh", 2},
		{"profile explain testdata/redis.yaml --exec /a --read /b", 2},
		{"profile explain testdata/redis.yaml --exec relative", 2},
		{"profile explain testdata/redis.yaml --exec /a/../b", 2},
		{"profile explain testdata/redis.yaml --exec ", 2},
		{"profile explain testdata/redis.yaml --syscall opnat", 2},
		{"profile explain testdata/redis.yaml --read /a --image-file maybe", 2},
		{"profile explain testdata/redis.yaml --target moon", 2},
		{"profile explain testdata/wrong/wrong.yaml", 2},
		{"profile explain testdata/wrong/compile.yaml --name unheld --target full", 1},
		{"profile compile testdata/redis.yaml --target full", 0},
		{"profile compile testdata/base.yaml --target full", 2},
		{"profile compile testdata/base.yaml --name other --target full", 0},
		{"profile compile testdata", 2},
		{"profile diff testdata/redis.yaml testdata/redis.yaml", 0},
		{"profile diff testdata/redis.yaml testdata/redis-next.yaml", 1},
		{"profile diff testdata/redis.yaml testdata/none.yaml", 2},
		{"incident ls", 0},
		{"incident ls --since yesterday", 2},
		{"incident show 2026", 1},
	} {
		cmd := exec.Command(os.Args[0], append(strings.Split(tc.args, " "), "--config", conf)...)
		cmd.Env = append(os.Environ(), "STOCKADE_TEST_MAIN=1")
		var errw bytes.Buffer
		cmd.Stderr = &errw
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != tc.code {
			t.Errorf("stockade %s: exit code %d, want %d\n%s", tc.args, got, tc.code, errw.String())
		}
		if tc.code == 2 && !strings.HasPrefix(errw.String(), "stockade: ") {
			t.Errorf("stockade %s: says %q", tc.args, errw.String())
		}
	}
}

// Every command says what it is for, how it is called, and what its exit codes mean.
func TestHelpIsWhole(t *testing.T) {
	for _, args := range []string{
		"", "doctor", "profile list", "profile check", "profile explain", "profile compile", "profile diff", "ps", "incident ls", "incident show",
	} {
		r := stockade(t, "/dev/null", append(strings.Fields(args), "--help")...)
		for _, want := range []string{"Examples:\n  ", "Exit codes:\n  0  ", "--json"} {
			if !strings.Contains(r.out, want) {
				t.Errorf("stockade %s --help lacks %q", args, want)
			}
		}
	}
}

func TestAWrongConfigurationIsSaid(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(conf, []byte("stat: /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"ps", "incident ls", "incident show x", "profile explain redis"} {
		r := stockade(t, conf, strings.Fields(args)...)
		if r.code != exitError || !strings.Contains(r.err, conf+":1:1: stat: unknown key") {
			t.Errorf("%s: %d %q", args, r.code, r.err)
		}
	}
}

func TestColourOnlyOnATerminal(t *testing.T) {
	if wantsColor(&bytes.Buffer{}) {
		t.Error("a buffer is coloured")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if wantsColor(file) {
		t.Error("a file is coloured")
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer terminal.Close()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if !wantsColor(terminal) {
		t.Error("a terminal is not coloured")
	}
	t.Setenv("TERM", "dumb")
	if wantsColor(terminal) {
		t.Error("a dumb terminal is coloured")
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	if wantsColor(terminal) {
		t.Error("NO_COLOR is not heeded")
	}
}

// Columns stay straight in colour.
func TestColouredTables(t *testing.T) {
	var plainOut, colorOut bytes.Buffer
	for _, a := range []*app{{out: &plainOut}, {out: &colorOut, color: true}} {
		a.printGuarantees([]guarantee{{"exec", "kill", "x", ""}, {"network", "none", "", "n"}, {"write", "detect", "y", ""}})
	}
	uncolored := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[39m", "", "\x1b[0m", "").Replace(colorOut.String())
	if uncolored != plainOut.String() || !strings.Contains(colorOut.String(), "\x1b[31mnone\x1b[0m") {
		t.Errorf("plain:\n%scoloured:\n%q", plainOut.String(), colorOut.String())
	}
}
