package pattern

import "strings"

// CoversChildren reports whether the pattern surely matches every direct child of dir. False means no, or not sure.
func (p *Pattern) CoversChildren(dir string) bool { return p.covers(dir, nameLoop) }

// CoversTree reports whether the pattern surely matches everything strictly below dir. False means no, or not sure.
func (p *Pattern) CoversTree(dir string) bool { return p.covers(dir, anyLoop) }

// CouldMatchChild reports whether the pattern might match a direct child of dir. True means yes, or not sure.
func (p *Pattern) CouldMatchChild(dir string) bool {
	below := inside(dir)
	for i := range p.globs {
		if g := &p.globs[i]; g.shape == exact {
			if rest, ok := strings.CutPrefix(g.prefix, below); ok && rest != "" && strings.IndexByte(rest, '/') < 0 {
				return true
			}
		} else if g.finishes(g.after(below), false) {
			return true
		}
	}
	return false
}

// CouldMatchBelow reports whether the pattern might match something strictly below dir. True means yes, or not sure.
func (p *Pattern) CouldMatchBelow(dir string) bool {
	below := inside(dir)
	for i := range p.globs {
		if g := &p.globs[i]; g.shape == exact {
			if len(g.prefix) > len(below) && strings.HasPrefix(g.prefix, below) {
				return true
			}
		} else if g.finishes(g.after(below), true) {
			return true
		}
	}
	return false
}

// inside is what the paths below dir begin with.
func inside(dir string) string {
	if strings.HasSuffix(dir, "/") {
		return dir
	}
	return dir + "/"
}

func (p *Pattern) covers(dir string, need loop) bool {
	below := inside(dir)
	for i := range p.globs {
		if g := &p.globs[i]; g.shape != exact && len(g.prefix) <= len(below) && g.coversFrom(g.after(below), need) {
			return true
		}
	}
	return false
}

// after returns the states which the glob can be in once it has read the text, by number of characters read.
func (g *glob) after(text string) []bool {
	n := min(len(text), len(g.prefix))
	if text[:n] != g.prefix[:n] {
		return nil
	}
	states, next := make([]bool, len(g.chars)+1), make([]bool, len(g.chars)+1)
	states[n] = true
	for i := n; i < len(text); i++ {
		clear(next)
		for s, on := range states {
			if !on {
				continue
			}
			if g.loops[s] == anyLoop || g.loops[s] == nameLoop && text[i] != '/' {
				next[s] = true
			}
			if s < len(g.chars) && g.chars[s].matches(text[i]) {
				next[s+1] = true
			}
		}
		states, next = next, states
	}
	return states
}

// coversFrom reports whether from one of the states every name is accepted (need nameLoop), or every clean path (need
// anyLoop). It looks only for "star", "? and star" and "star and ?" at the end: other ways to say the same are not seen.
func (g *glob) coversFrom(states []bool, need loop) bool {
	if states == nil {
		return false
	}
	last := len(g.chars)
	if states[last] && g.loops[last] >= need {
		return true
	}
	return last > 0 && states[last-1] && g.chars[last-1].kind == single && (g.loops[last] >= need || g.loops[last-1] >= need)
}

// finishes reports whether from one of the states one or more characters lead to the end, with slashes among them or
// without.
func (g *glob) finishes(states []bool, slashes bool) bool {
	last := len(g.chars)
	for s := range states {
		if states[s] && (s < last || g.loops[s] != noLoop) && (slashes || !g.needsSlash(s)) {
			return true
		}
	}
	return false
}

// needsSlash reports whether a / must still be read from the state on.
func (g *glob) needsSlash(state int) bool {
	for _, c := range g.chars[state:] {
		if c.kind == literal && c.byte == '/' {
			return true
		}
	}
	return false
}
