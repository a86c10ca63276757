// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"sync"
)

// maxHeard is how many notifications and requests of a server may wait to be looked at; further ones are refused.
const maxHeard = 10000

// A verifyConn is the client's end of a conversation: it keeps what comes until it is asked for, so that no server waits
// for a client that writes.
type verifyConn struct {
	wake chan struct{} // holds a value when something came since the last look

	mu     sync.Mutex // protects following
	heard  []*Message
	closed bool
}

func (c *verifyConn) Send(_ context.Context, m *Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Kind != Response && (len(c.heard) >= maxHeard || c.closed) {
		return errClosed
	}
	c.heard = append(c.heard, m)
	c.awake()
	return nil
}

func (c *verifyConn) Flush() error { return nil }

func (c *verifyConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.awake()
	return nil
}

func (c *verifyConn) awake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// next waits for a message. It returns errClosed when none can come any more.
func (c *verifyConn) next(ctx context.Context) (*Message, error) {
	for {
		c.mu.Lock()
		if len(c.heard) > 0 {
			m := c.heard[0]
			c.heard = c.heard[1:]
			c.mu.Unlock()
			return m, nil
		}
		closed := c.closed
		c.mu.Unlock()
		if closed {
			return nil, errClosed
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
