package nri

import "testing"

func TestValidates(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.7.29": false, "v2.0.14": false, "2.0.14+unknown": false, "v2.1.9": false, "2.1.0-rc.1": false,
		"v2.2.0": true, "v2.2.9": true, "v2.4.2": true, "2.4.2+unknown": true, "v9.9.9": true, "": true, "dev": true,
	} {
		if got := validates("containerd", version); got != want {
			t.Errorf("containerd %q: %v, want %v", version, got, want)
		}
	}
	if !validates("another", "1.30") {
		t.Error("a runtime that is not known: it is not to be asked")
	}
}
