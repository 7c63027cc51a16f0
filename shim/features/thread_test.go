package features_test

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stockade-dev/stockade/shim/features"
)

// TestProbeEndsNoThread: what others have started with a parent-death signal, as the shim starts runc, lives on. The
// signal comes when the thread ends that made the process (prctl(2)).
func TestProbeEndsNoThread(t *testing.T) {
	const n = 30
	for range 5 {
		var all sync.WaitGroup
		commands := make([]*exec.Cmd, n)
		for i := range commands {
			all.Go(func() {
				c := exec.Command("sleep", "100")
				c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGUSR1}
				runtime.LockOSThread()
				err := c.Start()
				runtime.UnlockOSThread()
				if err != nil {
					t.Error(err)
				}
				commands[i] = c
			})
		}
		all.Wait()
		features.Probe()
		for _, c := range commands {
			_ = c.Process.Kill()
			_ = c.Wait()
			if s := c.ProcessState.Sys().(syscall.WaitStatus).Signal(); s != syscall.SIGKILL {
				t.Errorf("a process ended by %v: the thread that had started it is gone", s)
			}
		}
	}
}
