// Package seccomp compiles declared syscalls to a seccomp filter and says,
// without a kernel, what that filter does with a call.
package seccomp
