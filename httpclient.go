// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	closeTimeout = 5 * time.Second // for the DELETE at the end
	takeTimeout  = time.Minute     // for a server to take what is no call
	minRetry     = time.Second     // before a stream is opened again, doubling
	maxRetry     = 30 * time.Second
	maxRedirects = 3
)

// An httpDialer reaches one server over Streamable HTTP. All sessions share its pool of
// connections. Make one with newHTTPDialer.
type httpDialer struct {
	url       *url.URL
	transport *http.Transport
	header    http.Header     // the server's own credentials, put on every request
	pass      map[string]bool // further headers of clients that go on
	max       int             // bytes of a message
	log       *slog.Logger
	params    paramTable
	text      textReader
}

func newHTTPDialer(u *url.URL, roots *x509.CertPool, max int, log *slog.Logger) *httpDialer {
	dial := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &httpDialer{url: u, max: max, log: log, transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial.DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // bytes are passed on as they come
		MaxIdleConnsPerHost:   512,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		ReadBufferSize:        32 << 10,
		WriteBufferSize:       32 << 10,
	}}
}

func (d *httpDialer) Dial(_ context.Context, s *Session, receive func(*Message, error)) (Server, error) {
	c := &httpConn{d: d, s: s, receive: receive, ctx: context.Background(), end: func() {}}
	if !s.Transient { // else the client's request is all there is
		c.ctx, c.end = context.WithCancel(c.ctx)
	}
	return c, nil
}

// Close gives up idle connections.
func (d *httpDialer) Close() error {
	d.transport.CloseIdleConnections()
	return nil
}

// goesOn reports whether a client's header is sent to the server.
func (d *httpDialer) goesOn(name string) bool {
	switch name {
	case sessionHeader:
		return false
	case "Traceparent", "Tracestate", "Baggage", lastEventID, "Accept":
		return true
	}
	return strings.HasPrefix(name, "Mcp-") || d.pass[name]
}

// do makes one HTTP request. A POST is sent once: the transport sends a request with a body again
// only if it wrote nothing of it. Redirects are followed on the server's own origin alone, and
// only those that keep the method.
func (d *httpDialer) do(ctx context.Context, method, body string, header http.Header) (*http.Response, error) {
	header["User-Agent"] = []string{"mcpproxy/" + version}
	for name, values := range d.header {
		header[name] = values
	}
	for _, name := range [...]string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values := header[name]; values != nil { // so spelled, it lets the transport send a POST again
			delete(header, name)
			header[strings.ToLower(name)] = values
		}
	}
	u := d.url
	for range maxRedirects {
		r := &http.Request{Method: method, URL: u, Host: u.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
		if method == http.MethodPost {
			r.ContentLength = int64(len(body))
			r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
			r.Body = io.NopCloser(strings.NewReader(body))
		}
		resp, err := d.transport.RoundTrip(r.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode == http.StatusNotModified || resp.StatusCode/100 != 3:
			return resp, nil
		case resp.StatusCode != http.StatusTemporaryRedirect && resp.StatusCode != http.StatusPermanentRedirect:
			resp.Body.Close()
			return nil, fmt.Errorf("server answered %s, which does not keep the request", resp.Status)
		}
		resp.Body.Close()
		to, err := resp.Location()
		if err != nil {
			return nil, err
		}
		if to.Scheme != d.url.Scheme || to.Host != d.url.Host {
			return nil, fmt.Errorf("server redirects to another origin, %s://%s", to.Scheme, to.Host)
		}
		u = to
	}
	return nil, errors.New("too many redirects")
}

// An httpConn is one session's conversation with an HTTP server.
type httpConn struct {
	d       *httpDialer
	s       *Session
	receive func(*Message, error)
	ctx     context.Context // the conversation's life
	end     context.CancelFunc
	wg      sync.WaitGroup // exchanges nobody waits for
	listen  sync.Once      // opens the GET stream of a client on stdio

	mu      sync.Mutex // protects following
	session string     // the server's Mcp-Session-Id
	calls   map[string]*httpCall
	closed  bool
}

// An httpCall is a call of a client on stdio.
type httpCall struct {
	m      *Message
	cancel context.CancelFunc
}

func (c *httpConn) Flush() error { return nil }

// Send posts m. For a client over HTTP it returns when the exchange is over: the goroutine of the
// client's own request does the work. For one on stdio it returns at once for a call, and else when
// the server has taken m, so that the order of a handshake is kept.
func (c *httpConn) Send(ctx context.Context, m *Message) error {
	if m.Stream != nil {
		return c.exchange(ctx, m)
	}
	if m.Method == methodCancelled && !c.cancels(m) {
		return nil
	}
	if m.Kind != Call {
		ctx, cancel := context.WithTimeout(c.ctx, min(takeTimeout, cmp.Or(c.s.table.bounds.CallTimeout, takeTimeout)))
		defer cancel()
		err := c.exchange(ctx, m)
		if m.Method == methodInitialized && err == nil {
			c.listen.Do(func() { c.spawn(func() { c.follow(c.ctx, nil, position{}) }) })
		}
		return err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	call := &httpCall{m, cancel}
	key := canonicalID(m.ID)
	c.mu.Lock()
	if c.calls == nil {
		c.calls = map[string]*httpCall{}
	}
	c.calls[key] = call
	c.mu.Unlock()
	run := func() {
		err := c.exchange(ctx, m)
		c.mu.Lock()
		if c.calls[key] == call {
			delete(c.calls, key)
		}
		c.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			c.receive(refusalOf(err).answer(m.ID), nil)
		}
		cancel()
	}
	if m.Method == methodInitialize {
		run() // what follows needs the session id
	} else if !c.spawn(run) {
		cancel()
		return errClosed
	}
	return nil
}

// spawn runs f until the end of the conversation and reports false if that has come.
func (c *httpConn) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

// cancels ends the call that m cancels and reports whether m is to be posted too. MCP 2026-07-28,
// Streamable HTTP: "closing the SSE response stream is itself the cancellation signal and no
// notifications/cancelled message is expected"; in earlier revisions closing it says nothing, and
// "the initialize request MUST NOT be cancelled by clients".
func (c *httpConn) cancels(m *Message) bool {
	c.mu.Lock()
	call := c.calls[canonicalID(member(m.Params, "requestId"))]
	c.mu.Unlock()
	if call == nil {
		return c.s.Revision() != ""
	}
	call.cancel() // or what is left of it may be asked for to the end of the session
	return !isStateless(call.m.Revision) && call.m.Method != methodInitialize
}

// refusalOf makes err an *Error.
func refusalOf(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: 502, Text: "server is unreachable", Cause: err}
}

// requestHeader is the header of a request that carries m, or of a GET when m is nil.
func (c *httpConn) requestHeader(m *Message, o *Origin) http.Header {
	h := make(http.Header, 8)
	h["Accept"] = []string{"application/json, text/event-stream"}
	if o != nil {
		for name, values := range o.Header {
			if c.d.goesOn(name) {
				h[name] = values
			}
		}
		if m != nil && m.came() != m && isStateless(m.Revision) { // they are to be as what the rules left
			maps.DeleteFunc(h, func(name string, _ []string) bool { return strings.HasPrefix(name, headerParam) || name == headerName })
			c.d.params.mirror(h, m)
		}
	} else if m != nil && isStateless(m.Revision) {
		c.d.params.mirror(h, m)
	} else if revision := c.s.Revision(); revision != "" && (m == nil || m.Method != methodInitialize) {
		h[revisionHeader] = []string{revision}
	}
	if m != nil {
		h["Content-Type"] = []string{"application/json"}
	}
	if session := c.sessionID(); session != "" && (m == nil || !isStateless(m.Revision)) {
		h[sessionHeader] = []string{session}
	}
	return h
}

func (c *httpConn) sessionID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

func (c *httpConn) setSession(id string) {
	if id != "" {
		c.s.secret.Store(newKnownSecret("mcpsessionid", id))
	}
	c.mu.Lock()
	c.session = id
	c.mu.Unlock()
}

// exchange posts m and carries what the server answers.
func (c *httpConn) exchange(ctx context.Context, m *Message) error {
	resp, err := c.d.do(ctx, http.MethodPost, m.Raw, c.requestHeader(m, m.Origin))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if id := resp.Header.Get(sessionHeader); id != "" && m.Method == methodInitialize {
		c.setSession(id)
	}
	a := &answer{c: c, m: m, reply: &Reply{Status: resp.StatusCode, Header: resp.Header}}
	err = a.relay(ctx, resp)
	if c.lost(resp, m.Revision) && m.Stream == nil {
		return nil // the end of the session has answered
	}
	return err
}

// lost ends the session when resp says that the server does not know it: "When a client receives
// HTTP 404 in response to a request containing an Mcp-Session-Id, it MUST start a new session".
func (c *httpConn) lost(resp *http.Response, revision string) bool {
	if resp.StatusCode != http.StatusNotFound || c.sessionID() == "" || isStateless(revision) {
		return false
	}
	c.setSession("")
	c.receive(nil, &Error{Code: 404, Text: "session not found at the server"})
	return true
}

// Listen relays the client's own GET.
func (c *httpConn) Listen(ctx context.Context, x Stream, o *Origin) error {
	resp, err := c.d.do(ctx, http.MethodGet, "", c.requestHeader(nil, o))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a := &answer{c: c, m: &Message{Stream: x}, reply: &Reply{Status: resp.StatusCode, Header: resp.Header, Listens: true}}
	err = a.relay(ctx, resp)
	c.lost(resp, o.Header.Get(revisionHeader))
	return err
}

// Close ends the session at the server and waits for what is under way.
func (c *httpConn) Close() error {
	c.mu.Lock()
	session, closed := c.session, c.closed
	c.closed = true
	c.mu.Unlock()
	c.end()
	if session != "" && !closed {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		resp, err := c.d.do(ctx, http.MethodDelete, "", c.requestHeader(nil, nil))
		if err != nil {
			c.d.log.Info("session not deleted at the server", "error", err)
		} else {
			resp.Body.Close() // 405 is fine: not every server lets its clients end sessions
		}
	}
	c.wg.Wait()
	return nil
}

// A position is how far a stream was read.
type position struct {
	id    string        // of the last event
	retry time.Duration // that the server asked for, 0 if it did not
}

// follow keeps a GET stream open for a client on stdio: the one for what belongs to no call, or,
// when a is not nil, the rest of a call's stream after at. It returns when the server has no such
// stream, the call is answered, or ctx ends.
func (c *httpConn) follow(ctx context.Context, a *answer, at position) {
	for failures := 0; ; {
		if at.id != "" || failures > 0 {
			wait := at.retry
			if wait == 0 || failures > 0 {
				wait = max(wait, min(minRetry<<min(failures, 5), maxRetry))
				wait += rand.N(wait/2 + 1)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		h := c.requestHeader(nil, nil)
		h["Accept"] = []string{"text/event-stream"}
		if at.id != "" {
			h[lastEventID] = []string{at.id}
		}
		failures++
		resp, err := c.d.do(ctx, http.MethodGet, "", h)
		if err != nil {
			c.d.log.Debug("GET stream not opened", "error", err)
			continue
		}
		b := a
		if b == nil {
			b = &answer{c: c, m: &Message{}}
		}
		b.reply = &Reply{Status: resp.StatusCode, Header: resp.Header, Listens: true}
		if resp.StatusCode/100 != 2 || !isEventStream(resp.Header) {
			resp.Body.Close()
			if resp.StatusCode/100 == 5 {
				continue
			}
			return
		}
		b.at = at
		if err = b.events(resp.Body); err != nil && ctx.Err() == nil {
			c.d.log.Info("GET stream broke off", "error", err)
		}
		resp.Body.Close()
		if b.answered || ctx.Err() != nil || a != nil && isTooLarge(err) {
			return
		}
		if b.at != at {
			failures = 0
		}
		at = b.at
		failures += btoi(at.id == "")
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func isEventStream(h http.Header) bool {
	mediaType, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "text/event-stream")
}

// retryAfter reads a Retry-After header in seconds, 0 if there is none.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 || n > 86400 {
		return 0
	}
	return time.Duration(n) * time.Second
}
