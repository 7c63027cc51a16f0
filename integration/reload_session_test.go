package integration_test

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/integration/node"
)

const (
	killing   = "  sessions: {allow: {exec: [/bin/probe]}}\n  allow: {exec: [/bin/probe], read: [\"@image\"], write: [/vol/**]}\n"
	killing2  = "  sessions: {allow: {exec: [/bin/probe, /bin/hello]}}\n  allow: {exec: [/bin/probe], read: [\"@image\"], write: [/vol/**]}\n"
	refusedBy = "refused by stockade"
)

// TestReloadSession: what a session was let in for is stopped when the profile does not declare it any more, and the
// container is not killed for it; what was never declared kills it as ever.
func TestReloadSession(t *testing.T) {
	t.Parallel()
	c := change(t, killing2, specs.Mount{Destination: "/vol", Type: "bind", Source: volume(t, 0o777, 0), Options: []string{"rbind", "rw"}})
	begin := func() *node.Exec {
		e, err := c.task.Exec(t.Context(), node.ExecOpts{Args: []string{
			"/bin/probe", "seq", "waitfile", "/vol/go", "--", "spawn", "/bin/hello", "--", "spawn", "/bin/other",
		}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	end := func(e *node.Exec) string {
		c.may("write", "/vol/go", "x")
		if _, err := e.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		return e.Output()
	}
	e := begin()
	prepared, err := c.task.Prepare(t.Context(), node.ExecOpts{Args: []string{"/bin/hello"}})
	if err != nil {
		t.Fatal(err)
	}
	c.becomes(killing)
	if err := prepared.Start(t.Context()); err == nil || !strings.Contains(err.Error(), refusedBy) {
		t.Errorf("a session that was prepared under the profile before: %v", err)
	}
	out := end(e)
	if strings.Contains(out, "hello ran") || strings.Contains(out, "other ran") {
		t.Errorf("it ran what is not declared any more: %s", out)
	}
	if code, err := c.task.Wait(t.Context()); err != nil || code != 137 {
		t.Errorf("the container: %d, %v; /bin/other was never declared", code, err)
	}
	var got []string
	for _, i := range incidentsOf(t, shared, c.task) {
		got = append(got, i.Action+" "+i.Access.Path)
	}
	slices.Sort(got)
	if want := []string{"denied /bin/hello", "denied /bin/hello", "killed /bin/other"}; !slices.Equal(got, want) {
		t.Errorf("incidents %q, want %q", got, want)
	}
}

// TestReloadSessionStorm: a profile changes all the time while sessions of what it sometimes declares are begun: each
// runs or is refused, and the container lives.
func TestReloadSessionStorm(t *testing.T) {
	c := change(t, killing2)
	var ran, refused, stopped int
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			out, code, err := trySession(t.Context(), c.task, node.ExecOpts{Args: []string{"/bin/hello"}})
			switch {
			case err == nil && code == 0 && strings.Contains(out, "hello ran"):
				ran++
			case err != nil && strings.Contains(err.Error(), refusedBy):
				refused++
			case !strings.Contains(out, "hello ran"):
				stopped++
			default:
				t.Errorf("%q, %d, %v", out, code, err)
			}
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-done:
		default:
			c.put([]string{killing, killing2}[i%2])
			c.reload()
			continue
		}
		break
	}
	t.Logf("%d ran, %d were refused, %d were stopped on their way", ran, refused, stopped)
	if ran == 0 || refused == 0 {
		t.Error("this shows nothing")
	}
	c.may("ids") // it lives
}
