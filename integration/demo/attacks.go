package main

import (
	"strings"

	"github.com/stockade-dev/stockade/integration/node"
)

// attack is one thing that somebody who broke into the server tries.
type attack struct {
	title   string
	command []string // to the server, through the hole
	access  string   // the incident's
	object  string   // the incident's path or system call
	// happened looks for the effect that the attack would have had.
	happened func(reply string, root node.Rootfs) bool
}

// exists says whether the container's root has a file of that name that the image did not bring.
func exists(name string) func(string, node.Rootfs) bool {
	return func(_ string, root node.Rootfs) bool {
		_, changed, ok := root.Find(name)
		return ok && changed
	}
}

func replied(text string) func(string, node.Rootfs) bool {
	return func(reply string, _ node.Rootfs) bool { return strings.Contains(reply, text) }
}

var attacks = []attack{
	{
		title:   "a shell, started through the hole",
		command: []string{"diag.shell", "id > /data/pwned"},
		access:  "exec", object: "/usr/bin/dash",
		happened: exists("/data/pwned"),
	},
	{
		title:   "a program downloaded into /data, where writing is declared, and executed",
		command: []string{"diag.fetch", "/usr/local/bin/probe", "/data/miner"},
		access:  "exec", object: "/data/miner",
		happened: replied("the download ran"),
	},
	{
		title:   "reading /etc/shadow",
		command: []string{"diag.leak", "/etc/shadow"},
		access:  "read", object: "/etc/shadow",
		happened: replied("root:"),
	},
	{
		title:   "planting a cron job outside of the declared data",
		command: []string{"diag.plant", "/etc/crontab", "* * * * * root /data/miner"},
		access:  "write", object: "/etc/crontab",
		happened: exists("/etc/crontab"),
	},
	{
		title:   "a program executed from memory, with no file at all",
		command: []string{"diag.fileless", "/usr/local/bin/probe"},
		access:  "syscall", object: "memfd_create",
		happened: replied("ran from memory"),
	},
	{
		title:   "a system call that redis has no use for",
		command: []string{"diag.keyring"},
		access:  "syscall", object: "add_key",
		happened: replied("a key"),
	},
}
