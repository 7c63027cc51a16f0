package contrib

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/pelletier/go-toml/v2"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/config"
)

const runtimeType = "io.containerd.stockade.v1"

// handlers are the runtimes of a containerd configuration, by the name of the handler.
func handlers(t *testing.T, data []byte) map[string]string {
	t.Helper()
	var conf struct {
		Plugins map[string]struct {
			Containerd struct {
				Runtimes map[string]struct {
					Type        string   `toml:"runtime_type"`
					Annotations []string `toml:"pod_annotations"`
				}
			}
		}
	}
	if err := toml.Unmarshal(data, &conf); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, p := range conf.Plugins {
		for name, r := range p.Containerd.Runtimes {
			found[name] = r.Type + fmt.Sprint(r.Annotations)
		}
	}
	return found
}

func TestContainerdDropIns(t *testing.T) {
	const want = runtimeType + "[stockade.dev/*]"
	for _, name := range []string{"stockade.toml", "stockade-config-v2.toml"} {
		if got := handlers(t, read(t, "containerd/"+name)); len(got) != 1 || got["stockade"] != want {
			t.Errorf("%s: %v", name, got)
		}
		containerd, err := filepath.Abs("../bin/containerd")
		if _, statErr := os.Stat(containerd); err != nil || statErr != nil {
			t.Skip("bin/containerd is not built: make build")
		}
		dropIn, err := filepath.Abs("containerd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		main := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(main, []byte("version = 3\nimports = ['"+dropIn+"']\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		dump, err := exec.CommandContext(t.Context(), containerd, "--config", main, "config", "dump").Output()
		if err != nil {
			t.Fatalf("%s: containerd config dump: %v", name, err)
		}
		if got := handlers(t, dump); got["stockade"] != want || got["runc"] == "" {
			t.Errorf("%s, as containerd understands it: %v", name, got)
		}
	}
}

func TestRuntimeClass(t *testing.T) {
	var class struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name string }
		Handler    string
	}
	if err := yaml.UnmarshalWithOptions(read(t, "kubernetes/runtimeclass.yaml"), &class, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if class.APIVersion != "node.k8s.io/v1" || class.Kind != "RuntimeClass" || class.Metadata.Name == "" || class.Handler != "stockade" {
		t.Errorf("%+v", class)
	}
}

// The sample shows every key with its default.
func TestConfig(t *testing.T) {
	data := read(t, "config.yaml")
	got, err := config.Parse("config.yaml", data)
	if err != nil || got != config.Default() {
		t.Errorf("%+v, %v; want the defaults", got, err)
	}
	for _, key := range []string{"profiles", "incidents", "state", "noProfile", "incidentLimit", "guard", "raiseLimits", "selectionKey", "requirePlugin"} {
		if !strings.Contains(string(data), "\n"+key+": ") {
			t.Errorf("config.yaml does not show %s", key)
		}
	}
}

func TestSysctl(t *testing.T) {
	for line := range strings.Lines(string(read(t, "sysctl.d/90-stockade.conf"))) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		if n, err := strconv.Atoi(strings.TrimSpace(value)); err != nil || n <= 128 {
			t.Errorf("%s: %d, %v; want more than the kernel's 128", line, n, err)
		}
		path := "/proc/sys/" + strings.ReplaceAll(strings.TrimSpace(key), ".", "/")
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

var full = profiles.Target{
	Arch: "amd64", Fanotify: profiles.Yes, FanotifyStack: profiles.Yes, SeccompNotify: profiles.Yes, MountSeal: profiles.Yes,
}

func TestProfiles(t *testing.T) {
	files, err := filepath.Glob("profiles/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		compile(t, f, read(t, f))
	}
}

func compile(t *testing.T, file string, data []byte) {
	t.Helper()
	parsed, err := profiles.Parse(file, data)
	if err != nil {
		t.Error(err)
	}
	for _, p := range parsed {
		if len(p.Extends) > 0 {
			continue
		}
		if _, err := profiles.Compile(p, full); err != nil {
			t.Error(err)
		}
	}
}

var (
	block  = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	link   = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	target = regexp.MustCompile("`make ([a-z0-9-]+)`")
)

// TestReadme: what it shows is right, what it links to is there, what it says to make can be made.
func TestReadme(t *testing.T) {
	text := string(read(t, "../README.md"))
	found := 0
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], "apiVersion: "+profiles.APIVersion) {
			found++
			compile(t, "README.md", []byte(m[1]))
		}
	}
	if found == 0 {
		t.Error("README.md shows no profile")
	}
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Error(err)
		}
	}
	makefile := "\n" + string(read(t, "../Makefile"))
	for _, m := range target.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(makefile, "\n"+m[1]+":") {
			t.Errorf("README.md: the Makefile has no %s", m[1])
		}
	}
	for _, file := range []string{
		"contrib/containerd/stockade.toml", "contrib/containerd/stockade-config-v2.toml",
		"contrib/kubernetes/runtimeclass.yaml", "contrib/config.yaml", "contrib/sysctl.d/90-stockade.conf", "contrib/profiles", "contrib/containerd/stockade-nri.toml",
	} {
		if !strings.Contains(text, file) {
			t.Errorf("README.md does not mention %s", file)
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The drop-in that makes the plugin a required one is what stockade-nri prints, and containerd understands it.
func TestRequiredPlugins(t *testing.T) {
	if string(read(t, "containerd/stockade-nri.toml")) != nri.ContainerdConfig {
		t.Error("containerd/stockade-nri.toml is not what `stockade-nri containerd-config` prints")
	}
	containerd, err := filepath.Abs("../bin/containerd")
	if _, statErr := os.Stat(containerd); err != nil || statErr != nil {
		t.Skip("bin/containerd is not built: make build")
	}
	dropIns, err := filepath.Abs("containerd")
	if err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(t.TempDir(), "config.toml")
	text := fmt.Sprintf("version = 3\nimports = ['%s/stockade.toml', '%[1]s/stockade-nri.toml']\n", dropIns)
	if err := os.WriteFile(main, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dump, err := exec.CommandContext(t.Context(), containerd, "--config", main, "config", "dump").Output()
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Plugins map[string]struct {
			Disable   bool   `toml:"disable"`
			Socket    string `toml:"socket_path"`
			Validator struct {
				Enable   bool     `toml:"enable"`
				Required []string `toml:"required_plugins"`
				Tolerate string   `toml:"tolerate_missing_plugins_annotation"`
			} `toml:"default_validator"`
		}
	}
	if err := toml.Unmarshal(dump, &conf); err != nil {
		t.Fatal(err)
	}
	got := conf.Plugins["io.containerd.nri.v1.nri"]
	if v := got.Validator; got.Disable || !v.Enable || fmt.Sprint(v.Required) != "["+nri.Name+"]" || v.Tolerate != "" || got.Socket != nri.DefaultConfig().Socket {
		t.Errorf("%+v", got)
	}
	if handlers(t, dump)["stockade"] == "" {
		t.Error("the runtime handler is gone")
	}
}

// README.md shows the plugin's configuration with its defaults.
func TestPluginConfig(t *testing.T) {
	for _, m := range block.FindAllStringSubmatch(string(read(t, "../README.md")), -1) {
		if !strings.HasPrefix(m[1], "# /etc/stockade/nri.yaml") {
			continue
		}
		got, err := nri.ParseConfig("README.md", []byte(m[1]))
		if want := nri.DefaultConfig(); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		return
	}
	t.Error("README.md does not show nri.yaml")
}
