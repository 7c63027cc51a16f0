package vm

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The kernel insists on parents before children, on alignment, and on the last entry; it ignores what it cannot read.
func TestArchive(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("12345"), 0o700); err != nil {
		t.Fatal(err)
	}
	var tape bytes.Buffer
	w := tar.NewWriter(&tape)
	for _, h := range []tar.Header{
		{Name: "t/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "t/l", Typeflag: tar.TypeSymlink, Linkname: "f"},
		{Name: "t/hard", Typeflag: tar.TypeLink, Linkname: "t/f"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := newArchive(&out)
	a.tree("a/b", dir)
	a.tree("nothing", filepath.Join(dir, "nothing"))
	a.text("/a/b/c/d", 0o600, "text")
	a.link("a/l", "b/f")
	a.tar(&tape)
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for rest := out.Bytes(); len(rest) > 0; {
		name, size := entry(t, rest)
		names = append(names, name)
		rest = rest[size:]
	}
	want := []string{"a", "a/b", "a/b/f", "a/b/c", "a/b/c/d", "a/l", "t", "t/l", "t/hard", "TRAILER!!!"}
	if len(names) != len(want) {
		t.Fatalf("%q, want %q", names, want)
	}
	for i := range want {
		if names[i] != want[i] {
			t.Errorf("entry %d is %q, want %q", i, names[i], want[i])
		}
	}
	a = newArchive(&out)
	a.file("x", filepath.Join(dir, "nothing"))
	if a.close() == nil {
		t.Error("no error for a file that is not there")
	}
}

// entry returns the name of the first entry and how many bytes it takes.
func entry(t *testing.T, b []byte) (string, int) {
	t.Helper()
	field := func(i int) int {
		var n int
		for _, c := range b[6+8*i : 14+8*i] {
			n = n<<4 | bytes.IndexByte([]byte("0123456789abcdef"), c)
		}
		return n
	}
	if string(b[:6]) != "070701" {
		t.Fatalf("no header: %.16q", b)
	}
	up := func(n int) int { return (n + 3) &^ 3 }
	data := up(110 + field(11))
	return string(b[110 : 110+field(11)-1]), data + up(field(6))
}

func TestStatic(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	if err := static(bash); err == nil {
		t.Errorf("%s passes for static", bash)
	}
}
