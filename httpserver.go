// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	endpoint     = "/mcp"
	bodyTimeout  = 60 * time.Second // for a client to send a body
	writeTimeout = 60 * time.Second // for a client to read a part of what is written to it
)

// A httpFront serves clients over Streamable HTTP at /mcp, in every revision at once. The fields
// are set before it serves and not changed.
type httpFront struct {
	Proxy   *Proxy
	Log     *slog.Logger
	Command bool // the server is a command: what MCP asks of an HTTP server, the front does
	Max     int  // bytes of a message

	Tokens         *Tokens // nil: nobody needs one
	TrustedProxies []netip.Prefix
	Hosts, Origins []string // allowed beside the loopback names

	text textReader
	late flusher
}

// ServeHTTP checks who asks, then dispatches. MCP, Streamable HTTP: "Servers MUST validate the
// Origin header on all incoming connections to prevent DNS rebinding attacks."
func (f *httpFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("Origin")
	switch {
	case !f.hostAllowed(r.Host):
		f.refuse(w, r, &Error{Code: 403, Text: "host not allowed", Cause: errors.New("see -allow-host: " + r.Host)})
		return
	case len(r.Header["Origin"]) > 1 || origin != "" && !f.originAllowed(origin):
		f.refuse(w, r, &Error{Code: 403, Text: "origin not allowed", Cause: errors.New("see -allow-origin: " + origin)})
		return
	case r.URL.Path != endpoint:
		f.Log.Warn("request refused", "client", r.RemoteAddr, "path", r.URL.Path, "status", 404, "error", "MCP is at "+endpoint)
		http.Error(w, "not found: MCP is at "+endpoint, http.StatusNotFound)
		return
	}
	if origin != "" {
		allowCORS(w, r, origin)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	o := &Origin{Header: r.Header, IP: clientIP(r.RemoteAddr, r.Header["X-Forwarded-For"], f.TrustedProxies)}
	if f.Tokens != nil {
		token, _ := bearer(r.Header.Get("Authorization"))
		user, ok := f.Tokens.User(token)
		if !ok {
			f.refuse(w, r, &Error{Code: 401, Text: "a valid bearer token is needed"})
			return
		}
		o.User = user
	}
	switch r.Method {
	case http.MethodPost:
		f.post(w, r, o)
	case http.MethodGet:
		f.get(w, r, o)
	case http.MethodDelete:
		f.delete(w, r, o)
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

// refuse answers a request that got no further than the front.
func (f *httpFront) refuse(w http.ResponseWriter, r *http.Request, e *Error) {
	f.Log.Warn("request refused", "client", r.RemoteAddr, "method", r.Method, "status", e.status(), "error", e)
	id := e.ID
	if e.Bare {
		id = ""
	}
	text := e.answer(id).Raw
	refusalHead(w.Header(), e)
	jsonHead(w.Header(), text)
	w.WriteHeader(e.status())
	io.WriteString(w, text)
}

// isLoopback reports whether host, without port, names this machine.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.IsLoopback()
}

// hostAllowed compares the whole name, never a part of it.
func (f *httpFront) hostAllowed(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	return isLoopback(name) || slices.ContainsFunc(f.Hosts, func(allowed string) bool {
		return strings.EqualFold(allowed, host) || strings.EqualFold(strings.Trim(allowed, "[]"), name)
	})
}

func (f *httpFront) originAllowed(origin string) bool {
	if slices.ContainsFunc(f.Origins, func(allowed string) bool { return strings.EqualFold(allowed, origin) }) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && isLoopback(u.Hostname()) &&
		origin == u.Scheme+"://"+u.Host // and nothing more
}

// allowCORS lets a browser's page on an allowed origin read the answer.
func allowCORS(w http.ResponseWriter, r *http.Request, origin string) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After")
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			h.Set("Access-Control-Allow-Headers", asked)
		}
		h.Set("Access-Control-Max-Age", "600")
	}
}

// post serves one message, or one batch.
func (f *httpFront) post(w http.ResponseWriter, r *http.Request, o *Origin) {
	// The whole body is read before anything is sent on: net/http gives up the rest of it once an
	// answer begins.
	rc := http.NewResponseController(w)
	began := time.Now()
	text, err := f.text.read(r.Body, r.ContentLength, f.Max)
	if err == nil { // else net/http still reads what is left, and must not wait for it forever
		rc.SetReadDeadline(time.Time{})
	}
	if now := time.Now(); now.Sub(began) > time.Second { // that was taken from the time to write
		rc.SetWriteDeadline(now.Add(writeTimeout))
	}
	if err == errTooLarge {
		f.refuse(w, r, tooLarge(text))
		return
	}
	if err != nil {
		f.refuse(w, r, &Error{Code: 400, Text: "body could not be read", Cause: err})
		return
	}
	m, err := Parse(text)
	if err != nil && err != errBatch {
		f.refuse(w, r, parseRefusal(err))
		return
	}
	s, refusal := f.session(r, o, m)
	if refusal != nil {
		f.refuse(w, r, refusal)
		return
	}
	x := &httpStream{client: s.client.(*httpClient), session: s, done: make(chan struct{}), flusher: &f.late, w: w, request: m}
	o.Batch = m == nil && f.Command // else each message waits for the exchange of the one before
	batch, bad := []*Message{m}, []*Error(nil)
	if m != nil {
		x.stateless = isStateless(revisionOf(m, r.Header))
		x.initializes = m.Method == methodInitialize
	} else if batch, bad = parseClient(s, text); batch == nil {
		f.refuse(w, r, bad[0])
		if s.Transient {
			f.Proxy.Sessions.End(s, errServed)
		}
		return
	}
	x.awaiting = len(bad)
	for _, m := range batch {
		m.Origin = o
		x.awaiting += btoi(m.Kind == Call)
		if m.Stream = x; f.Command && x.request == nil && m.Kind != Call {
			m.Stream = nil // in a batch nobody waits for it
		}
	}
	x.prefersSSE = prefersEvents(r.Header.Get("Accept"))
	defer func() { // also when serve panics to break the connection off
		if s.Transient || x.initializes && (s.ID() == "" || f.Command && s.Revision() == "") {
			f.Proxy.Sessions.End(s, errServed)
		}
	}()
	f.serve(w, r, x, func() {
		for _, e := range bad {
			f.Proxy.reject(s, x, e)
		}
		f.carry(r.Context(), s, x, batch)
	})
}

// carry passes the messages of one POST on.
func (f *httpFront) carry(ctx context.Context, s *Session, x *httpStream, batch []*Message) {
	if x.client.keeps {
		// Up to 2025-11-25 a client that goes away does not cancel its call.
		ctx = context.WithoutCancel(ctx)
	}
	calls := 0
	for _, m := range batch {
		calls += btoi(m.Kind == Call)
		f.Proxy.ToServer(ctx, s, m)
	}
	if calls == 0 || x.request == nil && !f.Command {
		x.end() // 202, if the server said nothing else
	}
}

// serve attaches x to w while run and what follows on it last.
func (f *httpFront) serve(w http.ResponseWriter, r *http.Request, x *httpStream, run func()) {
	left := x.attach(w)
	if f.Command {
		x.keepAlives()
	}
	run()
	x.serve(r, left)
	if x.detach(w) {
		panic(http.ErrAbortHandler) // the way to make a response look cut short
	}
}

// revisionOf is the protocol revision of m: its own word or the header's. Where they disagree it is
// the newer one, which forbids that.
func revisionOf(m *Message, h http.Header) string {
	if v := h[revisionHeader]; len(v) > 0 {
		return max(m.Revision, v[0])
	}
	return m.Revision
}

// prefersEvents reports whether an Accept header names event streams before JSON.
func prefersEvents(accept string) bool {
	events := strings.Index(accept, "text/event-stream")
	json := strings.Index(accept, "application/json")
	return events >= 0 && (json < 0 || events < json)
}

// session finds or begins the session of a POST. m is nil for a batch.
func (f *httpFront) session(r *http.Request, o *Origin, m *Message) (*Session, *Error) {
	id := r.Header.Get(sessionHeader)
	stateless := m != nil && isStateless(revisionOf(m, r.Header))
	if id != "" && !stateless {
		if s := f.Proxy.Sessions.Get(id, o.User); s != nil {
			return s, nil
		}
		return nil, &Error{Code: 404, Text: "session not found", Bare: true}
	}
	initializes := !stateless && m != nil && m.Kind == Call && m.Method == methodInitialize
	if f.Command && !stateless && !initializes {
		e := &Error{Code: codeInvalid, Status: 400, Text: "Mcp-Session-Id header is missing"}
		if m != nil && m.Kind == Call {
			e.ID = m.ID
		}
		return nil, e
	}
	client := &httpClient{keeps: f.Command && initializes}
	s, err := f.Proxy.Open(r.Context(), client, o.User, !initializes)
	if err != nil {
		e := refusalOf(err)
		if m != nil && m.Kind == Call {
			e.ID = m.ID
		}
		return nil, e
	}
	return s, nil
}

// get serves the stream of what belongs to no call, or the rest of one that broke off.
func (f *httpFront) get(w http.ResponseWriter, r *http.Request, o *Origin) {
	id := r.Header.Get(sessionHeader)
	stateless := isStateless(r.Header.Get(revisionHeader))
	var s *Session
	switch {
	case id != "" && !stateless:
		if s = f.Proxy.Sessions.Get(id, o.User); s == nil {
			f.refuse(w, r, &Error{Code: 404, Text: "session not found", Bare: true})
			return
		}
	case f.Command && stateless:
		w.Header().Set("Allow", "POST")
		http.Error(w, "this revision has no GET stream", http.StatusMethodNotAllowed)
		return
	case f.Command:
		f.refuse(w, r, &Error{Code: codeInvalid, Status: 400, Text: "Mcp-Session-Id header is missing"})
		return
	default:
		var err error
		if s, err = f.Proxy.Open(r.Context(), &httpClient{}, o.User, true); err != nil {
			f.refuse(w, r, refusalOf(err))
			return
		}
		defer f.Proxy.Sessions.End(s, errServed)
	}
	defer s.holdStream()()
	if r.ContentLength == 0 {
		http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	client := s.client.(*httpClient)
	if f.Command {
		f.resume(w, r, s, client)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	x := &httpStream{client: client, session: s, done: make(chan struct{}), flusher: &f.late, w: w, standalone: true}
	if !client.track(x, cancel) {
		f.refuse(w, r, &Error{Code: 404, Text: "session not found", Bare: true})
		return
	}
	f.serve(w, r, x, func() {
		if err := s.server.Listen(ctx, x, o); err != nil && ctx.Err() == nil && err != errDetached {
			x.fail(refusalOf(err))
		}
		x.end()
	})
}

// resume serves a GET in front of a command: the streams are the front's own.
func (f *httpFront) resume(w http.ResponseWriter, r *http.Request, s *Session, client *httpClient) {
	number, after := 0, uint64(0)
	if last := r.Header.Get(lastEventID); last != "" {
		var ok bool
		if number, after, ok = parseEventID(last); !ok || !client.sent(number, after) {
			f.refuse(w, r, &Error{Code: 400, Text: "Last-Event-ID is not one of this server's"})
			return
		}
	}
	x, left := client.take(s, w, number, after)
	x.keepAlives()
	x.serve(r, left)
	if number == 0 {
		x.end() // what comes from now on waits in the queue for the next GET
	}
	if x.detach(w) {
		panic(http.ErrAbortHandler)
	}
}

// delete ends a session. "Clients that no longer need a particular session SHOULD send an HTTP
// DELETE to the MCP endpoint."
func (f *httpFront) delete(w http.ResponseWriter, r *http.Request, o *Origin) {
	id := r.Header.Get(sessionHeader)
	stateless := isStateless(r.Header.Get(revisionHeader))
	if id == "" && f.Command && !stateless {
		f.refuse(w, r, &Error{Code: codeInvalid, Status: 400, Text: "Mcp-Session-Id header is missing"})
		return
	}
	if id == "" || stateless {
		w.Header().Set("Allow", "POST")
		http.Error(w, "no session to delete", http.StatusMethodNotAllowed)
		return
	}
	s := f.Proxy.Sessions.Get(id, o.User)
	if s == nil {
		f.refuse(w, r, &Error{Code: 404, Text: "session not found", Bare: true})
		return
	}
	f.Proxy.Sessions.End(s, errDeleted)
	w.WriteHeader(http.StatusNoContent)
}

// serveHTTP serves clients on l until ctx ends, then lets calls in flight finish for up to grace.
func serveHTTP(ctx context.Context, f *httpFront, l net.Listener, grace time.Duration) error {
	server := &http.Server{
		Handler:           f,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       bodyTimeout, // until the body was read
		IdleTimeout:       2 * time.Minute,
		WriteTimeout:      writeTimeout, // until the first write; streams extend it
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(f.Log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { failed <- server.Serve(l) }) // ends with Shutdown or Close
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	f.Log.Info("shutting down", "grace", grace)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	f.Proxy.Sessions.Refuse()
	wg.Go(func() { server.Shutdown(limit) })
	f.Proxy.Sessions.Quiet(limit)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // what was refused is yet to be written
	defer cancel()
	context.AfterFunc(last, func() { server.Close() }) // a client that does not read must not hold up the end
	f.Proxy.Close()
	server.Shutdown(last)
	server.Close()
	wg.Wait()
	return err
}
