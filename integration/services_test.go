package integration_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
)

// The services as people run them, one for each profile in contrib/profiles.

const entrypoint = `#!/bin/sh
# Gives the data to the server's user, becomes that user, then the server.
set -e
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
	find . ! -user redis -exec chown redis {} +
	exec gosu redis "$0" "$@"
fi
umask 0077
exec "$@"
`

const pgEntrypoint = `#!/bin/sh
set -eu
if ! [ -s "$PGDATA/PG_VERSION" ]; then
	initdb --auth=trust --encoding=UTF8 --locale=C
fi
exec postgres -k /run/postgresql -c listen_addresses= "$@"
`

const webConf = `daemon off;
user www-data;
worker_processes 2;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
events { worker_connections 1024; }
http {
	include /etc/nginx/mime.types;
	access_log /dev/stdout;
	access_log /var/log/nginx/access.log;
	sendfile on;
	open_file_cache off;
	client_body_buffer_size 1k;
	client_body_temp_path /var/lib/nginx/body 1 2;
	client_max_body_size 16m;
	server {
		listen 8080;
		root /usr/share/nginx/html;
		location /upload/ {
			root /srv;
			dav_methods PUT DELETE MOVE;
			create_full_put_path on;
		}
	}
}
`

const report = `#!/bin/sh
# A day's work of a cron job, as often as it is told.
set -e
for round in $(seq 1 "$1"); do
	dir=$(mktemp -d)
	mkdir -p /report/old "$dir/sorted"
	cat /etc/passwd | grep -v nologin | cut -d: -f1,3 | sort >"$dir/sorted/users"
	mawk -F: '{ n += $2 } END { print n }' "$dir/sorted/users" >"$dir/sum"
	sed s/0/zero/ "$dir/sum" >"$dir/sum.new"
	mv "$dir/sum.new" "$dir/sum"
	n=$(expr "$round" '*' 7)
	if [ -e /report/latest ]; then cp /report/latest /report/old/"$n"; fi
	{ date; wc -l <"$dir/sorted/users"; cat "$dir/sum"; } >/report/new
	mv /report/new /report/latest
	rm -r "$dir"
	echo "round $round done"
done
`

func services() []image.Spec {
	system := []image.File{
		{Path: "/proc", Dir: true},
		{Path: "/sys", Dir: true},
		{Path: "/dev", Dir: true},
		{Path: "/run", Dir: true},
		{Path: "/tmp", Dir: true, Mode: 0o1777},
		{Path: "/root", Dir: true, Mode: 0o700},
		{Path: "/var/run", Link: "../run"},
		{Path: "/etc/passwd", Text: "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\n" +
			"postgres:x:70:70:postgres:/var/lib/postgresql:/bin/sh\nredis:x:999:999:redis:/data:/bin/sh\n" +
			"nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"},
		{Path: "/etc/group", Text: "root:x:0:\nwww-data:x:33:\npostgres:x:70:\nredis:x:999:\nnogroup:x:65534:\n"},
		{Path: "/etc/shadow", Mode: 0o600, Text: "root:*:19000:0:99999:7:::\n"},
		{Path: "/etc/nsswitch.conf", Text: "passwd: files\ngroup: files\nhosts: files\n"},
	}
	files := func(more ...image.File) []image.File { return append(append([]image.File{}, system...), more...) }
	// What packages depend on only to be installed or administered.
	installing := []string{
		"adduser", "base-files", "debconf", "debianutils", "dpkg", "gcc-12-base", "init-system-helpers", "libaudit-common",
		"libdb5.3", "libgdbm-compat4", "libgdbm6", "libpam-modules", "libpam-modules-bin", "libpam-runtime", "libperl5.36",
		"libsemanage-common", "libsemanage2", "libsepol2", "lsb-base", "passwd", "perl", "perl-base", "perl-modules-5.36",
		"sysvinit-utils", "tar", "usrmerge", "iproute2", "libbpf1", "libcap2-bin", "libelf1", "libmnl0", "libxtables12",
		"libtirpc3", "libtirpc-common", "libllvm14", "libz3-4", "locales", "locales-all", "postgresql-common", "ssl-cert",
		"postgresql-client-common", "openssl", "ucf", "sensible-utils", "libncurses6", "ncurses-bin",
		"ncurses-base", "netbase", "libjson-perl", "libproc-processtable-perl",
	}
	return []image.Spec{
		{
			Name:     "redis-entry",
			Packages: []string{"redis-server", "redis-tools", "dash", "coreutils", "findutils", "gosu"},
			Omit:     installing,
			Files: files(
				image.File{Path: "/usr/bin/redis-server", Move: "/usr/bin/redis-check-rdb"},
				image.File{Path: "/usr/bin/redis-check-rdb", Link: "redis-server"},
				image.File{Path: "/usr/local/bin/docker-entrypoint.sh", Mode: 0o755, Text: entrypoint},
				image.File{Path: "/data", Dir: true}),
			Config: v1.Config{
				Entrypoint: []string{"/usr/local/bin/docker-entrypoint.sh"},
				Cmd:        []string{"redis-server"}, WorkingDir: "/data",
			},
		},
		{
			Name:     "nginx-web",
			Packages: []string{"nginx", "dash"},
			Omit:     installing,
			Files: files(
				image.File{Path: "/etc/nginx/nginx.conf", Text: webConf},
				image.File{Path: "/usr/share/nginx/html/index.html", Text: "<!doctype html><title>nginx</title><p>It works.\n"},
				image.File{Path: "/usr/share/nginx/html/style.css", Text: "p { color: green }\n"},
				image.File{Path: "/var/log/nginx", Dir: true},
				image.File{Path: "/var/lib/nginx", Dir: true},
				image.File{Path: "/srv/upload", Dir: true, UID: 33}),
			Config: v1.Config{Cmd: []string{"/usr/sbin/nginx"}},
		},
		{
			Name:     "postgres",
			Packages: []string{"postgresql-15", "postgresql-client-15", "dash", "libc-bin"},
			Omit:     installing,
			Files: files(
				image.File{Path: "/usr/local/bin/pg-entrypoint.sh", Mode: 0o755, Text: pgEntrypoint},
				image.File{Path: "/run/postgresql", Dir: true, UID: 70},
				image.File{Path: "/var/lib/postgresql", Dir: true, UID: 70}),
			Config: v1.Config{
				Entrypoint: []string{"/usr/local/bin/pg-entrypoint.sh"},
				User:       "postgres", WorkingDir: "/var/lib/postgresql",
				Env: []string{"PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin", "PGDATA=/var/lib/postgresql/data", "PGHOST=/run/postgresql"},
			},
		},
		{
			Name:     "job",
			Packages: []string{"dash", "coreutils", "grep", "sed", "mawk"},
			Omit:     installing,
			Files:    files(image.File{Path: "/usr/local/bin/report.sh", Mode: 0o755, Text: report}),
			Config:   v1.Config{Entrypoint: []string{"/usr/local/bin/report.sh"}, Cmd: []string{"10"}},
		},
	}
}

// servicesReady imports the services' images into the shared node, once, and puts contrib's profiles into its store.
func servicesReady(t *testing.T) {
	t.Helper()
	if err := importServices(t); err != nil {
		t.Fatal(err)
	}
}

var servicesOnce struct {
	sync.Mutex
	done bool
}

func importServices(t *testing.T) error {
	servicesOnce.Lock()
	defer servicesOnce.Unlock()
	if servicesOnce.done {
		return nil
	}
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	profiles, err := filepath.Glob(filepath.Join(root, "contrib/profiles/*.yaml"))
	if err != nil {
		return err
	}
	for _, p := range profiles {
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(shared.ProfilesDir(), "contrib-"+filepath.Base(p)), data, 0o600); err != nil {
			return err
		}
	}
	builder := &image.Builder{Root: root, Log: os.Stderr}
	for _, s := range services() {
		img, err := builder.Build(t.Context(), s)
		if err != nil {
			return err
		}
		if err := shared.Import(t.Context(), img.Tar); err != nil {
			return err
		}
	}
	servicesOnce.done = true
	return nil
}
