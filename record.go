// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Recorder writes what passes between the proxy and the server to a tape: its Intercept is the
// interceptor next to the server. The line of a message to the server is in the hands of the operating
// system before the message goes there: see [Recorder.Flush]. The line of one to the client follows with the
// next message to the server, or within a millisecond: see [Recorder.Sent]. So the tape of a program that is
// killed lacks at most the last message of each conversation.
//
// When the tape cannot be written, the Recorder refuses every call and calls Fail, once; with Pass set
// it lets messages pass unrecorded, and says so on the tape when it can be written again. The fields
// are set before the first message. It may be used concurrently.
type Recorder struct {
	Header TapeHeader // of its tapes; the Recorder fills in what it knows itself
	HTTP   bool       // the server is spoken to over HTTP
	Redact *Redactor  // nil changes nothing
	Log    *slog.Logger
	Pass   bool
	Fail   func(error) // nil for nobody

	refuses atomic.Bool  // the tape failed, and calls are refused
	blind   atomic.Bool  // the tape failed, and messages pass
	missed  atomic.Int64 // lines that are not on the tape since then
	retry   atomic.Int64 // when to try again, in nanoseconds since 1970

	ring  *tapeRing      // the sink, if it is one
	aside sync.WaitGroup // of what is done by the side

	calls atomic.Int64   // to the server, without an answer yet
	seen  [2]atomic.Bool // eras, the stateless one last

	lock  chan struct{} // holds a value while the following is used; taken before mu
	sink  tapeSink
	began bool   // the sink has the header
	spare []byte // what was written last

	mu     sync.Mutex // protects following
	start  time.Time  // of the tape; zero before the first line
	buf    []byte     // lines that are not written yet
	due    bool       // they are about to be
	seq    int64
	counts tapeCounts
	open   int // sessions
	rates  []eventRate
	dumped time.Time // when something last was reason to dump
}

// tapeCounts are in the end of a tape.
type tapeCounts struct {
	lines, messages, sessions int64
	eras                      []string
}

func (c *tapeCounts) String() string {
	eras := encodeJSON(append([]string{}, c.eras...))
	return fmt.Sprintf(`{"lines":%d,"messages":%d,"sessions":%d,"eras":%s}`, c.lines, c.messages, c.sessions, eras)
}

// newRecorder makes a Recorder that writes to sink, which its Close ends.
func newRecorder(sink tapeSink, log *slog.Logger) *Recorder {
	return &Recorder{sink: sink, Log: log, lock: make(chan struct{}, 1)}
}

// Intercept records m and lets it pass.
func (r *Recorder) Intercept(_ context.Context, s *Session, m *Message) (*Message, error) {
	if m.Dir == ToServer && r.refuses.Load() {
		return nil, errNotRecorded(nil)
	}
	if r.blind.Load() && !r.sees() {
		r.missed.Add(1)
		return m, nil
	}
	var err error
	if m.Kind == Opaque {
		err = r.opaque(s, m)
	} else {
		err = r.message(s, m)
	}
	if err != nil && m.Dir == ToServer {
		return nil, err
	}
	return m, nil
}

func errNotRecorded(cause error) *Error {
	return &Error{Code: 503, Text: "recording failed", Cause: cause}
}

// message writes the line of m, and before it that of the call that it refuses if the server never saw it.
func (r *Recorder) message(s *Session, m *Message) error {
	e := Entry{Kind: lineMsg, Dir: dirToClient, Local: m.Local, Msg: r.text(m)}
	if m.Dir == ToServer {
		e.Dir = dirToServer
	}
	r.travelled(&e, m)
	switch call := m.Answers; {
	case m.Kind == Call && m.Dir == ToServer:
		r.era(m)
		r.calls.Add(1)
	case m.Kind == Response && call != nil:
		if call.seq.Load() == 0 && m.Dir == ToClient && m.Local {
			call.seq.Store(r.add(s, &Entry{Kind: lineMsg, Dir: dirToServer, Local: true, Msg: r.text(call.Message)}))
		} else if m.Dir == ToClient {
			r.calls.Add(-1)
		}
		e.Re, e.X = call.seq.Load(), call.x.Load()
	case m.Dir == ToServer && m.Method == methodCancelled:
		if within := s.lookup(ToServer, member(m.Params, "requestId")); within != nil {
			e.X = within.seq.Load()
		}
	case m.Dir == ToClient:
		if within := s.within(m); within != nil {
			e.X = within.seq.Load()
		}
	}
	seq := r.add(s, &e)
	if own := m.own; own != nil {
		own.seq.Store(seq)
		own.x.Store(e.X)
	}
	if m.Dir == ToClient && m.Kind == Response && r.rates != nil {
		r.judge(m)
	}
	if m.Dir == ToClient || !r.HTTP { // a Conn on stdio flushes before it writes
		return nil
	}
	return r.Flush()
}

// text is the message as it stands on a tape.
func (r *Recorder) text(m *Message) string {
	text := m.Raw
	if m.Newlines {
		text = withoutNewlines(text)
	}
	return r.Redact.Message(text)
}

// withoutNewlines is JSON text in which the line ends between tokens are spaces. It can hold no others.
func withoutNewlines(text string) string {
	return strings.Map(func(c rune) rune {
		if c == '\n' || c == '\r' {
			return ' '
		}
		return c
	}, text)
}

// opaque records what a server sent that is no message, unless it says nothing: a comment, a head. A stream that ends
// before its call is answered says something.
func (r *Recorder) opaque(s *Session, m *Message) error {
	text := m.Raw
	if m.Event != nil && m.Event.Data != "" {
		text = m.Event.Frame
	}
	within := s.within(m)
	switch {
	case text != "":
	case m.Reply == nil || m.Refusal != nil:
		return nil
	case isEventStream(m.Reply.Header):
		if !m.Last || within == nil {
			return nil
		}
	case m.Last || m.Reply.Status/100 == 2:
		return nil
	}
	e := Entry{Kind: lineRaw, Dir: dirToClient, Text: r.Redact.Text(text)}
	r.travelled(&e, m)
	if m.Reply != nil {
		e.Headers = tapeHeaders(m.Reply.Header, e.Headers, "Content-Type")
	}
	if within != nil {
		e.X = within.seq.Load()
	}
	r.add(s, &e)
	return nil
}

// travelled says how m got here.
func (r *Recorder) travelled(e *Entry, m *Message) {
	if m.Origin != nil {
		e.Headers = tapeHeaders(m.Origin.Header, "", revisionHeader)
		for name := range m.Origin.Header {
			if strings.HasPrefix(name, headerParam) {
				e.Headers = tapeHeaders(m.Origin.Header, e.Headers, name)
			}
		}
	}
	switch {
	case m.Local:
	case !r.HTTP:
		e.Via = viaStdio
	case m.Dir == ToServer:
		e.Via = viaPost
	case m.Reply != nil:
		e.Status, e.Via = m.Reply.Status, viaJSON
		if m.Reply.Listens {
			e.Via = viaGet
		} else if isEventStream(m.Reply.Header) {
			e.Via = viaSSE
		}
		if m.Event != nil {
			e.Event = m.Event.ID
		}
		e.Headers = tapeHeaders(m.Reply.Header, "", "Www-Authenticate", "Retry-After", "Allow")
	}
	if e.Headers != "" {
		e.Headers = r.Redact.Message(e.Headers)
	}
}

// tapeHeaders adds the first value of each of names that h has to object, JSON text or "" for an empty one.
func tapeHeaders(h http.Header, object string, names ...string) string {
	for _, name := range names {
		if v := h[name]; len(v) > 0 {
			object = strings.TrimSuffix(object, "}")
			if object == "" {
				object = "{"
			} else {
				object += ","
			}
			object += quote(strings.ToLower(name)) + ":" + quote(v[0]) + "}"
		}
	}
	return object
}

// era notes the era of a call.
func (r *Recorder) era(m *Message) {
	era := eraSession
	if isStateless(m.Revision) {
		era = eraStateless
	}
	if i := btoi(era == eraStateless); !r.seen[i].Load() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[i].Store(true)
		if !slices.Contains(r.counts.eras, era) {
			r.counts.eras = append(r.counts.eras, era)
		}
	}
}

// session returns the number of s, 0 if it has none, and begins it on the tape if that is not done.
func (r *Recorder) session(s *Session) int64 {
	if s == nil || s.Transient {
		return 0
	}
	if n := s.tape.Load(); n != 0 {
		return n
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.tape.Load() == 0 {
		r.counts.sessions++
		r.open++
		s.tape.Store(r.counts.sessions)
		r.line(&Entry{Kind: lineOpen, Session: r.counts.sessions})
	}
	return s.tape.Load()
}

// add numbers e, which belongs to s if that is not nil, puts it with the lines to be written, and returns the number.
// Most of the line is made before the lock is taken, for which all messages wait.
func (r *Recorder) add(s *Session, e *Entry) (seq int64) {
	var room [256]byte
	e.Session = r.session(s)
	fields := appendFields(room[:0], e)
	r.mu.Lock()
	seq = r.stamp(e.Kind)
	r.buf = append(r.buf, fields...)
	if e.Msg != "" {
		r.buf = append(append(r.buf, `,"msg":`...), e.Msg...)
	}
	r.buf = append(r.buf, '}', '\n')
	full := len(r.buf) >= recordBuffer
	r.mu.Unlock()
	if full {
		r.Flush()
	}
	return seq
}

// stamp begins a line and returns its number. It requires that r.mu is held.
func (r *Recorder) stamp(kind string) int64 {
	if r.start.IsZero() {
		r.start = time.Now()
	}
	r.seq++
	r.counts.lines++
	r.counts.messages += int64(btoi(kind == lineMsg))
	r.buf = appendStamp(r.buf, r.seq, time.Since(r.start))
	return r.seq
}

// line writes e. It requires that r.mu is held.
func (r *Recorder) line(e *Entry) {
	r.stamp(e.Kind)
	r.buf = append(appendFields(r.buf, e), '}', '\n')
}

// Ended records the end of a session.
func (r *Recorder) Ended(s *Session, reason error) {
	r.note(s, Entry{Kind: lineClose, Text: reason.Error()})
}

// Dropped records that m, which the server sent, reached nobody.
func (r *Recorder) Dropped(s *Session, m *Message, why string) {
	e := Entry{Kind: lineDropped, Dir: dirToClient, Text: why, Msg: r.text(m)}
	r.travelled(&e, m)
	r.note(s, e)
}

// Garbage records a line of a server on stdio that is no message. s is nil for a server that all share.
func (r *Recorder) Garbage(s *Session, line string) {
	r.note(s, Entry{Kind: lineRaw, Dir: dirToClient, Via: viaStdio, Text: r.Redact.Text(line)})
}

// Stderr records a line that a server's process wrote to its stderr.
func (r *Recorder) Stderr(s *Session, line string) {
	r.note(s, Entry{Kind: lineStderr, Text: r.Redact.Text(line)})
}

// Exited records the end of a server's process; crashed says that it should not have ended.
func (r *Recorder) Exited(s *Session, status string, crashed bool) {
	r.note(s, Entry{Kind: lineExit, Text: status})
	if crashed {
		r.mu.Lock()
		r.dumpSoon(time.Now(), "server ended: "+status)
		r.mu.Unlock()
	}
}

// note writes a line that tells of no message that passes. A session that has said nothing yet has none.
func (r *Recorder) note(s *Session, e Entry) {
	if r.refuses.Load() || r.blind.Load() {
		r.missed.Add(1)
		return
	}
	if e.Kind == lineClose {
		if s.tape.Load() == 0 {
			return
		}
		defer func() {
			r.mu.Lock()
			r.open--
			r.mu.Unlock()
		}()
	}
	r.add(s, &e)
	r.Flush()
}
