// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestMain lets the test binary be the processes that the tests need.
func TestMain(m *testing.M) {
	roles := procRoles()
	maps.Copy(roles, proxyRoles())
	maps.Copy(roles, recordRoles())
	if role := roles[os.Getenv("MCPPROXY_TEST_CHILD")]; role != nil {
		role()
		os.Exit(0)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=10") // or each child lingers for a second under -race
	os.Exit(m.Run())
}

// A talk is a conversation between clients, the program, and a server, in one bubble: the test says what the clients
// and what the server say, and the network and all pipes are memory.
type talk struct {
	t        *testing.T
	client   string // "stdio" or "http"
	server   string // "stdio"; "json" or "events" for one on HTTP that answers in that form where it has the choice; "tape"
	modern   bool   // 2026-07-28
	slow     bool   // every read on every stream of bytes returns one byte
	revision string // of the handshake
	accept   string // of clients on HTTP; "" for JSON or events, as the server likes
	rules    string // the list of a rule file; "" for no rules
	policy   *Rules // those rules, once there is a proxy; a test may have made it
	tape     string // as which the talk was recorded, in the end; or what is played if server is "tape"
	max      int
	bounds   Bounds
	log      *slog.Logger
	front    *talkNet // nil until the first client on HTTP
	heard    chan *talkHeard
	net      *talkNet // to the server on HTTP

	mu        sync.Mutex // protects following
	processes []*talkProcess
	pushers   []func(string) // GET streams to the server
	sessions  int
	deleted   int
}

// talkTest runs f in a bubble of its own, which must be empty afterwards: nothing may be left running.
func talkTest(t *testing.T, w *talk, f func(*talk)) {
	synctest.Test(t, func(t *testing.T) {
		w.t, w.heard, w.net = t, make(chan *talkHeard, 1000), newTalkNet(w.slow)
		w.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
		if w.revision == "" {
			w.revision = "2025-11-25"
		}
		if w.max == 0 {
			w.max = 64 << 20
		}
		w.bounds.Sessions, w.bounds.Calls = 1000, 256
		server := &http.Server{Handler: http.HandlerFunc(w.serve), ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug)}
		go server.Serve(w.net)
		t.Cleanup(func() { server.Close() })
		f(w)
		synctest.Wait()
		for len(w.heard) > 0 {
			t.Errorf("got %.300q at the server, want no more", (<-w.heard).raw)
		}
	})
}

// shared reports whether clients share a process, which renames ids.
func (w *talk) shared() bool { return w.modern && w.client == "http" && w.server == "stdio" }

func (w *talk) overHTTP() bool { return w.server == "json" || w.server == "events" }

// next is the next message at the server, but for those of the handshake.
func (w *talk) next() *talkHeard {
	w.t.Helper()
	select {
	case h := <-w.heard:
		return h
	case <-time.After(time.Hour):
		w.t.Fatal("got no message at the server, want one")
		return nil
	}
}

// silent checks that nothing is on its way to the server.
func (w *talk) silent() {
	w.t.Helper()
	synctest.Wait()
	if len(w.heard) > 0 {
		w.t.Fatalf("got %.300q at the server, want nothing", (<-w.heard).raw)
	}
}

// gets is the next message, which must be the one that was sent, byte for byte; one shared by several clients has
// another id and token.
func (w *talk) gets(sent string) *talkHeard {
	w.t.Helper()
	h, want := w.next(), sent
	if w.shared() {
		m := newTalkHeard(sent)
		if m.ID != nil {
			want = strings.Replace(want, `"id":`+string(m.ID), `"id":`+string(h.ID), 1)
		}
		if token := m.Params.Meta["progressToken"]; token != nil {
			want = strings.Replace(want, `"progressToken":`+string(token), `"progressToken":`+h.token(), 1)
		}
	}
	if h.raw != want {
		w.t.Fatalf("got %d bytes at the server: %.500q\nwant %d: %.500q", len(h.raw), h.raw, len(want), want)
	}
	return h
}

// push says what belongs to no call.
func (w *talk) push(text string) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.overHTTP() {
		w.pushers[len(w.pushers)-1](text)
	} else {
		w.processes[len(w.processes)-1].say(text)
	}
}

// A talkHeard is a message at the server.
type talkHeard struct {
	raw    string
	ID     json.RawMessage
	Method string
	Params struct {
		Meta      map[string]json.RawMessage `json:"_meta"`
		RequestID json.RawMessage            `json:"requestId"`
	}
	// say sends the client of this message something, answer the last thing.
	say, answer func(string)
	gone        <-chan struct{} // closed when the HTTP request was given up; nil on stdio
	abort       func()          // breaks the HTTP response off
}

func newTalkHeard(raw string) *talkHeard {
	h := &talkHeard{raw: raw}
	if m, err := Parse(raw); err == nil && len(raw) > 1<<20 { // what encoding/json takes too long for
		h.ID, h.Method = json.RawMessage(m.ID), m.Method
		return h
	}
	json.Unmarshal([]byte(raw), h) // a batch or so is seen in raw
	return h
}

func (h *talkHeard) token() string { return string(h.Params.Meta["progressToken"]) }

func (h *talkHeard) result(result string) {
	h.answer(talkResult(string(h.ID), result))
}

func talkResult(id, result string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"result":` + result + `}`
}

func talkProgress(token, progress string) string {
	return `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":` + token + `,"progress":` + progress + `}}`
}

// A talkProcess is the server as a process.
type talkProcess struct {
	out    *io.PipeWriter
	in     *io.PipeReader
	done   chan struct{}
	once   sync.Once
	status string
}

func (p *talkProcess) say(text string) { io.WriteString(p.out, text+"\n") }

func (p *talkProcess) exit(status string) {
	p.once.Do(func() {
		p.status = status
		p.in.CloseWithError(io.ErrClosedPipe)
		p.out.Close()
		close(p.done)
	})
}

func (w *talk) start() (*process, error) {
	serverIn, in := io.Pipe()
	out, serverOut := io.Pipe()
	p := &talkProcess{out: serverOut, in: serverIn, done: make(chan struct{})}
	w.mu.Lock()
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	go func() {
		for r := bufio.NewReader(serverIn); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				p.exit("exit status 0")
				return
			}
			h := newTalkHeard(strings.TrimSuffix(line, "\n"))
			h.say, h.answer = p.say, p.say
			if !w.handshake(h) {
				w.heard <- h
			}
		}
	}()
	return &process{
		in: in, out: talkOut{talkReader(out, w.slow), out}, done: p.done, end: func() { in.Close(); <-p.done },
		status: func() string { return p.status },
	}, nil
}

type talkOut struct {
	io.Reader
	io.Closer
}

// handshake answers initialize and takes the notification after it.
func (w *talk) handshake(h *talkHeard) bool {
	switch h.Method {
	case methodInitialize:
		h.result(`{"protocolVersion":"` + w.revision + `","capabilities":{},"serverInfo":{"name":"talk","version":"1"}}`)
	case methodInitialized:
	default:
		return false
	}
	return true
}

// talkHalf is what the server on HTTP says to half a message.
const talkHalf = `{"jsonrpc":"2.0","error":{"code":-32700,"message":"half"}}`

// serve is the server on HTTP.
func (w *talk) serve(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h := newTalkHeard(string(body))
	w.mu.Lock()
	var id string
	if h.Method == methodInitialize {
		w.sessions++
		id = fmt.Sprintf("server-session-%d", w.sessions)
		rw.Header().Set("Mcp-Session-Id", id)
	}
	w.mu.Unlock()
	if got := r.Header.Get("Mcp-Session-Id"); !w.modern && h.Method != methodInitialize && !strings.HasPrefix(got, "server-session-") {
		w.t.Errorf("%s %s: got session id %q, want the server's own", r.Method, h.Method, got)
	}
	if !json.Valid(body) && r.Method == http.MethodPost { // half a message
		w.heard <- h
		rw.WriteHeader(http.StatusBadRequest)
		io.WriteString(rw, talkHalf)
		return
	}
	if got := r.Header.Get("Mcp-Method"); w.modern && got != h.Method {
		w.t.Errorf("%s: got Mcp-Method %q", h.Method, got)
	}
	s := &talkResponse{w: rw, events: w.server == "events", end: make(chan struct{})}
	switch {
	case r.Method == http.MethodDelete:
		w.mu.Lock()
		w.deleted++
		w.mu.Unlock()
		return
	case r.Method == http.MethodGet:
		rw.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(rw).Flush()
		s.sse = true
		w.mu.Lock()
		w.pushers = append(w.pushers, s.say)
		w.mu.Unlock()
		<-r.Context().Done()
		return
	case h.ID == nil || h.Method == "":
		rw.WriteHeader(http.StatusAccepted)
		if h.Method != methodInitialized {
			w.heard <- h
		}
		return
	}
	h.say, h.answer, h.gone = s.say, s.answer, r.Context().Done()
	h.abort = func() { s.broken = true; close(s.end) }
	if w.handshake(h) {
		return
	}
	w.heard <- h
	select {
	case <-s.end:
		if s.broken {
			panic(http.ErrAbortHandler)
		}
	case <-r.Context().Done():
		s.stop()
	}
}

// A talkResponse is one HTTP response of the server.
type talkResponse struct {
	end    chan struct{}
	events bool
	broken bool

	mu  sync.Mutex // protects following
	w   http.ResponseWriter
	sse bool
}

func (s *talkResponse) stop() {
	s.mu.Lock()
	s.w = nil
	s.mu.Unlock()
}

func (s *talkResponse) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return
	}
	if !s.sse {
		s.w.Header().Set("Content-Type", "text/event-stream")
		s.sse = true
	}
	io.WriteString(s.w, "event: message\ndata: "+text+"\n\n")
	http.NewResponseController(s.w).Flush()
}

func (s *talkResponse) answer(text string) {
	s.mu.Lock()
	plain := !s.sse && !s.events && s.w != nil
	if plain {
		s.w.Header().Set("Content-Type", "application/json")
		io.WriteString(s.w, text)
	}
	s.mu.Unlock()
	if !plain {
		s.say(text)
	}
	close(s.end)
}

// A talkNet is a network in memory.
type talkNet struct {
	slow   bool
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newTalkNet(slow bool) *talkNet {
	return &talkNet{slow: slow, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (n *talkNet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case n.conns <- talkConn{b, talkReader(b, n.slow)}:
		return talkConn{a, talkReader(a, n.slow)}, nil
	case <-n.closed:
	case <-ctx.Done():
	}
	return nil, io.ErrClosedPipe
}

func (n *talkNet) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *talkNet) Close() error   { n.once.Do(func() { close(n.closed) }); return nil }
func (n *talkNet) Addr() net.Addr { return &net.TCPAddr{} }

type talkConn struct {
	net.Conn
	r io.Reader
}

func (c talkConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// talkReader returns r, or one that reads a byte at a time.
func talkReader(r io.Reader, slow bool) io.Reader {
	if !slow {
		return r
	}
	return talkOne{r}
}

type talkOne struct{ r io.Reader }

func (o talkOne) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

// proxy makes the program's inside, between w's clients and its server. All is recorded, and release checks the tape.
func (w *talk) proxy() (p *Proxy, release func()) {
	if w.server == "tape" {
		return w.playing()
	}
	var d closingDialer
	rec, check := recordTalk(w)
	if w.overHTTP() {
		u, _ := url.Parse("http://127.0.0.1/mcp")
		h := newHTTPDialer(u, nil, w.max, w.log)
		h.transport.DialContext = w.net.dial
		d = h
	} else {
		d = newCommandDialer(recorded(w.start, rec), w.max, w.log)
	}
	chain := w.ruled()
	if chain != nil {
		w.policy.Noted, rec.Rules = rec.Noted, true
		chain = append([]Interceptor{rec.Changed}, chain...)
	}
	p = NewProxy(d, w.bounds, w.log, append(chain, rec.Intercept)...)
	rec.Attach(p)
	return p, func() {
		d.Close()
		check()
	}
}

// playing makes a proxy in front of w.tape.
func (w *talk) playing() (p *Proxy, release func()) {
	d, err := OpenPlayer(strings.NewReader(w.tape), "t.jsonl", PlayerOptions{Log: w.log, Max: w.max, FailUnused: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return NewProxy(d, w.bounds, w.log, w.ruled()...), func() { d.Close() }
}

// ruled is the interceptor of w's rules; nil if there are none.
func (w *talk) ruled() []Interceptor {
	if w.rules == "" && w.policy == nil {
		return nil
	}
	if w.policy == nil {
		w.policy = NewRules(ruleSet(w.t, w.rules), w.log)
	}
	return []Interceptor{w.policy.Intercept}
}
