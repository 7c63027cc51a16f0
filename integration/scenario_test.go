package integration_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/integration/scenario"
	"github.com/stockade-dev/stockade/integration/suite"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/features"
)

// shared is the node that every test of this package runs on.
var shared *node.Node

func TestMain(m *testing.M) {
	suite.Main(m, "integration", setUp, func(ctx context.Context) error {
		if shared == nil {
			return nil
		}
		return shared.Stop(ctx)
	})
}

// setUp starts the node, imports the images and writes the profiles of all scenarios.
func setUp(ctx context.Context) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	bin, err := checkout.Bin(root, "containerd", "runc", "containerd-shim-runc-v2", "containerd-shim-stockade-v1", "stockade-guard")
	if err != nil {
		return err
	}
	if shared, err = node.Start(ctx, node.Config{Dir: filepath.Join(root, ".work/it"), Bin: []string{bin}}); err != nil {
		return err
	}
	shared.Runtime = node.Stockade
	builder := &image.Builder{Root: root, Log: os.Stderr}
	for _, name := range imageNames() {
		img, err := builder.Named(ctx, name)
		if err != nil {
			return err
		}
		if err := shared.Import(ctx, img.Tar); err != nil {
			return err
		}
	}
	return nil
}

// imageNames are those of the catalogue, or those that STOCKADE_TEST_IMAGES lists: a machine under emulation has no time
// to unpack images that its tests do not run.
func imageNames() []string {
	if list := os.Getenv("STOCKADE_TEST_IMAGES"); list != "" {
		return strings.Split(list, ",")
	}
	return image.Names()
}

// TestScenarios runs testdata/scenarios: each file is one case.
func TestScenarios(t *testing.T) {
	all, err := scenario.Load("testdata/scenarios")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		profile, err := s.ProfileYAML()
		if err != nil {
			t.Fatal(err)
		}
		if profile != nil {
			if err := os.WriteFile(filepath.Join(shared.ProfilesDir(), s.Name+".yaml"), profile, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	has := map[string]bool{}
	for _, check := range features.Probe().Checks {
		has[check.Name] = check.Has == profiles.Yes
	}
	for _, s := range all {
		if has[s.NotYet] {
			s.NotYet = "" // this node has what stops it
		}
		if s.Armored != nil && has["AppArmor"] {
			s.Expect = *s.Armored
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			t.Log(s.Title)
			play(t, s)
		})
	}
}

func play(t *testing.T, s *scenario.Scenario) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if why := s.Missing(strings.TrimSpace(string(release))); why != "" {
		t.Skip(why)
	}
	// Whoever runs the same cases several times needs their controls once.
	if s.Control.Skip == "" && os.Getenv("STOCKADE_TEST_CONTROLS") != "no" {
		control := observe(t, s, node.Runc)
		for _, bad := range s.CheckControl(control) {
			t.Errorf("without Stockade: %s", bad)
		}
		if t.Failed() {
			t.Fatalf("without Stockade it is not what the scenario is about:\n%s", control)
		}
	}
	got := observe(t, s, node.Stockade)
	bad := s.Check(got)
	if s.NotYet != "" {
		effect, ok := s.NotStopped(got)
		if !ok {
			t.Fatalf("this is stopped now: remove not-yet (%s) from the scenario\n%s", s.NotYet, got)
		}
		t.Logf("not stopped yet, for want of %s: %s", s.NotYet, effect)
		return
	}
	if len(bad) > 0 {
		t.Errorf("%s\n%s", strings.Join(bad, "\n"), got)
	}
}

func observe(t *testing.T, s *scenario.Scenario, runtime string) *scenario.Observed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	o, err := s.Run(ctx, shared, runtime)
	if err != nil {
		t.Fatalf("under %s: %v\n%s", runtime, err, shared.LogTail())
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return o
}

// TestScenariosCanFail runs a case of a kill under plain runc: a check that finds nothing to say then would find
// nothing either if Stockade did nothing.
func TestScenariosCanFail(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"exec-undeclared", "hello ran"},
		{"write-undeclared", "/etc/app.conf was changed"},
		{"session-undeclared", "output of exec 2"},
	} {
		data, err := os.ReadFile("testdata/scenarios/" + c.name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		s, err := scenario.Parse(c.name, data)
		if err != nil {
			t.Fatal(err)
		}
		s.Expect.Incidents = nil // there is nobody to write them
		if bad := strings.Join(s.Check(observe(t, s, node.Runc)), "\n"); !strings.Contains(bad, c.want) {
			t.Errorf("%s: the check says %q, want %q in it", c.name, bad, c.want)
		}
	}
}
