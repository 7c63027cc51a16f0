package apparmor_test

import (
	"testing"

	"github.com/stockade-dev/stockade/profiles/apparmor"
)

// compile builds a policy and returns the automaton of the container's profile.
func compile(t *testing.T, p apparmor.Policy) (*apparmor.Text, *automaton) {
	t.Helper()
	p.ABI = "3.0"
	text, err := apparmor.Build(p)
	if err != nil {
		t.Fatal(err)
	}
	out, err := parse(t, text.Body)
	if err != nil {
		t.Fatalf("%v\n%s", err, text.Body)
	}
	all, err := automata(out)
	if err != nil {
		t.Fatal(err)
	}
	return text, all[text.Name]
}

func ruled(texts ...string) (list []apparmor.Rule) {
	for _, text := range texts {
		list = append(list, apparmor.Rule{Text: text})
	}
	return list
}

// TestImageProgramsAreNotFilesToRead: that all programs of the image may be executed lets none of its files be read.
func TestImageProgramsAreNotFilesToRead(t *testing.T) {
	_, a := compile(t, apparmor.Policy{Allow: apparmor.Rules{Exec: ruled(apparmor.Image), Read: ruled("/lib/**")}})
	for path, want := range map[string]uint32{
		"/etc/shadow":  mayExec,
		"/vol/secret":  mayExec,
		"/lib/libc.so": mayExec | mayRead,
		"/proc/kcore":  0,
	} {
		if got := a.perms(path) & (mayExec | mayRead); got != want {
			t.Errorf("%s: %#x, want %#x", path, got, want)
		}
	}
}

// TestMapped: what is mapped executable, by rules and path.
func TestMapped(t *testing.T) {
	image := ruled(apparmor.Image)
	tests := []struct {
		name            string
		rules           apparmor.Rules
		mapped, refused []string
	}{
		{
			name:    "reading maps, but what is written to",
			rules:   apparmor.Rules{Exec: ruled("/bin/x"), Read: ruled("/**"), Write: ruled("/data/**", "/run/pid")},
			mapped:  []string{"/lib/libc.so", "/bin/x"},
			refused: []string{"/data/x", "/data/a/b", "/run/pid", "/dev/shm/x", "/dev/shm/a/b"},
		},
		{
			name:    "a program among what is written to",
			rules:   apparmor.Rules{Exec: ruled("/data/bin/x"), Read: image, Write: ruled("/data/**", "/var/**")},
			mapped:  []string{"/data/lib.so", "/lib/libc.so"},
			refused: []string{"/var/x"},
		},
		{
			name:    "shared memory is written to",
			rules:   apparmor.Rules{Exec: image, Read: ruled("/**"), Write: ruled("/dev/shm/**")},
			mapped:  []string{"/lib/libc.so"},
			refused: []string{"/dev/shm/x", "/dev/shm/a/b"},
		},
		{
			name:    "shared memory is read",
			rules:   apparmor.Rules{Exec: image, Read: ruled("/dev/shm/**")},
			mapped:  []string{"/lib/libc.so"},
			refused: []string{"/dev/shm/x", "/dev/shm/a/b"},
		},
		{
			name:   "a program in shared memory",
			rules:  apparmor.Rules{Exec: ruled("/dev/shm/x"), Write: ruled("/dev/shm/**")},
			mapped: []string{"/dev/shm/x"},
		},
		{
			name:    "devices, and shared memory among them",
			rules:   apparmor.Rules{Read: ruled("/**"), Write: ruled("/dev/zero", "/dev/pts/*", "/dev/shm/pool")},
			mapped:  []string{"/dev/zero", "/dev/pts/0"},
			refused: []string{"/dev/shm/pool", "/dev/shm/other"},
		},
		{
			name:    "each root of a pattern for itself",
			rules:   apparmor.Rules{Exec: ruled("/opt/x"), Read: ruled("/**"), Write: ruled("/{data,dev/pts,opt,dev/shm/a}/**")},
			mapped:  []string{"/dev/pts/0", "/opt/lib.so"},
			refused: []string{"/data/x", "/data/a/b", "/dev/shm/a/x"},
		},
		{
			name:    "programs of the image where everything is written to",
			rules:   apparmor.Rules{Exec: image, Read: image, Write: ruled("/**")},
			mapped:  []string{"/lib/libc.so", "/bin/x", "/opt/app/plugin.so"},
			refused: []string{"/dev/shm/x"},
		},
		{
			name:    "and where one directory is",
			rules:   apparmor.Rules{Exec: image, Read: image, Write: ruled("/data/**")},
			mapped:  []string{"/lib/libc.so"},
			refused: []string{"/data/x"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text, a := compile(t, apparmor.Policy{Allow: tt.rules})
			for _, path := range tt.mapped {
				if a.perms(path)&mayMap == 0 {
					t.Errorf("%s is not mapped\n%s", path, text.Body)
				}
			}
			for _, path := range tt.refused {
				if a.perms(path)&mayMap != 0 {
					t.Errorf("%s is mapped\n%s", path, text.Body)
				}
			}
		})
	}
}

// TestHugePages: anonymous memory of huge pages is a file "/" of whoever asked for it. Java keeps its code in some.
func TestHugePages(t *testing.T) {
	_, a := compile(t, apparmor.Policy{})
	const want = mayRead | mayWrite | mayMap
	if got := a.owned("/") & want; got != want {
		t.Errorf("the owner has %#x", got)
	}
	if got := a.perms("/") & want; got != mayRead {
		t.Errorf("others have %#x", got)
	}
}

// TestSignalsForEverybody: kill(-1) by a container's first process reaches the runtime's own, which sets an exec session
// up. It does not go through, and nobody is to die of it. What is confined by somebody else's profile is another matter.
func TestSignalsForEverybody(t *testing.T) {
	const class, sigkill, send = "\x0a", "\x09", 2 // security/apparmor/include/apparmor.h, sig_names.h, perms.h
	for _, tt := range []struct {
		mode            apparmor.Mode
		label           string
		allowed, silent bool
	}{
		{apparmor.Enforce, "unconfined", false, true},
		{apparmor.Kill, "runc", false, true},
		{apparmor.Kill, "docker-default", false, false},
		{apparmor.Kill, "stockade.x.0123456789ab.0000000000000000//session", true, false},
		{apparmor.Complain, "runc", true, false},
		{apparmor.Complain, "docker-default", false, false},
	} {
		text, err := apparmor.Build(apparmor.Policy{Mode: tt.mode, ABI: "3.0"})
		if err != nil {
			t.Fatal(err)
		}
		out, err := parse(t, text.Body)
		if err != nil {
			t.Fatal(err)
		}
		all, err := others(out)
		if err != nil {
			t.Fatal(err)
		}
		a := all[text.Name]
		at := a.state(class + sigkill + tt.label)
		allowed, silent := a.accept[at]&send != 0, a.accept2[at]>>7&send != 0
		if allowed != tt.allowed || silent != tt.silent {
			t.Errorf("%s, to %s: allowed %v, refused in silence %v", tt.mode, tt.label, allowed, silent)
		}
	}
}
