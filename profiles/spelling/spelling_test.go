package spelling

import "testing"

func TestNearest(t *testing.T) {
	words := []string{"openat", "openat2", "open", "read", "CHOWN"}
	for word, want := range map[string]string{
		"opnat": "openat", "openat": "openat", "oepn": "open", "chown": "CHOWN", "xyzzyplugh": "", "": "", "reed": "read",
	} {
		if got, ok := Nearest(word, words); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", word, got, ok, want)
		}
	}
}
