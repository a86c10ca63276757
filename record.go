// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
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
// system before the message goes there: see [Recorder.Flush]. All other lines go with the next of those,
// or two milliseconds later. So the tape of a program that is killed lacks at most the last message of each
// conversation.
//
// When the tape cannot be written, the Recorder refuses every message to the server and calls Fail, once;
// with Pass set it lets messages pass unrecorded, and says so on the tape when it can be written again.
// The exported fields are set before the first message. It may be used concurrently. Make one with
// newRecorder.
type Recorder struct {
	Header TapeHeader // of its tapes; the Recorder fills in what it knows itself
	HTTP   bool       // the server is spoken to over HTTP
	Rules  bool       // what passes is changed by rules, which Changed and Noted hear of
	Redact *Redactor  // nil changes nothing
	Max    int        // bytes of a line; parts of a longer one are left out; 0 for any
	// Secrets never come on a tape, nor does the session id of an HTTP server.
	Secrets []*knownSecret
	Log     *slog.Logger
	Pass    bool
	Fail    func() // nil for nobody

	refuses atomic.Bool    // the tape has failed, and Pass is not set
	aside   sync.WaitGroup // follow, and dumps
	ends    sync.WaitGroup // of tapes that others follow
	late    *time.Timer    // calls follow
	dog     *time.Timer    // see watch
	writing atomic.Int64   // when the write that goes on began, in nanoseconds since made; -1 for none
	watched atomic.Bool    // dog is set
	made    time.Time

	lock  chan struct{} // holds a value while the following is used; taken before mu
	file  *tapeFile
	ring  *tapeRing // gets the lines instead, if it is not nil
	spare []byte    // what was written last

	mu        sync.Mutex // protects following
	start     time.Time  // of the tape; zero before the first line
	buf       []byte     // lines that are not written yet
	seq       int64
	t         time.Duration // of the last line
	sent      time.Duration // when the first message in buf to the server came; 0 for none
	counts    tapeCounts    // of the lines that are on the tape, or about to be
	open      int           // sessions, transient ones included
	continues bool          // this tape does an earlier one
	failed    error         // why the tape cannot be written; nil if it can
	missed    int64         // lines that are not on it since then
	over      bool          // Close was called
	rates     []eventRate
	dumped    time.Time // when something last was reason to dump
}

// tapeCounts are in the end of a tape.
type tapeCounts struct {
	lines, messages, sessions int64
	eras                      []string
}

// add counts a line.
func (c *tapeCounts) add(kind string) {
	c.lines++
	c.messages += int64(btoi(kind == lineMsg))
	c.sessions += int64(btoi(kind == lineOpen))
}

func (c *tapeCounts) String() string {
	eras := encodeJSON(append([]string{}, c.eras...))
	return fmt.Sprintf(`{"lines":%d,"messages":%d,"sessions":%d,"eras":%s}`, c.lines, c.messages, c.sessions, eras)
}

// newRecorder makes a Recorder that writes to file, which its Close closes.
func newRecorder(file *tapeFile, log *slog.Logger) *Recorder {
	r := &Recorder{file: file, Log: log, lock: make(chan struct{}, 1), made: time.Now()}
	r.writing.Store(-1)
	r.dog = time.AfterFunc(time.Hour, r.bite)
	r.dog.Stop()
	r.late = time.AfterFunc(time.Hour, r.follow)
	r.late.Stop()
	return r
}

// Attach lets r hear of what no interceptor sees in p.
func (r *Recorder) Attach(p *Proxy) {
	p.OnEnd, p.OnDrop, p.OnTell = r.Ended, r.Dropped, r.Told
}

// Intercept records m and lets it pass.
func (r *Recorder) Intercept(_ context.Context, s *Session, m *Message) (*Message, error) {
	switch {
	case m.Kind == Opaque:
		r.opaque(s, m)
	case m.own != nil && m.own.seq.Load() != 0: // refused meanwhile, and on the tape as that
		return nil, &Error{Code: 504, Text: "call took too long"}
	default:
		r.message(s, m)
	}
	if m.Dir == ToServer {
		return m, r.before()
	}
	return m, nil
}

// before sees to the line of a message to the server before that goes there. A Conn on stdio does so itself, for many at
// a time, but when the tape has failed it need not come to that.
func (r *Recorder) before() error {
	if r.HTTP || r.refuses.Load() {
		return r.Flush()
	}
	return nil
}

func errNotRecorded(cause error) *Error {
	return &Error{Code: 503, Text: "recording failed", Cause: cause}
}

// message writes the line of m, and before it that of the call that it refuses if the server never saw it, or that of
// the message which rules made it of.
func (r *Recorder) message(s *Session, m *Message) {
	e := r.entry(s, m)
	broken := false
	if m.Ruled != nil {
		e.Rule, broken = m.Ruled.Rule, m.Ruled.Broken
		if was := m.Ruled.Was; was != nil {
			first := e
			first.Rule, first.Msg, first.of = "", onOneLine(was), was
			e.Was = r.add(s, &first)
		}
	} else if m.Refusal != nil {
		e.Rule = m.Refusal.Rule
	}
	seq := e.Was
	if !broken {
		seq = r.add(s, &e)
	}
	if own := m.own; own != nil {
		own.seq.Store(seq)
		own.x.Store(e.X)
	}
	if m.Dir == ToClient {
		if r.Rules {
			m.lined(seq)
		}
		if m.Kind == Response && r.rates != nil {
			r.judge(m)
		}
	} else if m.Ruled != nil {
		r.notes(s, m, seq, m.Ruled.Notes)
	}
}

// entry is the line of m but for what rules did with it.
func (r *Recorder) entry(s *Session, m *Message) Entry {
	e := Entry{Kind: lineMsg, Dir: m.Dir.String(), Local: m.Local, Msg: onOneLine(m), of: m}
	r.travelled(&e, s, m)
	switch call := m.Answers; {
	case m.Kind == Call && m.Dir == ToServer:
		e.era = eraOf(m)
	case m.Kind == Response && call != nil:
		if call.seq.Load() == 0 && m.Dir == ToClient && m.Local {
			call.seq.Store(r.add(s, &Entry{Kind: lineMsg, Dir: dirToServer, Local: true, Msg: onOneLine(call.Message),
				of: call.Message, era: eraOf(call.Message)}))
		}
		e.Re, e.X = call.seq.Load(), call.x.Load()
		if m.Dir == ToClient && !m.Local && call.struck != 0 { // what the proxy answers itself may come at any time
			e.at = s.opened.Add(call.struck)
		}
	case m.Dir == ToServer && m.Method == methodCancelled:
		if within := s.lookup(ToServer, member(m.Params, "requestId")); within != nil {
			e.X = within.seq.Load()
		}
	case m.Within != nil:
		e.X = m.Within.seq.Load()
	}
	return e
}

// onOneLine is the text of m with spaces for line ends between tokens. A string can hold none.
func onOneLine(m *Message) string {
	if !m.Newlines {
		return m.Raw
	}
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(m.Raw)
}

// opaque records what a server sent that is no message, unless it says nothing: a comment, a head. A stream that ends
// before its call is answered says something.
func (r *Recorder) opaque(s *Session, m *Message) {
	text := m.Raw
	if m.Event != nil && m.Event.Data != "" {
		text = m.Event.Frame
	}
	switch {
	case text != "":
	case m.Reply == nil || m.Refusal != nil:
		return
	case isEventStream(m.Reply.Header):
		if !m.Last || m.Within == nil {
			return
		}
	case m.Last || m.Reply.Status/100 == 2:
		return
	}
	e := Entry{Kind: lineRaw, Dir: dirToClient, Text: text}
	r.travelled(&e, s, m)
	if m.Within != nil {
		e.X = m.Within.seq.Load()
	}
	r.add(s, &e)
}

// travelled says how m got here.
func (r *Recorder) travelled(e *Entry, s *Session, m *Message) {
	if m.Origin != nil {
		var names []string
		if v := m.Origin.Header[revisionHeader]; len(v) > 0 && v[0] != cmp.Or(m.Revision, s.Revision()) {
			names = []string{revisionHeader} // else it says nothing new
		}
		for name := range m.Origin.Header {
			if strings.HasPrefix(name, headerParam) {
				names = append(names, name)
			}
		}
		e.Headers = tapeHeaders(m.Origin.Header, names)
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
		names := []string{"Www-Authenticate", "Retry-After", "Allow"}
		if m.Kind == Opaque {
			names = append(names, "Content-Type")
		}
		e.Headers = tapeHeaders(m.Reply.Header, names)
	}
}

// tapeHeaders is the JSON text of an object with the first value of each of names that h has, "" if it has none.
func tapeHeaders(h http.Header, names []string) string {
	var members []string
	for _, name := range names {
		if v := h[name]; len(v) > 0 {
			members = append(members, quote(strings.ToLower(name))+":"+quote(v[0]))
		}
	}
	if members == nil {
		return ""
	}
	return "{" + strings.Join(members, ",") + "}"
}

// eraOf is the era of a client's call.
func eraOf(m *Message) string {
	if isStateless(m.Revision) {
		return eraStateless
	}
	return eraSession
}

// session returns the number of s, 0 if it has none, and begins it if that is not done.
func (r *Recorder) session(s *Session) int64 {
	if s == nil {
		return 0
	}
	if s.tape.Load() == 0 {
		r.mu.Lock()
		if s.tape.Load() == 0 {
			r.begin(s)
		}
		r.mu.Unlock()
	}
	return max(s.tape.Load(), 0)
}

// begin requires that r.mu is held.
func (r *Recorder) begin(s *Session) {
	r.open++
	if s.Transient {
		s.tape.Store(-1)
		return
	}
	n := r.counts.sessions + 1
	s.tape.Store(n)
	r.line(&Entry{Kind: lineOpen, Session: n})
}

// add redacts and numbers e, which belongs to s if that is not nil, puts it with the lines to be written, and returns
// the number, 0 if it cannot be on the tape. Most of the line is made before the lock is taken, for which all messages
// wait.
func (r *Recorder) add(s *Session, e *Entry) (seq int64) {
	var room [256]byte
	fields := r.fields(s, e, room[:0])
	r.mu.Lock()
	if seq = r.stamp(e.Kind, e.Dir, e.era, e.at); seq != 0 {
		r.buf = appendRest(append(r.buf, fields...), e)
	}
	much := len(r.buf) > recordBuffer
	r.mu.Unlock()
	if much {
		r.Flush() // who sends the server something is told of its failure by before
	}
	return seq
}

// fields redacts e, shortens it if it must be, and appends to dst what stands in its line between the stamp and the message.
func (r *Recorder) fields(s *Session, e *Entry, dst []byte) []byte {
	e.Session = r.session(s)
	r.clean(s, e)
	fields := appendFields(dst, e)
	if r.Max > 0 && len(fields)+len(e.Msg)+stampLength > r.Max {
		r.shorten(e)
		fields = appendFields(dst, e)
	}
	return fields
}

// stamp begins a line and returns its number, 0 if there can be none. To look at a clock costs as much as to make the
// line: what goes to the server together has the time of the first. A zero at is now, an era that is not "" is that of the
// message. It requires that r.mu is held.
func (r *Recorder) stamp(kind, dir, era string, at time.Time) int64 {
	if (r.over || r.failed != nil) && kind != lineBlind {
		r.missed++
		return 0
	}
	if r.start.IsZero() {
		r.start = time.Now()
	}
	t := at.Sub(r.start)
	if dir == dirToServer && r.sent != 0 {
		t = r.sent
	} else if at.IsZero() {
		t = time.Since(r.start)
	}
	if dir == dirToServer {
		r.sent = t
	}
	if len(r.buf) == 0 { // where messages follow each other, it never goes off
		r.late.Reset(recordDelay)
	}
	r.seq++
	r.t = max(r.t, t)
	r.counts.add(kind)
	if era != "" && !slices.Contains(r.counts.eras, era) {
		r.counts.eras = append(r.counts.eras, era)
	}
	r.buf = appendStamp(r.buf, r.seq, r.t)
	return r.seq
}

// line writes e. It requires that r.mu is held.
func (r *Recorder) line(e *Entry) {
	if r.stamp(e.Kind, e.Dir, e.era, e.at) != 0 {
		r.buf = append(appendFields(r.buf, e), '}', '\n')
	}
}

// Ended records the end of a session, if there is something of it on the tape. What comes later begins none.
func (r *Recorder) Ended(s *Session, reason error) {
	e := Entry{Kind: lineClose, Text: reason.Error()}
	r.clean(s, &e)
	r.mu.Lock()
	e.Session = s.tape.Load()
	if e.Session == 0 {
		s.tape.Store(-1)
	} else {
		r.open--
	}
	if e.Session > 0 {
		r.line(&e)
	}
	r.mu.Unlock()
}

// Dropped records that m, which the server sent, reached nobody.
func (r *Recorder) Dropped(s *Session, m *Message, why string) {
	e := Entry{Kind: lineDropped, Dir: dirToClient, Text: why, Msg: onOneLine(m.came())} // half a message is no JSON
	r.travelled(&e, s, m)
	r.add(s, &e)
}

// Told records what the proxy itself tells the server.
func (r *Recorder) Told(s *Session, m *Message) {
	e := Entry{Kind: lineMsg, Dir: dirToServer, Local: true, Msg: onOneLine(m)}
	if m.Ruled != nil {
		e.Rule = m.Ruled.Rule
	} else if m.Refusal != nil {
		e.Rule = m.Refusal.Rule
	}
	if m.Answers != nil {
		e.Re, e.X = m.Answers.seq.Load(), m.Answers.x.Load()
	}
	if m.Method == methodCancelled { // it is about that call, and answers nothing
		e.X, e.Re = e.Re, 0
	}
	r.add(s, &e)
}

// Garbage records a line of a server on stdio that is no message. s is nil for a server that all share.
func (r *Recorder) Garbage(s *Session, line string) {
	r.add(s, &Entry{Kind: lineRaw, Dir: dirToClient, Via: viaStdio, Text: line})
}

// Stderr records a line that a server's process wrote to its stderr.
func (r *Recorder) Stderr(s *Session, line string) {
	r.add(s, &Entry{Kind: lineStderr, Text: line})
}

// Exited records the end of a server's process; crashed says that it should not have ended.
func (r *Recorder) Exited(s *Session, status string, crashed bool) {
	r.add(s, &Entry{Kind: lineExit, Text: status})
	if crashed {
		r.mu.Lock()
		r.dumpSoon(time.Now(), "server ended: "+status)
		r.mu.Unlock()
	}
}
