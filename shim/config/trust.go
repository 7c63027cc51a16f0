package config

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxFile is far above any real configuration; it keeps a wrong path (a disk
// image, /dev/zero) from being read into memory.
const maxFile = 1 << 20

// ReadTrusted reads a file that only root (or the user who runs this) can have
// written. The check is on the opened file, so that it cannot be exchanged
// between check and read.
func ReadTrusted(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (%s)", path, info.Mode().Type())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to uid %d, who could loosen the fence: chown root %[1]s", path, st.Uid)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s is writable by others than its owner (mode %04o): chmod go-w %[1]s", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}
