package enforce

import "unsafe"

// passed keeps what was given to system calls that are only looked at where it is.
var passed [][]byte

// address is where s lies, as a C string.
func address(s string) uint64 {
	b := append([]byte(s), 0)
	passed = append(passed, b)
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}
