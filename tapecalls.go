// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"hash/maphash"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	methodDiscover = "server/discover"

	maxFollowed = 100_000 // calls in flight that a callBook holds
	maxRetired  = 1000    // calls that are over and that it still knows
	maxShown    = 100     // bytes of a name that a peer chose
)

// TapeToolOptions says what of a tape a tool looks at, and how it prints that.
type TapeToolOptions struct {
	JSON     bool
	Session  int64     // 0: all
	Method   string    // with * for anything; "": all
	Exchange int64     // Seq of a client's call, 0: all
	Ignore   []Pointer // what may differ between two tapes
	Max      int       // bytes of a line
}

// A tapeTool writes what it makes of a tape. Its memory has a bound, whatever the length of the tape.
type tapeTool func(t *TapeReader, w *bufio.Writer, o TapeToolOptions) error

// run opens the tape in, called name, for the tool. The error is a *[TapeError], or one of in or out, and what was
// written up to there stands.
func (tool tapeTool) run(in io.Reader, name string, out io.Writer, o TapeToolOptions) error {
	t, err := NewTapeReader(in, name, o.Max)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, lineBuffer)
	err = tool(t, w, o)
	if failed := w.Flush(); failed != nil {
		return failed
	}
	return err
}

// A tapeCall is what is remembered of a call on a tape. It shares no memory with its line.
type tapeCall struct {
	seq     int64 // of its line
	also    int64 // of the line with the call as a rule changed it, 0 if none did
	line    int
	t       time.Duration
	session int64
	dir     string
	method  string // shortened, as are the next two
	name    string // of the tool or prompt, or the uri
	id      string
	idHash  uint64 // of the canonical id
	token   uint64 // likewise of the progress token, 0 if there is none

	stateless bool // it is of 2026-07-28 or later
	kept      bool // it and its exchange are picked
	retired   bool // answered or cancelled
	cancelled bool
	local     bool // the proxy answered it
	at        int  // place in an index
}

// A callBook follows the calls of one tape, in either direction, from line to line: all those in flight, up to
// maxFollowed, and the last that are over, as a message may still belong to one of them. Make one with newCallBook.
type callBook struct {
	seed  maphash.Seed
	calls map[int64]*tapeCall // by Seq
	over  [maxRetired]*tapeCall
	next  int  // where the next one goes in over
	full  bool // a call, or a session of a check, was not booked
}

func newCallBook() *callBook {
	return &callBook{seed: maphash.MakeSeed(), calls: map[int64]*tapeCall{}}
}

// book enters the call m of the line e. One that a rule changed is the same call as before. It returns nil if the
// book is full.
func (b *callBook) book(e *Entry, m *Message) *tapeCall {
	if call := b.calls[e.Was]; call != nil && call.also == 0 {
		call.also = e.Seq
		b.calls[e.Seq] = call
		return call
	}
	if len(b.calls) >= maxFollowed {
		b.full = true
		return nil
	}
	call := &tapeCall{seq: e.Seq, t: e.T, session: e.Session, dir: e.Dir, method: shorten(m.Method), name: shorten(m.Name + m.URI),
		id: shorten(m.ID), idHash: b.hash(m.ID), token: b.hash(m.Token), stateless: isStateless(m.Revision)}
	b.calls[e.Seq] = call
	return call
}

// retire notes that a call is over, and returns the one that is forgotten for it, if any.
func (b *callBook) retire(call *tapeCall) (forgotten *tapeCall) {
	if call.retired {
		return nil
	}
	call.retired = true
	forgotten, b.over[b.next] = b.over[b.next], call
	b.next = (b.next + 1) % maxRetired
	if forgotten != nil {
		delete(b.calls, forgotten.seq)
		delete(b.calls, forgotten.also)
	}
	return forgotten
}

// hash returns the hash of an id or a token by which equal ones are known, 0 for none.
func (b *callBook) hash(id string) uint64 {
	if id == "" {
		return 0
	}
	return maphash.String(b.seed, canonicalID(id))
}

// shorten returns a copy of s, or of its beginning.
func shorten(s string) string {
	n := min(len(s), maxShown)
	for n < len(s) && n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}

// tapeMessage parses the message of the line e. It is of kind Opaque if it is none, or e has none.
func tapeMessage(e *Entry) *Message {
	if e.Kind != lineMsg {
		return &Message{Raw: e.Msg}
	}
	if m, err := Parse(e.Msg); err == nil {
		return m
	}
	return &Message{Raw: e.Msg}
}

// A tapeLine is a line of a tape and what it is about.
type tapeLine struct {
	*Entry
	m        *Message
	call     *tapeCall // that m makes or answers; nil if it is none of the two, or that one is not in the book
	answered bool      // the call was in flight until then
}

// pick hands the lines of t that o asks for to f, up to its first error. With a method or an exchange those are the calls
// that match, their responses, and whatever is in their exchange.
func (o TapeToolOptions) pick(t *TapeReader, book *callBook, f func(l tapeLine) error) error {
	return t.Each(func(e *Entry) error {
		l := tapeLine{Entry: e, m: tapeMessage(e)}
		ok := (o.Exchange == 0 || o.Exchange == e.Seq) && (o.Method == "" || l.m.Method != "" && matchesName(o.Method, l.m.Method))
		for _, seq := range [...]int64{e.X, e.Re, e.Was} {
			if c := book.calls[seq]; seq != 0 && c != nil && c.kept {
				ok = true
			}
		}
		ok = ok && (o.Session == 0 || e.Session == o.Session)
		switch l.m.Kind {
		case Call:
			if l.call = book.book(e, l.m); l.call != nil {
				l.call.kept = l.call.kept || ok
			}
		case Response:
			if l.call = book.calls[e.Re]; l.call != nil {
				l.answered = !l.call.retired
				book.retire(l.call)
			}
		}
		if !ok {
			return nil
		}
		return f(l)
	})
}

// matchesName reports whether name is pattern, in which * stands for anything.
func matchesName(pattern, name string) bool {
	part, rest, wild := strings.Cut(pattern, "*")
	name, ok := strings.CutPrefix(name, part)
	for ok && wild {
		if part, rest, wild = strings.Cut(rest, "*"); !wild {
			return strings.HasSuffix(name, part)
		}
		_, name, ok = strings.Cut(name, part)
	}
	return ok && name == ""
}
