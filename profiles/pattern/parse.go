package pattern

import (
	"fmt"
	"strings"
)

const (
	maxLength       = 4095 // PATH_MAX without the closing NUL
	maxName         = 255  // NAME_MAX, the longest component Linux knows
	maxCombinations = 256
	maxExpansion    = 64 << 10 // bytes of all combinations together
)

type tokenKind uint8

const (
	literal    tokenKind = iota
	single               // ?
	class                // [...]
	star                 // *
	doubleStar           // **
)

// token is one element of a pattern after its braces have been expanded.
type token struct {
	kind  tokenKind
	char  byte // literal
	class *byteSet
	at    int // offset in the pattern's text
}

// byteSet holds the bytes of a class, one bit each.
type byteSet [4]uint64

func (s *byteSet) add(c byte)      { s[c>>6] |= 1 << (c & 63) }
func (s *byteSet) del(c byte)      { s[c>>6] &^= 1 << (c & 63) }
func (s *byteSet) has(c byte) bool { return s[c>>6]&(1<<(c&63)) != 0 }

// parser reads one pattern's text from left to right.
type parser struct {
	text string
	pos  int
}

// parse returns the combinations of the pattern that can match a path; there is at least one, or an error.
func parse(text string) ([][]token, error) {
	p := &parser{text: text}
	switch {
	case text == "":
		return nil, p.fail(0, "it is empty", "write an absolute path such as /usr/bin/env")
	case len(text) > maxLength:
		return nil, p.fail(maxLength, fmt.Sprintf("it has %d bytes", len(text)), fmt.Sprintf("a path has at most %d", maxLength))
	}
	sequences := [][]token{make([]token, 0, len(text))}
	for p.pos < len(text) {
		if text[p.pos] == '{' {
			choices, err := p.braces()
			if err != nil {
				return nil, err
			}
			if sequences, err = p.product(sequences, choices); err != nil {
				return nil, err
			}
			continue
		}
		tok, err := p.token()
		if err != nil {
			return nil, err
		}
		for i := range sequences {
			sequences[i] = append(sequences[i], tok)
		}
	}
	return p.possible(sequences)
}

func (p *parser) fail(at int, problem, want string) error {
	return &Error{Pattern: p.text, Offset: at, Problem: problem, Want: want}
}

func (p *parser) token() (token, error) {
	at := p.pos
	c := p.text[at]
	p.pos++
	switch c {
	case 0:
		return token{}, p.fail(at, "a NUL character", "no path holds one")
	case '\\':
		if p.pos == len(p.text) {
			return token{}, p.fail(at, `a \ with nothing after it`, `write \\ for the character itself`)
		}
		p.pos++
		if p.text[p.pos-1] == 0 {
			return token{}, p.fail(at, "a NUL character", "no path holds one")
		}
		return token{kind: literal, char: p.text[p.pos-1], at: at}, nil
	case '?':
		return token{kind: single, at: at}, nil
	case '*':
		if p.pos < len(p.text) && p.text[p.pos] == '*' {
			p.pos++
			return token{kind: doubleStar, at: at}, nil
		}
		return token{kind: star, at: at}, nil
	case '[':
		set, err := p.class()
		return token{kind: class, class: set, at: at}, err
	case ']', '}':
		return token{}, p.fail(at, fmt.Sprintf("a %c that closes nothing", c), fmt.Sprintf(`write \%c for the character itself`, c))
	}
	return token{kind: literal, char: c, at: at}, nil
}

// class reads what follows a [ up to its ].
func (p *parser) class() (*byteSet, error) {
	open := p.pos - 1
	set := new(byteSet)
	negated := strings.HasPrefix(p.text[p.pos:], "^")
	if negated {
		p.pos++
	}
	for n := 0; ; n++ {
		if p.pos == len(p.text) {
			return nil, p.fail(open, "a [ without its ]", `close the class, or write \[ for the character itself`)
		}
		if p.text[p.pos] == ']' {
			if n == 0 {
				return nil, p.fail(open, "an empty class", `name the characters, as in [a-z], or write \[ for the character itself`)
			}
			p.pos++
			break
		}
		if n == 0 && !negated && p.text[p.pos] == '!' {
			return nil, p.fail(p.pos, "a ! at the start of a class", `write [^...] for "none of these", or \! for the character itself`)
		}
		if err := p.classRange(set); err != nil {
			return nil, err
		}
	}
	if negated {
		for i := range set {
			set[i] = ^set[i]
		}
		set.del('/')
		set.del(0)
	}
	return set, nil
}

// classRange reads one character or one range such as a-z of a class.
func (p *parser) classRange(set *byteSet) error {
	at := p.pos
	from, err := p.classChar()
	if err != nil {
		return err
	}
	to := from
	if rest := p.text[p.pos:]; len(rest) >= 2 && rest[0] == '-' && rest[1] != ']' {
		p.pos++
		if to, err = p.classChar(); err != nil {
			return err
		}
	}
	switch {
	case to < from:
		return p.fail(at, fmt.Sprintf("a range %q that runs backwards", p.text[at:p.pos]), fmt.Sprintf("write %c-%c", to, from))
	case from <= '/' && '/' <= to:
		return p.fail(at, "a class that holds /", "a class stands for one character of a name; write / outside of it")
	}
	for c := int(from); c <= int(to); c++ {
		set.add(byte(c))
	}
	return nil
}

func (p *parser) classChar() (byte, error) {
	at := p.pos
	c := p.text[at]
	p.pos++
	if c == '\\' {
		if p.pos == len(p.text) {
			return 0, p.fail(at, `a \ with nothing after it`, `write \\ for the character itself`)
		}
		c = p.text[p.pos]
		p.pos++
	}
	switch {
	case c == 0:
		return 0, p.fail(at, "a NUL character", "no path holds one")
	case c >= 0x80:
		return 0, p.fail(at, "a class with a character outside of ASCII", "matching is by bytes: write {é,è} instead of [éè]")
	}
	return c, nil
}

// braces reads {a,b} and returns its alternatives.
func (p *parser) braces() ([][]token, error) {
	open := p.pos
	p.pos++
	choices := [][]token{nil}
	for {
		if p.pos == len(p.text) {
			return nil, p.fail(open, "a { without its }", `close it, or write \{ for the character itself`)
		}
		switch p.text[p.pos] {
		case '{':
			return nil, p.fail(p.pos, "braces within braces", "write all alternatives in one pair, or several rules")
		case ',':
			p.pos++
			choices = append(choices, nil)
		case '}':
			p.pos++
			if len(choices) == 1 {
				return nil, p.fail(open, "braces with one alternative", `write {a,b}, or \{ for the character itself`)
			}
			return choices, nil
		default:
			tok, err := p.token()
			if err != nil {
				return nil, err
			}
			last := len(choices) - 1
			choices[last] = append(choices[last], tok)
		}
	}
}

// product appends every choice to every sequence.
func (p *parser) product(sequences, choices [][]token) ([][]token, error) {
	size := 0
	for _, s := range sequences {
		for _, c := range choices {
			size += len(s) + len(c)
		}
	}
	if n := len(sequences) * len(choices); n > maxCombinations || size > maxExpansion {
		return nil, p.fail(p.pos-1, fmt.Sprintf("braces that stand for %d combinations", n),
			fmt.Sprintf("at most %d: write several rules", maxCombinations))
	}
	var all [][]token
	for _, s := range sequences {
		for _, c := range choices {
			all = append(all, append(s[:len(s):len(s)], c...))
		}
	}
	return all, nil
}

// possible keeps the sequences that can match a clean path. Where none can, the first one's error is returned.
func (p *parser) possible(sequences [][]token) ([][]token, error) {
	var kept [][]token
	var first error
	for _, toks := range sequences {
		if err := p.check(toks); err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		kept = append(kept, toks)
	}
	if len(kept) == 0 {
		return nil, first
	}
	return kept, nil
}

// check says why no clean path could match a sequence.
func (p *parser) check(toks []token) error {
	if len(toks) == 0 || toks[0].kind != literal || toks[0].char != '/' {
		return p.fail(0, "it is not absolute", "begin with /: paths are those the container sees, from its root")
	}
	if len(toks) == 1 {
		return p.fail(0, "it names the root directory only", "listing needs no rule; write /** for everything below")
	}
	start := 1
	for i := 1; i <= len(toks); i++ {
		if i < len(toks) && (toks[i].kind != literal || toks[i].char != '/') {
			continue
		}
		if err := p.checkComponent(toks[start:i], toks[start-1].at, i == len(toks)); err != nil {
			return err
		}
		start = i + 1
	}
	return nil
}

func (p *parser) checkComponent(toks []token, slash int, last bool) error {
	fixed, dots, stars := 0, 0, 0
	for _, t := range toks {
		switch {
		case t.kind == star || t.kind == doubleStar:
			stars++
			continue
		case t.kind == literal && t.char == '.':
			dots++
		}
		fixed++
	}
	switch {
	case len(toks) == 0 && last:
		return p.fail(slash, "a / at the end", "write the directory without it, or /** after it for everything below")
	case len(toks) == 0:
		return p.fail(slash, "an empty component (//)", "write one /")
	case stars == 0 && dots == fixed && dots <= 2:
		return p.fail(toks[0].at, "the component "+"..."[:dots], "paths are compared after they are resolved: write the path it leads to")
	case fixed > maxName:
		return p.fail(toks[0].at, fmt.Sprintf("a name of %d bytes", fixed), fmt.Sprintf("the kernel knows names of at most %d, so this cannot match", maxName))
	}
	return nil
}
