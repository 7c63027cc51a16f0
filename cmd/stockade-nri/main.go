// Command stockade-nri is the NRI plugin: it tells containerd which profile each container of a pod gets.
package main

import "os"

// version is set by the linker (-X main.version).
var version string

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
