// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

const hostileText = "</script><img src=x onerror=\"alert(1)\"><!--<script>\u2028\u2029\u202e\x00\x07&lt;"

// A pageRow is what a browser reads of a row.
type pageRow struct {
	line    map[string]any
	caption caption
	msg     string
}

// exportedPage exports a tape and returns the page, its rows and its warnings.
func exportedPage(t *testing.T, tape string, o TapeToolOptions) (page string, rows []pageRow, warnings []string) {
	t.Helper()
	var out strings.Builder
	o.Max = 1 << 20
	if err := tapeTool(exportHTML).run(strings.NewReader(tape), "dir/t.jsonl", &out, o); err != nil {
		t.Fatal(err)
	}
	blocks, ok := strings.CutPrefix(out.String(), sealedPage())
	if !ok {
		t.Fatal("the page does not begin with its script")
	}
	for block := range strings.Lines(blocks) {
		text, ok := strings.CutPrefix(block, `<script type="application/json">`)
		text, end := strings.CutSuffix(text, "</script>\n")
		if !ok || !end || strings.ContainsAny(text, "<>\u2028\u2029") {
			t.Fatalf("got block %.200q, want JSON that ends in no other place", block)
		}
		var list [][]json.RawMessage
		var frame struct{ Warnings []string }
		if json.Unmarshal([]byte(text), &list) != nil {
			if err := json.Unmarshal([]byte(text), &frame); err != nil {
				t.Fatal(err)
			}
			warnings = frame.Warnings
		}
		for _, row := range list {
			var r pageRow
			if err := errors.Join(json.Unmarshal(row[0], &r.line), json.Unmarshal(row[1], &r.caption), json.Unmarshal(row[2], &r.msg)); err != nil {
				t.Fatal(err)
			}
			rows = append(rows, r)
		}
	}
	return out.String(), rows, warnings
}

func TestExportPageKeepsMessages(t *testing.T) {
	messages := []string{
		`{"jsonrpc":"2.0","id":9007199254740993,"method":"m","params":{"a":1.0,"b":1E+400,"c":"\u003c\u2028\ud800"}}`,
		`{"jsonrpc":"2.0", "id" : 1,"result":{"a":"<é日本\\>&` + "\u2028\u2029\u202e" + `","a":"</script>"}}`,
		`[{}]`,
	}
	var entries []Entry
	for _, m := range messages {
		entries = append(entries, Entry{Kind: lineMsg, Dir: dirToServer, Msg: m})
	}
	_, rows, warnings := exportedPage(t, testTape(entries...), TapeToolOptions{})
	if len(rows) != len(messages) || len(warnings) != 0 {
		t.Fatalf("got %d rows, warnings %q, want %d and none", len(rows), warnings, len(messages))
	}
	for i, r := range rows {
		if r.msg != messages[i] {
			t.Errorf("got %q, want %q", r.msg, messages[i])
		}
	}
}

func TestExportPageHostile(t *testing.T) {
	quoted := quote(hostileText)
	tape := testTape(
		Entry{Kind: lineOpen, Text: hostileText},
		Entry{Kind: lineMsg, Dir: dirToServer, Via: hostileText, Event: hostileText, Rule: hostileText, Headers: `{` + quoted + `:` + quoted + `}`,
			Msg: `{"jsonrpc":"2.0","id":` + quoted + `,"method":` + quoted + `,"params":{"name":` + quoted + `}}`},
		Entry{Kind: lineMsg, Dir: dirToClient, Re: 2, Msg: `{"jsonrpc":"2.0","id":1,"error":{"code":` + quoted + `,"message":` + quoted + `}}`},
		Entry{Kind: lineRaw, Text: hostileText},
		Entry{Kind: lineExit, Text: hostileText},
	)
	tape = strings.Replace(tape, `"client":"stdio"`, `"client":`+quoted, 1)
	page, rows, _ := exportedPage(t, tape, TapeToolOptions{})
	if len(rows) != 5 || rows[1].caption.Method != hostileText || rows[1].line["rule"] != hostileText || rows[4].line["text"] != hostileText {
		t.Errorf("got %+v, want the texts unchanged", rows)
	}
	if got := strings.Count(page, "<img"); got != 0 {
		t.Errorf("got %d images", got)
	}
}

func TestExportPageIsSealed(t *testing.T) {
	page, _, _ := exportedPage(t, strings.Replace(testTape(), `"redact":[]`, `"redact":[],"key":"c0ffee"`, 1), TapeToolOptions{})
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-"} {
		if !strings.Contains(page, want) {
			t.Errorf("got no %q", want)
		}
	}
	for _, no := range []string{"c0ffee", "script-src 'unsafe-inline'", "://", "innerHTML", "@import", " src=", " href=", "url(", "eval("} {
		if strings.Contains(page, no) {
			t.Errorf("got %q in the page", no)
		}
	}
}

func TestExportSession(t *testing.T) {
	m := `{"jsonrpc":"2.0","method":"notifications/a"}`
	tape := testTape(
		Entry{Kind: lineOpen, Session: 1}, Entry{Kind: lineOpen, Session: 2},
		Entry{Kind: lineMsg, Session: 2, Dir: dirToServer, Msg: m}, Entry{Kind: lineMsg, Dir: dirToServer, Msg: m},
	)
	for session, want := range map[int64]int{0: 4, 1: 1, 2: 2, 3: 0} {
		if _, rows, _ := exportedPage(t, tape, TapeToolOptions{Session: session}); len(rows) != want {
			t.Errorf("session %d: got %d rows, want %d", session, len(rows), want)
		}
	}
	if got := len(exportedArchive(t, tape, TapeToolOptions{Session: 2}).Log.Entries); got != 1 {
		t.Errorf("got %d HAR entries of session 2, want 1", got)
	}
}

func TestExportUnwhole(t *testing.T) {
	whole := testTape(Entry{Kind: lineOpen, Session: 1}, Entry{Kind: lineClose, Session: 1})
	for _, c := range []struct {
		name, tape     string
		rows, warnings int
	}{
		{"empty", testTapeHeader, 0, 1},
		{"nothing recorded", testTape(), 0, 0},
		{"torn", whole[:len(whole)-5], 2, 2},
		{"altered", strings.Replace(whole, `"t":0.000`, `"t":0.001`, 1), 2, 1},
	} {
		_, rows, warnings := exportedPage(t, c.tape, TapeToolOptions{})
		if len(rows) != c.rows || len(warnings) != c.warnings {
			t.Errorf("%s: got %d rows, warnings %q, want %d and %d", c.name, len(rows), warnings, c.rows, c.warnings)
		}
		for _, text := range warnings {
			if strings.Contains(text, "dir/") {
				t.Errorf("%s: got %q, want no path", c.name, text)
			}
		}
		if har := exportedArchive(t, c.tape, TapeToolOptions{}); len(har.Log.Entries) != 0 || (har.Log.Comment != "") != (c.warnings > 0) {
			t.Errorf("%s: got %+v", c.name, har.Log)
		}
	}
	for _, f := range []tapeTool{exportHTML, exportHAR} {
		var fault *TapeError
		if err := f.run(strings.NewReader("x\n"), "t", io.Discard, TapeToolOptions{Max: 100}); !errors.As(err, &fault) || fault.Line != 1 {
			t.Errorf("no tape: got %v", err)
		}
		if err := f.run(strings.NewReader(testTapeHeader+"{}\n"), "t", io.Discard, TapeToolOptions{Max: 1000}); !errors.As(err, &fault) || fault.Line != 2 {
			t.Errorf("a line that is none: got %v", err)
		}
		if err := f.run(strings.NewReader(whole), "t", failingWriter{}, TapeToolOptions{Max: 1000}); err != errFull {
			t.Errorf("full disk: got %v", err)
		}
	}
}

var errFull = errors.New("no space left")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

func TestCaption(t *testing.T) {
	long := strings.Repeat("é", exportCaption)
	for _, c := range []struct {
		e    Entry
		want caption
	}{
		{Entry{Kind: lineExit, Text: "exit status 0"}, caption{}},
		{Entry{Kind: lineExit, Text: "exit status 1"}, caption{Fault: "exit status 1"}},
		{Entry{Kind: lineDropped, Status: 500, Text: "gone", Msg: `{"jsonrpc":"2.0","method":"m"}`}, caption{Method: "m"}},
		{Entry{Kind: lineRaw, Status: 502, Text: "bad"}, caption{Fault: "HTTP 502"}},
		{Entry{Msg: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}`}, caption{What: "call", Method: "tools/call", Name: "echo"}},
		{Entry{Msg: `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b"}}`}, caption{What: "call", Method: "resources/read", Name: "a:b"}},
		{Entry{Msg: `{"jsonrpc":"2.0","method":"` + long + `é"}`}, caption{What: "notification", Method: long + "…"}},
		{Entry{Msg: `{"jsonrpc":"2.0","id":1,"result":{"isError":false}}`}, caption{What: "response"}},
		{Entry{Msg: `{"jsonrpc":"2.0","id":1,"result":{"isError":true}}`}, caption{What: "response", Fault: "isError"}},
		{Entry{Msg: `{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[{"type":"text","text":"no"}]}}`}, caption{What: "response", Fault: "isError: no"}},
		{Entry{Msg: `{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}`, Status: 400}, caption{What: "response", Fault: "error -32602 no, HTTP 400"}},
		{Entry{Msg: `[1]`}, caption{What: "batch"}},
		{Entry{Msg: `{"id":1}`}, caption{Fault: "no JSON-RPC: jsonrpc is absent"}},
	} {
		if c.e.Kind == "" {
			c.e.Kind = lineMsg
		}
		if got := captionOf(&c.e); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s%s: got %+v, want %+v", c.e.Text, c.e.Msg, got, c.want)
		}
	}
}

// A longTape is the calls and responses of a tape, made while it is read.
type longTape struct {
	calls, seq int
	buf        bytes.Buffer
}

func (l *longTape) Read(p []byte) (int, error) {
	for l.buf.Len() == 0 {
		if l.seq == 2*l.calls {
			return 0, io.EOF
		}
		l.seq++
		e := Entry{Seq: int64(l.seq), T: time.Duration(l.seq) * time.Millisecond, Kind: lineMsg, Session: 1, Dir: dirToServer, Via: viaStdio,
			Msg: fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","text":%q}}`, l.seq, strings.Repeat("lorem ", 100))}
		if l.seq%2 == 0 {
			e.Dir, e.Re, e.Msg = dirToClient, e.Seq-1, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{}}`, l.seq-1)
		}
		l.buf.Write(appendEntry(nil, &e))
	}
	return l.buf.Read(p)
}

func TestExportIsFlat(t *testing.T) {
	for name, f := range map[string]tapeTool{"html": exportHTML, "har": exportHAR} {
		var most uint64
		begun := time.Now()
		out := writerFunc(func(p []byte) (int, error) {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
			return len(p), nil
		})
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		if err := f.run(io.MultiReader(strings.NewReader(testTapeHeader), &longTape{calls: 10000}), "t", bufioEvery(out, 4<<20), TapeToolOptions{Max: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		if grown := int64(most) - int64(before.HeapAlloc); grown > 8<<20 {
			t.Errorf("%s: got %d bytes held while writing, want few", name, grown)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s: got %v for 20,000 messages, want less", name, took)
		}
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// bufioEvery calls w with an empty slice after every n bytes, which are thrown away.
func bufioEvery(w io.Writer, n int) io.Writer {
	written := 0
	return writerFunc(func(p []byte) (int, error) {
		if written += len(p); written >= n {
			written = 0
			w.Write(nil)
		}
		return len(p), nil
	})
}
