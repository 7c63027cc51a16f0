// Package image builds the images that the tests, the demo and the benchmarks run, without a registry: from Debian's
// packages and from programs compiled here. An image is a tar that containerd imports; it is kept under .cache/images
// by a key of everything that it is made of, so that it is built once and works offline from then on. Packages have the
// version that apt gives when the image is built.
//
// Nothing is unpacked or installed on this machine: layers are put together in memory, in a fixed order and with fixed
// times, so that the same content has the same digest.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// recipe is part of every key: raise it when the same Spec is to give another image.
const recipe = 1

// Spec is what an image is made of.
type Spec struct {
	Name     string   // the reference is docker.io/stockade/NAME:test
	Packages []string // of Debian, with all that they depend on
	Omit     []string // packages that others depend on and this image does not need
	Programs []Program
	Files    []File // after the packages: they replace what these bring
	Config   v1.Config
}

// File is one entry of the image's file system.
type File struct {
	Path string
	Mode int64 // default: 0644, and 0755 for a directory
	UID  int
	Text string
	Dir  bool
	Link string // a symbolic link to this
	Hard string // a hard link to this path of the image
	Move string // the entry that a package put there, moved here
}

// Program is one compiled from C.
type Program struct {
	Path    string   // in the image
	Sources []string // in integration/testdata/src
	Dynamic bool     // linked with the C library, which comes along with its loader; default: static
	Flags   []string
}

// Image is a built one.
type Image struct {
	Ref string // as containerd knows it after the import
	Tar string // its file
}

// Builder builds images for the checkout at Root.
type Builder struct {
	Root string
	Log  io.Writer // progress, of which there is some only when something is built
}

// Ref is the reference of the image called name.
func Ref(name string) string { return "docker.io/stockade/" + name + ":test" }

// Build returns the image, from the cache when it is there.
func (b *Builder) Build(ctx context.Context, s Spec) (Image, error) {
	key, err := b.key(s)
	if err != nil {
		return Image{}, err
	}
	if err := os.MkdirAll(b.cache("images"), 0o755); err != nil {
		return Image{}, err
	}
	unlock, err := lock(b.cache("images", ".lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	img := Image{Ref: Ref(s.Name), Tar: b.cache("images", s.Name+"-"+key+".tar")}
	if _, err := os.Stat(img.Tar); err == nil {
		return img, nil
	}
	fmt.Fprintf(b.Log, "building image %s\n", s.Name)
	if err := b.build(ctx, s, img); err != nil {
		return Image{}, fmt.Errorf("image %s: %w", s.Name, err)
	}
	return img, b.removeOlder(s.Name, img.Tar)
}

func (b *Builder) build(ctx context.Context, s Spec, img Image) error {
	root := newTree()
	if len(s.Packages) > 0 {
		root.mergeUsr()
		if err := b.addPackages(ctx, root, s); err != nil {
			return err
		}
	}
	for _, p := range s.Programs {
		if err := b.addProgram(ctx, root, p); err != nil {
			return err
		}
	}
	for _, f := range s.Files {
		if err := root.add(f); err != nil {
			return err
		}
	}
	layer, err := root.tar()
	if err != nil {
		return err
	}
	return save(img, layer, s.Config)
}

func save(i Image, layer []byte, config v1.Config) error {
	// Not compressed: it is imported on this machine only, more often than it is stored.
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer, types.DockerUncompressedLayer))
	if err != nil {
		return err
	}
	if config.Env == nil {
		config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return err
	}
	ref, err := name.NewTag(i.Ref)
	if err != nil {
		return err
	}
	tmp := i.Tar + ".new"
	if err := tarball.WriteToFile(tmp, ref, img); err != nil {
		return err
	}
	return os.Rename(tmp, i.Tar)
}

// key is a digest of the Spec and of the sources it names.
func (b *Builder) key(s Spec) (string, error) {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(struct {
		Recipe int
		Arch   string
		Spec   Spec
	}{recipe, runtime.GOARCH, s}); err != nil {
		return "", err
	}
	for _, p := range s.Programs {
		for _, src := range p.Sources {
			data, err := os.ReadFile(b.source(src))
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "%s %d\n%s", src, len(data), data)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16], nil
}

func (b *Builder) removeOlder(name, keep string) error {
	old, err := filepath.Glob(b.cache("images", name+"-????????????????.tar"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if f != keep {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Builder) cache(elem ...string) string {
	return filepath.Join(append([]string{b.Root, ".cache"}, elem...)...)
}

func (b *Builder) source(name string) string {
	return filepath.Join(b.Root, "integration/testdata/src", name)
}

// lock serialises builders of other processes; the returned function ends it.
func lock(path string) (func() error, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f.Close, nil
}
