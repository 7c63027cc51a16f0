package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/features"
)

const fileHelp = `
FILE is a file of profiles, or the name of a profile in the node's store. What it
extends is looked for in the same file and in the files beside it.`

// load returns the resolved profile that ref (and --name, if the file holds
// several) names.
func (a *app) load(ref, name string) (*profiles.Profile, error) {
	info, err := os.Stat(ref)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(ref, "/."):
		return a.fromStore(ref)
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder: name one of its files", ref)
	}
	own, err := parseFile(ref)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range own {
		names = append(names, p.Name)
	}
	if name == "" && len(own) > 1 {
		return nil, fmt.Errorf("%s holds %d profiles: choose one with --name (%s)", ref, len(own), strings.Join(names, ", "))
	}
	if name == "" {
		name = own[0].Name
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("%s holds no profile named %q (%s)", ref, name, strings.Join(names, ", "))
	}
	return profiles.Resolve(name, lookup(own, []string{ref}))
}

func (a *app) fromStore(ref string) (*profiles.Profile, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	s, err := store.OpenRoots(roots(cfg))
	if err != nil {
		return nil, fmt.Errorf("there is no file %s, and for a profile of that name: %w", ref, err)
	}
	return s.Get(ref)
}

// roots are the folders that the shim reads profiles from.
func roots(cfg config.Config) store.Roots {
	return store.Roots{Profiles: cfg.Profiles, Cluster: cfg.Cluster, LastGood: cfg.LastGood}
}

func parseFile(path string) ([]*profiles.Profile, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return profiles.Parse(path, data)
}

// lookup finds profiles by name: among those given, then in the files beside
// the given ones. What is wrong with the latter is their own affair.
func lookup(given []*profiles.Profile, files []string) func(string) (*profiles.Profile, bool) {
	known := map[string]*profiles.Profile{}
	for _, p := range given {
		known[p.Name] = p
	}
	looked := false
	return func(name string) (*profiles.Profile, bool) {
		if known[name] == nil && !looked {
			looked = true
			for _, file := range files {
				beside(file, known)
			}
		}
		p, ok := known[name]
		return p, ok
	}
}

func beside(file string, known map[string]*profiles.Profile) {
	others, err := yamlFiles(filepath.Dir(file))
	if err != nil {
		return
	}
	for _, other := range others {
		parsed, err := parseFile(other)
		if err != nil {
			continue
		}
		for _, p := range parsed {
			if known[p.Name] == nil {
				known[p.Name] = p
			}
		}
	}
}

// yamlFiles lists a folder's profile files as the store does.
func yamlFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

const targetHelp = "compile for `node|full|apparmor`: this node (needs root), one with everything that this build uses but AppArmor, or one with AppArmor as well"

// target returns what to compile for, and how to call it. Without a choice it
// is this node if it can be asked.
func target(choice string) (profiles.Target, string, error) {
	if choice == "" {
		choice = "full"
		if os.Geteuid() == 0 {
			choice = "node"
		}
	}
	switch choice {
	case "node":
		t := features.Probe().Target
		return t, fmt.Sprintf("this node (Linux %s, %s)", t.Kernel, t.Arch), nil
	case "full":
		return fullTarget(), "a node with everything that this build uses", nil
	case "apparmor":
		t := fullTarget()
		t.AppArmor = profiles.Yes
		return t, "a node with AppArmor and everything else that this build uses", nil
	}
	return profiles.Target{}, "", fmt.Errorf("--target is %q; it is node, full or apparmor", choice)
}

func fullTarget() profiles.Target {
	return profiles.Target{
		Arch:     runtime.GOARCH,
		Fanotify: profiles.Yes, FanotifyStack: profiles.Yes, SeccompNotify: profiles.Yes, MountSeal: profiles.Yes,
		AppArmor: profiles.No, CgroupBPF: profiles.No, CgroupV2: profiles.Yes,
	}
}
