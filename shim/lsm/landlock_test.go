package lsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkLandlock is the measurement that the package's page on Landlock speaks of: what calls on files cost under no
// ruleset, and under one of so many rules. It shows as well what a rule can and cannot refuse.
func BenchmarkLandlock(b *testing.B) {
	if _, err := landlockABI(); err != nil {
		b.Skip(err)
	}
	for _, rules := range []int{0, 10, 1000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			dir, err := os.MkdirTemp("/dev/shm", "landlock-") // no disk's time is measured
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = os.RemoveAll(dir) })
			for _, bench := range []struct {
				name string
				do   func(file string) error
			}{
				{"open", opened},
				{"create+unlink", created},
			} {
				b.Run(bench.name, func(b *testing.B) {
					if err := underLandlock(dir, rules, func() error { return times(b, dir, bench.do) }); err != nil {
						b.Fatal(err)
					}
				})
			}
		})
	}
}

func times(b *testing.B, dir string, do func(string) error) error {
	file := filepath.Join(dir, "allowed", "file")
	for b.Loop() {
		if err := do(file); err != nil {
			return err
		}
	}
	return nil
}

func opened(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func created(file string) error {
	fd, err := unix.Open(file+".new", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Close(fd), unix.Unlink(file+".new"))
}

// TestLandlockRefuses holds what that page says a ruleset does and does not do.
func TestLandlockRefuses(t *testing.T) {
	if _, err := landlockABI(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	err := underLandlock(dir, 1, func() error {
		allowed, other := filepath.Join(dir, "allowed"), filepath.Join(dir, "other")
		for _, c := range []struct {
			what string
			err  error
			want error
		}{
			{"create where it is allowed", created(filepath.Join(allowed, "x")), nil},
			{"create elsewhere", created(filepath.Join(other, "x")), unix.EACCES},
			{"unlink elsewhere", unix.Unlink(filepath.Join(other, "file")), unix.EACCES},
			{"rename elsewhere", unix.Rename(filepath.Join(other, "file"), filepath.Join(other, "renamed")), unix.EACCES},
			{"chmod elsewhere, which no ruleset covers", unix.Chmod(filepath.Join(other, "file"), 0o640), nil},
			{"chown elsewhere, which no ruleset covers", unix.Chown(filepath.Join(other, "file"), 1, 1), nil},
			{"unlink of a neighbour, for rules know no names", unix.Unlink(filepath.Join(allowed, "neighbour")), nil},
		} {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// underLandlock makes dir/allowed and dir/other, and calls do on a thread that may make and remove files below
// dir/allowed only, by one of so many rules (0: no ruleset). The thread ends with it: a ruleset cannot be taken off.
func underLandlock(dir string, rules int, do func() error) error {
	for _, f := range []string{"allowed/file", "allowed/neighbour", "other/file"} {
		f = filepath.Join(dir, f)
		if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o755), os.WriteFile(f, nil, 0o644)); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if rules > 0 {
			if err := restrict(dir, rules); err != nil {
				done <- err
				return
			}
		}
		done <- do()
	}()
	return <-done
}

const handled = unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE

func restrict(dir string, rules int) error {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled}
	ruleset, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(ruleset))
	for i := range rules {
		below := filepath.Join(dir, "allowed")
		if i > 0 {
			below = filepath.Join(dir, "rules", fmt.Sprint(i))
			if err := os.MkdirAll(below, 0o755); err != nil {
				return err
			}
		}
		if err := allow(int(ruleset), below); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}

func allow(ruleset int, below string) error {
	fd, err := unix.Open(below, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: handled, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_add_rule", errno)
	}
	return nil
}

// landlockABI is the version that the kernel has (landlock_create_ruleset(2)).
func landlockABI() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, fmt.Errorf("Landlock: no: %w", errno)
	}
	return int(v), nil
}
