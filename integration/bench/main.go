// Command bench measures what Stockade costs: the same work in the same image under plain runc, under Stockade, and
// under plain runc with fapolicyd (the peer on the host's path) watching the container's root. Everything is measured
// in turns, round after round, in one run: what else the machine does falls on all of them, and the ratios of a round
// are what counts.
//
//	BENCH_ROUNDS  how many rounds; 5 unless given
//	BENCH_OUT     a file for the results as JSON
//	BENCH_ONLY    words, separated by commas: only groups with these names (opens, exec, redis, nginx, start, kill, pure)
//	BENCH_UNDER   words, separated by commas: only under these (runc, stockade, fapolicyd)
//	BENCH_SHIM    a folder to take the shim and the guard from, in place of bin/
//
// It leaves nothing behind, however it ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, os.Signal(termination))
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	rounds := 5
	if v := os.Getenv("BENCH_ROUNDS"); v != "" {
		if rounds, err = strconv.Atoi(v); err != nil || rounds < 1 {
			return fmt.Errorf("BENCH_ROUNDS=%s: not a number of rounds", v)
		}
	}
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	b := &bench{root: root, results: newResults()}
	if err := b.setUp(ctx); err != nil {
		return errors.Join(err, b.tearDown(ctx))
	}
	begin := time.Now()
	err = b.rounds(ctx, rounds)
	if err := errors.Join(err, b.tearDown(ctx)); err != nil {
		return err
	}
	b.results.table(os.Stdout)
	fmt.Printf("\n%d rounds in %s. Load of the machine meanwhile: %s.\n", rounds, time.Since(begin).Round(time.Second), load())
	for _, note := range b.notes {
		fmt.Println("- " + note)
	}
	if out := os.Getenv("BENCH_OUT"); out != "" {
		return b.results.write(out)
	}
	return nil
}

// bench is one run.
type bench struct {
	root    string
	node    *node.Node
	hosts   [2]*host // plain, fenced
	peer    *fapolicyd
	results *results
	notes   []string
}

// asked says whether a group of measurements is to be made.
func asked(group string) bool { return listed("BENCH_ONLY", group) }

// chosen says whether measurements are to be made under v.
func chosen(v variant) bool { return listed("BENCH_UNDER", v.String()) }

func listed(variable, word string) bool {
	list := os.Getenv(variable)
	return list == "" || slices.Contains(strings.Split(list, ","), word)
}

// load is what /proc/loadavg says of the last minute.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(data))[0]
}

func (b *bench) dir(name string) string { return filepath.Join(b.root, ".work", name) }
