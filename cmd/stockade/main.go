// Command stockade is what an admin asks: what this node can enforce, whether
// profiles are right and what they mean, what is protected, what happened.
package main

import "os"

// version is set by the linker (-X main.version).
var version string

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
