// Command stockade-guard holds a shim's fanotify group and kills the shim's containers when the shim cannot decide any more.
// The shim starts it; see package guard.
package main

import "github.com/stockade-dev/stockade/shim/guard"

func main() { guard.Main() }
