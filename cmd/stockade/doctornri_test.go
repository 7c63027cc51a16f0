package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/config"
)

func TestDoctorSeesThePlugin(t *testing.T) {
	now := time.Now()
	well := health.Health{Time: now, PID: 7, Connected: true, Runtime: "containerd v2", Profiles: 3}
	with := func(change func(*health.Health)) *health.Health { h := well; change(&h); return &h }
	for _, tc := range []struct {
		name    string
		h       *health.Health // nil: it has never run
		require bool
		has     profiles.Support
		needed  bool
		detail  string
	}{
		{"well", &well, false, profiles.Yes, true, "chooses from 3 profiles"},
		{"never there", nil, false, profiles.No, false, "has not run"},
		{"never there, and asked for", nil, true, profiles.No, true, "has not run"},
		{"stopped", with(func(h *health.Health) { h.Time = now.Add(-time.Minute) }), false, profiles.No, true, "no"},
		{"not connected", with(func(h *health.Health) { h.Connected = false }), false, profiles.No, true, "not connected"},
		{"store bad", with(func(h *health.Health) { h.Problems = []string{"bad.yaml:1:1"} }), false, profiles.No, true, "bad.yaml:1:1"},
		{"something bare", with(func(h *health.Health) {
			h.Unprotected = []health.Container{{Namespace: "a", Pod: "p", Name: "c", Why: "under runc"}}
		}), false, profiles.Yes, true, "1 container that a profile is for, the first a/p c (under runc)"},
	} {
		cfg := config.Default()
		cfg.State, cfg.RequirePlugin = t.TempDir(), tc.require
		if tc.h != nil {
			if err := health.Write(cfg.State, *tc.h); err != nil {
				t.Fatal(err)
			}
		}
		c := examinePlugin(cfg, "/nowhere/config.toml", now)
		if c[0].Has != tc.has || c[0].Needed != tc.needed || !strings.Contains(c[0].Detail, tc.detail) {
			t.Errorf("%s: %+v", tc.name, c[0])
		}
		if c[1].Has != profiles.No || c[1].Needed || c[1].Fix == "" {
			t.Errorf("%s: %+v", tc.name, c[1])
		}
	}
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("[plugins.'io.containerd.nri.v1.nri'.default_validator]\nenable = true\nrequired_plugins = ['stockade']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.State = t.TempDir()
	if c := examinePlugin(cfg, file, now); c[1].Has != profiles.Yes || !c[0].Needed {
		t.Errorf("required: %+v", c)
	}
}
