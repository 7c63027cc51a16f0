package main

import (
	"fmt"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/apparmor"
)

// gap is how --json prints one.
type gap struct {
	Kind  string   `json:"kind"`
	Field string   `json:"field,omitempty"`
	Rule  string   `json:"rule,omitempty"`
	Where []string `json:"where,omitempty"`
	Why   string   `json:"why"`
}

func gapsOf(plan *profiles.Plan) []gap {
	out := []gap{}
	for _, g := range plan.Gaps {
		out = append(out, gap{g.Kind.String(), g.Field, g.Rule, g.Where, g.Why})
	}
	return out
}

// armorText is what apparmor_parser is given, but for the mode (kill, where the parser knows it) and the last part of
// the name, which differs by container; "" without AppArmor.
func armorText(plan *profiles.Plan) (string, error) {
	if plan.AppArmor == nil {
		return "", nil
	}
	policy := *plan.AppArmor
	policy.ABI = "3.0"
	text, err := apparmor.Build(policy)
	if err != nil {
		return "", err
	}
	return text.Body, nil
}

func (a *app) printArmor(plan *profiles.Plan) error {
	text, err := armorText(plan)
	if err != nil || text == "" {
		return err
	}
	fmt.Fprintln(a.out, "\nAppArmor:")
	for line := range strings.Lines(text) {
		fmt.Fprint(a.out, "  ", line)
	}
	a.printGaps(plan)
	return nil
}

// printGaps says what AppArmor's text cannot say. What of it the guarantees speak of, other mechanisms hold.
func (a *app) printGaps(plan *profiles.Plan) {
	if len(plan.Gaps) == 0 {
		return
	}
	fmt.Fprintln(a.out, "\nAppArmor cannot say:")
	for _, g := range plan.Gaps {
		what := strings.TrimSpace(g.Field + " " + g.Rule)
		if what != "" {
			what += ": "
		}
		where := ""
		if len(g.Where) > 0 {
			where = " (" + strings.Join(g.Where, ", ") + ")"
		}
		a.item("-", g.Kind.String()+": "+what+g.Why+where)
	}
}
