package seccomp

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// invert gives conditions that hold exactly when none of the alternatives
// does, each a single comparison, because libseccomp allows one comparison
// per argument in a rule. It can do so for alternatives that are all about one
// argument: ranges and values, one masked value, or bits of which one is to hold.
func invert(alternatives [][]specs.LinuxSeccompArg) ([]specs.LinuxSeccompArg, bool) {
	var args []specs.LinuxSeccompArg
	for _, alt := range alternatives {
		if len(alt) != 1 || alt[0].Index != alternatives[0][0].Index {
			return nil, false
		}
		args = append(args, alt[0])
	}
	if len(args) == 1 && args[0].Op == specs.OpMaskedEqual {
		return invertMask(args[0]), true
	}
	if none, ok := noneOf(args); ok {
		return []specs.LinuxSeccompArg{none}, true
	}
	allowed := make([]span, 0, len(args))
	for _, a := range args {
		s, ok := spanOf(a)
		if !ok {
			return nil, false
		}
		allowed = append(allowed, s)
	}
	var out []specs.LinuxSeccompArg
	for _, gap := range gaps(allowed) {
		out = append(out, gap.conditions(args[0].Index)...)
	}
	return out, true
}

// invertMask has one condition per bit of the mask, so that whoever reads the
// filter, or the notification, sees which flag it was.
func invertMask(a specs.LinuxSeccompArg) []specs.LinuxSeccompArg {
	var out []specs.LinuxSeccompArg
	for m := a.Value; m != 0; m &= m - 1 {
		bit := m & -m
		out = append(out, masked(a.Index, bit, ^a.ValueTwo&bit))
	}
	return out
}

// noneOf is one comparison that holds when none of the single bits has the
// value asked for: the way back from invertMask.
func noneOf(args []specs.LinuxSeccompArg) (specs.LinuxSeccompArg, bool) {
	var mask, value uint64
	for _, a := range args {
		if a.Op != specs.OpMaskedEqual || bits.OnesCount64(a.Value) != 1 || mask&a.Value != 0 {
			return specs.LinuxSeccompArg{}, false
		}
		mask |= a.Value
		value |= ^a.ValueTwo & a.Value
	}
	return masked(args[0].Index, mask, value), true
}

// masked is value after mask: OCI's Value is the mask and ValueTwo what is
// compared with (runtime-spec config-linux.md, seccomp args).
func masked(index uint, mask, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Value: mask, ValueTwo: value, Op: specs.OpMaskedEqual}
}

// span is a range of values, both ends in it.
type span struct{ lo, hi uint64 }

func spanOf(a specs.LinuxSeccompArg) (span, bool) {
	switch v := a.Value; a.Op {
	case specs.OpEqualTo:
		return span{v, v}, true
	case specs.OpLessEqual:
		return span{0, v}, true
	case specs.OpGreaterEqual:
		return span{v, math.MaxUint64}, true
	case specs.OpLessThan:
		return span{0, v - 1}, v > 0
	case specs.OpGreaterThan:
		return span{v + 1, math.MaxUint64}, v < math.MaxUint64
	}
	return span{}, false
}

func gaps(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
	var out []span
	next := uint64(0)
	for _, s := range spans {
		if s.lo > next {
			out = append(out, span{next, s.lo - 1})
		}
		if s.hi == math.MaxUint64 {
			return out
		}
		next = max(next, s.hi+1)
	}
	return append(out, span{next, math.MaxUint64})
}

// conditions cuts the range into pieces that one comparison each can express:
// open ends as they are, the rest by aligned powers of two.
func (s span) conditions(index uint) []specs.LinuxSeccompArg {
	switch {
	case s.hi == math.MaxUint64:
		return []specs.LinuxSeccompArg{{Index: index, Value: s.lo, Op: specs.OpGreaterEqual}}
	case s.lo == 0:
		return []specs.LinuxSeccompArg{{Index: index, Value: s.hi, Op: specs.OpLessEqual}}
	}
	var out []specs.LinuxSeccompArg
	for lo := s.lo; ; {
		n := bits.TrailingZeros64(lo)
		for lo+(1<<n-1) > s.hi {
			n--
		}
		size := uint64(1)<<n - 1
		if n == 0 {
			out = append(out, specs.LinuxSeccompArg{Index: index, Value: lo, Op: specs.OpEqualTo})
		} else {
			out = append(out, masked(index, ^size, lo))
		}
		if lo+size == s.hi {
			return out
		}
		lo += size + 1
	}
}

// holds compares as libseccomp's program does: unsigned, on 64 bits, or on the
// low 32 of both sides where the entry is not wide.
func (r rule) holds(args *[6]uint64, wide bool) bool {
	for _, a := range r.args {
		v := args[a.Index]
		if !wide {
			v, a.Value, a.ValueTwo = v&math.MaxUint32, a.Value&math.MaxUint32, a.ValueTwo&math.MaxUint32
		}
		if !compares(a, v) {
			return false
		}
	}
	return true
}

func compares(a specs.LinuxSeccompArg, v uint64) bool {
	switch a.Op {
	case specs.OpEqualTo:
		return v == a.Value
	case specs.OpNotEqual:
		return v != a.Value
	case specs.OpLessThan:
		return v < a.Value
	case specs.OpLessEqual:
		return v <= a.Value
	case specs.OpGreaterThan:
		return v > a.Value
	case specs.OpGreaterEqual:
		return v >= a.Value
	case specs.OpMaskedEqual:
		return v&a.Value == a.ValueTwo
	}
	return false
}
