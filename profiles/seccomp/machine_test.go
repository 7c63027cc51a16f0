package seccomp

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
)

// program is a classic BPF program, run here as the kernel would: the
// instructions that libseccomp emits (linux/bpf_common.h, linux/filter.h).
type program []instruction

type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// run gives the program's return value for one struct seccomp_data
// (linux/seccomp.h): nr, arch, instruction pointer, six arguments.
func (p program) run(nr int, arch uint32, args *[6]uint64) (uint32, error) {
	var data [64]byte
	binary.LittleEndian.PutUint32(data[0:], uint32(nr))
	binary.LittleEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.LittleEndian.PutUint64(data[16+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		jump := func(cond bool) {
			if cond {
				pc += int(in.jt)
			} else {
				pc += int(in.jf)
			}
		}
		switch in.code {
		case 0x20: // ld [k]
			acc = binary.LittleEndian.Uint32(data[in.k:])
		case 0x54: // and #k
			acc &= in.k
		case 0x05: // ja
			pc += int(in.k)
		case 0x15: // jeq
			jump(acc == in.k)
		case 0x25: // jgt
			jump(acc > in.k)
		case 0x35: // jge
			jump(acc >= in.k)
		case 0x45: // jset
			jump(acc&in.k != 0)
		case 0x06: // ret #k
			return in.k, nil
		default:
			return 0, fmt.Errorf("instruction %d: unknown code %#x", pc, in.code)
		}
	}
	return 0, fmt.Errorf("fell off the end")
}

// assemble compiles a spec in the way runc 1.5 does
// (libcontainer/seccomp/seccomp_linux.go), without its ENOSYS stub.
func assemble(t *testing.T, spec *specs.LinuxSeccomp) program {
	t.Helper()
	byDefault := lib.ActKillProcess
	if spec.DefaultAction == specs.ActAllow {
		byDefault = lib.ActAllow
	}
	filter, err := lib.NewFilter(byDefault)
	must(t, err)
	defer filter.Release()
	for _, a := range spec.Architectures {
		for _, e := range entries {
			if e.spec == a {
				must(t, filter.AddArch(e.lib))
			}
		}
	}
	host, err := lib.GetNativeArch()
	must(t, err)
	if native := entries[slices.IndexFunc(entries, func(e entry) bool { return e.spec == spec.Architectures[0] })]; native.lib != host {
		must(t, filter.RemoveArch(host))
	}
	must(t, filter.SetOptimize(2))
	for _, call := range spec.Syscalls {
		if call.Action == spec.DefaultAction {
			continue // as runc does: libseccomp refuses a rule that changes nothing
		}
		for _, name := range call.Names {
			addRule(t, filter, name, call)
		}
	}
	raw := export(t, filter)
	var p program
	for ; len(raw) > 0; raw = raw[8:] {
		p = append(p, instruction{
			code: binary.LittleEndian.Uint16(raw), jt: raw[2], jf: raw[3],
			k: binary.LittleEndian.Uint32(raw[4:]),
		})
	}
	return p
}

// export goes through a file: ExportBPFMem needs libseccomp 2.6.
func export(t *testing.T, filter *lib.ScmpFilter) []byte {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer file.Close()
	must(t, filter.ExportBPF(file))
	raw, err := os.ReadFile(file.Name())
	must(t, err)
	return raw
}

// addRule takes the number by the table of the machine that the test runs on:
// libseccomp translates it to those of the filter.
func addRule(t *testing.T, filter *lib.ScmpFilter, name string, call specs.LinuxSyscall) {
	t.Helper()
	nr, err := lib.GetSyscallFromName(name)
	if err != nil {
		return // runc passes over it
	}
	action := map[specs.LinuxSeccompAction]lib.ScmpAction{
		specs.ActAllow: lib.ActAllow, specs.ActNotify: lib.ActNotify, specs.ActErrno: lib.ActErrno,
	}[call.Action]
	if call.ErrnoRet != nil {
		action = action.SetReturnCode(int16(*call.ErrnoRet))
	}
	if len(call.Args) == 0 {
		if err := filter.AddRule(nr, action); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return
	}
	var conds []lib.ScmpCondition
	for _, a := range call.Args {
		op := map[specs.LinuxSeccompOperator]lib.ScmpCompareOp{
			specs.OpNotEqual: lib.CompareNotEqual, specs.OpEqualTo: lib.CompareEqual,
			specs.OpLessThan: lib.CompareLess, specs.OpLessEqual: lib.CompareLessOrEqual,
			specs.OpGreaterThan: lib.CompareGreater, specs.OpGreaterEqual: lib.CompareGreaterEqual,
			specs.OpMaskedEqual: lib.CompareMaskedEqual,
		}[a.Op]
		c, err := lib.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		must(t, err)
		conds = append(conds, c)
	}
	if err := filter.AddRuleConditional(nr, action, conds); err != nil {
		t.Fatalf("%s %v: %v", name, call.Args, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
