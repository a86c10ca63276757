// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// relayed answers each request of a test with f and lets the test see the request.
func relayed(seen chan *http.Request, f func(w http.ResponseWriter, r *http.Request, body string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if seen != nil {
			seen <- r
		}
		f(w, r, string(body))
	}
}

// relayedSession answers initialize with a session of the server's own, and the rest with f.
func relayedSession(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if m, err := Parse(string(body)); err == nil && m.Method == "initialize" {
			w.Header().Set("Mcp-Session-Id", "upstream-1")
			w.Header().Set("Content-Type", "application/json")
			revision, _ := unquote(member(m.Params, "protocolVersion"))
			io.WriteString(w, frontResult(m.ID, `{"protocolVersion":"`+revision+`"}`))
			return
		}
		f(w, r)
	}
}

func relayFlush(w http.ResponseWriter, text string) {
	io.WriteString(w, text)
	http.NewResponseController(w).Flush()
}

func TestRelayHead(t *testing.T) {
	for _, c := range []struct {
		status     int
		kind, body string
	}{
		{200, "application/json", frontResult("1", `{"n":9007199254740993,"f":1.0}`)},
		{400, "application/json", `{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"x","data":{"a":[1]}}}`},
		{400, "text/plain; charset=utf-8", "Bad Request: No valid session ID provided\n"},
		{401, "text/html", "<h1>Unauthorized</h1>"},
		{403, "application/json", `{"error":"insufficient_scope"}`},
		{404, "application/json", `{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}`},
		{405, "", ""},
		{429, "application/problem+json", "{\n \"title\": \"slow down\"\n}\n"},
		{500, "text/plain", "boom"},
		{503, "", ""},
	} {
		serve := relayed(nil, func(w http.ResponseWriter, _ *http.Request, _ string) {
			for name, value := range map[string]string{
				"WWW-Authenticate": `Bearer resource_metadata="https://x/y"`, "Retry-After": "7", "Allow": "POST", "Cache-Control": "no-store",
				"Mcp-Param-X": "1", "MCP-Protocol-Version": "2025-11-25", "Set-Cookie": "secret=1", "Server": "nginx/1", "X-Powered-By": "php",
				"Access-Control-Allow-Origin": "*",
			} {
				w.Header().Set(name, value)
			}
			if c.kind != "" {
				w.Header().Set("Content-Type", c.kind)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		inFrontOf(t, serve, nil, func(g *frontRig) {
			for _, method := range []string{"POST", "GET"} {
				resp := g.do(method, frontCall("1", "test/x"))
				if got := frontBody(t, resp); resp.StatusCode != c.status || got != c.body {
					t.Errorf("%s: got %d %q, want %d %q", method, resp.StatusCode, got, c.status, c.body)
				}
				for name, want := range map[string]string{
					"Www-Authenticate": `Bearer resource_metadata="https://x/y"`, "Retry-After": "7", "Allow": "POST", "Cache-Control": "no-store",
					"Mcp-Param-X": "1", "Mcp-Protocol-Version": "2025-11-25", "Set-Cookie": "", "Server": "", "X-Powered-By": "",
					"Access-Control-Allow-Origin": "", "Mcp-Session-Id": "",
				} {
					if got := resp.Header.Get(name); got != want {
						t.Errorf("%s %d: got %s %q, want %q", method, c.status, name, got, want)
					}
				}
				if got := resp.Header.Get("Content-Type"); c.kind != "" && got != c.kind {
					t.Errorf("%s: got content type %q, want %q", method, got, c.kind)
				}
			}
			if n := len(g.front.Proxy.Sessions.open); n != 0 {
				t.Errorf("got %d sessions, want none", n)
			}
		})
	}
}

// No client header goes to the server but those of MCP, of tracing, and those named with -pass-header.
func TestRelayRequestHeaders(t *testing.T) {
	seen := make(chan *http.Request, 10)
	serve := relayed(seen, func(w http.ResponseWriter, _ *http.Request, body string) { io.WriteString(w, body) })
	body, headers := frontModern("1", "test/x", "")
	inFrontOf(t, serve, nil, func(g *frontRig) {
		resp := g.do("POST", body, append(headers, "Authorization: Bearer client", "Cookie: a=b", "Origin: http://localhost:1", "Host: localhost:9",
			"X-Api-Key: k", "Proxy-Authorization: Basic x", "User-Agent: spy", "X-Forwarded-For: 1.2.3.4", "Mcp-Param-Region: eu", "Mcp-Name: n",
			"Mcp-Session-Id: client", "traceparent: 00-1", "tracestate: a=1", "baggage: b=1")...)
		frontBody(t, resp)
		r := <-seen
		for name, want := range map[string]string{
			"Mcp-Param-Region": "eu", "Mcp-Name": "n", "Mcp-Method": "test/x", "Mcp-Protocol-Version": "2026-07-28", "Traceparent": "00-1",
			"Tracestate": "a=1", "Baggage": "b=1", "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
			"Authorization": "", "Cookie": "", "Origin": "", "X-Api-Key": "", "Proxy-Authorization": "", "X-Forwarded-For": "", "Mcp-Session-Id": "",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("got %s %q, want %q", name, got, want)
			}
		}
		if r.Host != "127.0.0.1:3001" || r.UserAgent() == "spy" {
			t.Errorf("got Host %q and User-Agent %q, want the server's and the proxy's", r.Host, r.UserAgent())
		}
	})
}

func TestRelaySession(t *testing.T) {
	seen := make(chan *http.Request, 10)
	serve := relayedSession(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("Mcp-Session-Id", "upstream-1")
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, frontResult("2", `{}`))
	})
	inFrontOf(t, serve, nil, func(g *frontRig) {
		session, _ := g.initialize("2025-11-25")
		other, _ := g.initialize("2025-11-25")
		if session == other || strings.Contains(session+other, "upstream-1") {
			t.Errorf("got sessions %q and %q, want the proxy's own", session, other)
		}
		resp := g.do("POST", frontCall("2", "test/x"), session)
		if got := frontBody(t, resp); got != frontResult("2", `{}`) || resp.Header.Get("Mcp-Session-Id") == "upstream-1" {
			t.Errorf("got %s with session %q, want the answer and not the server's id", got, resp.Header.Get("Mcp-Session-Id"))
		}
		if got := (<-seen).Header.Get("Mcp-Session-Id"); got != "upstream-1" {
			t.Errorf("server: got session %q, want its own", got)
		}
		resp = g.do("DELETE", "", session)
		if frontBody(t, resp); resp.StatusCode != 204 {
			t.Errorf("got %d, want 204", resp.StatusCode)
		}
		synctest.Wait()
		if r := <-seen; r.Method != "DELETE" || r.Header.Get("Mcp-Session-Id") != "upstream-1" {
			t.Errorf("server: got %s, want DELETE of its session", r.Method)
		}
		frontRefusal{404, 404, ""}.check(t, g.do("POST", frontCall("3", "x"), session))
		g.stop() // deletes the other one
		<-g.served
		if r := <-seen; r.Method != "DELETE" {
			t.Errorf("server: got %s, want DELETE at shutdown", r.Method)
		}
	})
}

// A server without session ids: the proxy gives none and lets it judge requests without one.
func TestRelayNoSession(t *testing.T) {
	serve := relayed(nil, func(w http.ResponseWriter, r *http.Request, body string) {
		m, err := Parse(body)
		if err != nil || m.Kind != Call {
			w.WriteHeader(202)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, frontResult(m.ID, `{}`))
	})
	inFrontOf(t, serve, nil, func(g *frontRig) {
		for _, body := range []string{frontInitialize("1", "2025-11-25"), frontCall("2", "tools/list"), frontNote("initialized"), frontResult("9", `{}`)} {
			resp := g.do("POST", body)
			got := frontBody(t, resp)
			if id := resp.Header.Get("Mcp-Session-Id"); resp.StatusCode/100 != 2 || id != "" || (resp.StatusCode == 202) != (got == "") {
				t.Errorf("%s: got %d %q, session %q", body, resp.StatusCode, got, id)
			}
		}
		if n := len(g.front.Proxy.Sessions.open); n != 0 {
			t.Errorf("got %d sessions, want none", n)
		}
	})
}

// Events are passed on byte for byte, as they arrive.
func TestRelayEvents(t *testing.T) {
	parts := []string{
		": hello\n\n", "id: e-1\nretry: 500\ndata: \n\n", "event: message\nid: e-2\ndata: " + frontNote("x") + "\n\n",
		"data:" + frontNote("nospace") + "\r\n\r\n", "event: other\ndata: not json\n\n", "unknown: field\ndata: " + frontNote("y") + "\n\n",
		"data: {\"jsonrpc\":\"2.0\",\ndata: \"method\":\"notifications/z\"}\n\n", ":\n", "data: " + frontResult("1", `{"n":1.0}`) + "\n\n",
	}
	var step chan bool
	serve := relayed(nil, func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, part := range parts {
			relayFlush(w, part)
			<-step
		}
	})
	for _, method := range []string{"POST", "GET"} {
		inFrontOf(t, serve, func(*frontRig) { step = make(chan bool) }, func(g *frontRig) {
			began := time.Now()
			resp := g.do(method, frontCall("1", "test/x"))
			for _, want := range parts {
				got := make([]byte, len(want))
				if n, err := io.ReadFull(resp.Body, got); string(got[:n]) != want {
					t.Fatalf("%s: got %q (%v), want %q", method, got[:n], err, want)
				}
				step <- true
			}
			if rest := frontBody(t, resp); rest != "" || resp.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
				t.Errorf("%s: got %q at the end of %s", method, rest, resp.Header.Get("Content-Type"))
			}
			if got := time.Since(began); got > 50*time.Millisecond {
				t.Errorf("%s: got the events after %v, want at once", method, got)
			}
		})
	}
}

// Someone who goes on waiting gets no comment from the proxy, and is not cut off, however long the server is silent.
func TestRelaySilence(t *testing.T) {
	serve := relayed(nil, func(w http.ResponseWriter, r *http.Request, _ string) {
		time.Sleep(3 * time.Minute) // before the head
		w.Header().Set("Content-Type", "text/event-stream")
		relayFlush(w, ": 1\n\n")
		time.Sleep(3 * time.Minute)
		relayFlush(w, "data: "+frontResult("1", `{}`)+"\n\n")
	})
	inFrontOf(t, serve, nil, func(g *frontRig) {
		for _, method := range []string{"POST", "GET"} {
			if got, want := frontBody(t, g.do(method, frontCall("1", "test/x"))), ": 1\n\ndata: "+frontResult("1", `{}`)+"\n\n"; got != want {
				t.Errorf("%s: got %q, want %q", method, got, want)
			}
		}
	})
	late := relayed(nil, func(w http.ResponseWriter, _ *http.Request, _ string) {
		time.Sleep(3 * time.Minute)
		w.WriteHeader(202)
	})
	inFrontOf(t, late, nil, func(g *frontRig) {
		if resp := g.do("POST", frontNote("x")); resp.StatusCode != 202 {
			t.Errorf("got %d, want 202", resp.StatusCode)
		}
	})
}

// A stream that breaks off looks broken; a body that breaks off gives 502, or looks broken when part of it is on its way.
func TestRelayBroken(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve http.HandlerFunc
		want  int // status, 0 for a response that breaks off
	}{
		{"stream", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			relayFlush(w, "data: "+frontNote("x")+"\n\n")
			panic(http.ErrAbortHandler)
		}, 0},
		{"stream with ids", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			relayFlush(w, "id: 1\ndata: \n\n")
			panic(http.ErrAbortHandler)
		}, 0},
		{"stream after the answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			relayFlush(w, "data: "+frontResult("1", "{}")+"\n\n")
			panic(http.ErrAbortHandler)
		}, 0},
		{"JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			relayFlush(w, `{"jsonrpc":"2.0","id":1,"result":`)
			panic(http.ErrAbortHandler)
		}, 502},
		{"JSON without length", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			relayFlush(w, `{"jsonrpc":"2.0","id":1,"result":`)
			panic(http.ErrAbortHandler)
		}, 502},
		{"several texts", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			relayFlush(w, frontNote("x"))
			relayFlush(w, `{"jsonrpc":`)
			panic(http.ErrAbortHandler)
		}, 0},
		{"nothing", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502},
	} {
		for _, method := range []string{"POST", "GET"} {
			t.Run(c.name+" "+method, func(t *testing.T) {
				inFrontOf(t, relayed(nil, func(w http.ResponseWriter, r *http.Request, _ string) { c.serve(w, r) }), nil, func(g *frontRig) {
					resp := g.do(method, frontCall("1", "test/x"))
					if c.want != 0 {
						frontRefusal{c.want, 502, map[string]string{"POST": "1"}[method]}.check(g.t, resp)
					} else if b, err := io.ReadAll(resp.Body); err == nil || resp.StatusCode != 200 {
						g.t.Errorf("got %d %q with a clean end, want it to look broken", resp.StatusCode, b)
					} else if strings.Contains(c.name, "ids") && strings.Contains(string(b), "502") {
						g.t.Errorf("got %q, want no answer to a call that can be resumed", b)
					}
					synctest.Wait()
					if n := len(g.front.Proxy.Sessions.open); n != 0 {
						g.t.Errorf("got %d sessions left, want none", n)
					}
				})
			})
		}
	}
}

// One public server sends one JSON text after the other under application/json.
func TestRelayTexts(t *testing.T) {
	parts := []string{frontNote("a") + "\n", frontNote("b") + "\n", frontResult("1", `{}`) + "\n"}
	var step chan bool
	serve := relayed(nil, func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "application/json")
		for _, part := range parts {
			relayFlush(w, part)
			<-step
		}
	})
	inFrontOf(t, serve, func(*frontRig) { step = make(chan bool) }, func(g *frontRig) {
		resp := g.do("POST", frontCall("1", "test/x"))
		buf, got := make([]byte, 4096), ""
		for _, part := range parts {
			for !strings.Contains(got, strings.TrimSpace(part)) {
				n, err := resp.Body.Read(buf)
				if got += string(buf[:n]); err != nil {
					t.Fatalf("got %q and then %v, want %q", got, err, part)
				}
			}
			step <- true
		}
		got += frontBody(t, resp)
		if got != strings.Join(parts, "") {
			t.Errorf("got %q, want %q", got, strings.Join(parts, ""))
		}
	})
}

// When the client goes away the server's request is given up, in every revision: it is the server's to say what that means.
func TestRelayDisconnect(t *testing.T) {
	var gone chan string
	serve := func(w http.ResponseWriter, r *http.Request) {
		io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		relayFlush(w, ": hi\n\n")
		<-r.Context().Done()
		gone <- r.Method
	}
	inFrontOf(t, serve, func(*frontRig) { gone = make(chan string, 1) }, func(g *frontRig) {
		for _, method := range []string{"POST", "GET"} {
			p := g.start(method, frontCall("1", "test/x"))
			p.answer()
			p.giveUp()
			if got := <-gone; got != method {
				t.Errorf("got %s closed, want %s", got, method)
			}
			synctest.Wait()
			if n := len(g.front.Proxy.Sessions.open); n != 0 {
				t.Errorf("%s: got %d sessions left, want none", method, n)
			}
		}
	})
}

// When the session ends so do its streams, and what is in flight is answered.
func TestRelayEnd(t *testing.T) {
	serve := relayedSession(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			w.Header().Set("Content-Type", "text/event-stream")
			relayFlush(w, ": hi\n\n")
			<-r.Context().Done()
		}
	})
	inFrontOf(t, serve, nil, func(g *frontRig) {
		session, _ := g.initialize("2025-11-25")
		get := frontStream(t, g.do("GET", "", session))
		get.frame()
		g.do("DELETE", "", session)
		get.end()
	})
}

func TestRelayUnreachable(t *testing.T) {
	inFrontOf(t, nil, nil, func(g *frontRig) {
		dialer := g.front.Proxy.dialer.(*httpDialer)
		dialer.url.Host = "127.0.0.1:9"
		dialer.transport.DialContext = (&frontNet{addr: "secret", closed: func() chan struct{} { c := make(chan struct{}); close(c); return c }()}).dial
		for _, body := range []string{frontCall("1", "test/x"), frontInitialize("1", "2025-11-25")} {
			frontRefusal{502, 502, "1"}.check(t, g.do("POST", body))
		}
		frontRefusal{502, 502, ""}.check(t, g.do("GET", ""))
		if n := len(g.front.Proxy.Sessions.open); n != 0 {
			t.Errorf("got %d sessions left, want none", n)
		}
	})
}

// relayStdio is a session of a client that is not on HTTP with an HTTP server.
func relayStdio(t *testing.T, server http.HandlerFunc) (*Proxy, *Session, *sessConn) {
	upstream := newFrontNet("127.0.0.1:3001")
	s := &http.Server{Handler: server}
	go s.Serve(upstream)
	t.Cleanup(func() { s.Close() })
	u, _ := url.Parse("http://127.0.0.1:3001/mcp")
	dialer := newHTTPDialer(u, nil, 1<<20, slog.New(slog.DiscardHandler))
	dialer.transport.DialContext, dialer.transport.Proxy = upstream.dial, nil
	p, client := NewProxy(dialer, sessBounds(), slog.New(slog.DiscardHandler)), &sessConn{}
	session, err := p.Open(t.Context(), client, "", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialer.Close() })
	t.Cleanup(p.Close)
	return p, session, client
}

// A server that never takes a notification does not silence the client.
func TestRelayNotificationNeverTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, _ := relayStdio(t, relayed(nil, func(_ http.ResponseWriter, r *http.Request, _ string) { <-r.Context().Done() }))
		began := time.Now()
		p.ToServer(t.Context(), s, sessParse(t, frontNote("x")))
		if got := time.Since(began); got != takeTimeout {
			t.Errorf("got the notification given up after %v, want %v", got, takeTimeout)
		}
	})
}

// A cancellation of 2026-07-28 that crosses the answer has no stream to close and is not posted.
func TestRelayCancellationTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := make(chan *http.Request, 10)
		p, s, client := relayStdio(t, relayed(seen, func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, frontResult("1", "{}"))
		}))
		body, _ := frontModern("1", "test/x", "")
		p.ToServer(t.Context(), s, sessParse(t, body))
		synctest.Wait()
		if got := client.take(); len(got) != 1 {
			t.Fatalf("got %q, want the answer", got)
		}
		p.ToServer(t.Context(), s, sessParse(t, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`))
		if n := len(seen); n != 1 {
			t.Errorf("server: got %d requests, want 1", n)
		}
	})
}
