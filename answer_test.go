// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// upPosts answers calls with f, notifications with 202 and the rest with 405.
func upPosts(f func(w http.ResponseWriter, r *http.Request, q upRequest)) func(http.ResponseWriter, *http.Request, upRequest) {
	return func(w http.ResponseWriter, r *http.Request, q upRequest) {
		if q.method == http.MethodGet {
			w.WriteHeader(http.StatusMethodNotAllowed)
		} else if m, err := Parse(q.body); err == nil && m.Kind == Call {
			f(w, r, q)
		} else {
			w.WriteHeader(http.StatusAccepted)
		}
	}
}

// TestAnswers is what a client on stdio hears for what a server answers to its call "a" in a session.
func TestAnswers(t *testing.T) {
	const ok = `{"jsonrpc":"2.0","id":"a","result":{"n":1.0}}`
	const sse, js, text = "text/event-stream", "application/json", "text/plain"
	for _, c := range []struct {
		name   string
		status int
		kind   string
		body   string
		want   string // "" for an error of the proxy with code
		code   int
	}{
		{"json", 200, js, ok, ok, 0},
		{"json, another type", 200, text, ok, ok, 0},
		{"json, status 400", 400, js, ok, ok, 0},
		{"401", 401, text, "Unauthorized", "", 401},
		{"403 html", 403, "text/html", "<h1>no</h1>", "", 403},
		{"429", 429, text, "slow down", "", 429},
		{"500", 500, text, "boom", "", 500},
		{"503 empty", 503, "", "", "", 503},
		{"200 empty", 200, js, "", "", 502},
		{"202 empty", 202, "", "", "", 502},
		{"204", 204, "", "", "", 502},
		{"200 html", 200, "text/html", "<h1>hello</h1>", "", 502},
		{"cut json", 200, js, ok[:20], "", 502},
		{"error with null", 400, js, `{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"x","data":{"b":1.0,"a":9007199254740993}}}`,
			`{"jsonrpc":"2.0","id":"a","error":{"code":-32000,"message":"x","data":{"b":1.0,"a":9007199254740993}}}`, 0},
		{"error without id", 400, js, `{"jsonrpc":"2.0","error":{"code":-32022,"message":"x"}}`,
			`{"jsonrpc":"2.0","id":"a","error":{"code":-32022,"message":"x"}}`, 0},
		{"error that is none", 400, js, `{"error":"invalid_token"}`, "", 400},
		{"another id", 200, js, `{"jsonrpc":"2.0","id":"b","result":{}}`, "", 502},
		{"events", 200, sse, ": hi\n\nevent: message\ndata: " + ok + "\n\n", ok, 0},
		{"events, charset", 200, "Text/Event-Stream; charset=utf-8", "data: " + ok + "\n\n", ok, 0},
		{"events, CR", 200, sse, "data: " + ok + "\r\r", ok, 0},
		{"events, two lines", 200, sse, "data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":\"a\",\"result\":{\"n\":1.0}}\n\n", `{"jsonrpc":"2.0", "id":"a","result":{"n":1.0}}`, 0},
		{"events, garbage", 200, sse, "data: x\n\ndata: {}\n\nfoo\n\n\xff: \xfe\n\ndata: [" + ok + "]\n\nretry: x\nid: \x00\n\ndata: " + ok + "\n\n", ok, 0},
		{"events, none", 200, sse, "", "", 502},
		{"events, comment", 200, sse, ": ping\n\n", "", 502},
		{"events, no answer", 200, sse, "data: {\"jsonrpc\":\"2.0\",\"id\":\"b\",\"result\":{}}\n\n", "", 502},
		{"events, cut in the answer", 200, sse, "data: " + ok + "\n", "", 502},
		{"events, error without id", 200, sse, "data: {\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32000,\"message\":\"x\"}}\n\n",
			`{"jsonrpc":"2.0","id":"a","error":{"code":-32000,"message":"x"}}`, 0},
		{"too long", 200, js, `{"jsonrpc":"2.0","id":"a","result":"` + strings.Repeat("x", 20_000) + `"}`, "", 502},
		{"event too long", 200, sse, "data: {\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":\"" + strings.Repeat("x", 20_000) + "\"}\n\n", "", 502},
		{"event too long to resume", 200, sse, "id: 1\ndata: \n\nid: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":\"" + strings.Repeat("x", 20_000) + "\"}\n\n", "", 502},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,chunked=%t", c.name, chunked), func(t *testing.T) {
				u := &upstream{max: 10_000}
				u.answer = upPosts(func(w http.ResponseWriter, _ *http.Request, _ upRequest) {
					w.Header()["Content-Type"] = []string{c.kind}
					w.WriteHeader(c.status)
					if chunked {
						http.NewResponseController(w).Flush()
					}
					io.WriteString(w, c.body)
				})
				u.test(t, func() {
					u.shake()
					began := time.Now()
					u.say(upCall(`"a"`))
					if c.want != "" {
						u.hears(c.want)
					} else {
						u.refused(`"a"`, c.code)
					}
					if waited := time.Since(began); waited > 0 {
						t.Errorf("got it after %v, want it at once", waited)
					}
					u.gets("POST tools/call")
					u.silent()
				})
			})
		}
	}
}

// Retry-After comes back with the error.
func TestAnswerRetryAfter(t *testing.T) {
	u := &upstream{}
	u.answer = upPosts(func(w http.ResponseWriter, _ *http.Request, _ upRequest) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(503)
	})
	u.test(t, func() {
		u.say(upCall("1"))
		if got := upWithin(u, u.heard, "an error"); !strings.Contains(got, `"retryAfterMs":7000`) {
			t.Errorf("got %q, want retryAfterMs 7000", got)
		}
	})
}

// What breaks off after the answer is nobody's concern, least of all that of a later call with the same id.
func TestAnswerThenBroken(t *testing.T) {
	u := &upstream{}
	var first, second chan struct{}
	calls := 0
	u.answer = upPosts(func(w http.ResponseWriter, _ *http.Request, q upRequest) {
		if calls++; calls == 1 {
			upEvents(w, "data: "+talkResult("1", `{"n":1}`)+"\n\n")
			<-first
			panic(http.ErrAbortHandler)
		}
		<-second
		upJSON(w, 200, talkResult("1", `{"n":2}`))
	})
	u.test(t, func() {
		first, second = make(chan struct{}), make(chan struct{})
		u.shake()
		u.say(upCall("1"))
		u.hears(talkResult("1", `{"n":1}`))
		u.say(upCall("1"))
		synctest.Wait()
		close(first)
		synctest.Wait()
		close(second)
		u.hears(talkResult("1", `{"n":2}`))
	})
}

// A message before the answer is handed on when it comes.
func TestAnswerEventByEvent(t *testing.T) {
	u := &upstream{}
	var step chan struct{}
	const note = `{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}}`
	u.answer = upPosts(func(w http.ResponseWriter, _ *http.Request, q upRequest) {
		upEvents(w, "data: "+note+"\n\n")
		<-step
		upEvents(w, "data: "+talkQuestion+"\n\n")
		<-step
		upEvents(w, "data: "+talkResult("1", `{}`)+"\n\n")
	})
	u.test(t, func() {
		step = make(chan struct{})
		u.shake()
		u.say(upCall("1"))
		u.hears(note)
		u.silentClient()
		step <- struct{}{}
		u.hears(talkQuestion)
		u.gets("POST tools/call")
		answer := talkResult("1", `{"a":1.0}`)
		u.say(answer)
		if q := u.gets("POST"); q.body != answer {
			t.Errorf("got %q at the server, want %q", q.body, answer)
		}
		step <- struct{}{}
		u.hears(talkResult("1", `{}`))
	})
}

func (u *upstream) silentClient() {
	u.t.Helper()
	synctest.Wait()
	if len(u.heard) > 0 {
		u.t.Fatalf("got %.300q at the client, want nothing", <-u.heard)
	}
}

func TestTextReader(t *testing.T) {
	var r textReader
	const max = 100_000
	for _, n := range []int{0, 1, 1000, 32 << 10, 32<<10 + 1, max - 1, max, max + 1, 2 * max} {
		text := strings.Repeat("0123456789abcdef~", n/17+1)[:n]
		for _, size := range []int{n, -1} {
			for name, reader := range map[string]io.Reader{
				"whole": strings.NewReader(text), "half": iotest.HalfReader(strings.NewReader(text)), "error with data": iotest.DataErrReader(strings.NewReader(text)),
			} {
				got, err := r.read(reader, int64(size), max)
				if n > max {
					if err != errTooLarge || got == "" || len(got) > peekBytes || !strings.HasPrefix(text, got) {
						t.Errorf("%d bytes, size %d, %s: got %d bytes and %v, want the start and %v", n, size, name, len(got), err, errTooLarge)
					}
				} else if err != nil || got != text {
					t.Errorf("%d bytes, size %d, %s: got %d bytes and %v, want all", n, size, name, len(got), err)
				}
			}
		}
	}
	if got, err := r.read(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abc"))), 3, max); err != iotest.ErrTimeout || got != "" {
		t.Errorf("got %q and %v, want %v", got, err, iotest.ErrTimeout)
	}
}

// split cuts text into pieces, read in parts that end at each of cuts.
func split(text string, cuts ...int) (pieces []string, rest string) {
	var s jsonSplitter
	from := 0
	for _, to := range append(cuts, len(text)) {
		for part := []byte(text[from:to]); len(part) > 0; {
			piece, used := s.next(part)
			if piece != "" {
				pieces = append(pieces, piece)
			}
			clear(part[:used]) // it must not be kept
			part = part[used:]
		}
		from = to
	}
	return pieces, s.rest()
}

func TestJSONSplitter(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // without white space around them
		rest string
	}{
		{"", nil, ""},
		{" \r\n\t", nil, ""},
		{`{}`, []string{`{}`}, ""},
		{`{}{}`, []string{`{}`, `{}`}, ""},
		{"{\"a\":[1,{}]}\n[{},[]]\r\n\r\n{}", []string{`{"a":[1,{}]}`, `[{},[]]`, `{}`}, ""},
		{`{"a":"}"}{"b":"\"}"}`, []string{`{"a":"}"}`, `{"b":"\"}"}`}, ""},
		{`{"a":"\\"}{"b":"\\\"{"}`, []string{`{"a":"\\"}`, `{"b":"\\\"{"}`}, ""},
		{`{"é😀":"日"}`, []string{`{"é😀":"日"}`}, ""},
		{`{} {"a":`, []string{`{}`}, `{"a":`},
		{`{"a":"}`, nil, `{"a":"}`},
	} {
		for cut := range len(c.text) + 1 {
			pieces, rest := split(c.text, cut)
			for i := range pieces {
				pieces[i] = strings.TrimSpace(pieces[i])
			}
			if fmt.Sprint(pieces) != fmt.Sprint(c.want) || strings.TrimSpace(rest) != c.rest {
				t.Errorf("%q cut at %d: got %q and %q, want %q and %q", c.text, cut, pieces, rest, c.want, c.rest)
			}
		}
	}
	if pieces, rest := split("data: x\n\n"); strings.Join(pieces, "")+rest != "data: x\n\n" {
		t.Errorf("got %q and %q, want what is no JSON as it is", pieces, rest)
	}
}

func FuzzJSONSplitter(f *testing.F) {
	f.Add(`{"a":"\\\"}"} [1,{}] x `, 3)
	f.Add("]}{\"\n}", 1)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		cut = max(0, min(cut, len(text)))
		pieces, rest := split(text, cut)
		got := strings.Join(pieces, "") + rest
		if tail, ok := strings.CutPrefix(text, got); !ok || strings.TrimSpace(tail) != "" {
			t.Errorf("%q cut at %d: got %q and %q, want all of it", text, cut, pieces, rest)
		}
	})
}

// A text over the limit is not handed on, also where it ends in what was read at once.
func TestPiecesLimit(t *testing.T) {
	for _, n := range []int{100, 101, 30_000} {
		text := `{"jsonrpc":"2.0","method":"` + strings.Repeat("x", n-29) + `"}`
		handed := 0
		c := &httpConn{d: &httpDialer{max: 100}, receive: func(m *Message, _ error) { handed++ }}
		err := (&answer{c: c, m: &Message{}, reply: &Reply{}}).pieces(strings.NewReader(text))
		if n <= 100 && (err != nil || handed != 1) || n > 100 && (err != errTooLarge || handed > 0) {
			t.Errorf("%d bytes: got %d messages and error %v", len(text), handed, err)
		}
	}
}
