package cluster

import (
	"sync"

	"github.com/sirupsen/logrus"
)

// contact remembers whether the API server answers, and says so once for each
// change and not for each attempt.
type contact struct {
	log logrus.FieldLogger

	mu     sync.Mutex
	synced bool  // guarded by mu
	err    error // guarded by mu
}

func (c *contact) lost(err error) {
	c.mu.Lock()
	first := c.err == nil
	c.err = err
	c.mu.Unlock()
	if first {
		c.log.WithError(err).Warn("stockade: the API server does not answer for profiles; those of the last answer stay in use")
	}
}

func (c *contact) found() {
	c.mu.Lock()
	again := c.err != nil
	c.err = nil
	c.mu.Unlock()
	if again {
		c.log.Info("stockade: the API server answers again for profiles")
	}
}

func (c *contact) sync() {
	c.found()
	c.mu.Lock()
	c.synced = true
	c.mu.Unlock()
}

func (c *contact) state() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.synced, c.err
}
