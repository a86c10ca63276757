// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

type archivePair struct{ Name, Value string }

// An archive is what the HAR 1.2 specification demands, pointers where a zero value would hide that it is absent.
type archive struct {
	Log struct {
		Version string
		Creator archivePairVersion
		Entries []archiveEntry
		Comment string
	}
}

type archivePairVersion struct{ Name, Version string }

type archiveEntry struct {
	StartedDateTime time.Time
	Time            *float64
	Request         struct {
		Method, URL, HTTPVersion string
		Cookies                  *[]archivePair
		Headers, QueryString     *[]archivePair
		PostData                 *struct{ MimeType, Text string }
		HeadersSize, BodySize    *int
	}
	Response struct {
		Status                               *int
		StatusText, HTTPVersion, RedirectURL *string
		Cookies, Headers                     *[]archivePair
		Content                              *struct {
			Size                     *int
			MimeType, Text, Encoding string
		}
		HeadersSize, BodySize *int
	}
	Cache   *struct{}
	Timings struct{ Send, Wait, Receive *float64 }
	Comment string
	Seq     int64 `json:"_seq"`
}

func exportedArchive(t *testing.T, tape string, o TapeToolOptions) (a archive) {
	t.Helper()
	var out bytes.Buffer
	o.Max = 1 << 20
	if err := tapeTool(exportHAR).run(strings.NewReader(tape), "t.jsonl", &out, o); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	if a.Log.Version != "1.2" || a.Log.Creator.Name == "" || a.Log.Creator.Version == "" || a.Log.Entries == nil {
		t.Errorf("got %+v, want version, creator and entries", a.Log)
	}
	for i := range a.Log.Entries {
		e := &a.Log.Entries[i]
		r, s, m := e.Request, e.Response, e.Timings
		if e.StartedDateTime.IsZero() || e.Time == nil || *e.Time < 0 || e.Cache == nil || m.Send == nil || m.Wait == nil || m.Receive == nil ||
			r.Method == "" || r.HTTPVersion == "" || r.Cookies == nil || r.Headers == nil || r.QueryString == nil || r.HeadersSize == nil || r.BodySize == nil ||
			s.Status == nil || s.StatusText == nil || s.HTTPVersion == nil || s.RedirectURL == nil || s.Cookies == nil || s.Headers == nil ||
			s.Content == nil || s.Content.Size == nil || s.Content.MimeType == "" || s.HeadersSize == nil || s.BodySize == nil {
			t.Fatalf("entry %d lacks something: %+v", i, e)
		}
		if sum := *m.Send + *m.Wait + *m.Receive; sum-*e.Time > 0.001 || *e.Time-sum > 0.001 || min(*m.Send, *m.Wait, *m.Receive) < 0 {
			t.Errorf("entry %d: got timings of %v, want %v", i, sum, *e.Time)
		}
		if u, err := url.Parse(r.URL); err != nil || u.Host != "server" {
			t.Errorf("got url %q, %v", r.URL, err)
		}
		if r.Method == "POST" && (r.PostData == nil || len(r.PostData.Text) != *r.BodySize) {
			t.Errorf("entry %d: got no body of %d bytes", i, *r.BodySize)
		}
	}
	return a
}

func msgEntry(dir, msg string, change func(*Entry)) Entry {
	e := Entry{Kind: lineMsg, Session: 1, Dir: dir, Via: viaStdio, Msg: msg}
	if change != nil {
		change(&e)
	}
	return e
}

const (
	harCall     = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a <b>&c"}}`
	harProgress = `{"jsonrpc":"2.0","method":"notifications/progress","params":{}}`
	harResult   = `{"jsonrpc":"2.0","id":1,"result":{"big":9007199254740993}}`
)

func TestArchiveOverHTTP(t *testing.T) {
	a := exportedArchive(t, testTape(
		msgEntry(dirToServer, harCall, func(e *Entry) { e.T, e.Via, e.Headers = time.Second, viaPost, `{"mcp-method":"tools/call"}` }),
		msgEntry(dirToClient, harProgress, func(e *Entry) { e.T, e.Via, e.Status, e.X, e.Event = 1100*time.Millisecond, viaSSE, 200, 1, "7" }),
		msgEntry(dirToClient, harResult, func(e *Entry) {
			e.T, e.Via, e.Status, e.Re, e.Headers = 1250*time.Millisecond, viaSSE, 200, 1, `{"content-type":"text/event-stream"}`
		}),
	), TapeToolOptions{})
	if len(a.Log.Entries) != 1 {
		t.Fatalf("got %d entries, want 1", len(a.Log.Entries))
	}
	e := a.Log.Entries[0]
	if got, want := e.StartedDateTime, time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC); !got.Equal(want) || *e.Time != 250 || *e.Timings.Wait != 100 {
		t.Errorf("got %v, %v ms, %v before the first message, want %v, 250 and 100", got, *e.Time, *e.Timings.Wait, want)
	}
	if e.Request.Method != "POST" || e.Request.PostData.Text != harCall || (*e.Request.Headers)[0] != (archivePair{"mcp-method", "tools/call"}) {
		t.Errorf("got request %+v", e.Request)
	}
	if u, _ := url.Parse(e.Request.URL); u.Scheme != "http" || u.Query().Get("name") != "a <b>&c" {
		t.Errorf("got url %s", e.Request.URL)
	}
	want := "id: 7\nevent: message\ndata: " + harProgress + "\n\nevent: message\ndata: " + harResult + "\n\n"
	if c := e.Response.Content; *e.Response.Status != 200 || c.MimeType != "text/event-stream" || c.Text != want || *c.Size != len(want) || len(*e.Response.Headers) != 1 {
		t.Errorf("got response %+v, content %+v, want %q", e.Response, c, want)
	}
}

func TestArchiveEntries(t *testing.T) {
	for _, c := range []struct {
		name  string
		tape  []Entry
		wants []string // Seq, method, status, type, comment
	}{
		{"stdio", []Entry{msgEntry(dirToServer, harCall, nil), msgEntry(dirToClient, harResult, func(e *Entry) { e.Re = 1 })},
			[]string{`1 POST 200 application/json `}},
		{"stdio with progress", []Entry{msgEntry(dirToServer, harCall, nil), msgEntry(dirToClient, harProgress, func(e *Entry) { e.X = 1 }),
			msgEntry(dirToClient, harResult, func(e *Entry) { e.Re = 1 })}, []string{`1 POST 200 text/event-stream `}},
		{"unanswered", []Entry{msgEntry(dirToServer, harCall, nil)}, []string{`1 POST 0 application/json no response`}},
		{"the same id twice", []Entry{msgEntry(dirToServer, harCall, nil), msgEntry(dirToServer, harCall, nil), msgEntry(dirToClient, harResult, func(e *Entry) { e.Re = 2 })},
			[]string{`2 POST 200 application/json `, `1 POST 0 application/json no response`}},
		{"notifications", []Entry{msgEntry(dirToServer, harProgress, nil), msgEntry(dirToClient, harProgress, nil), msgEntry(dirToClient, harResult, nil)},
			[]string{`1 POST 202 application/json `, `2 GET 200 text/event-stream belongs to no call`, `3 GET 200 text/event-stream belongs to no call`}},
		{"error", []Entry{msgEntry(dirToServer, harCall, nil),
			msgEntry(dirToClient, `{"jsonrpc":"2.0","id":1,"error":{"code":429,"message":"slow"}}`, func(e *Entry) { e.Re, e.Status, e.Local = 1, 429, true })},
			[]string{`1 POST 429 application/json answered by the proxy; error 429 slow, HTTP 429`}},
		{"changed by a rule", []Entry{msgEntry(dirToServer, harCall, nil), msgEntry(dirToServer, harCall, func(e *Entry) { e.Was, e.Rule = 1, "r" }),
			msgEntry(dirToClient, harResult, func(e *Entry) { e.Re = 1 }), msgEntry(dirToClient, harResult, func(e *Entry) { e.Re, e.Was, e.Rule = 1, 3, "r" })},
			[]string{`2 POST 200 application/json changed by a rule`}},
		{"kept back by a rule", []Entry{msgEntry(dirToServer, harCall, func(e *Entry) { e.Local = true }), {Kind: lineRule, Dir: dirToServer, Re: 1, Rule: "r", Text: "answer"},
			msgEntry(dirToClient, harResult, func(e *Entry) { e.Re, e.Local, e.Rule = 1, true, "r" })},
			[]string{`1 POST 200 application/json rule r: answer; answered by the proxy`}},
		{"raw", []Entry{msgEntry(dirToServer, harCall, nil), {Kind: lineRaw, Dir: dirToClient, X: 1, Status: 502, Text: "\xff"}},
			[]string{`1 POST 502 application/octet-stream no response; HTTP 502`}},
	} {
		var got []string
		for _, e := range exportedArchive(t, testTape(c.tape...), TapeToolOptions{}).Log.Entries {
			got = append(got, fmt.Sprint(e.Seq, " ", e.Request.Method, " ", *e.Response.Status, " ", e.Response.Content.MimeType, " ", e.Comment))
		}
		if strings.Join(got, "\n") != strings.Join(c.wants, "\n") {
			t.Errorf("%s: got %q, want %q", c.name, got, c.wants)
		}
	}
}

func TestArchiveRaw(t *testing.T) {
	a := exportedArchive(t, testTape(msgEntry(dirToServer, harCall, nil), Entry{Kind: lineRaw, Dir: dirToClient, X: 1, Headers: `{"content-type":"text/html"}`, Text: "\xff<"}), TapeToolOptions{})
	if c := a.Log.Entries[0].Response.Content; c.Encoding != "base64" || c.MimeType != "text/html" || c.Text != base64.StdEncoding.EncodeToString([]byte("\xff<")) {
		t.Errorf("got %+v", c)
	}
}

func TestArchiveIsBounded(t *testing.T) {
	var entries []Entry
	for range harOpen + 5 {
		entries = append(entries, msgEntry(dirToServer, harCall, nil))
	}
	entries = append(entries, msgEntry(dirToClient, harResult, func(e *Entry) { e.Re = 1 }), msgEntry(dirToClient, harResult, func(e *Entry) { e.Re = harOpen }))
	a := exportedArchive(t, testTape(entries...), TapeToolOptions{})
	if got := len(a.Log.Entries); got != harOpen+6 {
		t.Fatalf("got %d entries, want one for each call and one for the late answer", got)
	}
	if first, late, answered := a.Log.Entries[0], a.Log.Entries[5], a.Log.Entries[6]; first.Seq != 1 || late.Comment != "belongs to no call" || answered.Seq != harOpen || *answered.Response.Status != 200 {
		t.Errorf("got first %+v, late %+v, answered %+v", first, late, answered)
	}
}

// Whatever tape is read, the page's blocks end where they should, and the archive is JSON.
func FuzzExport(f *testing.F) {
	f.Add(testTape(msgEntry(dirToServer, harCall, nil), msgEntry(dirToClient, harResult, func(e *Entry) { e.Re = 1 }), Entry{Kind: lineRaw, X: 1, Text: hostileText}))
	f.Fuzz(func(t *testing.T, tape string) {
		var page, har strings.Builder
		o := TapeToolOptions{Max: 1 << 20}
		if tapeTool(exportHTML).run(strings.NewReader(tape), "t", &page, o) != nil {
			return
		}
		for block := range strings.Lines(strings.TrimPrefix(page.String(), sealedPage())) {
			if strings.Count(block, "<") != 2 {
				t.Fatalf("%q gave block %q", tape, block)
			}
		}
		if err := tapeTool(exportHAR).run(strings.NewReader(tape), "t", &har, o); err != nil || !json.Valid([]byte(har.String())) {
			t.Fatalf("%q gave archive %q, %v", tape, har.String(), err)
		}
	})
}
