package pattern

import "strings"

// loop says what a state may read without leaving: that is what a star is.
type loop uint8

const (
	noLoop   loop = iota
	nameLoop      // * : anything but /
	anyLoop       // **: anything
)

// shape picks the cheapest way to match the part between the literal prefix and the literal suffix.
type shape uint8

const (
	exact   shape = iota
	between       // one star, of zero or more characters
	within        // one star that is a whole component: one or more, the first not /
	general       // a machine
)

// glob is one combination of a pattern: the characters to be read in order, and between them the loops.
type glob struct {
	prefix, suffix string // literal
	length         int    // characters that any match has at least
	shape          shape
	loop           loop // of between and within
	machine        *machine
	chars          []char
	loops          []loop // len(chars)+1: loops[i] holds after i characters
}

// char is a token that reads exactly one byte.
type char struct {
	kind  tokenKind // literal, single or class
	byte  byte
	class *byteSet
}

func (c char) matches(b byte) bool {
	switch c.kind {
	case literal:
		return c.byte == b
	case class:
		return c.class.has(b)
	default:
		return b != '/'
	}
}

func newGlob(toks []token) glob {
	if text, ok := literalText(toks); ok {
		return glob{prefix: text, length: len(text), shape: exact}
	}
	g := glob{chars: make([]char, 0, len(toks)+1), loops: make([]loop, 1, len(toks)+2)}
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		if t.kind != star && t.kind != doubleStar {
			g.read(char{kind: t.kind, byte: t.char, class: t.class})
			continue
		}
		end, kind := starRun(toks, i)
		if isSlash(toks[i-1]) && (end == len(toks) || isSlash(toks[end])) {
			g.read(char{kind: single})
		}
		g.loops[len(g.chars)] = kind
		i = end - 1
	}
	g.length = len(g.chars)
	g.split()
	return g
}

func (g *glob) read(c char) {
	g.chars = append(g.chars, c)
	g.loops = append(g.loops, noLoop)
}

func literalText(toks []token) (string, bool) {
	text := make([]byte, len(toks))
	for i, t := range toks {
		if t.kind != literal {
			return "", false
		}
		text[i] = t.char
	}
	return string(text), true
}

// starRun joins neighbouring stars: they read what the widest of them reads.
func starRun(toks []token, i int) (end int, kind loop) {
	kind = nameLoop
	for ; i < len(toks) && (toks[i].kind == star || toks[i].kind == doubleStar); i++ {
		if toks[i].kind == doubleStar {
			kind = anyLoop
		}
	}
	return i, kind
}

func isSlash(t token) bool { return t.kind == literal && t.char == '/' }

// split finds the literal ends and how to match what lies between.
func (g *glob) split() {
	from, to := 0, len(g.chars)
	for from < to && g.chars[from].kind == literal && g.loops[from] == noLoop {
		from++
	}
	for to > from && g.chars[to-1].kind == literal && g.loops[to] == noLoop {
		to--
	}
	g.prefix, g.suffix = textOf(g.chars[:from]), textOf(g.chars[to:])
	switch middle := g.chars[from:to]; {
	case len(middle) == 0:
		g.shape, g.loop = between, g.loops[from]
	case len(middle) == 1 && middle[0].kind == single && g.loops[from] == noLoop && g.loops[to] != noLoop:
		g.shape, g.loop = within, g.loops[to]
	default:
		g.shape, g.machine = general, newMachine(middle, g.loops[from:to+1])
	}
}

func textOf(chars []char) string {
	text := make([]byte, len(chars))
	for i, c := range chars {
		text[i] = c.byte
	}
	return string(text)
}

// inner returns the longest literal text that begins with a / and stands after the first wildcard: "/c" in /a/*/c*.
func (g *glob) inner() string {
	var from, to int
	for i := len(g.prefix); i < len(g.chars); i++ {
		if c := g.chars[i]; c.kind != literal || c.byte != '/' {
			continue
		}
		end := i + 1
		for end < len(g.chars) && g.chars[end].kind == literal && g.loops[end] == noLoop {
			end++
		}
		if end-i > to-from {
			from, to = i, end
		}
	}
	return textOf(g.chars[from:to])
}

func (g *glob) match(path string) bool {
	if g.shape == exact {
		return path == g.prefix
	}
	if len(path) < g.length || path[:len(g.prefix)] != g.prefix || path[len(path)-len(g.suffix):] != g.suffix {
		return false
	}
	middle := path[len(g.prefix) : len(path)-len(g.suffix)]
	switch g.shape {
	case within:
		if middle[0] == '/' {
			return false
		}
		fallthrough
	case between:
		return g.loop == anyLoop || strings.IndexByte(middle, '/') < 0
	default:
		return g.machine.match(middle)
	}
}

func (g *glob) root() Root {
	if g.shape == exact {
		return Root{Path: g.prefix, Exact: true}
	}
	slash := strings.LastIndexByte(g.prefix, '/')
	return Root{Path: g.prefix[:max(slash, 1)]}
}
