package main

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles"
)

func (a *app) compileCmd() *cobra.Command {
	var name, choice string
	cmd := &cobra.Command{
		Use:   "compile FILE",
		Short: "Show the plan that a profile becomes",
		Long: `compile shows what reaches the kernel: the seccomp filter, capabilities, the mount
seal or AppArmor's text, what that cannot say, and the guarantees. With --json the seccomp filter is there in full, as the
OCI runtime specification writes it.
` + fileHelp + "\n" + exitHelp("the profile does not hold on the node"),
		Example: `  stockade profile compile redis.yaml
  stockade profile compile redis.yaml --target full --json`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeProfile,
		RunE: func(_ *cobra.Command, args []string) error {
			t, label, err := target(choice)
			if err != nil {
				return err
			}
			p, err := a.load(args[0], name)
			if err != nil {
				return err
			}
			plan, err := profiles.Compile(p, t)
			if err != nil {
				return &exit{exitNo, fmt.Errorf("profile %s does not hold on %s:\n%w", p.Name, label, err)}
			}
			return a.printPlan(plan, label)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "take the profile `NAME`, when FILE holds several")
	cmd.Flags().StringVar(&choice, "target", "", targetHelp+" (default node for root, else full)")
	return cmd
}

// writeRoot is how --json prints one.
type writeRoot struct {
	Path    string `json:"path"`
	Exact   bool   `json:"exact"`
	Pattern string `json:"pattern"`
}

func (a *app) printPlan(plan *profiles.Plan, label string) error {
	roots := []writeRoot{}
	for _, r := range plan.WriteRoots() {
		roots = append(roots, writeRoot(r))
	}
	armor, err := armorText(plan)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Profile         string              `json:"profile"`
			Digest          string              `json:"digest"`
			Mode            string              `json:"mode"`
			OnViolation     string              `json:"onViolation"`
			Target          string              `json:"target"`
			Guarantees      []guarantee         `json:"guarantees"`
			Seal            bool                `json:"readOnlyRoot"`
			WriteRoots      []writeRoot         `json:"writeRoots"`
			NoNewPrivileges bool                `json:"noNewPrivileges"`
			Capabilities    []string            `json:"capabilities"`
			Seccomp         *specs.LinuxSeccomp `json:"seccomp"`
			AppArmor        string              `json:"appArmor,omitempty"`
			Gaps            []gap               `json:"appArmorGaps"`
			Notes           []string            `json:"notes"`
		}{
			plan.Name, plan.Digest, plan.Mode.String(), plan.OnViolation.String(), label, guaranteesOf(plan.Guarantees), plan.Seal, roots,
			plan.NoNewPrivileges, nonNil(plan.Capabilities), plan.Seccomp, armor, gapsOf(plan), nonNil(plan.Notes),
		})
	}
	a.printHead(plan, label)
	fmt.Fprintln(a.out, "\nWhat is not allowed:")
	a.printGuarantees(guaranteesOf(plan.Guarantees))
	a.printMounts(plan, roots)
	a.printPrivileges(plan)
	a.printSeccomp(plan.Seccomp)
	if err := a.printArmor(plan); err != nil {
		return err
	}
	a.printNotes(plan.Notes)
	return nil
}

func (a *app) printMounts(plan *profiles.Plan, roots []writeRoot) {
	fmt.Fprintln(a.out, "\nMounts:")
	if plan.Seal {
		fmt.Fprintln(a.out, "  the root is read-only, but for these:")
	} else {
		fmt.Fprintln(a.out, "  left as they are; writing is declared here:")
	}
	t := newTable(a.out, "  ", "PATH", "IS", "DECLARED BY")
	for _, r := range roots {
		is := "a folder, all below"
		if r.Exact {
			is = "itself"
		}
		t.row(safe(r.Path), is, safe(r.Pattern))
	}
	if len(roots) == 0 {
		t.row("none")
	}
	t.flush()
}

func (a *app) printPrivileges(plan *profiles.Plan) {
	nnp := "left as it is"
	if plan.NoNewPrivileges {
		nnp = "set"
	}
	capabilities := strings.Join(plan.Capabilities, " ")
	switch {
	case plan.Mode == profiles.ModeMonitor:
		capabilities = strings.TrimSpace(capabilities + " (declared; monitor mode leaves the container's own)")
	case capabilities == "":
		capabilities = "none"
	}
	fmt.Fprintln(a.out, "\nPrivileges:")
	t := newTable(a.out, "  ")
	t.row("no_new_privs", nnp)
	t.row("capabilities", capabilities)
	t.flush()
}

// printSeccomp counts what the filter does with how many syscalls.
func (a *app) printSeccomp(s *specs.LinuxSeccomp) {
	fmt.Fprintln(a.out, "\nSeccomp:")
	if s == nil {
		fmt.Fprintln(a.out, "  no filter")
		return
	}
	type class struct {
		action specs.LinuxSeccompAction
		args   bool
	}
	names := map[class]map[string]bool{}
	var order []class
	for _, call := range s.Syscalls {
		c := class{call.Action, len(call.Args) > 0}
		if names[c] == nil {
			names[c] = map[string]bool{}
			order = append(order, c)
		}
		for _, name := range call.Names {
			names[c][name] = true
		}
	}
	var archs []string
	for _, arch := range s.Architectures {
		archs = append(archs, string(arch))
	}
	t := newTable(a.out, "  ", "SYSCALLS", "ACTION", "")
	for _, c := range order {
		when := ""
		if c.args {
			when = "with certain arguments"
		}
		t.row(fmt.Sprint(len(names[c])), string(c.action), when)
	}
	t.row("others", string(s.DefaultAction), "")
	t.flush()
	fmt.Fprintf(a.out, "  entries: %s\n", strings.Join(archs, ", "))
}
