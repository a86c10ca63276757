// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

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
		if err := x.text(strings.Repeat(m.Event.Frame, 1+btoi(m.twice()))); err != nil {
			return err
		}
	case x.sse && m.Kind != Opaque:
		e := Event{Retry: -1}
		if m.Event != nil {
			e = *m.Event
		}
		e.Data, e.HasData = m.Raw, true
		x.scratch = appendEvent(x.scratch[:0], e)
		if m.twice() {
			x.scratch = appendEvent(x.scratch, e)
		}
		if err := x.bytes(x.scratch); err != nil {
			return err
		}
	case m.Raw != "":
		if err := x.text(m.body()); err != nil {
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

// copyHead writes the head of a server's response: its status and those headers that are for the client.
func (x *httpStream) copyHead(m *Message) {
	h := x.w.Header()
	for name, values := range m.Reply.Header {
		switch name {
		case "Content-Type", "Www-Authenticate", "Retry-After", "Allow", "Cache-Control", "X-Accel-Buffering":
			h[name] = values
		case sessionHeader:
			// The server's own id stays between it and the proxy.
			x.name()
		default:
			if strings.HasPrefix(name, "Mcp-") {
				h[name] = values
			}
		}
	}
	x.sse, x.relays = isEventStream(m.Reply.Header), true
	if m.Reply.Whole {
		h["Content-Length"] = []string{strconv.Itoa(len(m.body()))}
	}
	x.started = true
	x.w.WriteHeader(m.Reply.Status)
}

// json writes a response that is all there is to say.
func (x *httpStream) json(m *Message) error {
	if x.w == nil {
		return errClosed
	}
	if m.Result != "" {
		x.name()
	}
	x.started = true
	if m.Refusal != nil {
		refusalHead(x.w.Header(), m.Refusal)
		if err := x.body(m.Refusal.status(), m.body()); err != nil || m.Refusal.Code != http.StatusGatewayTimeout {
			return err
		}
		return x.flush() // the handler may be waiting still, for a server that does not read
	}
	return x.body(x.status(m), m.body())
}

// body is the JSON of m, as often as it is to be sent: where nothing else separates messages, one line after the other.
func (m *Message) body() string {
	if m.twice() {
		return m.Raw + "\n" + m.Raw
	}
	return m.Raw
}

func (x *httpStream) body(status int, text string) error {
	jsonHead(x.w.Header(), text)
	x.w.WriteHeader(status)
	return x.text(text)
}

// name gives the session its id with the head of the answer to initialize.
func (x *httpStream) name() {
	if x.initializes && x.session.ID() == "" {
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
		if meta := member(x.request.Params, "_meta"); x.request.Revision == "" || member(meta, metaAbilities) == "" {
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
		if err := x.begin(m.Kind != Response); err != nil {
			return err
		}
		e.Retry = x.retry()
	}
	if m.twice() {
		if err := x.put(e); err != nil {
			return err
		}
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
	x.name() // whatever the answer will be: a head is written once
	x.started, x.sse = true, true
	x.w.WriteHeader(http.StatusOK)
	if prime && !x.standalone && x.client.keeps && x.session.Revision() >= primingSince {
		return x.put(Event{HasData: true, Retry: x.retry()})
	}
	return nil
}

// pause writes e, an event without a message, to say when to come back, up to 2025-11-25, to a stream that ends before
// its call. "If the server does close the connection prior to terminating the SSE stream, it SHOULD send an SSE event with a
// standard retry field before closing the connection."
func (x *httpStream) pause(e Event) error {
	if !x.started {
		if err := x.begin(false); err != nil {
			return err
		}
	}
	if x.w == nil || x.stateless {
		return nil
	}
	x.scratch = appendEvent(x.scratch[:0], e)
	return x.bytes(x.scratch)
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
	if err := x.bytes(x.scratch); err != nil {
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
