// Package control serves a shim's control socket: what the shim protects and what it has done, and the order to read
// the profiles again. Package api has the messages, the client, and who is trusted.
//
// The server takes nobody but root, and no process of a container that the shim protects. It keeps no more than a few
// connections, and none that is silent: a client that hangs costs a descriptor for half a minute. That it cannot listen
// stops no container: protection does not depend on it.
package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stockade-dev/stockade/shim/control/api"
)

// Handler answers. Its methods are called from several goroutines.
type Handler interface {
	Status(context.Context) (*api.Status, error)
	Reload(context.Context, api.Peer, api.ReloadRequest) (*api.ReloadResponse, error)
	// Own reports whether a process belongs to a container that the shim protects.
	Own(pid int) bool
}

const (
	maxConnections = 32
	silence        = 30 * time.Second // after which a connection is closed
	sending        = 5 * time.Second  // for a client to take an answer
)

// Server is one shim's control socket.
type Server struct {
	path     string
	listener net.Listener
	handler  Handler
	slots    chan struct{}

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // guarded by mu
	closed bool                  // guarded by mu
}

// Listen opens the socket of this process under the node's state folder and serves it until Close.
func Listen(state, name string, h Handler) (*Server, error) {
	dir := api.Folder(state)
	if err := makeFolder(dir); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	sum := sha256.Sum256([]byte(name))
	s := &Server{
		path: filepath.Join(dir, hex.EncodeToString(sum[:10])+api.Suffix), handler: h,
		slots: make(chan struct{}, maxConnections), conns: map[net.Conn]struct{}{},
	}
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	go s.accept()
	return s, nil
}

// listen gives the socket its name when somebody listens at it: one that refuses connections is a dead shim's.
func (s *Server) listen() error {
	temp := s.path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, s.path)); err != nil {
		_ = l.Close()
		_ = os.Remove(temp)
		return err
	}
	s.listener = l
	return nil
}

// makeFolder makes the sockets' folder, or looks at the one that is there: it must be root's alone.
func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || st.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s is not a folder of root's", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return os.Chmod(dir, 0o700)
	}
	return nil
}

// Path is the socket.
func (s *Server) Path() string { return s.path }

// Close ends the service and every connection, and removes the socket.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := errors.Join(os.Remove(s.path), s.listener.Close())
	for c := range s.conns {
		_ = c.Close()
	}
	return err
}

// Remove takes away the socket of a shim that has died. One at which somebody listens is left alone.
func Remove(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return os.Remove(path)
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, perhaps for a while
			time.Sleep(100 * time.Millisecond)
			continue
		}
		select {
		case s.slots <- struct{}{}:
			go func() {
				defer func() { <-s.slots }()
				s.serve(conn)
			}()
		default:
			_ = conn.Close()
		}
	}
}

// serve talks to one client until it goes, or says nothing for too long.
func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	peer, err := api.PeerOf(conn)
	if err != nil || peer.UID != 0 || s.handler.Own(peer.PID) || !s.enter(conn) {
		return
	}
	defer s.exit(conn)
	// A server for each connection: ttrpc does not tell a method whose request it is.
	server, err := ttrpc.NewServer()
	if err != nil {
		return
	}
	defer server.Close()
	server.RegisterService(api.Service, &ttrpc.ServiceDesc{Methods: s.methods(peer)})
	one := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	one.conn <- &patient{Conn: conn, silence: silence, closed: one.close}
	_ = server.Serve(context.Background(), one)
}

func (s *Server) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) exit(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

func (s *Server) methods(peer api.Peer) map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		api.MethodStatus: method(func(ctx context.Context, _ api.StatusRequest) (*api.Status, error) {
			return s.handler.Status(ctx)
		}),
		api.MethodReload: method(func(ctx context.Context, r api.ReloadRequest) (*api.ReloadResponse, error) {
			return s.handler.Reload(ctx, peer, r)
		}),
	}
}

// method makes a ttrpc method of a function: JSON in a BytesValue, both ways.
func method[Q, R any](f func(context.Context, Q) (*R, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		var body wrapperspb.BytesValue
		if err := unmarshal(&body); err != nil {
			return nil, err
		}
		var request Q
		if err := json.Unmarshal(body.GetValue(), &request); err != nil {
			return nil, fmt.Errorf("the request: %w", err)
		}
		response, err := f(ctx, request)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(response)
		return wrapperspb.Bytes(data), err
	}
}

// oneConn is a listener with one connection: Serve ends with it.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (o *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-o.conn:
		return c, nil
	case <-o.closed:
		return nil, net.ErrClosed
	}
}

func (o *oneConn) close()         { o.once.Do(func() { close(o.closed) }) }
func (o *oneConn) Close() error   { o.close(); return nil }
func (o *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

// patient is a connection whose client is waited for, but not for ever.
type patient struct {
	net.Conn
	silence time.Duration
	closed  func()
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(p.silence)); err != nil {
		return 0, err
	}
	n, err := p.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF // as if it had gone: what else ttrpc takes for an end it waits for
	}
	return n, err
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(sending)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

func (p *patient) Close() error {
	p.closed()
	return p.Conn.Close()
}
