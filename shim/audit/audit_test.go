package audit

import (
	"errors"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name    string
		kind    Type
		payload string
		want    Event
	}{
		{
			"open denied", AVC,
			`audit(1700000000.123:45): apparmor="DENIED" operation="open" class="file" profile="stockade.redis.0123456789ab" name="/etc/shadow" pid=4242 comm="cat" requested_mask="r" denied_mask="r" fsuid=1000 ouid=0`,
			Event{Type: AVC, Serial: 45, Time: "1700000000.123", PID: 4242, Comm: "cat", AppArmor: &AppArmor{
				Verdict: "DENIED", Operation: "open", Class: "file", Profile: "stockade.redis.0123456789ab",
				Name: "/etc/shadow", Requested: "r", Denied: "r", FSUID: 1000,
			}},
		},
		{
			"a name in hexadecimal, a forged one in comm", AVC,
			`audit(1.002:3): apparmor="ALLOWED" operation="unlink" profile="p//session" name=2F6120622F220A pid=7 comm=6E616D653D222F7822 requested_mask="d" denied_mask="d" fsuid=0 ouid=33`,
			Event{Type: AVC, Serial: 3, Time: "1.002", PID: 7, Comm: `name="/x"`, AppArmor: &AppArmor{
				Verdict: "ALLOWED", Operation: "unlink", Profile: "p//session", Name: "/a b/\"\n", Requested: "d", Denied: "d", OUID: 33,
			}},
		},
		{
			"exec under no_new_privs", AVC,
			`audit(1.002:3): apparmor="DENIED" operation="exec" info="no new privs" error=-1 profile="p" name="/bin/x" pid=7 comm="sh" requested_mask="x" denied_mask="x" fsuid=0 ouid=0 target="p//p0"`,
			Event{Type: AVC, Serial: 3, Time: "1.002", PID: 7, Comm: "sh", AppArmor: &AppArmor{
				Verdict: "DENIED", Operation: "exec", Info: "no new privs", Error: -1, Profile: "p", Name: "/bin/x",
				Target: "p//p0", Requested: "x", Denied: "x",
			}},
		},
		{
			"network", AVC,
			`audit(1.002:3): apparmor="DENIED" operation="create" class="net" profile="p" pid=7 comm="nc" family="inet" sock_type="stream" protocol=6 requested="create" denied="create"`,
			Event{Type: AVC, Serial: 3, Time: "1.002", PID: 7, Comm: "nc", AppArmor: &AppArmor{
				Verdict: "DENIED", Operation: "create", Class: "net", Profile: "p", Family: "inet", SockType: "stream",
				Requested: "create", Denied: "create", FSUID: -1, OUID: -1,
			}},
		},
		{
			"signal", AVC,
			`audit(1.002:3): apparmor="DENIED" operation="signal" profile="p" pid=7 comm="sh" requested_mask="send" denied_mask="send" signal=kill peer="unconfined"`,
			Event{Type: AVC, Serial: 3, Time: "1.002", PID: 7, Comm: "sh", AppArmor: &AppArmor{
				Verdict: "DENIED", Operation: "signal", Profile: "p", Requested: "send", Denied: "send", Signal: "kill",
				Peer: "unconfined", FSUID: -1, OUID: -1,
			}},
		},
		{
			"seccomp", Seccomp,
			`audit(1.002:3): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=99 comm="x" exe="/bin/x" sig=31 arch=40000003 syscall=20 compat=1 ip=0xf7f0 code=0x80000000`,
			Event{Type: Seccomp, Serial: 3, Time: "1.002", PID: 99, Comm: "x", Seccomp: &Syscall{
				Arch: 0x40000003, Number: 20, Compat: true, IP: 0xf7f0, Signal: 31, Code: 0x80000000, Exe: "/bin/x",
			}},
		},
	} {
		got, ok := Parse(tt.kind, []byte(tt.payload))
		if !ok || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v\n got %+v %+v %+v\nwant %+v %+v %+v", tt.name, ok, got, got.AppArmor, got.Seccomp, tt.want, tt.want.AppArmor, tt.want.Seccomp)
		}
	}
	for _, other := range []string{"", "audit(1.1:1): avc: denied { read } for pid=1 scontext=a", `audit(1.1:1): apparmor=`} {
		if e, ok := Parse(AVC, []byte(other)); ok {
			t.Errorf("%q is taken for %+v", other, e)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(uint16(AVC), []byte(`audit(1.002:3): apparmor="DENIED" name=2F61 pid=7 comm="a`))
	f.Add(uint16(Seccomp), []byte("audit(:): pid== arch=zz =\"\" \x00 sig"))
	f.Fuzz(func(t *testing.T, kind uint16, payload []byte) {
		e, ok := Parse(Type(kind), payload)
		if ok && (e.AppArmor == nil) == (e.Seccomp == nil) {
			t.Errorf("%+v", e)
		}
		message(payload)
	})
}

func open(t *testing.T) *Reader {
	t.Helper()
	r, err := Open()
	switch {
	case errors.Is(err, unix.EPERM):
		t.Skip("CAP_AUDIT_READ is missing")
	case errors.Is(err, unix.EPROTONOSUPPORT):
		t.Skip("this kernel has no audit")
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestCloseWakes(t *testing.T) {
	r := open(t)
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := r.Read(); err != nil && !errors.Is(err, ErrLost) {
				done <- err
				return
			}
		}
	}()
	_ = r.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestLost(t *testing.T) {
	r := open(t)
	if _, err := r.Lost(); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ECONNREFUSED) {
			t.Skip(err)
		}
		t.Error(err)
	}
}

// TestMain is the child of TestSeccompKill if the environment says so.
func TestMain(m *testing.M) {
	switch os.Getenv("AUDIT_TEST_CHILD") {
	case "call":
		die()
	case "int80":
		dieByOtherEntry()
	}
	os.Exit(m.Run())
}

const forbidden = unix.SYS_KEYCTL

// die makes a call that its filter kills for.
func die() {
	runtime.LockOSThread()
	confine([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: forbidden},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
	_, _, _ = unix.RawSyscall(forbidden, 0, 0, 0)
	os.Exit(3)
}

// dieByOtherEntry makes a call through the 32-bit entry under a filter for the native one only (amd64).
func dieByOtherEntry() {
	runtime.LockOSThread()
	code, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	copy(code, []byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3}) // mov eax, 20 (getpid); int 0x80; ret
	confine([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 4}, // seccomp_data.arch
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, Jf: 0, K: unix.AUDIT_ARCH_X86_64},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
	entry := uintptr(unsafe.Pointer(&code[0]))
	function := &entry
	(*(*func())(unsafe.Pointer(&function)))()
	os.Exit(3)
}

func confine(filter []unix.SockFilter) {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		panic(err)
	}
}

// TestSeccompKill: real kills, and the kernel's records of them.
func TestSeccompKill(t *testing.T) {
	t.Run("call", func(t *testing.T) { killed(t, "call", forbidden, 0xc000003e) })
	t.Run("int80", func(t *testing.T) {
		if runtime.GOARCH != "amd64" {
			t.Skip("no 32-bit entry that this test knows")
		}
		killed(t, "int80", 20, 0x40000003)
	})
}

func killed(t *testing.T, how string, number int, arch uint32) {
	s, err := status()
	if err != nil {
		t.Skipf("audit status: %v", err)
	}
	t.Logf("audit enabled: %d, lost: %d", s.enabled, s.lost)
	r := open(t)
	child := exec.Command("/proc/self/exe")
	child.Env = []string{"AUDIT_TEST_CHILD=" + how}
	err = child.Run()
	if err == nil || !strings.Contains(err.Error(), "bad system call") {
		t.Fatalf("the child was not killed: %v", err)
	}
	for {
		e, err := r.Read()
		if errors.Is(err, ErrLost) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Seccomp == nil || e.Comm == "" || e.Seccomp.Number != number {
			continue
		}
		if runtime.GOARCH == "amd64" && e.Seccomp.Arch != arch {
			t.Errorf("arch %x", e.Seccomp.Arch)
		}
		if e.PID != child.Process.Pid || e.Seccomp.Signal != int(unix.SIGSYS) || e.Seccomp.Code != unix.SECCOMP_RET_KILL_PROCESS || e.Seccomp.Exe == "" || e.Serial == 0 {
			t.Errorf("%+v %+v, child %d", e, e.Seccomp, child.Process.Pid)
		}
		return
	}
}
