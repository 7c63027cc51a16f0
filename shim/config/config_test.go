package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseTakesEveryKey(t *testing.T) {
	got, err := Parse("c.yaml", []byte(`
# the node
profiles: /p/
cluster: /c
lastGood: /g
incidents: /i/./x
state: /s
noProfile: monitor
incidentLimit: {count: 7, bytes: 1MiB}
guard: /usr/libexec/stockade-guard
raiseLimits: false
selectionKey: /k
requirePlugin: true
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Profiles: "/p", Cluster: "/c", LastGood: "/g", Incidents: "/i/x", State: "/s", NoProfile: Monitor,
		IncidentLimit: Limit{Count: 7, Bytes: 1 << 20}, Guard: "/usr/libexec/stockade-guard",
		SelectionKey: "/k", RequirePlugin: true,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseKeepsDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "raiseLimits: true\n", "guard: \"\"\n", "incidentLimit: {}\n"} {
		got, err := Parse("c.yaml", []byte(text))
		if err != nil || got != Default() {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	got, err := Parse("c.yaml", []byte("incidentLimit: {count: 5}\n"))
	if err != nil || got.IncidentLimit != (Limit{Count: 5, Bytes: 256 << 20}) {
		t.Errorf("one key of two: %+v, %v", got, err)
	}
}

func TestParseReportsEveryMistakeWithItsPlace(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", "profile: /p\n", "c.yaml:1:1: profile: unknown key; want one of cluster, guard, incidentLimit"},
		{"nested unknown", "incidentLimit:\n  size: 3\n", "c.yaml:2:3: incidentLimit.size: unknown key; want one of bytes, count"},
		{"relative", "profiles: etc/p\n", `c.yaml:1:11: profiles: "etc/p" is not absolute; want an absolute path`},
		{"empty path", "state: \"\"\n", `c.yaml:1:8: state: "" is not absolute`},
		{"no value", "state:\n", `c.yaml:1:8: state: is empty; want an absolute path`},
		{"number as path", "state: 5\n", "state: is 5; want an absolute path"},
		{"noProfile", "noProfile: allow\n", `c.yaml:1:12: noProfile: is "allow"; want refuse, monitor or run`},
		{"count zero", "incidentLimit: {count: 0}\n", "incidentLimit.count: is 0; want a number of files"},
		{"count text", "incidentLimit: {count: many}\n", `incidentLimit.count: is "many"`},
		{"bytes unit", "incidentLimit: {bytes: 256 MeB}\n", `incidentLimit.bytes: is "256 MeB"; want a size`},
		{"bytes small", "incidentLimit: {bytes: 1KiB}\n", "want a size of at least 64KiB"},
		{"bytes huge", "incidentLimit: {bytes: 99999999TiB}\n", "incidentLimit.bytes"},
		{"raise", "raiseLimits: yep\n", `raiseLimits: is "yep"; want true or false`},
		{"list", "- a\n", "c.yaml:1:1: is a list; want keys and values"},
		{"scalar", "hello\n", `is "hello"; want keys and values`},
		{"limit as list", "incidentLimit: [1]\n", "incidentLimit: is a list; want keys and values"},
		{"duplicate", "state: /a\nstate: /b\n", "c.yaml:2:1: "},
		{"syntax", "state: [\n", "c.yaml:1:"},
		{"two documents", "state: /a\n---\nstate: /b\n", "a second document; want one document"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse("c.yaml", []byte(tc.text))
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q\nwant it to contain %q", err, tc.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 {
				t.Errorf("no position in %#v", err)
			}
			if got != (Config{}) {
				t.Errorf("half a configuration beside an error: %+v", got)
			}
		})
	}
	_, err := Parse("c.yaml", []byte("a: 1\nstate: x\nnoProfile: y\n"))
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d mistakes reported, want all 3: %v", n, err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, "1KiB": 1024, "256MiB": 256 << 20, "2 GiB": 2 << 30, "1kB": 1000, "3MB": 3e6, "1TiB": 1 << 40,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "1mib", "1 M iB", "9999999999999999999", "9223372036854775807KiB", "1Mi", "0x10"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q accepted as %d", text, got)
		}
	}
}

func TestLoadFollowsFlagThenEnvironmentThenDefault(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	write(t, a, "state: /a\n")
	write(t, b, "state: /b\n")
	t.Setenv(EnvVar, b)
	for named, want := range map[string]string{a: "/a", "": "/b"} {
		if got, err := Load(named); err != nil || got.State != want {
			t.Errorf("Load(%q): %+v, %v; want state %s", named, got, err, want)
		}
	}
	for _, missing := range []func() error{
		func() error { _, err := Load(filepath.Join(dir, "none")); return err },
		func() error { t.Setenv(EnvVar, filepath.Join(dir, "none")); _, err := Load(""); return err },
	} {
		if err := missing(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a named file that is missing: %v", err)
		}
	}
	t.Setenv(EnvVar, "")
	if path, given := Path(""); path != DefaultPath || given {
		t.Errorf("Path: %s %v", path, given)
	}
	if _, err := os.Stat(DefaultPath); errors.Is(err, fs.ErrNotExist) {
		if got, err := Load(""); err != nil || got != Default() {
			t.Errorf("missing default file: %+v, %v", got, err)
		}
	}
}

func TestLoadRefusesWhatOthersCanWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: chown")
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	write(t, path, "state: /a\n")
	for _, tc := range []struct {
		uid  int
		mode fs.FileMode
		want string
	}{
		{0, 0o640, ""},
		{0, 0o664, "mode 0664): chmod go-w " + path},
		{0, 0o602, "chmod go-w"},
		{1000, 0o600, "belongs to uid 1000"},
	} {
		if err := errors.Join(os.Chown(path, tc.uid, 0), os.Chmod(path, tc.mode)); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("uid %d mode %o: %v", tc.uid, tc.mode, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("uid %d mode %o: %v; want %q", tc.uid, tc.mode, err, tc.want)
		}
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a folder was accepted")
	}
	if _, err := Load("/dev/zero"); err == nil {
		t.Error("a device was accepted")
	}
}

func TestGuardPath(t *testing.T) {
	if got, err := (Config{Guard: "/x/g"}).GuardPath(); err != nil || got != "/x/g" {
		t.Error(got, err)
	}
	self, _ := os.Executable()
	self, _ = filepath.EvalSymlinks(self)
	if got, err := (Config{}).GuardPath(); err != nil || got != filepath.Join(filepath.Dir(self), "stockade-guard") {
		t.Error(got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("state: /a\nincidentLimit: {count: 1, bytes: 1MiB}\n")
	f.Add("a: *x\n")
	f.Add("<<: {state: /a}\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("c.yaml", []byte(text))
		if err == nil && (!filepath.IsAbs(c.State) || c.IncidentLimit.Count < 1 || c.NoProfile == "") {
			t.Errorf("%q gives %+v", text, c)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
