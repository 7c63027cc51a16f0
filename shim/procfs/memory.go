package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoString says that a process's memory holds no string at an address.
var ErrNoString = errors.New("no string there")

const pageSize = 4096

// String reads a NUL-terminated string of at most PATH_MAX bytes from the memory of a process
// (process_vm_readv(2)). Other threads may change it at any time, and memory can be made so that reading it takes as
// long as its owner likes: it is for evidence and for detection, never for what an answer to somebody else waits for.
func String(pid int, addr uint64) (string, error) {
	if addr == 0 {
		return "", ErrNoString
	}
	buf := make([]byte, 0, 256)
	for len(buf) < unix.PathMax {
		// Up to the end of a page: the next one may not be there.
		n := min(pageSize-int(addr%pageSize), 256, unix.PathMax-len(buf))
		part := buf[len(buf) : len(buf)+min(n, cap(buf)-len(buf))]
		if len(part) == 0 {
			buf = append(buf, make([]byte, 256)...)[:len(buf)]
			continue
		}
		local := []unix.Iovec{{Base: &part[0], Len: uint64(len(part))}}
		remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(part)}}
		got, err := unix.ProcessVMReadv(pid, local, remote, 0)
		if err != nil {
			return "", fmt.Errorf("pid %d: %w", pid, os.NewSyscallError("process_vm_readv", err))
		}
		if i := bytes.IndexByte(part[:got], 0); i >= 0 {
			return string(buf[:len(buf)+i]), nil
		}
		buf = buf[:len(buf)+got]
		addr += uint64(got)
		if got == 0 {
			return "", ErrNoString
		}
	}
	return "", ErrNoString
}

// Credentials are what the kernel asks about when a process wants to change a file (credentials(7)).
type Credentials struct {
	UID, GID uint32 // for the file system
	Groups   []uint32
	Caps     uint64 // effective
}

// Credentials reads /proc/TID/status (proc_pid_status(5)).
func (p *FS) Credentials(tid int) (Credentials, error) {
	buf := make([]byte, 16<<10) // a process has at most 65536 groups; one with more than fit is cut off
	b, err := p.read(tid, "status", buf)
	if err != nil {
		return Credentials{}, err
	}
	var c Credentials
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(bytes.TrimRight(line, "\n"), []byte(":"))
		fields := bytes.Fields(value)
		switch string(key) {
		case "Uid", "Gid":
			if len(fields) != 4 {
				return c, fmt.Errorf("/proc/%d/status: %w", tid, errParse)
			}
			n, ok := parseUint(fields[3], 10)
			if !ok {
				return c, fmt.Errorf("/proc/%d/status: %w", tid, errParse)
			}
			if string(key) == "Uid" {
				c.UID = uint32(n)
			} else {
				c.GID = uint32(n)
			}
		case "Groups":
			for _, f := range fields {
				if n, ok := parseUint(f, 10); ok {
					c.Groups = append(c.Groups, uint32(n))
				}
			}
		case "CapEff":
			if len(fields) == 1 {
				c.Caps, _ = parseUint(fields[0], 16)
			}
		}
	}
	return c, nil
}
