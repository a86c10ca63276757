// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	keepAlive    = 15 * time.Second // of silence before a comment is sent
	endTimeout   = time.Second      // for a client to read what is being written when its stream ends
	flushDelay   = time.Millisecond // for which a part of a stream waits for what mostly follows
	writeChunk   = 256 << 10        // bytes that a client must read within writeTimeout
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

	idle  *time.Timer // for the next keep-alive; nil while no handler serves the stream, and in front of an HTTP server
	later *time.Timer // flushes what waits for more to come; nil if nothing does

	ctl sync.Mutex               // protects following; never held while writing
	rc  *http.ResponseController // nil while no handler serves the stream
	// extended is when the time to write began that is running: at first that of the HTTP server.
	extended time.Time
	left     chan struct{} // closed when another request takes the stream over
}

// Send writes m. A stream that is finished refuses it with errClosed.
func (x *httpStream) Send(m *Message) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.finished {
		if m.Kind == Opaque {
			return nil
		}
		return errClosed
	}
	err := x.write(m)
	x.broken = x.broken || m.Refusal != nil && x.relays // its end is not the server's
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
	case m.Kind == Opaque:
		return nil
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

// relay writes what came in an HTTP response as it came.
func (x *httpStream) relay(m *Message) error {
	if x.w == nil {
		return errClosed
	}
	if m.Refusal != nil { // the server's stream broke off
		return x.flush()
	}
	if !x.started {
		x.copyHead(m)
	}
	x.wrote = true
	switch {
	case m.Event != nil && m.Event.Frame != "":
		if err := x.text(m.Event.Frame); err != nil {
			return err
		}
	case x.sse && m.Kind != Opaque:
		e := Event{Retry: -1}
		if m.Event != nil {
			e = *m.Event
		}
		e.Data, e.HasData = m.Raw, true
		x.scratch = appendEvent(x.scratch[:0], e)
		if err := x.text(string(x.scratch)); err != nil {
			return err
		}
	case m.Raw != "":
		if err := x.text(m.Raw); err != nil {
			return err
		}
	}
	switch {
	case m.Reply.Whole || m.Last:
		return nil // the end of the handler flushes
	case m.Raw == "" && m.Event == nil, m.Kind == Response && !x.standalone:
		// The head and the first event, or the response and the end, mostly come together.
		x.flushLater()
		return nil
	}
	return x.flush()
}

// fail ends the answer to a GET with e, or breaks it off if it has begun.
func (x *httpStream) fail(e *Error) {
	x.mu.Lock()
	started := x.started
	x.mu.Unlock()
	m := e.answer("")
	if started {
		m = &Message{Reply: &Reply{}, Refusal: e, Last: true}
	}
	x.Send(m)
}

// text writes to the client, which has to read a part of it every now and then.
func (x *httpStream) text(s string) error {
	for len(s) > 0 {
		part := s[:min(len(s), writeChunk)]
		s = s[len(part):]
		x.extend()
		if _, err := io.WriteString(x.w, part); err != nil {
			return err
		}
	}
	return nil
}

// extend gives the client time to read what is written next, and returns what to flush it with,
// nil if no handler serves the stream.
func (x *httpStream) extend() *http.ResponseController {
	x.ctl.Lock()
	defer x.ctl.Unlock()
	if now := time.Now(); x.rc != nil && now.Sub(x.extended) > writeTimeout/2 {
		x.extended = now
		x.rc.SetWriteDeadline(now.Add(writeTimeout))
	}
	return x.rc
}

func (x *httpStream) flushLater() {
	if x.later == nil {
		x.later = time.AfterFunc(flushDelay, x.flushNow)
	}
}

func (x *httpStream) copyHead(m *Message) {
	h := x.w.Header()
	for name, values := range m.Reply.Header {
		switch name {
		case "Content-Type", "Www-Authenticate", "Retry-After", "Allow", "Cache-Control", "X-Accel-Buffering":
			h[name] = values
		case sessionHeader:
			// The server's own id stays between it and the proxy.
			if x.initializes && x.session.ID() == "" {
				if id := x.session.table.Name(x.session); id != "" {
					h[sessionHeader] = []string{id}
				}
			}
		default:
			if strings.HasPrefix(name, "Mcp-") {
				h[name] = values
			}
		}
	}
	x.sse, x.relays = isEventStream(m.Reply.Header), true
	if m.Reply.Whole {
		h["Content-Length"] = []string{strconv.Itoa(len(m.Raw))}
	}
	x.started = true
	x.w.WriteHeader(m.Reply.Status)
}

func (x *httpStream) flushNow() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.later != nil && x.w != nil {
		x.flush()
	}
}

func (x *httpStream) flush() error {
	if x.later != nil {
		x.later.Stop()
		x.later = nil
	}
	rc := x.extend()
	if rc == nil {
		return errClosed
	}
	return rc.Flush()
}

// json writes a response that is all there is to say.
func (x *httpStream) json(m *Message) error {
	if x.w == nil {
		return errClosed
	}
	x.name(m)
	x.started = true
	if m.Refusal != nil {
		refusalHead(x.w.Header(), m.Refusal)
		return x.body(m.Refusal.status(), m.Raw)
	}
	return x.body(x.status(m), m.Raw)
}

func (x *httpStream) body(status int, text string) error {
	jsonHead(x.w.Header(), text)
	x.w.WriteHeader(status)
	return x.text(text)
}

// name gives the session its id with the answer to initialize.
func (x *httpStream) name(m *Message) {
	if x.initializes && m.Result != "" && x.session.ID() == "" && x.w != nil {
		if id := x.session.table.Name(x.session); id != "" {
			x.w.Header()[sessionHeader] = []string{id}
		}
	}
}

// status is the HTTP status that MCP 2026-07-28 prescribes for a command's answer. A missing piece
// of _meta is the client's fault as a header would be; other invalid params are not HTTP's matter.
func (x *httpStream) status(m *Message) int {
	if m.Error == "" || !x.stateless {
		return http.StatusOK
	}
	switch member(m.Error, "code") {
	case "-32601":
		return http.StatusNotFound
	case "-32020", "-32021", "-32022":
		return http.StatusBadRequest
	case "-32602":
		if meta := member(x.request.Params, "_meta"); x.request.Revision == "" ||
			member(meta, "io.modelcontextprotocol/clientCapabilities") == "" {
			return http.StatusBadRequest
		}
	}
	return http.StatusOK
}

// event writes m as a server-sent event.
func (x *httpStream) event(m *Message) error {
	e := Event{Data: m.Raw, HasData: true, Retry: -1}
	if m.Newlines { // else each line would become a data field
		e.Data = strings.Map(func(r rune) rune {
			if r == '\n' || r == '\r' {
				return ' '
			}
			return r
		}, m.Raw)
	}
	if !x.started {
		x.name(m)
		if err := x.begin(m.Kind != Response); err != nil {
			return err
		}
		e.Retry = x.retry()
	}
	return x.put(e)
}

func (x *httpStream) retry() int {
	if x.stateless {
		return -1
	}
	return streamRetry
}

// begin starts a stream of events. One that does not begin with its response begins with an event
// that has an id and no data, so that a client which loses the connection at once can come back.
func (x *httpStream) begin(prime bool) error {
	if x.w == nil {
		return errClosed
	}
	h := x.w.Header()
	h["Content-Type"] = []string{"text/event-stream"}
	h["Cache-Control"] = []string{"no-cache, no-transform"}
	h["X-Accel-Buffering"] = []string{"no"}
	x.started, x.sse = true, true
	x.w.WriteHeader(http.StatusOK)
	if prime && !x.standalone && x.client.keeps && x.session.Revision() >= primingSince {
		return x.put(Event{HasData: true, Retry: x.retry()})
	}
	return nil
}

// put writes one event, and keeps it for a client that may come back for it.
func (x *httpStream) put(e Event) error {
	kept := false
	if x.client.keeps {
		e.HasID = true
		x.scratch, kept = x.client.keep(x, e)
	} else {
		x.scratch = appendEvent(x.scratch[:0], e)
	}
	x.wrote = true
	if x.w == nil {
		if kept {
			return nil
		}
		return errClosed
	}
	if err := x.text(string(x.scratch)); err != nil {
		return lostUnless(kept, err)
	}
	if cap(x.scratch) > 1<<20 {
		x.scratch = nil
	}
	return lostUnless(kept, x.flush())
}

func lostUnless(kept bool, err error) error {
	if kept {
		return nil
	}
	return err
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

// end finishes the stream. A write that waits for the client has a moment left.
func (x *httpStream) end() {
	if !x.mu.TryLock() {
		x.ctl.Lock()
		if x.rc != nil {
			x.extended = time.Now()
			x.rc.SetWriteDeadline(x.extended.Add(endTimeout))
		}
		x.ctl.Unlock()
		x.mu.Lock()
	}
	defer x.mu.Unlock()
	x.finish()
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
	if x.later != nil {
		x.later.Stop()
		x.later = nil
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

// jsonHead says that text is the whole body.
func jsonHead(h http.Header, text string) {
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
}

// refusalHead sets the headers of the answer with which e refuses.
func refusalHead(h http.Header, e *Error) {
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	if e.Code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
}
