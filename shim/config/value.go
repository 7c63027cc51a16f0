package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// ParseSize reads a size in bytes: a whole number with an optional unit of
// KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (powers of 1000) or B.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "BKMGTikmgt ")
	unit := strings.TrimSpace(s[len(digits):])
	n, err := strconv.ParseInt(digits, 10, 64)
	factor, known := units[unit]
	if err != nil || !known || n < 0 {
		return 0, fmt.Errorf("%q is not a size such as 256MiB", s)
	}
	if n > math.MaxInt64/factor {
		return 0, errors.New(s + " is too large")
	}
	return n * factor, nil
}

var units = map[string]int64{
	"": 1, "B": 1,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
}

// integer gives the value of a YAML integer.
func integer(n ast.Node) (int64, bool) {
	i, ok := n.(*ast.IntegerNode)
	if !ok {
		return 0, false
	}
	switch v := i.Value.(type) {
	case int64:
		return v, true
	case uint64:
		return int64(v), v <= math.MaxInt64
	}
	return 0, false
}

// found says what stands there, for an error message.
func found(n ast.Node) string {
	switch n.(type) {
	case *ast.NullNode:
		return "empty"
	case ast.MapNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return strconv.Quote(n.GetToken().Value)
	}
	return n.String()
}

// keys lists the known keys, sorted.
func keys[V any](fields map[string]V) string {
	return "one of " + strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}
