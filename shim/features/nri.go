package features

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// PluginRequired reports whether containerd makes no container of a pod while
// the NRI plugin of this name is not connected: default_validator's
// required_plugins, in its configuration file or in what that imports (imports
// of imports are not read). A file that does not exist requires nothing.
func PluginRequired(containerd, plugin string) (bool, error) {
	required, imports, err := requiredPlugins(containerd)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || slices.Contains(required, plugin) {
		return err == nil, err
	}
	for _, pattern := range imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(containerd), pattern)
		}
		files, err := filepath.Glob(pattern)
		if err != nil {
			return false, fmt.Errorf("%s: imports %q: %w", containerd, pattern, err)
		}
		for _, file := range files {
			required, _, err := requiredPlugins(file)
			if err != nil || slices.Contains(required, plugin) {
				return err == nil, err
			}
		}
	}
	return false, nil
}

func requiredPlugins(path string) (required, imports []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	var conf struct {
		Imports []string
		Plugins map[string]struct {
			Disable   bool
			Validator struct {
				Enable   bool
				Required []string `toml:"required_plugins"`
			} `toml:"default_validator"`
		}
	}
	if err := toml.Unmarshal(data, &conf); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if nri := conf.Plugins["io.containerd.nri.v1.nri"]; nri.Validator.Enable && !nri.Disable {
		required = nri.Validator.Required
	}
	return required, conf.Imports, nil
}
