package seccomp

// multiplexed are x86's calls that stand for many (socketcall(2), ipc(2)):
// what their first argument selects. libseccomp turns a rule for one of the
// many into a rule for that argument as well, without its other conditions,
// which would be about arguments that stand in memory.
var multiplexed = map[string]map[uint64]string{
	"socketcall": {
		1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 6: "getsockname", 7: "getpeername",
		8: "socketpair", 9: "send", 10: "recv", 11: "sendto", 12: "recvfrom", 13: "shutdown", 14: "setsockopt",
		15: "getsockopt", 16: "sendmsg", 17: "recvmsg", 18: "accept4", 19: "recvmmsg", 20: "sendmmsg",
	},
	"ipc": {
		1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop", 11: "msgsnd", 12: "msgrcv", 13: "msgget", 14: "msgctl",
		21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl",
	},
}

// selected is the call that a multiplexed one stands for.
func selected(c Call) (string, bool) {
	name, ok := multiplexed[c.Name][c.Args[0]&0xffffffff]
	return name, ok && c.Arch == "x86"
}

// unconditional drops the conditions, as libseccomp does.
func unconditional(rules []rule) []rule {
	if len(rules) == 0 {
		return nil
	}
	r := rules[0]
	r.args = nil
	return []rule{r}
}
