package shim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

type key struct{}

func TestLingering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, hangUp := context.WithTimeout(context.WithValue(t.Context(), key{}, "namespace"), time.Second)
		defer hangUp()
		late, cancel := lingering(ctx)
		defer cancel()
		if _, ok := late.Deadline(); ok || late.Value(key{}) != "namespace" {
			t.Error("it has a deadline, or lacks a value")
		}
		time.Sleep(time.Second + linger - 1)
		synctest.Wait()
		if ctx.Err() == nil || late.Err() != nil {
			t.Errorf("%v, %v: the runtime is killed with the client's call", ctx.Err(), late.Err())
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if late.Err() == nil {
			t.Error("it lingers for ever")
		}
		ended, cancel := lingering(ctx)
		cancel()
		if ended.Err() == nil {
			t.Error("it does not end when it is done with")
		}
	})
}
