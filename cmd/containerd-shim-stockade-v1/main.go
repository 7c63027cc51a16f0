// Command containerd-shim-stockade-v1 is the containerd shim for the runtime io.containerd.stockade.v1.
package main

import (
	"context"

	"github.com/stockade-dev/stockade/shim"
)

func main() { shim.Run(context.Background(), "io.containerd.stockade.v1") }
