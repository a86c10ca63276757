// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
)

const (
	smallBuffer = 4 << 10  // bytes that an [EventReader] begins with
	idleBuffer  = 64 << 10 // bytes that it keeps between events
)

// errEventTooLong says that a frame is longer than an [EventReader] may read.
var errEventTooLong = errors.New("event: too long")

// An Event is one server-sent event as it stood on the wire (WHATWG HTML, section 9.2), or a comment
// line or blank line between events, which has no field set. Text that is no UTF-8 is left as it is.
type Event struct {
	Frame   string // every byte of it, the blank line that ends it included
	ID      string // the `id` field, if HasID
	HasID   bool   // an `id` field was there; one with a NUL in it counts for nothing
	Name    string // the `event` field, "" if there is none
	Data    string // the `data` lines joined by \n; a part of Frame if there is only one
	HasData bool   // a `data` field was there; without one a client sees no event
	Retry   int    // the `retry` field in milliseconds, -1 if there is none
}

// An EventReader reads server-sent events. The Frames it returns are, one after the other, what it read. It reads no
// further than to the end of an event to return it. One goroutine may use it at a time.
type EventReader struct {
	r     io.Reader
	max   int
	err   error     // what ended the stream
	spare sync.Pool // a large buffer: the next large event uses it again, or the garbage collector takes it

	buf      []byte
	from, to int  // buf[from:to] is what was read and not returned; it begins with the frame being read
	begun    bool // the start of the stream was searched for a byte order mark

	// The frame being read. Places in it are counted from its first byte.
	first    int // where its first line begins: after the byte order mark, if it has one
	line     int // where the line being read begins
	lf, cr   int // no LF, or CR, stands between line and here
	event    Event
	id, name span
	data     span   // the first data line
	joined   []byte // all data lines, each after a \n, once there are two
}

// NewEventReader returns a reader of the events in r. A frame has at most max bytes. The buffer starts small, grows up
// to max when it must, and is not held while there is nothing to read.
func NewEventReader(r io.Reader, max int) *EventReader {
	return &EventReader{r: r, max: max, event: Event{Retry: -1}}
}

// Next returns the next event, comment line or blank line as soon as its last byte is there. An event ended by a CR
// does not wait for an LF: that comes as a blank line of its own if it comes later. The error is io.EOF at the end,
// io.ErrUnexpectedEOF if the stream ended within a frame ("the incomplete event is not dispatched"), errEventTooLong,
// or that of the underlying reader; it is final.
func (e *EventReader) Next() (Event, error) {
	for {
		if n := e.frameEnd(e.buf[e.from:e.to]); n > 0 {
			return e.take(n), nil
		}
		if e.err == io.EOF && e.from < e.to {
			return Event{}, io.ErrUnexpectedEOF
		}
		if e.err != nil {
			return Event{}, e.err
		}
		e.fill()
	}
}

// fill reads once more and sets e.err if that fails.
func (e *EventReader) fill() {
	if e.from == e.to {
		e.from, e.to = 0, 0
		if len(e.buf) > idleBuffer {
			large := e.buf
			e.spare.Put(&large)
			e.buf, e.joined = nil, nil
		}
	}
	switch {
	case e.to < len(e.buf):
	case e.from > 0:
		e.from, e.to = 0, copy(e.buf, e.buf[e.from:])
	case e.to >= e.max:
		e.err = errEventTooLong
		return
	default:
		var buf []byte
		if e.to > 0 { // else the next event need not be large
			if spare, _ := e.spare.Get().(*[]byte); spare != nil {
				buf = *spare
			}
		}
		if len(buf) <= e.to {
			buf = make([]byte, min(max(smallBuffer, 4*e.to), e.max))
		}
		copy(buf, e.buf)
		e.buf = buf
	}
	for range 100 {
		n, err := e.r.Read(e.buf[e.to:])
		e.to += n
		if e.err = err; n > 0 || err != nil {
			return
		}
	}
	e.err = io.ErrNoProgress
}

// frameEnd reads on in b, the frame being read and what follows, and returns the length of the frame, 0 if its end is
// not there yet.
func (e *EventReader) frameEnd(b []byte) int {
	if mark := "\ufeff"; !e.begun {
		if len(b) < len(mark) && string(b) == mark[:len(b)] {
			return 0
		}
		e.begun = true
		if bytes.HasPrefix(b, []byte(mark)) {
			e.first, e.line = len(mark), len(mark)
		}
	}
	for {
		if e.line > 0 && e.line < len(b) && b[e.line-1] == '\r' && b[e.line] == '\n' {
			e.line++ // the CR has ended the line before
		}
		start, end := e.line, min(e.find(b, '\n', &e.lf), e.find(b, '\r', &e.cr))
		if end == len(b) {
			return 0
		}
		e.line = end + 1
		if start < end && (start > e.first || b[start] != ':') {
			e.field(b, start, end)
			continue
		}
		if b[end] == '\r' && e.line < len(b) && b[e.line] == '\n' {
			e.line++
		}
		return e.line
	}
}

// find moves at to the first c at or behind e.line, or to the end of b, and returns it. As at only moves forward, no
// byte is searched twice, whatever arrives in whatever pieces.
func (e *EventReader) find(b []byte, c byte, at *int) int {
	*at = max(*at, e.line)
	if i := bytes.IndexByte(b[*at:], c); i >= 0 {
		*at += i
	} else {
		*at = len(b)
	}
	return *at
}

// field notes the field in the line b[start:end].
func (e *EventReader) field(b []byte, start, end int) {
	name, value := b[start:end], span{end, end}
	if i := bytes.IndexByte(name, ':'); i >= 0 {
		name, value.from = name[:i], start+i+1
		if value.from < end && b[value.from] == ' ' {
			value.from++
		}
	}
	text := b[value.from:end]
	switch string(name) {
	case "id":
		if bytes.IndexByte(text, 0) < 0 {
			e.id, e.event.HasID = value, true
		}
	case "event":
		e.name = value
	case "retry":
		if len(text) > 0 && len(bytes.Trim(text, "0123456789")) == 0 {
			ms, _ := strconv.ParseUint(string(text), 10, 31) // 2³¹-1 if it is larger
			e.event.Retry = int(ms)
		}
	case "data":
		if !e.event.HasData {
			e.data, e.event.HasData = value, true
			return
		}
		if len(e.joined) == 0 {
			e.joined = append(append(e.joined, '\n'), b[e.data.from:e.data.to]...)
		}
		e.joined = append(append(e.joined, '\n'), text...)
	}
}

// take returns the frame being read, which has n bytes, and begins the next one.
func (e *EventReader) take(n int) Event {
	ev, frame := e.event, string(e.buf[e.from:e.from+n])
	ev.Frame, ev.ID, ev.Name, ev.Data = frame, frame[e.id.from:e.id.to], frame[e.name.from:e.name.to], frame[e.data.from:e.data.to]
	if len(e.joined) > 0 {
		ev.Data = string(e.joined[1:])
	}
	e.from += n
	e.first, e.line, e.lf, e.cr = 0, 0, e.lf-n, e.cr-n
	e.event, e.id, e.name, e.data, e.joined = Event{Retry: -1}, span{}, span{}, span{}, e.joined[:0]
	return ev
}

// appendEvent appends e as it goes over the wire to dst; e.Frame is ignored. Line ends in Data part its lines. An ID or
// Name with a line end in it, or an ID with a NUL, cannot be written and is left out. Retry must be -1 if there is to
// be none.
func appendEvent(dst []byte, e Event) []byte {
	if e.HasID && !strings.ContainsAny(e.ID, "\r\n\x00") {
		dst = append(append(append(dst, "id: "...), e.ID...), '\n')
	}
	if e.Name != "" && !strings.ContainsAny(e.Name, "\r\n") {
		dst = append(append(append(dst, "event: "...), e.Name...), '\n')
	}
	if e.Retry >= 0 {
		dst = append(strconv.AppendInt(append(dst, "retry: "...), int64(e.Retry), 10), '\n')
	}
	if strings.IndexByte(e.Data, '\r') >= 0 {
		e.Data = strings.ReplaceAll(strings.ReplaceAll(e.Data, "\r\n", "\n"), "\r", "\n")
	}
	for more := e.HasData; more; {
		var line string
		line, e.Data, more = strings.Cut(e.Data, "\n")
		dst = append(append(append(dst, "data: "...), line...), '\n')
	}
	return append(dst, '\n')
}
