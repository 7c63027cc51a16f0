package seccomp

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
)

// entry is one way into the kernel: an ABI with its own table of syscalls.
type entry struct {
	name string
	spec specs.Arch
	lib  lib.ScmpArch
	// base is added to every number; limit ends the search for numbers.
	base, limit lib.ScmpSyscall
	wide        bool // arguments are compared on 64 bits
}

// x32Bit marks a syscall number of the x32 ABI (arch/x86/include/asm/unistd.h).
const x32Bit = 0x40000000

// armPrivate is where arm's own calls (set_tls, cacheflush) are numbered
// (arch/arm/include/uapi/asm/unistd.h).
const armPrivate = 0x0f0000

// maxNumber is well above any kernel's table; libseccomp answers quickly for
// numbers that it does not know.
const maxNumber = 1024

var entries = []entry{
	{"amd64", specs.ArchX86_64, lib.ArchAMD64, 0, maxNumber, true},
	{"x86", specs.ArchX86, lib.ArchX86, 0, maxNumber, false},
	{"x32", specs.ArchX32, lib.ArchX32, x32Bit, maxNumber, false},
	{"arm64", specs.ArchAARCH64, lib.ArchARM64, 0, maxNumber, true},
	{"arm", specs.ArchARM, lib.ArchARM, 0, maxNumber, false},
}

// subArches says which further entries a kernel of an architecture may have.
var subArches = map[string][]string{
	"amd64": {"x86", "x32"},
	"arm64": {"arm"},
}

func entryOf(name string) (entry, bool) {
	i := slices.IndexFunc(entries, func(e entry) bool { return e.name == name })
	if i < 0 {
		return entry{}, false
	}
	return entries[i], true
}

// newer names what libseccomp 2.5.4 (Linux 5.17) has no numbers for, with the
// numbers, which are the same on amd64 and arm64 (uretprobe is amd64's alone). runc may be linked to a
// newer libseccomp than this program: then these are enforced like the others,
// and with an old one they fail with ENOSYS.
// Source: scripts/syscall.tbl and arch/x86/entry/syscalls/syscall_64.tbl of
// Linux 6.17.
var newer = map[string]int{
	"uretprobe":         335,
	"cachestat":         451,
	"fchmodat2":         452,
	"map_shadow_stack":  453,
	"futex_wake":        454,
	"futex_wait":        455,
	"futex_requeue":     456,
	"statmount":         457,
	"listmount":         458,
	"lsm_get_self_attr": 459,
	"lsm_set_self_attr": 460,
	"lsm_list_modules":  461,
	"mseal":             462,
	"setxattrat":        463,
	"getxattrat":        464,
	"listxattrat":       465,
	"removexattrat":     466,
	"open_tree_attr":    467,
	"file_getattr":      468,
	"file_setattr":      469,
}

// table is what libseccomp knows of one entry.
type table struct {
	numbers map[string]int
	names   map[int]string
	last    int // the highest number
}

var tables = sync.OnceValue(func() map[string]*table {
	all := make(map[string]*table, len(entries))
	for _, e := range entries {
		all[e.name] = readTable(e)
	}
	return all
})

func readTable(e entry) *table {
	t := &table{numbers: map[string]int{}, names: map[int]string{}}
	add := func(nr lib.ScmpSyscall) {
		name, err := nr.GetNameByArch(e.lib)
		if err != nil {
			return
		}
		t.numbers[name], t.names[int(nr)] = int(nr), name
		t.last = max(t.last, int(nr))
	}
	for nr := e.base; nr < e.base+e.limit; nr++ {
		add(nr)
	}
	if e.name == "arm" {
		for nr := lib.ScmpSyscall(armPrivate); nr < armPrivate+16; nr++ {
			add(nr)
		}
	}
	return t
}

// resolves says whether libseccomp has the name at all, for any architecture.
func resolves(name string) bool {
	if strings.ContainsFunc(name, notInNames) { // a NUL would end it for C
		return false
	}
	for _, e := range entries {
		if _, err := lib.GetSyscallFromNameByArch(name, e.lib); err == nil {
			return true
		}
	}
	return false
}

func notInNames(r rune) bool {
	return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
}

func libVersion() string {
	major, minor, micro := lib.GetLibraryVersion()
	return fmt.Sprintf("libseccomp %d.%d.%d", major, minor, micro)
}
