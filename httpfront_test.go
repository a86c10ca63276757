// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
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

// A frontChild is the process of a command.
type frontChild struct {
	t      *testing.T
	in     *io.PipeReader
	out    *io.PipeWriter
	heard  chan *Message // what the script left to the test
	done   chan struct{}
	status string // set before it ends
	once   sync.Once
}

func (g *frontRig) startChild() (*process, error) {
	if g.broken != nil {
		return nil, g.broken
	}
	inReader, in := io.Pipe()
	out, outWriter := io.Pipe()
	c := &frontChild{t: g.t, in: inReader, out: outWriter, heard: make(chan *Message, 1000), done: make(chan struct{}), status: "exit status 0"}
	script := g.script
	if script == nil {
		script = frontScript
	}
	go func() { // ends with its input
		for lines := bufio.NewReader(inReader); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				c.exit()
				return
			}
			m, err := Parse(strings.TrimSpace(line))
			if err != nil {
				g.t.Errorf("child: got line %q: %v", line, err)
				continue
			}
			script(c, m)
		}
	}()
	g.children <- c
	return &process{in: in, out: out, done: c.done, status: func() (string, bool) { return c.status, false }, end: func() {
		in.Close()
		c.exit()
	}}, nil
}

// frontScript answers initialize and test/echo, and leaves all else to the test.
func frontScript(c *frontChild, m *Message) {
	switch m.Method {
	case "initialize":
		revision, _ := unquote(member(m.Params, "protocolVersion"))
		c.says(frontResult(m.ID, `{"protocolVersion":"`+revision+`","capabilities":{},"serverInfo":{"name":"s","version":"1"}}`))
	case "test/echo":
		c.says(frontResult(m.ID, `{"echo":true}`))
	default:
		c.heard <- m
	}
}

func (c *frontChild) says(line string) { io.WriteString(c.out, line+"\n") }

// exit is the end of the process.
func (c *frontChild) exit() {
	c.once.Do(func() {
		close(c.done)
		c.in.CloseWithError(io.ErrClosedPipe)
		c.out.Close()
	})
}

// hears wants the next message to have this method ("" for a response).
func (c *frontChild) hears(method string) *Message {
	c.t.Helper()
	select {
	case m := <-c.heard:
		if m.Method != method {
			c.t.Fatalf("child: got %s, want method %q", m.Raw, method)
		}
		return m
	case <-time.After(time.Minute):
		c.t.Fatalf("child: got nothing, want method %q", method)
	}
	return nil
}

// hearsNothing wants no message once all is quiet.
func (c *frontChild) hearsNothing() {
	c.t.Helper()
	synctest.Wait()
	select {
	case m := <-c.heard:
		c.t.Errorf("child: got %s, want nothing", m.Raw)
	default:
	}
}

func (c *frontChild) ended() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// A frontLog is a log that a test can look into.
type frontLog struct {
	mu sync.Mutex // protects following
	b  bytes.Buffer
}

func (l *frontLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *frontLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A frontNet is a listener in memory. What a client has yet to read is bounded.
type frontNet struct {
	addr   string
	remote string // the client's address in conns to come
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newFrontNet(addr string) *frontNet {
	return &frontNet{addr: addr, remote: "127.0.0.1:50000", conns: make(chan net.Conn), closed: make(chan struct{})}
}

type frontAddr string

func (frontAddr) Network() string  { return "tcp" }
func (a frontAddr) String() string { return string(a) }

type frontConn struct {
	net.Conn
	remote frontAddr
}

func (c frontConn) RemoteAddr() net.Addr { return c.remote }

// A frontClientConn reads ahead up to 64 writes.
type frontClientConn struct {
	net.Conn
	parts  chan []byte // closed at the end
	rest   []byte
	closed chan struct{}
	once   sync.Once
}

func newFrontClientConn(conn net.Conn) *frontClientConn {
	c := &frontClientConn{Conn: conn, parts: make(chan []byte, 64), closed: make(chan struct{})}
	go func() { // ends with conn
		defer close(c.parts)
		for {
			b := make([]byte, 64<<10)
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			select {
			case c.parts <- b[:n]:
			case <-c.closed:
				return
			}
		}
	}()
	return c
}

func (c *frontClientConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case c.rest = <-c.parts:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *frontClientConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (n *frontNet) Addr() net.Addr { return frontAddr(n.addr) }

func (n *frontNet) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *frontNet) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *frontNet) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case n.conns <- frontConn{server, frontAddr(n.remote)}:
		return newFrontClientConn(client), nil
	case <-n.closed:
		return nil, fmt.Errorf("dial %s: connection refused", n.addr)
	}
}

// raw opens a conn for what net/http's client would not do.
func (g *frontRig) raw() net.Conn {
	c, err := g.net.dial(nil, "", "")
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}
