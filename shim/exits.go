package shim

import (
	"context"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	containerd "github.com/containerd/containerd/v2/pkg/shim"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/enforce"
)

// exits passes on what the task service publishes, and looks at how processes ended. A system call through an entry
// that the filter closes altogether (32-bit, x32) cannot be asked about: the kernel kills the process with SIGSYS.
// When that was the container's first process, or an exec session's, it is seen here.
type exits struct {
	containerd.Publisher
	sigsys func(container, process string, pid int)
}

const statusSIGSYS = 128 + uint32(unix.SIGSYS)

func (e *exits) Publish(ctx context.Context, topic string, event events.Event) error {
	if exit, ok := event.(*eventstypes.TaskExit); ok && exit.ExitStatus == statusSIGSYS {
		e.sigsys(exit.ContainerID, exit.ID, int(exit.Pid))
	}
	return e.Publisher.Publish(ctx, topic, event)
}

// sigsys kills the rest of a container of which a process was ended by the filter, and tells of it.
func (s *service) sigsys(id, process string, pid int) {
	if f := s.fence(id); f != nil {
		f.ended(process, pid)
	}
}

// ended takes note of a process that ended with SIGSYS, once: the event may come after the container was deleted, and
// then it was the deletion that told.
func (f *fence) ended(process string, pid int) {
	if f.enforced() == nil || f.plan.Mode != profiles.ModeEnforce {
		return
	}
	if _, told := f.told.LoadOrStore(process, true); told {
		return
	}
	v := enforce.Violation{
		Time: time.Now(), PID: pid, TID: pid,
		Access: profiles.Access{Kind: profiles.Syscall},
	}
	v.Plan = f.now()
	v.Verdict = v.Plan.Refuse(profiles.ReasonFilter)
	f.container.CountEnd(&v)
	if v.Verdict.Action == profiles.Kill {
		begin := time.Now()
		v.Err = f.container.Kill()
		v.Killed = time.Since(begin)
	}
	f.engine.report.put(f, v)
}
