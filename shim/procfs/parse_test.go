package procfs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const tail = " 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 %d 1000 200 300 4 5 777\n"
	for _, c := range []struct {
		text string
		want Process
		ok   bool
	}{
		{"7 (sh) S 1 7 7" + fmt.Sprintf(tail, 99), Process{PID: 7, PPID: 1, StartTime: 99, Image: 777, Comm: "sh"}, true},
		{"7 (a) R 1) S 2 7 7" + fmt.Sprintf(tail, 99), Process{PID: 7, PPID: 2, StartTime: 99, Image: 777, Comm: "a) R 1"}, true},
		{"7 (a\n8 (b) S 2 7 7" + fmt.Sprintf(tail, 99), Process{PID: 7, PPID: 2, StartTime: 99, Image: 777, Comm: "a\n8 (b"}, true},
		{"7 () S 2 7 7" + fmt.Sprintf(tail, 99), Process{PID: 7, PPID: 2, StartTime: 99, Image: 777}, true},
		{"7 (sh) S 1 7 7 0", Process{}, false},
		{"7 sh S 1", Process{}, false},
		{"x (sh) S 1 7 7" + fmt.Sprintf(tail, 99), Process{}, false},
		{"", Process{}, false},
	} {
		got, ok := parseStat([]byte(c.text))
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %+v, %v", c.text, got, ok)
		}
	}
}

const status = "Name:\t%s\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t70\nNgid:\t0\nPid:\t71\nPPid:\t3\nTracerPid:\t0\nUid:\t1000\t0\t0\t0\nGid:\t0\t0\t0\t0\n"

func TestParseStatus(t *testing.T) {
	want := Thread{TID: 71, TGID: 70, PPID: 3, UID: 1000}
	for escaped, comm := range map[string]string{
		"sh": "sh", "": "", `a\nTgid:	1`: "a\nTgid:\t1", `\\n`: `\n`, "a:\tb": "a:\tb", `x\`: `x\`,
	} {
		want.Comm = comm
		got, ok := parseStatus(fmt.Appendf(nil, status, escaped))
		if !ok || got != want {
			t.Errorf("%q: %+v, %v", escaped, got, ok)
		}
	}
	whole := fmt.Sprintf(status, "sh")
	for _, bad := range []string{
		"", "Name:\tsh\n",
		whole[:strings.Index(whole, "\t0\t0\t0\n")], // cut off within the uid
		strings.Replace(whole, "Tgid:\t70", "Tgid:\t-1", 1),
		"Tgid:\t1\n" + whole,
	} {
		if got, ok := parseStatus([]byte(bad)); ok {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestParseSyscall(t *testing.T) {
	args := [6]uint64{0xffffff9c, 0x7ffd, 0x80000, 0, 1<<64 - 1, 6}
	for _, c := range []struct {
		text string
		want Syscall
		ok   bool
	}{
		{"257 0xffffff9c 0x7ffd 0x80000 0x0 0xffffffffffffffff 0x6 0x7ffd 0x7f97\n", Syscall{257, args, true}, true},
		{"-1 0x7ffd 0x7f97\n", Syscall{Nr: -1}, true},
		{"257 0xffffff9c 0x7ffd\n", Syscall{}, false},
		{"257 0xffffff9c 0x7ffd 0x80000 0x0 0xffffffffffffffff 0x6 0x7f", Syscall{}, false},
		{"257 1 2 3 4 5 6 7 8\n", Syscall{}, false},
		{"99999999999 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0\n", Syscall{}, false},
		{"running\n", Syscall{}, false},
		{"", Syscall{}, false},
	} {
		got, ok := parseSyscall([]byte(c.text))
		if ok != c.ok || got != c.want {
			t.Errorf("%q: %+v, %v", c.text, got, ok)
		}
	}
}

func TestOpenFlags(t *testing.T) {
	args := [6]uint64{10, 11, 1<<32 | 12, 13}
	const creat = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
	for _, c := range []struct {
		arch  string
		nr    int
		flags int
		known bool
	}{
		{"amd64", 2, 11, true},
		{"amd64", 257, 12, true},
		{"amd64", 304, 12, true},
		{"amd64", 85, creat, true},
		{"amd64", 437, 0, false},            // openat2
		{"amd64", 426, 0, false},            // io_uring_enter
		{"amd64", 5, 0, false},              // i386 open
		{"amd64", 295, 0, false},            // i386 openat
		{"amd64", 8, 0, false},              // i386 creat
		{"amd64", 342, 0, false},            // i386 open_by_handle_at
		{"amd64", 1<<30 | 257, 0, false},    // x32 openat
		{"amd64", 59, 0, false},             // execve
		{"arm64", 56, 12, true},             // openat
		{"arm64", 265, 12, true},            // open_by_handle_at
		{"arm64", 437, 0, false},            // openat2
		{"arm64", 5, 0, false},              // arm open
		{"arm64", 322, 0, false},            // arm openat
		{"arm64", -1, 0, false},             // no creat there
		{"an unknown machine", 0, 0, false}, // no table
		{"an unknown machine", 2, 0, false}, // no table
	} {
		flags, known := tables[c.arch].openFlags(Syscall{Nr: c.nr, Args: args, OK: true})
		if flags != c.flags || known != c.known {
			t.Errorf("%s %d: %#x, %v", c.arch, c.nr, flags, known)
		}
	}
	if _, known := OpenFlags(Syscall{Nr: 257, Args: args}); known {
		t.Error("known outside of a system call")
	}
}

func TestOpensToWrite(t *testing.T) {
	for flags, want := range map[int]bool{
		unix.O_RDONLY: false, unix.O_RDONLY | unix.O_CLOEXEC: false, unix.O_WRONLY: true, unix.O_RDWR: true,
		unix.O_RDONLY | unix.O_TRUNC: true, unix.O_RDONLY | unix.O_CREAT: true, unix.O_ACCMODE: true,
	} {
		if got := OpensToWrite(flags); got != want {
			t.Errorf("%#x: %v", flags, got)
		}
	}
}

func TestParseStack(t *testing.T) {
	const (
		wait = "[<0>] fanotify_handle_event+0x1/0x2\n[<0>] fsnotify+0x1/0x2\n"
		from = "[<0>] do_execveat_common.isra.0+0x1/0x2\n[<0>] do_syscall_64+0x1/0x2\n[<0>] entry_SYSCALL_64_after_hwframe+0x1/0x2\n"
	)
	for _, c := range []struct {
		text    string
		loader  Loader
		blocked bool
	}{
		{wait + "[<0>] load_elf_binary+0x1/0x2\n" + from, LoaderELF, true},
		{wait + "[<0>] load_script+0x1/0x2\n" + from, LoaderScript, true},
		{wait + "[<0>] load_misc_binary+0x1/0x2 [binfmt_misc]\n" + from, LoaderScript, true},
		{wait + "[<0>] load_elf_binary.isra.0+0x1/0x2\n" + from, LoaderELF, true},
		{wait + "[<0>] load_elf_binary+0x1/0x2\n[<0>] el0_svc+0x1/0x2\n[<0>] el0t_64_sync+0x1/0x2\n", LoaderELF, true},
		// Before 5.8 a script's interpreter was loaded from within load_script.
		{wait + "[<0>] load_elf_binary+0x1/0x2\n[<0>] load_script+0x1/0x2\n" + from, LoaderELF, true},
		{wait + "[<0>] do_open_execat+0x1/0x2\n" + from, LoaderNone, true},
		{wait + "[<0>] xload_elf_binary+0x1/0x2\n" + from, LoaderNone, true},
		{"[<0>] load_elf_binary+0x1/0x2\n" + from, LoaderNone, false},
		{"[<0>] 0x0\n[<0>] 0x0\n", LoaderNone, false},
		// Cut off: by the buffer, or because the thread was waking up.
		{wait + "[<0>] load_elf_binary", LoaderNone, false},
		{wait + "[<0>] open_exec+0x1/0x2\n", LoaderNone, false},
		{wait, LoaderNone, false},
		{wait + "[<0>] load_script+0x1/0x2\n[<0>] do_syscall_64+0x1/0x2\n", LoaderNone, false},
		{"", LoaderNone, false},
	} {
		loader, blocked := parseStack([]byte(c.text))
		if loader != c.loader || blocked != c.blocked {
			t.Errorf("%q: %v, %v", c.text, loader, blocked)
		}
	}
}

func TestParseOpener(t *testing.T) {
	const (
		wait = "[<0>] fanotify_handle_event+0x1/0x2\n[<0>] do_sys_openat2+0x1/0x2\n"
		call = "[<0>] __x64_sys_openat+0x1/0x2\n[<0>] do_syscall_64+0x1/0x2\n[<0>] entry_SYSCALL_64_after_hwframe+0x1/0x2\n"
	)
	for _, c := range []struct {
		text         string
		own, blocked bool
	}{
		{wait + call, true, true},
		{wait + "[<0>] io_openat2+0x1/0x2\n[<0>] io_issue_sqe+0x1/0x2\n" + call, false, true},
		{wait + "[<0>] io_wq_worker+0x1/0x2\n[<0>] ret_from_fork+0x1/0x2\n[<0>] ret_from_fork_asm+0x1/0x2\n", false, true},
		{wait, true, false}, // cut off
		{call, true, false},
	} {
		if own, blocked := parseOpener([]byte(c.text)); own != c.own || blocked != c.blocked {
			t.Errorf("%q: %v, %v", c.text, own, blocked)
		}
	}
}

func TestUndelete(t *testing.T) {
	for _, c := range []struct {
		link    string
		links   uint32
		path    string
		deleted bool
	}{
		{"/a (deleted)", 0, "/a", true},
		{"/a (deleted)", 1, "/a (deleted)", false},
		{"/a", 1, "/a", false},
		{"/a (deleted) (deleted)", 0, "/a (deleted)", true},
	} {
		if path, deleted := undelete(c.link, c.links); path != c.path || deleted != c.deleted {
			t.Errorf("%q with %d links: %q, %v", c.link, c.links, path, deleted)
		}
	}
}

const (
	ownV2     = "0::/system.slice/x\n"
	ownHybrid = "9:name=systemd:/a\n8:pids:/b\n6:freezer:/c:d\n4:cpu,cpuacct,memory:/m\n0::/u\n"
	mountsV1  = "37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n" +
		"35 31 0:32 / /sys/fs/cgroup/mem\\040ory rw shared:9 - cgroup cgroup rw,cpu,cpuacct,memory\n" +
		"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)

func TestChooseHierarchy(t *testing.T) {
	for _, c := range []struct {
		name, own, mounts string
		want              Hierarchy
		path              string
	}{
		{
			"pure v2", ownV2, "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			Hierarchy{2, "", "/sys/fs/cgroup", "/"},
			"/system.slice/x",
		},
		{"hybrid", ownHybrid, mountsV1, Hierarchy{1, "freezer", "/sys/fs/cgroup/freezer", "/"}, "/c:d"},
		{
			"v1 without freezer", "9:name=systemd:/a\n4:cpu,cpuacct,memory:/m\n", mountsV1,
			Hierarchy{1, "memory", "/sys/fs/cgroup/mem ory", "/"},
			"/m",
		},
		{"named only", "1:name=systemd:/a\n0::/u\n", "", Hierarchy{1, "name=systemd", "", ""}, "/a"},
		{
			"a part of the tree comes second", ownV2,
			"1 1 0:26 /x /part rw - cgroup2 c rw\n2 1 0:26 / /whole rw - cgroup2 c rw\n",
			Hierarchy{2, "", "/whole", "/"},
			"/system.slice/x",
		},
		{"only a part of the tree", ownV2, "1 1 0:26 /system.slice /part rw - cgroup2 c rw\n", Hierarchy{2, "", "/part", "/system.slice"}, "/system.slice/x"},
	} {
		h, err := chooseHierarchy([]byte(c.own), []byte(c.mounts))
		if err != nil || h != c.want {
			t.Errorf("%s: %+v, %v", c.name, h, err)
			continue
		}
		if path, ok := h.find([]byte(c.own)); !ok || path != c.path {
			t.Errorf("%s: path %q, %v", c.name, path, ok)
		}
	}
	if h, err := chooseHierarchy(nil, nil); err == nil {
		t.Errorf("no cgroups: %+v", h)
	}
	part := Hierarchy{2, "", "/part", "/system.slice"}
	if dir := part.Dir("/system.slice/x"); dir != "/part/x" {
		t.Errorf("Dir = %q", dir)
	}
}

func TestSplitArgs(t *testing.T) {
	if got := splitArgs([]byte("sh\x00-c\x00\x00")); !slices.Equal(got, []string{"sh", "-c", ""}) {
		t.Errorf("%q", got)
	}
	if got := splitArgs(nil); got != nil {
		t.Errorf("%q", got)
	}
}

// A name is all that a program chooses in stat and status. Whatever it is, the
// other fields must come out as the kernel wrote them, and the name whole.
func FuzzName(f *testing.F) {
	for _, s := range []string{"sh", ") R 1", "a\nTgid:\t1\n", `\n\\`, "(", ")", " ", "a\n(b) S 1 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, comm string) {
		if len(comm) > 63 || strings.ContainsRune(comm, 0) {
			t.Skip()
		}
		pr, ok := parseStat(fmt.Appendf(nil, "7 (%s) S 3 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 99 0 0 0 0 0 777 0\n", comm))
		if !ok || pr != (Process{PID: 7, PPID: 3, StartTime: 99, Image: 777, Comm: comm}) {
			t.Errorf("stat: %+v, %v", pr, ok)
		}
		escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(comm)
		th, ok := parseStatus(fmt.Appendf(nil, status, escaped))
		if !ok || th != (Thread{TID: 71, TGID: 70, PPID: 3, UID: 1000, Comm: comm}) {
			t.Errorf("status: %+v, %v", th, ok)
		}
	})
}

// Any cgroup that the kernel would let somebody make comes out as it is named.
func FuzzCgroupPath(f *testing.F) {
	f.Add("/a", "/b")
	f.Add("/x:freezer:/y", "/0::/z")
	f.Fuzz(func(t *testing.T, other, path string) {
		if path == "" || strings.Contains(path+other, "\n") {
			t.Skip()
		}
		text := "9:name=freezer:" + other + "\n8:pids:" + other + "\n6:freezer:" + path + "\n0::" + other + "\n"
		got, ok := Hierarchy{Version: 1, Controller: "freezer"}.find([]byte(text))
		if !ok || got != path {
			t.Errorf("v1: %q, %v", got, ok)
		}
		got, ok = Hierarchy{Version: 2}.find([]byte(text))
		if ok != (other != "") || got != other {
			t.Errorf("v2: %q, %v", got, ok)
		}
	})
}

// Nothing may panic, and what is accepted must be what was written.
func FuzzKernelText(f *testing.F) {
	f.Add([]byte("257 0xffffff9c 0x7ffd 0x80000 0x0 0x0 0x6 0x7ffd 0x7f97\n"))
	f.Add([]byte("[<0>] fanotify_handle_event+0x1/0x2\n[<0>] load_elf_binary+0x1/0x2\n"))
	f.Add(fmt.Appendf(nil, status, "sh"))
	f.Add([]byte(ownHybrid + mountsV1))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseStat(b)
		parseStatus(b)
		_, _ = chooseHierarchy(b, b)
		splitArgs(b)
		if loader, blocked := parseStack(b); loader != LoaderNone && !blocked {
			t.Error("loader without fanotify")
		}
		if sys, ok := parseSyscall(b); ok && sys.OK {
			a := sys.Args
			want := fmt.Sprintf("%d %#x %#x %#x %#x %#x %#x", sys.Nr, a[0], a[1], a[2], a[3], a[4], a[5])
			if got := string(b); !strings.HasPrefix(got, want) && !hasLeadingZero(got) {
				t.Errorf("%q read as %q", got, want)
			}
		}
	})
}

// hasLeadingZero: the kernel writes none, but the parser need not mind.
func hasLeadingZero(s string) bool {
	for _, w := range strings.Fields(s) {
		w = strings.TrimPrefix(w, "0x")
		if len(w) > 1 && w[0] == '0' {
			return true
		}
	}
	return false
}
