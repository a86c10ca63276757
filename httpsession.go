// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

const (
	maxQueued    = 64 // messages that wait for a GET stream
	maxKept      = 256
	maxKeptBytes = 1 << 20
)

var errNotListening = errors.New("client has no stream open and too much waits for it")

// A httpClient is a client over HTTP: the streams of its session. With keeps set, for sessions in
// front of a command, it keeps what it sent so that a client can come back for it.
type httpClient struct {
	keeps bool

	mu      sync.Mutex // protects following; never held while writing
	closed  bool
	get     *httpStream                        // for what belongs to no call; nil if none is open
	streams map[int]*httpStream                // with a number, still open
	cancels map[*httpStream]context.CancelFunc // of GETs that the server answers
	queue   []*Message                         // until there is a get
	kept    []keptEvent                        // oldest first
	bytes   int                                // in kept
	number  int                                // of the last stream
	seq     uint64                             // of the last event
}

// A keptEvent is an event that was sent.
type keptEvent struct {
	number int
	seq    uint64
	frame  string
}

// Send passes m on the stream it belongs to, or else on the GET stream, for which it waits in a
// queue.
func (c *httpClient) Send(_ context.Context, m *Message) error {
	if m.Stream != nil {
		err := m.Stream.Send(m)
		if err != errClosed || m.Kind == Response || !c.keeps {
			return err
		}
	}
	c.mu.Lock()
	get := c.get
	if get == nil {
		defer c.mu.Unlock()
		if c.closed || !c.keeps {
			return errClosed
		}
		if len(c.queue) >= maxQueued {
			return errNotListening
		}
		c.queue = append(c.queue, m)
		return nil
	}
	c.mu.Unlock()
	return get.Send(m)
}

func (c *httpClient) Flush() error { return nil }

// Close ends all streams.
func (c *httpClient) Close() error {
	c.mu.Lock()
	c.closed = true
	open := make([]*httpStream, 0, len(c.streams)+1)
	for _, x := range c.streams {
		open = append(open, x)
	}
	if c.get != nil {
		open = append(open, c.get)
	}
	for _, cancel := range c.cancels {
		cancel()
	}
	c.mu.Unlock()
	for _, x := range open {
		x.end()
	}
	return nil
}

// track notes a GET that the server answers, so that Close can end it. It reports false when the
// session is over.
func (c *httpClient) track(x *httpStream, cancel context.CancelFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancels == nil {
		c.cancels = map[*httpStream]context.CancelFunc{}
	}
	c.cancels[x] = cancel
	return !c.closed
}

// forget drops a stream that is finished.
func (c *httpClient) forget(x *httpStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, x.number)
	delete(c.cancels, x)
	if c.get == x {
		c.get = nil
	}
}

// keep gives e an id, keeps it and returns its bytes. kept is false if it is too large for that.
func (c *httpClient) keep(x *httpStream, e Event) (frame []byte, kept bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.number == 0 && !x.standalone {
		c.number++
		x.number = c.number
		if c.streams == nil {
			c.streams = map[int]*httpStream{}
		}
		c.streams[x.number] = x
	}
	c.seq++
	e.ID = strconv.Itoa(x.number) + "_" + strconv.FormatUint(c.seq, 10)
	frame = appendEvent(x.scratch[:0], e)
	if len(frame) > maxKeptBytes {
		return frame, false
	}
	c.kept = append(c.kept, keptEvent{x.number, c.seq, string(frame)})
	c.bytes += len(frame)
	for len(c.kept) > maxKept || c.bytes > maxKeptBytes {
		c.bytes -= len(c.kept[0].frame)
		c.kept[0].frame = ""
		c.kept = c.kept[1:]
	}
	return frame, true
}

// parseEventID reads an id that keep made.
func parseEventID(id string) (number int, seq uint64, ok bool) {
	n, s, _ := strings.Cut(id, "_")
	number, err := strconv.Atoi(n)
	seq, err2 := strconv.ParseUint(s, 10, 64)
	return number, seq, err == nil && err2 == nil && number >= 0
}

// sent reports whether an event may have had this id.
func (c *httpClient) sent(number int, seq uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return number <= c.number && seq <= c.seq
}

// take lets w serve the stream with this number from the event after on: the rest of a call's
// stream, or, for 0, what belongs to no call; a GET takes that over from an earlier one.
func (c *httpClient) take(s *Session, w http.ResponseWriter, number int, after uint64) (*httpStream, chan struct{}) {
	c.mu.Lock()
	x := c.streams[number] // none has the number 0
	c.mu.Unlock()
	if x == nil {
		x = &httpStream{client: c, session: s, done: make(chan struct{}), standalone: true, number: number}
	}
	left := x.attach(w)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.w, x.started = w, false
	c.mu.Lock()
	finished := x.finished || number != 0 && x.standalone || c.closed
	var queued []*Message
	var earlier *httpStream
	if number == 0 {
		earlier, c.get = c.get, x
		queued, c.queue = c.queue, nil
	}
	var frames []string
	for _, k := range c.kept {
		if k.number == number && k.seq > after && after > 0 {
			frames = append(frames, k.frame)
		}
	}
	c.mu.Unlock()
	if earlier != nil {
		go earlier.end() // ends after endTimeout at the latest
	}
	x.begin(false)
	for _, frame := range frames {
		if err := x.text(frame); err != nil {
			break
		}
	}
	for _, m := range queued {
		x.event(m)
	}
	x.flush()
	if finished {
		x.finish()
	}
	return x, left
}
