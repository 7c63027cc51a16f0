package notify

import "syscall"

// Process says of which process runc handed over the descriptor.
type Process struct {
	Container string // the container's id, in runc's words
	Bundle    string
	PID       int  // of the process, as this process' pid namespace counts
	Init      bool // the container's first process, not an exec'd one
	Metadata  string
}

// Call is one syscall that waits for an answer.
type Call struct {
	// PID is the thread (a tid) that called, as this process' pid namespace
	// counts it; 0 when it cannot be seen from here.
	PID  int
	Nr   int
	Name string // "syscall_1234" when libseccomp has no name for it
	Arch string // the entry: "amd64", "x86", "x32", "arm64", "arm"
	Args [6]uint64

	// Process whose descriptor told us. The caller is that process or one
	// that descends from it.
	Process Process

	id uint64
	fd int
}

// Answer is what the kernel does with the call. The zero value denies with
// EPERM.
type Answer struct {
	cont  bool
	errno syscall.Errno
}

// Deny fails the call with errno; 0 means EPERM.
func Deny(errno syscall.Errno) Answer { return Answer{errno: errno} }

// Continue lets the kernel do the call. The arguments that point to memory
// can have changed since they were looked at (seccomp_unotify(2)): it is for
// observing, never for enforcing.
func Continue() Answer { return Answer{cont: true} }
