// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// trimTape writes a tape of one session or one exchange of the tape in, with what opened and closed its session and its
// handshake, its lines numbered from 1. It reads in up to five times, and holds a number for each line that it keeps.
// The error is a *[TapeError], or one of in or out, or says that there is no such session or exchange.
func trimTape(in io.ReaderAt, name string, out io.Writer, o TapeToolOptions) error {
	if o.Session == 0 && o.Exchange == 0 {
		return errors.New("trim wants -session or -exchange")
	}
	pass := func(f func(e *Entry) error) (*TapeReader, error) {
		tape, err := namedTape{name, in}.reader(o.Max)
		if err != nil {
			return nil, err
		}
		return tape, tape.Each(f)
	}
	t := tapeTrim{session: o.Session, exchange: o.Exchange, eras: []string{}}
	for found := int64(0); found != t.exchange; {
		found = t.exchange
		switch _, err := pass(t.resolve); {
		case err == nil:
			return fmt.Errorf("%s: line seq %d is no message of an exchange", name, o.Exchange)
		case err != io.EOF:
			return err
		case o.Session != 0 && o.Session != t.session:
			return fmt.Errorf("%s: exchange %d is of session %d", name, o.Exchange, t.session)
		}
	}
	tape, err := pass(t.choose)
	if err != nil {
		return err
	}
	if t.messages == 0 {
		return fmt.Errorf("%s: no message of session %d", name, o.Session)
	}
	h := tape.Header
	h.Eras, h.Continues = t.eras[:min(len(t.eras), 1)], ""
	w, err := newTapeWriter(out, h)
	if err != nil {
		return err
	}
	if _, err := pass(func(e *Entry) error {
		if n := t.number(e.Seq); n != 0 {
			e.Seq, e.X, e.Re, e.Was = n, t.number(e.X), t.number(e.Re), t.number(e.Was)
			w.Write(e)
		}
		return nil
	}); err != nil {
		return err
	}
	return w.End(t.eras)
}

// A tapeTrim goes through a tape and notes which lines to keep: all of a session if exchange is 0.
type tapeTrim struct {
	session  int64
	exchange int64 // Seq of the client's call

	calls     []int64 // Seq of each call whose exchange is kept: a few
	handshake [3]bool // the first of each was seen
	kept      []int64 // Seq of each line that is kept
	messages  int     // among them
	eras      []string
}

// resolve makes t.exchange, the Seq of any message, that of the call in whose exchange it travelled, or of the call as it
// came, before a rule changed it, and t.session its session. It returns io.EOF once it has.
func (t *tapeTrim) resolve(e *Entry) error {
	if e.Seq != t.exchange || e.Kind != lineMsg {
		return nil
	}
	switch {
	case e.X != 0 || e.Re != 0:
		t.exchange = cmp.Or(e.X, e.Re)
	case e.Dir != dirToServer || tapeMessage(e).Kind != Call:
		return nil
	case e.Was != 0:
		t.exchange = e.Was
	}
	t.session = e.Session
	return io.EOF
}

// choose notes the line e if it is to be kept.
func (t *tapeTrim) choose(e *Entry) error {
	m := tapeMessage(e)
	if !t.wanted(e, m) {
		return nil
	}
	t.kept = append(t.kept, e.Seq)
	t.messages += btoi(e.Kind == lineMsg)
	if m.Kind == Call && e.Dir == dirToServer && !slices.Contains(t.eras, eraOf(m)) {
		t.eras = append(t.eras, eraOf(m))
	}
	return nil
}

func (t *tapeTrim) wanted(e *Entry, m *Message) bool {
	if e.Kind == lineBlind { // whatever the session, something may be missing
		return true
	}
	if t.exchange == 0 {
		return e.Session == t.session
	}
	ours := func(seq int64) bool { return seq != 0 && slices.Contains(t.calls, seq) }
	switch {
	case e.Kind == lineDropped || e.Kind == lineRule:
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
