package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/shim/incident"
)

// hostile is an incident whose every text was chosen by an attacker.
func hostile() *incident.Incident {
	bad := "x\x1b[2J\n\u202e\xff" + strings.Repeat("A", 100<<10)
	return &incident.Incident{
		ID: incident.NewID(time.Now()), Time: time.Now(), Action: incident.Killed, Profile: "redis", Mode: "enforce",
		Pod:        incident.Pod{Namespace: "prod", Name: "web", UID: "u", Container: bad},
		Access:     incident.Access{Kind: "exec", Path: "/" + bad, Syscall: bad, Flags: bad},
		Subject:    incident.Subject{Comm: bad, Exe: bad, Cmdline: []string{bad, bad, bad, bad, bad, bad}},
		Parents:    []incident.Parent{{Comm: bad, Exe: bad}, {Comm: bad}},
		Suggestion: bad, Reason: bad,
	}
}

func TestLinesAreSafe(t *testing.T) {
	var out bytes.Buffer
	l := &Lines{&out, "node", "v"}
	events := []Finding{
		{Incident: hostile()},
		{Event: &nri.Event{Time: time.Now(), Action: nri.Refuse, Container: hostile().Reason, Text: hostile().Reason, Pod: "p", Namespace: "n"}},
	}
	for _, f := range events {
		if err := l.Put(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(events) {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines {
		var o struct {
			Class    int    `json:"class_uid"`
			Type     int    `json:"type_uid"`
			Action   int    `json:"action_id"`
			Message  string `json:"message"`
			Metadata struct{ Version string }
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		if o.Class != 2004 || o.Type != 200401 || o.Action != 2 || o.Message == "" || o.Metadata.Version == "" {
			t.Errorf("%+v", o)
		}
		if len(line) > 100<<10 {
			t.Errorf("%d bytes", len(line))
		}
		var all any
		if err := json.Unmarshal([]byte(line), &all); err != nil {
			t.Fatal(err)
		}
		printable(t, all)
	}
}

// printable walks all texts.
func printable(t *testing.T, v any) {
	t.Helper()
	switch v := v.(type) {
	case string:
		if len(v) > maxArgs || strings.ContainsFunc(v, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("%d bytes: %.300q", len(v), v)
		}
	case []any:
		for _, e := range v {
			printable(t, e)
		}
	case map[string]any:
		for _, e := range v {
			printable(t, e)
		}
	}
}

// An OTLP collector gets the same fields; what it refuses is an error.
func TestOTLP(t *testing.T) {
	got := make(chan *collector.ExportLogsServiceRequest, 1)
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		var m collector.ExportLogsServiceRequest
		if err != nil || proto.Unmarshal(data, &m) != nil || r.URL.Path != "/v1/logs" {
			t.Errorf("%s: %v", r.URL, err)
		}
		w.WriteHeader(status)
		if status == http.StatusOK {
			got <- &m
		}
	}))
	defer server.Close()
	o, err := NewOTLP(t.Context(), server.URL, "node", "v")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close(context.Background())
	if err := o.Put(t.Context(), Finding{Incident: hostile()}); err != nil {
		t.Fatal(err)
	}
	record := (<-got).ResourceLogs[0].ScopeLogs[0].LogRecords[0]
	found := map[string]string{}
	for _, a := range record.Attributes {
		found[a.Key] = a.Value.String()
	}
	if !strings.Contains(record.Body.GetStringValue(), "killed: exec") || !strings.Contains(found["class_uid"], "2004") || found["evidences"] == "" {
		t.Errorf("%v", record)
	}
	status = http.StatusBadRequest
	if err := o.Put(t.Context(), Finding{Incident: hostile()}); err == nil {
		t.Error("what the collector refused counts as told")
	}
}

// blocked is a sink that takes nothing until it is let.
type blocked struct{ let chan struct{} }

func (blocked) Name() string { return "blocked" }

func (b blocked) Put(context.Context, Finding) error {
	<-b.let
	return nil
}

// TestFolder: each incident of the folder is told once; a sink that hangs holds nobody up, and what it misses is
// counted; what happened while the plugin was away is told when it is back.
func TestFolder(t *testing.T) {
	b := blocked{make(chan struct{})}
	o := newObserver(t, b)
	o.lookEvery = time.Hour // what comes is heard of
	dir := o.cfg.Incidents
	old := *hostile()
	old.ID = incident.NewID(time.Now().Add(-time.Hour))
	put(t, dir, old) // of before the plugin was first installed
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { o.Run(ctx); close(done) }()
	awaitFile(t, filepath.Join(dir, ".told"), "before")
	inc := *hostile()
	put(t, dir, inc)
	if err := os.WriteFile(filepath.Join(dir, incident.NewID(time.Now())+".json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, filepath.Join(dir, ".told"), inc.ID)
	for range queueSize + 10 {
		o.Event(nri.Event{Action: nri.Refuse})
	}
	text := scrape(t, o)
	for _, want := range []string{
		`stockade_violations_total{action="killed",kind="exec",profile="redis"} 1`, `stockade_findings_lost_total{stage="damaged"} 1`,
		`stockade_findings_lost_total{stage="blocked"} 10`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %s:\n%s", want, text)
		}
	}
	stop()
	close(b.let)
	<-done

	again := newObserver(t)
	again.cfg.Incidents, again.seen = dir, newSeen(dir)
	missed := *hostile()
	put(t, dir, missed)
	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	go again.Run(ctx)
	awaitFile(t, filepath.Join(dir, ".told"), missed.ID)
	if text := scrape(t, again); !strings.Contains(text, `profile="redis"} 1`) {
		t.Error(text)
	}
}

func awaitFile(t *testing.T, path, want string) {
	t.Helper()
	var data []byte
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if data, _ = os.ReadFile(path); strings.Contains(string(data), want) {
			return
		}
	}
	t.Fatalf("%s lacks %s: %s", path, want, data)
}
