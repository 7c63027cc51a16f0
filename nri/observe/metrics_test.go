package observe

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/shim/control/api"
	"github.com/stockade-dev/stockade/shim/incident"
)

func silent() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

func newObserver(t *testing.T, sinks ...Sink) *Observer {
	t.Helper()
	return New(Config{
		Incidents: t.TempDir(), State: t.TempDir(), Version: "test", Log: silent(), Sinks: sinks, Bad: func() int { return 2 },
		Health: func() health.Health {
			return health.Health{Time: time.Now(), Connected: true, Judgements: map[string]uint64{"refuse": 3}, Profiles: 5}
		},
	})
}

func scrape(t *testing.T, o *Observer) string {
	t.Helper()
	w := httptest.NewRecorder()
	o.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetricsLint(t *testing.T) {
	o := newObserver(t)
	o.metrics.violation(&incident.Incident{Profile: "redis", Action: incident.Killed, Access: incident.Access{Kind: "exec"}})
	problems, err := promlint.New(strings.NewReader(scrape(t, o))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "stockade_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if problems, err := testutil.GatherAndLint(o.metrics.registry, "stockade_profiles_bad"); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestMetricsSay(t *testing.T) {
	o := newObserver(t)
	o.metrics.violation(&incident.Incident{Profile: "redis", Action: incident.Killed, Access: incident.Access{Kind: "exec"}, Lost: 4})
	text := scrape(t, o)
	for _, want := range []string{
		`stockade_violations_total{action="killed",kind="exec",profile="redis"} 1`,
		`stockade_findings_lost_total{stage="shim"} 4`,
		`stockade_plugin_judgements_total{action="refuse"} 3`,
		"stockade_plugin_connected 1\n", "stockade_profiles 5\n", "stockade_profiles_bad 2\n", "stockade_shims 0\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %s:\n%s", want, text)
		}
	}
}

// What the workload or a liar on the bus chooses must not make series without end.
func TestLabelsAreBounded(t *testing.T) {
	o := newObserver(t)
	for i := range 3 * MaxProfiles {
		o.metrics.violation(&incident.Incident{
			Profile: fmt.Sprint("p", i), Action: fmt.Sprint("a", i), Access: incident.Access{Kind: fmt.Sprint("k", i), Path: fmt.Sprint("/x/", i)},
		})
	}
	if n := testutil.CollectAndCount(o.metrics.violations); n != MaxProfiles+1 {
		t.Errorf("%d series", n)
	}
}

func status(since time.Time, n uint64) asked {
	return asked{shims: 1, answers: []*api.Status{{PID: 7, Queue: api.Queue{Undelivered: n}, Containers: []api.Container{{
		ID: "c", State: api.State{Profile: "redis", Mode: "enforce"}, Since: since,
		Decisions: []api.Decisions{{Kind: "exec", Action: "allow", Count: n}},
		Answers:   api.Histogram{Count: n, Seconds: float64(n), Buckets: []api.Bucket{{UpTo: 1e-3, Count: n}}},
	}}}}}
}

// Counters must not go down when a container goes, and must not jump when the plugin starts beside an old container.
func TestTotals(t *testing.T) {
	k := key{"exec", "allow"}
	tt := newTotals()
	for _, step := range []struct {
		a    asked
		want uint64
	}{
		{status(time.Now().Add(-time.Hour), 1000), 0},
		{status(time.Now().Add(-time.Hour), 1010), 10}, // not the same Since: see below
	} {
		step.a.answers[0].Containers[0].Since = tt.began.Add(-time.Hour)
		tt.add(step.a)
		if tt.decisions[k] != step.want || tt.answers.count != step.want || tt.queue.Undelivered != step.want {
			t.Errorf("%d, %d, %d: want %d", tt.decisions[k], tt.answers.count, tt.queue.Undelivered, step.want)
		}
	}
	tt.add(asked{}) // it is gone
	tt.add(status(tt.began.Add(time.Minute), 5))
	if tt.decisions[k] != 15 || tt.answers.upTo[6] != 15 || tt.answers.upTo[5] != 0 {
		t.Errorf("%d, %v", tt.decisions[k], tt.answers.upTo)
	}
	tt.add(asked{shims: 1, silent: 1})
	tt.add(status(tt.began.Add(time.Minute), 6))
	if tt.decisions[k] != 16 {
		t.Errorf("%d after a silence", tt.decisions[k])
	}
}

func TestReady(t *testing.T) {
	o := newObserver(t)
	h := health.Health{Time: time.Now(), Connected: true}
	o.cfg.Health = func() health.Health { return h }
	get := func(path string) int {
		w := httptest.NewRecorder()
		o.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code
	}
	if code := get("/readyz"); code != 200 {
		t.Error(code)
	}
	h.Problems = []string{"the store"}
	if code := get("/readyz"); code != 503 {
		t.Error(code)
	}
	if code := get("/healthz"); code != 200 {
		t.Error(code)
	}
}

func put(t *testing.T, dir string, inc incident.Incident) {
	t.Helper()
	data, err := json.Marshal(inc)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, inc.ID+".json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
