// Package bundle puts a compiled plan into an OCI bundle: it edits config.json, and nothing else, before the runtime
// reads it.
//
// The edit is atomic (a temporary file renamed over config.json), so the runtime sees either the specification that
// containerd wrote or the whole of ours. Config.json is the OCI runtime specification's config.md.
package bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/record"
)

// Config is the name of the specification inside a bundle.
const Config = "config.json"

// Read returns the OCI specification of the bundle in dir.
func Read(dir string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(dir, Config))
	if err != nil {
		return nil, fmt.Errorf("read OCI specification: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("parse %s: %w", filepath.Join(dir, Config), err)
	}
	if spec.Process == nil || spec.Root == nil || spec.Linux == nil {
		return nil, fmt.Errorf("%s: no process, root or linux section: not a Linux container", filepath.Join(dir, Config))
	}
	return &spec, nil
}

// Write replaces the specification of the bundle in dir, atomically and durably.
func Write(dir string, spec *specs.Spec) error {
	if err := record.Write(filepath.Join(dir, Config), spec); err != nil {
		return fmt.Errorf("write OCI specification: %w", err)
	}
	return nil
}

// Apply changes spec into what plan declares. rootfs is the container's root as mounted on the host, listener the
// socket on which seccomp notifications are taken. It touches the rootfs in one way only: a declared writable
// directory that the image lacks is made, owned by the container's user.
func Apply(spec *specs.Spec, plan *profiles.Plan, rootfs, listener, metadata string) error {
	ApplyProcess(spec.Process, plan)
	if plan.Seccomp != nil {
		sc := *plan.Seccomp
		sc.ListenerPath, sc.ListenerMetadata = listener, metadata
		spec.Linux.Seccomp = &sc
	}
	if !plan.Seal && (plan.AppArmor == nil || plan.Mode != profiles.ModeEnforce) {
		return nil // the plan's guarantees say so
	}
	return seal(spec, plan, rootfs)
}

// ApplyProcess changes what one process (the container's first, or that of an exec) starts with: its capabilities
// are cut down to the declared ones and no_new_privs is set.
func ApplyProcess(p *specs.Process, plan *profiles.Plan) {
	if plan.Mode != profiles.ModeEnforce {
		return
	}
	if plan.NoNewPrivileges {
		p.NoNewPrivileges = true
	}
	if c := p.Capabilities; c != nil {
		p.Capabilities = &specs.LinuxCapabilities{
			Bounding:    declared(c.Bounding, plan.Capabilities),
			Effective:   declared(c.Effective, plan.Capabilities),
			Inheritable: declared(c.Inheritable, plan.Capabilities),
			Permitted:   declared(c.Permitted, plan.Capabilities),
			Ambient:     declared(c.Ambient, plan.Capabilities),
		}
	}
}

func declared(have, allowed []string) []string {
	return slices.DeleteFunc(slices.Clone(have), func(c string) bool { return !slices.Contains(allowed, c) })
}
