package profiles

// Decide gives the verdict on an access. It is a function of the plan and the access alone, and allocates nothing.
func (p *Plan) Decide(a *Access) Verdict {
	var v Verdict
	switch a.Kind {
	case Exec:
		if a.Interpreter {
			return Verdict{Action: Allow, Reason: ReasonInterpreter}
		}
		v = p.exec.decide(a)
	case Read:
		v = p.read.decide(a)
	case Write:
		v = p.write.decide(a)
	case Syscall:
		v = p.decideSyscall(a)
	case Capability:
		v = declaredIn(p.capabilities, a.Name)
	case Listen, Connect:
		v = p.decideNetwork(a)
	default:
		v = Verdict{Reason: ReasonNotDeclared}
	}
	if v.Action != Allow {
		v.Action = p.violation()
	}
	return v
}

// violation is what is done about an access that is not allowed.
func (p *Plan) violation() Action {
	switch {
	case p.Mode == ModeMonitor:
		return Report
	case p.OnViolation == Deny || p.OnViolation == Freeze:
		return p.OnViolation
	}
	return Kill
}

// decide weighs all rules that match the path. A deny rule decides at once. Without one any allow rule is enough; one
// whose conditions do not hold is remembered to say why.
func (t *table) decide(a *Access) Verdict {
	v := Verdict{Reason: ReasonNotDeclared}
	t.set.Lookup(a.Path, func(i int) bool {
		return t.entries[i].weigh(a, &v)
	})
	if v.Action != 0 {
		return v
	}
	for i := range t.image {
		e := &t.image[i]
		if a.Image {
			e.weigh(a, &v)
		} else if e.applies(&a.Subject) && v.Reason == ReasonNotDeclared {
			v.Rule, v.Reason = e.rule, ReasonNotImage
		}
	}
	return v
}

// weigh lets one rule that matches the path speak; false says that nothing can change the verdict any more.
func (e *entry) weigh(a *Access, v *Verdict) bool {
	if !e.applies(&a.Subject) {
		return true
	}
	unmet := e.unmet(a)
	if e.deny {
		if unmet == 0 {
			*v = Verdict{Action: Deny, Rule: e.rule, Reason: ReasonDenyRule}
			return false
		}
		return true
	}
	if unmet == 0 && a.Kind == Exec && a.Subject.SessionRoot && !e.session {
		unmet = ReasonSession
	}
	switch {
	case unmet != 0:
		if v.Action != Allow {
			v.Rule, v.Reason = e.rule, unmet
		}
	case v.Action != Allow || v.Reason == ReasonRuntime:
		*v = Verdict{Action: Allow, Rule: e.rule, Reason: ReasonDeclared}
		if e.rule.Field == runtimeField {
			v.Reason = ReasonRuntime
		}
	}
	return true
}

func (p *Plan) decideSyscall(a *Access) Verdict {
	if rule, ok := p.conditional[a.Name]; ok {
		return Verdict{Rule: rule, Reason: ReasonArguments}
	}
	v := declaredIn(p.syscalls, a.Name)
	if v.Action == Allow && a.Notified {
		return Verdict{Rule: v.Rule, Reason: ReasonArguments}
	}
	return v
}

func declaredIn(rules map[string]*Rule, name string) Verdict {
	if rule, ok := rules[name]; ok {
		return Verdict{Action: Allow, Rule: rule, Reason: ReasonDeclared}
	}
	return Verdict{Reason: ReasonNotDeclared}
}
