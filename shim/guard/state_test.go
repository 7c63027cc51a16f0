package guard

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/shim/cgroup"
)

func TestStopped(t *testing.T) {
	for stat, want := range map[string]bool{
		"1 (shim) S 0 1":        false,
		"1 (shim) T 0 1":        true,
		"1 (shim) t 0 1":        true,
		"1 (a) T 1 (b) R 0":     false, // the name may hold anything
		"1 (containerd-) T) D ": false,
		"1 (x)":                 false,
		"":                      false,
	} {
		if got := stopped([]byte(stat)); got != want {
			t.Errorf("stopped(%q) = %v", stat, got)
		}
	}
}

func TestHung(t *testing.T) {
	type seen struct {
		n    uint64
		work bool
	}
	tests := []struct {
		name string
		at   func(i int) seen
		step time.Duration
		want bool
	}{
		{"one batch without end", func(int) seen { return seen{7, true} }, every, true},
		{"events wait, never busy", func(int) seen { return seen{8, true} }, every, true},
		{"idle", func(int) seen { return seen{8, false} }, every, false},
		{"a batch each look", func(i int) seen { return seen{uint64(2*i + 1), true} }, every, false},
		{"always events waiting, with progress", func(i int) seen { return seen{uint64(2 * i), true} }, every, false},
		{"idle now and then", func(i int) seen { return seen{8, i%10 != 0} }, every, false},
		{"the clock jumps", func(i int) seen { return seen{7, i >= 35} }, time.Hour, false},
		{"looks too close", func(int) seen { return seen{7, true} }, every / 10, false},
	}
	for _, tt := range tests {
		var s sightings
		now := time.Unix(0, 0)
		got := false
		for i := range 40 {
			now = now.Add(tt.step)
			see := tt.at(i)
			s.progress(see.n, see.work, now)
			got = got || s.hung(now, hungAfter)
		}
		if got != tt.want {
			t.Errorf("%s: hung %v", tt.name, got)
		}
	}
}

func TestPatience(t *testing.T) {
	for loadavg, want := range map[string]time.Duration{
		"0.20 0.18 0.12 1/80 11206\n": hungAfter, "9 9 9 7/80 1\n": hungAfter, "9 9 9 8/80 1\n": 2 * hungAfter,
		"350 170 113 772/9451 20694\n": hungAtMost, "": hungAfter, "1 2 3 x/y 4": hungAfter,
	} {
		if got := patienceAt(loadavg, 2); got != want {
			t.Errorf("%q: %s, want %s", loadavg, got, want)
		}
	}
}

func TestPage(t *testing.T) {
	p, err := newPage()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.file.Close() }()
	last := p.n.Load()
	if last != 0 {
		t.Fatal("not idle at first")
	}
	for _, step := range []struct {
		f   func()
		odd uint64
	}{{p.busy, 1}, {p.busy, 1}, {p.idle, 0}, {p.busy, 1}, {p.idle, 0}} {
		step.f()
		if n := p.n.Load(); n&1 != step.odd || n == last {
			t.Errorf("%d after %d", n, last)
		}
		last = p.n.Load()
	}
	if err := p.file.Truncate(0); err == nil {
		t.Error("the page can be pulled away")
	}
}

func TestErrorsCrossTheSocket(t *testing.T) {
	for _, tt := range []struct{ err, is error }{
		{cgroup.ErrRefused, cgroup.ErrRefused},
		{&fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, fs.ErrNotExist},
	} {
		a, err := parseAnswer(answerTo(5, tt.err).append(nil))
		if err != nil || a.seq != 5 || !errors.Is(a.err(), tt.is) || a.err().Error() != "guard: "+tt.err.Error() {
			t.Errorf("%v came back as %v %v", tt.err, a.err(), err)
		}
	}
	if a := answerTo(1, nil); a.err() != nil {
		t.Error(a.err())
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(request{op: opWatch, seq: 1, id: "c", body: []byte("b")}.append(nil))
	f.Add([]byte{opForget, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRequest(data)
		if err != nil {
			return
		}
		again, err := parseRequest(r.append(nil))
		if err != nil || again.op != r.op || again.seq != r.seq || again.id != r.id || string(again.body) != string(r.body) {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
	})
}
