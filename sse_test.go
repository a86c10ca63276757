// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// readEvents returns all that e has, and its final error.
func readEvents(e *EventReader) (events []Event, err error) {
	for {
		ev, err := e.Next()
		if err != nil {
			return events, err
		}
		events = append(events, ev)
	}
}

// sseFrames returns the frames of events, joined.
func sseFrames(events []Event) string {
	var b strings.Builder
	for _, ev := range events {
		b.WriteString(ev.Frame)
	}
	return b.String()
}

func TestEventReader(t *testing.T) {
	const bom = "\ufeff"
	none := func(frame string) Event { return Event{Frame: frame, Retry: -1} }
	data := func(frame, data string) Event { return Event{Frame: frame, Data: data, HasData: true, Retry: -1} }
	tests := []struct {
		name, in string
		want     []Event
		err      error
	}{
		{"nothing", "", nil, io.EOF},
		{"one line", "data: a\n\n", []Event{data("data: a\n\n", "a")}, io.EOF},
		{"all fields", "event: message\nid: 7\nretry: 1500\ndata:x\n\n", []Event{{Frame: "event: message\nid: 7\nretry: 1500\ndata:x\n\n",
			ID: "7", HasID: true, Name: "message", Data: "x", HasData: true, Retry: 1500}}, io.EOF},
		{"two data lines", "data: a\ndata: b\n\n", []Event{data("data: a\ndata: b\n\n", "a\nb")}, io.EOF},
		{"empty data lines", "data\ndata:\ndata: \n\n", []Event{data("data\ndata:\ndata: \n\n", "\n\n")}, io.EOF},
		{"priming", "id: 1\ndata:\n\n", []Event{{Frame: "id: 1\ndata:\n\n", ID: "1", HasID: true, HasData: true, Retry: -1}}, io.EOF},
		{"only one space goes", "data:  a: b \n\n", []Event{data("data:  a: b \n\n", " a: b ")}, io.EOF},
		{"empty id", "id\n\n", []Event{{Frame: "id\n\n", HasID: true, Retry: -1}}, io.EOF},
		{"id with NUL", "id: 1\nid: 2\x003\n\n", []Event{{Frame: "id: 1\nid: 2\x003\n\n", ID: "1", HasID: true, Retry: -1}}, io.EOF},
		{"last one counts", "event: a\nevent: b\nid: 1\nid:\n\n", []Event{{Frame: "event: a\nevent: b\nid: 1\nid:\n\n",
			HasID: true, Name: "b", Retry: -1}}, io.EOF},
		{"bad retry", "retry: 1\nretry: -5\nretry:\nretry: 1s\n\n", []Event{{Frame: "retry: 1\nretry: -5\nretry:\nretry: 1s\n\n", Retry: 1}}, io.EOF},
		{"long retry", "retry: 99999999999999999999\n\n", []Event{{Frame: "retry: 99999999999999999999\n\n", Retry: 1<<31 - 1}}, io.EOF},
		{"unknown and cased fields", "Data: a\ndatum: b\n data: c\n\n", []Event{none("Data: a\ndatum: b\n data: c\n\n")}, io.EOF},
		{"comments and blanks", ":\n\n: ka\n\n\ndata: a\n: in it\n\n", []Event{none(":\n"), none("\n"), none(": ka\n"), none("\n"), none("\n"),
			data("data: a\n: in it\n\n", "a")}, io.EOF},
		{"CRLF", ": c\r\ndata: a\r\ndata: b\r\n\r\n\r\n", []Event{none(": c\r\n"), data("data: a\r\ndata: b\r\n\r\n", "a\nb"), none("\r\n")}, io.EOF},
		{"CR", ": c\rdata: a\rdata: b\r\r\r", []Event{none(": c\r"), data("data: a\rdata: b\r\r", "a\nb"), none("\r")}, io.EOF},
		{"mixed", "data: a\rdata: b\ndata: c\r\n\rdata: d\n\r\n", []Event{data("data: a\rdata: b\ndata: c\r\n\r", "a\nb\nc"),
			data("data: d\n\r\n", "d")}, io.EOF},
		{"mark", bom + "data: a\n\ndata: b\n\n", []Event{data(bom+"data: a\n\n", "a"), data("data: b\n\n", "b")}, io.EOF},
		{"mark, comment", bom + ": c\n\n", []Event{none(bom + ": c\n"), none("\n")}, io.EOF},
		{"mark, blank", bom + "\ndata: a\n\n", []Event{none(bom + "\n"), data("data: a\n\n", "a")}, io.EOF},
		{"mark twice", bom + bom + "data: a\n\n", []Event{none(bom + bom + "data: a\n\n")}, io.EOF},
		{"mark later", "\n" + bom + "data: a\n\n", []Event{none("\n"), none(bom + "data: a\n\n")}, io.EOF},
		{"ends in an event", "data: a\n\ndata: b\n", []Event{data("data: a\n\n", "a")}, io.ErrUnexpectedEOF},
		{"ends in a line", "data: a", nil, io.ErrUnexpectedEOF},
		{"ends in a comment", ": a", nil, io.ErrUnexpectedEOF},
		{"ends in a mark", bom[:2], nil, io.ErrUnexpectedEOF},
	}
	for _, test := range tests {
		got, err := readEvents(NewEventReader(strings.NewReader(test.in), 1<<20))
		if !reflect.DeepEqual(got, test.want) || err != test.err {
			t.Errorf("%s: got %+v, %v, want %+v, %v", test.name, got, err, test.want, test.err)
		}
	}
}

// ssePieces is a reader that returns one piece a call, and at the end err.
type ssePieces struct {
	pieces []string
	err    error
	reads  int
}

func (s *ssePieces) Read(p []byte) (int, error) {
	s.reads++
	if len(s.pieces) == 0 {
		return 0, s.err
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; s.pieces[0] == "" {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

// A frame must be there after the read that brought its last byte.
func TestEventReaderDoesNotWait(t *testing.T) {
	type step struct {
		frame string
		reads int
	}
	tests := []struct {
		name   string
		pieces []string
		want   []step
	}{
		{"keep-alive", []string{":\n", "data: a\n", "\n"}, []step{{":\n", 1}, {"data: a\n\n", 3}}},
		{"two at once", []string{"data: a\n\ndata: b\n\n", "\n"}, []step{{"data: a\n\n", 1}, {"data: b\n\n", 1}, {"\n", 2}}},
		{"CR", []string{"data: a\r\r", "data: b\r", "\r"}, []step{{"data: a\r\r", 1}, {"data: b\r\r", 3}}},
		{"CR, then LF", []string{"data: a\r\n\r", "\n", "data: b\n\n"}, []step{{"data: a\r\n\r", 1}, {"\n", 2}, {"data: b\n\n", 3}}},
		{"CRLF split inside", []string{"data: a\r", "\ndata: b\r", "\n\r\n"}, []step{{"data: a\r\ndata: b\r\n\r\n", 3}}},
		{"comment CR, then LF", []string{": a\r", "\n"}, []step{{": a\r", 1}, {"\n", 2}}},
	}
	for _, test := range tests {
		r := &ssePieces{pieces: test.pieces, err: io.EOF}
		e := NewEventReader(r, 1<<20)
		for i, want := range test.want {
			ev, err := e.Next()
			if got := (step{ev.Frame, r.reads}); got != want || err != nil {
				t.Errorf("%s: %d: got %+v, %v, want %+v", test.name, i, got, err, want)
			}
		}
		if _, err := e.Next(); err != io.EOF {
			t.Errorf("%s: got %v, want EOF", test.name, err)
		}
	}
}

func TestEventReaderErrors(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name string
		max  int
		r    io.Reader
		want string
		err  error
	}{
		{"just fits", 9, strings.NewReader("data: a\n\ndata: b\n\n"), "data: a\n\ndata: b\n\n", io.EOF},
		{"too long", 9, strings.NewReader("data: a\n\ndata: bc\n\n"), "data: a\n\n", errEventTooLong},
		{"too long after growth", 9000, strings.NewReader(":\ndata: " + strings.Repeat("x", 9000) + "\n\n"), ":\n", errEventTooLong},
		{"no room", 0, strings.NewReader("\n"), "", errEventTooLong},
		{"broken", 99, &ssePieces{[]string{"data: a\n\nda"}, broken, 0}, "data: a\n\n", broken},
		{"data with error", 99, iotest.DataErrReader(&ssePieces{[]string{"data: a\n\n"}, broken, 0}), "data: a\n\n", broken},
		{"cut by the transport", 99, &ssePieces{[]string{"data: a\n\n"}, io.ErrUnexpectedEOF, 0}, "data: a\n\n", io.ErrUnexpectedEOF},
		{"no progress", 99, &ssePieces{nil, nil, 0}, "", io.ErrNoProgress},
	}
	for _, test := range tests {
		e := NewEventReader(test.r, test.max)
		events, err := readEvents(e)
		if got := sseFrames(events); got != test.want || err != test.err {
			t.Errorf("%s: got %q, %v, want %q, %v", test.name, got, err, test.want, test.err)
		}
		if _, err := e.Next(); err != test.err {
			t.Errorf("%s: again: got %v, want %v", test.name, err, test.err)
		}
	}
}

func TestEventReaderAllocs(t *testing.T) {
	for _, frame := range []string{": ka\n", "id: 1\nevent: message\ndata: {}\n\n", "data: {\ndata: }\n\n"} {
		e := NewEventReader(strings.NewReader(strings.Repeat(frame, 2000)), 1<<20)
		got := testing.AllocsPerRun(1000, func() {
			if ev, err := e.Next(); ev.Frame != frame || err != nil {
				t.Fatalf("got %q, %v, want %q", ev.Frame, err, frame)
			}
		})
		if got > 2 {
			t.Errorf("%q: got %v allocations, want at most 2", frame, got)
		}
	}
}

// A reader that searched anything twice would not end within the time that a test has.
func TestEventReaderLongFrames(t *testing.T) {
	for _, unit := range []string{"x", "\ra", "\na", "\rdata"} {
		for size, oneByte := range map[int]bool{2 << 20: false, 1 << 16: true} {
			frame := "data: " + strings.Repeat(unit, size/len(unit)) + "\n\n"
			var r io.Reader = strings.NewReader(frame + ":\n")
			if oneByte {
				r = iotest.OneByteReader(r)
			}
			e := NewEventReader(r, len(frame))
			ev, err := e.Next()
			if ev.Frame != frame || err != nil {
				t.Errorf("%q: got %d bytes, %v, want %d", unit, len(ev.Frame), err, len(frame))
			}
			if ev, err = e.Next(); ev.Frame != ":\n" || err != nil {
				t.Errorf("%q: got %q, %v after it, want a comment", unit, ev.Frame, err)
			}
		}
	}
}

// A reader that waits must not hold the memory of a large event that is over.
func TestEventReaderIdle(t *testing.T) {
	large := "data: " + strings.Repeat("x", 1<<20) + "\n\n"
	var e *EventReader
	held := 0
	r := io.MultiReader(strings.NewReader(large), sseReadFunc(func([]byte) (int, error) {
		held = len(e.buf)
		return 0, io.EOF
	}))
	e = NewEventReader(r, 2<<20)
	if events, err := readEvents(e); len(events) != 1 || err != io.EOF || held > idleBuffer {
		t.Errorf("got %d events, %v, %d bytes held, want 1, EOF, at most %d", len(events), err, held, idleBuffer)
	}
}

type sseReadFunc func(p []byte) (int, error)

func (f sseReadFunc) Read(p []byte) (int, error) { return f(p) }

func TestAppendEvent(t *testing.T) {
	tests := []struct {
		event Event
		want  string
	}{
		{Event{Retry: -1}, "\n"},
		{Event{Data: "a", HasData: true, Retry: -1}, "data: a\n\n"},
		{Event{ID: "1", HasID: true, HasData: true, Retry: -1}, "id: 1\ndata: \n\n"},
		{Event{Frame: "x", ID: "1", HasID: true, Name: "n", Data: "a", HasData: true, Retry: 0}, "id: 1\nevent: n\nretry: 0\ndata: a\n\n"},
		{Event{Data: "a\nb\rc\r\nd\r\r\n\n", HasData: true, Retry: -1},
			"data: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: \ndata: \n\n"},
		{Event{Data: "a\r", HasData: true, Retry: -1}, "data: a\ndata: \n\n"},
		{Event{ID: "1\ndata: x", HasID: true, Name: "a\rdata: x", Data: "a", HasData: true, Retry: -1}, "data: a\n\n"},
		{Event{ID: "1\x00", HasID: true, Retry: 5}, "retry: 5\n\n"},
	}
	for _, test := range tests {
		if got := string(appendEvent([]byte("before "), test.event)); got != "before "+test.want {
			t.Errorf("%+v: got %q, want %q", test.event, got, test.want)
		}
	}
}

// sseReference reads in as the standard is written, line by line. It returns the fields of each block that
// has any, and how many bytes at the end belong to no finished block.
func sseReference(in string) (events []Event, tail int) {
	rest := strings.TrimPrefix(in, "\ufeff")
	ev, fields, done := Event{Retry: -1}, 0, 0
	for _, line := range regexp.MustCompile(`(?s)[^\r\n]*(\r\n|\r|\n)`).FindAllString(rest, -1) {
		done += len(line)
		line = strings.TrimRight(line, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if !reflect.DeepEqual(ev, Event{Retry: -1}) {
				ev.Data = strings.TrimSuffix(ev.Data, "\n")
				events = append(events, ev)
			}
			ev, fields, tail = Event{Retry: -1}, 0, done
		case fields == 0 && name == "":
			tail = done
		default:
			fields++
		}
		switch name {
		case "data":
			ev.Data, ev.HasData = ev.Data+value+"\n", true
		case "event":
			ev.Name = value
		case "id":
			if !strings.Contains(value, "\x00") {
				ev.ID, ev.HasID = value, true
			}
		case "retry":
			if regexp.MustCompile(`^[0-9]+$`).MatchString(value) {
				n, _ := strconv.ParseInt(value, 10, 32) // if out of range, n is the largest
				ev.Retry = int(n)
			}
		}
	}
	if tail == 0 {
		return events, len(in)
	}
	return events, len(rest) - tail
}

func FuzzEventReader(f *testing.F) {
	for _, seed := range []string{"data: a\n\n", "\ufeff: c\r\n\r\nid: 1\rdata\r\r", "event: a\n: b\ndata:x\ndata: y\r\n\n\r\nda",
		"retry: 10\nretry: x\nid: \x00\n\n", ":\r\ndata: a\r\n\r\nretry: 99999999999\n\n", "retry:2170000000A\n\n", "\xef\xbb", "\ufeff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		want, tail := sseReference(in)
		readers := map[string]func() io.Reader{
			"whole":    func() io.Reader { return strings.NewReader(in) },
			"half":     func() io.Reader { return iotest.HalfReader(strings.NewReader(in)) },
			"one byte": func() io.Reader { return iotest.OneByteReader(strings.NewReader(in)) },
			"DataErr":  func() io.Reader { return iotest.DataErrReader(strings.NewReader(in)) },
		}
		for name, reader := range readers {
			events, err := readEvents(NewEventReader(reader(), len(in)+1))
			checkSSEFrames(t, name, in, events, err)
			if got := len(in) - len(sseFrames(events)); got != tail {
				t.Errorf("%s: %q: got a tail of %d bytes, want %d", name, in, got, tail)
			}
			var got []Event
			for _, ev := range events {
				if ev.Frame = ""; ev != (Event{Retry: -1}) {
					got = append(got, ev)
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %q: got %+v, want %+v", name, in, got, want)
			}
			events, err = readEvents(NewEventReader(reader(), 16))
			for _, ev := range events {
				if len(ev.Frame) > 16 {
					t.Errorf("%s: %q: got a frame of %d bytes, want at most 16", name, in, len(ev.Frame))
				}
			}
			if err == errEventTooLong && len(in)-len(sseFrames(events)) < 16 {
				t.Errorf("%s: %q: got %v after %q, want the event", name, in, err, sseFrames(events))
			}
			if err != errEventTooLong {
				checkSSEFrames(t, name, in, events, err)
			}
		}
	})
}

// checkSSEFrames checks that the frames and a tail, if err allows one, are in.
func checkSSEFrames(t *testing.T, name, in string, events []Event, err error) {
	t.Helper()
	tail, begins := strings.CutPrefix(in, sseFrames(events))
	want := io.EOF
	if tail != "" {
		want = io.ErrUnexpectedEOF
	}
	if !begins || err != want {
		t.Errorf("%s: got frames %q, %v, want %q, %v", name, sseFrames(events), err, in, want)
	}
}

func FuzzAppendEvent(f *testing.F) {
	f.Add("1", true, "message", "a\nb", true, 5)
	f.Add(" 1\n", true, "\r", "\r\n\r", true, -1)
	f.Add("\x00", false, " x", "data: \ufeff", false, 1<<31-1)
	f.Fuzz(func(t *testing.T, id string, hasID bool, name, data string, hasData bool, retry int) {
		in := Event{ID: id, HasID: hasID, Name: name, Data: data, HasData: hasData, Retry: retry}
		want := Event{Retry: min(max(retry, -1), 1<<31-1)}
		if hasID && !strings.ContainsAny(id, "\r\n\x00") {
			want.ID, want.HasID = id, true
		}
		if !strings.ContainsAny(name, "\r\n") {
			want.Name = name
		}
		if hasData {
			want.Data, want.HasData = strings.ReplaceAll(strings.ReplaceAll(data, "\r\n", "\n"), "\r", "\n"), true
		}
		wire := string(appendEvent(nil, in))
		want.Frame = wire
		got, err := readEvents(NewEventReader(strings.NewReader(wire), len(wire)))
		if len(got) != 1 || got[0] != want || err != io.EOF {
			t.Errorf("%+v: got %+v, %v, want %+v", in, got, err, want)
		}
	})
}

func BenchmarkEventReader(b *testing.B) {
	for _, size := range []int{100, 5 << 20} {
		frame := "event: message\ndata: " + strings.Repeat("x", size) + "\n\n"
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			e := NewEventReader(&sseRepeat{text: frame}, 6<<20)
			for b.Loop() {
				if _, err := e.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// sseRepeat is a reader of text again and again, in pieces of at most 32 KiB.
type sseRepeat struct {
	text string
	at   int
}

func (s *sseRepeat) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), 32<<10)], s.text[s.at:])
	s.at = (s.at + n) % len(s.text)
	return n, nil
}
