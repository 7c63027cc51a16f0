package profiles

import (
	"slices"
	"strings"
)

// capabilityNames are those of linux/capability.h, without CAP_.
var capabilityNames = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
	NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
	MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// capability removes the prefix which some write and some do not.
func capability(text string) string { return strings.TrimPrefix(text, "CAP_") }

func checkCapability(text string) (problem, want string) {
	name := capability(text)
	if slices.Contains(capabilityNames, name) {
		return "", ""
	}
	return "no capability is named " + quote(text), suggest(capability(strings.ToUpper(text)), capabilityNames, "see capabilities(7)")
}
