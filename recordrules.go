// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"time"
)

// Changed is the interceptor on the other side of the rules: it records what they made of a message to the client, which
// Intercept has recorded as it came.
func (r *Recorder) Changed(_ context.Context, s *Session, m *Message) (*Message, error) {
	if m.Dir == ToClient && m.Ruled != nil && m.Ruled.Was != nil && !m.Ruled.Broken {
		e := r.entry(s, m)
		e.Rule, e.Was, e.at = m.Ruled.Rule, m.Ruled.line, time.Time{} // it may have been held since
		r.add(s, &e)
	}
	return m, nil
}

// Noted records what rules did with m that does not show in what becomes of it. One to the server goes no further.
func (r *Recorder) Noted(s *Session, m *Message, list []RuleNote) {
	seq := int64(0)
	if m.Ruled != nil {
		seq = m.Ruled.line
	}
	if m.Dir == ToServer {
		e := r.entry(s, m)
		e.Local, e.Via, e.Headers = true, "", ""
		seq = r.add(s, &e)
		if m.own != nil {
			m.own.seq.Store(seq)
		}
	}
	r.notes(s, m, seq, list)
}

// notes writes a line for each of list about the message of line seq.
func (r *Recorder) notes(s *Session, m *Message, seq int64, list []RuleNote) {
	for _, n := range list {
		e := r.entry(s, m)
		if m.Dir == ToClient && e.X == 0 {
			e.X = e.Re
		}
		r.add(s, &Entry{Kind: lineRule, Dir: e.Dir, X: e.X, Re: seq, Rule: n.Rule, Text: n.What})
	}
}

// lined notes the number of the line of m, which nobody else has yet.
func (m *Message) lined(seq int64) {
	if m.Ruled == nil {
		m.Ruled = &Ruled{}
	}
	m.Ruled.line = seq
}
