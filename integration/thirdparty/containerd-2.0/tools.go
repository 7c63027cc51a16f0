//go:build tools

// Package containerd pins the oldest containerd that Stockade is tested with.
package containerd

import _ "github.com/containerd/containerd/v2/cmd/containerd"
