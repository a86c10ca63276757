// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"sync"
	"time"
)

// maxStaged is how many bytes of lines wait in a recordStage.
const maxStaged = 64 << 10

// A recordStage keeps lines of messages that go the same way in a session on stdio, until those leave the proxy. Then all
// lines are numbered together: the lock for that, and what it protects, would else go back and forth between the
// processors of those who read from client and server, which takes longer than to make the lines.
type recordStage struct {
	mu    sync.Mutex   // protects following; taken before that of the Recorder
	text  []byte       // of the lines, but for how they begin
	lines []stagedLine // where they are in it
}

// A stagedLine is a line yet to be numbered.
type stagedLine struct {
	end int          // in the text
	own *PendingCall // gets the number; nil for nobody
	era string
	at  time.Time
}

// stage puts e, the line of m, with those that wait, and reports false where none can: s must have a client on stdio, or a
// process of its own, that says when it is about to get what waits.
func (r *Recorder) stage(s *Session, m *Message, e *Entry) bool {
	stages := s.stages.Load()
	if !r.Stages || stages == nil || r.Rules || m.Local || m.Dir == ToServer && r.HTTP || m.Dir == ToClient && r.Header.Client != "stdio" {
		return false
	}
	var room [256]byte
	fields := r.fields(s, e, room[:0])
	line := stagedLine{own: m.own, era: e.era, at: e.at}
	if m.own != nil {
		m.own.x.Store(e.X)
	}
	stage := &stages[m.Dir]
	stage.mu.Lock()
	stage.text = appendRest(append(stage.text, fields...), e)
	line.end = len(stage.text)
	stage.lines = append(stage.lines, line)
	much := line.end > maxStaged
	stage.mu.Unlock()
	if much {
		r.commit(s, m.Dir)
	}
	return true
}

// commit numbers the lines that wait of messages in direction d of s, which may be nil.
func (r *Recorder) commit(s *Session, d Direction) {
	if s == nil || s.stages.Load() == nil {
		return
	}
	stage := &s.stages.Load()[d]
	stage.mu.Lock()
	defer stage.mu.Unlock()
	if len(stage.lines) == 0 {
		return
	}
	start, dir := 0, d.String()
	r.mu.Lock()
	for _, line := range stage.lines {
		if seq := r.stamp(lineMsg, dir, line.era, line.at); seq != 0 {
			r.buf = append(r.buf, stage.text[start:line.end]...)
			if line.own != nil {
				line.own.seq.Store(seq)
			}
		}
		start = line.end
	}
	much := len(r.buf) > recordBuffer
	r.mu.Unlock()
	clear(stage.lines)
	stage.text, stage.lines = stage.text[:0], stage.lines[:0]
	if cap(stage.text) > 4*maxStaged {
		stage.text = nil
	}
	if much {
		r.Flush()
	}
}

// commitAll numbers all lines of s that wait, as those must that come before another.
func (r *Recorder) commitAll(s *Session) {
	r.commit(s, ToServer)
	r.commit(s, ToClient)
}
