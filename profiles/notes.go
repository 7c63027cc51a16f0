package profiles

import (
	"fmt"
	"strings"

	"github.com/stockade-dev/stockade/profiles/apparmor"
)

// strong are capabilities with which a process can reach beyond what a plan watches.
var strong = map[string]string{
	"SYS_ADMIN":       "it may change mounts, namespaces and much else",
	"SYS_MODULE":      "it may load code into the kernel",
	"SYS_RAWIO":       "it may write to memory and devices directly",
	"SYS_PTRACE":      "it may make other processes of the container act for it",
	"DAC_READ_SEARCH": "it may open files by handle",
	"BPF":             "it may load programs into the kernel",
	"MKNOD":           "it may create device nodes",
	"SYS_BOOT":        "it may restart the node or load another kernel",
}

// notes says what an admin should know that is in no guarantee.
func (c *compiler) notes() {
	p, plan := c.profile, c.plan
	note := func(format string, args ...any) { plan.Notes = append(plan.Notes, fmt.Sprintf(format, args...)) }
	if !c.enforce() {
		note("mode monitor: violations are recorded and nothing is refused")
	}
	if c.target.FanotifyStack != Yes {
		note("this node does not show when the kernel opens an interpreter: loaders and interpreters need exec rules of their own")
	}
	if p.Sessions.empty() && c.enforce() {
		note("no session is declared: kubectl exec and exec probes are refused")
	}
	if plan.Accepts(UnenforcedHost) && c.enforce() {
		note("allowUnenforced names host: a container that shares the host's processes or Stockade's folders is let run, and its root can end or change Stockade")
	}
	for _, name := range sortedKeys(plan.capabilities) {
		if why := strong[name]; why != "" {
			note("capability %s is declared: %s", name, why)
		}
	}
	c.syscallNotes(note)
	for _, w := range c.writableAndExecutable() {
		note("what is written below %s (%s) may be executed there, where an exec rule matches; it is not mounted noexec", w.Path, w.Pattern)
	}
	c.armorNotes(note)
}

// armorNotes says which rules AppArmor holds less closely than they are written, and what holds them instead.
func (c *compiler) armorNotes(note func(string, ...any)) {
	if c.plan.armor == nil {
		return
	}
	if c.plan.Mode == ModeEnforce {
		note("AppArmor also refuses what fanotify does not ask about: undeclared FIFOs, devices and sockets in the file system, exclusive locks on files that may only be read")
	}
	for _, g := range c.plan.Gaps {
		if g.Kind == apparmor.GapProgram || g.Kind == apparmor.GapMounts {
			note("AppArmor, %s: %s: %s", g.Field, g.Rule, g.Why)
		}
	}
}

func (c *compiler) syscallNotes(note func(string, ...any)) {
	if c.names("openat2") {
		note("openat2 is declared: its flags can be changed while it is looked at, so it is taken for writing")
	}
	if c.lets("io_uring_setup") {
		note("io_uring_setup is declared: opens through io_uring come from a kernel thread and are taken for writing")
	}
	if c.names("clone") || c.names("clone3") || c.names("unshare") {
		var named []string
		for _, name := range []string{"clone", "clone3", "unshare"} {
			if c.names(name) {
				named = append(named, name)
			}
		}
		note("declared by name with any arguments, new user namespaces included: %s", strings.Join(named, ", "))
	}
	if c.names("ptrace") || c.names("process_vm_writev") {
		note("a process may make another one of the container act for it (ptrace, process_vm_writev)")
	}
}

// writableAndExecutable are the directories where both are declared; a few are enough to be told.
func (c *compiler) writableAndExecutable() []WriteRoot {
	const most = 8
	var both []WriteRoot
	for _, root := range c.plan.roots {
		if len(both) == most {
			break
		}
		if c.plan.ExecNamedBelow(root.Path) {
			both = append(both, root)
		}
	}
	return both
}
