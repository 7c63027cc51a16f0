package integration_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
)

// servicesReady imports the services' images into the shared node, once, and puts contrib's profiles into its store.
func servicesReady(t *testing.T) {
	t.Helper()
	if err := importServices(t); err != nil {
		t.Fatal(err)
	}
}

var servicesOnce struct {
	sync.Mutex
	done bool
}

func importServices(t *testing.T) error {
	servicesOnce.Lock()
	defer servicesOnce.Unlock()
	if servicesOnce.done {
		return nil
	}
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	profiles, err := filepath.Glob(filepath.Join(root, "contrib/profiles/*.yaml"))
	if err != nil {
		return err
	}
	for _, p := range profiles {
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(shared.ProfilesDir(), "contrib-"+filepath.Base(p)), data, 0o600); err != nil {
			return err
		}
	}
	builder := &image.Builder{Root: root, Log: os.Stderr}
	for _, s := range image.Services() {
		img, err := builder.Build(t.Context(), s)
		if err != nil {
			return err
		}
		if err := shared.Import(t.Context(), img.Tar); err != nil {
			return err
		}
	}
	servicesOnce.done = true
	return nil
}
