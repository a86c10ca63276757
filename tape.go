// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// A tape is a file of JSON lines: a header, then what happened, then an end. docs/tape.md describes
// it for people.
const (
	tapeFormat  = "mcpproxy"
	tapeVersion = 1

	eraSession   = "initialize" // up to 2025-11-25
	eraStateless = "stateless"  // 2026-07-28 and later
)

// Kinds of lines. A reader skips those it does not know.
const (
	lineOpen    = "open"    // a session began
	lineMsg     = "msg"     // a message passed
	lineRaw     = "raw"     // bytes passed that are no message
	lineStderr  = "stderr"  // a server's process wrote a line to its stderr
	lineExit    = "exit"    // a server's process ended
	lineDropped = "dropped" // a message of the line Re reached nobody
	lineRule    = "rule"    // what Rule did with the message of the line Re, beside changing it
	lineBlind   = "blind"   // from here on, or up to here, messages passed that are not on the tape
	lineClose   = "close"   // a session ended
	lineEnd     = "end"     // the recording ended as it should
)

// How a message travelled between the proxy and the server.
const (
	viaStdio = "stdio"
	viaPost  = "post" // in the body of a POST, to the server
	viaJSON  = "json" // in the answer to a POST
	viaSSE   = "sse"  // in an event stream that answers a POST
	viaGet   = "get"  // in the event stream of a GET
)

// A TapeHeader is the first line of a tape.
type TapeHeader struct {
	Format  string    `json:"tape"`
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Program string    `json:"program"` // version of the one that wrote it
	Eras    []string  `json:"eras"`    // of the first message; the end has those of all
	Client  string    `json:"client"`  // stdio or http
	Server  string    `json:"server"`  // stdio, http or demo
	Redact  []string  `json:"redact"`  // the rules in force; empty for none
	// Key is the key of the placeholders, in hexadecimal; "" if it is in a file of the user's.
	Key string `json:"key,omitempty"`
	// Ring says that the tape is the last stretch of a recording kept in memory.
	Ring string `json:"ring,omitempty"`
	// Continues is the name of the file that this one goes on from. Numbers go on too.
	Continues string `json:"continues,omitempty"`
}

// line is h as a line.
func (h TapeHeader) line() ([]byte, error) {
	h.Redact, h.Eras = append([]string{}, h.Redact...), append([]string{}, h.Eras...) // an empty list is one too
	line, err := json.Marshal(h)
	return append(line, '\n'), err
}

// An Entry is one line of a tape after the header. The zero value of a field means that the line
// does not have it.
type Entry struct {
	Seq     int64         // of the line; it rises by one
	T       time.Duration // since the header was made
	Kind    string
	Session int64  // counted from 1; 0 is none: 2026-07-28, or an HTTP server without session ids
	Dir     string // to-server or to-client
	X       int64  // Seq of the client's call in whose exchange the message travelled
	Re      int64  // Seq of the call that a response answers, or of the line that this one is about
	Via     string
	Status  int    // of the HTTP response, in each of its messages
	Event   string // id of the server-sent event
	Headers string // JSON text of an object: the headers that matter
	Local   bool   // the proxy made the message
	Rule    string // name of the rule that changed or made the message
	Was     int64  // Seq of the line with the message as it came, before Rule changed it
	Text    string // stderr: the line; exit: the status; close, dropped, blind: why; rule: what it did; raw: the bytes
	Msg     string // JSON text of the message, without line ends
	Sum     string // end: SHA-256 of all before it
	Counts  string // end: JSON text

	Offset int64 // of the line in its file; set by a TapeReader, as are Size and MsgAt
	Size   int   // of the line with its line end
	MsgAt  int64 // offset of Msg

	// What a Recorder knows of a line that it writes. Each may be zero.
	of  *Message  // with the text Msg
	at  time.Time // when it happened
	era string    // of a client's call
}

// The words for a [Direction].
const (
	dirToServer = "to-server"
	dirToClient = "to-client"
)

// appendEntry appends e as a line to dst.
func appendEntry(dst []byte, e *Entry) []byte {
	return appendRest(appendFields(appendStamp(dst, e.Seq, e.T), e), e)
}

// appendRest appends how a line ends.
func appendRest(dst []byte, e *Entry) []byte {
	if e.Msg != "" {
		dst = append(append(dst, `,"msg":`...), e.Msg...)
	}
	return append(dst, '}', '\n')
}

// appendStamp appends how a line begins.
func appendStamp(dst []byte, seq int64, t time.Duration) []byte {
	dst = strconv.AppendInt(append(dst, `{"seq":`...), seq, 10)
	us := t.Microseconds()
	dst = strconv.AppendInt(append(dst, `,"t":`...), us/1000, 10)
	return append(dst, '.', byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
}

// appendFields appends what stands between that and the message.
func appendFields(dst []byte, e *Entry) []byte {
	if e.Kind != lineMsg || e.Msg == "" {
		dst = append(append(append(dst, `,"kind":"`...), e.Kind...), '"')
	}
	number := func(name string, n int64) {
		if n != 0 {
			dst = strconv.AppendInt(append(append(append(dst, `,"`...), name...), `":`...), n, 10)
		}
	}
	text := func(name, s string) {
		if s != "" {
			dst = appendQuoted(append(append(append(dst, `,"`...), name...), `":`...), s)
		}
	}
	number("session", e.Session)
	if e.Dir != "" {
		dst = append(append(append(dst, `,"dir":"`...), e.Dir...), '"')
	}
	number("x", e.X)
	number("re", e.Re)
	if e.Via != viaStdio || e.Kind != lineMsg {
		text("via", e.Via)
	}
	number("status", int64(e.Status))
	text("event", e.Event)
	if e.Headers != "" {
		dst = append(append(dst, `,"headers":`...), e.Headers...)
	}
	if e.Local {
		dst = append(dst, `,"local":true`...)
	}
	text("rule", e.Rule)
	number("was", e.Was)
	switch {
	case e.Kind == lineRaw:
		dst = append(dst, `,"base64":"`...)
		dst = append(base64.StdEncoding.AppendEncode(dst, []byte(e.Text)), '"')
	case e.Text != "":
		text("text", e.Text)
	}
	if e.Counts != "" {
		dst = append(append(dst, `,"counts":`...), e.Counts...)
	}
	text("sha256", e.Sum)
	return dst
}

// appendQuoted appends s as a JSON string.
func appendQuoted(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return append(dst, quote(s)...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// A TapeError says what is wrong with a tape, and in which line.
type TapeError struct {
	Name   string // of the file
	Line   int    // 1 is the header
	Reason string
}

func (e *TapeError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Name, e.Line, e.Reason) }

// A TapeReader reads a tape line by line and holds no more than one line of it. Make one with
// NewTapeReader; one goroutine may use it at a time.
type TapeReader struct {
	Header  TapeHeader
	Line    int      // of what was read last; 1 is the header
	Torn    bool     // the last line broke off: the recording was ended by force. It is not returned
	Ended   *Entry   // the end, once it was read
	Altered bool     // its checksum is not that of what was read
	Eras    []string // of the end, else of the header
	All     bool     // Next returns lines of kinds that it does not know, too

	name   string
	lines  lineReader
	line   []byte // what Next read last, with its end; good until the next call
	offset int64
	seq    int64
	sum    hash.Hash
}

// NewTapeReader reads the header of the tape r, which errors call name. A line may have max bytes.
// The error is a *[TapeError], or that of r.
func NewTapeReader(r io.Reader, name string, max int) (*TapeReader, error) {
	t := &TapeReader{name: name, lines: lineReader{r: r, max: max, buf: make([]byte, lineBuffer)}, sum: sha256.New()}
	line, err := t.next()
	if err == io.EOF {
		t.Line = 1
		return nil, t.fault("no header: this is no tape, or nothing was recorded")
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(line, &t.Header); err != nil || t.Header.Format != tapeFormat {
		return nil, t.fault("this is no tape: want a header that begins with {\"tape\":%q", tapeFormat)
	}
	if t.Header.Version < 1 || t.Header.Version > tapeVersion {
		return nil, t.fault("tape of version %d; this program reads up to version %d", t.Header.Version, tapeVersion)
	}
	t.sum.Write(line)
	t.offset, t.Eras = int64(len(line)), t.Header.Eras
	return t, nil
}

func (t *TapeReader) fault(format string, args ...any) error {
	return &TapeError{t.name, t.Line, fmt.Sprintf(format, args...)}
}

// next returns a line with its end, good until the next call, and io.EOF after the last. One that broke off is not
// returned.
func (t *TapeReader) next() ([]byte, error) {
	line, whole, err := t.lines.next()
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	if len(line) == 0 {
		return nil, io.EOF
	}
	t.Line++
	if !whole || len(line) > t.lines.max {
		return nil, t.fault("a line of more than %d bytes: see -max-message", t.lines.max)
	}
	if line[len(line)-1] != '\n' {
		t.Line--
		t.Torn = true
		return nil, io.EOF
	}
	return line, nil
}

// Next returns the next line of a kind that it knows, or of any if All is set, or io.EOF at the end. The error is a
// *[TapeError], or that of the underlying reader; it is final.
func (t *TapeReader) Next() (*Entry, error) {
	for {
		line, err := t.next()
		if err != nil {
			return nil, err
		}
		if t.Ended != nil {
			return nil, t.fault("a line after the end")
		}
		text := string(line[:len(line)-1])
		e, err := ParseEntry(text)
		if err != nil {
			return nil, t.fault("%v", err)
		}
		last := len(text) - len(e.Msg) - len("}")
		if !strings.HasPrefix(text[max(last, 0):], e.Msg) { // another program wrote it
			last = strings.Index(text, e.Msg)
		}
		e.Offset, e.Size, e.MsgAt = t.offset, len(line), t.offset+int64(last)
		t.offset += int64(len(line))
		jumps := e.Kind == lineBlind || t.seq == 0 && (t.Header.Ring != "" || t.Header.Continues != "")
		if e.Seq != t.seq+1 && !(jumps && e.Seq > t.seq) {
			return nil, t.fault("seq is %d, want %d: lines are missing or in disorder", e.Seq, t.seq+1)
		}
		t.seq, t.line = e.Seq, line
		if e.Kind == lineEnd {
			t.end(e)
		} else {
			t.sum.Write(line)
		}
		switch e.Kind {
		case lineOpen, lineMsg, lineRaw, lineStderr, lineExit, lineDropped, lineRule, lineBlind, lineClose, lineEnd:
			return e, nil
		}
		if t.All {
			return e, nil
		}
	}
}

// Each calls f with every line that Next returns. The error is that of Next, or the first of f.
func (t *TapeReader) Each(f func(e *Entry) error) error {
	for {
		e, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = f(e)
		}
		if err != nil {
			return err
		}
	}
}

func (t *TapeReader) end(e *Entry) {
	t.Ended = e
	t.Altered = e.Sum != hex.EncodeToString(t.sum.Sum(nil))
	var counts struct{ Eras []string }
	if json.Unmarshal([]byte(e.Counts), &counts) == nil && counts.Eras != nil {
		t.Eras = counts.Eras
	}
}

// Warnings says what is amiss with a tape, read to its end, that can be used all the same.
func (t *TapeReader) Warnings() []string {
	var list []string
	note := func(is bool, what string) {
		if is {
			list = append(list, t.name+": "+what)
		}
	}
	note(t.Torn, "the last line broke off and does not count")
	note(t.Ended == nil, "no end: the recording was cut short, or goes on")
	note(t.Altered, "the checksum differs: the tape was changed after it was recorded")
	return list
}

// ParseEntry reads one line of a tape, without its end. Fields that it does not know are skipped; one that it knows
// must be of the right type. Msg must be a JSON object or array, and need not be a message.
func ParseEntry(line string) (*Entry, error) {
	e := &Entry{}
	var wrong string
	err := eachMember(line, func(key, v string) {
		if !e.set(key, v) && wrong == "" {
			wrong = key
		}
	})
	if e.Kind == "" && e.Msg != "" {
		e.Kind = lineMsg
	}
	if e.Via == "" && !e.Local && e.Kind == lineMsg {
		e.Via = viaStdio
	}
	switch {
	case err != nil:
		return nil, err
	case wrong != "":
		return nil, fmt.Errorf("%s is not what it should be", wrong)
	case e.Seq == 0 || e.Kind == "":
		return nil, errors.New("no seq or no kind")
	case e.Kind == lineMsg && (e.Msg == "" || e.Dir == ""):
		return nil, errors.New("no msg or no dir")
	}
	return e, nil
}

// set sets the field called key to the JSON text v and reports whether that is one for it.
func (e *Entry) set(key, v string) (ok bool) {
	switch key {
	case "seq":
		return setNumber(&e.Seq, v)
	case "t":
		ms, err := strconv.ParseFloat(v, 64)
		e.T = time.Duration(math.Round(ms*1000)) * time.Microsecond
		return err == nil && ms >= 0 && ms < 1e12
	case "kind":
		return setText(&e.Kind, v)
	case "session":
		return setNumber(&e.Session, v)
	case "dir":
		return setText(&e.Dir, v) && (e.Dir == dirToServer || e.Dir == dirToClient)
	case "x":
		return setNumber(&e.X, v)
	case "re":
		return setNumber(&e.Re, v)
	case "via":
		return setText(&e.Via, v)
	case "status":
		var n int64
		ok = setNumber(&n, v) && n < 1000
		e.Status = int(n)
		return ok
	case "event":
		return setText(&e.Event, v)
	case "headers":
		e.Headers = v
		return v[0] == '{'
	case "local":
		e.Local = v == "true"
		return v == "true" || v == "false"
	case "rule":
		return setText(&e.Rule, v)
	case "was":
		return setNumber(&e.Was, v)
	case "text":
		return setText(&e.Text, v)
	case "base64":
		ok = setText(&e.Text, v)
		b, err := base64.StdEncoding.DecodeString(e.Text)
		e.Text = string(b)
		return ok && err == nil
	case "counts":
		e.Counts = v
		return v[0] == '{'
	case "sha256":
		return setText(&e.Sum, v)
	case "msg":
		e.Msg = v
		return v[0] == '{' || v[0] == '['
	}
	return true
}

func setNumber(n *int64, v string) bool {
	x, err := strconv.ParseInt(v, 10, 64)
	*n = x
	return err == nil && x >= 0
}

func setText(s *string, v string) (ok bool) {
	*s, ok = unquote(v)
	return ok
}

// A namedTape is a tape to be read here and there.
type namedTape struct {
	Name string
	io.ReaderAt
}

// reader reads it from its beginning, with at most max bytes a line.
func (f namedTape) reader(max int) (*TapeReader, error) {
	return NewTapeReader(io.NewSectionReader(f, 0, math.MaxInt64), f.Name, max)
}

// A messageAt is where on a tape a message is. The zero value is none.
type messageAt struct {
	offset int64
	size   int32
}

// placeOf is where the message of e is.
func placeOf(e *Entry) messageAt { return messageAt{e.MsgAt, int32(len(e.Msg))} }

// message reads the message at a place, nil if that is none.
func (f namedTape) message(at messageAt) (*Message, error) {
	if at.size == 0 {
		return nil, nil
	}
	buf := make([]byte, at.size)
	if _, err := f.ReadAt(buf, at.offset); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	m, err := Parse(string(buf))
	if err != nil {
		return nil, fmt.Errorf("%s changed while it was read: %w", f.Name, err)
	}
	return m, nil
}
