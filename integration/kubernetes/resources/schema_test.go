//go:build kubernetes

package resources_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const begin = "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: %}\n"

// TestTheAPIServerRefuses what a file of the store would be refused for, as far as schema and policy can say it.
func TestTheAPIServerRefuses(t *testing.T) {
	long := strings.Repeat("x", 64)
	for _, tc := range []struct{ name, text, says string }{
		{"unknown field", begin + "spec: {alow: {}}", `unknown field "spec.alow"`},
		{"unknown verb", begin + "spec: {allow: {execute: [/a]}}", `unknown field "spec.allow.execute"`},
		{"field of another place", begin + "spec: {programs: [{path: /a, allow: {syscalls: [open]}}]}", `unknown field "spec.programs[0].allow.syscalls"`},
		{"no spec", strings.ReplaceAll(begin, "%", "no-spec"), "spec: Required value"},
		{"name", strings.ReplaceAll(begin, "%", "a.b") + "spec: {}", "metadata.name: use a-z"},
		{"long name", strings.ReplaceAll(begin, "%", long) + "spec: {}", "metadata.name: use a-z"},
		{"mode", begin + "spec: {mode: strict}", `supported values: "learn", "monitor", "enforce"`},
		{"onViolation", begin + "spec: {onViolation: allow}", `supported values: "kill", "deny", "freeze"`},
		{"allowUnenforced", begin + "spec: {allowUnenforced: [net]}", "supported values"},
		{"boolean", begin + `spec: {allowPrivilegeEscalation: "true"}`, "allowPrivilegeEscalation"},
		{"not a list", begin + "spec: {allow: {read: /a}}", "spec.allow.read"},
		{"relative path", begin + "spec: {allow: {write: [data]}}", "spec.allow.write[0]"},
		{"slash at the end", begin + "spec: {deny: {read: [/data/]}}", "spec.deny.read[0]"},
		{"image written", begin + `spec: {allow: {write: ["@image"]}}`, "spec.allow.write[0]"},
		{"image denied", begin + `spec: {deny: {read: ["@image"]}}`, "spec.deny.read[0]"},
		{"set denied", begin + `spec: {deny: {syscalls: ["@default"]}}`, "spec.deny.syscalls[0]"},
		{"capability", begin + "spec: {allow: {capabilities: [ALL]}}", "spec.allow.capabilities[0]"},
		{"syscall", begin + "spec: {allow: {syscalls: [Open]}}", "spec.allow.syscalls[0]"},
		{"protocol", begin + "spec: {allow: {connect: [http/80]}}", "spec.allow.connect[0]"},
		{"listen on dns", begin + "spec: {allow: {listen: [dns]}}", "spec.allow.listen[0]"},
		{"program without rules", begin + "spec: {programs: [{path: /a}]}", "spec.programs[0]"},
		{"program without path", begin + "spec: {programs: [{allow: {read: [/a]}, deny: {}}]}", "spec.programs[0].path: Required value"},
		{"program twice", begin + "spec: {programs: [{path: /a, allow: {}}, {path: /a, deny: {}}]}", "Duplicate value"},
		{"match nothing", begin + "spec: {match: {images: []}}", "spec.match.images"},
		{"image", begin + `spec: {match: {images: ["redis:[67]"]}}`, "spec.match.images[0]"},
		{"namespace", begin + `spec: {match: {namespaces: ["prod-*"]}}`, "spec.match.namespaces[0]"},
		{"label", begin + "spec: {match: {podSelector: {matchLabels: {app: a b}}}}", "matchLabels.app"},
		{"exec: relative", begin + "spec: {allow: {exec: [bin/sh]}}", "spec.allow.exec: write an absolute path"},
		{"exec: a number", begin + "spec: {allow: {exec: [7]}}", "spec.allow.exec: write an absolute path"},
		{"exec: a list", begin + "spec: {allow: {exec: [[/a]]}}", "spec.allow.exec: write an absolute path"},
		{"exec: misspelt condition", begin + "spec: {allow: {exec: [{path: /a, form: [/b]}]}}", "spec.allow.exec: write an absolute path"},
		{"exec: no path", begin + "spec: {allow: {exec: [{uid: [0]}]}}", "path"},
		{"exec: uid", begin + "spec: {allow: {exec: [{path: /a, uid: [-1]}]}}", "uid"},
		{"exec: uid of nobody", begin + "spec: {allow: {exec: [{path: /a, uid: [4294967295]}]}}", "uid"},
		{"exec: sha256", begin + "spec: {allow: {exec: [{path: /a, sha256: abc}]}}", "sha256"},
		{"exec: empty from", begin + "spec: {allow: {exec: [{path: /a, from: []}]}}", "from"},
		{"exec: relative from", begin + "spec: {allow: {exec: [{path: /a, from: [b]}]}}", "from"},
		{"exec denied: sha256", begin + "spec: {deny: {exec: [{path: /a, sha256: " + strings.Repeat("ab", 32) + "}]}}", "spec.deny.exec"},
		{"exec denied: image", begin + `spec: {deny: {exec: ["@image"]}}`, "spec.deny.exec"},
		{"exec of a program", begin + "spec: {programs: [{path: /a, allow: {exec: [x]}}]}", "spec.programs[].allow.exec"},
		{"exec denied of a program", begin + "spec: {programs: [{path: /a, deny: {exec: [{path: /a, x: 1}]}}]}", "spec.programs[].deny.exec"},
		{"exec of sessions", begin + "spec: {sessions: {allow: {exec: [{path: /a, x: 1}]}}}", "spec.sessions.allow.exec"},
		{"too many", begin + "spec: {allow: {capabilities: [" + strings.Repeat("KILL, ", 129) + "KILL]}}", "Too many"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := apply(t, strings.ReplaceAll(tc.text, "%", "refused"))
			if err == nil {
				t.Fatal("accepted")
			}
			if err := lacks(out, tc.says); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWhatHoldsInAFileHoldsHere applies the files that an admin would put into a node's store, as they are.
func TestWhatHoldsInAFileHoldsHere(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "contrib/profiles/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, how := range [][]string{{"apply", "--validate=strict", "--dry-run=server"}, {"apply", "--server-side", "--validate=strict", "--dry-run=server"}} {
			if out, err := shared.Kubectl(t.Context(), string(text), append(how, "-f", "-")...); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
		}
	}
	// What the types' own test calls every field.
	for _, spec := range []string{
		`allow: {exec: [/a, "@image", {path: /b, from: ["/c/*"], uid: [0, 4294967294]}, {path: /d, sha256: ` + strings.Repeat("ab", 32) + `}], listen: [tcp/6379, "unix@a b"],
		  connect: [dns, "tcp/[2001:db8::]/32:443", "udp/10.0.0.0/8:1-2", "tcp/*", unix/run/x.sock], read: ["@image", "/a\\*b/{c,d}/**"]},
		  deny: {exec: [/sh, {path: /e, from: [/f], uid: [7]}]}, match: {podSelector: {matchLabels: {app.kubernetes.io/name: "", b: "1"}}}`,
		"",
	} {
		if _, err := client.Create(t.Context(), profile("right", spec), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: "Strict"}); err != nil {
			t.Error(err)
		}
	}
}
