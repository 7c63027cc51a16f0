package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// row says what is measured, and what it may cost (the ratio is Stockade's value to plain runc's in the same round).
type row struct {
	name, unit string
	budget     string
	holds      func(r *result) bool // nil: there is no budget
	p99        bool
}

func atMost(ratio float64) (string, func(*result) bool) {
	return fmt.Sprintf("<= %.2fx", ratio), func(r *result) bool { return r.RatioRunc != nil && *r.RatioRunc <= ratio }
}

func atLeast(ratio float64) (string, func(*result) bool) {
	return fmt.Sprintf(">= %.2fx", ratio), func(r *result) bool { return r.RatioRunc != nil && *r.RatioRunc >= ratio }
}

func under(value float64, unit string) (string, func(*result) bool) {
	return fmt.Sprintf("<= %g %s", value, unit), func(r *result) bool { return r.Stockade != nil && r.Stockade.Median <= value }
}

func more(value float64, unit string) (string, func(*result) bool) {
	return fmt.Sprintf("<= runc + %g %s", value, unit), func(r *result) bool {
		return r.Stockade != nil && r.Runc != nil && r.Stockade.Median <= r.Runc.Median+value
	}
}

func budgeted(name, unit string, budget string, holds func(*result) bool) row {
	return row{name: name, unit: unit, budget: budget, holds: holds}
}

// rows in the order of the table; the budget is that of the design.
func rows() []row {
	with := func(name, unit string) func(string, func(*result) bool) row {
		return func(budget string, holds func(*result) bool) row { return budgeted(name, unit, budget, holds) }
	}
	out := []row{
		with("open", "ns")(atMost(1.05)),
		{name: "first open in a directory", unit: "ns"},
		with("open of another file there", "ns")(atMost(1.05)),
		{name: "write-open", unit: "ns"},
		{name: "getppid", unit: "ns"},
		with("exec static", "us")(atMost(1.15)),
		{name: "exec dynamic", unit: "us"},
		with("create+start", "ms")(atMost(1.15)),
		{name: "create, start, run to the end", unit: "ms"},
	}
	for _, suffix := range []string{"", ", pipeline of 16"} {
		for _, op := range []string{"SET", "GET"} {
			out = append(out, with("redis "+op+suffix, "1/s")(atLeast(0.98)))
		}
	}
	out = append(out, with("nginx static file", "1/s")(atLeast(0.98)))
	out = append(out, with("shim memory, Pss", "MiB")(more(8, "MiB")), with("shim memory, Rss", "MiB")(more(8, "MiB")))
	out = append(out, row{name: "kill 100 processes, p50", unit: "ms"})
	p99 := with("kill 100 processes, p99", "ms")(under(5, "ms"))
	p99.p99 = true
	out = append(out, p99)
	out = append(out, with("Decide, 10000 rules", "ns")(under(300, "ns")), with("Decide, 10000 rules, allocations", "")(under(0, "")))
	return append(out, with("Compile, 10000 rules", "ms")(under(50, "ms")))
}

// spread is what the rounds gave: each round's value is the median of what was measured in it.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// result is one row of the answer. A ratio is Stockade's value to the other's, the median over the rounds.
type result struct {
	Name           string   `json:"name"`
	Unit           string   `json:"unit"`
	Runc           *spread  `json:"runc"`
	Stockade       *spread  `json:"stockade"`
	Fapolicyd      *spread  `json:"fapolicyd"`
	RatioRunc      *float64 `json:"ratio_runc"`
	RatioFapolicyd *float64 `json:"ratio_fapolicyd"`

	ratios, peerRatios *spread
}

// results gathers samples: by row, variant and round.
type results struct {
	samples  map[string]*[variants][][]float64
	round    int
	counting bool
}

func newResults() *results {
	return &results{samples: map[string]*[variants][][]float64{}, round: -1}
}

// begin starts a round. What is added in one that does not count is forgotten.
func (r *results) begin(counts bool) {
	r.counting = counts
	if counts {
		r.round++
	}
}

func (r *results) add(name string, v variant, value float64) {
	if !r.counting {
		return
	}
	if r.samples[name] == nil {
		r.samples[name] = &[variants][][]float64{}
	}
	s := &r.samples[name][v]
	for len(*s) <= r.round {
		*s = append(*s, nil)
	}
	(*s)[r.round] = append((*s)[r.round], value)
}

// of makes the answer to one row, nil if it was not measured.
func (r *results) of(w row) *result {
	s := r.samples[w.name]
	if s == nil {
		return nil
	}
	each := func(v variant) []float64 { return perRound(s[v], w.p99) }
	out := &result{Name: w.name, Unit: w.unit, Runc: spreadOf(each(plain)), Stockade: spreadOf(each(fenced)), Fapolicyd: spreadOf(each(peered))}
	if w.p99 {
		for v, sp := range []*spread{out.Runc, out.Stockade} {
			if sp != nil {
				sp.Median = percentile(slices.Concat(s[v]...), 0.99)
			}
		}
	}
	out.ratios = spreadOf(ratios(each(fenced), each(plain)))
	out.peerRatios = spreadOf(ratios(each(fenced), each(peered)))
	if out.ratios != nil {
		out.RatioRunc = &out.ratios.Median
	}
	if out.peerRatios != nil {
		out.RatioFapolicyd = &out.peerRatios.Median
	}
	return out
}

func perRound(samples [][]float64, worst bool) (values []float64) {
	for _, s := range samples {
		switch {
		case len(s) == 0:
		case worst:
			values = append(values, slices.Max(s))
		default:
			values = append(values, percentile(s, 0.5))
		}
	}
	return values
}

func ratios(a, b []float64) (out []float64) {
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}

func spreadOf(values []float64) *spread {
	if len(values) == 0 {
		return nil
	}
	return &spread{percentile(values, 0.5), slices.Min(values), slices.Max(values)}
}

func percentile(values []float64, p float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if p == 0.5 && len(v)%2 == 0 {
		return (v[len(v)/2-1] + v[len(v)/2]) / 2
	}
	return v[min(int(p*float64(len(v))), len(v)-1)]
}

func (r *results) all() (all []*result) {
	for _, w := range rows() {
		if res := r.of(w); res != nil {
			all = append(all, res)
		}
	}
	return all
}

func (r *results) write(file string) error {
	data, err := json.MarshalIndent(r.all(), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

func (r *results) table(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "name\tunit\trunc\tstockade\tfapolicyd\tto runc\tto fapolicyd\tbudget\t")
	for _, row := range rows() {
		res := r.of(row)
		if res == nil {
			continue
		}
		verdict := ""
		if row.holds != nil {
			verdict = "MISSED"
			if row.holds(res) {
				verdict = "holds"
			}
		}
		fmt.Fprintln(w, strings.Join([]string{
			res.Name, res.Unit, res.Runc.text(""), res.Stockade.text(""), res.Fapolicyd.text(""),
			res.ratios.text("x"), res.peerRatios.text("x"), row.budget, verdict,
		}, "\t"))
	}
	_ = w.Flush()
}

// text is "median [min..max]".
func (s *spread) text(suffix string) string {
	if s == nil {
		return "-"
	}
	if suffix != "" {
		return fmt.Sprintf("%.2f%s [%.2f..%.2f]", s.Median, suffix, s.Min, s.Max)
	}
	if s.Min == s.Max {
		return number(s.Median)
	}
	return fmt.Sprintf("%s [%s..%s]", number(s.Median), number(s.Min), number(s.Max))
}

func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}
