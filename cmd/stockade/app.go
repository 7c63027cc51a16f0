package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/incident"
)

// Exit codes, as --help documents them.
const (
	exitOK    = 0
	exitNo    = 1 // the answer is no: not allowed, different, wrong, missing
	exitError = 2 // what was asked could not be done or told
)

// exitHelp documents the codes; onNo says what 1 means for the command.
func exitHelp(onNo string) string {
	return "\nExit codes:\n  0  fine\n  1  " + onNo + "\n  2  it could not be done or told: wrong usage, a file that cannot be read"
}

// app is what all commands share.
type app struct {
	out, err io.Writer
	now      func() time.Time

	configPath string // --config
	json       bool   // --json
	color      bool
}

// exit ends the program with a code; err, if any, is printed.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// no says that the answer is no and has been printed.
var no = &exit{code: exitNo}

// run is the program.
func run(args []string, out, errw io.Writer) int {
	a := &app{out: out, err: errw, now: time.Now, color: wantsColor(out)}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errw)
	return a.finish(root.Execute())
}

func (a *app) finish(err error) int {
	if err == nil {
		return exitOK
	}
	code := exitError
	var e *exit
	if errors.As(err, &e) {
		code = e.code
		if e.err == nil {
			return code
		}
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(a.err, "stockade: "+incident.Safe(strings.TrimRight(line, "\n")))
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "stockade",
		Short: "What this node enforces, what profiles mean, what happened",
		Long: `stockade answers an admin's questions about containers that do what was declared
for them and nothing else: what this node can enforce, whether a profile is right
and what it means, which containers are protected, and what deviated.

Only install, uninstall and reload change anything.
` + exitHelp("the answer is no: not allowed, different, wrong, missing"),
		Example: `  stockade doctor
  stockade profile check /etc/stockade/profiles.d
  stockade profile explain redis.yaml --exec /bin/sh
  stockade ps
  stockade incident ls --since 1h`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", "", "node configuration (default $"+config.EnvVar+", else "+config.DefaultPath+")")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	root.InitDefaultHelpFlag() // before cobra looks for the command: else --help takes the next argument as its value
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(a.doctorCmd(), a.profileCmd(), a.psCmd(), a.reloadCmd(), a.incidentCmd(), a.installCmd(), a.uninstallCmd(), a.pluginCmd(), a.versionCmd())
	return root
}

// usage shows how a command is used when its arguments are not right.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) != nil {
			return fmt.Errorf("usage: %s; see %s --help", cmd.UseLine(), cmd.CommandPath())
		}
		return nil
	}
}

// config reads the node configuration.
func (a *app) config() (config.Config, error) { return config.Load(a.configPath) }

// allErrors takes joined errors apart.
func allErrors(err error) []error {
	if err == nil {
		return nil
	}
	if f, ok := err.(*store.FileError); ok {
		err = f.Err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, allErrors(e)...)
	}
	return all
}

// mistake is an error of a profile as --json prints it.
type mistake struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Field   string `json:"field,omitempty"`
	Problem string `json:"problem"`
	Want    string `json:"want,omitempty"`
}

// mistakes lists what is wrong, each thing once.
func mistakes(errs []error) []mistake {
	list := []mistake{}
	seen := map[string]bool{}
	for _, joined := range errs {
		for _, err := range allErrors(joined) {
			if seen[err.Error()] {
				continue
			}
			seen[err.Error()] = true
			m := mistake{Problem: err.Error()}
			var pe *profiles.Error
			if errors.As(err, &pe) {
				m = mistake{pe.File, pe.Line, pe.Column, pe.Field, pe.Problem, pe.Want}
			}
			list = append(list, m)
		}
	}
	return list
}

func (m mistake) String() string {
	e := profiles.Error{Position: profiles.Position{File: m.File, Line: m.Line, Column: m.Column}, Field: m.Field, Problem: m.Problem, Want: m.Want}
	return e.Error()
}

// wantsColor: only on a terminal, and not when the user says no (no-color.org).
func wantsColor(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
