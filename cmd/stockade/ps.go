package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/control/api"
	"github.com/stockade-dev/stockade/shim/incident"
	"github.com/stockade-dev/stockade/shim/state"
)

func (a *app) psCmd() *cobra.Command {
	var whole bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the protected containers of this node",
		Long: `ps lists what the shims of this node say they protect. A shim that was killed
leaves its line behind: its INIT-PID is then "shim gone", and its container is dead
or about to be killed by the guard. DECISIONS and VIOLATIONS are the shim's own
counts since the container was started (opens that the kernel was told not to ask
about again are not decided); "?" where the shim cannot be asked, and then --json
has no "live". Below the table stands what does not hold as the store says: a stored
profile that differs (stockade reload puts it in force), a reload that failed, what
waits for a container's next start.
` + exitHelp("not used"),
		Example: `  stockade ps
  stockade ps --json | jq -r '.tasks[] | select(.mode != "enforce") | .id'
  stockade ps --json | jq '.tasks[] | {id, decisions: .live.decisions}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ps(cmd.Context(), whole) },
	}
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "print IDs and digests in full")
	return cmd
}

// psTask is a task as ps prints it.
type psTask struct {
	state.Task
	ShimAlive  bool           `json:"shimAlive"`
	Violations int            `json:"violations"`       // the shim's count, else that of the incidents which are kept
	Stored     string         `json:"stored,omitempty"` // digest of the profile of that name in the store, if it differs
	Live       *api.Container `json:"live,omitempty"`
}

func (a *app) ps(ctx context.Context, whole bool) error {
	if ctx == nil {
		ctx = context.Background()
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	tasks, damaged, err := state.List(cfg.State)
	if err != nil {
		return err
	}
	list, errs := a.tasks(ctx, cfg, tasks)
	if a.json {
		return a.printJSON(struct {
			Tasks   []psTask `json:"tasks"`
			Damaged []string `json:"damaged,omitempty"`
		}{list, append(texts(damaged), texts(errs)...)})
	}
	if len(list) == 0 && len(damaged) == 0 {
		a.complain([]string{"no protected container runs here (" + cfg.State + ")"})
	}
	cut := short
	if whole {
		cut = func(s string) string { return s }
	}
	a.printTasks(list, cut)
	for i := range list {
		for _, line := range list[i].remarks() {
			a.complain([]string{cut(list[i].ID) + ": " + line})
		}
	}
	a.complain(texts(damaged))
	a.complain(texts(errs))
	return nil
}

// tasks puts together what the state files, the shims, the store and the incident folder say of the tasks.
func (a *app) tasks(ctx context.Context, cfg config.Config, tasks []state.Task) ([]psTask, []error) {
	list := []psTask{}
	if len(tasks) == 0 {
		return list, nil
	}
	live, errs := statuses(ctx, cfg.State)
	st, err := store.OpenRoots(roots(cfg))
	if err != nil {
		errs = append(errs, err)
	}
	var counts map[string]int
	for _, t := range tasks {
		p := psTask{Task: t, ShimAlive: t.ShimAlive(), Live: live[keyOf(t)]}
		if p.Live != nil {
			p.Violations = int(p.Live.Violations())
		} else {
			if counts == nil {
				counts = a.violations(cfg.Incidents, tasks)
			}
			p.Violations = counts[keyOf(t)]
		}
		if err == nil && p.ShimAlive {
			p.Stored = storedDigest(st, t)
		}
		list = append(list, p)
	}
	return list, errs
}

// storedDigest is the digest of the profile in the store under whose name t runs, "" if it is the same or is not there
// (a reload says then what that means).
func storedDigest(st *store.Store, t state.Task) string {
	if p, err := st.Get(t.Profile); err == nil && p.Digest() != t.Digest {
		return p.Digest()
	}
	return ""
}

// remarks are what is to be said of a task beside its line.
func (p *psTask) remarks() []string {
	var lines []string
	if p.Stored != "" {
		lines = append(lines, "stored profile differs: stockade reload "+short(p.ID))
	}
	if p.Failed != "" && p.ShimAlive {
		lines = append(lines, "the last reload failed, the old profile holds: "+p.Failed)
	}
	if p.Waits > 0 && p.ShimAlive {
		lines = append(lines, fmt.Sprintf("%d parts of the profile take effect when the container is started again (stockade ps --json)", p.Waits))
	}
	return lines
}

// violations counts the incidents of each task since it started. Without
// access to them the counts are zero, and that is said.
func (a *app) violations(dir string, tasks []state.Task) map[string]int {
	since := map[string]time.Time{}
	var oldest time.Time
	for _, t := range tasks {
		since[t.Namespace+"/"+t.ID] = t.Since
		if oldest.IsZero() || t.Since.Before(oldest) {
			oldest = t.Since
		}
	}
	counts := map[string]int{}
	if len(tasks) == 0 {
		return counts
	}
	incidents, _, err := incident.List(dir, incident.Filter{Since: oldest})
	if err != nil {
		a.complain([]string{err.Error()})
	}
	for i := range incidents {
		key := incidents[i].Namespace + "/" + incidents[i].Container
		if from, ok := since[key]; ok && !incidents[i].Time.Before(from) && incidents[i].Action != incident.NotReloaded {
			counts[key]++
		}
	}
	return counts
}

func (a *app) printTasks(list []psTask, cut func(string) string) {
	t := a.table("CONTAINER", "NAMESPACE", "POD", "PROFILE", "DIGEST", "MODE", "INIT-PID", "DECISIONS", "VIOLATIONS", "SINCE")
	for _, p := range list {
		pod := strings.Trim(p.PodNamespace+"/"+p.Pod, "/")
		pid := fmt.Sprint(p.InitPID)
		if !p.ShimAlive {
			pid = "shim gone"
		}
		decisions, violations := "?", fmt.Sprint(p.Violations)
		if p.Live != nil {
			decisions = fmt.Sprint(p.Live.Total())
		} else if p.ShimAlive {
			violations += "?"
		}
		t.row(cut(safe(p.ID)), safe(p.Namespace), safe(pod), safe(p.Profile), cut(safe(p.Digest)), safe(p.Mode), pid,
			decisions, violations, age(a.now(), p.Since))
	}
	t.flush()
}

// complain prints what is wrong beside the answer.
func (a *app) complain(lines []string) {
	for _, line := range lines {
		fmt.Fprintln(a.err, "stockade: "+incident.Safe(line))
	}
}

func texts[E error](errs []E) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}
