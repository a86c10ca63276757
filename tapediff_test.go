// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// useTrim returns the tape that trimTape makes.
func useTrim(t *testing.T, text string, o TapeToolOptions) (*TapeReader, []*Entry) {
	t.Helper()
	o.Max = 1 << 20
	var out bytes.Buffer
	if err := trimTape(strings.NewReader(text), "t.jsonl", &out, o); err != nil {
		t.Fatal(err)
	}
	tape, entries, err := readTape(out.String())
	if err != nil || tape.Altered || tape.Ended == nil {
		t.Fatalf("got %v, %+v\n%s", err, tape, out.String())
	}
	return tape, entries
}

// numbers says of each line its seq, x, re and was, and its kind.
func numbers(entries []*Entry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%d,%d,%d,%d %s\n", e.Seq, e.X, e.Re, e.Was, e.Kind)
	}
	return b.String()
}

// twoSessions has a session 2 all over the one of goodTape.
func twoSessions() []Entry {
	two := func(e Entry) Entry { e.Session = 2; return e }
	return []Entry{
		{Kind: lineOpen, Session: 1}, {Kind: lineOpen, Session: 2},
		two(toServer(0, 0, tapeInitialize)), toServer(0, 0, tapeInitialize), // 3, 4
		toClient(0, 4, tapeInitResult), two(toClient(0, 3, tapeInitResult)), toServer(0, 0, tapeReady), // 5, 6, 7
		toServer(0, 0, tapeCallText(2, "a", `{"n":1}`)), two(toServer(0, 0, tapeCallText(2, "a", `{"n":2}`))), // 8, 9
		changedBy(toServer(0, 0, tapeCallText(2, "a", `{"n":3}`)), 8), {Kind: lineStderr, Session: 2, Text: "x"}, // 10, 11
		toClient(8, 0, `{"jsonrpc":"2.0","id":1,"method":"roots/list"}`), toServer(8, 12, textResult(1, "")), // 12, 13
		two(toClient(0, 9, textResult(2, ""))), toClient(0, 8, textResult(2, "")), // 14, 15
		{Kind: lineDropped, Session: 1, Re: 15, Text: "gone"}, {Kind: lineBlind, Text: "full"}, // 16, 17
		toServer(0, 0, tapeCallText(3, "b", `{}`)), toClient(0, 18, textResult(3, "")), // 18, 19
		{Kind: lineClose, Session: 2, Text: "x"}, {Kind: lineClose, Session: 1, Text: "y"},
	}
}

func TestTrimTape(t *testing.T) {
	text := testTape(twoSessions()...)
	tape, got := useTrim(t, text, TapeToolOptions{Session: 2})
	if want := "1,0,0,0 open\n2,0,0,0 msg\n3,0,2,0 msg\n4,0,0,0 msg\n5,0,0,0 stderr\n6,0,4,0 msg\n7,0,0,0 blind\n8,0,0,0 close\n9,0,0,0 end\n"; numbers(got) != want {
		t.Errorf("got\n%s\nwant\n%s", numbers(got), want)
	}
	if want := `{"lines":8,"messages":4,"sessions":1,"eras":["initialize"]}`; tape.Ended.Counts != want {
		t.Errorf("got %s, want %s", tape.Ended.Counts, want)
	}
	if want := []string{"initialize"}; !reflect.DeepEqual(tape.Header.Eras, want) || tape.Header.Created.IsZero() {
		t.Errorf("got %+v", tape.Header)
	}
	for _, seq := range []int64{8, 10, 12, 13, 15} { // any message of the exchange names it
		_, got = useTrim(t, text, TapeToolOptions{Exchange: seq})
		if want := "1,0,0,0 open\n2,0,0,0 msg\n3,0,2,0 msg\n4,0,0,0 msg\n5,0,0,0 msg\n6,0,0,5 msg\n7,5,0,0 msg\n8,5,7,0 msg\n" +
			"9,0,5,0 msg\n10,0,9,0 dropped\n11,0,0,0 blind\n12,0,0,0 close\n13,0,0,0 end\n"; numbers(got) != want {
			t.Errorf("exchange %d: got\n%s\nwant\n%s", seq, numbers(got), want)
		}
	}
	// What came back to a call that a rule changed points to the second line of it.
	changed := strings.Replace(strings.Replace(text, `"x":8,`, `"x":10,`, -1), `"re":8,`, `"re":10,`, 1)
	for _, seq := range []int64{8, 10, 12, 13, 15} {
		if _, got = useTrim(t, changed, TapeToolOptions{Exchange: seq}); len(got) != 13 {
			t.Errorf("exchange %d of a changed call: got\n%s\nwant 13 lines", seq, numbers(got))
		}
	}
	hostile := strings.Replace(text, `"eras":["initialize"]`, `"eras":["\"",""]`, -1)
	if _, got = useTrim(t, strings.Replace(hostile, "initialize\",\"params", "x\",\"params", 1), TapeToolOptions{Session: 2}); len(got) != 9 {
		t.Errorf("got\n%s\nwant all of session 2", numbers(got))
	}
	if _, got = useTrim(t, text, TapeToolOptions{Exchange: 4}); len(got) != 7 {
		t.Errorf("got\n%s\nwant the handshake alone", numbers(got))
	}
}

func TestTrimTapeWithoutSession(t *testing.T) {
	modern := `{"jsonrpc":"2.0","id":1,"method":%q,"params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`
	lines := []Entry{
		toServer(0, 0, fmt.Sprintf(modern, "server/discover")), toClient(0, 1, textResult(1, "")),
		toServer(0, 0, fmt.Sprintf(modern, "tools/list")), toServer(0, 0, fmt.Sprintf(modern, "tools/call")),
		toClient(0, 4, textResult(1, "")), toClient(0, 3, textResult(1, "")), toServer(0, 0, fmt.Sprintf(modern, "server/discover")),
	}
	for i := range lines {
		lines[i].Session = 0
	}
	tape, got := useTrim(t, testTape(lines...), TapeToolOptions{Exchange: 5})
	if want := "1,0,0,0 msg\n2,0,1,0 msg\n3,0,0,0 msg\n4,0,3,0 msg\n5,0,0,0 end\n"; numbers(got) != want {
		t.Errorf("got\n%s\nwant\n%s", numbers(got), want)
	}
	if want := []string{"stateless"}; !reflect.DeepEqual(tape.Header.Eras, want) || !reflect.DeepEqual(tape.Eras, want) {
		t.Errorf("got eras %v, %v, want %v", tape.Header.Eras, tape.Eras, want)
	}
}

func TestTrimTapeFinds(t *testing.T) {
	text := testTape(twoSessions()...)
	for _, c := range []struct {
		text string
		o    TapeToolOptions
		want string
	}{
		{text, TapeToolOptions{}, "wants -session or -exchange"},
		{text, TapeToolOptions{Session: 3}, "t.jsonl: no message of session 3"},
		{text, TapeToolOptions{Exchange: 99}, "t.jsonl: line seq 99 is no message of an exchange"},
		{text, TapeToolOptions{Exchange: 7}, "no message of an exchange"},
		{text, TapeToolOptions{Exchange: 11}, "no message of an exchange"},
		{text, TapeToolOptions{Exchange: 8, Session: 2}, "exchange 8 is of session 1"},
		{"x\n", TapeToolOptions{Exchange: 8}, "no tape"},
	} {
		c.o.Max = 1 << 20
		var out bytes.Buffer
		if err := trimTape(strings.NewReader(c.text), "t.jsonl", &out, c.o); err == nil || !strings.Contains(err.Error(), c.want) || out.Len() > 0 {
			t.Errorf("%+v: got %v and %d bytes, want %s", c.o, err, out.Len(), c.want)
		}
	}
}

func useDiff(t *testing.T, a, b string, o TapeToolOptions) (string, int) {
	t.Helper()
	o.Max = 1 << 20
	var out bytes.Buffer
	n, err := diffTapes(namedTape{"a.jsonl", strings.NewReader(a)}, namedTape{"b.jsonl", strings.NewReader(b)}, &out, o)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), n
}

func TestDiffIgnores(t *testing.T) {
	tape := func(text string) string {
		return testTape(append(handshake(), toServer(0, 0, tapeCallText(2, "now", `{}`)), toClient(0, 5, textResult(2, text)))...)
	}
	place, err := ParsePointer("/result/content/*/text")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ignore []Pointer
		want   int
	}{{nil, 1}, {[]Pointer{place}, 0}} {
		if got, n := useDiff(t, tape("1"), tape("2"), TapeToolOptions{Ignore: c.ignore}); n != c.want {
			t.Errorf("%v: got %d differences, want %d: %s", c.ignore, n, c.want, got)
		}
	}
}

func TestDiffTapes(t *testing.T) {
	call := func(id int, name, arguments string) Entry { return toServer(0, 0, tapeCallText(id, name, arguments)) }
	refused := call(9, "refused", "{}")
	refused.Local = true
	a := testTape(append(handshake(),
		call(2, "poll", `{}`), toClient(0, 5, textResult(2, "1")), call(3, "poll", `{}`), toClient(0, 7, textResult(3, "2")),
		call(4, "json", `{"a":1,"b":[2.0]}`), toClient(0, 9, textResult(4, ` {"x":1,"y":[true],"z":0}`)),
		call(5, "gone", `{"k":1}`), toClient(0, 11, textResult(5, "")), call(6, "open", `{}`), toClient(0, 13, textResult(6, "")),
		refused, toClient(0, 15, textResult(9, "")))...)
	b := testTape(append(handshake()[:2], toClient(0, 2, strings.Replace(tapeInitResult, `"version":"3"`, `"version":"4"`, 1)), handshake()[3],
		call(7, "json", `{"b":[2],"a":1.0}`), toClient(0, 5, textResult(7, `{"y":[true,null],"x":1}`)),
		call(8, "poll", `{}`), call(9, "poll", `{}`), toClient(0, 8, textResult(9, "3")), toClient(0, 7, textResult(8, "1")),
		call(1, "\x1b[2J", `{}`), toClient(0, 11, textResult(1, "")), call(2, "open", `{}`),
		call(3, "poll", `{}`), toClient(0, 14, textResult(3, "4")))...)
	got, n := useDiff(t, a, b, TapeToolOptions{})
	wantText(t, got, `
differs (a seq 2, b seq 2): initialize {"protocolVersion":"2025-11-25","clientInfo":{"name":"cli","version":"2"}}
    /result/serverInfo/version: "4", was "3"
differs (a seq 7, b seq 8): tools/call poll {}
    /result/content/0/text: "3", was "2"
differs (a seq 9, b seq 5): tools/call json {"a":1,"b":[2.0]}
    /result/content/0/text/y/1: null, was absent
    /result/content/0/text/z: absent, was 0
only in a (seq 11): tools/call gone {"k":1}
differs (a seq 13, b seq 13): tools/call open {}
    answer: absent, was {"result":{"content":[{"text":"","type":"text"}]}}
only in b (seq 11): tools/call \x1b[2J {}
only in b (seq 14): tools/call poll {}
a: a.jsonl, 6 exchanges; b: b.jsonl, 7 exchanges: 1 the same, 4 differ, 1 only in a, 2 only in b`)
	if n != 7 {
		t.Errorf("got %d differences, want 7", n)
	}
	if got, n := useDiff(t, a, a, TapeToolOptions{}); n != 0 || strings.Count(got, "\n") != 1 {
		t.Errorf("got %d differences of a tape with itself: %s", n, got)
	}
	if _, n := useDiff(t, a, b, TapeToolOptions{Method: "init*"}); n != 1 {
		t.Errorf("got %d differences in initialize, want 1", n)
	}
	got, _ = useDiff(t, a, b, TapeToolOptions{JSON: true})
	var found []map[string]any
	for line := range strings.Lines(got) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		found = append(found, v)
	}
	if len(found) != 7 || fmt.Sprint(found[2]) != "map[a:9 b:5 method:tools/call name:json places:[map[at:/result/content/0/text/y/1 b:<nil>] map[a:0 at:/result/content/0/text/z]] what:differs]" {
		t.Errorf("got %v", found)
	}
}

func TestDiffTapesShowsTheFirstPlaces(t *testing.T) {
	list := func(n int) string { return fmt.Sprint("[", strings.Repeat("1,", n), "1]") }
	tape := func(n int) string {
		return testTape(toServer(0, 0, tapeCallText(1, "x", "{}")), toClient(0, 1, textResult(1, list(n))))
	}
	if got, _ := useDiff(t, tape(1), tape(50), TapeToolOptions{}); strings.Count(got, "was absent") != maxDifferences || !strings.Contains(got, "and 29 more") {
		t.Errorf("got %s", got)
	}
}

func TestDiffTapesWantsTapes(t *testing.T) {
	good := namedTape{"a", strings.NewReader(testTape())}
	bad := namedTape{"b", strings.NewReader("no\n")}
	var fault *TapeError
	for _, files := range [][2]namedTape{{good, bad}, {bad, good}} {
		if _, err := diffTapes(files[0], files[1], &bytes.Buffer{}, TapeToolOptions{Max: 1 << 20}); !errors.As(err, &fault) || fault.Name != "b" {
			t.Errorf("got %v, want a TapeError about b", err)
		}
	}
}
