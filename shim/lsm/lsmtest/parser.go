// Package lsmtest finds an apparmor_parser for tests, on machines without AppArmor too: with -Q the parser needs no
// kernel. It is Debian's, unpacked from its package under .cache/apparmor; nothing is installed.
package lsmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Parser returns a parser and the arguments it needs to use its own tree: abi files, the features of Debian's
// kernels, an empty configuration. It skips the test if there is none and none can be fetched.
func Parser(t testing.TB) (path string, args []string) {
	t.Helper()
	dir, err := unpacked()
	if err != nil {
		t.Skipf("no apparmor_parser: %v", err)
	}
	root := filepath.Join(dir, "root")
	return filepath.Join(root, "sbin/apparmor_parser"), []string{
		"--config-file", os.DevNull, "--base", filepath.Join(root, "etc/apparmor.d"),
		"--kernel-features", filepath.Join(root, "usr/share/apparmor-features/features"),
	}
}

func unpacked() (string, error) {
	dir := os.Getenv("STOCKADE_APPARMOR")
	if dir == "" {
		top, err := moduleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(top, ".cache/apparmor")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(dir, "lock")) // test binaries of several packages run at once
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "done")); err == nil {
		return dir, nil
	}
	// The parser links to libc only; the package itself brings the abi files.
	const fetch = `ls apparmor_*.deb >/dev/null 2>&1 || apt-get -q -o APT::Sandbox::User=root download apparmor ||
{ apt-get update -q && apt-get -q -o APT::Sandbox::User=root download apparmor; }
dpkg -x apparmor_*.deb root && touch done`
	cmd := exec.Command("sh", "-c", fetch)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch the package apparmor: %w\n%s", err, out)
	}
	return dir, nil
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.Join(errors.New("not in the module's tree"), err)
}
