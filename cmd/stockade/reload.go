package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/control/api"
	"github.com/stockade-dev/stockade/shim/state"
)

func (a *app) reloadCmd() *cobra.Command {
	var r api.ReloadRequest
	var all, whole bool
	cmd := &cobra.Command{
		Use:   "reload [CONTAINER | --profile NAME | --all]",
		Short: "Put changed profiles in force for running containers",
		Long: `reload makes the shims choose and compile the profiles of running containers again,
from the store and as when they were started. What is decided when it happens holds
from then on: exec, read, write, the system calls that the filter asks about,
sessions, onViolation. What a container was made with stays until it is started
again: its filter, its mounts, its capabilities, and mode monitor. The table says for
each container what of its new profile waits; "!" marks what it may still do although
the new profile says no.

A profile that cannot be read, that does not hold here or that is not for the
container any more changes nothing: the old one stays in force, and ps and doctor
say so. CONTAINER is an ID, or how the ID of one container begins.

Exit codes:
  0  each container that was asked for runs under its profile as it is in the store
  1  one of them kept its old profile, or may do more than the new one says
  2  it could not be done or told: no such container, a shim that does not answer`,
		Example: `  stockade reload --all
  stockade reload --profile redis --dry-run
  stockade reload 3f2a9c --json | jq '.containers[].waits'`,
		Args: usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeContainers(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if given := len(args) + oneIf(r.Profile != "") + oneIf(all); given != 1 {
				return fmt.Errorf("usage: %s: one of the three; see %s --help", cmd.UseLine(), cmd.CommandPath())
			}
			return a.reload(cmd.Context(), args, r, whole)
		},
	}
	cmd.Flags().StringVar(&r.Profile, "profile", "", "the containers that run under profile `NAME`")
	cmd.Flags().BoolVar(&all, "all", false, "all protected containers of this node")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "say what would change, and change nothing")
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "print IDs and digests in full")
	_ = cmd.RegisterFlagCompletionFunc("profile", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return a.completeProfiles(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (a *app) reload(ctx context.Context, args []string, r api.ReloadRequest, whole bool) error {
	if ctx == nil {
		ctx = context.Background()
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("only root may do this")
	}
	paths, err := api.Sockets(cfg.State)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		task, err := findTask(cfg.State, args[0])
		if err != nil {
			return err
		}
		if paths = []string{task.Control}; task.Control == "" || !task.ShimAlive() {
			return fmt.Errorf("the shim of container %s cannot be asked: it has ended, or is of a build that has no control socket", task.ID)
		}
		r.Namespace, r.Container = task.Namespace, task.ID
	}
	answers, errs := askShims(ctx, paths, func(ctx context.Context, c *api.Client) (*api.ReloadResponse, error) { return c.Reload(ctx, r) })
	list := []api.Reloaded{}
	for _, answer := range answers {
		list = append(list, answer.Containers...)
	}
	slices.SortFunc(list, func(x, y api.Reloaded) int {
		return cmp.Or(strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.ID, y.ID))
	})
	return a.reloaded(list, errs, whole)
}

// reloaded prints what came of a reload.
func (a *app) reloaded(list []api.Reloaded, errs []error, whole bool) error {
	if a.json {
		if err := a.printJSON(struct {
			Containers []api.Reloaded `json:"containers"`
			Errors     []string       `json:"errors,omitempty"`
		}{list, texts(errs)}); err != nil {
			return err
		}
	} else {
		a.printReloaded(list, whole)
		a.complain(texts(errs))
		if len(list) == 0 && len(errs) == 0 {
			a.complain([]string{"no protected container that was asked for runs here"})
		}
	}
	if len(errs) > 0 {
		return &exit{code: exitError}
	}
	for _, r := range list {
		if r.Failed != "" || slices.ContainsFunc(r.Waits, func(w api.Wait) bool { return w.Weaker }) {
			return no
		}
	}
	return nil
}

func (a *app) printReloaded(list []api.Reloaded, whole bool) {
	cut := short
	if whole {
		cut = func(s string) string { return s }
	}
	if len(list) == 0 {
		return
	}
	t := a.table("CONTAINER", "NAMESPACE", "POD", "PROFILE", "WAS", "IS", "MODE", "RESULT")
	for _, r := range list {
		pod := strings.Trim(r.PodNamespace+"/"+r.Pod, "/")
		t.row(cut(safe(r.ID)), safe(r.Namespace), safe(pod), fromTo(r.Before.Profile, r.After.Profile), cut(safe(r.Before.Digest)),
			cut(safe(r.After.Digest)), fromTo(r.Before.Mode, r.After.Mode), outcome(&r))
	}
	t.flush()
	for _, r := range list {
		if len(r.Waits) == 0 && r.Failed == "" {
			continue
		}
		fmt.Fprintf(a.out, "\n%s:\n", cut(safe(r.ID)))
		if r.Failed != "" {
			fmt.Fprintln(a.out, "  failed: "+safe(r.Failed))
		}
		for _, w := range r.Waits {
			mark := "  "
			if w.Weaker {
				mark = "! "
			}
			fmt.Fprintf(a.out, "  %s%s: %s\n", mark, safe(w.Part), safe(w.What))
		}
	}
}

func fromTo(before, after string) string {
	if before == after {
		return safe(after)
	}
	return safe(before) + " -> " + safe(after)
}

// outcome is a reload in a few words.
func outcome(r *api.Reloaded) string {
	switch {
	case r.Failed != "":
		return "FAILED, the old one holds"
	case slices.ContainsFunc(r.Waits, func(w api.Wait) bool { return w.Weaker }):
		return "in force in part"
	case len(r.Waits) > 0:
		return "in force; something waits"
	case r.Changed():
		return "in force"
	}
	return "unchanged"
}

// findTask finds the protected task whose ID is given, or begins so.
func findTask(dir, id string) (state.Task, error) {
	tasks, _, err := state.List(dir)
	if err != nil {
		return state.Task{}, err
	}
	var found []state.Task
	for _, t := range tasks {
		if t.ID == id {
			return t, nil
		}
		if strings.HasPrefix(t.ID, id) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 0:
		return state.Task{}, fmt.Errorf("no protected container %q runs here; `stockade ps` lists them", id)
	case 1:
		return found[0], nil
	}
	return state.Task{}, fmt.Errorf("several containers begin with %q", id)
}

func (a *app) completeContainers() []string {
	cfg, err := a.config()
	if err != nil {
		return nil
	}
	tasks, _, _ := state.List(cfg.State)
	var ids []string
	for _, t := range tasks {
		ids = append(ids, t.ID+"\t"+t.Profile)
	}
	return ids
}

func (a *app) completeProfiles() []string {
	cfg, err := a.config()
	if err != nil {
		return nil
	}
	st, err := store.OpenRoots(roots(cfg))
	if err != nil {
		return nil
	}
	return st.Names()
}
