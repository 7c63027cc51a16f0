package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
)

func TestCheckPrintsEveryMistake(t *testing.T) {
	r := stockade(t, "/dev/null", "profile", "check", "testdata/wrong")
	if r.code != exitNo || r.out != "" {
		t.Errorf("code %d, out %q", r.code, r.out)
	}
	golden(t, "check", r.err)
	v := isJSON(t, stockade(t, "/dev/null", "profile", "check", "testdata/wrong", "--json").out)
	if n := len(v["mistakes"].([]any)); n != strings.Count(r.err, "\n") {
		t.Errorf("%d mistakes in JSON, %d lines of text", n, strings.Count(r.err, "\n"))
	}
	first := v["mistakes"].([]any)[0].(map[string]any)
	if first["file"] != "testdata/wrong/wrong.yaml" && first["file"] != "testdata/wrong/compile.yaml" || first["line"] == nil {
		t.Errorf("no place: %v", first)
	}
}

func TestCheckFindsParentsBesideAndNamesGivenTwice(t *testing.T) {
	if r := stockade(t, "/dev/null", "profile", "check", "testdata/redis.yaml"); r.code != exitOK || !strings.HasPrefix(r.out, "1 profile in 1 file: right") {
		t.Errorf("%+v", r)
	}
	r := stockade(t, "/dev/null", "profile", "check", "testdata/redis.yaml", "testdata/redis-next.yaml")
	if r.code != exitNo || !strings.Contains(r.err, "testdata/redis-next.yaml:1:1: metadata.name: a second profile is named redis, the first is at testdata/redis.yaml:1") {
		t.Errorf("%+v", r)
	}
	r = stockade(t, "/dev/null", "profile", "check", t.TempDir(), "nowhere.yaml")
	if r.code != exitNo || !strings.Contains(r.err, "no *.yaml") || !strings.Contains(r.err, "nowhere.yaml: no such file") {
		t.Errorf("%+v", r)
	}
}

func TestExplain(t *testing.T) {
	var all strings.Builder
	for _, args := range []string{
		"--exec /usr/local/bin/redis-server",
		"--exec /bin/sh",
		"--exec /usr/sbin/gosu",
		"--exec /usr/sbin/gosu --from /bin/sh",
		"--exec /usr/sbin/gosu --from /usr/local/bin/docker-entrypoint.sh --uid 7",
		"--exec /usr/sbin/gosu --from /usr/local/bin/docker-entrypoint.sh",
		"--exec /usr/local/bin/redis-cli --session",
		"--exec /usr/local/bin/redis-server --session",
		"--exec /usr/local/bin/redis-server --session --from /usr/local/bin/redis-cli",
		"--exec /usr/local/bin/redis-cli",
		"--exec /usr/local/bin/pinned --sha256 2222222222222222222222222222222222222222222222222222222222222222",
		"--read /usr/lib/x",
		"--read /usr/lib/x --image-file=false",
		"--read /etc/shadow",
		"--read /run/secrets/redis/a",
		"--read /run/secrets/redis/a --program /usr/local/bin/redis-server",
		"--write /data/x",
		"--write /dev/null",
		"--write /etc/x",
		"--write /proc/sys/x",
		"--capability setuid",
		"--capability CAP_SYS_ADMIN",
		"--syscall keyctl",
	} {
		r := stockade(t, "/dev/null", append([]string{"profile", "explain", "testdata/redis.yaml", "--target", "full"}, strings.Fields(args)...)...)
		if r.err != "" {
			t.Errorf("%s: %s", args, r.err)
		}
		all.WriteString("$ " + args + "\n" + r.out + "\n")
	}
	p, err := (&app{}).load("testdata/redis.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "explain", all.String(), short(p.Digest()))
}

// Text and JSON give the verdict that the plan gives.
func TestExplainIsTheDecision(t *testing.T) {
	p, err := (&app{}).load("testdata/redis.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := profiles.Compile(p, fullTarget())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/bin/sh", "/usr/local/bin/redis-server", "/data/x", "/etc/shadow", "/dev/null"} {
		for flag, kind := range map[string]profiles.Kind{"exec": profiles.Exec, "read": profiles.Read, "write": profiles.Write} {
			want := plan.Decide(&profiles.Access{Kind: kind, Path: path, Image: true})
			r := stockade(t, "/dev/null", "profile", "explain", "testdata/redis.yaml", "--target", "full", "--json", "--image-file", "true", "--"+flag, path)
			v := isJSON(t, r.out)
			if v["verdict"] != want.Action.String() || v["reason"] != want.Reason.String() || v["allowed"] != want.Allowed() || (r.code == exitOK) != want.Allowed() {
				t.Errorf("%s %s: %v, code %d; want %s, %s", flag, path, v, r.code, want.Action, want.Reason)
			}
		}
	}
}

func TestExplainAndCompileWithoutAccess(t *testing.T) {
	p, err := (&app{}).load("testdata/redis.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	r := stockade(t, "/dev/null", "profile", "explain", "testdata/redis.yaml", "--target", "full")
	for _, want := range []string{p.Digest(), "Rules:", "exec        3      -     -         1", "fanotify", "none   network"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("explain lacks %q:\n%s", want, r.out)
		}
	}
	r = stockade(t, "/dev/null", "profile", "compile", "testdata/redis.yaml", "--target", "full")
	for _, want := range []string{
		"the root is read-only", "/data           a folder, all below  /data/**", "/run/redis.pid  itself",
		"no_new_privs  set", "CAP_SETGID CAP_SETUID", "SCMP_ACT_ALLOW", "others",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("compile lacks %q:\n%s", want, r.out)
		}
	}
	v := isJSON(t, stockade(t, "/dev/null", "profile", "compile", "testdata/redis.yaml", "--target", "full", "--json").out)
	if v["readOnlyRoot"] != true || len(v["seccomp"].(map[string]any)["syscalls"].([]any)) == 0 || len(v["guarantees"].([]any)) == 0 {
		t.Errorf("compile --json: %v", v)
	}
	v = isJSON(t, stockade(t, "/dev/null", "profile", "explain", "testdata/redis.yaml", "--target", "full", "--json").out)
	if v["digest"] != p.Digest() || len(v["guarantees"].([]any)) == 0 {
		t.Errorf("explain --json: %v", v)
	}
}

func TestAProfileOfTheStoreByName(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the store wants root's files")
	}
	conf, dir := node(t)
	for _, name := range []string{"redis.yaml", "base.yaml"} {
		data, err := os.ReadFile("testdata/" + name)
		if err := errors.Join(err, os.WriteFile(dir+"/profiles.d/"+name, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if r := stockade(t, conf, "profile", "diff", "redis", "testdata/redis.yaml"); r.code != exitOK {
		t.Errorf("the store's against the same file: %+v", r)
	}
	if r := stockade(t, conf, "profile", "explain", "nobody"); r.code != exitError || !strings.Contains(r.err, `no such profile: "nobody"`) {
		t.Errorf("%+v", r)
	}
}

func TestDiff(t *testing.T) {
	r := stockade(t, "/dev/null", "profile", "diff", "testdata/redis.yaml", "testdata/redis-next.yaml")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	golden(t, "diff", strings.Join(lines[:len(lines)-1], "\n")+"\n")
	if !strings.HasPrefix(lines[len(lines)-1], "digest sha256:") {
		t.Errorf("last line %q", lines[len(lines)-1])
	}
	v := isJSON(t, stockade(t, "/dev/null", "profile", "diff", "testdata/redis.yaml", "testdata/redis-next.yaml", "--json").out)
	if n := len(v["changes"].([]any)); n != len(lines)-1 {
		t.Errorf("%d changes in JSON, %d lines", n, len(lines)-1)
	}
	if r := stockade(t, "/dev/null", "profile", "diff", "testdata/redis.yaml", "testdata/redis.yaml"); r.code != exitOK || !strings.HasPrefix(r.out, "no difference: sha256:") {
		t.Errorf("the same: %+v", r)
	}
}
