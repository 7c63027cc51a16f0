// Command containerd-shim-stockade-v1 is the containerd shim for the runtime io.containerd.stockade.v1.
package main

import (
	"context"

	containerd "github.com/containerd/containerd/v2/pkg/shim"

	"github.com/stockade-dev/stockade/shim"
)

func main() {
	containerd.RunShim(context.Background(), shim.NewManager("io.containerd.stockade.v1"))
}
