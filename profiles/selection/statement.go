package selection

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// The annotations that carry a [Statement].
const (
	Selected      = "stockade.dev/selection"       // NAME@sha256:DIGEST:MAC, or none:MAC
	SelectedFacts = "stockade.dev/selection.facts" // JSON
)

// Reserved reports whether an annotation is ours to set: a pod that sets it
// itself is refused.
func Reserved(annotation string) bool { return strings.HasPrefix(annotation, Selected) }

// ErrForged: the statement was not made on this node for this container.
var ErrForged = errors.New("the annotation " + Selected + " was not made by this node's stockade-nri for this container")

// Bearer is the container that a statement is for.
type Bearer struct {
	Container string // its id
	Sandbox   string // its pod sandbox's id
	Name      string // its name in the pod
}

// Statement is what the plugin tells the shim. Without a Name: no profile
// matches.
type Statement struct {
	Name, Digest string // of the chosen profile
	Facts        Facts
}

// Facts are what a choice was made from and a shim cannot see.
type Facts struct {
	Asked  string            `json:"asked,omitempty"`  // the pod's annotation
	Labels map[string]string `json:"labels,omitempty"` // the pod's
}

// Request returns what was known when the statement was made.
func (s *Statement) Request(r Request) Request {
	r.Asked, r.Facts.Labels, r.Facts.LabelsKnown = s.Facts.Asked, s.Facts.Labels, true
	return r
}

// Key signs statements. It is the node's, and only root can read it.
type Key [32]byte

// version is part of what is signed: another form of statement is another one.
const version = "stockade.dev/selection/1"

const none = "none"

// Sign returns the annotations that carry s to the shim.
func (k *Key) Sign(b Bearer, s Statement) (map[string]string, error) {
	facts, err := json.Marshal(s.Facts)
	if err != nil {
		return nil, err
	}
	chosen := none
	if s.Name != "" {
		chosen = s.Name + "@" + s.Digest
	}
	return map[string]string{
		Selected:      chosen + ":" + hex.EncodeToString(k.mac(b, chosen, string(facts))),
		SelectedFacts: string(facts),
	}, nil
}

// mac is over the parts and their lengths: no two lists of parts give the same
// bytes.
func (k *Key) mac(b Bearer, chosen, facts string) []byte {
	m := hmac.New(sha256.New, k[:])
	for _, part := range []string{version, b.Container, b.Sandbox, b.Name, chosen, facts} {
		m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		m.Write([]byte(part))
	}
	return m.Sum(nil)
}

// Verify reads the statement in a container's annotations. errors.Is(err,
// ErrForged) if it is not this node's, or not this container's.
func (k *Key) Verify(b Bearer, annotations map[string]string) (*Statement, error) {
	text := annotations[Selected]
	facts := annotations[SelectedFacts]
	cut := strings.LastIndexByte(text, ':')
	if cut < 0 {
		return nil, ErrForged
	}
	chosen := text[:cut]
	got, err := hex.DecodeString(text[cut+1:])
	if err != nil || !hmac.Equal(got, k.mac(b, chosen, facts)) {
		return nil, ErrForged
	}
	s := &Statement{}
	if chosen != none {
		s.Name, s.Digest, _ = strings.Cut(chosen, "@")
	}
	if err := json.Unmarshal([]byte(facts), &s.Facts); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", SelectedFacts, err)
	}
	return s, nil
}
