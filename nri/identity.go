package nri

import (
	"fmt"
	"io/fs"
	"syscall"
)

// identity is what inode(7) says of a file: whoever exchanges it for one of the
// same size and time, or changes its owner, changes this. A folder's times and
// size change with every temporary file in it, so of folders they are left out.
func identity(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	if info.IsDir() {
		return fmt.Sprint(st.Ino, st.Uid, st.Mode)
	}
	return fmt.Sprint(st.Ino, st.Uid, st.Mode, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}
