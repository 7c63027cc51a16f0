package guard

import (
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// page is the memory that shim and guard share: one number that the shim's loop raises at the beginning and at the end of
// each batch of events. Odd is busy. A number says more than a time would: it also changes when two batches begin in the
// same tick, and no jump of a clock makes a batch old. The guard measures with its own clock.
type page struct {
	file *os.File
	n    *atomic.Uint64
}

const pageSize = 4096

// newPage makes the page, sealed so that nobody can pull it away under the guard (SIGBUS).
func newPage() (*page, error) {
	fd, err := unix.MemfdCreate(comm, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), comm)
	if err := unix.Ftruncate(fd, pageSize); err != nil {
		_ = file.Close()
		return nil, os.NewSyscallError("ftruncate", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		_ = file.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	n, err := mapPage(fd, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &page{file: file, n: n}, nil
}

// mapPage maps it for the life of the process.
func mapPage(fd, prot int) (*atomic.Uint64, error) {
	mem, err := unix.Mmap(fd, 0, pageSize, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return (*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(mem))), nil
}

// busy makes the number odd, and different from the last odd one.
func (p *page) busy() { p.n.Store((p.n.Load() + 1) | 1) }

// idle makes it even.
func (p *page) idle() { p.n.Store((p.n.Load() + 1) &^ 1) }
