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
	b := &builder{policy: p}
	b.classes()
	if b.err != nil {
		return nil, b.err
	}
	b.findGaps()
	// The digest is that of the text but for the name: two texts never share a name, whatever made them differ.
	sum := sha256.Sum256([]byte(b.text()))
	b.name = Name(p.Profile, hex.EncodeToString(sum[:]))
	t := &Text{Name: b.name, Session: b.name, Body: b.text(), Gaps: b.gaps}
	if !p.Sessions.empty() {
		t.Session += "//session"
	}
	return t, b.err
}

// Prefix begins the names of all our profiles.
const Prefix = "stockade."

const maxName = 64

// Name is that of a profile: stockade.PROFILE.DIGEST12. It holds letters, digits, '.', '_' and '-' only, whatever the
// profile is called.
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

// peers are the container's own processes, whichever of its profiles they have.
func (w *writer) peers() string { return `"` + w.name + `{,//*}"` }

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
	if !p.Sessions.empty() {
		b.profile(w, "session", "", true)
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
	w.line("/{usr/,}lib{,32,64,x32}/{,*/}ld-*.so* mr,")
	for _, path := range p.Interpreters {
		w.line(`"%s" mr,`, literals(path))
	}
	w.note("/proc as container runtimes leave it")
	w.line("/proc/{[^k],k[^c]}** r,")
	w.line("/proc/[1-9]*/** rwk,")
	w.line("/proc/sys/kernel/shm* rw,")
	w.note("processes of the container among themselves, and who supervises them")
	w.line("ptrace (trace, tracedby, read, readby) peer=%s,", w.peers())
	w.line("signal (send, receive) peer=%s,", w.peers())
	supervisors := p.Supervisors
	if supervisors == nil {
		supervisors = []string{"unconfined", "runc", "crun"}
	}
	for _, label := range supervisors {
		w.line(`signal (receive) peer="%s",`, literals(label))
	}
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
	for _, r := range s.denyExec {
		rule(r.pattern, files, "audit deny ", "x")
	}
}

// execs writes what may be executed. A program without rules of its own stays in the profile, or comes back to that of
// the container; one that has some changes to its child profile. Where a wildcard lets both pass, the exact path wins.
func (b *builder) execs(w *writer, s *subject, session bool) {
	w.note("exec")
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
			w.line("%s %s,", image, plain)
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
