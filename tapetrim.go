// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// trimTape writes a tape of one session or one exchange of the tape in, with what opened and closed its session and its
// handshake, its lines numbered from 1. It reads in up to three times, and holds a number for each line that it keeps.
// The error is a *[TapeError], or one of in or out, or says that there is no such session or exchange.
func trimTape(in io.ReadSeeker, name string, out io.Writer, o TapeToolOptions) error {
	if o.Session == 0 && o.Exchange == 0 {
		return errors.New("trim wants -session or -exchange")
	}
	pass := func(f func(e *Entry) error) (*TapeReader, error) {
		if _, err := in.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		tape, err := NewTapeReader(in, name, o.Max)
		if err != nil {
			return nil, err
		}
		return tape, tape.Each(f)
	}
	find := tapeTrim{session: o.Session, exchange: o.Exchange}
	if o.Exchange != 0 {
		if _, err := pass(find.resolve); err != nil && err != io.EOF {
			return err
		}
		if !find.found {
			return fmt.Errorf("%s: line seq %d is no message of an exchange", name, o.Exchange)
		}
		if o.Session != 0 && o.Session != find.session {
			return fmt.Errorf("%s: exchange %d is of session %d", name, o.Exchange, find.session)
		}
	}
	var eras []string
	first := find
	tape, err := pass(func(e *Entry) error {
		if m := tapeMessage(e); first.keep(e, m) && e.Kind == lineMsg {
			first.found = true
			if era := eraOf(m); era != "" && !slices.Contains(eras, era) {
				eras = append(eras, era)
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !first.found:
		return fmt.Errorf("%s: no message of session %d", name, o.Session)
	case eras == nil:
		eras = tape.Eras
	}
	h := tape.Header
	h.Eras, h.Continues = eras[:min(len(eras), 1)], ""
	w, err := newTapeWriter(out, h)
	if err != nil {
		return err
	}
	if _, err := pass(func(e *Entry) error {
		if find.keep(e, tapeMessage(e)) {
			e.X, e.Re, e.Was = find.number(e.X), find.number(e.Re), find.number(e.Was)
			e.Seq = find.number(e.Seq)
			w.Write(e)
		}
		return nil
	}); err != nil {
		return err
	}
	return w.End(eras)
}

// A tapeTrim goes through a tape and says which lines to keep: all of a session if exchange is 0.
type tapeTrim struct {
	session  int64
	exchange int64 // Seq of the client's call
	found    bool

	calls     []int64 // Seq of each call whose exchange is kept: a few
	handshake [3]bool // the first of each was seen
	kept      []int64 // Seq of each line that was kept
}

// resolve makes t.exchange, the Seq of any message, that of the call in whose exchange it travelled, and t.session its
// session. It returns io.EOF once it has.
func (t *tapeTrim) resolve(e *Entry) error {
	if e.Seq != t.exchange {
		return nil
	}
	switch {
	case e.Kind != lineMsg:
	case e.X != 0:
		t.exchange, t.found = e.X, true
	case e.Re != 0:
		t.exchange, t.found = e.Re, true
	default:
		t.found = e.Dir == dirToServer && tapeMessage(e).Kind == Call
		if e.Was != 0 {
			t.exchange = e.Was
		}
	}
	t.session = e.Session
	return io.EOF
}

// keep reports whether to keep the line e, with the message m.
func (t *tapeTrim) keep(e *Entry, m *Message) bool {
	if !t.wanted(e, m) {
		return false
	}
	t.kept = append(t.kept, e.Seq)
	return true
}

func (t *tapeTrim) wanted(e *Entry, m *Message) bool {
	if e.Kind == lineBlind { // whatever the session, something may be missing
		return true
	}
	if t.exchange == 0 {
		return e.Session == t.session && e.Kind != lineEnd
	}
	ours := func(seq int64) bool { return seq != 0 && slices.Contains(t.calls, seq) }
	switch {
	case e.Kind == lineEnd:
		return false
	case e.Kind == lineDropped:
		return t.number(e.Re) != 0
	case e.Kind != lineMsg && e.Kind != lineRaw:
		return t.session != 0 && e.Session == t.session
	case e.Seq == t.exchange || ours(e.Was) || t.shakes(e, m):
		if m.Kind == Call {
			t.calls = append(t.calls, e.Seq)
		}
		return true
	}
	return ours(e.X) || ours(e.Re)
}

// shakes reports whether m is of the handshake: the first of its kind in the session. A response is kept with its call.
func (t *tapeTrim) shakes(e *Entry, m *Message) bool {
	i := slices.Index([]string{methodInitialize, methodDiscover, methodInitialized}, m.Method)
	if i < 0 || e.Session != t.session || e.Dir != dirToServer || t.handshake[i] {
		return false
	}
	t.handshake[i] = true
	return true
}

// number is the new number of the line that had seq, 0 if it is not kept.
func (t *tapeTrim) number(seq int64) int64 {
	i, ok := slices.BinarySearch(t.kept, seq)
	if !ok {
		return 0
	}
	return int64(i + 1)
}
