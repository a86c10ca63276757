// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	keepAlive    = 15 * time.Second // of silence before a comment is sent
	endTimeout   = time.Second      // for a client to read what is being written when its stream ends
	flushDelay   = time.Millisecond // for which a part of a stream waits for what mostly follows
	writeChunk   = 64 << 10         // bytes that a client must read within writeTimeout
	smallWrite   = 2 << 10          // bytes that net/http buffers
	streamRetry  = 1000             // milliseconds after which a client may come back
	primingSince = "2025-11-25"     // the first revision whose clients expect an event without data
)

// A httpStream is where the answer to one POST of a client goes, or what one GET asked for. Its
// form is the server's in front of an HTTP server. Else it is JSON if the first thing to send is
// the response and the client does not name event streams first, and server-sent events otherwise.
// A stream of a session with a command outlives its HTTP request: what comes while the client is
// away is kept for its return.
type httpStream struct {
	client  *httpClient
	session *Session
	done    chan struct{} // closed when nothing more will be sent
	flusher *flusher      // nil where no answer of an HTTP server is relayed

	stateless   bool     // 2026-07-28
	request     *Message // the only message of the POST, nil for a GET or a batch
	prefersSSE  bool
	standalone  bool // a GET's: it has no response to end with
	initializes bool

	mu       sync.Mutex // protects following, and is held while writing
	w        http.ResponseWriter
	awaiting int    // responses still to come
	number   int    // in event ids; 0 until there is one, except for the standalone stream
	started  bool   // the head is written
	relays   bool   // it is a server's
	sse      bool   // as server-sent events
	finished bool   // nothing more will be sent
	broken   bool   // the client must see that something is missing
	wrote    bool   // since the last keep-alive
	scratch  []byte // for events

	idle *time.Timer // for the next keep-alive; nil while no handler serves the stream, and in front of an HTTP server
	late bool        // something waits in flusher for more to come

	ctl sync.Mutex               // protects following; never held while writing
	rc  *http.ResponseController // nil while no handler serves the stream
	// extended is when the time to write began that is running: at first that of the HTTP server.
	extended time.Time
	left     chan struct{} // closed when another request takes the stream over
}

// Send writes m. A stream that is finished refuses it with errClosed.
func (x *httpStream) Send(m *Message) error {
	if m.Refusal != nil { // it may come from where nobody can wait
		x.lockSoon()
	} else {
		x.mu.Lock()
	}
	defer x.mu.Unlock()
	if x.finished {
		if m.Kind == Opaque {
			return nil
		}
		return errClosed
	}
	err := x.write(m)
	x.broken = x.broken || m.Refusal != nil && m.Refusal.Rule == "" && x.relays // its end is not the server's
	if m.Kind == Response {
		x.awaiting--
	}
	if m.Last && !x.batch() || x.awaiting == 0 && m.Kind == Response && m.Reply == nil {
		x.finish()
	}
	return err
}

// batch reports whether several messages were posted, whose answers share the stream.
func (x *httpStream) batch() bool { return x.request == nil && !x.standalone }

// write requires that x.mu is held, as all below do.
func (x *httpStream) write(m *Message) error {
	switch {
	case m.Reply != nil && (x.request != nil || x.standalone):
		return x.relay(m)
	case m.Kind == Opaque && m.Event == nil:
		return nil
	case m.Kind == Opaque:
		return x.pause(*m.Event)
	case x.started && !x.sse:
		x.broken = true
		x.finish()
		return errClosed
	case !x.started && m.Kind == Response && !x.batch() && (m.Refusal != nil || !x.prefersSSE && x.request != nil):
		return x.json(m)
	case m.Refusal != nil && m.Refusal.Bare:
		return nil
	}
	return x.event(m)
}

// bytes writes to the client, which has to read a part of it every now and then.
func (x *httpStream) bytes(b []byte) error {
	for len(b) > 0 {
		part := b[:min(len(b), writeChunk)]
		b = b[len(part):]
		x.extend()
		if _, err := x.w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// text does so with a string. It overwrites x.scratch.
func (x *httpStream) text(s string) error {
	if len(s) <= smallWrite {
		x.extend()
		_, err := io.WriteString(x.w, s)
		return err
	}
	for len(s) > 0 { // WriteString would pass it on in pieces of smallWrite
		part := s[:min(len(s), writeChunk)]
		s = s[len(part):]
		x.scratch = append(x.scratch[:0], part...)
		if err := x.bytes(x.scratch); err != nil {
			return err
		}
	}
	return nil
}

// extend gives the client time to read what is written next.
func (x *httpStream) extend() {
	x.ctl.Lock()
	defer x.ctl.Unlock()
	if now := time.Now(); x.rc != nil && now.Sub(x.extended) > writeTimeout/2 {
		x.extended = now
		x.rc.SetWriteDeadline(now.Add(writeTimeout))
	}
}

func (x *httpStream) flushLater() {
	if !x.late {
		x.late = true
		x.flusher.add(x)
	}
}

func (x *httpStream) flushNow() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.late && x.w != nil {
		x.flush()
	}
}

func (x *httpStream) flush() error {
	if x.late {
		x.late = false
		x.flusher.remove(x)
	}
	if x.w == nil {
		return errClosed
	}
	x.extend()
	return http.NewResponseController(x.w).Flush() // x.rc may be that of a request yet to take over
}

// finish ends the stream.
func (x *httpStream) finish() {
	if x.finished {
		return
	}
	x.finished = true
	if x.w != nil && !x.started && !x.broken {
		if x.awaiting > 0 { // a call that was cancelled: there is nothing to say
			x.begin(false)
		} else {
			x.started = true
			x.w.WriteHeader(http.StatusAccepted)
		}
	}
	x.client.forget(x)
	close(x.done)
}

// Abort lets the client see a broken stream.
func (x *httpStream) Abort() {
	x.ctl.Lock()
	if x.rc != nil {
		x.extended = time.Now() // so that no write extends it again
		x.rc.SetWriteDeadline(time.Unix(1, 0))
	}
	x.ctl.Unlock()
	x.mu.Lock() // a write that waited has failed by now
	defer x.mu.Unlock()
	x.broken = true
	x.finish()
}

// end finishes the stream.
func (x *httpStream) end() {
	x.lockSoon()
	defer x.mu.Unlock()
	x.finish()
}

// lockSoon locks x.mu. A write that waits for the client has a moment left.
func (x *httpStream) lockSoon() {
	if x.mu.TryLock() {
		return
	}
	x.ctl.Lock()
	if x.rc != nil {
		x.extended = time.Now()
		x.rc.SetWriteDeadline(x.extended.Add(endTimeout))
	}
	x.ctl.Unlock()
	x.mu.Lock()
}

// attach lets the stream be served by w. An earlier handler is sent away.
func (x *httpStream) attach(w http.ResponseWriter) (left chan struct{}) {
	x.ctl.Lock()
	defer x.ctl.Unlock()
	if x.left != nil {
		close(x.left)
		if x.rc != nil {
			x.rc.SetWriteDeadline(time.Unix(1, 0))
		}
	}
	x.rc, x.left, x.extended = http.NewResponseController(w), make(chan struct{}), time.Now()
	return x.left
}

// detach takes w away, after which no one writes to it. It reports whether the client must see
// that something is missing.
func (x *httpStream) detach(w http.ResponseWriter) (broken bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.broken {
		x.extend() // the end is still to be written
	}
	x.ctl.Lock()
	defer x.ctl.Unlock()
	if x.late {
		x.late = false
		x.flusher.remove(x)
	}
	if x.w == w {
		x.w, x.rc, x.left = nil, nil, nil
		if x.idle != nil {
			x.idle.Stop()
			x.idle = nil
		}
	}
	return x.broken
}

// serve waits until the stream is finished or r is given up.
func (x *httpStream) serve(r *http.Request, left <-chan struct{}) {
	select {
	case <-x.done:
	case <-left:
	case <-r.Context().Done():
	}
}

// keepAlives keeps the connection from looking idle until the handler that attached the stream is
// done with it. They have a timer, for the handler may be waiting for the server.
func (x *httpStream) keepAlives() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.idle != nil {
		x.idle.Stop()
	}
	x.idle = time.AfterFunc(keepAlive, x.keepAlive)
}

func (x *httpStream) keepAlive() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.finished || x.w == nil || x.idle == nil || x.started && !x.sse {
		return
	}
	if !x.started {
		x.begin(true)
	}
	if !x.wrote {
		x.text(": keep-alive\n\n")
	}
	x.flush()
	x.wrote = false
	x.idle.Reset(keepAlive)
}

// A flusher flushes what streams have waiting, a moment later, unless they have done so meanwhile. It
// has one timer for all of them, not one for each answer. The zero value is ready.
type flusher struct {
	mu    sync.Mutex // protects following
	late  map[*httpStream]struct{}
	armed bool
}

func (f *flusher) add(x *httpStream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.late == nil {
		f.late = map[*httpStream]struct{}{}
	}
	f.late[x] = struct{}{}
	if !f.armed {
		f.armed = true
		time.AfterFunc(flushDelay, f.flush)
	}
}

func (f *flusher) remove(x *httpStream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.late, x)
}

func (f *flusher) flush() {
	f.mu.Lock()
	late := f.late
	f.late, f.armed = nil, false
	f.mu.Unlock()
	for x := range late {
		go x.flushNow() // ends when its client reads, or has had its time
	}
}
