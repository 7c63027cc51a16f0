package node

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

type mountPoint struct {
	point, fstype string
}

// mounts reads /proc/self/mountinfo (proc(5)), in the order in which the mounts were made.
func mounts() []mountPoint {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var ms []mountPoint
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) > 4 && len(r) > 0 {
			ms = append(ms, mountPoint{point: unescape.Replace(l[4]), fstype: r[0]})
		}
	}
	return ms
}

// unmountBelow detaches every mount at or below one of dirs, the latest first.
func unmountBelow(dirs ...string) error {
	for _, m := range slices.Backward(mounts()) {
		below := func(dir string) bool { return m.point == dir || strings.HasPrefix(m.point, dir+"/") }
		if !slices.ContainsFunc(dirs, below) {
			continue
		}
		if err := unix.Unmount(m.point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", m.point, err)
		}
	}
	return nil
}

func deviceNumber(st os.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Rdev
	}
	return 0
}
