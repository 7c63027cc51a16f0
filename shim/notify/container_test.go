package notify_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stockade-dev/stockade/profiles/seccomp"
	"github.com/stockade-dev/stockade/shim/notify"
)

// both runs f with no_new_privs (runc loads the filter right before execve)
// and without (before it drops its privileges).
func both(t *testing.T, f func(*testing.T, seccomp.Policy)) {
	for _, nnp := range []bool{true, false} {
		t.Run(fmt.Sprintf("no_new_privs=%v", nnp), func(t *testing.T) {
			f(t, seccomp.Policy{Names: []string{"@default"}, NoNewPrivileges: nnp})
		})
	}
}

func TestContainer(t *testing.T) {
	both(t, func(t *testing.T, p seccomp.Policy) {
		c := newContainer(t, p)
		got, status := c.run("getppid", "keyctl", "number=1000", "clone=0", "clone=0x10000000", "clone=0x02000000",
			"socket=1", "socket=38", "socket=40", "personality=0", "personality=0x4000000", "number=435")
		want := lines("getppid 0", "keyctl 1", "number=1000 38", "clone=0 0", "clone=0x10000000 1", "clone=0x02000000 1",
			"socket=1 0", "socket=38 1", "socket=40 1", "personality=0 0", "personality=0x4000000 1", "number=435 38")
		if got != want || status != 0 {
			t.Errorf("status %d, got\n%s\nwant\n%s", status, got, want)
		}
		select {
		case <-c.listener.Init():
		default:
			t.Error("Init is not closed")
		}
		checkCalls(t, c.seen(), []string{
			"keyctl [1 2 3 4 5", "clone [10000011 0", "clone [2000011 0", "socket [26 5", "socket [28 5", "personality [4000000",
		}, true)
	})
}

// checkCalls compares names and first arguments, in order.
func checkCalls(t *testing.T, calls []notify.Call, want []string, init bool) {
	t.Helper()
	for i, c := range calls {
		got := fmt.Sprintf("%s %x", c.Name, c.Args)
		if i >= len(want) || !strings.HasPrefix(got, want[i]) || c.Arch != runtime.GOARCH {
			t.Errorf("call %d: %s by %s, want %q", i, got, c.Arch, want)
		}
		if c.PID == 0 || c.Process.Init != init || c.Process.PID == 0 || !strings.HasPrefix(c.Process.Container, "notify-") {
			t.Errorf("call %d: %+v", i, c)
		}
	}
	if len(calls) != len(want) {
		t.Errorf("%d calls, want %q", len(calls), want)
	}
}

// An exec'd process has the same filter and a descriptor of its own.
func TestExec(t *testing.T) {
	both(t, func(t *testing.T, p seccomp.Policy) {
		c := newContainer(t, p)
		c.start()
		if calls := c.seen(); len(calls) > 0 {
			t.Errorf("the start notified %+v", calls)
		}
		for range 2 {
			got, status := c.exec("getppid", "keyctl", "number=1000")
			if want := lines("getppid 0", "keyctl 1", "number=1000 38"); got != want || status != 0 {
				t.Errorf("status %d, got\n%s\nwant\n%s", status, got, want)
			}
			checkCalls(t, c.seen(), []string{"keyctl [1 2 3 4 5"}, false)
		}
	})
}

// Entries that are not declared kill; nothing of the call happens.
func TestOtherEntries(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("only amd64 has them")
	}
	both(t, func(t *testing.T, p seccomp.Policy) {
		for _, entry := range []string{"int80", "x32"} {
			c := newContainer(t, p)
			got, status := c.run("getppid", entry, "getppid")
			if want := 128 + int(syscall.SIGSYS); got != "getppid 0" || status != want {
				t.Errorf("%s: status %d, want %d; got\n%s", entry, status, want, got)
			}
			checkCalls(t, c.seen(), nil, true)
		}
	})
}

func TestKillInsteadOfAnswer(t *testing.T) {
	both(t, func(t *testing.T, p seccomp.Policy) {
		c := newContainer(t, p)
		c.answer = func(call *notify.Call) (notify.Answer, error) {
			return notify.Deny(syscall.EPERM), syscall.Kill(call.Process.PID, syscall.SIGKILL)
		}
		got, status := c.run("getppid", "keyctl", "getppid")
		if want := 128 + int(syscall.SIGKILL); got != "getppid 0" || status != want {
			t.Errorf("status %d, want %d; got\n%s", status, want, got)
		}
		checkCalls(t, c.seen(), []string{"keyctl"}, true)
	})
}

// Monitoring: the call is made as if there were no filter.
func TestContinue(t *testing.T) {
	both(t, func(t *testing.T, p seccomp.Policy) {
		p.Except = []string{"getppid", "socket"}
		c := newContainer(t, p)
		c.answer = func(*notify.Call) (notify.Answer, error) { return notify.Continue(), nil }
		got, status := c.run("getppid", "socket=1")
		if want := lines("getppid 0", "socket=1 0"); got != want || status != 0 {
			t.Errorf("status %d, got\n%s", status, got)
		}
		calls := c.seen()
		for len(calls) > 0 && calls[0].Name == "getppid" { // runc's own: @runtime has it without no_new_privs
			calls = calls[1:]
		}
		checkCalls(t, calls, []string{"socket [1 5"}, true)
	})
}

// With nobody there no container starts.
func TestNoListenerNoContainer(t *testing.T) {
	both(t, func(t *testing.T, p seccomp.Policy) {
		c := newContainer(t, p)
		must(t, c.listener.Close())
		if got, status := c.run("getppid"); status == 0 || strings.Contains(got, "getppid") {
			t.Errorf("status %d, got\n%s", status, got)
		}
		if c.seen() != nil {
			t.Error("notified")
		}
	})
}

// The smallest filter that a container can start with: nothing is notified
// but what the program itself does, so @runtime lacks nothing. openat2 is
// taken away, which runc can do without.
func TestRuntimeIsEnough(t *testing.T) {
	shapes := map[string][]with{
		"root":           nil,
		"user":           {asUser(1000)},
		"user namespace": {inUserNamespace},
		"user in a user namespace": {
			inUserNamespace, asUser(1000),
			func(s *specs.Spec) { s.Process.Cwd = "/bin" },
		},
	}
	both(t, func(t *testing.T, p seccomp.Policy) {
		for name, changes := range shapes {
			for _, without := range []string{"", "openat2"} {
				t.Run(name+" without "+without, func(t *testing.T) {
					p := p
					p.Names = []string{"arch_prctl", "set_tid_address", "readlink", "pause"} // glibc's start, the program
					if without != "" {
						p.Errno = map[string]uint{without: uint(syscall.ENOSYS)}
					}
					c := newContainer(t, p, changes...)
					c.start()
					for range 3 {
						if got, status := c.exec("number=1000"); got != "number=1000 38" || status != 0 {
							t.Errorf("exec: status %d, got\n%s", status, got)
						}
					}
					checkCalls(t, c.seen(), nil, true)
				})
			}
		}
	})
}

// Told of execve, the listener knows an exec'd process before its program
// begins, although runc lets it go first.
func TestExecWaitsForTheListener(t *testing.T) {
	both(t, func(t *testing.T, p seccomp.Policy) {
		p.Watch = seccomp.WatchAll
		var programs []string
		c := newContainer(t, p)
		c.answer = func(call *notify.Call) (notify.Answer, error) {
			return notify.Continue(), nil
		}
		c.onProcess = func(p notify.Process) {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
			if programs = append(programs, exe); err != nil || strings.HasSuffix(exe, "/probe") {
				t.Errorf("process %d runs %q already: %v", p.PID, exe, err)
			}
		}
		c.start()
		for range 20 {
			if got, status := c.exec("getppid"); got != "getppid 0" || status != 0 {
				t.Errorf("status %d, got\n%s", status, got)
			}
		}
		execs := 0
		for _, call := range c.seen() {
			if call.Name == "execve" {
				execs++
			}
		}
		if execs < 21 || len(programs) != 21 {
			t.Errorf("%d execs told, processes %q", execs, programs)
		}
	})
}

// BenchmarkAllowed compares a declared call with the same call without a
// filter.
func BenchmarkAllowed(b *testing.B) {
	for _, filtered := range []bool{true, false} {
		b.Run(fmt.Sprintf("filter=%v", filtered), func(b *testing.B) {
			c := newContainer(b, seccomp.Policy{Names: []string{"@default"}, NoNewPrivileges: true}, func(s *specs.Spec) {
				if !filtered {
					s.Linux.Seccomp = nil
				}
			})
			got, _ := c.run("many=3000000")
			var hundredths float64
			if _, err := fmt.Sscanf(got, "many=3000000 %g", &hundredths); err != nil {
				b.Fatal(err, got)
			}
			b.ReportMetric(hundredths/100, "ns/call")
			b.ReportMetric(0, "ns/op")
		})
	}
}
