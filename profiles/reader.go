package profiles

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDocument = 1 << 20 // bytes of a file
	maxNesting  = 16      // lists and mappings within each other on a line; the language needs 8
	maxErrors   = 100     // reported; nobody reads more
	maxColumn   = 128     // of a dash: each level of a block takes a column
)

// reader takes values out of YAML nodes and collects what is wrong with them.
type reader struct {
	file string
	errs []error
}

func (r *reader) add(at Position, field, problem, want string) {
	if len(r.errs) == maxErrors {
		return
	}
	r.errs = append(r.errs, &Error{Position: at, Field: field, Problem: problem, Want: want})
}

func (r *reader) fail(n ast.Node, field, problem, want string) {
	r.add(r.position(start(n)), field, problem, want)
}

func (r *reader) position(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{File: r.file}
	}
	return Position{File: r.file, Line: t.Position.Line, Column: t.Position.Column}
}

// documents parses the file and returns the nodes of its documents. What is refused here is refused before any tree is
// built: a hostile file must not cost more than its size.
func (r *reader) documents(data []byte) []ast.Node {
	if len(data) > maxDocument {
		r.add(Position{File: r.file}, "", fmt.Sprintf("the file has %d bytes", len(data)), fmt.Sprintf("at most %d: write several files", maxDocument))
		return nil
	}
	if at := invalidUTF8(data); at >= 0 {
		line := 1 + strings.Count(string(data[:at]), "\n")
		column := at - strings.LastIndexByte(string(data[:at]), '\n')
		r.add(Position{File: r.file, Line: line, Column: column}, "", "a byte that is not UTF-8", `YAML is UTF-8; match other names of files with ?`)
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if !r.checkTokens(tokens) {
		return nil
	}
	var nodes []ast.Node
	for _, doc := range splitDocuments(tokens) {
		file, err := parser.Parse(doc, 0, parser.AllowDuplicateMapKey())
		if err != nil {
			r.syntax(err)
			continue
		}
		for _, d := range file.Docs {
			if d.Body != nil && r.complete(doc, file) {
				nodes = append(nodes, d.Body)
			}
		}
	}
	return nodes
}

// splitDocuments does by hand what the parser does not do well: after an empty document it drops all others. Documents
// without content are left out.
func splitDocuments(tokens token.Tokens) []token.Tokens {
	var all []token.Tokens
	var doc token.Tokens
	content := false
	for _, t := range append(tokens[:len(tokens):len(tokens)], nil) {
		if t == nil || t.Type == token.DocumentHeaderType || t.Type == token.DocumentEndType {
			if content {
				all = append(all, doc)
			}
			doc, content = nil, false
			continue
		}
		doc = append(doc, t)
		content = content || t.Type != token.CommentType
	}
	return all
}

// scalars are the tokens that carry values.
var scalars = []token.Type{
	token.StringType, token.SingleQuoteType, token.DoubleQuoteType, token.BoolType, token.NullType, token.IntegerType,
	token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType, token.FloatType, token.InfinityType, token.NanType,
}

// complete checks that every value of the text is in the tree: a rule that the parser lost would be a hole in a deny.
func (r *reader) complete(tokens token.Tokens, file *ast.File) bool {
	c := collector{}
	for _, doc := range file.Docs {
		ast.Walk(c, doc)
	}
	for _, t := range tokens {
		if slices.Contains(scalars, t.Type) && !c[*t.Position] {
			r.add(r.position(t), "", "not YAML: "+quote(t.Value)+" belongs to nothing", "")
			return false
		}
	}
	return true
}

// collector remembers the places of all nodes of a tree.
type collector map[token.Position]bool

// Visit implements ast.Visitor.
func (c collector) Visit(n ast.Node) ast.Visitor {
	if t := n.GetToken(); t != nil && t.Position != nil {
		c[*t.Position] = true
	}
	return c
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

func (r *reader) syntax(err error) {
	var located interface {
		error
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &located) {
		r.add(r.position(located.GetToken()), "", "not YAML: "+located.GetMessage(), "")
		return
	}
	r.add(Position{File: r.file}, "", "not YAML: "+err.Error(), "")
}

// refused are the parts of YAML that profiles do without: each lets a short text say something long or something else
// than what is seen.
var refused = map[token.Type]string{
	token.AnchorType:     "an anchor (&)",
	token.AliasType:      "an alias (*)",
	token.MergeKeyType:   "a merge key (<<)",
	token.TagType:        "a tag (!)",
	token.MappingKeyType: "an explicit key (?)",
	token.DirectiveType:  "a directive (%)",
	token.LiteralType:    "a block of text (|)",
	token.FoldedType:     "a folded text (>)",
}

// checkTokens refuses what must not reach the parser, which is recursive. An opening bracket or dash nests what follows
// it, and on one line there may be many.
func (r *reader) checkTokens(tokens token.Tokens) bool {
	flow, dashes, line, before := 0, 0, 0, len(r.errs)
	for _, t := range tokens {
		if what, bad := refused[t.Type]; bad {
			r.add(r.position(t), "", what, "write the value itself, in quotes if it begins with such a character")
		}
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow = max(flow-1, 0)
		case token.SequenceEntryType:
			dashes++
		}
		if flow+dashes > maxNesting || t.Position.Column > maxColumn && t.Type == token.SequenceEntryType {
			r.add(r.position(t), "", "lists and mappings nested too deeply", fmt.Sprintf("at most %d levels", maxNesting))
			break
		}
	}
	return len(r.errs) == before
}

// pair is one entry of a mapping.
type pair struct {
	key   string
	at    ast.Node
	value ast.Node
}

// fields reads a mapping whose keys are known, and hands each value to the function of its key.
func (r *reader) fields(n ast.Node, field string, known map[string]func(n ast.Node, field string)) {
	for _, p := range r.mapping(n, field) {
		read, ok := known[p.key]
		if !ok {
			r.fail(p.at, join(field, p.key), "unknown field", suggest(p.key, sortedKeys(known), "the fields here are "+strings.Join(sortedKeys(known), ", ")))
			continue
		}
		read(p.value, join(field, p.key))
	}
}

// mapping returns the pairs of a mapping, each key once.
func (r *reader) mapping(n ast.Node, field string) []pair {
	m, ok := n.(ast.MapNode)
	if !ok {
		r.fail(n, field, "it is "+describe(n), "write fields (key: value)")
		return nil
	}
	seen := map[string]ast.Node{}
	var pairs []pair
	for it := m.MapRange(); it.Next(); {
		key := it.Key()
		t := key.GetToken()
		if _, scalar := key.(ast.ScalarNode); !scalar {
			r.fail(key, field, "a key that is not a word", "write key: value")
			continue
		}
		if first, twice := seen[t.Value]; twice {
			r.fail(key, join(field, t.Value), fmt.Sprintf("given twice, first in line %d", r.position(first.GetToken()).Line), "give it once")
			continue
		}
		seen[t.Value] = key
		pairs = append(pairs, pair{key: t.Value, at: key, value: it.Value()})
	}
	return pairs
}

// list returns the items of a list.
func (r *reader) list(n ast.Node, field string) []ast.Node {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fail(n, field, "it is "+describe(n), "write a list: [a, b], or - a on lines of their own")
		return nil
	}
	return s.Values
}

// filled is list for lists that must not be empty where they are given.
func (r *reader) filled(n ast.Node, field, want string) []ast.Node {
	items := r.list(n, field)
	if s, ok := n.(*ast.SequenceNode); ok && len(s.Values) == 0 {
		r.fail(n, field, "an empty list", want)
	}
	return items
}

// text returns a string. Numbers are taken as they are written: a digest may look like one.
func (r *reader) text(n ast.Node, field string) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		if v.Value == "" {
			r.fail(n, field, "it is empty", "write a value or leave the field out")
			return "", false
		}
		return v.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return v.GetToken().Value, true
	}
	r.fail(n, field, "it is "+describe(n), "write a string, in quotes if YAML reads it as something else")
	return "", false
}

func (r *reader) boolean(n ast.Node, field string) *bool {
	if b, ok := n.(*ast.BoolNode); ok {
		return &b.Value
	}
	r.fail(n, field, "it is "+describe(n), "write true or false")
	return nil
}

// word returns the position of a string in a list of words, from 1.
func (r *reader) word(n ast.Node, field string, words ...string) int {
	text, ok := r.text(n, field)
	if !ok {
		return 0
	}
	i := slices.Index(words, text)
	if i < 0 {
		r.fail(n, field, quote(text)+" is not known here", "write "+oneOf(words))
	}
	return i + 1
}

func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NullNode:
		return "empty"
	case *ast.StringNode, *ast.LiteralNode:
		return "a string"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.SequenceNode:
		return "a list"
	case ast.MapNode:
		return "a mapping"
	default:
		return strings.ToLower(n.Type().String())
	}
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
