package pattern

import "fmt"

// Set holds many patterns and finds those that match a path in a time that hardly depends on how many there are: exact
// paths by a hash table, the others by a tree of a text that every match contains: its beginning, its end, or one within
// it that begins with /, whichever fewer patterns share. Only patterns whose text is found are tried. Patterns which
// differ in nothing but their wildcards are tried one by one.
type Set struct {
	exact    map[string]span
	owners   []int32 // of exact paths, cut by spans: indices of patterns
	globs    []glob
	globOf   []int32 // the pattern's index of each glob
	prefixes tree    // of globs
	suffixes tree    // of globs, backwards
	inner    tree    // of globs, to be found at any /
}

// span is a part of a slice.
type span struct{ from, to uint32 }

// NewSet compiles the texts. The error names the first one that is not a pattern.
func NewSet(texts []string) (*Set, error) {
	patterns := make([]*Pattern, len(texts))
	for i, text := range texts {
		p, err := Compile(text)
		if err != nil {
			return nil, fmt.Errorf("pattern %d of %d: %w", i+1, len(texts), err)
		}
		patterns[i] = p
	}
	return SetOf(patterns), nil
}

// SetOf makes a set of patterns that are compiled already. Their indices are those of the slice.
func SetOf(patterns []*Pattern) *Set {
	s := &Set{}
	var paths []entry
	for i, p := range patterns {
		for _, g := range p.globs {
			if g.shape == exact {
				paths = append(paths, entry{g.prefix, int32(i)})
				continue
			}
			s.globs = append(s.globs, g)
			s.globOf = append(s.globOf, int32(i))
		}
	}
	s.indexExact(paths)
	s.indexGlobs()
	return s
}

func (s *Set) indexExact(paths []entry) {
	sortEntries(paths)
	s.exact = make(map[string]span, len(paths))
	s.owners = make([]int32, len(paths))
	for i := 0; i < len(paths); {
		from := i
		for ; i < len(paths) && paths[i].key == paths[from].key; i++ {
			s.owners[i] = paths[i].value
		}
		s.exact[paths[from].key] = span{uint32(from), uint32(i)}
	}
}

// crowd is how many patterns may share a beginning before another way to find them is worth its price.
const crowd = 8

// indexGlobs puts each glob into the tree where it has least company.
func (s *Set) indexGlobs() {
	beginnings, endings, inners := map[string]int{}, map[string]int{}, map[string]int{}
	inner := make([]string, len(s.globs))
	for i := range s.globs {
		g := &s.globs[i]
		inner[i] = g.inner()
		beginnings[g.prefix]++
		endings[g.suffix]++
		inners[inner[i]]++
	}
	var forward, backward, within []entry
	for i := range s.globs {
		g := &s.globs[i]
		first, last, middle := beginnings[g.prefix], endings[g.suffix], inners[inner[i]]
		switch {
		case first <= crowd || g.suffix == "" && inner[i] == "":
			forward = append(forward, entry{g.prefix, int32(i)})
		case g.suffix != "" && last < first && (inner[i] == "" || last <= middle):
			backward = append(backward, entry{reversed(g.suffix), int32(i)})
		case inner[i] != "" && middle < first:
			within = append(within, entry{inner[i], int32(i)})
		default:
			forward = append(forward, entry{g.prefix, int32(i)})
		}
	}
	s.prefixes, s.suffixes, s.inner = newTree(forward), newTree(backward), newTree(within)
}

func reversed(text string) string {
	b := make([]byte, len(text))
	for i := range len(text) {
		b[len(text)-1-i] = text[i]
	}
	return string(b)
}

// Lookup calls found with the index of each pattern that matches the path, in no particular order, until found
// returns false. A pattern that matches in two ways may be given twice. Lookup itself allocates nothing.
func (s *Set) Lookup(path string, found func(i int) bool) {
	if at, ok := s.exact[path]; ok {
		for _, i := range s.owners[at.from:at.to] {
			if !found(int(i)) {
				return
			}
		}
	}
	if !s.try(s.prefixes.walk(path, false), path, found) || !s.try(s.suffixes.walk(path, true), path, found) {
		return
	}
	if len(s.inner.items) == 0 {
		return
	}
	for i := 1; i < len(path); i++ {
		if path[i] == '/' && !s.try(s.inner.walk(path[i:], false), path, found) {
			return
		}
	}
}

// try matches the globs that a walk comes past; false means that found has had enough.
func (s *Set) try(c cursor, path string, found func(i int) bool) bool {
	for c.next() {
		for _, i := range c.values() {
			if s.globs[i].match(path) && !found(int(s.globOf[i])) {
				return false
			}
		}
	}
	return true
}

// MatchAny reports whether any pattern of the set matches the path.
func (s *Set) MatchAny(path string) bool {
	any := false
	s.Lookup(path, func(int) bool {
		any = true
		return false
	})
	return any
}
