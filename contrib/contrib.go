// Package contrib holds what an admin copies, and gives `stockade install` what it writes to a node. The tests here read
// all of it, and README.md, with the parsers that will.
package contrib

import _ "embed"

// Config is the node configuration, every key with its default.
//
//go:embed config.yaml
var Config []byte

// Sysctl raises the number of fanotify groups.
//
//go:embed sysctl.d/90-stockade.conf
var Sysctl []byte

// Unit runs the NRI plugin under systemd. Its programs lie in /usr/local/bin.
//
//go:embed systemd/stockade-nri.service
var Unit []byte
