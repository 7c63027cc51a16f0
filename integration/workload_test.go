package integration_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

// starts is how often in a row each service is started: STARTS, else 50, and a few under -short.
func starts(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("STARTS")); err == nil {
		return n
	}
	if testing.Short() {
		return 5
	}
	return 50
}

func bind(source, destination string) specs.Mount {
	return specs.Mount{Type: "bind", Source: source, Destination: destination, Options: []string{"rbind", "rw"}}
}

func startRedis(t *testing.T, data string, args ...string) (*node.Task, *redisConn) {
	t.Helper()
	task := fenced(t, shared, node.RunOpts{
		Image: image.Ref("redis-entry"), Profile: "redis", Mounts: []specs.Mount{bind(data, "/data")},
		Args: append([]string{"/usr/local/bin/docker-entrypoint.sh", "redis-server"}, args...),
	})
	var c *redisConn
	eventually(t, task, "redis answers", func() (err error) {
		if c, err = dialRedis(task); err != nil {
			return err
		}
		_, err = c.do("PING")
		return err
	})
	t.Cleanup(func() { c.Close() })
	return task, c
}

func (c *redisConn) must(t *testing.T, task *node.Task, command string) string {
	t.Helper()
	reply, err := c.do(command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, task.Output())
	}
	return reply
}

// settled waits until Redis's own child has ended well.
func (c *redisConn) settled(t *testing.T, task *node.Task, running, status string) {
	t.Helper()
	eventually(t, task, running, func() error {
		if info := c.must(t, task, "INFO persistence"); strings.Contains(info, running+":1") {
			return errors.New("still running")
		}
		return nil
	})
	if info := c.must(t, task, "INFO persistence"); !strings.Contains(info, status+":ok") {
		t.Errorf("%s is not ok:\n%s\n%s", status, info, task.Output())
	}
}

func TestRedis(t *testing.T) {
	servicesReady(t)
	data := volume(t, 0o755, 0)
	// A file of root's: the script has something to give away.
	if err := os.WriteFile(filepath.Join(data, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	task, c := startRedis(t, data, "--appendonly", "yes", "--save", "3600 1")
	session(t, task, "/usr/bin/redis-benchmark", "-q", "-n", "5000", "-c", "20", "-t", "set,get,lpush,zadd")
	c.must(t, task, "SET kept value")
	for _, command := range []string{"CONFIG SET save 1", "CONFIG GET save", "CONFIG SET appendfsync always", "CONFIG SET maxmemory 64mb"} {
		if command == "CONFIG SET save 1" {
			command = `CONFIG SET save "1 1"`
		}
		if strings.HasPrefix(command, "CONFIG GET") {
			session(t, task, append([]string{"/usr/bin/redis-cli"}, strings.Fields(command)...)...)
			continue
		}
		c.must(t, task, command)
	}
	for range 3 {
		c.must(t, task, "BGREWRITEAOF")
		c.settled(t, task, "aof_rewrite_in_progress", "aof_last_bgrewrite_status")
		c.must(t, task, "BGSAVE SCHEDULE")
		c.settled(t, task, "rdb_bgsave_in_progress", "rdb_last_bgsave_status")
		c.must(t, task, "SAVE")
	}
	stop(t, task, unix.SIGTERM, 0)
	noIncident(t, shared, task)

	task, c = startRedis(t, data, "--appendonly", "yes")
	if v := c.must(t, task, "GET kept"); v != "value" {
		t.Errorf("after a restart the value is %q", v)
	}
	stop(t, task, unix.SIGTERM, 0)
	noIncident(t, shared, task)
	if st, err := os.Stat(filepath.Join(data, "old")); err != nil || st.Sys() == nil {
		t.Error(err)
	}
}

func TestRedisStarts(t *testing.T) {
	servicesReady(t)
	data := volume(t, 0o755, 0)
	for i := range starts(t) {
		task, c := startRedis(t, data, "--save", "3600 1")
		if i > 0 {
			if v := c.must(t, task, "GET n"); v != strconv.Itoa(i-1) {
				t.Fatalf("start %d: n is %q", i, v)
			}
		}
		c.must(t, task, fmt.Sprintf("SET n %d", i))
		stop(t, task, unix.SIGTERM, 0)
		noIncident(t, shared, task)
		if err := task.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d starts", starts(t))
}

func startNginx(t *testing.T) (*node.Task, *http.Client) {
	t.Helper()
	task := fenced(t, shared, node.RunOpts{Image: image.Ref("nginx-web"), Profile: "nginx"})
	client := &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 8,
			DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
				return dial(task, network, address)
			},
		},
	}
	t.Cleanup(client.CloseIdleConnections)
	eventually(t, task, "nginx answers", func() error { _, err := fetch(client, http.MethodGet, "/", ""); return err })
	return task, client
}

func fetch(c *http.Client, method, path, body string) (string, error) {
	req, err := http.NewRequest(method, "http://127.0.0.1:8080"+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	// A worker that a reload ends may close a kept-alive connection as a request arrives; net/http tries again on another
	// one only what it may repeat, and a PUT and a DELETE only with this key (not sent without a value).
	req.Header["Idempotency-Key"] = nil
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return string(data), err
}

// browse loads a site: pages, what is not there, uploads and downloads.
func browse(c *http.Client, who, rounds int) error {
	for i := range rounds {
		if page, err := fetch(c, http.MethodGet, "/", ""); err != nil || !strings.Contains(page, "It works") {
			return fmt.Errorf("page %q: %w", page, err)
		}
		if _, err := fetch(c, http.MethodGet, "/style.css", ""); err != nil {
			return err
		}
		if _, err := fetch(c, http.MethodGet, "/nothing", ""); err == nil {
			return errors.New("a page that is not there was answered")
		}
		if i%10 > 0 {
			continue
		}
		name, body := fmt.Sprintf("/upload/%d/%d", who, i), strings.Repeat("0123456789abcdef", 1<<12)
		if _, err := fetch(c, http.MethodPut, name, body); err != nil {
			return err
		}
		if got, err := fetch(c, http.MethodGet, name, ""); err != nil || got != body {
			return fmt.Errorf("an upload of %d bytes came back as %d: %w", len(body), len(got), err)
		}
		if _, err := fetch(c, http.MethodDelete, name, ""); err != nil {
			return err
		}
	}
	return nil
}

func TestNginx(t *testing.T) {
	servicesReady(t)
	task, client := startNginx(t)
	errs := make(chan error)
	const clients = 4
	for who := range clients {
		go func() { errs <- browse(client, who, 60) }()
	}
	for range 3 {
		// Reloading under load: new workers, and the old ones end.
		if err := task.Kill(t.Context(), unix.SIGHUP); err != nil {
			t.Error(err)
		}
		session(t, task, "/usr/sbin/nginx", "-t")
	}
	for range clients {
		// A worker that a reload ends may close a connection that is kept alive.
		if err := <-errs; err != nil && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	session(t, task, "/usr/sbin/nginx", "-s", "reload")
	if err := task.Kill(t.Context(), unix.SIGUSR1); err != nil { // opens its logs again
		t.Error(err)
	}
	if err := browse(client, clients, 20); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(filepath.Join(task.Rootfs().Upper, "var/log/nginx/access.log"))
	if err != nil || bytes.Count(log, []byte("GET / HTTP")) < clients || !strings.Contains(task.Output(), "GET / HTTP") {
		t.Errorf("access log, %v: %.200s\nstandard output: %.200s", err, log, task.Output())
	}
	stop(t, task, unix.SIGQUIT, 0)
	noIncident(t, shared, task)
}

func TestNginxStarts(t *testing.T) {
	servicesReady(t)
	for range starts(t) {
		task, client := startNginx(t)
		if err := browse(client, 0, 2); err != nil {
			t.Fatal(err)
		}
		client.CloseIdleConnections()
		stop(t, task, unix.SIGQUIT, 0)
		noIncident(t, shared, task)
		if err := task.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d starts", starts(t))
}

func startPostgres(t *testing.T, data string) *node.Task {
	t.Helper()
	task := fenced(t, shared, node.RunOpts{
		Image: image.Ref("postgres"), Profile: "postgres",
		Env: []string{"PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin"}, // the harness's default would hide the image's
		Mounts: []specs.Mount{
			bind(data, "/var/lib/postgresql/data"),
			{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp", Options: []string{"rw", "mode=1777"}},
			{Type: "tmpfs", Source: "tmpfs", Destination: "/run/postgresql", Options: []string{"rw", "uid=70", "mode=0700"}},
		},
	})
	eventually(t, task, "postgres answers", func() error {
		_, code, err := trySession(t.Context(), task, node.ExecOpts{Args: []string{"/usr/lib/postgresql/15/bin/pg_isready"}})
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d", code)
		}
		return err
	})
	return task
}

func TestPostgres(t *testing.T) {
	servicesReady(t)
	const bin = "/usr/lib/postgresql/15/bin/"
	data := volume(t, 0o700, 70)
	task := startPostgres(t, data)
	session(t, task, bin+"pgbench", "-i", "-q", "-s", "1", "postgres")
	session(t, task, bin+"pgbench", "-T", "5", "-c", "4", "-j", "2", "postgres")
	for _, sql := range []string{
		"CREATE DATABASE another", "CHECKPOINT", "VACUUM FULL", "REINDEX DATABASE postgres",
		"SET max_parallel_workers_per_gather=2; SET parallel_setup_cost=0; SET parallel_tuple_cost=0; SET min_parallel_table_scan_size=0; SELECT count(*) FROM pgbench_accounts a JOIN pgbench_branches b USING (bid)",
		"SET work_mem='64kB'; SELECT count(*) FROM (SELECT * FROM pgbench_accounts ORDER BY filler, aid) x",
		"DROP DATABASE another", "ALTER SYSTEM SET work_mem='8MB'", "SELECT pg_reload_conf()", "SELECT pg_switch_wal()",
	} {
		session(t, task, bin+"psql", "-c", sql, "postgres")
	}
	// A server process that dies takes all connections down, and the server recovers.
	if out := session(t, task, bin+"psql", "-Atc", "SELECT count(*) FROM pgbench_accounts", "postgres"); strings.TrimSpace(out) != "100000" {
		t.Errorf("rows: %q", out)
	}
	stop(t, task, unix.SIGINT, 0)
	noIncident(t, shared, task)

	task = startPostgres(t, data)
	if out := session(t, task, bin+"psql", "-Atc", "SELECT count(*) FROM pgbench_accounts", "postgres"); strings.TrimSpace(out) != "100000" {
		t.Errorf("rows after a restart: %q", out)
	}
	stop(t, task, unix.SIGINT, 0)
	noIncident(t, shared, task)
}

func TestPostgresStarts(t *testing.T) {
	servicesReady(t)
	data := volume(t, 0o700, 70)
	for i := range starts(t) {
		task := startPostgres(t, data)
		if i == 0 {
			session(t, task, "/usr/lib/postgresql/15/bin/psql", "-c", "CREATE TABLE n (i int)", "postgres")
		}
		out := session(t, task, "/usr/lib/postgresql/15/bin/psql", "-Atc", "INSERT INTO n VALUES (1); SELECT count(*) FROM n", "postgres")
		if !strings.HasSuffix(strings.TrimSpace(out), strconv.Itoa(i+1)) {
			t.Fatalf("start %d: %q", i, out)
		}
		stop(t, task, unix.SIGINT, 0)
		noIncident(t, shared, task)
		if err := task.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d starts", starts(t))
}

func TestJob(t *testing.T) {
	servicesReady(t)
	for i, rounds := range append([]string{"40"}, strings.Fields(strings.Repeat("1 ", starts(t)))...) {
		data := volume(t, 0o755, 0)
		task := fenced(t, shared, node.RunOpts{
			Image: image.Ref("job"), Profile: "job", Args: []string{"/usr/local/bin/report.sh", rounds},
			Mounts: []specs.Mount{
				bind(data, "/report"),
				{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp", Options: []string{"rw", "mode=1777"}},
			},
		})
		if code, err := task.Wait(t.Context()); code != 0 || err != nil || !strings.Contains(task.Output(), "round "+rounds+" done") {
			t.Errorf("start %d: exit code %d, %v\n%s", i, code, err, task.Output())
		}
		if _, err := os.Stat(filepath.Join(data, "latest")); err != nil {
			t.Error(err)
		}
		noIncident(t, shared, task)
		if err := task.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
}

// TestSessionsUnderLoad asks as probes do, over and over, while the service is busy.
func TestSessionsUnderLoad(t *testing.T) {
	servicesReady(t)
	task, c := startRedis(t, volume(t, 0o755, 0), "--appendonly", "yes")
	var load sync.WaitGroup
	done := make(chan struct{})
	load.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if _, err := c.do(fmt.Sprintf("SET key:%d %d", i%1000, i)); err != nil {
				t.Errorf("SET: %v", err)
				return
			}
			if i%2000 == 0 {
				_, _ = c.do("BGREWRITEAOF") // refused while one runs
			}
		}
	})
	for i := range 100 {
		o := node.ExecOpts{Args: []string{"redis-cli", "ping"}, TTY: i%10 == 9}
		out, code, err := trySession(t.Context(), task, o)
		if err != nil || code != 0 || strings.TrimSpace(out) != "PONG" {
			t.Fatalf("probe %d: %q, %d, %v\n%s", i, out, code, err, task.Output())
		}
	}
	// Several at once, as several probes and people do.
	var probes sync.WaitGroup
	for range 8 {
		probes.Go(func() {
			for range 5 {
				if out, code, err := trySession(t.Context(), task, node.ExecOpts{Args: []string{"/usr/bin/redis-cli", "ping"}}); err != nil || code != 0 || !strings.Contains(out, "PONG") {
					t.Errorf("probe: %q, %d, %v", out, code, err)
				}
			}
		})
	}
	probes.Wait()
	close(done)
	load.Wait()
	stop(t, task, unix.SIGTERM, 0)
	noIncident(t, shared, task)
}
