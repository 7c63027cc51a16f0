package seccomp

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestDecide(t *testing.T) {
	def := Policy{Names: []string{"@default"}, Arch: "amd64"}
	nnp := Policy{Names: []string{"@default"}, Arch: "amd64", NoNewPrivileges: true}
	none := Policy{Arch: "amd64", NoNewPrivileges: true}
	admin := def
	admin.Capabilities = []string{"CAP_SYS_ADMIN"}
	few := Policy{
		Names: []string{"@default", "ptrace", "unshare"}, Arch: "amd64", NoNewPrivileges: true,
		Except: []string{"ptrace", "memfd_create", "clone", "read"}, Errno: map[string]uint{"openat2": 38, "keyctl": 1},
	}
	arm := Policy{Names: []string{"@default"}, Arch: "arm64", NoNewPrivileges: true}
	parts := Policy{Names: []string{"@clone", "@socket"}, Arch: "arm64"}
	type args = [6]uint64
	cases := []struct {
		title  string
		policy Policy
		name   string
		args   args
		want   Action
		errno  uint
		why    string
	}{
		{"in the set", nnp, "accept4", args{}, Allow, 0, "@default"},
		{"not in the set", nnp, "keyctl", args{}, Notify, 0, "not declared"},
		{"nothing declared", none, "accept4", args{}, Notify, 0, "not declared"},
		{"runtime without being asked", none, "execve", args{}, Allow, 0, "@runtime"},
		{"runtime that drops privileges", none, "setuid", args{}, Notify, 0, "not declared"},
		{"runtime that drops privileges", Policy{Arch: "amd64"}, "setuid", args{}, Allow, 0, "@runtime"},
		{"what runc exec tries", Policy{Arch: "amd64"}, "open_tree", args{}, Errno, 1, "runc"},
		{"what runc exec tries", none, "open_tree", args{}, Notify, 0, "not declared"},

		{"a thread", nnp, "clone", args{0x3d0f00}, Allow, 0, "0x7e020000"},
		{"a user namespace", nnp, "clone", args{0x10000011}, Notify, 0, "0x10000000"},
		{"two namespaces", nnp, "clone", args{0x30000000}, Notify, 0, "not declared with"},
		{"a namespace by an admin", admin, "clone", args{0x10000000}, Allow, 0, "CAP_SYS_ADMIN"},
		{"runtime's thread has conditions too", none, "clone", args{0x10000000}, Notify, 0, "not declared with"},
		{"declared by itself", Policy{Names: []string{"clone"}, Arch: "amd64"}, "clone", args{0x10000000}, Allow, 0, "declared"},
		{"clone3", nnp, "clone3", args{}, Errno, 38, "@default"},
		{"clone3 by an admin", admin, "clone3", args{}, Allow, 0, "CAP_SYS_ADMIN"},
		{"clone3 of nobody", none, "clone3", args{}, Errno, 38, "clone"},

		{"AF_UNIX", nnp, "socket", args{1}, Allow, 0, "< 0x3"},
		{"AF_NETLINK", nnp, "socket", args{16}, Allow, 0, "== 0x10"},
		{"AF_ALG", nnp, "socket", args{38}, Notify, 0, "== 0x26"},
		{"AF_VSOCK", nnp, "socket", args{40}, Notify, 0, "== 0x28"},
		{"no family", nnp, "socket", args{1 << 32}, Notify, 0, ">="},
		{"personality query", nnp, "personality", args{0xffffffff}, Allow, 0, "== 0xffffffff"},
		{"READ_IMPLIES_EXEC", nnp, "personality", args{0x400000}, Notify, 0, "not declared with"},

		{"taken out", few, "memfd_create", args{}, Notify, 0, "not declared"},
		{"taken out, but declared by itself", few, "ptrace", args{}, Allow, 0, "declared"},
		{"taken out, but runtime", few, "read", args{}, Allow, 0, "@runtime"},
		{"taken out, but runtime with conditions", few, "clone", args{0x10000000}, Notify, 0, "not declared with"},
		{"an error in place of a set", few, "openat2", args{}, Errno, 38, "declared to fail"},
		{"an error in place of a notification", few, "keyctl", args{}, Errno, 1, "declared to fail"},
		{"beyond the set", few, "unshare", args{0x10000000}, Allow, 0, "declared"},

		{"ptrace on 4.8", nnp, "ptrace", args{}, Allow, 0, "@default"},
		{"ptrace before", Policy{Names: []string{"@default"}, Arch: "amd64", Kernel: "4.4.0-x"}, "ptrace", args{}, Notify, 0, "not declared"},
		{"amd64 only", nnp, "arch_prctl", args{}, Allow, 0, "@default"},
		{"amd64 only", nnp, "open", args{}, Allow, 0, "@default"},
		{"amd64 only", arm, "open", args{}, Errno, 38, "does not exist on arm64"},
		{"arm64", arm, "openat", args{}, Allow, 0, "@"},
		{"arm64", arm, "clone", args{0x10000000}, Notify, 0, "not declared with"},
		{"a part", parts, "clone", args{17}, Allow, 0, "@default"},
		{"a part", parts, "socket", args{40}, Notify, 0, "not declared with"},
		{"a part", parts, "personality", args{0}, Notify, 0, "not declared"},

		{"no such name", nnp, "frobnicate", args{}, Errno, 38, "does not exist"},
	}
	for _, c := range cases {
		got, err := Decide(c.policy, c.name, c.args)
		if err != nil {
			t.Errorf("%s: %v", c.title, err)
		}
		if got.Action != c.want || got.Errno != c.errno || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %s%x: %v %d (%s), want %v %d (%s)", c.title, c.name, c.args, got.Action, got.Errno, got.Why, c.want, c.errno, c.why)
		}
	}
}

// What is declared and not in libseccomp's table: which names these are
// depends on the libseccomp that the test is linked to.
func TestNewerThanTheTable(t *testing.T) {
	for name, nr := range newer {
		table := tables()["amd64"]
		if _, ok := table.numbers[name]; ok {
			continue
		}
		want := Kill
		if nr > table.last {
			want = Errno
		}
		got, err := Decide(Policy{Names: []string{name}, Arch: "amd64"}, name, [6]uint64{})
		if err != nil || got.Action != want || !strings.Contains(got.Why, libVersion()) {
			t.Errorf("%s: %v %v, want %v", name, got, err, want)
		}
	}
}

func TestOtherEntriesAndNumbers(t *testing.T) {
	f, err := Compile(Policy{Names: []string{"@default"}, Arch: "amd64"})
	must(t, err)
	last := tables()["amd64"].last
	for _, c := range []struct {
		call Call
		want Verdict
	}{
		{Call{Arch: "x86", Name: "read"}, Verdict{Action: Kill}},
		{Call{Arch: "x32", Name: "read"}, Verdict{Action: Kill}},
		{Call{Arch: "arm64", Name: "read"}, Verdict{Action: Kill}},
		{Call{Nr: 0}, Verdict{Action: Allow}},
		{Call{Nr: 350}, Verdict{Action: Kill}},
		{Call{Nr: -1}, Verdict{Action: Kill}},
		{Call{Nr: last + 1}, Verdict{Action: Errno, Errno: 38}},
		{Call{Nr: 1000}, Verdict{Action: Errno, Errno: 38}},
	} {
		if got := f.Verdict(c.call); got.Action != c.want.Action || got.Errno != c.want.Errno || got.Why == "" {
			t.Errorf("%+v: %+v, want %+v", c.call, got, c.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for text, p := range map[string]Policy{
		`did you mean "openat"`:         {Arch: "amd64", Names: []string{"opnat"}},
		`no set of syscalls is named`:   {Arch: "amd64", Names: []string{"@defualt"}},
		`no syscall is named "@socket"`: {Arch: "amd64", Except: []string{"@socket"}},
		`want one of ["amd64" "arm64"]`: {Arch: "riscv64"},
		`amd64 has ["x86" "x32"]`:       {Arch: "amd64", SubArches: []string{"arm"}},
		`begins like "6.1"`:             {Arch: "amd64", Kernel: "six"},
		`runc needs it`:                 {Arch: "amd64", Errno: map[string]uint{"execve": 38}},
		`want one of them`:              {Arch: "amd64", Names: []string{"openat2"}, Errno: map[string]uint{"openat2": 38}},
		`want 1 to 4095`:                {Arch: "amd64", Errno: map[string]uint{"openat2": 0}},
		`did you mean "keyctl"`:         {Arch: "amd64", Errno: map[string]uint{"keyctrl": 1}},
	} {
		if _, err := Build(p); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", p, err, text)
		}
	}
	// All mistakes are told, not the first.
	_, err := Build(Policy{Arch: "amd64", Names: []string{"opnat", "reed"}})
	if err == nil || !strings.Contains(err.Error(), "opnat") || !strings.Contains(err.Error(), "reed") {
		t.Error(err)
	}
}

// runc refuses some filters, and passes over names that it does not know.
func TestSpecIsOneThatRuncTakes(t *testing.T) {
	for name, p := range policies {
		p.ListenerPath = "/run/x"
		s, err := Build(p)
		must(t, err)
		action, architectures := specs.ActKillProcess, 1+len(p.SubArches)
		if p.Monitor {
			action, architectures = specs.ActAllow, 1+len(subArches[p.Arch])
		}
		if s.DefaultAction != action || s.ListenerPath != "/run/x" || len(s.Architectures) != architectures || len(s.Flags) > 0 {
			t.Errorf("%s: %s %s %v", name, s.DefaultAction, s.ListenerPath, s.Architectures)
		}
		plain := map[string]bool{}
		for _, call := range s.Syscalls {
			for _, n := range call.Names {
				if call.Action == specs.ActNotify && n == "write" {
					t.Errorf("%s: write is notified", name)
				}
				if len(call.Args) == 0 && plain[n] {
					t.Errorf("%s: %s is listed twice", name, n)
				}
				plain[n] = plain[n] || len(call.Args) == 0
				if !Known(n) {
					t.Errorf("%s: %s", name, n)
				}
			}
			if len(call.Args) > 1 {
				t.Errorf("%s: %v has %d conditions, runc makes alternatives of those on one argument", name, call.Names, len(call.Args))
			}
		}
		for n, nr := range tables()[p.Arch].numbers {
			if nr == tables()[p.Arch].last && !plain[n] {
				t.Errorf("%s: the last name of the table, %s, is not listed: runc's ENOSYS stub begins too early", name, n)
			}
		}
	}
}

func TestSpecIsDeterministic(t *testing.T) {
	for name, p := range policies {
		first, err := Build(p)
		must(t, err)
		a, _ := json.Marshal(first)
		slices.Reverse(p.Names)
		slices.Reverse(p.SubArches)
		p.Names = append(p.Names, p.Names...)
		second, err := Build(p)
		must(t, err)
		if b, _ := json.Marshal(second); string(a) != string(b) {
			t.Errorf("%s: two specs of one policy", name)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, name := range []string{"read", "openat2", "mseal", "waitpid", "set_tls", "@default", "@runtime", "@clone", "@socket", "@personality"} {
		if err := Check(name); err != nil || !Known(name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"opnat": `"openat"`, "OPENAT": `"openat"`, "fchmodatt2": `"fchmodat2"`, "getpidd": `"getpid"`,
		"io_uring_setpu": `"io_uring_setup"`, "": "libseccomp", "completely_made_up": "libseccomp",
		"@all": "@default", "@": "@default", "read ": `"read"`, "read\x00": `"read"`,
	} {
		if err := Check(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
}

// A name of moby's that nobody knows would be missing in silence.
func TestEveryDefaultNameIsKnown(t *testing.T) {
	for _, name := range everyDefaultName() {
		if !Known(name) && !strings.HasPrefix(name, "riscv_") {
			t.Errorf("%s: add it to newer", name)
		}
	}
	for name, nr := range newer {
		if got, ok := tables()["amd64"].numbers[name]; ok && got != nr {
			t.Errorf("%s is %d, libseccomp says %d", name, nr, got)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		set, arch, has, lacks string
	}{
		{"@default", "amd64", "mount", "keyctl"},
		{"@default", "amd64", "arch_prctl", "waitpid"},
		{"@default", "arm64", "openat", "open"},
		{"@runtime", "amd64", "setuid", "mount"},
		{"@clone", "arm64", "clone3", "unshare"},
		{"@socket", "amd64", "socket", "bind"},
	} {
		names, err := Names(c.set, c.arch)
		must(t, err)
		if !slices.IsSorted(names) || !slices.Contains(names, c.has) || slices.Contains(names, c.lacks) {
			t.Errorf("%s on %s: %q", c.set, c.arch, names)
		}
	}
	for _, bad := range [][2]string{{"@none", "amd64"}, {"read", "amd64"}, {"@default", "mips"}} {
		if names, err := Names(bad[0], bad[1]); err == nil {
			t.Errorf("%q: %q", bad, names)
		}
	}
}

// Whatever values and ranges are allowed: one comparison of the opposite holds
// exactly when none of them does.
func TestInvert(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual}
	value := func() uint64 {
		return []uint64{rng.Uint64(), rng.Uint64N(64), 1 << rng.IntN(64), math.MaxUint64 - rng.Uint64N(3)}[rng.IntN(4)]
	}
	for range 3000 {
		var rules []rule
		var alternatives [][]specs.LinuxSeccompArg
		add := func(a specs.LinuxSeccompArg) {
			rules = append(rules, rule{args: []specs.LinuxSeccompArg{a}})
			alternatives = append(alternatives, rules[len(rules)-1].args)
		}
		switch rng.IntN(4) {
		case 0:
			mask := value()
			add(masked(2, mask, value()&mask))
		case 1:
			for _, bit := range invertMask(masked(2, value()|1, value())) {
				add(bit)
			}
		default:
			for range 1 + rng.IntN(6) {
				add(specs.LinuxSeccompArg{Index: 2, Op: ops[rng.IntN(len(ops))], Value: value()})
			}
		}
		opposite, ok := invert(alternatives)
		if !ok {
			continue // "< 0" and "> the greatest" say nothing
		}
		for range 200 {
			v := value()
			if rng.IntN(2) == 0 {
				v = alternatives[rng.IntN(len(alternatives))][0].Value + rng.Uint64N(3) - 1
			}
			args := [6]uint64{2: v}
			allowed := slices.ContainsFunc(rules, func(r rule) bool { return r.holds(&args, true) })
			denied := slices.ContainsFunc(opposite, func(a specs.LinuxSeccompArg) bool { return compares(a, v) })
			if allowed == denied {
				t.Fatalf("%v and %v: both are %v for %#x", alternatives, opposite, allowed, v)
			}
		}
	}
	for _, cannot := range [][][]specs.LinuxSeccompArg{
		{{{Index: 0}, {Index: 1}}},
		{{{Index: 0, Op: specs.OpEqualTo}}, {{Index: 1, Op: specs.OpEqualTo}}},
		{{{Op: specs.OpNotEqual, Value: 3}}},
		{{masked(0, 3, 0)}, {masked(0, 12, 0)}},
		{{masked(0, 1, 0)}, {masked(0, 1, 1)}},
	} {
		if got, ok := invert(cannot); ok {
			t.Errorf("%v: %v", cannot, got)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		if _, err := Build(policies["default"]); err != nil {
			b.Fatal(err)
		}
	}
}
