//go:build tools

// Package runc pins the runc that Stockade's tests, demo and benchmarks run against.
package runc

import _ "github.com/opencontainers/runc"
