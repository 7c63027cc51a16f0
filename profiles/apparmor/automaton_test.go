package apparmor_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/shim/lsm/lsmtest"
)

// parse runs the real parser over a text without loading it and returns what it would have loaded.
func parse(t testing.TB, text string, more ...string) ([]byte, error) {
	t.Helper()
	parser, args := lsmtest.Parser(t)
	cmd := exec.Command(parser, append(append(args, "-QTS", "--warn=all"), more...)...)
	cmd.Stdin = strings.NewReader(text)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.Bytes(), nil
}

// Permissions as the kernel has them (security/apparmor/include/perms.h, file.h).
const (
	mayExec  = 1
	mayWrite = 2
	mayRead  = 4
	mayLink  = 0x10
	mayLock  = 0x20
	mayMap   = 0x40
)

// automaton is the compiled file rules of one profile: the kernel's own tables (apparmor/match.c, policy_unpack.c).
type automaton struct {
	accept, accept2, base, def, next, check []uint32
	class                                   []uint32
}

// automata finds the file rules of each profile in the parser's output.
func automata(binaryPolicy []byte) (map[string]*automaton, error) {
	return automataAt(binaryPolicy, bytes.LastIndex)
}

// others finds all other rules of each profile: signals, ptrace, capabilities and so on.
func others(binaryPolicy []byte) (map[string]*automaton, error) {
	return automataAt(binaryPolicy, bytes.Index)
}

func automataAt(binaryPolicy []byte, which func(part, name []byte) int) (map[string]*automaton, error) {
	all := map[string]*automaton{}
	named := func(name string) []byte {
		return append(append([]byte{4, byte(len(name) + 1), 0}, name...), 0)
	}
	parts := bytes.Split(binaryPolicy, append(named("profile"), 7))
	for _, part := range parts[1:] {
		n := int(binary.LittleEndian.Uint16(part[1:])) // AA_STRING, length with its NUL
		name := string(part[3 : 3+n-1])
		// The first aadfa is that of the policy database, inside its struct; the file rules' follows.
		i := which(part, named("aadfa"))
		if i < 0 {
			return nil, errors.New("no aadfa in " + name)
		}
		magic := bytes.Index(part[i:], []byte{0x1b, 0x5e, 0x78, 0x3d})
		if magic < 0 {
			return nil, errors.New("no tables in " + name)
		}
		a, err := tables(part[i+magic:])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = a
	}
	return all, nil
}

func tables(data []byte) (*automaton, error) {
	be := binary.BigEndian
	head, size := int(be.Uint32(data[4:])), int(be.Uint32(data[8:]))
	a := &automaton{}
	for pos := head; pos+16 <= size; {
		id, width, length := be.Uint16(data[pos:]), int(be.Uint16(data[pos+2:])), int(be.Uint32(data[pos+8:]))
		table := make([]uint32, length)
		for i := range table {
			at := pos + 12 + i*width
			switch width {
			case 1:
				table[i] = uint32(data[at])
			case 2:
				table[i] = uint32(be.Uint16(data[at:]))
			case 4:
				table[i] = be.Uint32(data[at:])
			default:
				return nil, fmt.Errorf("table %d of width %d", id, width)
			}
		}
		pos = (pos + 12 + length*width + 7) &^ 7
		switch id {
		case 1:
			a.accept = table
		case 2:
			a.base = table
		case 3:
			a.check = table
		case 4:
			a.def = table
		case 5:
			a.class = table
		case 7:
			a.accept2 = table
		case 8:
			a.next = table
		}
	}
	if a.accept == nil || a.base == nil || a.check == nil || a.def == nil || a.next == nil {
		return nil, errors.New("a table is missing")
	}
	return a, nil
}

func (a *automaton) state(name string) uint32 {
	const differential = 1 << 31
	state := uint32(1)
	for i := range len(name) {
		c := uint32(name[i])
		if a.class != nil {
			c = a.class[c]
		}
		for {
			pos := a.base[state]&0xffffff + c
			if a.check[pos] == state {
				state = a.next[pos]
				break
			}
			was := state
			state = a.def[state]
			if a.base[was]&differential == 0 {
				break
			}
		}
	}
	return state
}

// perms are what somebody who is not the owner may do.
func (a *automaton) perms(name string) uint32 { return a.accept[a.state(name)] >> 14 & 0x7f }

// owned are what the owner may do.
func (a *automaton) owned(name string) uint32 { return a.accept[a.state(name)] & 0x7f }

// transition tells where an exec leads: an index that differs for different targets.
func (a *automaton) transition(name string) uint32 { return a.accept[a.state(name)] >> 21 & 0x7f }

// silent are the permissions whose refusal is not told.
func (a *automaton) silent(name string) uint32 { return a.accept2[a.state(name)] >> 21 & 0x7f }
