package seccomp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// x86's multiplexed calls are judged by what they stand for, unless they are
// declared themselves: libseccomp lets socketcall(SYS_BIND) through for bind.
func TestMultiplexed(t *testing.T) {
	for _, names := range [][]string{
		{"bind", "send", "semop", "shmctl"}, {"@socket", "bind"}, {"@default"}, {"ipc", "socket"}, {}, {"socketcall", "bind"},
	} {
		f, err := Compile(Policy{Names: names, Arch: "amd64", SubArches: []string{"x86"}})
		must(t, err)
		prog := assemble(t, f.Spec())
		x86, _ := entryOf("x86")
		for name := range multiplexed {
			for number := range uint64(30) {
				compare(t, f, prog, x86, tables()["x86"].numbers[name], [6]uint64{number, 1, 2, 3})
			}
		}
	}
}

// Values of AUDIT_ARCH_* (linux/audit.h). The x32 entry has amd64's.
var auditArch = map[string]uint32{
	"amd64": 0xc000003e, "x86": 0x40000003, "x32": 0xc000003e, "arm64": 0xc00000b7, "arm": 0x40000028,
}

var policies = map[string]Policy{
	"default":       {Names: []string{"@default"}, Arch: "amd64"},
	"default arm64": {Names: []string{"@default"}, Arch: "arm64"},
	"no new privileges": {
		Names: []string{"@default"}, Arch: "amd64", NoNewPrivileges: true, Kernel: "6.18.44-x",
		Except: []string{"memfd_create", "ptrace", "socket"}, Errno: map[string]uint{"openat2": 38, "io_uring_setup": 1},
	},
	"admin": {
		Names: []string{"@default"}, Arch: "amd64",
		Capabilities: []string{"CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE", "CAP_SYS_TIME"},
	},
	"names":         {Names: []string{"read", "write", "accept4", "clone", "socket", "mseal"}, Arch: "amd64"},
	"parts":         {Names: []string{"@clone", "@socket", "@personality", "unshare"}, Arch: "arm64"},
	"nothing":       {Arch: "amd64", NoNewPrivileges: true},
	"entries":       {Names: []string{"@default"}, Arch: "amd64", SubArches: []string{"x86", "x32"}},
	"entries x32":   {Names: []string{"@default", "unshare"}, Arch: "amd64", SubArches: []string{"x32"}},
	"entries arm":   {Names: []string{"@default"}, Arch: "arm64", SubArches: []string{"arm"}},
	"watch":         {Names: []string{"@default"}, Arch: "amd64", NoNewPrivileges: true, Watch: WatchAll},
	"watch arm64":   {Names: []string{"openat", "rename"}, Arch: "arm64", Watch: WatchAll, Errno: map[string]uint{"openat2": 38}},
	"monitor":       {Names: []string{"@default"}, Arch: "amd64", NoNewPrivileges: true, Monitor: true},
	"monitor arm":   {Names: []string{"read", "clone"}, Arch: "arm64", Monitor: true, Errno: map[string]uint{"openat2": 38}},
	"attributes":    {Names: []string{"@default"}, Arch: "amd64", NoNewPrivileges: true, Watch: WatchAttributes},
	"monitor watch": {Names: []string{"@default"}, Arch: "amd64", Monitor: true, Watch: WatchChanges},
	"x86 by name":   {Names: []string{"bind", "socketcall", "semop", "waitpid"}, Arch: "amd64", SubArches: []string{"x86"}},
}

// The verdict in Go and the program that libseccomp makes of the spec agree:
// on every number of every entry, and on arguments chosen near the conditions.
func TestVerdictIsWhatTheKernelDoes(t *testing.T) {
	for name, p := range policies {
		t.Run(name, func(t *testing.T) {
			f, err := Compile(p)
			must(t, err)
			spec := f.Spec()
			prog := assemble(t, spec)
			t.Logf("%d instructions", len(prog))
			if len(prog) > 4096-64 {
				t.Errorf("%d instructions: the kernel takes 4096 (BPF_MAXINSNS), runc's stub included", len(prog))
			}
			interesting := edges(spec)
			rng := rand.New(rand.NewPCG(1, 2))
			for _, e := range entries {
				for nr := -2; nr < 560; nr++ {
					compare(t, f, prog, e, int(e.base)+nr, args(rng, interesting))
				}
				for call, rules := range f.rules {
					nr, ok := tables()[e.name].numbers[call]
					if !ok || len(rules) < 2 {
						continue
					}
					for range 3000 {
						compare(t, f, prog, e, nr, args(rng, interesting))
					}
				}
			}
		})
	}
}

func compare(t *testing.T, f *Filter, prog program, e entry, nr int, args [6]uint64) {
	t.Helper()
	want := f.Verdict(Call{Arch: e.name, Nr: nr, Args: args})
	if want.Action == Errno && tables()[e.name].names[nr] == "" {
		want = Verdict{Action: Kill} // runc's stub stands before this program
	}
	ret, err := prog.run(nr, auditArch[e.name], &args)
	must(t, err)
	if !slices.Contains(f.entries, e) && nr >= int(e.base) && ret != retKillThread {
		t.Errorf("the closed entry %s: the program says %#x, the manual that it kills the thread", e.name, ret)
	}
	if got := verdictOf(ret); got.Action != want.Action || got.Errno != want.Errno {
		t.Errorf("%s %d (%s) %x: the program says %v, Verdict %v", e.name, nr, tables()[e.name].names[nr], args, got, want)
	}
}

// retKillThread is SECCOMP_RET_KILL_THREAD, libseccomp's action for an
// architecture that a filter does not have.
const retKillThread = 0

// verdictOf reads a filter's return value (SECCOMP_RET_*, linux/seccomp.h).
func verdictOf(ret uint32) Verdict {
	switch ret & 0xffff0000 {
	case 0x7fff0000:
		return Verdict{Action: Allow}
	case 0x7fc00000:
		return Verdict{Action: Notify}
	case 0x00050000:
		return Verdict{Action: Errno, Errno: uint(ret & 0xffff)}
	case 0x80000000, retKillThread:
		return Verdict{Action: Kill}
	}
	panic(fmt.Sprintf("return value %#x", ret))
}

// edges collects every value that a condition looks at, and its neighbours.
func edges(spec *specs.LinuxSeccomp) []uint64 {
	all := []uint64{0, 1, 2, 3, 1 << 31, 1 << 32, 1 << 63, ^uint64(0)}
	for _, call := range spec.Syscalls {
		for _, a := range call.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo, a.Value | 1<<40, a.Value | 0x7e020000} {
				all = append(all, v-1, v, v+1, v|0x100)
			}
		}
	}
	return all
}

func args(rng *rand.Rand, interesting []uint64) (out [6]uint64) {
	for i := range out {
		switch rng.IntN(4) {
		case 0:
			out[i] = rng.Uint64()
		case 1:
			out[i] = rng.Uint64() >> rng.IntN(64)
		case 2:
			out[i] = 1 << rng.IntN(64)
		default:
			out[i] = interesting[rng.IntN(len(interesting))]
		}
	}
	return out
}
