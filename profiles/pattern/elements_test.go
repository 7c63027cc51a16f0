package pattern

import (
	"strings"
	"testing"
)

func TestElements(t *testing.T) {
	for text, want := range map[string]string{
		"/a/b":        "/a/b",
		"/a/*":        "/a/.s",
		"/a/**/b*":    "/a/.S/bs",
		"/{a,b?}[^c]": "/aC /b.C",
		`/\*{,x}`:     "/* /*x",
		"/a***":       "/aS",
	} {
		p, err := Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, sequence := range p.Elements() {
			var b strings.Builder
			for _, e := range sequence {
				switch e.Kind {
				case Literal:
					b.WriteByte(e.Byte)
				case Class:
					if e.Has('/') || e.Has('c') || !e.Has('d') {
						t.Errorf("%s: the class is wrong", text)
					}
					b.WriteByte('C')
				default:
					b.WriteByte(map[ElementKind]byte{Single: '.', Star: 's', DoubleStar: 'S'}[e.Kind])
				}
			}
			all = append(all, b.String())
		}
		if got := strings.Join(all, " "); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
