package image

import (
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// addProgram compiles p and puts it into root, with its libraries when it has any.
func (b *Builder) addProgram(ctx context.Context, root *tree, p Program) error {
	dir, err := os.MkdirTemp(b.cache("images"), "cc-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	args := []string{"-O1", "-s", "-Wall", "-Werror", "-o", out}
	if !p.Dynamic {
		// Not position independent: 32-bit system calls need pointers below 4 GiB.
		args = append(args, "-static", "-no-pie", "-fno-pie")
	}
	args = append(args, p.Flags...)
	for _, s := range p.Sources {
		if strings.HasSuffix(s, ".c") {
			args = append(args, b.source(s))
		}
	}
	if _, err := run(ctx, "gcc", args...); err != nil {
		return err
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	root.addBinary(p.Path, data)
	if !p.Dynamic {
		return nil
	}
	return addLibraries(root, out)
}

// addLibraries puts the loader and the libraries of an ELF file into root, from where this machine has them.
func addLibraries(root *tree, program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	interp, err := interpreter(f)
	if err != nil || interp == "" {
		return err
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	paths := []string{interp}
	for _, lib := range needed {
		found, err := filepath.Glob("/lib/*-linux-gnu/" + lib)
		if err != nil || len(found) == 0 {
			return fmt.Errorf("library %s: not in /lib/*-linux-gnu (%w)", lib, err)
		}
		paths = append(paths, found[0])
	}
	for _, p := range paths {
		if root.entries[root.clean(p)] != nil {
			continue // a package brought it
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		root.addBinary(p, data)
	}
	return nil
}

func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			data, err := io.ReadAll(p.Open())
			return strings.TrimRight(string(data), "\x00"), err
		}
	}
	return "", nil
}
