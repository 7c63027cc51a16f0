package apparmor

import "strings"

func (b *builder) networkRules() (all []*Rule) {
	p := &b.policy
	lists := []*Rules{&p.Allow, &p.Sessions}
	for i := range p.Programs {
		lists = append(lists, &p.Programs[i].Allow)
	}
	for _, rules := range lists {
		for _, list := range [][]Rule{rules.Listen, rules.Connect} {
			for i := range list {
				all = append(all, &list[i])
			}
		}
	}
	return all
}

// declared reports whether the profile says anything of the network. Where it does not, every family is let through.
func (b *builder) declared() bool { return len(b.networkRules()) > 0 }

func (b *builder) networkGaps() {
	if !b.declared() {
		b.gaps = append(b.gaps, Gap{Kind: GapNetwork, Why: "no listen or connect rule is declared, and every family is allowed, as on nodes without AppArmor"})
	}
	for _, r := range b.networkRules() {
		why := "AppArmor knows families, not addresses and ports"
		if strings.HasPrefix(r.Text, "unix") {
			why = "kernels before 6.17 do not ask AppArmor about connections of unix sockets"
		}
		b.gap(GapNetwork, "", r, why)
	}
	p := &b.policy
	for _, rules := range []*Rules{&p.Deny} {
		for _, list := range [][]Rule{rules.Listen, rules.Connect} {
			for i := range list {
				b.gap(GapNetwork, "", &list[i], "a deny rule is not held: AppArmor knows families, not addresses and ports")
			}
		}
	}
}

// network writes what one subject may do with sockets.
func (w *writer) network(b *builder, s *subject) {
	const inner = "bind, listen, create, getattr, setattr, getopt, setopt, shutdown"
	w.note("sockets of the unix family, within the container")
	w.line("unix (%s),", inner)
	w.line("unix (connect, send) peer=(label=%s),", peers)
	w.line("unix (accept, receive),")
	if !b.declared() {
		w.note("network: nothing is declared")
		w.line("network,")
		return
	}
	raw := false
	for _, c := range b.policy.Capabilities {
		raw = raw || strings.TrimPrefix(c, "CAP_") == "NET_RAW"
	}
	inet := false
	for _, r := range append(append([]Rule(nil), s.listens...), s.connects...) {
		switch {
		case strings.HasPrefix(r.Text, "unix/"):
			for _, path := range paths(b.compile(r.Text[len("unix"):]), files) {
				w.line("%s rw,", path)
			}
		case strings.HasPrefix(r.Text, "unix@"):
			w.line(`unix (connect, send, receive) peer=(addr="@%s"),`, literals(r.Text[len("unix@"):]))
		default:
			inet = true
		}
	}
	w.note("network: families of what is declared")
	w.line("network netlink,")
	for _, family := range []string{"inet", "inet6"} {
		if inet {
			w.line("network %s stream,", family)
			w.line("network %s dgram,", family)
		}
		if raw {
			w.line("network %s raw,", family)
		}
	}
	if raw {
		w.line("network packet,")
	}
}

func literals(text string) string {
	var b strings.Builder
	for i := range len(text) {
		b.WriteString(literal(text[i]))
	}
	return b.String()
}
