package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/bundle"
)

// session is an exec session that was prepared.
type session struct {
	process *specs.Process
	plan    *profiles.Plan // by which it was let in
}

// session judges an exec request and narrows its process to the plan. It looks at the program the request names; what
// is then really executed is judged when it happens.
func (f *fence) session(r *taskapi.ExecProcessRequest) (s session, err error) {
	var p specs.Process
	if err := json.Unmarshal(r.Spec.GetValue(), &p); err != nil {
		return s, fmt.Errorf("parse the process of exec %s: %w", r.ExecID, err)
	}
	s = session{process: &p, plan: f.now()}
	if err := f.admit(&p); err != nil {
		return s, err
	}
	narrow(&p, f.plan, s.plan)
	if f.armor != nil {
		p.ApparmorProfile = f.engine.armor.sessionOf(f.armor)
	}
	data, err := json.Marshal(&p)
	if err != nil {
		return s, err
	}
	r.Spec = &anypb.Any{TypeUrl: r.Spec.GetTypeUrl(), Value: data}
	return s, nil
}

// narrow cuts a session's process to the plan in force, and to what the container itself was given: its filter is loaded
// where it was made to be (no_new_privs), and privileges that it does not have are nobody's.
func narrow(p *specs.Process, armed, now *profiles.Plan) {
	bundle.ApplyProcess(p, armed)
	bundle.ApplyProcess(p, now)
}

// admit refuses a session whose program is not declared.
func (f *fence) admit(p *specs.Process) error {
	v := f.container.JudgeSession(p.Args, p.Env, p.Cwd)
	if v == nil {
		return nil
	}
	f.engine.report.put(f, *v)
	return fmt.Errorf("%w: exec session %s: %s (profile %s; to allow it: %s)",
		errRefused, quote(p.Args), v.Verdict.Reason, v.Plan.Name, v.Suggest)
}

// begin judges a session again if the profile has changed since it was prepared. Its program would be stopped anyway;
// here it is refused as every other session is, and nothing of it comes to exist.
func (f *fence) begin(id string) error {
	s, ok := f.sessions.Load(id)
	if !ok || s.(session).plan == f.now() {
		return nil
	}
	return f.admit(s.(session).process)
}

// linger is how long the runtime may still set up a session that nobody waits for any more.
const linger = time.Minute

// lingering is ctx, but it ends by linger later. A runtime that is killed halfway, because a client has hung up or
// containerd is restarted, would leave its code in the container: on its way to a program, and nobody to say whose.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(linger, cancel) })
	return late, func() {
		stop()
		cancel()
	}
}

func quote(args []string) string {
	words := slices.Clone(args)
	for i, w := range words {
		words[i] = fmt.Sprintf("%q", w)
	}
	return "[" + strings.Join(words, " ") + "]"
}
