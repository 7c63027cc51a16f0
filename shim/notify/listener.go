package notify

// Handler answers one call. It runs while the caller is blocked: nothing that
// can wait for the disk, a log or another process belongs into it. An error
// or a panic is answered with EPERM and told to Fault.
type Handler func(*Call) (Answer, error)

// Listener receives notification descriptors from runc and answers the calls.
type Listener struct{}

// Listen creates the unix socket path in a folder of mode 0700 that belongs
// to this user.
func Listen(path string) (*Listener, error) { return &Listener{}, nil }

// Serve answers until Close, and then returns nil. fault is told what went
// wrong after the answer has been given: a container whose owner hears of a
// fault must be killed. It is called from several goroutines.
func (l *Listener) Serve(handle Handler, fault func(Process, error)) error { return nil }

// Init is closed once the container's first process is being listened to.
// Before that the container must not be started.
func (l *Listener) Init() <-chan struct{} { return nil }

// Close stops listening, wakes everything and waits for it. Calls that wait
// for an answer, and later ones, fail with ENOSYS.
func (l *Listener) Close() error { return nil }

// Valid says whether the call still waits, so that what was read about PID in
// the meantime was about the caller and not about a later process of the same
// number (SECCOMP_IOCTL_NOTIF_ID_VALID, seccomp_unotify(2)).
func (c *Call) Valid() error { return nil }
