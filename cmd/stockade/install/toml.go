package install

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Names in containerd's configuration.
const (
	handler     = "stockade"
	runtimeType = "io.containerd.stockade.v1"
	criPlugin   = "io.containerd.cri.v1.runtime" // from version 3 on
	criPluginV2 = "io.containerd.grpc.v1.cri"
	nriPlugin   = "io.containerd.nri.v1.nri"
	dropInName  = "stockade.toml"
)

// The lines between which our part of a configuration of version 2 stands.
const (
	blockBegin = "# BEGIN stockade install: do not edit between these lines"
	blockEnd   = "# END stockade install"
)

// importMark ends the line that we add to a file without imports.
const importMark = "# added by stockade install"

// conf is one file of containerd's configuration.
type conf struct {
	path string
	data []byte
	tree map[string]any
}

// parseConf parses a file; errors name line and column.
func parseConf(path string, data []byte) (*conf, error) {
	c := &conf{path: path, data: data}
	if err := toml.Unmarshal(data, &c.tree); err != nil {
		var de *toml.DecodeError
		if errors.As(err, &de) {
			row, column := de.Position()
			return nil, fmt.Errorf("%s:%d:%d: %s", path, row, column, strings.TrimPrefix(de.Error(), "toml: "))
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// version is that of the file. One that gives none is of version 1.
func (c *conf) version() int64 {
	if v, ok := c.tree["version"].(int64); ok {
		return v
	}
	return 1
}

// inOne: the handler must stand in the file itself, as containerd 1.x takes the
// last file's table of a plugin in place of the others' (mergeConfig in
// containerd 1.7's services/server/config).
func (c *conf) inOne() bool { return c.version() < 3 }

// imports are the patterns of the files that containerd reads too.
func (c *conf) imports() []string {
	var list []string
	values, _ := c.tree["imports"].([]any)
	for _, v := range values {
		if s, ok := v.(string); ok {
			list = append(list, s)
		}
	}
	return list
}

// at is the table under the keys, or nil.
func at(tree map[string]any, keys ...string) map[string]any {
	for _, k := range keys {
		tree, _ = tree[k].(map[string]any)
	}
	return tree
}

// cri is the CRI plugin's name in this file.
func (c *conf) cri() string {
	if c.inOne() {
		return criPluginV2
	}
	return criPlugin
}

func (c *conf) runtimes() map[string]any {
	return at(c.tree, "plugins", c.cri(), "containerd", "runtimes")
}

// hasHandler: a runtime of our name and type.
func (c *conf) hasHandler() bool {
	return at(c.runtimes(), handler)["runtime_type"] == runtimeType
}

// address is that of containerd's socket, "" for the default.
func (c *conf) address() string {
	for _, t := range []map[string]any{at(c.tree, "plugins", "io.containerd.server.v1.grpc"), at(c.tree, "grpc")} {
		if a, ok := t["address"].(string); ok && a != "" {
			return a
		}
	}
	return ""
}

// nriDisabled reports whether the file says so, and whether it speaks of NRI at all.
func (c *conf) nriDisabled() (disabled, said bool) {
	t := at(c.tree, "plugins", nriPlugin)
	disabled, _ = t["disable"].(bool)
	return disabled, t != nil
}

// inherited are the keys of the default handler that ours must have too: the
// shim hands the options to runc, and kubelet's cgroup driver must be theirs.
var inherited = []string{"options", "snapshotter", "base_runtime_spec", "privileged_without_host_devices", "cgroup_writable", "cni_conf_dir", "cni_max_conf_num"}

// defaultRuntime returns those keys of the handler that containerd uses where a
// pod names none. Later files win, as with containerd.
func defaultRuntime(files []*conf) map[string]any {
	name := "runc"
	for _, c := range files {
		if n, ok := at(c.tree, "plugins", c.cri(), "containerd")["default_runtime_name"].(string); ok && n != "" && n != handler {
			name = n
		}
	}
	found := map[string]any{}
	for _, c := range files {
		for _, k := range inherited {
			if v, ok := at(c.runtimes(), name)[k]; ok {
				found[k] = merged(found[k], v)
			}
		}
	}
	return found
}

func merged(old, v any) any {
	a, aOK := old.(map[string]any)
	b, bOK := v.(map[string]any)
	if !aOK || !bOK {
		return v
	}
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// table is one table of a drop-in.
type table struct {
	keys   []string
	values map[string]any
}

// text renders a table. Headers are written out in full and parents are not, so
// that it can be appended to a file that has the parents already.
func (t table) text() (string, error) {
	var b strings.Builder
	quoted := make([]string, len(t.keys))
	for i, k := range t.keys {
		quoted[i] = k
		if strings.Contains(k, ".") {
			quoted[i] = "'" + k + "'"
		}
	}
	fmt.Fprintf(&b, "[%s]\n", strings.Join(quoted, "."))
	for _, k := range slices.Sorted(maps.Keys(t.values)) {
		line, err := toml.Marshal(map[string]any{k: t.values[k]})
		if err != nil {
			return "", fmt.Errorf("%s: %w", k, err)
		}
		b.Write(line)
	}
	return b.String(), nil
}

// editImports adds pattern to the file's imports. It touches that one line, or
// adds one below the version's.
func editImports(c *conf, pattern string) ([]byte, error) {
	key, value, err := topLevel(c.data, "imports")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	var edited []byte
	if key < 0 {
		_, end, err := topLevel(c.data, "version")
		if err != nil {
			return nil, err
		}
		edited = insertLine(c.data, end, fmt.Sprintf("imports = ['%s'] %s", pattern, importMark))
	} else {
		open := bytes.IndexByte(c.data[key:], '[')
		if open < 0 || key+open > value {
			return nil, fmt.Errorf("%s: imports is no array: add '%s' to it", c.path, pattern)
		}
		element := fmt.Sprintf("'%s'", pattern)
		if len(c.imports()) > 0 {
			element += ", "
		}
		edited = slices.Concat(c.data[:key+open+1], []byte(element), c.data[key+open+1:])
	}
	return edited, onlyAdds(c, edited, func(after *conf) {
		list, _ := after.tree["imports"].([]any)
		list = slices.DeleteFunc(slices.Clone(list), func(v any) bool { return v == pattern })
		setOrDrop(after.tree, "imports", list, c.tree["imports"])
	})
}

// setOrDrop makes a key what it was: an empty list may have been none.
func setOrDrop(tree map[string]any, key string, list []any, before any) {
	tree[key] = list
	if len(list) == 0 && before == nil {
		delete(tree, key)
	}
}

// topLevel finds a key of the root table: where it begins, and where its value
// certainly has begun or the expression ended. -1, 0 when there is none.
func topLevel(data []byte, name string) (key, end int, err error) {
	p := unstable.Parser{}
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			break
		}
		if e.Kind != unstable.KeyValue {
			continue
		}
		k := e.Key()
		if k.Next() && string(k.Node().Data) == name && k.IsLast() {
			key := int(k.Node().Raw.Offset)
			return key, int(e.Raw.Offset + e.Raw.Length), nil
		}
	}
	return -1, 0, p.Error()
}

// insertLine puts a line behind the one that holds offset; offset 0 means the first place.
func insertLine(data []byte, offset int, line string) []byte {
	at := 0
	if offset > 0 {
		at = len(data)
		if nl := bytes.IndexByte(data[offset:], '\n'); nl >= 0 {
			at = offset + nl + 1
		}
	}
	if at > 0 && data[at-1] != '\n' {
		line = "\n" + line
	}
	return slices.Concat(data[:at], []byte(line+"\n"), data[at:])
}

// appendBlock adds tables to the end of a file, between our marks; those that
// were there before go.
func appendBlock(c *conf, tables []table) ([]byte, error) {
	base, err := withoutBlock(c)
	if err != nil {
		return nil, err
	}
	text := blockBegin + "\n"
	for i, t := range tables {
		s, err := t.text()
		if err != nil {
			return nil, err
		}
		if i > 0 {
			text += "\n"
		}
		text += s
	}
	text += blockEnd + "\n"
	edited := slices.Clone(base.data)
	if len(edited) > 0 && edited[len(edited)-1] != '\n' {
		edited = append(edited, '\n')
	}
	edited = append(append(edited, '\n'), text...)
	return edited, onlyAdds(base, edited, func(after *conf) {
		for _, t := range tables {
			removeTable(after.tree, t)
		}
	})
}

// withoutBlock is the file without what appendBlock added.
func withoutBlock(c *conf) (*conf, error) {
	begin := bytes.Index(c.data, []byte("\n"+blockBegin+"\n"))
	if begin < 0 {
		return c, nil
	}
	end := bytes.Index(c.data[begin:], []byte(blockEnd+"\n"))
	if end < 0 {
		return nil, fmt.Errorf("%s: the line %q is missing", c.path, blockEnd)
	}
	return parseConf(c.path, slices.Concat(c.data[:begin], c.data[begin+end+len(blockEnd)+1:]))
}

// removeTable takes away the values of t, and the tables that are empty then.
func removeTable(tree map[string]any, t table) {
	keys := t.keys
	if sub := at(tree, keys...); sub != nil {
		for k := range t.values {
			delete(sub, k)
		}
	}
	for n := len(keys); n > 0; n-- {
		parent := at(tree, keys[:n-1]...)
		if sub, ok := parent[keys[n-1]].(map[string]any); ok && len(sub) == 0 {
			delete(parent, keys[n-1])
		}
	}
}

// onlyAdds makes sure that an edited file parses and, once undo has taken away
// what was to be added, means what it meant before.
func onlyAdds(before *conf, edited []byte, undo func(*conf)) error {
	after, err := parseConf(before.path, edited)
	if err != nil {
		return fmt.Errorf("%w (after the change that stockade install would make; %s is as it was: it has to be changed by hand)", err, before.path)
	}
	undo(after)
	// Empty tables mean nothing to containerd and may have been there before.
	if a, b := pruned(before.tree), pruned(after.tree); !reflect.DeepEqual(a, b) {
		return fmt.Errorf("%s: the change that stockade install would make changes other settings too: it has to be made by hand", before.path)
	}
	return nil
}

// pruned is the tree without its empty tables.
func pruned(tree map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range tree {
		if sub, ok := v.(map[string]any); ok {
			if sub = pruned(sub); len(sub) == 0 {
				continue
			}
			v = sub
		}
		out[k] = v
	}
	return out
}

// undoEdits takes our changes out of a file that others have changed since.
func undoEdits(c *conf, pattern string) ([]byte, error) {
	c, err := withoutBlock(c)
	if err != nil {
		return nil, err
	}
	data := c.data
	line := fmt.Sprintf("imports = ['%s'] %s\n", pattern, importMark)
	if before, after, ok := bytes.Cut(data, []byte(line)); ok {
		data = slices.Concat(before, after)
	} else if key, _, err := topLevel(data, "imports"); err == nil && key >= 0 {
		head, rest := data[:key], data[key:]
		element := []byte("'" + pattern + "'")
		if before, after, ok := bytes.Cut(rest, element); ok {
			rest = slices.Concat(before, bytes.TrimPrefix(after, []byte(", ")))
			data = slices.Concat(head, rest)
		}
	}
	_, err = parseConf(c.path, data)
	return data, err
}

// leadsTo reports whether an import of the file at confPath takes in dropIn.
func leadsTo(confPath, pattern, dropIn string) bool {
	pattern = path.Clean(pattern)
	if !path.IsAbs(pattern) {
		pattern = path.Join(path.Dir(confPath), pattern)
	}
	ok, err := path.Match(pattern, dropIn)
	return err == nil && ok
}
