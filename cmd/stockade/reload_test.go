package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/shim/control"
	"github.com/stockade-dev/stockade/shim/control/api"
	"github.com/stockade-dev/stockade/shim/state"
)

// shim is a control socket with the given containers behind it.
type shim struct {
	answer []api.Reloaded
	status []api.Container
}

func (s *shim) Own(int) bool { return false }

func (s *shim) Status(context.Context) (*api.Status, error) {
	return &api.Status{Containers: s.status}, nil
}

func (s *shim) Reload(_ context.Context, _ api.Peer, r api.ReloadRequest) (*api.ReloadResponse, error) {
	resp := &api.ReloadResponse{}
	for _, c := range s.answer {
		if (r.Container == "" || r.Container == c.ID) && (r.Profile == "" || r.Profile == c.Before.Profile) {
			resp.Containers = append(resp.Containers, c)
		}
	}
	return resp, nil
}

func TestReload(t *testing.T) {
	conf, dir := node(t)
	st := func(digest, mode string) api.State {
		return api.State{Profile: "redis", Digest: "sha256:" + strings.Repeat(digest, 64), Mode: mode, OnViolation: "kill"}
	}
	good := api.Reloaded{Namespace: "k8s.io", ID: containerID, Pod: "redis-0", PodNamespace: "prod", Before: st("a", "monitor"), After: st("b", "enforce")}
	waits := good
	waits.ID, waits.Waits = "waits", []api.Wait{{Part: "mounts", What: "/data \x1b[2Jstays mounted writable", Weaker: true}, {Part: "syscalls", What: "the filter still refuses keyctl"}}
	failed := good
	failed.ID, failed.After, failed.Failed = "failed", failed.Before, "redis.yaml:3:1: spec.alow: unknown field"
	same := good
	same.ID, same.After, same.Before.Profile, same.After.Profile = "same", same.Before, "nginx", "nginx"
	decided := []api.Decisions{{Kind: "exec", Action: "allow", Count: 40}, {Kind: "read", Action: "kill", Count: 2}}
	handler := &shim{
		answer: []api.Reloaded{waits, good, failed, same},
		status: []api.Container{{Namespace: "k8s.io", ID: containerID, State: good.After, Decisions: decided}},
	}
	s, err := control.Listen(dir+"/state", "x", handler)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	task := state.Task{ID: containerID, Namespace: "k8s.io", Profile: "redis", Digest: good.Before.Digest, Mode: "enforce", Since: now, Control: s.Path()}
	dead := task
	dead.ID, dead.ShimPID, dead.ShimStart, dead.Failed, dead.Waits = "dead", 1, 1<<60, "it failed", 1
	sick := task
	sick.ID, sick.Failed, sick.Waits = "sick", "it failed", 2
	if err := errors.Join(state.Write(dir+"/state", task), state.Write(dir+"/state", dead), state.Write(dir+"/state", sick)); err != nil {
		t.Fatal(err)
	}
	all := stockade(t, conf, "reload", "--all")
	golden(t, "reload", all.out)
	for args, want := range map[string]int{
		"--all": exitNo, "--profile nginx": exitOK, "--profile none": exitOK, containerID: exitOK, containerID[:12]: exitOK,
		"dead": exitError, "nobody": exitError, "--profile redis --dry-run": exitNo,
	} {
		if r := stockade(t, conf, append([]string{"reload"}, strings.Fields(args)...)...); r.code != want {
			t.Errorf("reload %s: code %d, want %d\n%s%s", args, r.code, want, r.out, r.err)
		}
	}
	v := isJSON(t, stockade(t, conf, "reload", "--all", "--json").out)
	if n := len(v["containers"].([]any)); n != 4 {
		t.Errorf("%d containers", n)
	}
	r := stockade(t, conf, "ps")
	for _, want := range []string{"  42  ", "0?", "shim gone"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("ps lacks %q:\n%s", want, r.out)
		}
	}
	if !strings.Contains(r.err, "sick: the last reload failed, the old profile holds: it failed") || strings.Contains(r.err, "dead: ") {
		t.Errorf("ps says %q", r.err)
	}
	if ids := (&app{configPath: conf}).completeContainers(); !slices.Contains(ids, containerID+"\tredis") {
		t.Errorf("completion: %q", ids)
	}
	if wrong := examineRunning(dir + "/state"); len(wrong) != 1 || !strings.Contains(wrong[0], "sick") {
		t.Errorf("doctor: %q", wrong)
	}
}

// TestReloadDeaf: a shim that was stopped does not keep the others from being asked.
func TestReloadDeaf(t *testing.T) {
	conf, dir := node(t)
	s, err := control.Listen(dir+"/state", "x", &shim{answer: []api.Reloaded{{ID: "one"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Symlink(s.Path(), api.Folder(dir+"/state")+"/link"+api.Suffix); err != nil {
		t.Fatal(err)
	}
	if r := stockade(t, conf, "reload", "--all", "--json"); r.code != exitOK || len(isJSON(t, r.out)["containers"].([]any)) != 1 {
		t.Errorf("%+v", r)
	}
}
