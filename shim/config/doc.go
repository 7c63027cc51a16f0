// Package config reads the node configuration: one YAML file that says where
// this node keeps its profiles and incidents and what happens to a container
// for which there is no profile.
//
//	profiles: /etc/stockade/profiles.d
//	cluster: /var/lib/stockade/cluster.d
//	lastGood: /var/lib/stockade/last-good
//	incidents: /var/lib/stockade/incidents
//	state: /run/stockade
//	noProfile: refuse
//	incidentLimit: {count: 10000, bytes: 256MiB}
//	guard: ""
//	raiseLimits: true
//	selectionKey: /var/lib/stockade/selection.key
//	requirePlugin: false
//
// Every key may be left out; [Default] documents what then holds. What is
// there must be right: an unknown key, a relative path, a wrong unit or a
// second document is an error with file, line and column, and all of them are
// reported together.
//
// Which file is read is decided by [Path]: the one that was named (a flag),
// else $STOCKADE_CONFIG, else /etc/stockade/config.yaml. Only the last may be
// missing: a file that somebody named and that is not there is an error, so
// that a typing mistake never means "the defaults".
//
// noProfile decides whether an undeclared container runs, so a file that
// others than its owner may write, or that neither root nor the running user
// owns, is refused. The folders that lead to it are not looked at.
package config
