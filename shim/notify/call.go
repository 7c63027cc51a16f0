package notify

import (
	"fmt"
	"syscall"

	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Process says of which process runc handed over the descriptor.
type Process struct {
	Container string // the container's id, in runc's words
	Bundle    string
	PID       int  // of the process, as this process' pid namespace counts
	Init      bool // the container's first process, not an exec'd one
	Metadata  string
}

func (p Process) String() string {
	if p.Container == "" {
		return "unknown process"
	}
	return fmt.Sprintf("container %s, process %d", p.Container, p.PID)
}

// Call is one syscall that waits for an answer.
type Call struct {
	// PID is the thread (a tid) that called, as this process' pid namespace
	// counts it; 0 when it cannot be seen from here.
	PID  int
	Nr   int    // as the kernel counts: x32's with bit 30
	Name string // "syscall_1234" when libseccomp has no name for it
	Arch string // the entry: "amd64", "x86", "x32", "arm64", "arm"
	Args [6]uint64

	// Process whose descriptor told us. The caller is that process or one
	// that descends from it.
	Process Process

	id uint64
	d  *descriptor
}

// Valid says whether the call still waits (ErrGone: it does not), so that what
// was read about PID in the meantime was about the caller and not about a
// later process of the same number (SECCOMP_IOCTL_NOTIF_ID_VALID,
// seccomp_unotify(2)).
func (c *Call) Valid() error {
	return c.d.use(func(fd int) error { return valid(fd, c.id) })
}

// Answer is what the kernel does with the call. The zero value denies with
// EPERM.
type Answer struct {
	cont  bool
	errno syscall.Errno
}

// Deny fails the call with errno. What is not an error number (1 to 4095)
// means EPERM, lest it look like success.
func Deny(errno syscall.Errno) Answer { return Answer{errno: errno} }

// Continue lets the kernel do the call. The arguments that point to memory
// can have changed since they were looked at (seccomp_unotify(2)): it is for
// observing, never for enforcing.
func Continue() Answer { return Answer{cont: true} }

const maxErrno = 4095 // MAX_ERRNO, linux/err.h

func (a Answer) response(id uint64) response {
	if a.cont {
		return response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	}
	if a.errno == 0 || a.errno > maxErrno {
		a.errno = syscall.EPERM
	}
	return response{id: id, errno: -int32(a.errno)}
}

// x32Bit tells the x32 entry from amd64's, which has the same AUDIT_ARCH
// (arch/x86/include/uapi/asm/unistd.h).
const x32Bit = 0x40000000

var arches = map[uint32]struct {
	name string
	lib  lib.ScmpArch
}{
	unix.AUDIT_ARCH_X86_64:  {"amd64", lib.ArchAMD64},
	unix.AUDIT_ARCH_I386:    {"x86", lib.ArchX86},
	unix.AUDIT_ARCH_AARCH64: {"arm64", lib.ArchARM64},
	unix.AUDIT_ARCH_ARM:     {"arm", lib.ArchARM},
}

func newCall(n *notification, d *descriptor) *Call {
	c := &Call{
		PID: int(n.pid), Nr: int(n.data.nr), Args: n.data.args,
		Process: d.process, id: n.id, d: d,
	}
	a, known := arches[n.data.arch]
	c.Arch = a.name
	if !known {
		c.Arch = fmt.Sprintf("%#x", n.data.arch)
	}
	if c.Arch == "amd64" && c.Nr&x32Bit != 0 {
		c.Arch, a.lib = "x32", lib.ArchX32
	}
	if known {
		c.Name, _ = lib.ScmpSyscall(c.Nr).GetNameByArch(a.lib)
	}
	if c.Name == "" {
		c.Name = fmt.Sprintf("syscall_%d", c.Nr)
	}
	return c
}
