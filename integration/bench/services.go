package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/node"
)

// measureRedis runs Redis's own load generator beside the server.
func measureRedis(suffix, requests, pipeline string) func(context.Context, *bench, *host, variant) error {
	return func(ctx context.Context, b *bench, h *host, v variant) error {
		e, err := h.redis.Exec(ctx, node.ExecOpts{Args: []string{
			"/usr/bin/redis-benchmark", "--csv", "-t", "set,get", "-n", requests, "-c", "20", "-P", pipeline, "-r", "10000",
		}})
		if err != nil {
			return err
		}
		code, err := e.Wait(ctx)
		if err := errors.Join(err, e.Delete(ctx)); err != nil || code != 0 {
			return fmt.Errorf("redis-benchmark: exit code %d: %w\n%s", code, err, e.Output())
		}
		rows, err := csv.NewReader(strings.NewReader(e.Stdout())).ReadAll()
		if err != nil || len(rows) != 3 {
			return fmt.Errorf("redis-benchmark: %w\n%s", err, e.Output())
		}
		for _, row := range rows[1:] {
			rate, err := strconv.ParseFloat(row[1], 64)
			if err != nil {
				return err
			}
			b.results.add("redis "+row[0]+suffix, v, rate)
		}
		return nil
	}
}

const (
	clients    = 4
	clientTime = 700 * time.Millisecond
)

const request = "GET /index.html HTTP/1.1\r\nHost: bench\r\n\r\n"

// measureNginx asks for a static file over connections that are kept. The client is as lean as it can be, so that what
// is measured is the server.
func measureNginx(ctx context.Context, b *bench, h *host, v variant) error {
	var total atomic.Int64
	var wait sync.WaitGroup
	errs := make(chan error, clients)
	begin := time.Now()
	for range clients {
		wait.Go(func() {
			n, err := browse(h.nginx, begin.Add(clientTime))
			total.Add(int64(n))
			errs <- err
		})
	}
	wait.Wait()
	took := time.Since(begin)
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	b.results.add("nginx static file", v, float64(total.Load())/took.Seconds())
	return nil
}

func browse(t *node.Task, until time.Time) (pages int, err error) {
	conn, err := dial(t, "127.0.0.1:8080")
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(until.Add(20 * time.Second))
	r := bufio.NewReader(conn)
	for time.Now().Before(until) {
		if _, err := io.WriteString(conn, request); err != nil {
			return pages, err
		}
		if err := skipPage(r); err != nil {
			return pages, err
		}
		pages++
	}
	return pages, nil
}

// skipPage reads a response (RFC 9112) and forgets it.
func skipPage(r *bufio.Reader) error {
	length := -1
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !strings.HasPrefix(string(line), "HTTP/1.1 200 ") {
			return fmt.Errorf("nginx: %s", line)
		}
		if value, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
		if len(line) <= 2 {
			break
		}
	}
	_, err := r.Discard(length)
	return err
}

func awaitPage(ctx context.Context, t *node.Task) error {
	for range 600 {
		n, err := browse(t, time.Now().Add(time.Millisecond))
		if err == nil && n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
	return fmt.Errorf("nginx does not answer:\n%s", t.Output())
}

// dial connects from inside the container's network namespace. The thread that enters it never comes back.
func dial(t *node.Task, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", t.InitPID()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- result{err: err}
			return
		}
		defer unix.Close(ns)
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- result{err: err}
			return
		}
		conn, err := net.DialTimeout("tcp", address, 10*time.Second)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
