package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/stockade-dev/stockade/shim/control/api"
	"github.com/stockade-dev/stockade/shim/state"
)

// atOnce bounds how many shims are asked at a time.
const atOnce = 16

// askShims asks every shim of this node, or those at the given sockets. What went wrong with one is said and stops
// nothing; a shim that has died is no error.
func askShims[T any](ctx context.Context, paths []string, ask func(context.Context, *api.Client) (T, error)) (answers []T, errs []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, path := range paths {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answer, err := askShim(ctx, path, ask)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				answers = append(answers, answer)
			case !api.IsGone(err):
				errs = append(errs, fmt.Errorf("shim at %s: %w", path, err))
			}
		})
	}
	wg.Wait()
	return answers, errs
}

func askShim[T any](ctx context.Context, path string, ask func(context.Context, *api.Client) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, api.Timeout)
	defer cancel()
	client, err := api.Dial(ctx, path)
	if err != nil {
		return answer, err
	}
	defer client.Close()
	return ask(ctx, client)
}

// statuses asks all shims what they protect, and returns their containers by namespace/ID.
func statuses(ctx context.Context, dir string) (map[string]*api.Container, []error) {
	paths, err := api.Sockets(dir)
	if err != nil {
		return nil, []error{err}
	}
	answers, errs := askShims(ctx, paths, func(ctx context.Context, c *api.Client) (*api.Status, error) { return c.Status(ctx) })
	all := map[string]*api.Container{}
	for _, s := range answers {
		for i := range s.Containers {
			all[s.Containers[i].Namespace+"/"+s.Containers[i].ID] = &s.Containers[i]
		}
	}
	return all, errs
}

func keyOf(t state.Task) string { return t.Namespace + "/" + t.ID }
