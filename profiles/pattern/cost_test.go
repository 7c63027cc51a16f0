package pattern

import (
	"fmt"
	"strings"
	"testing"
)

// TestNoBacktracking runs patterns on which a backtracking matcher does not come back: without a result in the time a
// test run has, it fails.
func TestNoBacktracking(t *testing.T) {
	attacks := []struct{ pattern, path string }{
		{"/" + strings.Repeat("**/", 1300) + "b", strings.Repeat("/a", 2047)},
		{"/" + strings.Repeat("**a", 1300) + "b", "/" + strings.Repeat("a", 4094)},
		{"/" + strings.Repeat("*a", 2000) + "b", "/" + strings.Repeat("a", 4094)},
		{"/" + strings.Repeat("**a*a", 800) + "b", strings.Repeat("/aaaaaaa", 511)},
		{"/" + strings.Repeat("**?", 254) + "/x", "/" + strings.Repeat("a", 4094)},
	}
	for _, a := range attacks {
		p, err := Compile(a.pattern)
		if err != nil {
			// A component cannot have more than 255 fixed characters: shorten what is there.
			for n := len(a.pattern); err != nil && n > 2; n /= 2 {
				p, err = Compile(a.pattern[:n/2] + "b")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		s := SetOf([]*Pattern{p})
		for range 100 {
			if p.Match(a.path) || s.MatchAny(a.path) {
				t.Fatalf("%.20s... matches", a.pattern)
			}
		}
	}
}

// TestMachineOfManyWords checks that states beyond the 64th are carried over.
func TestMachineOfManyWords(t *testing.T) {
	for _, n := range []int{30, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 250} {
		p, err := Compile("/*" + strings.Repeat("a", n) + "*/?" + strings.Repeat("/**/b", 40))
		if err != nil {
			t.Fatal(err)
		}
		tail := "/x" + strings.Repeat("/y/y/b", 40)
		if !p.Match("/x"+strings.Repeat("a", n)+"y"+tail) || p.Match("/x"+strings.Repeat("a", n-1)+"y"+tail) || p.Match("/"+strings.Repeat("a", n)+tail+"/c") {
			t.Errorf("wrong with %d characters", n)
		}
	}
}

// many is like a large learned profile: three quarters are exact, the others have literal beginnings or endings, and
// some begin with a wildcard.
func many(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		switch i % 20 {
		case 0:
			texts[i] = fmt.Sprintf("/usr/lib/python3/dist-packages/package%d/**", i)
		case 1:
			texts[i] = fmt.Sprintf("/usr/lib/x86_64-linux-gnu/lib%d.so.*", i)
		case 2:
			texts[i] = fmt.Sprintf("/**/cache-%d.db", i)
		case 3:
			texts[i] = fmt.Sprintf("/var/lib/app/*/shard%d/[0-9]*.log", i)
		case 4:
			texts[i] = fmt.Sprintf("/srv/{a,b}/site%d/*", i)
		default:
			texts[i] = fmt.Sprintf("/usr/share/app/module%d/file%d.dat", i%97, i)
		}
	}
	return texts
}

var manyPaths = []string{
	"/usr/share/app/module41/file9159.dat",
	"/usr/lib/python3/dist-packages/package9000/a/b/c.py",
	"/usr/lib/x86_64-linux-gnu/lib9001.so.6",
	"/home/user/.local/share/cache-9002.db",
	"/var/lib/app/7/shard9003/0001.log",
	"/srv/b/site9004/index.html",
	"/usr/lib/x86_64-linux-gnu/libc.so.6",
	"/etc/ld.so.cache",
}

func TestLookupAllocatesNothing(t *testing.T) {
	s, err := NewSet(many(10000))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range manyPaths {
		if got := s.MatchAny(path); got != (i < 6) {
			t.Errorf("%s: %v", path, got)
		}
		if n := testing.AllocsPerRun(100, func() { s.MatchAny(path) }); n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
	}
}

func BenchmarkLookup10000(b *testing.B) {
	s, err := NewSet(many(10000))
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range manyPaths {
		b.Run(path[strings.LastIndexByte(path, '/')+1:], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Lookup(path, func(int) bool { return true })
			}
		})
	}
}

func BenchmarkNewSet10000(b *testing.B) {
	texts := many(10000)
	for b.Loop() {
		if _, err := NewSet(texts); err != nil {
			b.Fatal(err)
		}
	}
}
