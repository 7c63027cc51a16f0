package apparmor

import (
	"fmt"
	"strings"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

// shape says which names a pattern is to match beside files. AppArmor's names of directories end in /.
type shape uint8

const (
	asWritten   shape = iota // files, and directories where the pattern's end lets them in
	files                    // files only
	directories              // directories only
	both
)

// paths writes a pattern as AppArmor's globs, quoted: one or two for each combination of its braces.
func paths(p *pattern.Pattern, s shape) []string {
	var out []string
	for _, sequence := range p.Elements() {
		text := glob(sequence)
		anything := sequence[len(sequence)-1].Kind == pattern.DoubleStar
		switch {
		case s == directories:
			out = append(out, `"`+text+`/"`)
		case s == both && !anything:
			out = append(out, `"`+text+`{,/}"`)
		case s == files && anything: // what it matches and does not end in /
			out = append(out, `"`+text+`[^/]"`)
			if short := glob(sequence[:len(sequence)-1]); !strings.HasSuffix(short, "/") {
				out = append(out, `"`+short+`"`)
			}
		default:
			out = append(out, `"`+text+`"`)
		}
	}
	return out
}

// glob writes one sequence. A star that is a whole component comes as ? and the star, so that the parser, which treats
// a star between slashes in a way of its own, does not meet one.
func glob(sequence []pattern.Element) string {
	var b strings.Builder
	for _, e := range sequence {
		switch e.Kind {
		case pattern.Literal:
			b.WriteString(literal(e.Byte))
		case pattern.Single:
			b.WriteByte('?')
		case pattern.Star:
			b.WriteByte('*')
		case pattern.DoubleStar:
			b.WriteString("**")
		case pattern.Class:
			b.WriteString(class(e))
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '/' || c == '.' || c == '_' || c == '-'
}

// literal writes a byte so that it stands for itself. The parser turns an octal escape of a character that globs use
// into an escaped one.
func literal(c byte) string {
	if plain(c) {
		return string(rune(c))
	}
	return fmt.Sprintf(`\%03o`, c)
}

// class writes a class by whichever is shorter, what it holds or what it does not: the latter always with /, which a
// class of ours never matches and a negated one of AppArmor's would.
func class(e pattern.Element) string {
	var has, lacks []byte
	for i := 1; i < 256; i++ {
		if e.Has(byte(i)) {
			has = append(has, byte(i))
		} else {
			lacks = append(lacks, byte(i))
		}
	}
	if len(has) == 0 { // no byte: nothing matches, and AppArmor has no empty class
		return `\001/\001`
	}
	if len(has) == 1 {
		return literal(has[0])
	}
	if len(lacks) < len(has) {
		return "[^" + members(lacks) + "]"
	}
	return "[" + members(has) + "]"
}

// members writes the bytes of a class one by one. The parser undoes escapes before it reads the class, so a - must
// stand first, or it forms a range, and a ^ last, or it negates.
func members(list []byte) string {
	var first, rest, last string
	for _, c := range list {
		switch c {
		case '-':
			first = literal(c)
		case '^':
			last = literal(c)
		default:
			rest += literal(c)
		}
	}
	return first + rest + last
}
