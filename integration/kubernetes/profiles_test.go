//go:build kubernetes

package kubernetes_test

import (
	"fmt"
	"strings"
)

// profileTexts are the admin's profiles. A container of the probe image gets the one of its name.
var profileTexts = map[string]string{
	"runs":     probeProfile("runs", "{exec: [/bin/probe], read: ['@image']}", "{exec: [/bin/hello]}"),
	"probed":   probeProfile("probed", "{exec: [/bin/probe], read: ['@image'], write: [/tmp/**]}", "{exec: [/bin/hello, /bin/probe], write: [/tmp/**]}"),
	"init":     probeProfile("init", "{exec: [/bin/probe], write: [/shared/**]}", "{}"),
	"side":     probeProfile("side", "{exec: [/bin/probe], read: [/shared/**]}", "{exec: [/bin/probe]}"),
	"labelled": strings.Replace(probeProfile("labelled", "{exec: [/bin/probe]}", "{}"), "match: {", "match: {podSelector: {matchLabels: {tier: web}}, ", 1),
	"debugger": probeProfile("debugger", "{exec: [/bin/probe, /bin/hello]}", "{}"),
}

func probeProfile(name, allow, sessions string) string {
	return fmt.Sprintf(`apiVersion: stockade.dev/v1alpha1
kind: Profile
metadata: {name: %[1]s}
spec:
  match: {images: ["docker.io/stockade/probe:test"], containers: [%[1]s]}
  mode: enforce
  allow: %[2]s
  sessions: {allow: %[3]s}
`, name, allow, sessions)
}
