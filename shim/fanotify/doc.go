// Package fanotify asks this process before a file is opened or executed.
//
// A [Group] holds marks; the kernel stops each thread that opens or executes a
// marked object and sends an [Event]; the thread goes on when [Group.Respond]
// answers. The package decides nothing and knows no profile.
//
//	g, err := fanotify.Open()
//	err = g.MarkFilesystem(root, fanotify.OpenExecPerm|fanotify.OpenPerm)
//	evs := make([]fanotify.Event, fanotify.Batch)
//	for {
//		n, err := g.Read(evs)              // os.ErrClosed after Close
//		for _, ev := range evs[:n] {
//			g.Respond(ev, decide(ev))      // a thread is blocked until here
//		}
//	}
//
// # Rules for the caller
//
// The reader must never open or execute a marked path itself: nobody would be
// left to answer. That includes os/exec of a marked program from any goroutine
// of the process: between fork and exec Go holds a processor, and the next
// garbage collection waits for it. The fd of an event is exempt.
//
// Nothing slow may stand before an answer: with one reader, every other open
// of every marked object waits behind it.
//
// # What fails, and how
//
// An event that the kernel cannot deliver (no free file descriptor, an object
// that cannot be opened) is denied by the kernel. Read reports it as an Event
// whose [Event.Undelivered] is not nil; [Group.Stats] counts them. Before 6.13
// one kind is not reported, though denied: the EAGAIN of an object under a
// lease (fcntl(2)) looks like an empty queue. When memory for an event is
// short the kernel denies with ENOMEM and sends nothing.
//
// When the last holder of the group is gone, pending and later opens are
// allowed. Hand [Group.File] to a second process that outlives this one and
// kills before it lets go. That process must keep the plain number: wrapped in
// os.NewFile it would join Go's poller and wake the process for each event.
//
// # Limits
//
// Events are for regular files only: a device node, a FIFO, a socket causes
// none on any kernel. Not seen either: memfd_create, objects on mounts without
// a mark, directories, O_PATH opens, changes of metadata. procfs refuses
// permission marks (EINVAL). Delivering an event opens the object in the
// reader: on a file system whose server does not answer (FUSE, NFS) that
// blocks every event of the group, so such mounts should not be marked with
// others that matter more.
//
// Kernels: 5.7 for the group, 6.0 for the ignore marks (EINVAL before), 6.13
// for knowing who asked for an undelivered event. See fanotify(7),
// fanotify_init(2), fanotify_mark(2).
package fanotify
