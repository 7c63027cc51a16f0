package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/shim/incident"
)

func (a *app) incidentCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "incident",
		Aliases: []string{"incidents"},
		Short:   "List and show what deviated",
		Args:    cobra.NoArgs,
	}
	cmd.AddCommand(a.incidentLsCmd(), a.incidentShowCmd())
	return cmd
}

func (a *app) incidentLsCmd() *cobra.Command {
	var f incident.Filter
	var since string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List incidents, newest first",
		Long:  "ls lists the incidents that this node keeps, newest first.\n" + exitHelp("not used"),
		Example: `  stockade incident ls --since 1h
  stockade incident ls --profile redis --limit 5 --json
  stockade incident ls --container 3f2a`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			from, err := parseSince(since, a.now())
			if err != nil {
				return err
			}
			f.Since = from
			return a.incidentLs(f)
		},
	}
	cmd.Flags().StringVar(&f.Container, "container", "", "of the container `ID`, or of those that begin so")
	cmd.Flags().StringVar(&f.Profile, "profile", "", "of the profile `NAME`")
	cmd.Flags().StringVar(&since, "since", "", "since `TIME`: how long ago (90s, 15m, 1h, 7d) or a date (2026-11-23, 2026-11-23T18:00:00Z)")
	cmd.Flags().IntVar(&f.Limit, "limit", 50, "at most `N`; 0 is all")
	return cmd
}

// parseSince reads a duration before now or a time.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since is %q; want how long ago (15m, 1h, 7d) or a date (2026-11-23)", s)
}

func (a *app) incidentLs(f incident.Filter) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	list, damaged, err := incident.List(cfg.Incidents, f)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Incidents []incident.Incident `json:"incidents"`
			Damaged   []string            `json:"damaged,omitempty"`
		}{nonNil(list), texts(damaged)})
	}
	t := a.table(a.paint(plain, "ACTION"), "ID", "CONTAINER", "POD", "PROFILE", "WHAT")
	for i := range list {
		inc := &list[i]
		t.row(a.paint(actionColor(inc.Action), safe(inc.Action)), inc.ID, short(safe(inc.Container)), podOf(inc), safe(inc.Profile), what(inc))
	}
	t.flush()
	if len(list) == 0 && len(damaged) == 0 {
		a.complain([]string{"no such incidents in " + cfg.Incidents})
	}
	a.complain(texts(damaged))
	return nil
}

func actionColor(action string) string {
	switch action {
	case incident.Killed, incident.Frozen, incident.Lost:
		return red
	}
	return yellow
}

func podOf(inc *incident.Incident) string {
	return safe(strings.Trim(inc.Pod.Namespace+"/"+inc.Pod.Name, "/"))
}

// what says in a few words what was tried.
func what(inc *incident.Incident) string {
	if inc.Action == incident.Lost {
		return fmt.Sprintf("%d incidents could not be written", inc.Lost)
	}
	if inc.Action == incident.NotReloaded {
		return safe(inc.Reason)
	}
	s := safe(inc.Access.Kind) + " " + safe(inc.Access.Object())
	if exe := inc.Subject.Exe; exe != "" && inc.Access.Kind != "exec" {
		s += " by " + incident.Safe(exe)
	}
	return s
}

func (a *app) incidentShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one incident: what happened, who, why, and what would allow it",
		Long:  "show prints one incident. The beginning of an ID is enough if no other begins so.\n" + exitHelp("there is no such incident"),
		Example: `  stockade incident show 20261123-185412.123456-9f3a61c2
  stockade incident show 20261123-1854 --json`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := a.config()
			if err != nil {
				return err
			}
			inc, err := incident.Read(cfg.Incidents, args[0])
			if errors.Is(err, incident.ErrNotFound) {
				return &exit{exitNo, err}
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(inc)
			}
			a.printIncident(&inc)
			return nil
		},
		ValidArgsFunction: a.completeIncident,
	}
}

func (a *app) completeIncident(_ *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
	cfg, err := a.config()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _, _ := incident.List(cfg.Incidents, incident.Filter{Limit: 100})
	var out []string
	for i := range list {
		if strings.HasPrefix(list[i].ID, begin) {
			out = append(out, list[i].ID+"\t"+what(&list[i]))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
