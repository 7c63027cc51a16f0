package guard

import (
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/stockade-dev/stockade/shim/cgroup"
)

// The descriptors that the guard inherits. Without a log of the shim's the last is /dev/null.
const (
	fdGroup = iota + 3
	fdSocket
	fdShim // pidfd
	fdPage
	fdStat // /proc/PID/stat of the shim
	fdLog
)

const comm = "stockade-guard"

// maxMessage holds two paths of PATH_MAX, an id, and the numbers.
const maxMessage = 12 << 10

const (
	opWatch  = 'w'
	opForget = 'f'
)

var (
	errMalformed = errors.New("malformed message")
	errTooLong   = errors.New("the message is too long for the guard")
)

// request is one message from shim to guard: op, sequence number, id, and for watch a cgroup.Spec.
type request struct {
	op   byte
	seq  uint32
	id   string
	body []byte
}

func (r request) append(b []byte) []byte {
	b = append(b, r.op)
	b = binary.LittleEndian.AppendUint32(b, r.seq)
	b = binary.AppendUvarint(b, uint64(len(r.id)))
	b = append(b, r.id...)
	return append(b, r.body...)
}

// parseRequest keeps the sequence number, if there was one, of what it cannot parse, so that it can be answered.
func parseRequest(b []byte) (r request, err error) {
	if len(b) < 5 {
		return r, errMalformed
	}
	r.op, r.seq = b[0], binary.LittleEndian.Uint32(b[1:])
	b = b[5:]
	n, size := binary.Uvarint(b)
	if size <= 0 || n == 0 || n > uint64(len(b)-size) {
		return r, errMalformed
	}
	b = b[size:]
	r.id, r.body = string(b[:n]), b[n:]
	return r, nil
}

// status is the part of an error that survives the socket as something a caller can decide on.
type status byte

const (
	statusOK status = iota
	statusFailed
	statusRefused // cgroup.ErrRefused
	statusGone    // fs.ErrNotExist
)

// answer is one message from guard to shim. Sequence number 0 is the guard's first word: ready.
type answer struct {
	seq    uint32
	status status
	text   string
}

func answerTo(seq uint32, err error) answer {
	switch {
	case err == nil:
		return answer{seq: seq}
	case errors.Is(err, cgroup.ErrRefused):
		return answer{seq, statusRefused, err.Error()}
	case errors.Is(err, fs.ErrNotExist):
		return answer{seq, statusGone, err.Error()}
	}
	return answer{seq, statusFailed, err.Error()}
}

func (a answer) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, a.seq)
	b = append(b, byte(a.status))
	return append(b, a.text[:min(len(a.text), maxMessage-5)]...)
}

func parseAnswer(b []byte) (answer, error) {
	if len(b) < 5 {
		return answer{}, errMalformed
	}
	return answer{binary.LittleEndian.Uint32(b), status(b[4]), string(b[5:])}, nil
}

// remoteError is an error of the guard's, told to the shim.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return "guard: " + e.text }
func (e *remoteError) Unwrap() error { return e.kind }

func (a answer) err() error {
	switch a.status {
	case statusOK:
		return nil
	case statusRefused:
		return &remoteError{a.text, cgroup.ErrRefused}
	case statusGone:
		return &remoteError{a.text, fs.ErrNotExist}
	}
	return &remoteError{a.text, nil}
}
