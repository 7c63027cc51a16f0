package image_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
)

func builder(t *testing.T) *image.Builder {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	return &image.Builder{Root: root, Log: t.Output()}
}

// files lists what the root file system of the image holds, links as "path -> target".
func files(t *testing.T, img image.Image) map[string]*tar.Header {
	i, err := tarball.ImageFromPath(img.Tar, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := mutate.Extract(i)
	defer r.Close()
	headers := map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		headers["/"+strings.TrimSuffix(h.Name, "/")] = h
	}
}

func TestCatalogue(t *testing.T) {
	programs := map[string][]string{
		"pause": {"/pause"},
		"probe": {"/bin/probe", "/bin/hello", "/bin/dynamic", "/bin/script", "/bin/preload.so"},
		"tools": {"/usr/bin/dash", "/usr/bin/ls", "/usr/bin/perl", "/usr/bin/python3.11", "/usr/local/bin/probe"},
		"redis": {"/usr/bin/redis-server", "/usr/bin/redis-cli", "/usr/bin/dash", "/usr/bin/cat"},
		"nginx": {"/usr/sbin/nginx", "/usr/bin/dash"},
	}
	for _, name := range image.Names() {
		t.Run(name, func(t *testing.T) {
			img, err := builder(t).Named(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			have := files(t, img)
			for _, p := range programs[name] {
				if h := have[p]; h == nil || h.Typeflag != tar.TypeReg || h.Mode&0o111 == 0 || h.Size == 0 {
					t.Errorf("%s is not a program of the image: %+v", p, h)
				}
			}
			for p, h := range have {
				if dir := have[path.Dir(p)]; path.Dir(p) != "/" && (dir == nil || dir.Typeflag != tar.TypeDir) {
					t.Errorf("%s lies in what is not a directory (%v)", p, dir)
				}
				if h.Typeflag == tar.TypeLink && have["/"+h.Linkname] == nil {
					t.Errorf("%s is a hard link to nothing: %s", p, h.Linkname)
				}
			}
		})
	}
}

// The same content must give the same image, else nothing that names a digest holds.
func TestDeterministic(t *testing.T) {
	spec := image.Spec{
		Name:     "same",
		Programs: []image.Program{{Path: "/bin/hello", Sources: []string{"hello.c"}}},
		Files:    []image.File{{Path: "/etc/b", Text: "b"}, {Path: "/etc/a", Link: "b"}},
	}
	var digests [2]string
	for i := range digests {
		b := builder(t)
		b.Root = copySources(t, b.Root)
		img, err := b.Build(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		built, err := tarball.ImageFromPath(img.Tar, nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := built.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests[i] = d.String()
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds differ: %s", digests)
	}
}

// copySources makes a checkout that has the sources and an empty cache.
func copySources(t *testing.T, root string) string {
	dir := t.TempDir()
	if err := os.CopyFS(dir+"/integration/testdata/src", os.DirFS(root+"/integration/testdata/src")); err != nil {
		t.Fatal(err)
	}
	return dir
}
