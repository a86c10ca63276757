// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/rand"
	"sync"
	"time"
)

// Sessions is the table of open sessions. All of them count, but only those with an id can be
// found. Make one with NewSessions.
type Sessions struct {
	bounds Bounds
	closed func(s *Session, reason error) // fails what the session still owes

	wg   sync.WaitGroup // of sessions that are ending
	mu   sync.Mutex     // protects following
	byID map[string]*Session
	open map[*Session]struct{}
	shut bool
}

// NewSessions makes an empty table. When a session ends, closed is called before its conns are
// closed.
func NewSessions(b Bounds, closed func(*Session, error)) *Sessions {
	return &Sessions{bounds: b, closed: closed, byID: map[string]*Session{}, open: map[*Session]struct{}{}}
}

// Open begins a session, or refuses when there are too many.
func (t *Sessions) Open(client Conn, user string, transient bool) (*Session, error) {
	now := time.Now()
	s := &Session{Transient: transient, User: user, table: t, client: client, opened: now, used: now}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut {
		return nil, &Error{Code: 503, Text: "shutting down", RetryAfter: time.Second}
	}
	if len(t.open) >= t.bounds.Sessions {
		return nil, &Error{Code: 503, Text: "too many sessions", RetryAfter: time.Second}
	}
	t.open[s] = struct{}{}
	return s, nil
}

// Name gives s an id of 128 random bits under which Get finds it, and returns it. A session that
// has ended gets none.
func (t *Sessions) Name(s *Session) string {
	id := rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.open[s]; !ok {
		return ""
	}
	t.byID[id] = s
	s.mu.Lock()
	s.id = id
	if s.timer == nil || s.timer.Stop() { // set for initialize it may be late; fired, it arms the next
		s.timer = nil
		s.arm(time.Now())
	}
	s.mu.Unlock()
	return id
}

// Get finds a session by its id. Another user's session is not found.
func (t *Sessions) Get(id, user string) *Session {
	t.mu.Lock()
	s := t.byID[id]
	t.mu.Unlock()
	if s == nil || s.User != user {
		return nil
	}
	return s
}

// End closes all that s has: calls, streams, conns and with them the server's child. It may be
// called more than once; it does not wait for the server's end, Wait does.
func (t *Sessions) End(s *Session, reason error) {
	t.mu.Lock()
	if _, ok := t.open[s]; !ok {
		t.mu.Unlock()
		return
	}
	delete(t.open, s)
	s.mu.Lock()
	delete(t.byID, s.id)
	if s.reason == nil {
		s.reason = reason
	}
	s.ended, reason = true, s.reason
	if s.over != nil {
		close(s.over)
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	server := s.server
	s.mu.Unlock()
	t.wg.Add(1)
	t.mu.Unlock()

	t.closed(s, reason)
	s.client.Close()
	if server == nil || s.Transient {
		if server != nil {
			server.Close()
		}
		t.wg.Done()
		return
	}
	go func() { // ends with the server, which its Close bounds
		defer t.wg.Done()
		server.Close()
	}()
}

// EndAll ends every session and lets no other begin.
func (t *Sessions) EndAll(reason error) {
	t.mu.Lock()
	t.shut = true
	all := make([]*Session, 0, len(t.open))
	for s := range t.open {
		all = append(all, s)
	}
	t.mu.Unlock()
	for _, s := range all {
		t.End(s, reason)
	}
}

// Refuse lets no other session begin; those that are open go on.
func (t *Sessions) Refuse() {
	t.mu.Lock()
	t.shut = true
	t.mu.Unlock()
}

// Wait returns when every session that was ended has closed its server.
func (t *Sessions) Wait() { t.wg.Wait() }

// Quiet waits until no call of a client is in flight, or ctx ends.
func (t *Sessions) Quiet(ctx context.Context) {
	t.mu.Lock()
	all := make([]*Session, 0, len(t.open))
	for s := range t.open {
		all = append(all, s)
	}
	t.mu.Unlock()
	for _, s := range all {
		select {
		case <-s.Quiet():
		case <-ctx.Done():
			return
		}
	}
}
