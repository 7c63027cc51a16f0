//go:build vm

package vm_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/vm"
)

// TestKernels runs the suites on each kernel, as many at a time as there are processors.
func TestKernels(t *testing.T) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	only, err := vm.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	// QEMU is in the terminal's process group no more than the test is: what ends one ends the other in order.
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(cancel)
	system, err := (&vm.Builder{Root: root, Log: os.Stderr, Only: only}).Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := system.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, k := range vm.Kernels() {
		if only.Kernel(k) {
			t.Run(k.Name, func(t *testing.T) {
				t.Parallel()
				boot(ctx, t, system, k)
			})
		}
	}
}

func boot(ctx context.Context, t *testing.T, system *vm.System, k vm.Kernel) {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Minute)
	defer cancel()
	began := time.Now()
	report, err := system.Run(ctx, k, func(line string) {
		fmt.Printf("%s %3.0fs| %s\n", k.Name, time.Since(began).Seconds(), line)
	})
	if err != nil {
		t.Error(err)
	}
	if report != nil {
		judge(t, k, report)
	}
}

func judge(t *testing.T, k vm.Kernel, r *vm.Report) {
	if r.Doctor == nil {
		t.Error("no answer from stockade doctor in the guest")
		r.Doctor = &vm.Doctor{}
	} else {
		for _, d := range k.Differences(*r.Doctor) {
			t.Error("probes: ", d)
		}
	}
	for _, s := range r.Suites {
		t.Run(s.Dir, func(t *testing.T) {
			t.Logf("Linux %s, %d tests, %d s", r.Doctor.Kernel, len(s.Tests), s.Seconds)
			if len(s.Tests) == 0 {
				t.Error("no tests ran")
			}
			if s.Code != 0 {
				t.Errorf("the test binary ended with %d", s.Code)
			}
			children(t, r, s, "")
		})
	}
}

func children(t *testing.T, r *vm.Report, s *vm.Result, parent string) {
	below := s.Children(parent)
	for _, name := range slices.Sorted(maps.Keys(below)) {
		g := below[name]
		t.Run(name, func(t *testing.T) {
			switch {
			case g.Action == "fail":
				t.Error("in the guest:\n" + g.Output)
			case g.Action == "":
				t.Error("did not end in the guest:\n" + g.Output)
			case g.Action == "skip" && !r.Doctor.Excuses(g.Output):
				t.Error("skipped, and for no reason that stockade doctor gives there:\n" + g.Output)
			}
			children(t, r, s, g.Name)
			if g.Action == "skip" && !t.Failed() {
				t.Skip(strings.TrimSpace(g.Output))
			}
		})
	}
}
