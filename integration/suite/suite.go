// Package suite runs the tests of a package between a set-up and a tear-down that also happens when somebody interrupts
// them.
package suite

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// Main is for a TestMain, and does not return. Down is called whatever came before it; it must be prepared for an up
// that has failed or has not ended.
func Main(m *testing.M, name string, up, down func(context.Context) error) {
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := 0, error(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err = up(ctx); err == nil {
			code = m.Run()
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	cancel()
	if err = errors.Join(err, down(context.Background())); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		code = 1
	}
	os.Exit(code)
}
