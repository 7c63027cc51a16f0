package v1alpha1

import (
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
)

// TestTheSchemaIsNeverStricterThanTheParser: what a file of the store may say a resource may say too. Strings are made
// of the pieces that matter, and both are asked.
func TestTheSchemaIsNeverStricterThanTheParser(t *testing.T) {
	s := specSchema(t)
	allow, deny := s.Properties["allow"].Properties, s.Properties["deny"].Properties
	exec := *allow["exec"].Items
	paths := strings.Split("/ // . .. a bin * ** ? [a-z] [^/] [ ] { } , \\ \\/ \\* @image @ é \n : {a,b} {/a,/b} {a/b,c} /a /b/c /{", " ")
	network := strings.Split("tcp/ udp/ tcp/ unix/ unix@ dns tcp udp unix / @ : * - . 1 80 443 65535 65536 0 01 10.0.0.0 10.0.0.0/8 [::1] [::]/0 [2001:DB8::]/32 [::ffff:1.2.3.4] [64:ff9b::1.2.3.4] ::1 /run/x a [ ]", " ")
	names := strings.Split("a b z 0 9 - . _ A é prod x"+strings.Repeat("y", 61), " ")
	for _, tc := range []struct {
		name, spec string
		schema     node
		pieces     []string
		accepted   int // how many at least must be accepted for the test to mean something
	}{
		{"allow.write", "{allow: {write: [%]}}", *allow["write"].Items, paths, 100},
		{"allow.read", "{allow: {read: [%]}}", *allow["read"].Items, paths, 100},
		{"deny.read", "{deny: {read: [%]}}", *deny["read"].Items, paths, 100},
		{"exec path", "{allow: {exec: [{path: %}]}}", exec.Properties["path"], paths, 100},
		{"from", "{allow: {exec: [{path: /a, from: [%]}]}}", *exec.Properties["from"].Items, paths, 100},
		{"listen", "{allow: {listen: [%]}}", *allow["listen"].Items, network, 30},
		{"connect", "{allow: {connect: [%]}}", *allow["connect"].Items, network, 30},
		{"namespace", "{match: {namespaces: [%]}}", *s.Properties["match"].Properties["namespaces"].Items, names, 50},
		{"image", "{match: {images: [%]}}", *s.Properties["match"].Properties["images"].Items, append(network, "docker.io", "\t", "?", "{", "\\"), 200},
		{"capability", "{allow: {capabilities: [%]}}", *allow["capabilities"].Items, strings.Split("CAP_ CHOWN SYS_ ADMIN NET_ RAW KILL cap_ BPF", " "), 10},
		{"syscall", "{allow: {syscalls: [%]}}", *allow["syscalls"].Items, strings.Split("open at 2 @default @ clone 3 _ uname prctl seccomp @clone", " "), 5},
		{"denied syscall", "{deny: {syscalls: [%]}}", *deny["syscalls"].Items, strings.Split("open at 2 @default clone 3 uname prctl", " "), 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pattern := regexp.MustCompile(tc.schema.Pattern)
			r := rand.New(rand.NewPCG(1, 2))
			accepted := map[string]bool{}
			for range 3000 {
				var b strings.Builder
				for range 1 + r.IntN(5) {
					b.WriteString(tc.pieces[r.IntN(len(tc.pieces))])
				}
				text := b.String()
				if _, err := profiles.Parse("x", document(strings.ReplaceAll(tc.spec, "%", strconv.Quote(text)))); err != nil {
					continue
				}
				accepted[text] = true
				if !pattern.MatchString(text) || tc.schema.MaxLength != nil && len([]rune(text)) > *tc.schema.MaxLength {
					t.Errorf("the parser takes %q, the schema does not", text)
					break
				}
			}
			if len(accepted) < tc.accepted {
				t.Errorf("only %d were accepted: the test sees nothing", len(accepted))
			}
		})
	}
}

// TestTheSchemaRefusesEarly: what the schema is there for.
func TestTheSchemaRefusesEarly(t *testing.T) {
	s := specSchema(t)
	allow := s.Properties["allow"].Properties
	for _, tc := range []struct {
		schema node
		bad    []string
	}{
		{*allow["write"].Items, []string{"", "bin/sh", "/a/", "//a", "/a//b", "@image", " /a"}},
		{*allow["read"].Items, []string{"@images", "a@image", "@image/x", "relative", "/x/"}},
		{*allow["listen"].Items, []string{"http/80", "tcp/", "tcp/0", "tcp/123456", "80", "dns", "unix/", "unix@", "tcp/::1:80"}},
		{*allow["capabilities"].Items, []string{"ALL", "cap_kill", "NET_ADMN", "CAP_CAP_KILL", ""}},
		{*allow["syscalls"].Items, []string{"", "@", "open at", "OPEN", "@Default", "1"}},
		{*s.Properties["match"].Properties["images"].Items, []string{"", "a b", "a?", "a{b}", "a[b]", `a\b`}},
		{*s.Properties["extends"].Items, []string{"", "A", "a_b", "-a", "a-", "a.b"}},
	} {
		for _, text := range tc.bad {
			if regexp.MustCompile(tc.schema.Pattern).MatchString(text) {
				t.Errorf("%s takes %q", tc.schema.Pattern, text)
			}
		}
	}
}
