// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// An upRequest is what a server over HTTP got.
type upRequest struct {
	method, path, body string
	header             http.Header
	kind               string // the method of the message
	at                 time.Time
}

// An upstream is a server over HTTP in memory, and a client on stdio in front of it.
type upstream struct {
	t      *testing.T
	answer func(w http.ResponseWriter, r *http.Request, q upRequest) // to what is not part of a handshake
	bounds Bounds
	max    int
	header http.Header // credentials

	dialer *httpDialer
	net    *talkNet
	seen   chan upRequest // in order; handshakes too
	heard  chan string
	in     *io.PipeWriter
	exit   chan error
}

const (
	upInitialize  = `{"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`
	upInitialized = `{"jsonrpc":"2.0","method":"notifications/initialized"}`
	upMeta        = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`
)

func upCall(id string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"t","arguments":{}}}`
}

func upModern(id, method, params string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{` + params + upMeta + `}}`
}

// test runs f in a bubble that must be empty afterwards.
func (u *upstream) test(t *testing.T, f func()) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		u.t, u.net, u.seen = t, newTalkNet(false), make(chan upRequest, 1000)
		server := &http.Server{Handler: u, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
		go server.Serve(u.net)
		u.connect("http://up.example/mcp", u.net.dial)
		t.Cleanup(func() { server.Close(); u.in.Close() }) // also after a Fatal
		f()
		u.close()
		for len(u.heard) > 0 {
			t.Errorf("got %.300q at the client, want no more", <-u.heard)
		}
	})
}

func upLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// connect serves a client on pipes.
func (u *upstream) connect(to string, dial func(context.Context, string, string) (net.Conn, error)) {
	if u.max == 0 {
		u.max = 1 << 20
	}
	u.bounds.Sessions, u.bounds.Calls = 10, 256
	log := upLog(u.t)
	address, _ := url.Parse(to)
	if u.dialer == nil {
		u.dialer = newHTTPDialer(address, nil, u.max, log)
	}
	u.dialer.url, u.dialer.header = address, u.header
	if dial != nil {
		u.dialer.transport.DialContext = dial
	}
	in, clientIn := io.Pipe()
	clientOut, out := io.Pipe()
	u.in, u.exit, u.heard = clientIn, make(chan error, 1), make(chan string, 1000)
	p := NewProxy(u.dialer, u.bounds, log)
	go func() {
		err := serveStdio(context.Background(), p, in, out, u.max, time.Second)
		u.dialer.Close()
		in.Close()
		out.Close()
		u.exit <- err
	}()
	heard := u.heard
	go func() {
		for r := bufio.NewScanner(clientOut); r.Scan(); {
			heard <- r.Text()
		}
	}()
}

func (u *upstream) close() error {
	u.in.Close()
	err := upWithin(u, u.exit, "end of the proxy")
	u.exit <- err
	return err
}

// upWithin is what comes from c.
func upWithin[T any](u *upstream, c <-chan T, what string) T {
	u.t.Helper()
	select {
	case x := <-c:
		return x
	case <-time.After(24 * time.Hour):
		u.t.Fatalf("got nothing, want %s", what)
		panic(0)
	}
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	q := upRequest{method: r.Method, path: r.URL.Path, body: string(body), header: r.Header, at: time.Now()}
	if m, err := Parse(q.body); err == nil {
		q.kind = m.Method
	}
	u.seen <- q
	if q.kind == methodInitialize && r.URL.Path == "/mcp" {
		w.Header().Set("Mcp-Session-Id", "up-1")
		upJSON(w, 200, `{"jsonrpc":"2.0","id":"i","result":{"protocolVersion":"2025-06-18"}}`)
	} else if q.kind == methodInitialized {
		w.WriteHeader(http.StatusAccepted)
	} else if u.answer != nil {
		u.answer(w, r, q)
	} else if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
	} else {
		upAnswer(w, q)
	}
}

func upJSON(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// upAnswer does what is right for a message.
func upAnswer(w http.ResponseWriter, q upRequest) {
	m, err := Parse(q.body)
	if err != nil || m.Kind != Call {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	upJSON(w, 200, talkResult(m.ID, `{}`))
}

// upEvents begins or goes on with a stream of events.
func upEvents(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	io.WriteString(w, text)
	http.NewResponseController(w).Flush()
}

func (u *upstream) say(lines ...string) { io.WriteString(u.in, strings.Join(lines, "\n")+"\n") }

// hears checks the next line at the client.
func (u *upstream) hears(want string) {
	u.t.Helper()
	if got := upWithin(u, u.heard, want); got != want {
		u.t.Fatalf("got %.300q at the client, want %.300q", got, want)
	}
}

// refused checks that the next line at the client is an error of the proxy's.
func (u *upstream) refused(id string, code int) {
	u.t.Helper()
	got := upWithin(u, u.heard, "an error")
	if !strings.HasPrefix(got, fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,`, id, code)) || !strings.Contains(got, `"mcpproxy"`) {
		u.t.Fatalf("got %.300q at the client, want error %d for %s", got, code, id)
	}
}

// gets checks the next request at the server, as "POST method", "GET" or "DELETE".
func (u *upstream) gets(want string) upRequest {
	u.t.Helper()
	q := upWithin(u, u.seen, want)
	if got := strings.TrimSpace(q.method + " " + q.kind); got != want {
		u.t.Fatalf("got %q at the server, want %q", got, want)
	}
	return q
}

// silent checks that nothing is on its way to either.
func (u *upstream) silent() {
	u.t.Helper()
	synctest.Wait()
	if len(u.seen) > 0 {
		u.t.Fatalf("got %+v at the server, want nothing", <-u.seen)
	}
	if len(u.heard) > 0 {
		u.t.Fatalf("got %.300q at the client, want nothing", <-u.heard)
	}
}

// shake does the handshake, with the GET that follows.
func (u *upstream) shake() {
	u.t.Helper()
	u.say(upInitialize)
	u.hears(`{"jsonrpc":"2.0","id":"i","result":{"protocolVersion":"2025-06-18"}}`)
	u.say(upInitialized)
	u.gets("POST initialize")
	u.gets("POST notifications/initialized")
	u.gets("GET")
}

// carries checks a header; want "" is for none.
func (q upRequest) carries(t *testing.T, name, want string) {
	t.Helper()
	if got := strings.Join(q.header.Values(name), "|"); got != want {
		t.Errorf("%s %s: got %s %q, want %q", q.method, q.kind, name, got, want)
	}
}

var upMirrored = [...]string{"Mcp-Method", "Mcp-Name", "Mcp-Param-Region"}

func TestClientHeadersLegacy(t *testing.T) {
	u := &upstream{header: http.Header{"Authorization": {"Bearer s"}, "User-Agent": {"me/1"}}}
	u.test(t, func() {
		// All at once: the order must hold all the same.
		u.say(upInitialize, upInitialized, `{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}`, upCall("1"))
		u.hears(`{"jsonrpc":"2.0","id":"i","result":{"protocolVersion":"2025-06-18"}}`)
		u.hears(talkResult("1", "{}"))
		synctest.Wait() // for the GET
		u.close()
		position := map[string]int{}
		for n := 1; len(u.seen) > 0; n++ {
			q := <-u.seen
			position[strings.TrimSpace(q.method+" "+q.kind)] = n
			session, revision, accept, kind := "up-1", "2025-06-18", "application/json, text/event-stream", "application/json"
			switch {
			case q.kind == methodInitialize:
				session, revision = "", ""
			case q.method == "GET":
				accept, kind = "text/event-stream", ""
			case q.method == "DELETE":
				accept, kind = q.header.Get("Accept"), ""
			}
			q.carries(t, "Mcp-Session-Id", session)
			q.carries(t, "MCP-Protocol-Version", revision)
			q.carries(t, "Accept", accept)
			q.carries(t, "Content-Type", kind)
			q.carries(t, "Authorization", "Bearer s")
			q.carries(t, "User-Agent", "me/1")
			q.carries(t, "Accept-Encoding", "")
			q.carries(t, "Last-Event-ID", "")
			for _, name := range upMirrored {
				q.carries(t, name, "")
			}
		}
		order := []string{"POST initialize", "POST notifications/initialized", "POST notifications/roots/list_changed", "POST tools/call", "DELETE"}
		for i, name := range order {
			if position[name] == 0 || i > 0 && position[name] < position[order[i-1]] {
				t.Errorf("got the order %v, want %v", position, order)
			}
		}
		if at := position["GET"]; at < position["POST notifications/initialized"] || len(position) != 6 {
			t.Errorf("got %v, want one GET after the handshake and nothing else", position)
		}
	})
}

// A version among _meta that is no 2026-07-28 makes no message one of that revision.
func TestClientHeadersLegacyMeta(t *testing.T) {
	u := &upstream{}
	u.test(t, func() {
		u.shake()
		u.say(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","_meta":{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}}}`)
		u.hears(talkResult("1", "{}"))
		q := u.gets("POST tools/call")
		q.carries(t, "Mcp-Method", "")
		q.carries(t, "Mcp-Name", "")
		q.carries(t, "Mcp-Session-Id", "up-1")
		q.carries(t, "MCP-Protocol-Version", "2025-06-18")
	})
}

func TestClientHeadersStateless(t *testing.T) {
	const tools = `{"resultType":"complete","tools":[{"name":"où","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]}`
	for _, events := range []bool{false, true} {
		u := &upstream{header: http.Header{"Mcp-Name": {"ours"}}}
		u.answer = func(w http.ResponseWriter, r *http.Request, q upRequest) {
			m, _ := Parse(q.body)
			result := `{}`
			if m.Method == "tools/list" {
				result = tools
			}
			w.Header().Set("Mcp-Session-Id", "stray") // which this revision does not have
			if events {
				upEvents(w, "data: "+talkResult(m.ID, result)+"\n\n")
			} else {
				upJSON(w, 200, talkResult(m.ID, result))
			}
		}
		u.test(t, func() {
			u.dialer.header = nil
			call := upModern("1", "tools/call", `"name":"où","arguments":{"region":" a"},`)
			for _, c := range []struct{ text, result, name, param string }{
				{call, `{}`, "=?base64?b8O5?=", ""},
				{upModern("2", "tools/list", ""), tools, "", ""},
				{call, `{}`, "=?base64?b8O5?=", "=?base64?IGE=?="},
				{upModern("3", "tools/call", `"name":"où","arguments":{"region":null},`), `{}`, "=?base64?b8O5?=", ""},
				{upModern("4", "prompts/get", `"name":"p",`), `{}`, "p", ""},
				{upModern("5", "resources/read", `"uri":"file:///x",`), `{}`, "file:///x", ""},
				{upModern("6", "server/discover", ""), `{}`, "", ""},
			} {
				m, _ := Parse(c.text)
				u.say(c.text)
				u.hears(talkResult(m.ID, c.result))
				q := u.gets("POST " + m.Method)
				if q.body != c.text {
					t.Errorf("got body %q, want %q", q.body, c.text)
				}
				for name, want := range map[string]string{
					"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": m.Method, "Mcp-Name": c.name, "Mcp-Param-Region": c.param, "Mcp-Session-Id": "",
				} {
					q.carries(t, name, want)
				}
			}
			u.dialer.header = u.header // what the operator says is stronger
			u.say(call)
			u.hears(talkResult("1", `{}`))
			u.gets("POST tools/call").carries(t, "Mcp-Name", "ours")
			u.close()
			u.silent() // no DELETE, no GET
		})
	}
}

func TestClientRedirects(t *testing.T) {
	for _, c := range []struct {
		status   int
		to       string
		requests int // of the call
		ok       bool
	}{
		{307, "/other", 2, true},
		{308, "http://up.example/other", 2, true},
		{307, "http://elsewhere.example/other", 1, false},
		{308, "https://up.example/other", 1, false},
		{307, "http://up.example:8080/other", 1, false},
		{307, "http://up.example@elsewhere.example/other", 1, false},
		{301, "/other", 1, false},
		{302, "/other", 1, false},
		{303, "/other", 1, false},
		{307, "", 1, false},
		{307, "/mcp", maxRedirects, false},
	} {
		u := &upstream{header: http.Header{"Authorization": {"Bearer s"}}}
		u.answer = func(w http.ResponseWriter, r *http.Request, q upRequest) {
			if q.kind == "tools/call" && q.path == "/mcp" {
				if c.to != "" {
					w.Header().Set("Location", c.to)
				}
				w.WriteHeader(c.status)
				return
			}
			upAnswer(w, q)
		}
		u.test(t, func() {
			u.say(upCall("1"))
			if c.ok {
				u.hears(talkResult("1", "{}"))
			} else {
				u.refused("1", 502)
			}
			synctest.Wait()
			if len(u.seen) != c.requests {
				t.Errorf("%d %s: got %d requests, want %d", c.status, c.to, len(u.seen), c.requests)
			}
			for len(u.seen) > 0 {
				q := u.gets("POST tools/call")
				q.carries(t, "Authorization", "Bearer s")
				if q.body != upCall("1") {
					t.Errorf("%d %s: got body %q, want the call", c.status, c.to, q.body)
				}
			}
		})
	}
}

// A server that closes the connection once it has read a request has perhaps done what it says.
func TestClientSendsOnce(t *testing.T) {
	for _, first := range []bool{false, true} { // on a new connection, on one used before
		u := &upstream{header: http.Header{"Idempotency-Key": {"k"}}} // which net/http takes for leave to repeat
		u.answer = func(w http.ResponseWriter, r *http.Request, q upRequest) {
			if strings.Contains(q.body, `"id":2`) {
				panic(http.ErrAbortHandler)
			}
			upAnswer(w, q)
		}
		u.test(t, func() {
			if first {
				u.say(upCall("1"))
				u.hears(talkResult("1", "{}"))
				u.gets("POST tools/call")
			}
			u.say(upCall("2"))
			u.refused("2", 502)
			u.gets("POST tools/call")
			u.silent()
			u.say(upCall("3"))
			u.hears(talkResult("3", "{}"))
		})
	}
}

// upStale is a connection that, once armed, fails when it is written to.
type upStale struct {
	net.Conn
	stale *bool
}

func (c *upStale) Write(b []byte) (int, error) {
	if *c.stale {
		*c.stale = false
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(b)
}

func TestClientSendsAgainWhatWasNotWritten(t *testing.T) {
	u := &upstream{}
	u.test(t, func() {
		stale := false
		u.dialer.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := u.net.dial(ctx, network, address)
			return &upStale{Conn: c, stale: &stale}, err
		}
		u.say(upCall("1"))
		u.hears(talkResult("1", "{}"))
		synctest.Wait()
		stale = true
		u.say(upCall("2"))
		u.hears(talkResult("2", "{}"))
		u.gets("POST tools/call")
		u.gets("POST tools/call")
		u.silent()
	})
}
