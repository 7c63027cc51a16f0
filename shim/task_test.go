package shim

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestImageIsTheFullReference(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for image, want := range map[string]string{
		"redis":                         "docker.io/library/redis:latest",
		"redis:7":                       "docker.io/library/redis:7",
		"bitnami/redis:7":               "docker.io/bitnami/redis:7",
		"docker.io/library/redis:7":     "docker.io/library/redis:7",
		"registry.example:5000/a/b:c":   "registry.example:5000/a/b:c",
		"redis" + digest:                "docker.io/library/redis" + digest,
		"redis:7" + digest:              "docker.io/library/redis" + digest, // the tag says nothing then
		"":                              "",
		"sha256:" + digest[8:]:          "sha256:" + digest[8:], // an image ID is no reference
		"Not A Reference":               "Not A Reference",
		"docker.io/library/redis:7\x00": "docker.io/library/redis:7\x00",
	} {
		spec := &specs.Spec{Annotations: map[string]string{criType: "container", criImage: image}}
		if got := describe("k8s.io", "c1", spec).facts.Image; got != want {
			t.Errorf("%q: %q, want %q", image, got, want)
		}
	}
}
