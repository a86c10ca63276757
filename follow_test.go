// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

const upNote = `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`

// The GET stream is opened again where it ended, after the time that the server asked for.
func TestFollowStream(t *testing.T) {
	for _, c := range []struct {
		events, after string
		min, max      time.Duration
	}{
		{"id: e1\nretry: 500\ndata: " + upNote + "\n\n", "e1", 500 * time.Millisecond, 500 * time.Millisecond},
		{"id: e2\ndata: " + upNote + "\n\n", "e2", minRetry, 2 * minRetry},
		{"data: " + upNote + "\n\n", "", minRetry, 6 * minRetry},
		{"id: e3\nretry: 45000\ndata: " + upNote + "\n\n", "e3", 45 * time.Second, 45 * time.Second}, // "MUST respect the retry field"
	} {
		gets := 0
		u := &upstream{}
		u.answer = func(w http.ResponseWriter, r *http.Request, q upRequest) {
			if q.method != "GET" {
				upAnswer(w, q)
			} else if gets++; gets == 1 {
				upEvents(w, c.events)
			} else {
				upEvents(w, "data: "+upNote+"\n\n")
				<-r.Context().Done()
			}
		}
		u.test(t, func() {
			began := time.Now()
			u.shake()
			u.hears(upNote)
			q := u.gets("GET")
			q.carries(t, "Last-Event-ID", c.after)
			q.carries(t, "Mcp-Session-Id", "up-1")
			if waited := q.at.Sub(began); waited < c.min || waited > c.max {
				t.Errorf("%q: got a GET after %v, want it after %v to %v", c.events, waited, c.min, c.max)
			}
			u.hears(upNote)
			u.close()
			u.gets("DELETE").carries(t, "Mcp-Session-Id", "up-1")
			u.silent()
		})
	}
}

// A call's stream that ends without the answer goes on with a GET if it has an event id.
func TestFollowCall(t *testing.T) {
	for _, broken := range []bool{false, true} {
		u := &upstream{}
		u.answer = func(w http.ResponseWriter, _ *http.Request, q upRequest) {
			switch {
			case q.kind == "tools/call":
				if upEvents(w, "id: p1\nretry: 500\ndata: \n\n"); broken {
					panic(http.ErrAbortHandler)
				}
			case q.header.Get("Last-Event-ID") == "p1":
				upEvents(w, "id: p2\ndata: "+upNote+"\n\n")
			case q.header.Get("Last-Event-ID") == "p2":
				upEvents(w, "data: "+talkResult("1", "{}")+"\n\n")
			default:
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
		}
		u.test(t, func() {
			u.shake()
			u.say(upCall("1"))
			call := u.gets("POST tools/call")
			for _, id := range []string{"p1", "p2"} {
				q := u.gets("GET")
				q.carries(t, "Last-Event-ID", id)
				if waited := q.at.Sub(call.at); id == "p1" && waited != 500*time.Millisecond {
					t.Errorf("got a GET after %v, want 500ms", waited)
				}
			}
			u.hears(upNote)
			u.hears(talkResult("1", "{}"))
			<-time.After(time.Hour)
			u.silent()
		})
	}
}

// Nobody asks for the rest of a call that the client has cancelled.
func TestFollowCancelled(t *testing.T) {
	u := &upstream{}
	u.answer = func(w http.ResponseWriter, _ *http.Request, q upRequest) {
		if q.header.Get("Last-Event-ID") == "p1" || q.kind == "tools/call" {
			upEvents(w, "id: p1\ndata: \n\n")
		} else if q.method == "GET" {
			w.WriteHeader(http.StatusMethodNotAllowed)
		} else {
			upAnswer(w, q)
		}
	}
	u.test(t, func() {
		u.shake()
		u.say(upCall("1"))
		u.gets("POST tools/call")
		u.gets("GET")
		u.say(talkCancelled("1"))
		u.gets("POST notifications/cancelled")
		<-time.After(time.Hour)
		u.silent()
	})
}

// What is cancelled after its end is no news to a server of this revision, which takes no such notification.
func TestCancelStatelessLate(t *testing.T) {
	u := &upstream{}
	u.test(t, func() {
		u.say(upModern("1", "tools/call", `"name":"t",`))
		u.hears(talkResult("1", "{}"))
		u.gets("POST tools/call")
		u.silent()
		u.say(talkCancelled("1"))
		u.silent()
	})
}

// 404 ends the session at the server: the proxy says so, to all who wait, and ends.
func TestSessionGone(t *testing.T) {
	for _, note := range []bool{false, true} {
		u := &upstream{}
		u.answer = func(w http.ResponseWriter, r *http.Request, q upRequest) {
			switch {
			case strings.Contains(q.body, `"id":1,`):
				<-r.Context().Done()
			case q.method == "POST":
				upJSON(w, 404, `{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}`)
			default:
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
		}
		u.test(t, func() {
			u.shake()
			u.say(upCall("1"))
			u.gets("POST tools/call")
			if note {
				u.say(upNote)
			} else {
				u.say(upCall("2"))
				u.hears(`{"jsonrpc":"2.0","id":2,"error":{"code":-32001,"message":"Session not found"}}`)
			}
			u.refused("1", 404)
			err := upWithin(u, u.exit, "the end of the proxy")
			if u.exit <- err; err == nil || !strings.Contains(err.Error(), "session not found") {
				t.Errorf("got error %v, want that the session was not found", err)
			}
			u.gets(map[bool]string{true: "POST notifications/tools/list_changed", false: "POST tools/call"}[note])
			u.silent() // no DELETE for what is not there
		})
	}
}

// A server that never answers anything costs a call its time, and no other message anything more.
func TestNeverAnswers(t *testing.T) {
	for _, first := range []string{upInitialize, upCall(`"i"`), upModern(`"i"`, "tools/call", ""), upNote} {
		u := &upstream{bounds: Bounds{CallTimeout: time.Minute}}
		u.answer = func(w http.ResponseWriter, r *http.Request, q upRequest) {
			if q.kind == methodCancelled || strings.Contains(q.body, `"later"`) {
				upAnswer(w, q)
				return
			}
			<-r.Context().Done()
			u.seen <- upRequest{method: "closed"}
		}
		u.test(t, func() {
			u.dialer.url, _ = url.Parse("http://up.example/x") // initialize is not answered there
			m, _ := Parse(first)
			began := time.Now()
			u.say(first)
			u.gets("POST " + m.Method)
			if m.Kind == Call {
				u.refused(`"i"`, 504)
				if waited := time.Since(began); waited != time.Minute {
					t.Errorf("%s: got the error after %v, want 1m", m.Method, waited)
				}
			}
			got := map[string]int{}
			n := 1
			if m.Kind == Call && m.Revision == "" && m.Method != methodInitialize { // "MUST NOT be cancelled by clients"
				n++
			}
			for range n {
				q := upWithin(u, u.seen, "a cancellation")
				got[q.method+q.kind]++
			}
			if got["closed"] != 1 || n == 2 && got["POST"+methodCancelled] != 1 {
				t.Errorf("%s: got %v, want the end of the request, and a cancellation: %t", m.Method, got, n == 2)
			}
			u.silent()
			u.say(upCall(`"later"`))
			u.hears(talkResult(`"later"`, "{}"))
			u.gets("POST tools/call")
		})
	}
}

// Close does not wait for calls.
func TestCloseWhileCallsWait(t *testing.T) {
	u := &upstream{}
	u.answer = func(w http.ResponseWriter, r *http.Request, q upRequest) {
		if q.method != "DELETE" {
			<-r.Context().Done()
		}
	}
	u.test(t, func() {
		u.shake()
		server, _ := u.dialer.Dial(t.Context(), &Session{}, func(m *Message, err error) { t.Errorf("got %v, %v", m, err) })
		m, _ := Parse(upCall("1"))
		if err := server.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		u.gets("POST tools/call")
		began := time.Now()
		server.Close()
		server.Close()
		if waited := time.Since(began); waited > 0 {
			t.Errorf("got the end after %v, want it at once", waited)
		}
		if err := server.Send(t.Context(), m); err == nil {
			t.Error("got no error after the end")
		}
	})
}

// TestRealServers is one over TLS, with HTTP/2 where both can, and one that is not there yet.
func TestRealServers(t *testing.T) {
	versions := make(chan int, 10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		versions <- r.ProtoMajor
		upAnswer(w, upRequest{body: string(body)})
	})
	for _, c := range []struct{ h2, trusted bool }{{false, true}, {true, true}, {true, false}} {
		server := httptest.NewUnstartedServer(handler)
		server.EnableHTTP2 = c.h2
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		server.StartTLS()
		u := &upstream{t: t}
		pool := x509.NewCertPool()
		if c.trusted {
			pool.AddCert(server.Certificate())
		}
		address, _ := url.Parse(server.URL)
		u.dialer = newHTTPDialer(address, pool, 1<<20, upLog(t))
		u.connect(server.URL, nil)
		u.say(upCall("1"))
		if c.trusted {
			u.hears(talkResult("1", "{}"))
			if got := <-versions; got == 2 != c.h2 {
				t.Errorf("got HTTP/%d, want 2: %t", got, c.h2)
			}
		} else {
			u.refused("1", 502)
		}
		u.close()
		server.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	u := &upstream{t: t}
	u.connect("http://"+address+"/", nil)
	u.say(upCall("1"), upNote)
	u.refused("1", 502)
	if l, err = net.Listen("tcp", address); err != nil {
		t.Skip(err) // somebody else has it now
	}
	server := &http.Server{Handler: handler}
	go server.Serve(l)
	defer server.Close()
	u.say(upCall("2"))
	u.hears(talkResult("2", "{}"))
	u.close()
}
