package profiles

import "github.com/stockade-dev/stockade/profiles/apparmor"

// AppArmor is a resolved profile as package apparmor wants it, with the facts of the plan compiled from it. The mode
// is complain where the plan is not enforced. What only the caller knows (ABI, interpreters, supervisors, whether to
// use AppArmor's kill mode) is for the caller to add.
func AppArmor(p *Profile, plan *Plan) apparmor.Policy {
	policy := apparmor.Policy{
		Profile: plan.Name, Digest: plan.Digest,
		Allow: armored(&p.Allow), Deny: armored(&p.Deny), Sessions: armored(&p.Sessions),
		Capabilities: plan.Capabilities,
		Facts: apparmor.Facts{
			Sealed: plan.Seal, Transitions: !plan.NoNewPrivileges,
			Mounts:     plan.capabilities["SYS_ADMIN"] != nil && plan.lets(mountCalls...),
			Namespaces: plan.lets(namespaceCalls...),
			Uring:      plan.lets("io_uring_setup"),
		},
	}
	if plan.Mode != ModeEnforce {
		policy.Mode = apparmor.Complain
	}
	for i := range p.Programs {
		program := &p.Programs[i]
		policy.Programs = append(policy.Programs, apparmor.Program{
			Path: program.Path, Allow: armored(&program.Allow), Deny: armored(&program.Deny),
		})
	}
	runtime := Rules{Read: runtimeReads, Write: runtimeWrites}
	implicit := armored(&runtime)
	policy.Allow.Read = append(policy.Allow.Read, implicit.Read...)
	policy.Allow.Write = append(policy.Allow.Write, implicit.Write...)
	return policy
}

// lets reports whether the filter lets one of the calls pass with any arguments.
func (p *Plan) lets(names ...string) bool {
	for _, name := range names {
		if p.syscalls[name] != nil {
			return true
		}
	}
	return false
}

func armored(r *Rules) apparmor.Rules {
	list := func(k Kind) (out []apparmor.Rule) {
		for _, rule := range r.Of(k) {
			out = append(out, apparmor.Rule{
				Text: rule.Text, From: rule.From, UID: len(rule.UID) > 0, SHA256: rule.SHA256 != "", Field: rule.Field,
			})
		}
		return out
	}
	return apparmor.Rules{Exec: list(Exec), Read: list(Read), Write: list(Write), Listen: list(Listen), Connect: list(Connect)}
}
