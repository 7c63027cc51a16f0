package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stockade-dev/stockade/shim/incident"
)

// Colours. All codes are equally long, so that tabwriter, which counts them as
// text, keeps columns straight when every cell of a column is painted.
const (
	plain  = "39"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (a *app) paint(color, s string) string {
	if !a.color {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

// printJSON writes v and a newline. HTML escapes would only make paths hard to
// read; control characters are escaped by JSON itself.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table prints rows with straight columns.
type table struct{ w *tabwriter.Writer }

func (a *app) table(header ...string) *table { return newTable(a.out, "", header...) }

func newTable(out io.Writer, indent string, header ...string) *table {
	t := &table{tabwriter.NewWriter(&indented{out: out, indent: indent}, 0, 8, 2, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

func (t *table) row(cells ...string) {
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() { _ = t.w.Flush() }

// indented puts an indent before each line and takes the spaces at its end.
type indented struct {
	out    io.Writer
	indent string
	line   []byte
}

func (w *indented) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\n' {
			w.line = append(w.line, c)
			continue
		}
		text := strings.TrimRight(string(w.line), " ")
		if text != "" {
			text = w.indent + text
		}
		w.line = w.line[:0]
		if _, err := io.WriteString(w.out, text+"\n"); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// wrap breaks text into lines of at most width characters at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// safe is text that others chose, fit for a terminal; "-" stands for nothing.
func safe(s string) string {
	if s == "" {
		return "-"
	}
	return incident.Safe(s)
}

// short shortens a container ID or digest as one is used to.
func short(id string) string {
	name, hex, ok := strings.Cut(id, ":")
	if !ok {
		name, hex = "", id
	} else {
		name += ":"
	}
	if len(hex) == 64 {
		hex = hex[:12]
	}
	return name + hex
}

// age is how long ago t was, as a person says it.
func age(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "-"
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
