// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"strings"
)

// maxDifferences is how many differences of one pair of exchanges are printed.
const maxDifferences = 20

// A tapeExchange is where a client's call and its answer are.
type tapeExchange struct {
	key          uint64 // on each tape, calls that are equal and the same number of those that are equal have it
	seq          int64
	call, answer messageAt
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

	err   error          // the first of reading
	count map[string]int // of pairs that are the same, and of each tapeDifference.What
}

// diffTapes prints in what the tapes a and b differ, and returns the number of exchanges that do. The client's calls
// are paired by method and params, _meta aside, in their order; of initialize and server/discover, by method alone, the
// params are compared as the answers are. A small record of each exchange is held, and the bodies of a pair while they
// are compared. The error is a *[TapeError], or one of the files or out.
func diffTapes(a, b namedTape, out io.Writer, o TapeToolOptions) (differences int, err error) {
	d := &tapeDiffer{a: a, b: b, out: bufio.NewWriter(out), o: o, seed: maphash.MakeSeed(), count: map[string]int{}}
	listA, err := d.index(a)
	if err != nil {
		return 0, err
	}
	listB, err := d.index(b)
	if err != nil {
		return 0, err
	}
	d.compare(listA, listB)
	if d.err == nil && !o.JSON {
		fmt.Fprintf(d.out, "a: %s, %d exchanges; b: %s, %d exchanges: %d the same, %d differ, %d only in a, %d only in b\n",
			a.Name, len(listA), b.Name, len(listB), d.count["same"], d.count["differs"], d.count["only-a"], d.count["only-b"])
	}
	return d.count["differs"] + d.count["only-a"] + d.count["only-b"], cmp.Or(d.err, d.out.Flush())
}

// index lists the exchanges of a tape that reached its server.
func (d *tapeDiffer) index(f namedTape) ([]tapeExchange, error) {
	tape, err := f.reader(d.o.Max)
	if err != nil {
		return nil, err
	}
	var list []tapeExchange
	equal := map[uint64]uint64{} // how many there are so far, by key
	book := newCallBook()
	err = d.o.pick(tape, book, func(l tapeLine) error {
		switch {
		case l.call == nil || l.call.dir != dirToServer || l.Local && l.m.Kind == Call:
		case l.m.Kind == Call && l.Was == 0:
			key := d.key(l.m)
			equal[key]++
			list = append(list, tapeExchange{key: maphash.Comparable(d.seed, [...]uint64{key, equal[key]}), seq: l.Seq, call: placeOf(l.Entry)})
			l.call.at = len(list)
		case l.answered && l.call.at > 0:
			list[l.call.at-1].answer = placeOf(l.Entry)
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
		params := encodeJSON(decodeJSON(withoutMember(m.Params, "_meta")))
		if params == "{}" {
			params = "null"
		}
		text += " " + params
	}
	return maphash.String(d.seed, text)
}

func isHandshake(method string) bool { return method == methodInitialize || method == methodDiscover }

// compare goes through the exchanges of a in their order, each with its equal in b, and then through what is left of b.
func (d *tapeDiffer) compare(a, b []tapeExchange) {
	left := make(map[uint64]*tapeExchange, len(b))
	for j := range b {
		left[b[j].key] = &b[j]
	}
	for i := range a {
		d.pair(&a[i], left[a[i].key])
		delete(left, a[i].key)
	}
	for j := range b {
		if left[b[j].key] != nil {
			d.pair(nil, &b[j])
		}
	}
}

// read reads an exchange. What there is not of it is nil.
func (d *tapeDiffer) read(f namedTape, x *tapeExchange) (call, answer *Message, seq int64) {
	if x == nil || d.err != nil {
		return nil, nil, 0
	}
	call, err := f.message(x.call)
	answer, failed := f.message(x.answer)
	d.err = cmp.Or(err, failed)
	return call, answer, x.seq
}

// pair compares two exchanges whose calls are equal. One of them may be nil.
func (d *tapeDiffer) pair(a, b *tapeExchange) {
	callA, answerA, seqA := d.read(d.a, a)
	callB, answerB, seqB := d.read(d.b, b)
	f := tapeDifference{What: "differs", A: seqA, B: seqB}
	switch {
	case d.err != nil:
		return
	case a == nil:
		f.What = "only-b"
	case b == nil:
		f.What = "only-a"
	case answerA != nil && answerB != nil && answerA.Result == answerB.Result && answerA.Error == answerB.Error && !isHandshake(callA.Method):
		f.What = "same" // in most pairs, and decoding costs ten times as much
	default:
		c := Comparer{Ignore: d.o.Ignore}
		if isHandshake(callA.Method) {
			f.found = c.Compare(Pointer{"params"}, decodedOr(callA.Params), decodedOr(callB.Params))
		}
		if f.found = append(f.found, c.Compare(nil, answerValue(answerA), answerValue(answerB))...); f.found == nil {
			f.What = "same"
		}
	}
	if d.count[f.What]++; f.What != "same" {
		d.print(f, cmp.Or(callA, callB))
	}
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
	return mapStrings(v, "", func(key, text string) any {
		s := strings.TrimLeft(text, whiteSpace)
		if key == "text" && s != "" && (s[0] == '{' || s[0] == '[') && json.Valid([]byte(s)) {
			return decodeJSON(s)
		}
		return text
	})
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
		fmt.Fprintln(d.out, encodeJSON(f))
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
