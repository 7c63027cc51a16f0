package pattern

// ElementKind is what an element reads.
type ElementKind uint8

// The kinds of elements.
const (
	Literal    ElementKind = iota // one byte, Element.Byte
	Single                        // one byte that is not /
	Class                         // one byte of a class, none of which is /: Element.Has
	Star                          // any number of bytes that are not /, none included
	DoubleStar                    // any number of bytes, none included
)

// Element is one step of a pattern, for those who write it in another language.
type Element struct {
	Kind ElementKind
	Byte byte // of Literal
	set  *byteSet
}

// Has reports whether the class of a Class element holds c.
func (e Element) Has(c byte) bool { return e.set != nil && e.set.has(c) }

// Elements returns what the pattern reads, in order: one sequence for each combination of its braces. A path matches
// the pattern if one of the sequences reads it to its end. What the pattern's text says by a star that is a whole
// component is said here by Single and the star after it.
func (p *Pattern) Elements() [][]Element {
	all := make([][]Element, len(p.globs))
	for i := range p.globs {
		all[i] = p.globs[i].elements()
	}
	return all
}

func (g *glob) elements() []Element {
	var out []Element
	if g.shape == exact {
		for i := range len(g.prefix) {
			out = append(out, Element{Kind: Literal, Byte: g.prefix[i]})
		}
		return out
	}
	kinds := map[tokenKind]ElementKind{literal: Literal, single: Single, class: Class}
	for i := 0; i <= len(g.chars); i++ {
		switch g.loops[i] {
		case nameLoop:
			out = append(out, Element{Kind: Star})
		case anyLoop:
			out = append(out, Element{Kind: DoubleStar})
		}
		if i < len(g.chars) {
			c := g.chars[i]
			out = append(out, Element{Kind: kinds[c.kind], Byte: c.byte, set: c.class})
		}
	}
	return out
}
