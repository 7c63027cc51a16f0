package pattern

// maxWords holds the states of the longest pattern: one for each of its characters, one more for "nothing read yet"
// and one for each star that is a whole component (those are at most half as many).
const maxWords = (maxLength+maxLength/2+2)/64 + 1

// machine runs a sequence of characters and loops over a text, all states at once: bit i of the state set means "i
// characters have been read". One step is a shift and two ands for each 64 states ("Shift-And": Baeza-Yates and Gonnet,
// A New Approach to Text Searching, CACM 1992), so that no text and no pattern can make it backtrack.
type machine struct {
	words    int
	accept   int        // the last state
	kinds    [256]uint8 // byte -> kind; bytes which no character tells apart share one
	moves    []uint64   // [kind*words+w]: states that may be entered by reading such a byte
	nameLoop []uint64   // states that may be kept by any byte but /
	anyLoop  []uint64   // states that may be kept by any byte
}

func newMachine(chars []char, loops []loop) *machine {
	m := &machine{words: len(chars)/64 + 1, accept: len(chars)}
	m.nameLoop, m.anyLoop = make([]uint64, m.words), make([]uint64, m.words)
	for i, l := range loops {
		switch l {
		case anyLoop:
			setBit(m.anyLoop, i)
			fallthrough
		case nameLoop:
			setBit(m.nameLoop, i)
		}
	}
	kinds := m.classify(chars)
	m.moves = make([]uint64, kinds*m.words)
	for b, seen := 0, 0; b < 256 && seen < kinds; b++ {
		if int(m.kinds[b]) != seen {
			continue
		}
		for i, c := range chars {
			if c.matches(byte(b)) {
				setBit(m.moves[seen*m.words:(seen+1)*m.words], i+1)
			}
		}
		seen++
	}
	return m
}

// classify numbers the kinds of bytes by first appearance and returns how many there are.
func (m *machine) classify(chars []char) int {
	var special byteSet
	special.add('/')
	for _, c := range chars {
		switch c.kind {
		case literal:
			special.add(c.byte)
		case class: // rare: every byte becomes a kind of its own
			special = byteSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		}
	}
	next, others := 0, -1
	for b := range m.kinds {
		if !special.has(byte(b)) {
			if others < 0 {
				others = next
				next++
			}
			m.kinds[b] = uint8(others)
			continue
		}
		m.kinds[b] = uint8(next)
		next++
	}
	return next
}

func setBit(words []uint64, i int) { words[i>>6] |= 1 << (i & 63) }

func (m *machine) match(text string) bool {
	if m.words == 1 {
		return m.matchSmall(text)
	}
	var space [maxWords]uint64
	states := space[:m.words]
	states[0] = 1
	for i := range len(text) {
		loops := m.nameLoop
		if text[i] == '/' {
			loops = m.anyLoop
		}
		moves := m.moves[int(m.kinds[text[i]])*m.words:]
		var carry, alive uint64
		for w, s := range states {
			states[w] = (s<<1|carry)&moves[w] | s&loops[w]
			carry = s >> 63
			alive |= states[w]
		}
		if alive == 0 {
			return false
		}
	}
	return states[m.accept>>6]>>(m.accept&63)&1 != 0
}

// matchSmall is match for fewer than 64 states, which is nearly every pattern.
func (m *machine) matchSmall(text string) bool {
	states := uint64(1)
	name, any := m.nameLoop[0], m.anyLoop[0]
	for i := range len(text) {
		loops := name
		if text[i] == '/' {
			loops = any
		}
		states = states<<1&m.moves[m.kinds[text[i]]] | states&loops
		if states == 0 {
			return false
		}
	}
	return states>>m.accept&1 != 0
}
