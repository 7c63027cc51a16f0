package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
or about to be killed by the guard. VIOLATIONS counts the incidents that are kept.
` + exitHelp("not used"),
		Example: `  stockade ps
  stockade ps --json | jq -r '.tasks[] | select(.mode != "enforce") | .id'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.ps(whole) },
	}
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "print IDs and digests in full")
	return cmd
}

// psTask is a task as ps prints it.
type psTask struct {
	state.Task
	ShimAlive  bool `json:"shimAlive"`
	Violations int  `json:"violations"`
}

func (a *app) ps(whole bool) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	tasks, damaged, err := state.List(cfg.State)
	if err != nil {
		return err
	}
	list := []psTask{}
	counts := a.violations(cfg.Incidents, tasks)
	for _, t := range tasks {
		list = append(list, psTask{t, t.ShimAlive(), counts[t.Namespace+"/"+t.ID]})
	}
	if a.json {
		return a.printJSON(struct {
			Tasks   []psTask `json:"tasks"`
			Damaged []string `json:"damaged,omitempty"`
		}{list, texts(damaged)})
	}
	if len(list) == 0 && len(damaged) == 0 {
		a.complain([]string{"no protected container runs here (" + cfg.State + ")"})
	}
	if whole {
		a.printTasks(list, func(s string) string { return s })
	} else {
		a.printTasks(list, short)
	}
	a.complain(texts(damaged))
	return nil
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
		if from, ok := since[key]; ok && !incidents[i].Time.Before(from) {
			counts[key]++
		}
	}
	return counts
}

func (a *app) printTasks(list []psTask, cut func(string) string) {
	t := a.table("CONTAINER", "NAMESPACE", "POD", "PROFILE", "DIGEST", "MODE", "INIT-PID", "VIOLATIONS", "SINCE")
	for _, p := range list {
		pod := strings.Trim(p.PodNamespace+"/"+p.Pod, "/")
		pid := fmt.Sprint(p.InitPID)
		if !p.ShimAlive {
			pid = "shim gone"
		}
		t.row(cut(safe(p.ID)), safe(p.Namespace), safe(pod), safe(p.Profile), cut(safe(p.Digest)), safe(p.Mode), pid,
			fmt.Sprint(p.Violations), age(a.now(), p.Since))
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
