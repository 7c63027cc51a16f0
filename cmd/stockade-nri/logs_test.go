package main

import (
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/nri"
)

// TestLogIsNotWaitedFor: nobody reads the log. What a handler says must not hold it up; when it is read again, what is
// missing is counted, and the end of the program loses nothing.
func TestLogIsNotWaitedFor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.StandardLogger()
	before := log.Out
	log.SetOutput(w)
	defer log.SetOutput(before)
	defer r.Close() // before that: a writer that waits holds logrus's lock
	flush, err := logs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const pipe, line = 64 << 10, 1 << 10 // pipe(7): what it holds
	const said = 2 * (pipe/line + linesWait)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range said {
			say(nri.Event{Action: nri.Refuse, Container: "c", Text: strings.Repeat("x", line)})
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("a handler waits for the log")
	}
	all := make(chan string)
	go func() {
		data, _ := io.ReadAll(r)
		all <- string(data)
	}()
	flush()
	_ = w.Close()
	text := <-all
	told := strings.Count(text, "stockade-nri: refused: ")
	lost := 0
	for _, m := range regexp.MustCompile(`(\d+) lines are lost`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		lost += n
	}
	if lost == 0 || told+lost != said {
		t.Errorf("%d lines were written and %d are said to be lost, of %d", told, lost, said)
	}
}
