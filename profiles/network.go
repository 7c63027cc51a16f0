package profiles

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

const networkForms = `write tcp/6379, udp/8000-8010, tcp/10.0.0.0/8:6379, tcp/[2001:db8::]/32:443, unix/run/x.sock or unix@name`

// endpoint is a listen or connect rule, read. Exactly one of the three forms is set.
type endpoint struct {
	protocol string           // "tcp" or "udp"; "" for the others
	prefix   netip.Prefix     // not valid: any address
	from, to uint16           // ports
	path     *pattern.Pattern // unix socket in the file system
	abstract string           // unix socket in the abstract namespace
	dns      bool             // the name servers of the container's resolv.conf
}

// parseEndpoint reads
//
//	tcp/PORTS  tcp/ADDRESS:PORTS  udp/...    ADDRESS: 10.0.0.1, 10.0.0.0/8, [::1], [::]/0   PORTS: 80, 80-90, *
//	unix/PATH  unix@NAME                     PATH: a pattern, its first / included
//	dns                                      connect only
//
// and says what is wrong with anything else.
func parseEndpoint(text string, kind Kind) (e endpoint, problem, want string) {
	switch {
	case text == "dns" && kind == Connect:
		return endpoint{dns: true}, "", ""
	case text == "dns":
		return e, `"dns" is a thing to connect to`, "write udp/53 and tcp/53 for a name server that listens"
	case strings.HasPrefix(text, "unix/"):
		p, err := pattern.Compile(text[len("unix"):])
		if err != nil {
			return e, err.Error(), "write unix and the socket's path, as in unix/run/x.sock"
		}
		return endpoint{path: p}, "", ""
	case strings.HasPrefix(text, "unix@") && len(text) > len("unix@"):
		return endpoint{abstract: text[len("unix@"):]}, "", ""
	}
	protocol, rest, ok := strings.Cut(text, "/")
	if !ok || protocol != "tcp" && protocol != "udp" {
		return e, "no address is written " + quote(text), networkForms
	}
	e.protocol = protocol
	ports := rest
	if colon := strings.LastIndexByte(rest, ':'); colon >= 0 {
		ports = rest[colon+1:]
		if e.prefix, problem, want = parsePrefix(rest[:colon]); problem != "" {
			return e, problem, want
		}
	}
	e.from, e.to, problem, want = parsePorts(ports)
	return e, problem, want
}

func parsePrefix(text string) (p netip.Prefix, problem, want string) {
	address, bits, slash := strings.Cut(text, "/")
	inner := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	a, err := netip.ParseAddr(inner)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.Is6() != (len(address) == len(inner)+2) {
		return p, quote(text) + " is not an address", "write 10.0.0.1, 10.0.0.0/8, [::1] or [2001:db8::]/32"
	}
	n := a.BitLen()
	if slash {
		if n, err = strconv.Atoi(bits); err != nil || n < 0 || n > a.BitLen() || bits != strconv.Itoa(n) {
			return p, quote(bits) + " is not a length of a prefix", "write a number from 0 to " + strconv.Itoa(a.BitLen())
		}
	}
	p = netip.PrefixFrom(a, n)
	if p.Masked() != p {
		return p, "the address has bits beyond its prefix", "write " + p.Masked().String()
	}
	return p, "", ""
}

func parsePorts(text string) (from, to uint16, problem, want string) {
	if text == "*" {
		return 1, 65535, "", ""
	}
	first, last, ranged := strings.Cut(text, "-")
	from, ok := parsePort(first)
	to = from
	if ranged && ok {
		to, ok = parsePort(last)
	}
	switch {
	case !ok:
		return 0, 0, quote(text) + " is not a port", "write 80, 8000-8010 or * with numbers from 1 to 65535"
	case to < from:
		return 0, 0, "the range " + quote(text) + " runs backwards", "write " + last + "-" + first
	}
	return from, to, "", ""
}

func parsePort(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n > 0 && text == strconv.FormatUint(n, 10)
}

// networkRule is one listen or connect rule in a plan.
type networkRule struct {
	entry
	kind Kind
	endpoint
}

// decideNetwork goes through the rules one by one: there are few.
func (p *Plan) decideNetwork(a *Access) Verdict {
	v := Verdict{Reason: ReasonNotDeclared}
	to, ok := parseAddress(a.Name)
	for i := range p.network {
		r := &p.network[i]
		if ok && r.kind == a.Kind && r.matches(&to) && !r.weigh(a, &v) {
			break
		}
	}
	return v
}

// address is what an access listens on or connects to.
type address struct {
	protocol string // tcp, udp, unix/ or unix@
	ip       netip.Addr
	port     uint16
	name     string
}

func parseAddress(text string) (address, bool) {
	for _, protocol := range [...]string{"tcp", "udp"} {
		if rest, ok := strings.CutPrefix(text, protocol); ok && strings.HasPrefix(rest, "/") {
			ap, err := netip.ParseAddrPort(rest[1:])
			return address{protocol: protocol, ip: ap.Addr().Unmap(), port: ap.Port()}, err == nil
		}
	}
	for _, protocol := range [...]string{"unix/", "unix@"} {
		if rest, ok := strings.CutPrefix(text, protocol); ok {
			return address{protocol: protocol, name: text[len(text)-len(rest)-1:]}, true
		}
	}
	return address{}, false
}

func (e *endpoint) matches(a *address) bool {
	switch {
	case a.protocol == "unix/":
		return e.path != nil && e.path.Match(a.name)
	case a.protocol == "unix@":
		return e.abstract != "" && e.abstract == a.name[1:]
	case e.dns: // which servers those are stands in the container's resolv.conf, which a pure decision does not read
		return a.port == 53
	}
	return e.protocol == a.protocol && e.from <= a.port && a.port <= e.to && (!e.prefix.IsValid() || e.prefix.Contains(a.ip))
}
