package audit

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// Type is the number of a record's kind (linux/audit.h).
type Type uint16

// The types that are of interest here.
const (
	Seccomp Type = 1326
	AVC     Type = 1400 // an LSM's; AppArmor's has apparmor=
	// Some distributions' kernels and auditd rewrite AppArmor's records to types of their own.
	apparmorFirst Type = 1500
	apparmorLast  Type = 1599
)

// Event is one record. Numbers that are missing are -1, texts "".
type Event struct {
	Type   Type
	Serial uint64 // the same for all records of one event
	Time   string // seconds and milliseconds since 1970, as the kernel wrote them

	PID  int    // thread, in the initial pid namespace
	Comm string // the thread's name, which it chooses itself

	AppArmor *AppArmor // nil if it is none
	Seccomp  *Syscall  // nil if it is none
}

// AppArmor is what AppArmor says of an access.
type AppArmor struct {
	Verdict   string // DENIED, ALLOWED (complain), AUDIT, STATUS, ERROR, KILLED
	Operation string // open, exec, unlink, rename_dest, file_mmap, capable, ptrace, signal, mount, create ...
	Class     string // file, net, cap ...: newer kernels only
	Profile   string
	Name      string // the object: a path for files; directories end in /
	Target    string // where an exec or a link leads
	Peer      string // ptrace, signal, unix: the other's label
	Info      string // why it failed, as in "Failed name lookup - disconnected path" or "no new privs"
	Requested string // permissions asked for: r, w, a, c (create), d (delete), x, m, k, l
	Denied    string // those of them that were refused
	Error     int    // errno, negative; 0 if not said
	FSUID     int
	OUID      int // owner of the object
	CapName   string
	Family    string // network: inet, unix ...
	SockType  string
	Signal    string
}

// Syscall is what a seccomp filter did about a call.
type Syscall struct {
	Arch   uint32 // AUDIT_ARCH_..., as in 0xc000003e for x86-64, 0x40000003 for i386
	Number int
	Compat bool
	IP     uint64
	Signal int    // 31: SIGSYS
	Code   uint32 // SECCOMP_RET_...
	UID    int
	Exe    string
}

// Parse reads a record's payload. ok is false for what is neither AppArmor's nor seccomp's. It takes any bytes.
func Parse(t Type, payload []byte) (e Event, ok bool) {
	f := fields(string(payload))
	e = Event{Type: t, PID: f.number("pid"), Comm: f.text("comm")}
	e.Time, e.Serial = stamp(string(payload))
	switch {
	case t == Seccomp:
		e.Seccomp = &Syscall{
			Arch: uint32(f.unsigned("arch", 16)), Number: f.number("syscall"), Compat: f.raw("compat") == "1",
			IP: f.unsigned("ip", 16), Signal: f.number("sig"), Code: uint32(f.unsigned("code", 16)),
			UID: f.number("uid"), Exe: f.text("exe"),
		}
	case (t == AVC || t >= apparmorFirst && t <= apparmorLast) && f.raw("apparmor") != "":
		e.AppArmor = &AppArmor{
			Verdict: f.text("apparmor"), Operation: f.text("operation"), Class: f.text("class"),
			Profile: f.text("profile"), Name: f.text("name"), Target: f.text("target"), Peer: f.text("peer"),
			Info: f.text("info"), Requested: f.text("requested_mask"), Denied: f.text("denied_mask"),
			FSUID: f.number("fsuid"), OUID: f.number("ouid"), CapName: f.text("capname"),
			Family: f.text("family"), SockType: f.text("sock_type"), Signal: f.raw("signal"),
		}
		if n, err := strconv.Atoi(f.raw("error")); err == nil {
			e.AppArmor.Error = n
		}
		if e.AppArmor.Requested == "" {
			e.AppArmor.Requested, e.AppArmor.Denied = f.text("requested"), f.text("denied") // network
		}
	default:
		return Event{}, false
	}
	return e, true
}

// stamp reads "audit(SECONDS.MILLISECONDS:SERIAL):" at the beginning.
func stamp(payload string) (time string, serial uint64) {
	_, rest, ok := strings.Cut(payload, "audit(")
	if !ok {
		return "", 0
	}
	inner, _, ok := strings.Cut(rest, ")")
	if !ok {
		return "", 0
	}
	time, number, _ := strings.Cut(inner, ":")
	serial, _ = strconv.ParseUint(number, 10, 64)
	return time, serial
}

// record holds a record's fields as they are written. The first of a name counts: the kernel writes its own words
// before those that a process can choose.
type record map[string]string

// fields splits KEY=VALUE pairs. A quoted value ends at the next quote: the kernel writes a value that holds one, or a
// space or a control character, in hexadecimal (audit_log_untrustedstring).
func fields(payload string) record {
	f := record{}
	for payload != "" {
		payload = strings.TrimLeft(payload, " \n\x00")
		end := strings.IndexAny(payload, " =\n\x00")
		if end < 0 {
			break
		}
		key, rest := payload[:end], payload[end:]
		if rest[0] != '=' {
			payload = rest
			continue
		}
		rest = rest[1:]
		var value string
		if strings.HasPrefix(rest, `"`) {
			if end = strings.IndexByte(rest[1:], '"'); end < 0 {
				break // cut short
			}
			value, payload = rest[:end+2], rest[end+2:]
		} else {
			if end = strings.IndexAny(rest, " \n\x00"); end < 0 {
				end = len(rest)
			}
			value, payload = rest[:end], rest[end:]
		}
		if _, twice := f[key]; !twice {
			f[key] = value
		}
	}
	return f
}

func (f record) raw(key string) string { return f[key] }

// text undoes the kernel's ways of writing a string: quoted as it is, or else in hexadecimal, or a bare word.
func (f record) text(key string) string {
	v := f[key]
	if len(v) >= 2 && v[0] == '"' {
		return v[1 : len(v)-1]
	}
	if v == "(null)" {
		return ""
	}
	if plain, err := hex.DecodeString(v); err == nil && v == strings.ToUpper(v) {
		return string(plain)
	}
	return v
}

func (f record) number(key string) int {
	n, err := strconv.Atoi(f[key])
	if err != nil {
		return -1
	}
	return n
}

func (f record) unsigned(key string, base int) uint64 {
	n, _ := strconv.ParseUint(strings.TrimPrefix(f[key], "0x"), base, 64)
	return n
}
