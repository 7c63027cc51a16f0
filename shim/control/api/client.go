package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Timeout is how long a question may take if its context says nothing: a shim that was stopped never answers.
const Timeout = 10 * time.Second

// Suffix of the sockets' names.
const Suffix = ".sock"

// Folder is where the control sockets of a node are. state is the folder of that name in the node's configuration; a
// path that would be too long for a socket's address (108 bytes, unix(7)) gives way to a short one.
func Folder(state string) string {
	dir := filepath.Join(state, "c")
	if len(dir) > 60 {
		sum := sha256.Sum256([]byte(state))
		return "/run/stockade/c." + hex.EncodeToString(sum[:8])
	}
	return dir
}

// Sockets lists the control sockets of a node. One may be of a shim that has died: see [IsGone]. A folder that is not
// there has none.
func Sockets(state string) ([]string, error) {
	dir := Folder(state)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("control sockets: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if e.Type() == fs.ModeSocket && strings.HasSuffix(e.Name(), Suffix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// IsGone reports whether an error of [Dial] means that nobody listens at the socket any more.
func IsGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// Client asks one shim. It may be used by several goroutines.
type Client struct{ ttrpc *ttrpc.Client }

// Dial connects to the shim at a socket that [Sockets] has listed. It goes nowhere but to root's own socket, through
// no link.
func Dial(ctx context.Context, path string) (*Client, error) {
	if err := trusted(path); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	conn, err := (&net.Dialer{Timeout: Timeout}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	peer, err := PeerOf(conn)
	if err == nil && peer.UID != 0 {
		err = fmt.Errorf("control socket %s: served by uid %d, not by root", path, peer.UID)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &Client{ttrpc.NewClient(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.ttrpc.Close() }

// trusted looks at the socket and its folder.
func trusted(path string) error {
	dir, err := os.Lstat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if !dir.IsDir() || !roots(dir) || dir.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a folder of root's, writable by nobody else", filepath.Dir(path))
	}
	socket, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if socket.Mode().Type() != fs.ModeSocket || !roots(socket) {
		return errors.New("not a socket of root's")
	}
	return nil
}

func roots(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0
}

// Peer is the process at the other end of a connection, when it connected or listened (SO_PEERCRED, unix(7)).
type Peer struct {
	PID int // 0: of a pid namespace that this process does not see
	UID uint32
}

// PeerOf asks the kernel who is at the other end.
func PeerOf(conn net.Conn) (Peer, error) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}, fmt.Errorf("%T has no peer credentials", conn)
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *syscall.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		cred, sockErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, os.NewSyscallError("getsockopt SO_PEERCRED", sockErr)); err != nil {
		return Peer{}, err
	}
	return Peer{PID: int(cred.Pid), UID: cred.Uid}, nil
}

// Status asks what the shim protects.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	return &s, c.call(ctx, MethodStatus, StatusRequest{}, &s)
}

// Reload makes the shim read the store again. An error means that it could not be asked; what became of each container
// is in the response.
func (c *Client) Reload(ctx context.Context, r ReloadRequest) (*ReloadResponse, error) {
	var resp ReloadResponse
	return &resp, c.call(ctx, MethodReload, r, &resp)
}

func (c *Client) call(ctx context.Context, method string, request, response any) error {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Timeout)
		defer cancel()
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var answer wrapperspb.BytesValue
	if err := c.ttrpc.Call(ctx, Service, method, wrapperspb.Bytes(body), &answer); err != nil {
		return fmt.Errorf("ask the shim for %s: %w", method, err)
	}
	if err := json.Unmarshal(answer.GetValue(), response); err != nil {
		return fmt.Errorf("the shim's answer to %s: %w", method, err)
	}
	return nil
}
