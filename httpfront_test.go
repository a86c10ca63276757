// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A frontRig is the proxy as clients over HTTP see it, with everything in memory, so that it runs in a
// bubble of its own time.
type frontRig struct {
	t      *testing.T
	front  *httpFront
	bounds Bounds
	chain  []Interceptor
	grace  time.Duration
	script func(c *frontChild, m *Message) // what a child does with what it is told; nil for frontScript
	broken error                           // why no child can be started

	net      *frontNet
	http     *http.Client
	log      *frontLog
	ctx      context.Context // of the client's requests
	stop     func()          // begins the end of the proxy
	served   chan struct{}   // closed when serveHTTP has returned
	children chan *frontChild
}

// inFront runs test in front of a command.
func inFront(t *testing.T, setup func(g *frontRig), test func(g *frontRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newFrontRig(t, setup)
		dialer := newCommandDialer(g.startChild, 1<<20, slog.New(slog.NewTextHandler(g.log, nil)))
		g.serve(dialer, true)
		test(g)
	})
}

// inFrontOf runs test in front of an HTTP server.
func inFrontOf(t *testing.T, server http.HandlerFunc, setup func(g *frontRig), test func(g *frontRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newFrontRig(t, setup)
		upstream := newFrontNet("127.0.0.1:3001")
		s := &http.Server{Handler: server, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		go s.Serve(upstream)
		t.Cleanup(func() { s.Close() })
		u, _ := url.Parse("http://127.0.0.1:3001/mcp")
		dialer := newHTTPDialer(u, nil, 1<<20, slog.New(slog.NewTextHandler(g.log, nil)))
		dialer.transport.DialContext = upstream.dial
		dialer.transport.Proxy = nil
		g.serve(dialer, false)
		test(g)
	})
}

func newFrontRig(t *testing.T, setup func(*frontRig)) *frontRig {
	g := &frontRig{
		t: t, net: newFrontNet("127.0.0.1:8080"), log: &frontLog{}, served: make(chan struct{}), grace: 10 * time.Second,
		bounds:   Bounds{Sessions: 100, Calls: 100, Idle: time.Hour, Lifetime: 24 * time.Hour, CallTimeout: 20 * time.Minute},
		children: make(chan *frontChild, 1000),
	}
	g.front = &httpFront{Log: slog.New(slog.NewTextHandler(g.log, nil)), Max: 1 << 20}
	if setup != nil {
		setup(g)
	}
	g.http = &http.Client{Transport: &http.Transport{DialContext: g.net.dial, DisableCompression: true}}
	return g
}

func (g *frontRig) serve(dialer closingDialer, command bool) {
	g.front.Command = command
	g.front.Proxy = NewProxy(dialer, g.bounds, g.front.Log, g.chain...)
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	requests, cancel := context.WithCancel(context.Background())
	g.ctx = requests
	go func() {
		defer close(g.served)
		serveHTTP(ctx, g.front, g.net, g.grace)
	}()
	g.t.Cleanup(func() {
		cancel()
		stop()
		g.http.CloseIdleConnections()
		<-g.served
		dialer.Close()
	})
}

// do makes a request. headers are "Name: value"; one without value is left out.
func (g *frontRig) do(method, body string, headers ...string) *http.Response {
	g.t.Helper()
	resp, err := g.try(method, body, headers...)
	if err != nil {
		g.t.Fatalf("%s %.80s: got error %v, want an answer", method, body, err)
	}
	return resp
}

func (g *frontRig) try(method, body string, headers ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(g.ctx, method, "http://127.0.0.1:8080/mcp", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		switch name {
		case "Path":
			r.URL.Path = value
		case "Host":
			r.Host = value
		case "Accept":
			r.Header.Set(name, value)
		default:
			r.Header.Add(name, value)
		}
	}
	return g.http.Do(r)
}

// start makes a request that is answered later, or never.
func (g *frontRig) start(method, body string, headers ...string) *frontPending {
	ctx, cancel := context.WithCancel(g.ctx)
	p := &frontPending{t: g.t, giveUp: cancel, done: make(chan struct{})}
	own := *g
	own.ctx = ctx
	go func() {
		defer close(p.done)
		p.resp, p.err = own.try(method, body, headers...)
	}()
	return p
}

// A frontPending is a request under way.
type frontPending struct {
	t      *testing.T
	giveUp func()
	done   chan struct{}
	resp   *http.Response
	err    error
}

func (p *frontPending) answer() *http.Response {
	p.t.Helper()
	<-p.done
	if p.err != nil {
		p.t.Fatalf("got error %v, want an answer", p.err)
	}
	return p.resp
}

// initialize opens a session and returns the header that names it, and its child.
func (g *frontRig) initialize(revision string, headers ...string) (session string, c *frontChild) {
	g.t.Helper()
	resp := g.do("POST", frontInitialize("0", revision), headers...)
	frontBody(g.t, resp)
	id := resp.Header.Get("Mcp-Session-Id")
	if resp.StatusCode != 200 || id == "" {
		g.t.Fatalf("initialize: got status %d, session %q, want 200 and a session", resp.StatusCode, id)
	}
	if g.front.Command {
		c = <-g.children
	}
	return "Mcp-Session-Id: " + id, c
}

func frontInitialize(id, revision string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"initialize","params":{"protocolVersion":"` + revision +
		`","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`
}

func frontCall(id, method string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `"}`
}

func frontNote(text string) string {
	return `{"jsonrpc":"2.0","method":"notifications/` + text + `"}`
}

func frontResult(id, result string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"result":` + result + `}`
}

func frontError(id, code string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"error":{"code":` + code + `,"message":"no"}}`
}

// frontModern is a call of revision 2026-07-28 and its headers. params follow _meta.
func frontModern(id, method, params string) (body string, headers []string) {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{"_meta":{` +
			`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}` +
			`,"progressToken":"tok"}` + params + `}}`,
		[]string{"MCP-Protocol-Version: 2026-07-28", "Mcp-Method: " + method}
}

// frontBody reads the answer to its end.
func frontBody(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("body: got error %v after %q, want its end", err, b)
	}
	return string(b)
}

// A frontEvents reads a response event by event.
type frontEvents struct {
	t *testing.T
	r *bufio.Reader
}

func frontStream(t *testing.T, resp *http.Response) *frontEvents {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" || resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("got %d %s, want 200 and text/event-stream; body %s", resp.StatusCode, got, b)
	}
	return &frontEvents{t, bufio.NewReader(resp.Body)}
}

// frame returns the next event as it came, "" at the end of the stream.
func (e *frontEvents) frame() string {
	e.t.Helper()
	var b strings.Builder
	for {
		line, err := e.r.ReadString('\n')
		b.WriteString(line)
		if err == io.EOF && b.Len() == 0 {
			return ""
		}
		if err != nil {
			e.t.Fatalf("event: got error %v after %q, want an event or a clean end", err, b.String())
		}
		if line == "\n" {
			return b.String()
		}
	}
}

// data wants the next event to carry this message, and returns its id.
func (e *frontEvents) data(want string) (id string) {
	e.t.Helper()
	frame := e.frame()
	got := ""
	for line := range strings.Lines(frame) {
		if v, ok := strings.CutPrefix(line, "data: "); ok {
			got = strings.TrimSuffix(v, "\n")
		}
		if v, ok := strings.CutPrefix(line, "id: "); ok {
			id = strings.TrimSuffix(v, "\n")
		}
	}
	if got != want {
		e.t.Fatalf("event: got %q, want data %s", frame, want)
	}
	return id
}

func (e *frontEvents) end() {
	e.t.Helper()
	if got := e.frame(); got != "" {
		e.t.Errorf("got event %q, want the end of the stream", got)
	}
}

// A frontRefusal is what the proxy should answer in place of the server.
type frontRefusal struct {
	status, code int
	id           string // JSON text, "" if there must be no id
}

// check wants resp to be the refusal, and returns the data of its error.
func (w frontRefusal) check(t *testing.T, resp *http.Response) map[string]any {
	t.Helper()
	body := frontBody(t, resp)
	if resp.StatusCode != w.status {
		t.Errorf("got status %d, want %d; body %s", resp.StatusCode, w.status, body)
	}
	return w.checkText(t, body)
}

func (w frontRefusal) checkText(t *testing.T, body string) map[string]any {
	t.Helper()
	var m struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   struct {
			Code    int            `json:"code"`
			Message string         `json:"message"`
			Data    map[string]any `json:"data"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Errorf("got body %q, want a JSON-RPC error", body)
		return nil
	}
	if m.JSONRPC != "2.0" || m.Error.Code != w.code || string(m.ID) != w.id || m.Error.Message == "" {
		t.Errorf("got %s, want code %d and id %q", body, w.code, w.id)
	}
	if m.Error.Data["proxy"] != "mcpproxy" {
		t.Errorf("got %s, want data.proxy to be mcpproxy", body)
	}
	return m.Error.Data
}
