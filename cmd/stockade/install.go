package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/cmd/stockade/install"
)

// consent is how an admin agrees to a change.
type consent struct {
	dryRun, yes bool
	in          *os.File
}

func (c *consent) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "show what would be changed, change nothing")
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	c.in = os.Stdin
}

const installCodes = `
Exit codes:
  0  done, or there was nothing to do
  1  no: --dry-run shows changes, you said no, protected containers run
  2  it could not be done; what containerd reads is as it was before`

const uninstallCodes = installCodes + `,
     or knows nothing of Stockade any more: the next run takes away the rest`

func (a *app) installCmd() *cobra.Command {
	o := install.Default()
	o.Version = buildVersion()
	var c consent
	var label string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install Stockade on this node",
		Long: `install puts the programs, the configuration, containerd's runtime handler, the
sysctl and the NRI plugin in place. It shows what it is going to change first, and
asks. What is there already it leaves alone: a second run changes nothing and
restarts nothing. Configuration that you wrote or changed is kept.

containerd is restarted only when what it reads has changed; containers go on. It
must then answer, know the runtime handler and be able to start the shim. If not,
what it reads is put back.
` + installCodes,
		Example: `  sudo bin/stockade install --dry-run
  sudo bin/stockade install
  stockade install --yes --root /host --nri none        # from a DaemonSet's pod`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.install(cmd.Context(), o, c, label)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Root, "root", o.Root, "where the node's root `DIR` is mounted")
	f.StringVar(&o.From, "from", "", "`DIR` of the programs to install (default: where this one lies)")
	f.StringVar(&o.BinDir, "bin-dir", o.BinDir, "`DIR` of the node that the programs go to")
	f.StringVar(&o.ContainerdConfig, "containerd-config", o.ContainerdConfig, "containerd's configuration `FILE`")
	f.StringVar(&o.Address, "address", "", "containerd's `SOCKET` as this process sees it (default: what its configuration says, below --root)")
	f.StringVar(&o.Unit, "unit", o.Unit, "systemd's `NAME` of containerd")
	f.StringVar(&o.RestartCommand, "restart-command", "", "what restarts containerd, in place of systemctl: a `LINE` for the node's sh")
	f.BoolVar(&o.NoRestart, "no-restart", false, "leave the restart to somebody else; install again afterwards to have it checked")
	f.StringVar(&o.NRI, "nri", o.NRI, "how the NRI plugin runs: unit (systemd), preinstalled (containerd starts it), none, auto")
	f.BoolVar(&o.RequirePlugin, "require-plugin", false, "containerd refuses every container while the NRI plugin is away, static pods too")
	f.BoolVar(&o.Overwrite, "overwrite", false, "replace configuration that somebody else wrote or changed, too")
	f.DurationVar(&o.Wait, "wait", o.Wait, "how long containerd may take to come up")
	f.StringVar(&label, "label-node", "", "label this `NODE` "+install.ReadyLabel+"=true when all is done (inside a pod, as its service account)")
	c.flags(cmd)
	return cmd
}

func (a *app) install(ctx context.Context, o install.Options, c consent, label string) error {
	if o.From == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.From = filepath.Dir(self)
	}
	p, err := install.Gather(o)
	if err != nil {
		return err
	}
	agreed, err := a.agree(p, c, "install")
	if err != nil || !agreed {
		return errors.Join(err, a.ready(ctx, label, true, err == nil && !c.dryRun))
	}
	ctx, stop := finishing(ctx)
	defer stop()
	res, err := install.Apply(ctx, o, p, a.saying())
	if a.json {
		return errors.Join(err, a.printJSON(installReport{p, &res}), a.ready(ctx, label, true, err == nil && !res.Pending))
	}
	return errors.Join(err, a.ready(ctx, label, true, err == nil && !res.Pending))
}

// ready sets or takes away the node's label. A node is ready only when all has been done.
func (a *app) ready(ctx context.Context, node string, ready, do bool) error {
	if node == "" || !do {
		return nil
	}
	return install.LabelNode(ctx, node, ready)
}

func (a *app) uninstallCmd() *cobra.Command {
	d := install.Default()
	o := install.Removal{Root: d.Root, Wait: d.Wait}
	var c consent
	var label string
	var stay bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Stockade away from this node",
		Long: `uninstall removes what install put there, as its manifest names it, and gives
containerd its configuration back. It refuses while protected containers run, and
goes back when one was started before containerd had forgotten the handler.

Kept, and named: files that were changed since they were installed, profiles, and
incidents. --purge removes these too.
` + uninstallCodes,
		Example: `  sudo stockade uninstall --dry-run
  sudo stockade uninstall --purge`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.uninstall(cmd.Context(), o, c, label)
			if err != nil || !stay {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			<-ctx.Done()
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Root, "root", o.Root, "where the node's root `DIR` is mounted")
	f.StringVar(&o.Address, "address", "", "containerd's `SOCKET` as this process sees it (default: what its configuration says, below --root)")
	f.StringVar(&o.RestartCommand, "restart-command", "", "what restarts containerd, in place of systemctl: a `LINE` for the node's sh")
	f.BoolVar(&o.NoRestart, "no-restart", false, "leave the restart to somebody else")
	f.BoolVar(&o.Force, "force", false, "although protected containers run: they go on, and cannot be started again")
	f.BoolVar(&o.Purge, "purge", false, "remove incidents, profiles and changed configuration too")
	f.DurationVar(&o.Wait, "wait", o.Wait, "how long containerd may take to come up")
	f.StringVar(&label, "label-node", "", "take the label "+install.ReadyLabel+" from this `NODE` first (inside a pod, as its service account)")
	f.BoolVar(&stay, "stay", false, "do not end when all is done: for a DaemonSet, whose pods would be started again")
	c.flags(cmd)
	return cmd
}

func (a *app) uninstall(ctx context.Context, o install.Removal, c consent, label string) error {
	p, err := install.GatherRemoval(ctx, o)
	if errors.Is(err, install.ErrInUse) {
		if a.json {
			_ = a.printJSON(installReport{Plan: p})
		}
		return &exit{code: exitNo, err: err}
	}
	if err != nil {
		return err
	}
	agreed, err := a.agree(p, c, "uninstall")
	if err != nil || !agreed && (c.dryRun || !p.Nothing()) {
		return err
	}
	// Before anything is taken away: no more pods are to be scheduled here.
	if err := a.ready(ctx, label, false, true); err != nil {
		return err
	}
	ctx, stop := finishing(ctx)
	defer stop()
	res, err := install.Uninstall(ctx, o, p, a.saying())
	if errors.Is(err, install.ErrInUse) && res.RolledBack {
		err = &exit{code: exitNo, err: err}
	}
	if a.json && agreed {
		return errors.Join(err, a.printJSON(installReport{p, &res}))
	}
	return err
}

// finishing ignores what would end the program half way: the next run would mend it, but why let it come to that.
func finishing(ctx context.Context) (context.Context, func()) {
	if ctx == nil {
		ctx = context.Background()
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT)
	return ctx, func() { signal.Reset(syscall.SIGHUP, syscall.SIGINT) }
}

// saying prints steps; with --json they go where errors go.
func (a *app) saying() func(string) {
	return func(line string) {
		w := a.out
		if a.json {
			w = a.err
		}
		fmt.Fprintln(w, line)
	}
}

// installReport is what --json prints.
type installReport struct {
	*install.Plan
	Result *install.Result `json:"result,omitempty"` // nothing when nothing was done
}

// agree shows the plan and asks. It returns false when nothing is to be done now.
func (a *app) agree(p *install.Plan, c consent, what string) (bool, error) {
	if !a.json {
		a.showChanges(p)
	}
	if p.Empty() && what == "install" || what == "uninstall" && p.Nothing() {
		if a.json {
			return false, a.printJSON(installReport{Plan: p})
		}
		fmt.Fprintln(a.out, "nothing to do")
		return false, nil
	}
	if c.dryRun {
		if a.json {
			if err := a.printJSON(installReport{Plan: p}); err != nil {
				return false, err
			}
		}
		return false, no
	}
	if c.yes {
		return true, nil
	}
	if info, err := c.in.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false, errors.New("there is no terminal to ask on: --yes agrees, --dry-run only shows")
	}
	fmt.Fprintf(a.err, "%s? [y/N] ", what)
	line, err := bufio.NewReader(c.in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || answer != "y" && answer != "yes" {
		return false, no
	}
	return true, nil
}

// showChanges prints what would change, as a diff.
func (a *app) showChanges(p *install.Plan) {
	for _, d := range p.Notes {
		fmt.Fprintln(a.out, "note:    "+safe(d))
	}
	for _, c := range p.Changes {
		color := green
		switch c.Action {
		case install.Remove:
			color = red
		case install.Keep, install.Update:
			color = yellow
		}
		line := fmt.Sprintf("%s  %s", a.paint(color, fmt.Sprintf("%-7s", c.Action)), safe(c.Path))
		if c.Why != "" {
			line += "  (" + c.Why + ")"
		}
		fmt.Fprintln(a.out, line)
		if c.Action != install.Remove && c.Diff != "" {
			fmt.Fprint(a.out, c.Diff)
		}
	}
	if p.Sysctl != nil {
		fmt.Fprintf(a.out, "sysctl   fs.fanotify.max_user_groups %d -> %d\n", p.Sysctl.Before, p.Sysctl.After)
	}
	if p.Restart {
		fmt.Fprintln(a.out, "restart  containerd (containers go on)")
	}
}
