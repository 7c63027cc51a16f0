package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
)

func (a *app) listCmd() *cobra.Command {
	var whole bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the profiles that containers of this node can get",
		Long: `list shows the node's store as the shim reads it: the files of the folder profiles
and the cluster's Profile resources, one set. MATCH is who gets a profile; "named
only" is one without match, which a pod cannot have and ctr can ask for. SOURCE is
the file, or the resource. What is wrong with the store is printed below the table:
a profile that comes from a last good copy, a file that is none, a name given twice.
` + exitHelp("something is wrong with the store; all of it has been printed"),
		Example: `  stockade profile list
  stockade profile list --no-trunc
  stockade profile list --json | jq -r '.profiles[] | select(.mode != "enforce").name'`,
		Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return a.list(whole) },
	}
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "print digests in full")
	return cmd
}

// listed is a profile of the store as --json prints it.
type listed struct {
	Name    string   `json:"name"`
	Mode    string   `json:"mode,omitempty"`
	Digest  string   `json:"digest,omitempty"`
	Source  string   `json:"source"`
	Extends []string `json:"extends,omitempty"`
	Match   *matched `json:"match"` // null: named only
	StandIn string   `json:"standIn,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

// matched is a profile's match.
type matched struct {
	Images      []string          `json:"images,omitempty"`
	Namespaces  []string          `json:"namespaces,omitempty"`
	MatchLabels map[string]string `json:"matchLabels,omitempty"`
	Containers  []string          `json:"containers,omitempty"`
}

func (a *app) list(whole bool) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	st, err := store.OpenRoots(roots(cfg))
	if err != nil {
		return err
	}
	list := []listed{}
	for _, name := range st.Names() {
		list = append(list, listOne(cfg, st, name))
	}
	wrong := mistakes(st.Problems())
	if a.json {
		if err := a.printJSON(struct {
			Profiles []listed  `json:"profiles"`
			Problems []mistake `json:"problems"`
		}{list, wrong}); err != nil {
			return err
		}
	} else {
		a.printList(cfg, list, wrong, whole)
	}
	if len(wrong) > 0 {
		return no
	}
	return nil
}

func listOne(cfg config.Config, st *store.Store, name string) listed {
	l := listed{Name: name}
	declared := st.Declared(name)
	l.Source, l.Extends, l.Match = source(cfg, declared), declared.Extends, matchOf(declared.Match)
	p, err := st.Get(name)
	if err != nil {
		l.Problem = err.Error()
		return l
	}
	if l.Mode, l.Digest = p.Mode.String(), p.Digest(); p.Mode == profiles.ModeUnset {
		l.Mode = profiles.ModeEnforce.String() // as Compile does
	}
	if in := st.StandIn(name); in != nil {
		l.StandIn = in.Bad
	}
	return l
}

// source is the file that an admin wrote, or the resource.
func source(cfg config.Config, p *profiles.Profile) string {
	if cfg.Cluster != "" && filepath.Dir(p.Position.File) == filepath.Clean(cfg.Cluster) {
		return store.Resource(p.Name)
	}
	return p.Position.File
}

func matchOf(m *profiles.Match) *matched {
	if m == nil {
		return nil
	}
	return &matched{m.Images, m.Namespaces, m.Labels, m.Containers}
}

func (m *matched) String() string {
	if m == nil {
		return "named only"
	}
	var keys []string
	for _, of := range []struct {
		name string
		list []string
	}{{"images", m.Images}, {"namespaces", m.Namespaces}, {"containers", m.Containers}} {
		if len(of.list) > 0 {
			keys = append(keys, of.name+"="+strings.Join(of.list, ","))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m.MatchLabels)) {
		keys = append(keys, "label "+key+"="+m.MatchLabels[key])
	}
	if len(keys) == 0 {
		return "any container"
	}
	return strings.Join(keys, " ")
}

func (a *app) printList(cfg config.Config, list []listed, wrong []mistake, whole bool) {
	cut := short
	if whole {
		cut = func(s string) string { return s }
	}
	if len(list) == 0 {
		a.complain([]string{"no profile in " + roots(cfg).String()})
	} else {
		t := a.table("NAME", "MODE", "DIGEST", "MATCH", "SOURCE")
		for _, l := range list {
			from := safe(l.Source)
			if l.StandIn != "" {
				from += " (a last good copy)"
			}
			t.row(safe(l.Name), safe(l.Mode), cut(safe(l.Digest)), safe(l.Match.String()), from)
		}
		t.flush()
	}
	for _, m := range wrong {
		a.complain([]string{m.String()})
	}
}

// completeProfile completes the name of a profile of the store, or a file, as the only argument.
func (a *app) completeProfile(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, name := range a.completeProfiles() {
		names = append(names, fmt.Sprintf("%s\tof the store", name))
	}
	return names, cobra.ShellCompDirectiveDefault
}
