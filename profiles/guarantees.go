package profiles

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

// guarantees states what the plan gives for each kind of access, and refuses to enforce what this node cannot hold.
func (c *compiler) guarantees() {
	c.needs("fanotify permission events", c.target.Fanotify, "Linux 6.0 or newer with CONFIG_FANOTIFY_ACCESS_PERMISSIONS")
	c.needs("seccomp user notification", c.target.SeccompNotify, "Linux 5.7 or newer and libseccomp 2.5")
	for _, g := range []func() Guarantee{
		c.execGuarantee, c.readGuarantee, c.writeGuarantee, c.treeGuarantee, c.filelessGuarantee,
		c.syscallGuarantee, c.capabilityGuarantee, c.networkGuarantee, c.mountsGuarantee,
	} {
		c.plan.Guarantees = append(c.plan.Guarantees, g())
	}
}

func (c *compiler) needs(what string, has Support, want string) {
	if !c.enforce() || has == Yes {
		return
	}
	problem := "this node has no " + what
	if has == Unknown {
		problem = "it could not be told whether this node has " + what
	}
	c.failProfile("spec.mode", "mode enforce cannot be held: "+problem, "it takes "+want+"; or use mode monitor")
}

// unenforced refuses a guarantee of nothing where something was declared, unless the profile accepts that.
func (c *compiler) unenforced(word, problem string) {
	if c.enforce() && !slices.Contains(c.profile.AllowUnenforced, word) {
		c.failProfile("spec.allowUnenforced", problem, "add "+word+" to allowUnenforced if that is acceptable")
	}
}

// by is the guarantee of a mechanism whose events are decided by us.
func (c *compiler) by(kind string, has Support, mechanism, note string) Guarantee {
	g := Guarantee{Kind: kind, By: mechanism, Note: note}
	switch {
	case has != Yes:
		return Guarantee{Kind: kind, Note: "this node has no " + mechanism}
	case !c.enforce():
		g.Level = LevelDetect
	case c.plan.OnViolation == Kill:
		g.Level = LevelKill
	default:
		g.Level = LevelDeny
	}
	return g
}

func (c *compiler) execGuarantee() Guarantee {
	return c.by(GuaranteeExec, c.target.Fanotify, "fanotify FAN_OPEN_EXEC_PERM",
		"seen before the first instruction (on noexec mounts by the filter, refused by the mount); what a declared interpreter does with a file it may read is not an exec")
}

const (
	lsm = "AppArmor"
	// refusedByLSM: by the kernel, and then seen.
	refusedByLSM = "refused by the kernel whatever the caller does meanwhile; the record of it kills, and where the parser can say so AppArmor has killed the process by then; on mounts that the pod itself made read-only the mount refuses first, unseen"
)

// byArmor is the guarantee of AppArmor's text, beside what fanotify holds of it.
func (c *compiler) byArmor(kind, note string) Guarantee {
	g := c.by(kind, c.target.AppArmor, lsm, refusedByLSM)
	if note != "" {
		g.Note += "; " + note
	}
	return g
}

// leftOver says which of a plan's files fanotify is asked about as well, "" if none.
func (c *compiler) leftOver() string {
	a := c.plan.armor
	switch {
	case a.everywhere:
		return "everywhere"
	case a.image:
		return "in mounts that are not the image's (@image)"
	case len(a.places) > 0:
		return "where programs have rules of their own"
	}
	return ""
}

func (c *compiler) openGuarantee(kind, note string) Guarantee {
	g := c.byArmor(kind, note)
	if where := c.leftOver(); where != "" {
		g.By += "; fanotify FAN_OPEN_PERM " + where
	}
	return g
}

func (c *compiler) readGuarantee() Guarantee {
	if c.plan.armor != nil {
		return c.openGuarantee(GuaranteeRead, "listing directories, stat, and what is in /proc are free")
	}
	return c.by(GuaranteeRead, c.target.Fanotify, "fanotify FAN_OPEN_PERM",
		"opens of regular files only: listing directories, stat, devices, FIFOs and what is in /proc are free")
}

// raced: the paths of a call are in its caller's memory. The filter's listener reads them, and by the time the call is
// made another thread may have changed them.
const raced = "who changes a path while it is looked at is refused all the same, unseen"

func (c *compiler) writeGuarantee() Guarantee {
	const within = "an undeclared open with O_CREAT in a writable directory is refused, but may leave an empty file; for truncate by path see " + GuaranteeTree
	if c.plan.armor != nil {
		return c.openGuarantee(GuaranteeWrite, "")
	}
	g := c.by(GuaranteeWrite, c.target.Fanotify, "fanotify FAN_OPEN_PERM and the open's flags", within)
	if c.plan.Seal && g.Level > LevelNone {
		g.By += "; read-only mounts, watched through seccomp user notification"
		g.Note = "outside of writable directories the mount refuses what is tried, and the filter shows it: " + raced + "; " + within
	}
	return g
}

func (c *compiler) treeGuarantee() Guarantee {
	g := Guarantee{Kind: GuaranteeTree}
	switch {
	case c.plan.armor != nil:
		g = c.byArmor(GuaranteeTree, "extended attributes and times of files are watched through seccomp user notification, so whoever races it gets through")
		if c.plan.armor.tree {
			g.By += "; seccomp user notification"
			g.Note += "; between programs that have rules of their own the filter alone tells, so whoever races it gets through"
		}
	case !c.enforce():
		g = c.by(GuaranteeTree, c.target.SeccompNotify, "seccomp user notification",
			"by path only; monitor mode leaves the mounts as they are")
	case c.plan.Seal:
		g = c.by(GuaranteeTree, c.target.SeccompNotify, "read-only mounts, watched through seccomp user notification",
			"the mount refuses what is tried, and the filter shows it: "+raced)
		if list := c.rootList(); list != "" {
			g.Level = min(g.Level, LevelDetect)
			g.Note += "; within " + list + ", of which not everything is declared, the filter alone sees what is not, so whoever races it gets through; AppArmor would"
		}
	case slices.ContainsFunc(c.plan.write.wide, func(p *pattern.Pattern) bool { return p.CoversTree("/") }):
		g.Note = "every path is declared writable"
	case c.target.MountSeal != Yes:
		g.Note = "this node has no read-only mounts with writable binds; AppArmor would"
		c.unenforced("filesystem", "unlink, rename, mkdir, chmod and truncate are not seen: this node has no mount seal")
	default:
		g.Note = "a write rule begins with a wildcard, so the root cannot be read-only; AppArmor would"
		c.unenforced("filesystem", "unlink, rename, mkdir, chmod and truncate are not seen: a write rule ("+c.plan.roots[0].Pattern+") reaches into the root directory, which therefore stays writable")
	}
	return g
}

// rootList names a few of the places that must be left writable although not everything in them is declared.
func (c *compiler) rootList() string {
	const most = 5
	var names []string
	for _, r := range c.plan.roots {
		if !r.Exact && c.plan.CoverTree(r.Path) != CoverWrite {
			names = append(names, r.Path)
		}
	}
	if n := len(names) - most; n > 0 {
		names = append(names[:most], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}

func (c *compiler) filelessGuarantee() Guarantee {
	if c.lets("memfd_create") {
		c.unenforced("fileless", "memfd_create is declared: what is executed from such a file is not seen")
		return Guarantee{Kind: GuaranteeFileless, Note: "memfd_create is declared: what is executed from such a file is not seen"}
	}
	return c.by(GuaranteeFileless, c.target.SeccompNotify, "seccomp (memfd_create) and fanotify",
		"O_TMPFILE, /dev/shm and unlinked files are files to exec rules")
}

func (c *compiler) syscallGuarantee() Guarantee {
	return c.by(GuaranteeSyscall, c.target.SeccompNotify, "seccomp user notification",
		"openat2 answers ENOSYS unless it is declared by name; entries of other architectures (int 0x80, x32) are closed")
}

func (c *compiler) capabilityGuarantee() Guarantee {
	g := Guarantee{Kind: GuaranteeCapability, Note: "monitor mode leaves the capability sets as they are"}
	if c.enforce() {
		g.Level, g.By = LevelDeny, "capability sets"
		g.Note = "refused with EPERM, not reported"
		if c.plan.NoNewPrivileges {
			g.By += ", no_new_privs"
		}
	}
	return g
}

func (c *compiler) networkGuarantee() Guarantee {
	if len(c.plan.network) > 0 {
		c.unenforced("network", "listen and connect rules are declared, and no mechanism of this build enforces them")
	}
	return Guarantee{Kind: GuaranteeNetwork, Note: "cgroup BPF, which a later build uses, would deny"}
}

// Calls that change what is mounted where, and calls that enter a namespace in which a process may do so.
var (
	mountCalls     = []string{"mount", "fsmount", "move_mount", "open_tree", "open_tree_attr", "pivot_root", "mount_setattr"}
	namespaceCalls = []string{"unshare", "setns"}
)

// mountsPossible reports whether the filter and the capabilities let somebody make mounts, or mount namespaces.
func (p *Plan) mountsPossible() bool {
	return p.lets(namespaceCalls...) || p.lets("clone", "clone3") || p.capabilities["SYS_ADMIN"] != nil && p.lets(mountCalls...)
}

// mountsGuarantee is about mounts made after the start: they carry no fanotify mark. To make one takes CAP_SYS_ADMIN
// over the mount namespace, which the container has or which a new user namespace gives; and a new mount namespace is
// itself one copy of each mount, without the mark (user_namespaces(7), mount_namespaces(7)).
func (c *compiler) mountsGuarantee() Guarantee {
	possible := c.plan.mountsPossible()
	c.plan.MountsLater = possible || !c.enforce()
	if !possible {
		g := c.by(GuaranteeMounts, c.target.SeccompNotify, "seccomp (mount and its family, new namespaces)", "")
		if !c.enforce() {
			g.Note = "monitor mode leaves the capability sets as they are; files in a mount made after the start are not seen"
		}
		return g
	}
	const problem = "mounts may be made after the start, or mount namespaces, and files in them are not watched"
	c.unenforced("mounts", problem+": the profile declares calls for that and what gives the right to them")
	return Guarantee{Kind: GuaranteeMounts, Note: problem + "; what is executed there is refused: for certain in another " +
		"mount namespace, elsewhere by a look at the name, which can be raced"}
}
