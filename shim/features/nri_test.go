package features

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPluginRequired(t *testing.T) {
	const nri = "[plugins.'io.containerd.nri.v1.nri']\n"
	const validator = "[plugins.'io.containerd.nri.v1.nri'.default_validator]\n"
	for _, tc := range []struct {
		name, main, dropIn string
		want, wrong        bool
	}{
		{"nothing", "version = 3\n", "", false, false},
		{"itself", validator + "enable = true\nrequired_plugins = ['other', 'stockade']\n", "", true, false},
		{"another", validator + "enable = true\nrequired_plugins = ['other']\n", "", false, false},
		{"not enabled", validator + "required_plugins = ['stockade']\n", "", false, false},
		{"no NRI at all", nri + "disable = true\n" + validator + "enable = true\nrequired_plugins = ['stockade']\n", "", false, false},
		{"imported", "imports = ['conf.d/*.toml']\n", validator + "enable = true\nrequired_plugins = ['stockade']\n", true, false},
		{"not imported", "", validator + "enable = true\nrequired_plugins = ['stockade']\n", false, false},
		{"broken", "= [\n", "", false, true},
		{"broken import", "imports = ['conf.d/*.toml']\n", "= [\n", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"config.toml": tc.main, "conf.d/x.toml": tc.dropIn} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := PluginRequired(filepath.Join(dir, "config.toml"), "stockade")
			if got != tc.want || (err != nil) != tc.wrong {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	if got, err := PluginRequired(filepath.Join(t.TempDir(), "none"), "stockade"); got || err != nil {
		t.Errorf("no file: %v, %v", got, err)
	}
}
