// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"strings"
)

// maxDifferences is how many differences of one pair of exchanges are printed.
const maxDifferences = 20

// A namedTape is a tape to be read here and there.
type namedTape struct {
	Name string
	io.ReaderAt
}

// A lineAt is where a line is in its file. The zero value is none.
type lineAt struct {
	offset int64
	size   int
}

// placeOf is where the line e is.
func placeOf(e *Entry) lineAt { return lineAt{e.Offset, e.Size} }

// A tapeExchange is where a client's call and its answer are.
type tapeExchange struct {
	key          uint64 // equal calls have equal keys
	seq          int64
	call, answer lineAt
	next         int // in its list, the one with the same key that comes after this; -1: none
}

// A tapeDifference is what a difference between two tapes is in JSON. A and B are the Seq of the call, 0 if it is not
// there.
type tapeDifference struct {
	What   string       `json:"what"` // only-a, only-b, differs
	Method string       `json:"method"`
	Name   string       `json:"name,omitempty"`
	A      int64        `json:"a,omitempty"`
	B      int64        `json:"b,omitempty"`
	Places []tapePlace  `json:"places,omitempty"` // of What differs, the first few
	More   int          `json:"more,omitempty"`   // places beyond those
	found  []Difference // what Places has for programs
}

// A tapePlace is one place where two answers differ. A value that is absent is left out.
type tapePlace struct {
	At string          `json:"at"`
	A  json.RawMessage `json:"a,omitempty"`
	B  json.RawMessage `json:"b,omitempty"`
}

// A tapeDiffer compares the tapes a and b.
type tapeDiffer struct {
	a, b namedTape
	out  *bufio.Writer
	o    TapeToolOptions
	seed maphash.Seed

	same, differ, onlyA, onlyB int
}

// diffTapes prints in what the tapes a and b differ, and returns the number of exchanges that do. The client's calls
// are paired by method and params, _meta aside, in their order; of initialize and server/discover, by method alone, the
// params are compared as the answers are. A small record of each exchange is held, and the bodies of a pair while they
// are compared. The error is a *[TapeError], or one of the files or out.
func diffTapes(a, b namedTape, out io.Writer, o TapeToolOptions) (differences int, err error) {
	d := &tapeDiffer{a: a, b: b, out: bufio.NewWriter(out), o: o, seed: maphash.MakeSeed()}
	listA, err := d.index(a)
	if err != nil {
		return 0, err
	}
	listB, err := d.index(b)
	if err != nil {
		return 0, err
	}
	err = d.compare(listA, listB)
	if err == nil && !o.JSON {
		fmt.Fprintf(d.out, "a: %s, %d exchanges; b: %s, %d exchanges: %d the same, %d differ, %d only in a, %d only in b\n",
			a.Name, len(listA), b.Name, len(listB), d.same, d.differ, d.onlyA, d.onlyB)
	}
	if failed := d.out.Flush(); err == nil {
		err = failed
	}
	return d.differ + d.onlyA + d.onlyB, err
}

// index lists the exchanges of a tape that reached its server.
func (d *tapeDiffer) index(f namedTape) ([]tapeExchange, error) {
	tape, err := NewTapeReader(io.NewSectionReader(f, 0, math.MaxInt64), f.Name, d.o.Max)
	if err != nil {
		return nil, err
	}
	var list []tapeExchange
	book := newCallBook()
	filter := &tapeFilter{TapeToolOptions: d.o, book: book}
	err = tape.Each(func(e *Entry) error {
		m := tapeMessage(e)
		call, answered, ok := filter.pick(e, m)
		switch {
		case call == nil || !ok || call.dir != dirToServer || e.Local && m.Kind == Call:
		case m.Kind == Call && e.Was == 0:
			list = append(list, tapeExchange{key: d.key(m), seq: e.Seq, call: placeOf(e)})
			call.at = len(list)
		case answered && call.at > 0:
			list[call.at-1].answer = placeOf(e)
		}
		return nil
	})
	if err == nil && book.full {
		err = fmt.Errorf("%s: more than %d calls are in flight at once", f.Name, maxFollowed)
	}
	return list, err
}

// key is the same for calls that are equal.
func (d *tapeDiffer) key(m *Message) uint64 {
	text := m.Method
	if !isHandshake(m.Method) {
		params := decodeJSON(m.Params)
		if object, ok := params.(map[string]any); ok {
			delete(object, "_meta")
			if len(object) == 0 {
				params = nil
			}
		}
		text += " " + encodeJSON(params)
	}
	return maphash.String(d.seed, text)
}

func isHandshake(method string) bool { return method == methodInitialize || method == methodDiscover }

// compare goes through the exchanges of a in their order, each with the first of b that is equal and free.
func (d *tapeDiffer) compare(a, b []tapeExchange) error {
	free := map[uint64]int{}
	for i := len(b) - 1; i >= 0; i-- {
		next, ok := free[b[i].key]
		if b[i].next = -1; ok {
			b[i].next = next
		}
		free[b[i].key] = i
	}
	paired := make([]bool, len(b))
	for i := range a {
		j, ok := free[a[i].key]
		if !ok || j < 0 {
			d.onlyA++
			if err := d.lonely(d.a, &a[i], tapeDifference{What: "only-a", A: a[i].seq}); err != nil {
				return err
			}
			continue
		}
		paired[j], free[a[i].key] = true, b[j].next
		if err := d.pair(&a[i], &b[j]); err != nil {
			return err
		}
	}
	for j := range b {
		if !paired[j] {
			d.onlyB++
			if err := d.lonely(d.b, &b[j], tapeDifference{What: "only-b", B: b[j].seq}); err != nil {
				return err
			}
		}
	}
	return nil
}

// message reads the message at a place of a tape, nil if there is none.
func (f namedTape) message(at lineAt) (*Message, error) {
	if at.size == 0 {
		return nil, nil
	}
	line := make([]byte, at.size)
	if _, err := f.ReadAt(line, at.offset); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	e, err := ParseEntry(string(line[:len(line)-1]))
	if err != nil {
		return nil, fmt.Errorf("%s changed while it was read: %w", f.Name, err)
	}
	return tapeMessage(e), nil
}

// lonely prints an exchange of f that has no counterpart.
func (d *tapeDiffer) lonely(f namedTape, x *tapeExchange, found tapeDifference) error {
	call, err := f.message(x.call)
	if err == nil {
		d.print(found, call)
	}
	return err
}

// pair compares two exchanges whose calls are equal.
func (d *tapeDiffer) pair(a, b *tapeExchange) error {
	callA, errA := d.a.message(a.call)
	callB, errB := d.b.message(b.call)
	answerA, errC := d.a.message(a.answer)
	answerB, errD := d.b.message(b.answer)
	for _, err := range []error{errA, errB, errC, errD} {
		if err != nil {
			return err
		}
	}
	c := Comparer{Ignore: d.o.Ignore}
	var found []Difference
	shakes := isHandshake(callA.Method)
	if answerA != nil && answerB != nil && answerA.Result == answerB.Result && answerA.Error == answerB.Error && !shakes {
		d.same++ // in most pairs, and decoding costs ten times as much
		return nil
	}
	if shakes {
		found = c.Compare(Pointer{"params"}, decodedOr(callA.Params), decodedOr(callB.Params))
	}
	if found = append(found, c.Compare(nil, answerValue(answerA), answerValue(answerB))...); found == nil {
		d.same++
		return nil
	}
	d.differ++
	d.print(tapeDifference{What: "differs", A: a.seq, B: b.seq, found: found}, callA)
	return nil
}

func decodedOr(text string) any {
	if text == "" {
		return absent{}
	}
	return unfoldText(decodeJSON(text))
}

// answerValue is what of an answer counts: its result or error.
func answerValue(m *Message) any {
	if m == nil {
		return absent{}
	}
	v := map[string]any{}
	for key, text := range map[string]string{"result": m.Result, "error": m.Error} {
		if text != "" {
			v[key] = decodedOr(text)
		}
	}
	return v
}

// unfoldText replaces each text in v, a value of decodeJSON, that is itself the JSON text of an object or array by what
// it says. v is changed.
func unfoldText(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = unfoldText(v[i])
		}
	case map[string]any:
		for k, inner := range v {
			text, ok := inner.(string)
			if s := strings.TrimLeft(text, whiteSpace); ok && k == "text" && s != "" && (s[0] == '{' || s[0] == '[') && json.Valid([]byte(s)) {
				v[k] = decodeJSON(s)
			} else if !ok {
				v[k] = unfoldText(inner)
			}
		}
	}
	return v
}

// print prints what was found about the exchange of call.
func (d *tapeDiffer) print(f tapeDifference, call *Message) {
	f.Method, f.Name = call.Method, call.Name+call.URI
	shown := f.found[:min(len(f.found), maxDifferences)]
	f.More = len(f.found) - len(shown)
	if d.o.JSON {
		for _, place := range shown {
			f.Places = append(f.Places, tapePlace{place.At.String(), rawJSON(place.A), rawJSON(place.B)})
		}
		e := json.NewEncoder(d.out)
		e.SetEscapeHTML(false)
		e.Encode(f)
		return
	}
	_, content := shownMessage(call)
	where := fmt.Sprintf("differs (a seq %d, b seq %d)", f.A, f.B)
	switch f.What {
	case "only-a":
		where = fmt.Sprintf("only in a (seq %d)", f.A)
	case "only-b":
		where = fmt.Sprintf("only in b (seq %d)", f.B)
	}
	fmt.Fprintf(d.out, "%s: %s\n", where, printable(joined(call.Method, f.Name)+" "+content, showWidth-40))
	for _, place := range shown {
		text := place.String()
		if len(place.At) == 0 {
			text = "answer" + text
		}
		fmt.Fprintln(d.out, "    "+printable(text, 2*showWidth))
	}
	if f.More > 0 {
		fmt.Fprintf(d.out, "    and %d more\n", f.More)
	}
}
