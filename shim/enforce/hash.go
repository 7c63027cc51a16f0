package enforce

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// version is one content of one file, as far as the kernel tells versions apart.
type version struct {
	identity
	size         int64
	mtime, ctime unix.Timespec
}

func versionOf(st *unix.Stat_t) version {
	return version{identity{st.Dev, st.Ino}, st.Size, st.Mtim, st.Ctim}
}

// settled is how old a file's last change must be for its times to tell a next change apart: the kernel's clock for
// them ticks every few milliseconds (before Linux 6.13, and on some file systems since), and a clock may be set back.
const settled = 2 * time.Second

// hashCache remembers the sha256 of files, so that each version is read once. The zero cache is ready.
type hashCache struct {
	mu   sync.Mutex
	sums map[version]string // guarded by mu
}

func (h *hashCache) get(fd int) (string, bool) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return "", false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.sums[versionOf(&st)]
	return s, ok
}

// read hashes the file behind an event's own descriptor: the very file that the kernel is about to execute.
func (h *hashCache) read(fd int) (string, error) {
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		return "", os.NewSyscallError("fstat", err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(fdReader(fd), 0, before.Size)); err != nil {
		return "", err
	}
	if err := unix.Fstat(fd, &after); err != nil {
		return "", os.NewSyscallError("fstat", err)
	}
	if versionOf(&before) != versionOf(&after) {
		return "", fmt.Errorf("the file changed while it was read")
	}
	s := hex.EncodeToString(sum.Sum(nil))
	if ctime := time.Unix(before.Ctim.Unix()); time.Since(ctime) < settled {
		return s, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sums == nil || len(h.sums) > 1024 {
		h.sums = map[version]string{}
	}
	h.sums[versionOf(&before)] = s
	return s, nil
}

// fdReader reads from a descriptor that somebody else owns.
type fdReader int

func (fd fdReader) ReadAt(b []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(int(fd), b, off)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		return n, err
	}
}
