package v1alpha1

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/scenario"
	"github.com/stockade-dev/stockade/profiles"
)

// document is a profile with this spec.
func document(spec string) []byte {
	return []byte("apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: x}\nspec: " + spec + "\n")
}

// parserFields gives the fields that the parser's errors say are known in the mapping which holds %s.
func parserFields(t *testing.T, spec string) []string {
	t.Helper()
	_, err := profiles.Parse("x", document(fmt.Sprintf(spec, "qqqqqqqqqqqqqqqq: 1")))
	if err == nil {
		t.Fatalf("%s: the unknown field is accepted", spec)
	}
	m := regexp.MustCompile(`unknown field; the fields here are (.*)`).FindStringSubmatch(err.Error())
	if m == nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return strings.Split(m[1], ", ")
}

// goFields gives the JSON names of a struct's fields, sorted.
func goFields(typ reflect.Type) []string {
	var names []string
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if options == "inline" {
			names = append(names, goFields(f.Type)...)
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestParserAndTypesKnowTheSameFields(t *testing.T) {
	of := func(v any) reflect.Type { return reflect.TypeOf(v) }
	seen := map[reflect.Type]bool{of(NetworkRules{}): true, of(FileRules{}): true, of(DeniedFileRules{}): true} // parts of others
	for _, tc := range []struct {
		spec string // with one %s in the mapping
		typ  reflect.Type
		less []string // what the parser knows there only to refuse it
	}{
		{"{%s}", of(ProfileSpec{}), nil},
		{"{match: {%s}}", of(Match{}), nil},
		{"{match: {podSelector: {%s}}}", of(PodSelector{}), nil},
		{"{allow: {%s}}", of(Allow{}), nil},
		{"{deny: {%s}}", of(Deny{}), nil},
		{"{allow: {exec: [{path: /a, %s}]}}", of(ExecRule{}), nil},
		{"{deny: {exec: [{path: /a, %s}]}}", of(DeniedExecRule{}), []string{"sha256"}},
		{"{programs: [{path: /a, allow: {}, %s}]}", of(Program{}), nil},
		{"{programs: [{path: /a, allow: {%s}}]}", of(ProgramAllow{}), []string{"capabilities", "syscalls"}},
		{"{programs: [{path: /a, deny: {%s}}]}", of(ProgramDeny{}), []string{"capabilities", "syscalls"}},
		{"{sessions: {%s}}", of(Sessions{}), nil},
		{"{sessions: {allow: {%s}}}", of(ProgramAllow{}), []string{"capabilities", "syscalls"}},
	} {
		seen[tc.typ] = true
		got := slices.Sorted(slices.Values(append(goFields(tc.typ), tc.less...)))
		if want := parserFields(t, tc.spec); !slices.Equal(got, want) {
			t.Errorf("%s: %s has %v, the parser %v", tc.spec, tc.typ.Name(), got, want)
		}
		for _, field := range tc.less {
			if _, err := profiles.Parse("x", document(fmt.Sprintf(tc.spec, field+": [a]"))); err == nil {
				t.Errorf("%s takes %s", tc.spec, field)
			}
		}
	}
	everyStruct(of(ProfileSpec{}), func(typ reflect.Type) {
		if !seen[typ] {
			t.Errorf("%s is compared with nothing", typ.Name())
		}
	})
}

func everyStruct(typ reflect.Type, visit func(reflect.Type)) {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		everyStruct(typ.Elem(), visit)
	case reflect.Struct:
		visit(typ)
		for f := range typ.Fields() {
			everyStruct(f.Type, visit)
		}
	}
}

// samples are all profiles of this checkout, by their place.
func samples(t *testing.T) map[string][]byte {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join(root, "contrib/profiles/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, doc := range regexp.MustCompile(`(?m)^---$`).Split(string(data), -1) {
			if _, err := profiles.Parse(file, []byte(doc)); err == nil {
				all[fmt.Sprintf("%s#%d", file, i)] = []byte(doc)
			}
		}
	}
	cases, err := scenario.Load(filepath.Join(root, "integration/testdata/scenarios"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range cases {
		data, err := s.ProfileYAML()
		if err != nil {
			t.Fatal(err)
		}
		if data != nil {
			all[s.Name] = data
		}
	}
	all["every field"] = document(everything)
	if len(all) < 100 {
		t.Fatalf("only %d samples", len(all))
	}
	return all
}

// everything gives each field of a spec.
const everything = `
  match:
    images: ["docker.io/library/redis:7*"]
    namespaces: [prod]
    podSelector: {matchLabels: {app: redis, tier: "1", empty: ""}}
    containers: [redis]
  extends: [base, other]
  mode: monitor
  onViolation: freeze
  allowPrivilegeEscalation: false
  allowUnenforced: [network, mounts]
  allow:
    exec: [/a, "@image", {path: /b, from: [/c/*], uid: [0, 4294967294]}, {path: /d, sha256: ` + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" + `}]
    read: ["@image", /proc/**]
    write: ["/data/{a,b}", '/x\*']
    syscalls: ["@default", openat2]
    capabilities: [CAP_SETUID, KILL]
    listen: [tcp/6379, "unix@a b"]
    connect: [dns, "tcp/[2001:db8::]/32:443", udp/10.0.0.0/8:1-2, "tcp/*", unix/run/x.sock]
  deny:
    exec: [/sh, {path: /e, from: [/f], uid: [7]}]
    read: [/etc/shadow]
    write: [/g]
    syscalls: [ptrace]
    capabilities: [SYS_ADMIN]
    listen: [udp/53]
    connect: [dns]
  programs:
    - path: /p
      allow: {exec: [{path: /h, uid: [1]}], read: [/i], write: [/j], listen: [tcp/1], connect: [tcp/2]}
      deny: {exec: [/k], read: [/l], write: [/m], listen: [tcp/3], connect: [tcp/4]}
  sessions:
    allow: {exec: [/n], read: [/o], write: [/q], listen: [tcp/5], connect: [tcp/6]}`

// TestSamplesKeepTheirDigest reads every profile into the types, strictly, and back.
func TestSamplesKeepTheirDigest(t *testing.T) {
	for name, data := range samples(t) {
		want, err := profiles.Parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		var p Profile
		if err := yaml.UnmarshalStrict(data, &p); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back, err := json.Marshal(struct {
			APIVersion string            `json:"apiVersion"`
			Kind       string            `json:"kind"`
			Metadata   map[string]string `json:"metadata"`
			Spec       ProfileSpec       `json:"spec"`
		}{p.APIVersion, p.Kind, map[string]string{"name": p.Name}, p.Spec})
		if err != nil {
			t.Fatal(err)
		}
		got, err := profiles.Parse(name, back)
		if err != nil || got[0].Digest() != want[0].Digest() {
			t.Errorf("%s: %v\n%s", name, err, back)
		}
		deep := p.DeepCopy()
		if !reflect.DeepEqual(deep, &p) {
			t.Errorf("%s: the copy differs", name)
		}
	}
	// And the sample has them all.
	var p Profile
	if err := yaml.UnmarshalStrict(document(everything), &p); err != nil {
		t.Fatal(err)
	}
	missing(t, "spec", reflect.ValueOf(p.Spec))
}

// missing reports fields that the sample does not set.
func missing(t *testing.T, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			t.Errorf("the sample lacks %s", path)
			return
		}
		missing(t, path, v.Elem())
	case reflect.Slice:
		if v.Len() == 0 {
			t.Errorf("the sample lacks %s", path)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			missing(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	}
}

// words are the values that the parser's error names where a word is wrong.
func TestParserAndSchemaKnowTheSameWords(t *testing.T) {
	s := specSchema(t)
	for field, spec := range map[string]string{
		"mode": "{mode: q}", "onViolation": "{onViolation: q}", "allowUnenforced": "{allowUnenforced: [q]}",
	} {
		_, err := profiles.Parse("x", document(spec))
		m := regexp.MustCompile(`is not known here; write (.*)`).FindStringSubmatch(err.Error())
		if m == nil {
			t.Fatal(err)
		}
		want := strings.Split(strings.ReplaceAll(m[1], " or ", ", "), ", ")
		enum := s.Properties[field].Enum
		if items := s.Properties[field].Items; items != nil {
			enum = items.Enum
		}
		slices.Sort(want)
		slices.Sort(enum)
		if !slices.Equal(enum, want) {
			t.Errorf("%s: the schema has %v, the parser %v", field, enum, want)
		}
	}
}

// node is the part of a schema that the tests look at.
type node struct {
	Type                 string
	Pattern              string
	Enum                 []string
	MaxLength            *int                    `json:"maxLength"`
	MaxItems             *int                    `json:"maxItems"`
	MaxProperties        *int                    `json:"maxProperties"`
	Default              any                     `json:"default"`
	Properties           map[string]node         `json:"properties"`
	Items                *node                   `json:"items"`
	AdditionalProperties *node                   `json:"additionalProperties"`
	Preserve             bool                    `json:"x-kubernetes-preserve-unknown-fields"`
	Rules                []struct{ Rule string } `json:"x-kubernetes-validations"`
}

func specSchema(t *testing.T) node {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "contrib/kubernetes/crd/stockade.dev_profiles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPI node `json:"openAPIV3Schema"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(data, &crd); err != nil || len(crd.Spec.Versions) != 1 {
		t.Fatal(len(crd.Spec.Versions), err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPI.Properties["spec"]
}

// TestTheSchemaIsClosed: every field has a type and a limit, nothing has a default, and only exec rules may hold what
// the schema does not name.
func TestTheSchemaIsClosed(t *testing.T) {
	var walk func(path string, n node)
	walk = func(path string, n node) {
		exec := strings.HasSuffix(path, ".exec[]")
		if n.Preserve != exec || (n.Type == "") != exec {
			t.Errorf("%s: type %q, unknown fields preserved: %v", path, n.Type, n.Preserve)
		}
		if n.Default != nil {
			t.Errorf("%s has a default: it would change the digest", path)
		}
		if n.Type == "array" && n.MaxItems == nil || n.AdditionalProperties != nil && n.MaxProperties == nil ||
			n.Type == "string" && n.MaxLength == nil && n.Enum == nil && !strings.Contains(n.Pattern, "{64}") {
			t.Errorf("%s has no limit", path)
		}
		for _, key := range slices.Sorted(maps.Keys(n.Properties)) {
			walk(path+"."+key, n.Properties[key])
		}
		if n.Items != nil {
			walk(path+"[]", *n.Items)
		}
		if n.AdditionalProperties != nil {
			walk(path+"{}", *n.AdditionalProperties)
		}
	}
	walk("spec", specSchema(t))
}
