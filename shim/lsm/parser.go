package lsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// parseTimeout ends a parser that hangs. Ten thousand rules take some seconds on a slow node.
const parseTimeout = 60 * time.Second

// Parser is an apparmor_parser.
type Parser struct {
	Path    string
	Version string   // as in 3.0.8; "" if it does not say
	Args    []string // given to every run, before ours
	Base    string   // where it looks for abi files; "": /etc/apparmor.d
}

// FindParser finds apparmor_parser in PATH and where Debian, SUSE and Ubuntu have it: a shim's PATH may be short.
func FindParser() (*Parser, error) {
	path, err := exec.LookPath("apparmor_parser")
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if err == nil {
			break
		}
		path = filepath.Join(dir, "apparmor_parser")
		_, err = os.Stat(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: enabled, but there is no apparmor_parser in PATH", ErrUnavailable)
	}
	p := &Parser{Path: path}
	out, err := p.run("", "--version")
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(out, "\n")
	if _, version, ok := strings.Cut(first, "version "); ok {
		p.Version = strings.TrimSpace(version)
	}
	return p, nil
}

// ABI is the abi that a text should name for this parser: "3.0" if the node has its file, which parsers from 3.0 on
// bring along; else "", and the parser's configuration decides.
func (p *Parser) ABI() string {
	if _, err := os.Stat(filepath.Join(or(p.Base, "/etc/apparmor.d"), "abi/3.0")); err == nil {
		return "3.0"
	}
	return ""
}

// ParserError is a run of the parser that failed. Its text holds all that the parser said.
type ParserError struct {
	Args   []string
	Output string // of both streams
	Err    error
}

func (e *ParserError) Error() string {
	return fmt.Sprintf("apparmor_parser %s: %v\n%s", strings.Join(e.Args, " "), e.Err, strings.TrimRight(e.Output, "\n"))
}

func (e *ParserError) Unwrap() error { return e.Err }

// run gives the parser a text (or none) on standard input.
func (p *Parser) run(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), parseTimeout)
	defer cancel()
	all := append(append([]string(nil), p.Args...), args...)
	cmd := exec.CommandContext(ctx, p.Path, all...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// A shim reaps all its children, and may come before us: then what the parser has written has to tell how it went.
	if err := cmd.Run(); err != nil && (!errors.Is(err, syscall.ECHILD) || ctx.Err() != nil) {
		if ctx.Err() != nil {
			err = fmt.Errorf("no end after %v: %w", parseTimeout, err)
		}
		return "", &ParserError{Args: all, Output: out.String(), Err: err}
	}
	return out.String(), nil
}

// Check parses a text without loading it. It needs no AppArmor in the kernel.
func (p *Parser) Check(text string) error {
	_, err := p.run(text, "--skip-kernel-load", "--skip-cache")
	return err
}

// compile writes what the kernel would be given for a text's file into another, for the kernel that runs.
func (p *Parser) compile(file, into string) (said string, err error) {
	return p.run("", "--skip-kernel-load", "--skip-cache", "--ofile", into, file)
}

// Kills reports whether the parser knows the mode kill (3.0 and newer).
func (p *Parser) Kills() bool {
	major, _, _ := strings.Cut(p.Version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n >= 3
}
