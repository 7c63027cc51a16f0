package lsm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrUnavailable is that this node has no AppArmor; the error's text says why, in doctor's words.
var ErrUnavailable = errors.New("no AppArmor")

// Kernel is where the kernel shows AppArmor. The zero value is the running kernel's.
type Kernel struct {
	Sys  string // "" : /sys
	Proc string // "" : /proc
}

func (k Kernel) sys(name string) string  { return filepath.Join(or(k.Sys, "/sys"), name) }
func (k Kernel) proc(name string) string { return filepath.Join(or(k.Proc, "/proc"), name) }

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// Available returns nil if profiles can be loaded, and else an error that is ErrUnavailable.
func (k Kernel) Available() error {
	enabled, err := os.ReadFile(k.sys("module/apparmor/parameters/enabled"))
	switch {
	case err != nil:
		return fmt.Errorf("%w: not in this kernel", ErrUnavailable)
	case strings.TrimSpace(string(enabled)) != "Y":
		return fmt.Errorf("%w: compiled in and not enabled", ErrUnavailable)
	}
	if _, err := os.Stat(k.sys("kernel/security/apparmor/profiles")); err != nil {
		return fmt.Errorf("%w: enabled, but securityfs is not mounted on /sys/kernel/security", ErrUnavailable)
	}
	switch above, err := k.Overruled(); {
	case err != nil:
		return fmt.Errorf("%w: enabled, but %w", ErrUnavailable, err)
	case above != "":
		return fmt.Errorf("%w: enabled, but %s", ErrUnavailable, above)
	}
	return nil
}

// Overruled names what stands above every profile of the node, "" for nothing: in complain mode nothing is refused, and
// without its records no refusal is seen.
func (k Kernel) Overruled() (string, error) {
	for _, p := range []struct{ name, want string }{{"mode", "enforce"}, {"audit", "normal"}} {
		is, err := os.ReadFile(k.sys("module/apparmor/parameters/" + p.name))
		if err != nil {
			return "", fmt.Errorf("its %s cannot be read: %w", p.name, err)
		}
		if got := strings.TrimSpace(string(is)); got != p.want {
			return fmt.Sprintf("apparmor.%s=%s on the whole node; %s is needed", p.name, got, p.want), nil
		}
	}
	return "", nil
}

// replace gives the kernel compiled profiles; those whose names it has already are replaced. All or none are taken
// (aa_kernel_interface_replace_policy(3)).
func (k Kernel) replace(policy []byte) error {
	return k.write(".replace", policy)
}

// remove takes a profile and its children away (aa_kernel_interface_remove_policy(3)).
func (k Kernel) remove(name string) error { return k.write(".remove", []byte(name)) }

// write is one write: the kernel takes a whole request, and nothing after it.
func (k Kernel) write(file string, data []byte) error {
	f, err := os.OpenFile(k.sys("kernel/security/apparmor/"+file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(data)
	return err
}

// Has reports whether the kernel names a feature, as in "policy/versions/v8" or "network_v8/af_unix"
// (/sys/kernel/security/apparmor/features).
func (k Kernel) Has(feature string) bool {
	_, err := os.Stat(k.sys("kernel/security/apparmor/features/" + feature))
	return err == nil
}

// Loaded lists the profiles of the kernel by name, with their modes (enforce, complain, kill, unconfined). Reading it
// takes CAP_MAC_ADMIN.
func (k Kernel) Loaded() (map[string]string, error) {
	f, err := os.Open(k.sys("kernel/security/apparmor/profiles"))
	if err != nil {
		return nil, fmt.Errorf("list AppArmor profiles: %w", err)
	}
	defer f.Close()
	loaded := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() { // NAME (MODE)
		if i := strings.LastIndex(lines.Text(), " ("); i > 0 {
			loaded[lines.Text()[:i]] = strings.TrimSuffix(lines.Text()[i+2:], ")")
		}
	}
	return loaded, lines.Err()
}

// Label is the profile that a process or thread has, without its mode; "unconfined" if none.
func (k Kernel) Label(pid int) (string, error) {
	for _, file := range []string{"attr/apparmor/current", "attr/current"} {
		data, err := os.ReadFile(k.proc(fmt.Sprintf("%d/%s", pid, file)))
		if err == nil {
			label, _, _ := strings.Cut(strings.TrimRight(string(data), "\x00\n"), " (")
			return label, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("label of process %d: %w", pid, os.ErrNotExist)
}

// inUse returns the names among those given that some process has, or a child profile of which. When it cannot tell, an
// error: a profile that is removed under a process leaves it unconfined.
func (k Kernel) inUse() (map[string]bool, error) {
	entries, err := os.ReadDir(or(k.Proc, "/proc"))
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, e := range entries {
		pid := 0
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil || pid <= 0 {
			continue
		}
		label, err := k.Label(pid)
		if err != nil {
			if gone(err) {
				continue
			}
			return nil, err
		}
		for part := range strings.SplitSeq(label, "//&") { // a stack of profiles
			name, _, _ := strings.Cut(part, "//")
			used[name] = true
		}
	}
	return used, nil
}
