package install

import (
	"strings"
	"testing"
)

func mustConf(t *testing.T, text string) *conf {
	t.Helper()
	c, err := parseConf("config.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEditImports(t *testing.T) {
	for name, tc := range map[string]struct{ before, after string }{
		"none, with a version": {
			"# mine\nversion = 3 # keep\n\nroot = '/r'\n[plugins]\n",
			"# mine\nversion = 3 # keep\nimports = ['conf.d/*.toml'] # added by stockade install\n\nroot = '/r'\n[plugins]\n",
		},
		"version is the last line, without an end": {
			"version = 3", "version = 3\nimports = ['conf.d/*.toml'] # added by stockade install\n",
		},
		"empty":             {"version = 3\nimports = []\n", "version = 3\nimports = ['conf.d/*.toml']\n"},
		"spaces in between": {"version = 3\nimports  =   [ ]\n", "version = 3\nimports  =   ['conf.d/*.toml' ]\n"},
		"one":               {"version = 3\nimports = [\"/x.toml\"] # why\n", "version = 3\nimports = ['conf.d/*.toml', \"/x.toml\"] # why\n"},
		"many lines, commented": {
			"imports = [ # a ] b\n  '/a',\n  # '/b',\n  '/c',\n]\nversion = 3\n",
			"imports = ['conf.d/*.toml',  # a ] b\n  '/a',\n  # '/b',\n  '/c',\n]\nversion = 3\n",
		},
		"imports of another table": {
			"version = 3\n[other]\nimports = ['/x']\n",
			"version = 3\nimports = ['conf.d/*.toml'] # added by stockade install\n[other]\nimports = ['/x']\n",
		},
		"a quoted key": {"version = 3\n\"imports\" = []\n", "version = 3\n\"imports\" = ['conf.d/*.toml']\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := editImports(mustConf(t, tc.before), "conf.d/*.toml")
			if err != nil || string(got) != tc.after {
				t.Fatalf("%v, got\n%s\nwant\n%s", err, got, tc.after)
			}
			back, err := undoEdits(mustConf(t, string(got)), "conf.d/*.toml")
			want := tc.before
			if !strings.HasSuffix(want, "\n") {
				want += "\n"
			}
			// A comment right behind the bracket keeps one more space.
			if strings.ReplaceAll(string(back), "[  #", "[ #") != want || err != nil {
				t.Errorf("undone: %v\n%q, want\n%q", err, back, want)
			}
		})
	}
}

func TestBlock(t *testing.T) {
	const before = "version = 2 # old\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\" # x"
	tables := []table{
		{[]string{"plugins", criPluginV2, "containerd", "runtimes", handler}, map[string]any{"runtime_type": runtimeType, "pod_annotations": []string{"stockade.dev/*"}}},
		{[]string{"plugins", criPluginV2, "containerd", "runtimes", handler, "options"}, map[string]any{"SystemdCgroup": true}},
	}
	c := mustConf(t, before)
	got, err := appendBlock(c, tables)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(got), before+"\n\n"+blockBegin) {
		t.Errorf("not appended:\n%s", got)
	}
	after := mustConf(t, string(got))
	if !after.hasHandler() || at(after.runtimes(), "runc")["runtime_type"] != "io.containerd.runc.v2" {
		t.Errorf("%v", after.runtimes())
	}
	if again, err := appendBlock(after, tables); err != nil || string(again) != string(got) {
		t.Errorf("a second time: %v\n%s", err, again)
	}
	if back, err := undoEdits(after, "conf.d/*.toml"); err != nil || string(back) != before+"\n" {
		t.Errorf("undone: %v\n%q", err, back)
	}
}

// What cannot be changed without changing more is refused.
func TestEditsThatAreRefused(t *testing.T) {
	block := []table{{[]string{"plugins", criPluginV2, "containerd", "runtimes", handler}, map[string]any{"runtime_type": runtimeType}}}
	for name, text := range map[string]string{
		"an inline table": "version = 2\nplugins = {}\n",
		"a table of ours": "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.stockade]\nruntime_type='x'\n",
	} {
		if got, err := appendBlock(mustConf(t, text), block); err == nil || !strings.Contains(err.Error(), "by hand") {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	if got, err := editImports(mustConf(t, "version = 3\nimports = 'x'\n"), "y"); err == nil {
		t.Errorf("imports that is no array: %s", got)
	}
	if _, err := parseConf("/etc/containerd/config.toml", []byte("version = 3\n\n[plugins\nx = 1\n")); err == nil ||
		!strings.HasPrefix(err.Error(), "/etc/containerd/config.toml:3:") {
		t.Errorf("where it is broken: %v", err)
	}
}

func TestDefaultRuntime(t *testing.T) {
	main := mustConf(t, `version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'crun'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun]
snapshotter = 'x'
pod_annotations = ['not ours']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]
SystemdCgroup = false
BinaryName = '/bin/crun'
`)
	later := mustConf(t, "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]\nSystemdCgroup = true\n")
	got := defaultRuntime([]*conf{main, later})
	options := got["options"].(map[string]any)
	if len(got) != 2 || got["snapshotter"] != "x" || options["SystemdCgroup"] != true || options["BinaryName"] != "/bin/crun" {
		t.Errorf("%v", got)
	}
}

func TestLeadsTo(t *testing.T) {
	const file, dropIn = "/etc/containerd/config.toml", "/etc/containerd/conf.d/stockade.toml"
	for pattern, want := range map[string]bool{
		"/etc/containerd/conf.d/*.toml": true, "conf.d/*.toml": true, "./conf.d/stockade.toml": true, "/etc/containerd/*.toml": false, "conf.d/*.conf": false, "[": false,
	} {
		if leadsTo(file, pattern, dropIn) != want {
			t.Errorf("%s: %v", pattern, !want)
		}
	}
}
