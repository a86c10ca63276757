// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// A talkClient is a client on stdio or HTTP. What it hears on whatever stream goes to heard.
type talkClient struct {
	w     *talk
	heard chan string

	in        *io.PipeWriter // on stdio
	out       *io.PipeReader
	exit      chan error         // what serveStdio returned
	interrupt context.CancelFunc // on stdio, as SIGINT

	session string        // on HTTP
	pause   time.Duration // before a body is sent
	http    *http.Transport
}

// dial begins a conversation: up to 2025-11-25 with the handshake, and over HTTP with a GET stream.
func (w *talk) dial() *talkClient {
	w.t.Helper()
	c := &talkClient{w: w, heard: make(chan string, 1000)}
	if w.client == "stdio" {
		c.pipes()
	} else {
		c.connect()
	}
	if w.modern {
		return c
	}
	post := c.say(`{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"` + w.revision +
		`","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`)
	c.hears(`{"jsonrpc":"2.0","id":"init","result":{"protocolVersion":"` + w.revision + `","capabilities":{},"serverInfo":{"name":"talk","version":"1"}}}`)
	if post != nil {
		post.wait(c)
		if c.session = post.header.Get("Mcp-Session-Id"); c.session == "" || strings.HasPrefix(c.session, "server-session") {
			w.t.Fatalf("got session id %q, want one of the proxy's", c.session)
		}
	}
	c.say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	if w.client == "http" {
		c.do(http.MethodGet, "")
	}
	synctest.Wait()
	return c
}

// pipes serves c on pipes, as on stdin and stdout.
func (c *talkClient) pipes() {
	p, release := c.w.proxy()
	in, clientIn := io.Pipe()
	clientOut, out := io.Pipe()
	c.in, c.out, c.exit = clientIn, clientOut, make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	c.interrupt = cancel
	go func() {
		err := serveStdio(ctx, p, talkReader(in, c.w.slow), out, c.w.max, 10*time.Second)
		release()
		out.Close()
		in.Close()
		c.exit <- err
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for r := bufio.NewReader(clientOut); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			c.heard <- strings.TrimSuffix(line, "\n")
		}
	}()
	c.w.t.Cleanup(func() {
		cancel()
		clientIn.Close()
		<-ended
		c.rest()
	})
}

// connect serves c over HTTP, as all clients of one talk.
func (c *talkClient) connect() {
	w := c.w
	if w.front == nil {
		w.front = newTalkNet(w.slow)
		p, release := w.proxy()
		f := &httpFront{Proxy: p, Log: w.log, Command: !w.overHTTP(), Max: w.max}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			serveHTTP(ctx, f, w.front, time.Second)
			release()
			close(ended)
		}()
		w.t.Cleanup(func() { cancel(); <-ended })
	}
	c.http = &http.Transport{DialContext: w.front.dial}
	w.t.Cleanup(func() {
		c.http.CloseIdleConnections()
		synctest.Wait()
		c.rest()
	})
}

// rest checks that c has heard nothing but what the test knows of.
func (c *talkClient) rest() {
	for len(c.heard) > 0 {
		c.w.t.Errorf("got %.300q at the client, want no more", <-c.heard)
	}
}

// A talkPost is an HTTP request of the client.
type talkPost struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the response is over; then the rest is set
	status int
	header http.Header
	body   bytes.Buffer
	err    error
}

// say sends a message. Over HTTP it waits until a notification or response is taken; for a call it returns at once.
func (c *talkClient) say(text string) *talkPost {
	if c.in != nil {
		io.WriteString(c.in, text+"\n")
		return nil
	}
	p := c.do(http.MethodPost, text)
	if m := newTalkHeard(text); m.ID == nil || m.Method == "" {
		p.wait(c)
	}
	return p
}

func (c *talkClient) do(method, text string) *talkPost {
	m := newTalkHeard(text)
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, method, "http://127.0.0.1/mcp", strings.NewReader(text))
	if c.pause > 0 {
		r.Body = io.NopCloser(&talkPause{Reader: strings.NewReader(text), d: c.pause})
	}
	r.Header.Set("Accept", cmp.Or(c.w.accept, "application/json, text/event-stream"))
	r.Header.Set("Content-Type", "application/json")
	if c.w.modern {
		r.Header.Set("MCP-Protocol-Version", statelessRevision)
		r.Header.Set("Mcp-Method", m.Method)
		if m.Method == "tools/call" {
			r.Header.Set("Mcp-Name", "t")
		}
	} else if c.session != "" {
		r.Header.Set("Mcp-Session-Id", c.session)
		r.Header.Set("MCP-Protocol-Version", c.w.revision)
	}
	p := &talkPost{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer cancel()
		p.read(c, r)
	}()
	return p
}

// wait returns when the response is over.
func (p *talkPost) wait(c *talkClient) {
	c.w.t.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Hour):
		c.w.t.Fatal("got an open HTTP response, want its end")
	}
}

func (p *talkPost) read(c *talkClient, r *http.Request) {
	resp, err := c.http.RoundTrip(r)
	if p.err = err; err != nil {
		return
	}
	defer resp.Body.Close()
	p.status, p.header = resp.StatusCode, resp.Header
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "text/event-stream" {
		var body []byte
		if body, p.err = io.ReadAll(io.TeeReader(resp.Body, &p.body)); len(body) > 0 && p.err == nil {
			c.heard <- string(body)
		}
		return
	}
	var data []string
	for b := bufio.NewReader(io.TeeReader(resp.Body, &p.body)); ; {
		var line string
		if line, p.err = b.ReadString('\n'); p.err != nil {
			if p.err == io.EOF {
				p.err = nil
			}
			return
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case line == "":
			if text := strings.Join(data, "\n"); text != "" {
				c.heard <- text
			}
			data = nil
		case strings.HasPrefix(line, "data:"):
			data = append(data, strings.TrimPrefix(line[len("data:"):], " "))
		}
	}
}

// next is the next message that c hears.
func (c *talkClient) next() string {
	c.w.t.Helper()
	select {
	case text := <-c.heard:
		return text
	case <-time.After(time.Hour):
		c.w.t.Fatal("got no message at the client, want one")
		return ""
	}
}

// hears checks the next message, byte for byte.
func (c *talkClient) hears(want string) {
	c.w.t.Helper()
	if got := c.next(); got != want {
		c.w.t.Fatalf("got %d bytes at the client: %.500q\nwant %d: %.500q", len(got), got, len(want), want)
	}
}

// refused checks that the next message is an answer of the proxy's own to the call id, and returns data.exit.
func (c *talkClient) refused(id string, code int) (exit string) {
	c.w.t.Helper()
	var m struct {
		JSONRPC string
		ID      json.RawMessage
		Error   struct {
			Code    int
			Message string
			Data    struct{ Proxy, Exit string }
		}
	}
	text := c.next()
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.JSONRPC != "2.0" {
		c.w.t.Fatalf("got %.300q, want a response", text)
	}
	if string(m.ID) != id || m.Error.Code != code || m.Error.Message == "" || m.Error.Data.Proxy != "mcpproxy" {
		c.w.t.Fatalf("got %.300q, want the proxy's error %d for id %q", text, code, id)
	}
	return m.Error.Data.Exit
}

// silent checks that nothing is on its way to c.
func (c *talkClient) silent() {
	c.w.t.Helper()
	synctest.Wait()
	if len(c.heard) > 0 {
		c.w.t.Fatalf("got %.300q at the client, want nothing", <-c.heard)
	}
}

// works checks that the conversation goes on.
func (c *talkClient) works() {
	c.w.t.Helper()
	call := c.w.call(`"still"`, `{}`, "")
	c.say(call)
	c.w.gets(call).result(`{"well":true}`)
	c.hears(talkResult(`"still"`, `{"well":true}`))
}

// call is a tools/call. token may be "".
func (w *talk) call(id, args, token string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"t","arguments":` + args + w.meta(token) + `}}`
}

// meta is the member of params with what the revision asks for.
func (w *talk) meta(token string) string {
	var members []string
	if token != "" {
		members = append(members, `"progressToken":`+token)
	}
	if w.modern {
		members = append(members, `"io.modelcontextprotocol/protocolVersion":"2026-07-28"`,
			`"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}`, `"io.modelcontextprotocol/clientCapabilities":{}`)
	}
	if members == nil {
		return ""
	}
	return `,"_meta":{` + strings.Join(members, ",") + `}`
}

func talkCancelled(id string) string {
	return `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":` + id + `}}`
}

// talkSilence is a server that takes long, which is no reason to give up a stream.
func talkSilence(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, `1`)
	c.say(call)
	h := w.gets(call)
	<-time.After(10 * time.Minute)
	h.say(talkProgress(h.token(), `1`))
	c.hears(talkProgress(`1`, `1`))
	<-time.After(10 * time.Minute)
	h.result(`{}`)
	c.hears(talkResult(`1`, `{}`))
	c.say(call)
	h = w.gets(call)
	<-time.After(10 * time.Minute)
	h.result(`{}`)
	c.hears(talkResult(`1`, `{}`))
	if !w.modern {
		note := `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`
		w.push(note)
		c.hears(note)
	}
}

// talkSlowUpload is a client that takes long to send, and a server that takes its time after that.
func talkSlowUpload(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, ``)
	c.pause = 50 * time.Second
	c.say(call)
	h := w.gets(call)
	<-time.After(12 * time.Second)
	h.result(`{}`)
	c.hears(talkResult(`1`, `{}`))
}

// A talkPause is a body that does not begin before a while.
type talkPause struct {
	io.Reader
	d    time.Duration
	once sync.Once
}

func (p *talkPause) Read(b []byte) (int, error) {
	p.once.Do(func() { <-time.After(p.d) })
	return p.Reader.Read(b)
}
