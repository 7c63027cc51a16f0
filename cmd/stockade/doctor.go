package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/features"
	"github.com/stockade-dev/stockade/shim/state"
)

// containerdConfig is where containerd's packages put it.
const containerdConfig = "/etc/containerd/config.toml"

func (a *app) doctorCmd() *cobra.Command {
	var runc, containerd string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this node can enforce, and what is missing",
		Long: `doctor tries out what this node's kernel can do (on objects of its own; nothing of
the node is touched), looks at limits, at runc and containerd, and at the profiles
in the store. It prints what enforce mode guarantees here for each kind of access,
what to do about what is missing, and what is covered by nothing.

Exit codes:
  0  enforce mode holds here, and so does every profile in the store
  1  something is missing that enforce mode needs, a profile is wrong, or a container
     runs under an old one that could not be reloaded
  2  it could not be told: doctor is not root, or a probe could not be carried out`,
		Example: `  sudo stockade doctor
  stockade doctor --json | jq .guarantees`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := a.examine(cmd.Context(), runc, containerd)
			if a.json {
				if err := a.printJSON(d.asJSON()); err != nil {
					return err
				}
			} else {
				a.printDiagnosis(d)
			}
			if d.code() != exitOK {
				return &exit{code: d.code()}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&runc, "runc", "", "runc to look at (default: what containerd's configuration names, else runc in PATH)")
	cmd.Flags().StringVar(&containerd, "containerd", containerdConfig, "containerd's configuration `FILE`")
	return cmd
}

// diagnosis is what doctor found.
type diagnosis struct {
	configFile string
	config     config.Config
	configErr  error
	notRoot    bool

	target     profiles.Target
	kernel     []features.Check
	runtime    []features.Check
	limits     []features.Limit
	guarantees []profiles.Guarantee
	refused    []error // why enforce mode cannot be held here at all
	store      storeHealth
	running    []string // what is wrong with containers that run
}

// storeHealth is what is to be said of the profile store.
type storeHealth struct {
	dir   string
	names []string // of profiles that hold here
	errs  []error
}

func (a *app) examine(ctx context.Context, runc, containerd string) *diagnosis {
	if ctx == nil {
		ctx = context.Background()
	}
	d := &diagnosis{notRoot: os.Geteuid() != 0}
	d.configFile, _ = config.Path(a.configPath)
	d.config, d.configErr = a.config()
	if d.configErr != nil {
		d.config = config.Default()
	}
	k := features.Probe()
	d.target, d.kernel = k.Target, k.Checks
	guard, err := d.config.GuardPath()
	if err != nil {
		guard = config.GuardName
	}
	d.runtime = features.Runtime(ctx, features.Paths{
		Runc: runc, Shim: "containerd-shim-stockade-v1", Guard: guard, Containerd: containerd, Beside: filepath.Dir(guard),
	})
	d.runtime = append(d.runtime, examinePlugin(d.config, containerd, a.now())...)
	d.limits = features.Limits()
	d.guarantees, d.refused = typicalGuarantees(d.target)
	d.store = examineStore(roots(d.config), d.target)
	d.running = examineRunning(d.config.State)
	return d
}

// examineRunning looks for containers whose profile is older than the store, since it could not be reloaded.
func examineRunning(dir string) (wrong []string) {
	tasks, _, err := state.List(dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, t := range tasks {
		if t.Failed != "" && t.ShimAlive() {
			wrong = append(wrong, fmt.Sprintf("container %s (%s) runs under an old version of profile %s: %s. Do: mend the profile, stockade reload %[1]s",
				t.ID, strings.Trim(t.PodNamespace+"/"+t.Pod, "/"), t.Profile, t.Failed))
		}
	}
	return wrong
}

// typical is a profile as one would write it, to see what the compiler says of
// this node. The guarantees of a profile of one's own: profile explain.
const typical = `apiVersion: stockade.dev/v1alpha1
kind: Profile
metadata: {name: typical}
spec:
  allow: {exec: ["/usr/bin/server"], read: ["@image"], write: ["/data/**"]}
`

// typicalGuarantees compiles the typical profile. Where enforce mode is
// refused, it gives monitor mode's guarantees and the reasons.
func typicalGuarantees(t profiles.Target) ([]profiles.Guarantee, []error) {
	parsed, err := profiles.Parse("typical", []byte(typical))
	if err != nil {
		return nil, []error{err}
	}
	plan, err := profiles.Compile(parsed[0], t)
	if err == nil {
		return plan.Guarantees, nil
	}
	p := *parsed[0]
	p.Mode = profiles.ModeMonitor
	monitor, monitorErr := profiles.Compile(&p, t)
	if monitorErr != nil {
		return nil, []error{err, monitorErr}
	}
	return monitor.Guarantees, []error{err}
}

func examineStore(r store.Roots, t profiles.Target) storeHealth {
	h := storeHealth{dir: r.String()}
	s, err := store.OpenRoots(r)
	if errors.Is(err, fs.ErrNotExist) {
		h.errs = []error{fmt.Errorf("%s does not exist: mkdir -p %[1]s, and put profiles there", r.Profiles)}
		return h
	}
	if err != nil {
		h.errs = []error{err}
		return h
	}
	h.errs = s.Problems()
	for _, name := range s.Names() {
		p, err := s.Get(name)
		if err != nil {
			continue // among the problems
		}
		if _, err := profiles.Compile(p, t); err != nil {
			h.errs = append(h.errs, err)
			continue
		}
		h.names = append(h.names, name)
	}
	return h
}

// code is the exit code.
func (d *diagnosis) code() int {
	code := exitOK
	for _, list := range [][]features.Check{d.kernel, d.runtime} {
		for _, c := range list {
			switch {
			case !c.Needed || c.Has == profiles.Yes:
			case c.Has == profiles.No:
				return exitNo
			default:
				code = exitError
			}
		}
	}
	if d.configErr != nil || d.lowLimits() || len(d.running) > 0 {
		return exitNo
	}
	// What could not be told makes every enforcing profile fail to compile;
	// that is no news, and not the profiles' fault.
	if code == exitOK && (len(d.store.errs) > 0 || len(d.refused) > 0) {
		return exitNo
	}
	return code
}

// lowLimits: the shim raises the groups' limit by itself if it may.
func (d *diagnosis) lowLimits() bool {
	for _, l := range d.limits {
		if l.Low && !(d.config.RaiseLimits && l.Name == features.GroupLimit) {
			return true
		}
	}
	return false
}

// jsonCheck is a check with its answer as a word.
type jsonCheck struct {
	features.Check
	Has string `json:"has"`
}

func (d *diagnosis) asJSON() any {
	checks := func(list []features.Check) []jsonCheck {
		out := []jsonCheck{}
		for _, c := range list {
			out = append(out, jsonCheck{c, c.Has.String()})
		}
		return out
	}
	errs := []error{}
	if d.configErr != nil {
		errs = append(errs, d.configErr)
	}
	return struct {
		Code       int              `json:"code"`
		Kernel     string           `json:"kernel"`
		Arch       string           `json:"arch"`
		Config     string           `json:"config"`
		ConfigErrs []mistake        `json:"configErrors"`
		Guarantees []guarantee      `json:"guarantees"`
		Refused    []mistake        `json:"enforceRefused"`
		Mechanisms []jsonCheck      `json:"mechanisms"`
		Programs   []jsonCheck      `json:"programs"`
		Limits     []features.Limit `json:"limits"`
		Store      string           `json:"store"`
		Profiles   []string         `json:"profiles"`
		StoreErrs  []mistake        `json:"storeErrors"`
		Running    []string         `json:"running"`
		NotCovered []string         `json:"notCovered"`
	}{
		d.code(), d.target.Kernel, d.target.Arch, d.configFile, mistakes(errs), guaranteesOf(d.guarantees), mistakes(d.refused),
		checks(d.kernel), checks(d.runtime), d.limits, d.store.dir, nonNil(d.store.names), mistakes(d.store.errs), nonNil(d.running), notCovered,
	}
}
