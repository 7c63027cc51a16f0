package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/integration/node"
)

const module = "/usr/lib/redis/modules/diag.so"

// server is a redis in a container, spoken to through its port.
type server struct {
	*node.Task
	addr string
}

func startServer(ctx context.Context, n *node.Node, image string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	task, err := n.Run(ctx, node.RunOpts{
		Image: image, Runtime: node.Stockade, Profile: "demo-redis", HostNetwork: true, User: "root",
		Args: []string{
			"/usr/bin/redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(port),
			"--dir", "/data", "--save", "", "--appendonly", "yes", "--loadmodule", module,
		},
	})
	if err != nil {
		return nil, err
	}
	s := &server{Task: task, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if reply, err := s.ask(ctx, "PING"); err == nil && reply == "PONG" {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("redis does not answer: %w\n%s", ctx.Err(), task.Output())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freePort lets the kernel choose. Somebody else may take it meanwhile; then the server says so.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// ask sends one command and returns its reply (RESP, https://redis.io/docs/latest/develop/reference/protocol-spec).
func (s *server) ask(ctx context.Context, words ...string) (string, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	fmt.Fprintf(conn, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(w), w)
	}
	return readReply(bufio.NewReader(conn))
}

func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", io.ErrUnexpectedEOF
	}
	switch line[0] {
	case '+', ':':
		return line[1:], nil
	case '-':
		return "", fmt.Errorf("redis: %s", line[1:])
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", err
		}
		buf := make([]byte, n)
		_, err = io.ReadFull(r, buf)
		return string(buf), err
	}
	return "", fmt.Errorf("redis: reply %q", line)
}
