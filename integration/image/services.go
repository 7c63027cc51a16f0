package image

import v1 "github.com/google/go-containerregistry/pkg/v1"

const redisEntrypoint = `#!/bin/sh
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

const reportScript = `#!/bin/sh
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

// Services are as people run them, one for each profile in contrib/profiles.
func Services() []Spec {
	base := []File{
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
	files := func(more ...File) []File { return append(append([]File{}, base...), more...) }
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
	return []Spec{
		{
			Name:     "redis-entry",
			Packages: []string{"redis-server", "redis-tools", "dash", "coreutils", "findutils", "gosu"},
			Omit:     installing,
			Files: files(
				File{Path: "/usr/bin/redis-server", Move: "/usr/bin/redis-check-rdb"},
				File{Path: "/usr/bin/redis-check-rdb", Link: "redis-server"},
				File{Path: "/usr/local/bin/docker-entrypoint.sh", Mode: 0o755, Text: redisEntrypoint},
				File{Path: "/data", Dir: true}),
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
				File{Path: "/etc/nginx/nginx.conf", Text: webConf},
				File{Path: "/usr/share/nginx/html/index.html", Text: "<!doctype html><title>nginx</title><p>It works.\n"},
				File{Path: "/usr/share/nginx/html/style.css", Text: "p { color: green }\n"},
				File{Path: "/var/log/nginx", Dir: true},
				File{Path: "/var/lib/nginx", Dir: true},
				File{Path: "/srv/upload", Dir: true, UID: 33}),
			Config: v1.Config{Cmd: []string{"/usr/sbin/nginx"}},
		},
		{
			Name:     "postgres",
			Packages: []string{"postgresql-15", "postgresql-client-15", "dash", "libc-bin"},
			Omit:     installing,
			Files: files(
				File{Path: "/usr/local/bin/pg-entrypoint.sh", Mode: 0o755, Text: pgEntrypoint},
				File{Path: "/run/postgresql", Dir: true, UID: 70},
				File{Path: "/var/lib/postgresql", Dir: true, UID: 70}),
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
			Files:    files(File{Path: "/usr/local/bin/report.sh", Mode: 0o755, Text: reportScript}),
			Config:   v1.Config{Entrypoint: []string{"/usr/local/bin/report.sh"}, Cmd: []string{"10"}},
		},
	}
}
