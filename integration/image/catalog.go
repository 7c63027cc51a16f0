package image

import (
	"context"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Names are the images of the catalogue.
func Names() []string { return []string{"pause", "probe", "tools", "redis", "nginx", "demo-redis"} }

// Named builds an image of the catalogue, or one of Services.
func (b *Builder) Named(ctx context.Context, name string) (Image, error) {
	specs := map[string]func() Spec{"pause": pause, "probe": probe, "tools": tools, "redis": redis, "nginx": nginx, "demo-redis": demoRedis}
	spec, ok := specs[name]
	for _, s := range Services() {
		if s.Name == name {
			return b.Build(ctx, s)
		}
	}
	if !ok {
		return Image{}, fmt.Errorf("no image %q in the catalogue, which has %q", name, Names())
	}
	return b.Build(ctx, spec())
}

// pause is what the CRI starts in each pod's sandbox.
func pause() Spec {
	return Spec{
		Name:     "pause",
		Programs: []Program{{Path: "/pause", Sources: []string{"pause.c"}}},
		Config:   v1.Config{Entrypoint: []string{"/pause"}},
	}
}

var probeSources = []string{
	"probe/probe.h", "probe/main.c", "probe/file.c", "probe/exec.c", "probe/proc.c", "probe/sys.c", "probe/uring.c", "probe/ns.c", "probe/net.c", "probe/attack.c", "probe/batch.c",
}

func programs(dir string) []Program {
	return []Program{
		{Path: dir + "/probe", Sources: probeSources, Flags: []string{"-pthread"}},
		{Path: dir + "/hello", Sources: []string{"hello.c"}},
		{Path: dir + "/other", Sources: []string{"hello.c"}, Flags: []string{"-DOTHER"}},
		{Path: dir + "/dynamic", Sources: []string{"hello.c"}, Dynamic: true},
		{Path: dir + "/interp", Sources: []string{"interp.c"}},
		{Path: dir + "/preload.so", Sources: []string{"preload.c"}, Dynamic: true, Flags: []string{"-shared", "-fPIC"}},
	}
}

func scripts(dir, interpreter string) []File {
	return []File{
		{Path: dir + "/script", Mode: 0o755, Text: "#!" + interpreter + "\necho script ran\n"},
		{Path: dir + "/bare", Mode: 0o755, Text: "echo bare ran\n"},
	}
}

// probe holds static programs only, beside the dynamic one and what that needs: each process that a test sees is one
// that it asked for.
func probe() Spec {
	return Spec{
		Name:     "probe",
		Programs: programs("/bin"),
		Files:    append(system(), scripts("/bin", "/bin/interp")...),
		Config:   v1.Config{Cmd: []string{"/bin/probe", "sleep", "3600"}, WorkingDir: "/"},
	}
}

// tools is a small Debian with shells and interpreters: /bin is a link, and sh is /usr/bin/dash.
func tools() Spec {
	return Spec{
		Name:     "tools",
		Packages: []string{"dash", "bash", "coreutils", "grep", "sed", "mawk", "libc-bin", "perl-base", "python3-minimal"},
		Omit:     []string{"dpkg", "tar", "debianutils", "base-files", "gcc-12-base", "debconf"},
		Programs: programs("/usr/local/bin"),
		Files:    append(system(), scripts("/usr/local/bin", "/bin/sh")...),
		Config:   v1.Config{Cmd: []string{"/bin/sh"}, WorkingDir: "/"},
	}
}

// shell is what both services bring for people, and attackers, to type into; the attackers' other tool is probe.
var shell = []string{"dash", "coreutils", "libc-bin"}

var installerOnly = []string{
	"adduser", "base-files", "debconf", "debianutils", "dpkg", "gcc-12-base", "init-system-helpers", "libaudit-common",
	"libdb5.3", "libfile-find-rule-perl", "libgdbm-compat4", "libgdbm6", "libnumber-compare-perl", "libpam-modules",
	"libpam-modules-bin", "libpam0g", "libperl5.36", "libsemanage-common", "libsemanage2", "libsepol2",
	"libtext-glob-perl", "lsb-base", "passwd", "perl", "perl-base", "perl-modules-5.36", "sysvinit-utils", "tar", "usrmerge",
}

// redis runs redis-server as user redis with its data in /data, as the well-known image does. There and here
// redis-server is the program and redis-check-rdb a link to it; Debian has it the other way round.
func redis() Spec {
	return Spec{
		Name:     "redis",
		Packages: append([]string{"redis-server", "redis-tools"}, shell...),
		Omit:     installerOnly,
		Programs: programs("/usr/local/bin")[:1],
		Files: append(system(),
			File{Path: "/usr/bin/redis-server", Move: "/usr/bin/redis-check-rdb"},
			File{Path: "/usr/bin/redis-check-rdb", Link: "redis-server"},
			File{Path: "/data", Dir: true, UID: 999}),
		Config: v1.Config{
			User:       "redis",
			WorkingDir: "/data",
			Cmd:        []string{"/usr/bin/redis-server", "--dir", "/data", "--save", "", "--protected-mode", "no"},
		},
	}
}

// demoRedis is redis with a hole in it: a module that does over the network port what an intruder would.
func demoRedis() Spec {
	s := redis()
	s.Name = "demo-redis"
	s.Programs = append(s.Programs, Program{
		Path: "/usr/lib/redis/modules/diag.so", Sources: []string{"diag.c"}, Dynamic: true, Flags: []string{"-shared", "-fPIC"},
	})
	return s
}

const nginxConf = `daemon off;
user www-data;
worker_processes 2;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
events { worker_connections 1024; }
http {
	include /etc/nginx/mime.types;
	access_log /var/log/nginx/access.log;
	sendfile on;
	keepalive_requests 1000000;
	server {
		listen 8080;
		root /usr/share/nginx/html;
	}
}
`

// nginx serves static files on port 8080 with one master and two workers.
func nginx() Spec {
	return Spec{
		Name:     "nginx",
		Packages: append([]string{"nginx"}, shell...),
		Omit: append([]string{
			"iproute2", "libbpf1", "libcap2-bin", "libelf1", "libmnl0", "libxtables12", "libtirpc3", "libtirpc-common",
		}, installerOnly...),
		Programs: programs("/usr/local/bin")[:1],
		Files: append(system(),
			File{Path: "/etc/nginx/nginx.conf", Text: nginxConf},
			File{Path: "/usr/share/nginx/html/index.html", Text: "<!doctype html><title>nginx</title><p>It works.\n"},
			File{Path: "/var/log/nginx", Dir: true},
			File{Path: "/var/lib/nginx", Dir: true, UID: 33}),
		Config: v1.Config{Cmd: []string{"/usr/sbin/nginx"}},
	}
}

// system is what every root file system has.
func system() []File {
	return []File{
		{Path: "/proc", Dir: true},
		{Path: "/sys", Dir: true},
		{Path: "/dev", Dir: true},
		{Path: "/run", Dir: true},
		{Path: "/tmp", Dir: true, Mode: 0o1777},
		{Path: "/root", Dir: true, Mode: 0o700},
		{Path: "/home", Dir: true},
		{Path: "/var/tmp", Dir: true, Mode: 0o1777},
		{Path: "/var/run", Link: "../run"},
		{Path: "/var/lib/app", Dir: true},
		{Path: "/var/lib/app/state", Text: "state of the image\n"},
		{Path: "/etc/passwd", Text: "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\n" +
			"redis:x:999:999:redis:/data:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"},
		{Path: "/etc/group", Text: "root:x:0:\nwww-data:x:33:\nredis:x:999:\napp:x:1000:\nnogroup:x:65534:\n"},
		{Path: "/etc/shadow", Mode: 0o600, Text: "root:*:19000:0:99999:7:::\n"},
		{Path: "/etc/nsswitch.conf", Text: "passwd: files\ngroup: files\nhosts: files dns\n"},
		{Path: "/etc/app.conf", Text: "configuration of the image\n"},
	}
}
