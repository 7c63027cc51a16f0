package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// addPackages lays s.Packages and what they depend on over root.
func (b *Builder) addPackages(ctx context.Context, root *tree, s Spec) error {
	debs, err := b.fetch(ctx, s.Packages)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, deb := range debs {
		pkg, _, _ := strings.Cut(filepath.Base(deb), "_")
		if slices.Contains(s.Omit, pkg) {
			continue
		}
		fmt.Fprintln(&list, filepath.Base(deb))
		if err := addDeb(ctx, root, deb); err != nil {
			return fmt.Errorf("%s: %w", deb, err)
		}
	}
	return os.WriteFile(b.cache("images", s.Name+".packages"), []byte(list.String()), 0o644)
}

// fetch returns the files of the packages and their dependencies, downloading what .cache/debs lacks. apt resolves them
// for a system on which nothing is installed; the lists of packages are this machine's, fetched when they are absent or
// turn out to be stale.
func (b *Builder) fetch(ctx context.Context, packages []string) ([]string, error) {
	for _, dir := range []string{b.cache("debs", "partial"), b.cache("debs", "none", "partial")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	debs, err := b.tryFetch(ctx, packages)
	if err == nil {
		return debs, nil
	}
	fmt.Fprintln(b.Log, "updating the lists of packages")
	if _, uerr := run(ctx, "apt-get", "-q", "update"); uerr != nil {
		return nil, errors.Join(err, uerr)
	}
	return b.tryFetch(ctx, packages)
}

func (b *Builder) tryFetch(ctx context.Context, packages []string) ([]string, error) {
	// apt prints only what is to be downloaded: to get the whole list it is asked with an archive folder that is empty.
	out, err := run(ctx, "apt-get", b.aptArgs("none", "--print-uris", packages)...)
	if err != nil {
		return nil, err
	}
	if _, err := run(ctx, "apt-get", b.aptArgs("", "--download-only", packages)...); err != nil {
		return nil, err
	}
	var debs []string
	for line := range strings.Lines(out) {
		// 'URI' FILE SIZE HASH
		if f := strings.Fields(line); len(f) >= 3 && strings.HasSuffix(f[1], ".deb") {
			debs = append(debs, b.cache("debs", f[1]))
		}
	}
	if len(debs) == 0 {
		return nil, fmt.Errorf("apt-get names no package for %s", strings.Join(packages, " "))
	}
	return debs, nil
}

func (b *Builder) aptArgs(archives, what string, packages []string) []string {
	args := []string{
		"-qq", "-y", "--no-install-recommends",
		"-o", "Dir::State::status=/dev/null",
		"-o", "Dir::Cache::archives=" + b.cache("debs", archives) + "/",
		"-o", "Debug::NoLocking=1", // the machine's own dpkg is not touched, and the builder has a lock of its own
		"-o", "APT::Sandbox::User=root",
		"-o", "Acquire::Languages=none",
		what, "install",
	}
	return append(args, packages...)
}

func addDeb(ctx context.Context, root *tree, deb string) error {
	data, err := run(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	if err != nil {
		return err
	}
	return root.addTar(strings.NewReader(data))
}

// run returns what the program writes to its standard output; its standard error becomes part of the error.
func run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}
