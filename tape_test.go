// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

const testTapeHeader = `{"tape":"mcpproxy","version":1,"created":"2026-01-02T03:04:05Z","program":"0.1.0","eras":["initialize"],"client":"stdio","server":"stdio","redact":[]}` + "\n"

// testTape is a tape with these lines and their end.
func testTape(entries ...Entry) string {
	text := []byte(testTapeHeader)
	for i := range entries {
		entries[i].Seq = int64(i + 1)
		text = appendEntry(text, &entries[i])
	}
	end := Entry{Seq: int64(len(entries) + 1), Kind: lineEnd, Counts: `{"eras":["initialize"]}`, Sum: fmt.Sprintf("%x", sha256.Sum256(text))}
	return string(appendEntry(text, &end))
}

// readTape returns the lines of a tape, the end included.
func readTape(text string) (t *TapeReader, entries []*Entry, err error) {
	t, err = NewTapeReader(strings.NewReader(text), "t.jsonl", 32<<20)
	if err != nil {
		return nil, nil, err
	}
	for {
		e, err := t.Next()
		if err == io.EOF {
			return t, entries, nil
		}
		if err != nil {
			return t, entries, err
		}
		entries = append(entries, e)
	}
}

func TestTapeKeepsEveryField(t *testing.T) {
	all := []Entry{
		{Kind: lineOpen, Session: 1, T: 1234567 * time.Microsecond},
		{Kind: lineMsg, Session: 1, Dir: dirToServer, X: 2, Via: viaStdio, Msg: `{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}`},
		{Kind: lineMsg, Dir: dirToClient, X: 2, Re: 2, Via: viaSSE, Status: 200, Event: "é\"\n", Headers: `{"retry-after":"1"}`,
			Local: true, Rule: "a rule", Was: 1, Msg: `{"jsonrpc":"2.0","id":1.0,"result":{}}`},
		{Kind: lineRaw, Dir: dirToClient, Text: "\x00\xff"},
		{Kind: lineStderr, Text: "line \x7f"},
		{Kind: lineClose, Session: 1, Text: "client is gone"},
	}
	tape, got, err := readTape(testTape(all...))
	if err != nil || len(tape.Warnings()) > 0 {
		t.Fatal(err, tape.Warnings())
	}
	for i := range all {
		got[i].Offset, got[i].Size, got[i].MsgAt = 0, 0, 0
		if !reflect.DeepEqual(*got[i], all[i]) {
			t.Errorf("line %d: got %+v, want %+v", i+1, *got[i], all[i])
		}
	}
}

func TestTapeTornAtEveryByte(t *testing.T) {
	text := testTape(Entry{Kind: lineOpen, Session: 1}, Entry{Kind: lineClose, Session: 1, Text: "é"})
	last := strings.LastIndexByte(text[:len(text)-1], '\n') + 1
	for cut := last; cut < len(text); cut++ {
		tape, got, err := readTape(text[:cut])
		if err != nil || len(got) != 2 || tape.Torn != (cut > last) || len(tape.Warnings()) == 0 {
			t.Errorf("%d bytes of the last line: got %d lines, %v, torn %v", cut-last, len(got), err, tape.Torn)
		}
	}
}

func TestTapeFaults(t *testing.T) {
	good := testTape(Entry{Kind: lineOpen, Session: 1}, Entry{Kind: lineClose, Session: 1})
	for _, c := range []struct {
		name, text string
		line       int
		reason     string
	}{
		{"empty", "", 1, "no header"},
		{"other JSON", `{"a":1}` + "\n", 1, "no tape"},
		{"no JSON", "hello\n", 1, "no tape"},
		{"future", strings.Replace(good, `"version":1`, `"version":2`, 1), 1, "version 2"},
		{"gap", strings.Replace(good, `{"seq":2`, `{"seq":3`, 1), 3, "seq is 3, want 2"},
		{"no JSON inside", strings.Replace(good, `{"seq":2`, `{"seq"2`, 1), 3, "no colon"},
		{"type", strings.Replace(good, `"session":1}`, `"session":"1"}`, 1), 2, "session"},
		{"after the end", good + `{"seq":4,"t":0,"kind":"open"}` + "\n", 5, "after the end"},
		{"huge line", testTapeHeader + strings.Repeat(" ", 32<<20+10) + "\n", 2, "more than"},
		{"no kind", testTapeHeader + `{"seq":1,"t":0,"dir":"to-server"}` + "\n", 2, "no kind"},
		{"message without direction", testTapeHeader + `{"seq":1,"t":0,"kind":"msg","msg":{}}` + "\n", 2, "no dir"},
	} {
		_, _, err := readTape(c.text)
		var fault *TapeError
		if !errors.As(err, &fault) || fault.Line != c.line || !strings.Contains(fault.Reason, c.reason) {
			t.Errorf("%s: got %v, want line %d: %s", c.name, err, c.line, c.reason)
		}
	}
}

func TestTapeSkipsWhatItDoesNotKnow(t *testing.T) {
	text := strings.Replace(testTape(Entry{Kind: "later"}, Entry{Kind: lineOpen, Session: 1}), `"session":1`, `"session":1,"later":[{}]`, 1)
	tape, got, err := readTape(text)
	if err != nil || len(got) != 2 || !tape.Altered {
		t.Errorf("got %d lines, %v, altered %v, want open and end, altered", len(got), err, tape.Altered)
	}
}

func TestTapeKindOfAMessage(t *testing.T) {
	for _, kind := range []string{"", `"kind":"msg",`} {
		_, got, err := readTape(testTapeHeader + `{"seq":1,"t":0.5,` + kind + `"dir":"to-server","msg":{}}` + "\n")
		if err != nil || len(got) != 1 || got[0].Kind != lineMsg {
			t.Errorf("%q: got %v, %v, want a message", kind, got, err)
		}
	}
}

func FuzzTape(f *testing.F) {
	f.Add(testTape(Entry{Kind: lineOpen, Session: 1}, Entry{Kind: lineMsg, Dir: dirToServer, Msg: `{"a":[]}`}))
	f.Fuzz(func(t *testing.T, text string) {
		_, entries, _ := readTape(text)
		for _, e := range entries {
			line := appendEntry(nil, e)
			again, err := ParseEntry(string(line[:len(line)-1]))
			if err != nil {
				t.Fatalf("%q was written as %q: %v", text, line, err)
			}
			again.Offset, again.Size, again.MsgAt = e.Offset, e.Size, e.MsgAt
			if !reflect.DeepEqual(again, e) {
				t.Fatalf("%q: got %+v, want %+v", line, again, e)
			}
		}
	})
}

// Another program may write the fields of a line in another order.
func TestTapeFindsMessages(t *testing.T) {
	text := testTapeHeader + `{"msg":{"jsonrpc":"2.0","method":"a"} ,"seq":1,"t":0,"dir":"to-server"}` + "\n" +
		`{"seq":2,"t":0,"dir":"to-server","msg":{"jsonrpc":"2.0","method":"b"} }` + "\n" + `{"seq":3,"t":0,"dir":"to-server","msg":{"jsonrpc":"2.0","method":"c"}}` + "\n"
	_, entries, err := readTape(text)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		m, err := namedTape{"t", strings.NewReader(text)}.message(placeOf(e))
		if want := string(rune('a' + i)); err != nil || m.Method != want {
			t.Errorf("got %v, %v, want %s", m, err, want)
		}
	}
}
