// Command nodeimage builds the image that contrib/kubernetes runs on each node, from bin/, as a tarball of an OCI image
// layout: `ctr images import`, `docker load` and skopeo read it. The same programs give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/stockade-dev/stockade/integration/checkout"
)

// programs are what the image holds: all are static.
var programs = []string{"containerd-shim-stockade-v1", "stockade", "stockade-guard", "stockade-nri"}

func main() {
	ref := flag.String("name", "docker.io/stockade/node:dev", "the image's name")
	out := flag.String("o", "", "file to write (default bin/stockade-image.tar)")
	flag.Parse()
	if err := run(*ref, *out); err != nil {
		fmt.Fprintln(os.Stderr, "nodeimage:", err)
		os.Exit(1)
	}
}

func run(ref, out string) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	bin, err := checkout.Bin(root, programs...)
	if err != nil {
		return err
	}
	if out == "" {
		out = filepath.Join(bin, "stockade-image.tar")
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	img, err := build(bin)
	if err != nil {
		return err
	}
	if err := write(img, tag, out); err != nil {
		return err
	}
	digest, err := img.Digest()
	fmt.Printf("%s: %s@%s\n", out, full(tag), digest)
	return err
}

// full is the name as containerd writes it: Docker's registry is docker.io to it.
func full(tag name.Tag) string {
	return strings.TrimPrefix(tag.Name(), "index.")
}

// epoch dates everything: when an image was built must not change its digest.
var epoch = time.Unix(1577836800, 0).UTC()

func build(bin string) (v1.Image, error) {
	files, err := programLayer(bin)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	if err != nil {
		return nil, err
	}
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", runtime.GOARCH, v1.Time{Time: epoch}
	file.Config = v1.Config{
		Entrypoint: []string{"/usr/local/bin/stockade"}, User: "0:0", Env: []string{"PATH=/usr/local/bin"},
		Labels: map[string]string{"org.opencontainers.image.title": "stockade", "org.opencontainers.image.licenses": "Apache-2.0"},
	}
	return mutate.ConfigFile(img, file)
}

// programLayer is a tar of the programs, and of the folders that volumes are mounted on: the root is read-only.
func programLayer(bin string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, d := range []string{"etc", "etc/stockade", "host", "run", "run/stockade", "tmp", "usr", "usr/local", "usr/local/bin", "var", "var/lib", "var/lib/stockade", "var/run", "var/run/nri"} {
		if err := w.WriteHeader(&tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch}); err != nil {
			return nil, err
		}
	}
	for _, p := range programs {
		data, err := os.ReadFile(filepath.Join(bin, p))
		if err != nil {
			return nil, err
		}
		h := &tar.Header{Name: path.Join("usr/local/bin", p), Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data)), ModTime: epoch}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

// write makes a layout in a temporary folder and packs it.
func write(img v1.Image, tag name.Tag, out string) error {
	dir, err := os.MkdirTemp(filepath.Dir(out), ".image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// containerd takes the name from the first, others take the tag from the second.
	names := map[string]string{"io.containerd.image.name": full(tag), "org.opencontainers.image.ref.name": tag.TagStr()}
	if err := p.AppendImage(img, layout.WithAnnotations(names), layout.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})); err != nil {
		return err
	}
	f, err := os.Create(out + ".new")
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: rel, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: epoch}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err = errors.Join(err, w.Close(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(out+".new"))
	}
	return os.Rename(out+".new", out)
}
