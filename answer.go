// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

var errTooLarge = errors.New("message is over the size limit")

// eventFields is how many bytes of a server-sent event may be something else than its message.
const eventFields = 4 << 10

// maxAsked is how many milliseconds a server may ask its clients to wait: "The client MUST respect the
// retry field".
const maxAsked = 24 * 60 * 60 * 1000

// An answer is what an HTTP server sends back for one request.
type answer struct {
	c        *httpConn
	m        *Message // what was posted; an empty one for a GET
	reply    *Reply
	answered bool // the response to m has come
	at       position
}

// relay hands the messages of resp to the session as they arrive. It returns nil when the exchange
// is complete; errDetached when what is left of it may yet come on another stream; errRelayed when
// the server answered otherwise than with a response and the client has got that; else why there
// is no answer.
func (a *answer) relay(ctx context.Context, resp *http.Response) error {
	body, err := "", error(nil)
	switch {
	case isEventStream(resp.Header):
		err = a.events(resp.Body)
	case resp.ContentLength < 0 && a.m.Stream != nil:
		err = a.pieces(resp.Body)
	default:
		if body, err = a.c.d.text.read(resp.Body, resp.ContentLength, a.c.d.max); err == nil {
			a.reply.Whole = true
			a.whole(body)
		}
	}
	if err != nil && (a.m.Stream != nil || !a.answered) {
		// What is too long once is too long again.
		resumable := a.at.id != "" && !isStateless(a.m.Revision) && !isTooLarge(err)
		if a.m.Stream != nil && (resumable || a.answered) {
			// The client sees it break off, and comes back for the rest if there is one.
			broken := &Error{Code: 502, Text: "server's answer broke off", Cause: err}
			a.c.receive(&Message{Stream: a.m.Stream, Reply: a.reply, Refusal: broken, Last: true}, nil)
			return errDetached
		}
		if a.m.Stream != nil || !resumable {
			return &Error{Code: 502, Text: "server's answer broke off", Cause: err}
		}
	}
	if a.m.Stream != nil {
		a.c.receive(&Message{Stream: a.m.Stream, Reply: a.reply, Last: true}, nil)
	}
	if a.m.Kind != Call || a.answered {
		if a.m.Stream == nil && a.reply.Status/100 != 2 {
			return a.refusal(body)
		}
		return nil
	}
	switch {
	case a.m.Stream != nil && a.at.id != "" && !isStateless(a.m.Revision):
		return errDetached
	case a.m.Stream != nil:
		return errRelayed
	case a.at.id != "" && !isStateless(a.m.Revision):
		a.c.follow(ctx, a, a.at)
		if a.answered {
			return nil
		}
	}
	return a.refusal(body)
}

// refusal is what a client on stdio hears when the server's answer is no response to its call.
func (a *answer) refusal(body string) error {
	status := a.reply.Status
	if status/100 == 2 {
		return &Error{Code: 502, Text: "server's answer has no response"}
	}
	return &Error{
		Code:       status,
		Text:       fmt.Sprintf("server answered %d %s", status, http.StatusText(status)),
		RetryAfter: retryAfter(a.reply.Header),
		Cause:      fmt.Errorf("body of %d bytes", len(body)),
	}
}

// message hands on m, which came in this answer.
func (a *answer) message(m *Message, event *Event) {
	m.Stream, m.Reply, m.Event = a.m.Stream, a.reply, event
	if a.m.Stream == nil && a.m.Kind == Call && m.Kind != Response {
		m.Within = a.m.own
	}
	m.Resumed = a.m.Kind == Opaque && a.m.Stream != nil
	if m.Kind == Response && a.m.Kind == Call && canonicalID(m.ID) == canonicalID(a.m.ID) {
		a.answered = true
		if isStateless(a.m.Revision) {
			a.c.d.params.note(a.m, m, a.c.d.log)
		}
	}
	a.c.receive(m, nil)
}

// texts hands on one message, or those of a batch, and reports whether text was that.
func (a *answer) texts(text string, event *Event) bool {
	m, err := Parse(text)
	if err == errBatch && a.c.s.Revision() == batchRevision {
		texts, err := splitBatch(text, maxBatch)
		ok := err == nil
		for _, text := range texts {
			if m, err := Parse(text); err == nil {
				a.reply.Whole = false
				a.message(m, nil)
			} else {
				ok = false
			}
		}
		return ok
	}
	if err != nil || m.Kind == Response && m.ID == "" {
		return false
	}
	a.message(m, event)
	return true
}

// whole hands on a body that is there entirely.
func (a *answer) whole(body string) {
	if body != "" && a.texts(body, nil) {
		return
	}
	if a.m.Stream != nil {
		a.c.receive(&Message{Raw: body, Stream: a.m.Stream, Reply: a.reply}, nil)
		return
	}
	if body != "" {
		if a.adopt(body) {
			return
		}
		a.c.d.log.Info("server's answer is no message", "status", a.reply.Status, "bytes", len(body))
	}
	if a.m.Kind == Call { // nobody on stdio has a use for it, but it is to be recorded
		a.c.receive(&Message{Raw: body, Reply: a.reply, Within: a.m.own}, nil)
	}
}

// adopt gives a client on stdio, which has no use for a status, the server's error under the id of its
// call, where the server left that out or made it null, and reports whether text was such an error.
func (a *answer) adopt(text string) bool {
	e := member(text, "error")
	if a.m.Stream != nil || a.m.Kind != Call || !strings.HasPrefix(e, "{") {
		return false
	}
	m, err := Parse(`{"jsonrpc":"2.0","id":` + a.m.ID + `,"error":` + e + `}`)
	if err == nil {
		a.message(m, nil)
	}
	return err == nil
}

// isTooLarge reports whether what a server sends would be over the limit again.
func isTooLarge(err error) bool { return err == errTooLarge || err == errEventTooLong }

// events hands on a stream of events. What is in them but no message goes on as it is.
func (a *answer) events(body io.Reader) error {
	r := NewEventReader(body, a.c.d.max+eventFields)
	if a.m.Stream != nil { // the head, before there is anything to say
		a.c.receive(&Message{Stream: a.m.Stream, Reply: a.reply}, nil)
	}
	for {
		event, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if event.HasID {
			a.at.id = event.ID
		}
		if len(event.Data) > a.c.d.max {
			return errTooLarge
		}
		if event.Retry >= 0 {
			a.at.retry = time.Duration(min(event.Retry, maxAsked)) * time.Millisecond
		}
		if event.Data != "" && (a.texts(event.Data, &event) || a.adopt(event.Data)) {
			continue
		}
		if event.Data != "" {
			a.c.d.log.Info("server sent an event that is no message", "bytes", len(event.Data))
		}
		a.c.receive(&Message{Stream: a.m.Stream, Reply: a.reply, Event: &event}, nil)
	}
}

// pieces hands on a body of unknown length as it arrives: "application/json" may turn out to be
// one message after the other.
func (a *answer) pieces(body io.Reader) error {
	var s jsonSplitter
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			text, used := s.next(rest)
			rest = rest[used:]
			if max(s.size(), len(strings.TrimSpace(text))) > a.c.d.max {
				return errTooLarge
			}
			if text != "" && !a.texts(text, &Event{Frame: text, Retry: -1}) { // with the line end that separates it
				a.c.receive(&Message{Raw: text, Stream: a.m.Stream, Reply: a.reply}, nil)
			}
		}
		if err == io.EOF {
			if text := s.rest(); text != "" || !s.any {
				a.c.receive(&Message{Raw: text, Stream: a.m.Stream, Reply: a.reply}, nil)
			}
			return nil
		}
		if err != nil {
			return err // what there is of a text is of no use
		}
	}
}

// A jsonSplitter cuts a stream of bytes after each JSON object or array at the top level. Bytes
// before one that are not white space are cut off as they come. The zero value is ready.
type jsonSplitter struct {
	text     []byte
	depth    int
	inString bool
	escaped  bool
	any      bool // something was cut
}

// next takes bytes from b, and returns a text if one is complete, and how many bytes it took.
func (s *jsonSplitter) next(b []byte) (text string, used int) {
	for i, c := range b {
		switch {
		case s.escaped:
			s.escaped = false
		case s.inString:
			s.escaped = c == '\\'
			s.inString = c != '"'
		case s.depth > 0 && c == '"':
			s.inString = true
		case c == '{' || c == '[':
			s.depth++
		case s.depth > 0 && (c == '}' || c == ']'):
			s.depth--
			if s.depth == 0 {
				for i++; i < len(b) && (b[i] == '\n' || b[i] == '\r' || b[i] == ' '); i++ {
				}
				s.text = append(s.text, b[:i]...)
				return s.cut(), i
			}
		}
	}
	s.text = append(s.text, b...)
	if s.depth == 0 && strings.TrimSpace(string(s.text)) != "" {
		return s.cut(), len(b)
	}
	return "", len(b)
}

func (s *jsonSplitter) cut() string {
	text := string(s.text)
	s.text, s.any = s.text[:0], true
	return text
}

// rest is what was not complete at the end.
func (s *jsonSplitter) rest() string {
	if strings.TrimSpace(string(s.text)) == "" {
		return ""
	}
	return s.cut()
}

func (s *jsonSplitter) size() int { return len(s.text) }

// A textReader reads bodies into strings through buffers that it keeps. The zero value is ready;
// it may be used concurrently.
type textReader struct{ buffers sync.Pool }

// read reads r to its end. size is its length, -1 if unknown. Over max bytes it returns errTooLarge
// and how the text begins.
func (t *textReader) read(r io.Reader, size int64, max int) (string, error) {
	if size > int64(max) {
		start, _ := io.ReadAll(io.LimitReader(r, peekBytes))
		return string(start), errTooLarge
	}
	if size == 0 {
		return "", nil
	}
	buf, _ := t.buffers.Get().(*[]byte)
	if buf == nil {
		b := make([]byte, 64<<10)
		buf = &b
	}
	defer t.buffers.Put(buf)
	var text strings.Builder
	if size > 0 {
		text.Grow(int(size))
	}
	for {
		n, err := r.Read(*buf)
		text.Write((*buf)[:n])
		if text.Len() > max {
			return text.String()[:min(text.Len(), peekBytes)], errTooLarge
		}
		if err == io.EOF {
			return text.String(), nil
		}
		if err != nil {
			return "", err
		}
	}
}
