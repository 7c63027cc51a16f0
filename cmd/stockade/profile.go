package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/incident"
)

func (a *app) profileCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "List, check, explain, compile and compare profiles",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(a.listCmd(), a.checkCmd(), a.explainCmd(), a.compileCmd(), a.diffCmd())
	return cmd
}

func (a *app) checkCmd() *cobra.Command {
	var choice string
	cmd := &cobra.Command{
		Use:   "check FILE|FOLDER...",
		Short: "Say all that is wrong with profiles",
		Long: `check reads profiles, resolves what they extend and compiles them. All mistakes
are printed, as file:line:column. Of a folder the *.yaml and *.yml files directly
in it are read, as the node's store does. Owner and mode of files are not looked
at here; doctor does that for the store.
` + exitHelp("something is wrong; all of it has been printed"),
		Example: `  stockade profile check redis.yaml
  stockade profile check --target node /etc/stockade/profiles.d`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error { return a.check(args, choice) },
	}
	cmd.Flags().StringVar(&choice, "target", "full", targetHelp)
	return cmd
}

// checked is the result of check.
type checked struct {
	files    []string
	profiles []*profiles.Profile
	errs     []error
}

func (a *app) check(args []string, choice string) error {
	t, label, err := target(choice)
	if err != nil {
		return err
	}
	c := readAll(args)
	c.names()
	c.compile(t)
	wrong := mistakes(c.errs)
	if a.json {
		err := a.printJSON(struct {
			Files    int       `json:"files"`
			Profiles int       `json:"profiles"`
			Target   string    `json:"target"`
			Mistakes []mistake `json:"mistakes"`
		}{len(c.files), len(c.profiles), label, wrong})
		if err != nil {
			return err
		}
	} else {
		for _, m := range wrong {
			fmt.Fprintln(a.err, incident.Safe(m.String()))
		}
	}
	if len(wrong) > 0 {
		return no
	}
	if !a.json {
		fmt.Fprintf(a.out, "%s in %s: right, for %s\n", plural(len(c.profiles), "profile"), plural(len(c.files), "file"), label)
	}
	return nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func readAll(args []string) *checked {
	c := &checked{}
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err == nil && info.IsDir() {
			files, err := yamlFiles(arg)
			if err == nil && len(files) == 0 {
				err = fmt.Errorf("%s: no *.yaml or *.yml in it", arg)
			}
			if err != nil {
				c.errs = append(c.errs, err)
			}
			c.files = append(c.files, files...)
			continue
		}
		c.files = append(c.files, arg)
	}
	for _, file := range c.files {
		parsed, err := parseFile(file)
		if err != nil {
			c.errs = append(c.errs, err)
		}
		c.profiles = append(c.profiles, parsed...)
	}
	return c
}

// names finds those given twice, which the store refuses.
func (c *checked) names() {
	first := map[string]*profiles.Profile{}
	for _, p := range c.profiles {
		if f := first[p.Name]; f != nil {
			c.errs = append(c.errs, &profiles.Error{
				Position: p.Position, Field: "metadata.name",
				Problem: fmt.Sprintf("a second profile is named %s, the first is at %s:%d", p.Name, f.Position.File, f.Position.Line),
				Want:    "give each a name of its own",
			})
			continue
		}
		first[p.Name] = p
	}
}

// compile resolves and compiles. A profile that gives no match and is extended
// by another one is a part, and need not hold by itself.
func (c *checked) compile(t profiles.Target) {
	part := map[string]bool{}
	for _, p := range c.profiles {
		for _, name := range p.Extends {
			part[name] = true
		}
	}
	find := lookup(c.profiles, c.files)
	for _, p := range c.profiles {
		resolved, err := profiles.Resolve(p.Name, find)
		if err == nil && (p.Match != nil || !part[p.Name]) {
			_, err = profiles.Compile(resolved, t)
		}
		if err != nil {
			c.errs = append(c.errs, err)
		}
	}
}
