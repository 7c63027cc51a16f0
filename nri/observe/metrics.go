package observe

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/shim/incident"
)

// MaxProfiles bounds how many names of profiles become label values.
const MaxProfiles = 500

const other = "other"

// Stages at which a finding can be lost, besides the sinks' names.
const (
	stageShim    = "shim"    // the shim could not write it
	stageDamaged = "damaged" // an event or a file that cannot be read
)

// metrics are those that this package counts itself.
type metrics struct {
	registry   *prometheus.Registry
	violations *prometheus.CounterVec
	told, gone *prometheus.CounterVec
	bus        prometheus.Gauge
	heartbeat  prometheus.Gauge
	names      *words
}

func newMetrics(c Config) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stockade_violations_total", Help: "Accesses that a profile does not allow, by what was done: killed, denied, frozen or reported.",
		}, []string{"profile", "kind", "action"}),
		told: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stockade_findings_told_total", Help: "Violations and refusals that were handed to a receiver.",
		}, []string{"sink"}),
		gone: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stockade_findings_lost_total", Help: "Violations and refusals that did not reach a receiver (events, json, otlp), that the shim could not write, or that could not be read.",
		}, []string{"stage"}),
		bus: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stockade_event_bus_connected", Help: "1 while containerd's event bus is read; without it violations are taken from the incident folder.",
		}),
		heartbeat: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stockade_node_condition_heartbeat_timestamp_seconds", Help: "When the node's condition StockadeReady was last written, Unix time; 0: never.",
		}),
		names: newWords(MaxProfiles),
	}
	for _, stage := range []string{stageShim, stageDamaged} {
		m.gone.WithLabelValues(stage)
	}
	for _, s := range c.Sinks {
		m.gone.WithLabelValues(s.Name())
		m.told.WithLabelValues(s.Name())
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stockade_build_info", Help: "1, with the plugin's version.", ConstLabels: prometheus.Labels{"version": c.Version},
	})
	build.Set(1)
	m.registry.MustRegister(m.violations, m.told, m.gone, m.bus, m.heartbeat, build,
		&pluginCollector{health: c.Health, bad: c.Bad},
		&shimCollector{state: c.State, names: m.names, totals: newTotals()},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) lose(stage string) { m.gone.WithLabelValues(stage).Inc() }

func (m *metrics) violation(inc *incident.Incident) {
	m.gone.WithLabelValues(stageShim).Add(float64(inc.Lost))
	if inc.Action != incident.Lost && inc.Action != incident.NotReloaded {
		m.violations.WithLabelValues(m.names.word(inc.Profile), kindWord(inc.Access.Kind), doneWord(inc.Action)).Inc()
	}
}

// Heartbeat notes that the node's condition was written.
func (o *Observer) Heartbeat(t time.Time) { o.metrics.heartbeat.Set(float64(t.Unix())) }

// Handler serves /metrics, /healthz (the plugin works, if only to say what is
// wrong) and /readyz (nothing is wrong).
func (o *Observer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.metrics.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 2 * gatherTime, ErrorLog: o.cfg.Log, ErrorHandling: promhttp.ContinueOnError,
	}))
	say := func(w http.ResponseWriter, text string, ok bool) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(text + "\n"))
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		o.cfg.Health() // takes the plugin's locks: one that hangs does not answer
		say(w, "ok", true)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		text, ok := health.Verdict(o.cfg.Health(), nil, time.Now())
		say(w, text, ok)
	})
	return mux
}

// words lets a bounded number of different ones through.
type words struct {
	most int

	mu    sync.Mutex
	known map[string]bool // guarded by mu
}

func newWords(most int) *words { return &words{most: most, known: map[string]bool{}} }

func (w *words) word(s string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.known[s]:
	case len(w.known) == w.most, len(s) > 253:
		return other
	default:
		w.known[s] = true
	}
	return s
}

func oneOf(s string, known ...string) string {
	for _, k := range known {
		if s == k {
			return s
		}
	}
	return other
}

func kindWord(s string) string {
	return oneOf(s, "exec", "read", "write", "syscall", "capability", "listen", "connect", "mount", "network")
}

func actionWord(s string) string { return oneOf(s, "allow", "report", "deny", "kill", "freeze") }

func doneWord(s string) string {
	return oneOf(s, incident.Killed, incident.Denied, incident.Frozen, incident.Reported)
}

func modeWord(s string) string { return oneOf(s, "learn", "monitor", "enforce") }

// pluginCollector exposes what the plugin says of itself.
type pluginCollector struct {
	health func() health.Health
	bad    func() int
}

var (
	judgements = prometheus.NewDesc("stockade_plugin_judgements_total",
		"What the plugin decided about containers that were to be made: pass, deliver, filter, bare or refuse.", []string{"action"}, nil)
	connected = prometheus.NewDesc("stockade_plugin_connected",
		"1 while the plugin is connected to containerd's NRI.", nil, nil)
	problems = prometheus.NewDesc("stockade_plugin_problems",
		"How many things are wrong with the plugin, the store or the key; /readyz names the first.", nil, nil)
	unprotected = prometheus.NewDesc("stockade_containers_unprotected",
		"Running containers that a profile is for and that no shim of Stockade holds.", nil, nil)
	profilesUsed = prometheus.NewDesc("stockade_profiles", "Profiles that containers can get on this node.", nil, nil)
	profilesBad  = prometheus.NewDesc("stockade_profiles_bad", "Files and resources that are no profile, or whose last good version is used instead.", nil, nil)
	reloadFailed = prometheus.NewDesc("stockade_profile_reloads_failed", "Running containers that keep an older version of their profile.", nil, nil)
)

func (*pluginCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{judgements, connected, problems, unprotected, profilesUsed, profilesBad, reloadFailed} {
		ch <- d
	}
}

func (c *pluginCollector) Collect(ch chan<- prometheus.Metric) {
	h := c.health()
	for action, n := range h.Judgements {
		ch <- prometheus.MustNewConstMetric(judgements, prometheus.CounterValue, float64(n), action)
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	up := 0.0
	if h.Connected {
		up = 1
	}
	gauge(connected, up)
	gauge(problems, float64(len(h.Problems)))
	gauge(unprotected, float64(len(h.Unprotected)))
	gauge(profilesUsed, float64(h.Profiles))
	gauge(profilesBad, float64(c.bad()))
	gauge(reloadFailed, float64(len(h.Reloads)))
}

// shimCollector asks the shims when metrics are scraped.
type shimCollector struct {
	state string
	names *words

	mu     sync.Mutex // one gathering at a time: others wait for it, which is bounded
	totals *totals    // guarded by mu
}

var (
	containers = prometheus.NewDesc("stockade_containers", "Containers that a shim of Stockade holds.", []string{"profile", "mode"}, nil)
	decisions  = prometheus.NewDesc("stockade_decisions_total",
		"Decisions of the shims that the plugin saw alive. Opens that the kernel was told not to ask about again are not among them.", []string{"kind", "action"}, nil)
	answers = prometheus.NewDesc("stockade_answer_duration_seconds",
		"Time from reading a file event to its answer, the blocked thread waiting.", nil, nil)
	calls = prometheus.NewDesc("stockade_call_duration_seconds",
		"Time from receiving a system call that the filter asked about to the verdict.", nil, nil)
	shims       = prometheus.NewDesc("stockade_shims", "Shims of this node that hold containers.", nil, nil)
	shimsSilent = prometheus.NewDesc("stockade_shims_silent", "Shims that did not answer in time when metrics were gathered.", nil, nil)
	shimsBroken = prometheus.NewDesc("stockade_shims_broken", "Shims that cannot protect any more; their containers were killed.", nil, nil)
	undelivered = prometheus.NewDesc("stockade_kernel_events_undelivered_total", "Accesses that the kernel could not tell a shim of; each was denied.", nil, nil)
	overflows   = prometheus.NewDesc("stockade_queue_overflows_total", "Overflows of a kernel queue; what was in it was denied.", nil, nil)
	reportsLost = prometheus.NewDesc("stockade_reports_lost_total", "Violations that a shim acted on, but that came too fast to be reported.", nil, nil)
	askFailed   = prometheus.NewDesc("stockade_shims_unlisted", "1 if the shims of the node could not be listed.", nil, nil)
)

func (*shimCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		containers, decisions, answers, calls, shims, shimsSilent, shimsBroken, undelivered, overflows, reportsLost, askFailed,
	} {
		ch <- d
	}
}

func (c *shimCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, err := ask(context.Background(), c.state)
	if err != nil {
		ch <- prometheus.MustNewConstMetric(askFailed, prometheus.GaugeValue, 1)
		return
	}
	ch <- prometheus.MustNewConstMetric(askFailed, prometheus.GaugeValue, 0)
	c.now(ch, a)
	c.totals.add(a)
	c.totals.collect(ch)
}

// now exposes what there is at this moment.
func (c *shimCollector) now(ch chan<- prometheus.Metric, a asked) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	broken := 0
	by := map[key]int{}
	for _, s := range a.answers {
		if s.Broken != "" {
			broken++
		}
		for _, held := range s.Containers {
			by[key{c.names.word(held.Profile), modeWord(held.Mode)}]++
		}
	}
	for k, n := range by {
		gauge(containers, n, k.a, k.b)
	}
	gauge(shims, a.shims)
	gauge(shimsSilent, a.silent)
	gauge(shimsBroken, broken)
}

func (t *totals) collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for k, n := range t.decisions {
		counter(decisions, n, k.a, k.b)
	}
	ch <- prometheus.MustNewConstHistogram(answers, t.answers.count, t.answers.seconds, t.answers.buckets())
	ch <- prometheus.MustNewConstHistogram(calls, t.calls.count, t.calls.seconds, t.calls.buckets())
	counter(undelivered, t.queue.Undelivered)
	counter(overflows, t.queue.Overflows)
	counter(reportsLost, t.lost)
}
