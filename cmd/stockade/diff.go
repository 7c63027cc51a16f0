package main

import (
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles/difference"
	"github.com/stockade-dev/stockade/shim/incident"
)

func (a *app) diffCmd() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say what B allows that A did not, and the other way round",
		Long: `diff compares two profiles by what they mean: order, comments and the way rules
are spread over files and parents do not count. Rules are added (+), removed (-),
widened (>) or narrowed (<); other fields are changed (~). "looser" is what lets a
container do more than before.

A rule counts as widened when every path of the old one is surely matched by the
new one; where that cannot be told, the one is removed and the other added.
` + fileHelp + "\n" + exitHelp("they differ"),
		Example: `  stockade profile diff redis.yaml redis-new.yaml
  stockade profile diff redis ./redis.yaml       # the store's against a file`,
		Args: usage(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error { return a.diff(args[0], args[1], name) },
	}
	cmd.Flags().StringVar(&name, "name", "", "take the profile `NAME`, when the files hold several")
	return cmd
}

func (a *app) diff(refA, refB, name string) error {
	before, err := a.load(refA, name)
	if err != nil {
		return err
	}
	after, err := a.load(refB, name)
	if err != nil {
		return err
	}
	changes := difference.Of(before, after)
	from, to := before.Digest(), after.Digest()
	if a.json {
		err := a.printJSON(struct {
			From    string              `json:"from"`
			To      string              `json:"to"`
			Changes []difference.Change `json:"changes"`
		}{from, to, nonNil(changes)})
		if err != nil {
			return err
		}
	} else {
		a.printChanges(changes, from, to)
	}
	if from != to {
		return no
	}
	return nil
}

// digests are shortened in text: two of them fill a line.
var digests = regexp.MustCompile(`\b([0-9a-f]{12})[0-9a-f]{52}\b`)

func (a *app) printChanges(changes []difference.Change, from, to string) {
	if from == to {
		fmt.Fprintf(a.out, "no difference: %s\n", from)
		return
	}
	color := map[string]string{"looser": red, "stricter": green, "": plain}
	t := newTable(a.out, "")
	for _, c := range changes {
		text := c.Sign + " " + c.Field + " " + c.Text
		if c.Was != "" {
			text += " (was " + c.Was + ")"
		}
		text = incident.Safe(digests.ReplaceAllString(text, "$1..."))
		where := "-"
		if c.File != "" {
			where = fmt.Sprintf("%s:%d", incident.Safe(c.File), c.Line)
		}
		effect := c.Effect
		if effect == "" {
			effect = "-"
		}
		t.row(a.paint(color[c.Effect], effect), where, text)
	}
	t.flush()
	fmt.Fprintf(a.out, "digest %s -> %s\n", from, to)
}
