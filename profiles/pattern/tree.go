package pattern

import (
	"bytes"
	"slices"
	"strings"
)

// entry is a value under a key.
type entry struct {
	key   string
	value int32
}

func sortEntries(entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int {
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		return int(a.value) - int(b.value)
	})
}

// tree is a radix tree: it finds all keys that a text begins with, or, read backwards, ends with.
type tree struct {
	nodes []node
	first []byte // first[i] is the first byte of nodes[i].label; siblings are neighbours
	items []int32
}

type node struct {
	label    string
	children span // in nodes
	values   span // in values
}

func newTree(entries []entry) tree {
	sortEntries(entries)
	t := tree{nodes: make([]node, 1, 2*len(entries)+1), first: make([]byte, 1, 2*len(entries)+1), items: make([]int32, 0, len(entries))}
	t.fill(0, entries, 0)
	return t
}

// fill makes the children of a node from sorted entries which all agree in their first depth bytes.
func (t *tree) fill(at int, entries []entry, depth int) {
	from := uint32(len(t.items))
	for len(entries) > 0 && len(entries[0].key) == depth {
		t.items = append(t.items, entries[0].value)
		entries = entries[1:]
	}
	t.nodes[at].values = span{from, uint32(len(t.items))}

	var groups [][]entry
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].key[depth] == entries[0].key[depth] {
			n++
		}
		groups = append(groups, entries[:n])
		entries = entries[n:]
	}
	child := len(t.nodes)
	t.nodes[at].children = span{uint32(child), uint32(child + len(groups))}
	for _, g := range groups {
		label := commonPrefix(g[0].key, g[len(g)-1].key)[depth:]
		t.nodes = append(t.nodes, node{label: label})
		t.first = append(t.first, label[0])
	}
	for i, g := range groups {
		t.fill(child+i, g, depth+len(t.nodes[child+i].label))
	}
}

// cursor stands on the nodes of a tree that a text passes through, one after the other.
type cursor struct {
	tree     *tree
	text     string
	backward bool
	read     int // bytes of text that led here
	at       int // node
	started  bool
}

func (t *tree) walk(text string, backward bool) cursor {
	return cursor{tree: t, text: text, backward: backward}
}

func (c *cursor) values() []int32 {
	v := c.tree.nodes[c.at].values
	return c.tree.items[v.from:v.to]
}

// next goes to the following node; false means there is none.
func (c *cursor) next() bool {
	if !c.started {
		c.started = true
		return len(c.tree.items) > 0
	}
	if c.read == len(c.text) {
		return false
	}
	children := c.tree.nodes[c.at].children
	i := bytes.IndexByte(c.tree.first[children.from:children.to], c.byteAt(c.read))
	if i < 0 {
		return false
	}
	c.at = int(children.from) + i
	label := c.tree.nodes[c.at].label
	if len(label) > len(c.text)-c.read {
		return false
	}
	if !c.backward {
		if c.text[c.read:c.read+len(label)] != label {
			return false
		}
	} else {
		for j := range len(label) {
			if c.byteAt(c.read+j) != label[j] {
				return false
			}
		}
	}
	c.read += len(label)
	return true
}

func (c *cursor) byteAt(i int) byte {
	if c.backward {
		return c.text[len(c.text)-1-i]
	}
	return c.text[i]
}
