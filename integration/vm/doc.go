// Package vm runs Stockade's tests on the kernels that nodes run, whatever kernel this machine has: Debian's own cloud
// kernels, with AppArmor and nothing but cgroup v2, in QEMU. `make test-vm` is it.
//
// # What runs
//
// The same test binaries as on the host, built with `go test -c`: the end-to-end scenarios on a real containerd, and the
// tests of the mechanisms that talk to the kernel. They write to a serial line; what arrives is printed as it comes, and
// every test of the guest becomes a test of the host's `go test`, by its name below the kernel's. A run fails when one of
// them fails, when the guest panics, oopses, falls silent or ends before its last line, and when the answers of
// shim/features differ from what the kernel is known to have: a probe that says "no" for nothing would otherwise turn
// tests into skips. A test in the guest may skip only for a reason that `stockade doctor` gives there too, in the form
// "CHECK: ANSWER", as in "cgroup v2 only: yes", or "Linux RELEASE: why" for what that kernel never had.
//
// # A part of it
//
//	make test-vm KERNEL=6.1                                        one kernel; several with spaces between
//	make test-vm KERNEL=6.1 SCENARIOS='forgery|write' CONTROLS=no  scenarios by a regular expression of their names
//	make test-vm SUITE='shim/lsm shim/audit'                       the tests of these packages
//	make test-vm KERNEL=6.12 SUITE=shim/lsm ARGS='-test.run=TestRealKernel'
//
// SUITE takes any package of the checkout, whether it is part of the matrix or not: its test program is built without
// shared libraries, put into the guest with the package's testdata, and started in the package's folder, as root. ARGS
// are its flags. The images are those of [images]. A boot takes about ten seconds.
//
// # How
//
// Everything is in one initramfs: a small Debian userland with busybox and apparmor_parser, bin/, the images, the tests.
// Its init copies it to a tmpfs and goes there with switch_root: from an initramfs there is no pivot_root, which runc
// needs. Containers lie on an ext4 in its memory. Each scenario's control, the same case without Stockade, runs on the
// oldest kernel only. Nothing is written outside of .cache/vm, nothing of the guest is installed, and the guest has no
// network. There are as many guests at a time as there are processors.
//
// Where the kernel comes up like this, the guest's clock counts its instructions and jumps over the time in which it only
// waits: a busy machine makes no test's time limit too short.
//
// # Limits
//
// QEMU translates instructions (KVM is not asked for): the guest is ten to thirty times slower than this machine, so
// tests that measure or that load the machine do not run there. Packages have the version that the archive had when
// they were first fetched; remove .cache/vm for newer ones.
package vm
