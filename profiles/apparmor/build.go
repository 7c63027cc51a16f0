package apparmor

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

// Build writes a policy. It is an error if one of its patterns is none.
func Build(p Policy) (*Text, error) {
	b := newBuilder(p)
	if b.err != nil {
		return nil, b.err
	}
	b.findGaps()
	// The digest is that of the text but for the name: two texts never share a name, whatever made them differ.
	sum := sha256.Sum256([]byte(b.text()))
	b.name = Name(p.Profile, hex.EncodeToString(sum[:])) + "." + Slot
	t := &Text{Name: b.name, Session: b.name, Body: b.text(), Gaps: b.gaps}
	if !p.Sessions.empty() {
		t.Session += "//session"
	}
	return t, b.err
}

// Gaps lists what the text of a policy cannot say, without writing it.
func Gaps(p Policy) ([]Gap, error) {
	b := newBuilder(p)
	if b.err == nil {
		b.findGaps()
	}
	return b.gaps, b.err
}

// newBuilder makes the builder of a policy. A profile that only watches has one text for all programs: what somebody
// executes is for others to see, and a change of profile would hide what comes after it.
func newBuilder(p Policy) *builder {
	if p.Mode == Complain {
		p.Transitions = false
	}
	b := &builder{policy: p}
	b.classes()
	return b
}

// Prefix begins the names of all our profiles.
const Prefix = "stockade."

const maxName = 64

// Slot ends the name of a profile as it is written. Each container has a copy of its own under a name in which as many
// other letters stand in its place: a record of a refusal says which profile, and not whose, and the process that was
// refused may have ended before anybody asks. No rule names it, so that a compiled text can be renamed.
const Slot = "0000000000000000"

// Name is that of a profile without its slot: stockade.PROFILE.DIGEST12. It holds letters, digits, '.', '_' and '-'
// only, whatever the profile is called.
func Name(profile, digest string) string {
	clean := strings.Map(func(r rune) rune {
		if r < 128 && plain(byte(r)) && r != '/' {
			return r
		}
		return '_'
	}, profile)
	return Prefix + clean[:min(len(clean), maxName)] + "." + digest[:min(len(digest), 12)]
}

// image is where files of the image can be: everywhere but below the mounts that every container has over them.
var image = `/{[^dps/]**,` + around("dev") + "," + around("proc") + "," + around("sys") + "}"

// around writes the alternatives for all paths that begin with the first letter of name, but name and what is below.
func around(name string) string {
	var alternatives []string
	for i := 1; i < len(name); i++ {
		alternatives = append(alternatives, fmt.Sprintf("%s{,/**,[^%c/]**}", name[:i], name[i]))
	}
	return strings.Join(append(alternatives, name+"[^/]**"), ",")
}

// writer writes lines.
type writer struct {
	strings.Builder
	name   string
	indent string
	seen   map[string]bool // lines of this profile: rules are often given twice
}

func (w *writer) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if w.seen[text] {
		return
	}
	w.seen[text] = true
	w.WriteString(w.indent + text + "\n")
}

func (w *writer) note(text string) { w.WriteString(w.indent + "# " + text + "\n") }

// peers are the processes of containers with a profile of ours: the container's own, whichever of its profiles they
// have, and those of others in its namespace of processes, which a pod may share among its containers.
const peers = `"` + Prefix + `*{,//*}"`

func (b *builder) text() string {
	w := &writer{name: b.name, seen: map[string]bool{}}
	p := &b.policy
	w.note(fmt.Sprintf("profile %s, %s", strconv.QuoteToASCII(p.Profile), strconv.QuoteToASCII(p.Digest)))
	if p.ABI != "" {
		w.line("abi <abi/%s>,", p.ABI)
	}
	b.profile(w, b.name, "", false)
	children := func(prefix string, session bool) {
		for i, exe := range b.exact {
			b.profile(w, prefix+strconv.Itoa(i), exe, session)
		}
	}
	w.indent = "  "
	children("p", false)
	// Also when sessions are allowed nothing more: where a text takes the place of one in which they were, the kernel
	// leaves a session that runs the child it has unless there is one of that name.
	b.profile(w, "session", "", true)
	if !p.Sessions.empty() {
		children("session-p", true)
	}
	w.WriteString("}\n")
	return w.String()
}

// profile writes one profile; that of the container stays open for its children.
func (b *builder) profile(w *writer, name, exe string, session bool) {
	outer := w.indent
	flags := "attach_disconnected,mediate_deleted"
	if b.policy.Mode != Enforce {
		flags += "," + b.policy.Mode.String()
	}
	if exe != "" {
		w.note("processes of " + strconv.QuoteToASCII(exe))
	}
	w.WriteString(outer + "profile " + name + " flags=(" + flags + ") {\n")
	w.indent, w.seen = outer+"  ", map[string]bool{}
	s := b.subject(exe, session)
	b.common(w)
	b.files(w, s)
	b.execs(w, s, session)
	w.network(b, s)
	w.indent = outer
	if w.indent != "" {
		w.WriteString(outer + "}\n")
	}
}

// common is what every profile holds.
func (b *builder) common(w *writer) {
	p := &b.policy
	w.note("directories may be listed; loaders and interpreters are not programs")
	w.line("/ r,")
	w.line("/**/ r,")
	w.note("memory of huge pages, which has no name but this")
	w.line("owner / mw,")
	w.line("/{usr/,}lib{,32,64,x32}/{,*/}ld-*.so* mr,")
	for _, path := range p.Interpreters {
		w.line(`"%s" mr,`, literals(path))
	}
	w.note("/proc as container runtimes leave it")
	w.line("/proc/{[^k],k[^c]}** r,")
	w.line("/proc/[1-9]*/** rwk,")
	w.note("a process in complain mode could leave the profile, before it is enforced again")
	w.line("deny /proc/[1-9]*/{,task/*/}attr/** w,")
	w.line("/proc/sys/kernel/shm* rw,")
	w.note("processes of the container among themselves; whoever else can reach them is not theirs to choose")
	w.line("ptrace (trace, read) peer=%s,", peers)
	w.line("ptrace (tracedby, readby),")
	w.line("signal (send) peer=%s,", peers)
	w.line("signal (receive),")
	b.quiet(w)
	for _, name := range sorted(p.Capabilities) {
		w.line("capability %s,", strings.ToLower(strings.TrimPrefix(name, "CAP_")))
	}
	if p.Mounts {
		w.line("mount,")
		w.line("remount,")
		w.line("umount,")
		w.line("pivot_root,")
	}
	if p.ABI == "4.0" {
		w.line("mqueue,")
		if p.Namespaces {
			w.line("userns,")
		}
		if p.Uring {
			w.line("io_uring,")
		}
	}
}

// quiet writes what is refused without a record, because programs try it that mean nothing by it: to read of the
// runtime's own processes, as ps does while an exec session begins, to send them a signal that is for everybody
// (kill(-1)), and to use a capability that is not there. A profile that only watches refuses nothing, and quiet rules it
// would hold.
func (b *builder) quiet(w *writer) {
	p := &b.policy
	if p.Mode == Complain {
		w.line("ptrace (read),")
	}
	if p.Mode == Complain || p.Namespaces {
		w.line("capability,") // in a namespace of its own a process has them all; outside its sets hold
	}
	supervisors := p.Supervisors
	if supervisors == nil {
		supervisors = []string{"unconfined", "runc", "crun"}
	}
	for _, label := range supervisors {
		if p.Mode == Complain {
			w.line(`signal (send) peer="%s",`, literals(label))
			continue
		}
		w.line(`deny ptrace (read) peer="%s",`, literals(label))
		w.line(`deny signal (send) peer="%s",`, literals(label))
	}
	if p.Mode == Complain {
		return
	}
	var without []string
	for _, name := range capabilities {
		if !slices.ContainsFunc(p.Capabilities, func(c string) bool { return strings.EqualFold(strings.TrimPrefix(c, "CAP_"), name) }) {
			without = append(without, name)
		}
	}
	if len(without) > 0 && !p.Namespaces {
		w.line("deny capability %s,", strings.Join(without, " "))
	}
}

// capabilities are those that parsers from 3.0 on know (capabilities(7)).
var capabilities = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap
	linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot
	sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write
	audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf
	checkpoint_restore`)

func sorted(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return slices.Compact(out)
}

func (b *builder) files(w *writer, s *subject) {
	rule := func(p *pattern.Pattern, sh shape, qualifier, perms string) {
		for _, path := range paths(p, sh) {
			w.line("%s%s %s,", qualifier, path, perms)
		}
	}
	w.note("read")
	for _, r := range s.reads {
		if r.pattern == nil {
			w.line("%s mrk,", image)
			continue
		}
		rule(r.pattern, asWritten, "", "mrk")
	}
	w.note("write")
	for _, r := range s.writes {
		rule(r.pattern, both, "", "rwkl")
	}
	w.note("deny")
	for _, r := range s.denyRead {
		rule(r.pattern, files, "audit deny ", "rwl")
		rule(r.pattern, directories, "audit deny ", "w")
	}
	for _, r := range s.denyWrit {
		rule(r.pattern, both, "audit deny ", "wl")
	}
	if b.policy.Mode == Complain {
		return
	}
	for _, r := range s.denyExec {
		rule(r.pattern, files, "audit deny ", "x")
	}
	// As on a mount that is noexec: without a record, since a linker that tries it goes on without.
	for _, path := range b.unmapped(s) {
		w.line("deny %s m,", path)
	}
}

// shm is where POSIX shared memory lies: what is there is whoever's who writes to it, and a pod's containers share it.
var shm = pattern.Root{Path: "/dev/shm"}

// unmapped are the writable places from which nothing may be executed, and so nothing mapped to be: @image, or a rule
// for reading, would let it. As mounts are made noexec where there is no AppArmor, it is judged by the directories which
// the patterns name.
func (b *builder) unmapped(s *subject) (all []string) {
	for _, w := range s.writes {
		for _, one := range w.pattern.Combinations() {
			if root := one.Roots()[0]; !device(root.Path) && !s.executes(root) {
				all = append(all, paths(one, files)...)
			}
		}
	}
	if !s.executes(shm) {
		all = append(all, `"`+shm.Path+`/**[^/]"`)
	}
	return all
}

// device reports whether a path lies among devices, and not in the shared memory below them.
func device(path string) bool {
	return strings.HasPrefix(path, "/dev/") && path != shm.Path && !strings.HasPrefix(path, shm.Path+"/")
}

// executes reports whether anything at root, or below it, may be executed. Of @image it is said only of /, where the image
// is: other places are taken to be written to.
func (s *subject) executes(root pattern.Root) bool {
	return slices.ContainsFunc(s.execs, func(x compiled) bool {
		if x.pattern == nil {
			return root.Path == "/"
		}
		return x.pattern.Match(root.Path) || !root.Exact && x.pattern.CouldMatchBelow(root.Path)
	})
}

// execs writes what may be executed. A program without rules of its own stays in the profile, or comes back to that of
// the container; one that has some changes to its child profile. Where a wildcard lets both pass, the exact path wins.
//
// @image lets nothing be read: the kernel itself reads and maps what it executes, and asks only where the profile
// changes with the exec.
func (b *builder) execs(w *writer, s *subject, session bool) {
	w.note("exec")
	if b.policy.Mode == Complain {
		w.line("/** ix,")
		return
	}
	home, child := b.name, b.name+"//p"
	if session {
		home, child = b.name+"//session", b.name+"//session-p"
	}
	plain := "mrix"
	if s.exe != "" {
		plain = "mrpx -> " + home
	}
	for _, r := range s.execs {
		for i, exe := range b.exact {
			if r.pattern == nil || r.pattern.Match(exe) {
				w.line("\"%s\" mrpx -> %s%d,", literals(exe), child, i)
			}
		}
		if r.pattern == nil {
			perms := plain
			if !b.policy.Transitions {
				perms = strings.Replace(plain, "r", "", 1)
			}
			w.line("%s %s,", image, perms)
			continue
		}
		for _, path := range paths(r.pattern, asWritten) {
			if !b.own(path) {
				w.line("%s %s,", path, plain)
			}
		}
	}
}

// own reports whether a written path is that of a program with a child profile.
func (b *builder) own(path string) bool {
	return slices.ContainsFunc(b.exact, func(exe string) bool { return path == `"`+literals(exe)+`"` })
}
