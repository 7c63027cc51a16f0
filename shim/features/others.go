package features

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/audit"
	"github.com/stockade-dev/stockade/shim/lsm"
)

// seccompNotify asks seccomp(2) itself: SECCOMP_GET_ACTION_AVAIL for the
// action, SECCOMP_GET_NOTIF_SIZES for the interface to read it.
func seccompNotify() answer {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		return refused(fmt.Errorf("SECCOMP_GET_ACTION_AVAIL(USER_NOTIF): %w", errno))
	}
	var sizes struct{ notif, resp, data uint16 } // struct seccomp_notif_sizes
	_, _, errno = unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		return refused(fmt.Errorf("SECCOMP_GET_NOTIF_SIZES: %w", errno))
	}
	return yes(fmt.Sprintf("notifications of %d bytes", sizes.notif))
}

// appArmor needs the LSM, the parser that compiles profiles, and the audit records by which refusals are seen.
func appArmor() answer {
	if err := (lsm.Kernel{}).Available(); err != nil {
		return no(reason(err, lsm.ErrUnavailable))
	}
	parser, err := lsm.FindParser()
	if err != nil {
		return no(reason(err, lsm.ErrUnavailable))
	}
	records, err := audit.Open()
	if err != nil {
		return refused(err)
	}
	_ = records.Close()
	return yes("enabled, apparmor_parser " + parser.Version + ", refusals seen by audit's multicast group, beside auditd or without it")
}

// reason is an error's text without that of its kind, which the check's name says already.
func reason(err, kind error) string { return strings.TrimPrefix(err.Error(), kind.Error()+": ") }

// cgroupBPF loads (and drops) the smallest program that decides on connect(2):
// "r0 = 1; exit", of type cgroup/connect4. See bpf(2).
func cgroupBPF() answer {
	insns := [2]uint64{0x00000001_0000_00b7, 0x95}
	if bigEndian() {
		return unknown("not tried on a big-endian machine")
	}
	license := [...]byte{'G', 'P', 'L', 0}
	attr := struct {
		progType, insnCnt          uint32
		insns, license             uint64
		logLevel, logSize          uint32
		logBuf                     uint64
		kernVersion, progFlags     uint32
		name                       [16]byte
		ifindex, expectedAttachTyp uint32
	}{
		progType: unix.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, insnCnt: uint32(len(insns)),
		insns: uint64(uintptr(unsafe.Pointer(&insns))), license: uint64(uintptr(unsafe.Pointer(&license))),
		expectedAttachTyp: unix.BPF_CGROUP_INET4_CONNECT,
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&insns)
	runtime.KeepAlive(&license)
	if errno != 0 {
		return refused(fmt.Errorf("load a cgroup/connect4 program: %w", errno))
	}
	unix.Close(int(fd))
	return yes("a cgroup/connect4 program loads")
}

func bigEndian() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 0
}

type cgroups struct{ unified, kill answer }

// cgroupMode looks at what is mounted under /sys/fs/cgroup, where runc looks.
func cgroupMode() cgroups {
	const root = "/sys/fs/cgroup"
	kind := func(path string) int64 {
		var s unix.Statfs_t
		if unix.Statfs(path, &s) != nil {
			return 0
		}
		return int64(s.Type)
	}
	if kind(root) == unix.CGROUP2_SUPER_MAGIC {
		return cgroups{yes("unified"), killFile(root)}
	}
	mode := "version 1"
	if kind(root+"/unified") == unix.CGROUP2_SUPER_MAGIC {
		mode = "version 1 and 2 (hybrid)"
	}
	if kind(root+"/freezer") == unix.CGROUP_SUPER_MAGIC {
		return cgroups{no(mode), yes(mode + ", by the freezer")}
	}
	return cgroups{no(mode), no(mode + ", no freezer at " + root + "/freezer")}
}

// killFile looks for cgroup.kill, which every group has but the root.
func killFile(root string) answer {
	groups, err := filepath.Glob(root + "/*/cgroup.procs")
	if err != nil || len(groups) == 0 {
		return unknown("version 2, and no group to look for cgroup.kill in")
	}
	if _, err := os.Stat(filepath.Dir(groups[0]) + "/cgroup.kill"); err != nil {
		return no("version 2 without cgroup.kill")
	}
	return yes("version 2, by cgroup.kill")
}
