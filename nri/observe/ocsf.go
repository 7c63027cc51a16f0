package observe

import (
	"fmt"
	"strings"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/shim/incident"
)

// OCSF's numbers (schema.ocsf.io, 1.5.0, class Detection Finding).
const (
	ocsfVersion  = "1.5.0"
	classUID     = 2004
	categoryUID  = 2 // Findings
	activityNew  = 1 // Create
	actionAllow  = 1
	actionDeny   = 2
	dispAllowed  = 1
	dispBlocked  = 2
	dispLogged   = 17
	severityMed  = 3
	severityHigh = 4
	statusNew    = 1
	maxText      = 4 << 10 // bytes of one text
	maxArgs      = 8 << 10 // bytes of a command line
)

type object = map[string]any

// text makes what a workload chose safe to print and not longer than limit.
func text(s string) string { return shorten(incident.Safe(shorten(s, maxText)), maxText) }

// OCSF returns a finding as a Detection Finding. Fields that OCSF has no name
// for are under unmapped.
func OCSF(f Finding, node, version string) map[string]any {
	o := object{
		"class_uid": classUID, "class_name": "Detection Finding", "category_uid": categoryUID, "category_name": "Findings",
		"activity_id": activityNew, "activity_name": "Create", "type_uid": classUID*100 + activityNew,
		"time": f.Time().UnixMilli(), "status_id": statusNew, "is_alert": true,
		"metadata": object{
			"version": ocsfVersion, "profiles": []any{"container", "host", "security_control"},
			"product": object{"name": "Stockade", "vendor_name": "Stockade", "version": version},
		},
		"device": object{"hostname": text(node), "type_id": 1, "type": "Server"},
	}
	if f.Incident != nil {
		violation(o, f.Incident)
	} else {
		judged(o, f.Event)
	}
	return o
}

func violation(o object, inc *incident.Incident) {
	stopped := inc.Action != incident.Reported && inc.Action != incident.NotReloaded
	dispose(o, stopped, dispLogged)
	o["message"] = incident.Cause(inc)
	o["finding_info"] = object{
		"uid": text(inc.ID), "title": title(inc), "desc": incident.Cause(inc),
		"created_time": inc.Time.UnixMilli(), "types": []any{text(inc.Access.Kind)},
		"analytic": object{"type_id": 1, "type": "Rule", "name": text(inc.Profile), "uid": text(inc.Digest)},
	}
	o["policy"] = object{"name": text(inc.Profile), "uid": text(inc.Digest), "desc": text(inc.Rule), "is_applied": stopped}
	container := object{"uid": text(inc.Container), "image": object{"name": text(inc.Image)}, "orchestrator": "containerd"}
	if inc.Pod.Container != "" {
		container["name"] = text(inc.Pod.Container)
	}
	if inc.Pod.Name != "" {
		container["orchestrator"], container["pod_uuid"] = "Kubernetes", text(inc.Pod.UID)
		o["resources"] = pod(inc.Pod.Namespace, inc.Pod.Name, inc.Pod.UID)
	}
	o["container"] = container
	process := object{
		"pid": inc.Subject.PID, "tid": inc.Subject.TID, "name": text(inc.Subject.Comm), "cmd_line": command(inc.Subject.Cmdline),
		"file": object{"path": text(inc.Subject.Exe), "name": base(inc.Subject.Exe), "type_id": 1}, "container": container,
		"user": object{"uid": fmt.Sprint(inc.Subject.UID)},
	}
	at := process
	for _, p := range inc.Parents[:min(len(inc.Parents), 8)] {
		parent := object{"pid": p.PID, "name": text(p.Comm), "file": object{"path": text(p.Exe), "name": base(p.Exe), "type_id": 1}}
		at["parent_process"] = parent
		at = parent
	}
	evidence := object{"actor": object{"process": process}}
	if inc.Access.Path != "" {
		evidence["file"] = object{"path": text(inc.Access.Path), "name": base(inc.Access.Path), "type_id": 0}
	}
	o["evidences"] = []any{evidence}
	o["remediation"] = object{"desc": "to allow it: " + text(inc.Suggestion)}
	o["unmapped"] = object{"stockade": object{
		"action": text(inc.Action), "kind": text(inc.Access.Kind), "syscall": text(inc.Access.Syscall), "flags": text(inc.Access.Flags),
		"mode": text(inc.Mode), "session": inc.Session, "reason": text(inc.Reason), "namespace": text(inc.Namespace), "lost": int64(inc.Lost),
	}}
}

func title(inc *incident.Incident) string {
	if inc.Action == incident.NotReloaded {
		return "A running container keeps an older profile"
	}
	return "Access that is not declared: " + text(inc.Access.Kind)
}

// judged is a container that was refused, or that runs unprotected.
func judged(o object, e *nri.Event) {
	refused := e.Action == nri.Refuse
	dispose(o, refused, dispAllowed)
	_, reason, note := describe(Finding{Event: e})
	o["message"] = shorten(note, maxText)
	o["finding_info"] = object{
		"uid": fmt.Sprintf("%s-%d", text(e.ContainerID), e.Time.UnixNano()), "title": reason, "desc": shorten(note, maxText),
		"created_time": e.Time.UnixMilli(), "types": []any{e.Action.String()},
	}
	if e.Profile != "" {
		o["policy"] = object{"name": text(e.Profile), "uid": text(e.Digest), "is_applied": refused}
	}
	o["container"] = object{"uid": text(e.ContainerID), "name": text(e.Container), "orchestrator": "Kubernetes", "pod_uuid": text(e.PodUID)}
	o["resources"] = pod(e.Namespace, e.Pod, e.PodUID)
	o["unmapped"] = object{"stockade": object{"action": e.Action.String()}}
}

// dispose says what was done.
func dispose(o object, stopped bool, otherwise int) {
	if stopped {
		o["action_id"], o["action"], o["disposition_id"], o["disposition"] = actionDeny, "Denied", dispBlocked, "Blocked"
		o["severity_id"], o["severity"] = severityHigh, "High"
		return
	}
	o["action_id"], o["action"], o["disposition_id"] = actionAllow, "Allowed", otherwise
	o["disposition"] = map[int]string{dispLogged: "Logged", dispAllowed: "Allowed"}[otherwise]
	o["severity_id"], o["severity"] = severityMed, "Medium"
}

func pod(namespace, name, uid string) []any {
	return []any{object{"type": "Pod", "namespace": text(namespace), "name": text(name), "uid": text(uid)}}
}

func base(path string) string { return text(path[strings.LastIndexByte(path, '/')+1:]) }

func command(args []string) string {
	var b strings.Builder
	for _, a := range args {
		if b.Len() >= maxArgs {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(text(a))
	}
	return shorten(b.String(), maxArgs)
}
