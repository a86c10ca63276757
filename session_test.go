// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A sessConn is either end of a session: it notes what it is given.
type sessConn struct {
	mu     sync.Mutex
	got    []string
	closes int
	fail   error // what Send returns
}

func (c *sessConn) Send(_ context.Context, m *Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	c.got = append(c.got, m.Raw)
	return nil
}

func (c *sessConn) Flush() error                                  { return nil }
func (c *sessConn) Listen(context.Context, Stream, *Origin) error { return nil }

func (c *sessConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closes++
	return nil
}

// take returns what came since the last take, once every goroutine of the bubble is at rest.
func (c *sessConn) take() []string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

// A sessPair is a session between two sessConns.
type sessPair struct {
	t       *testing.T
	p       *Proxy
	s       *Session
	client  *sessConn
	server  *sessConn
	receive func(*Message, error)
}

func (x *sessPair) Dial(_ context.Context, _ *Session, receive func(*Message, error)) (Server, error) {
	x.receive = receive
	return x.server, nil
}

func sessBounds() Bounds {
	return Bounds{Sessions: 10, Calls: 10, Idle: 30 * time.Minute, Lifetime: 24 * time.Hour, CallTimeout: 5 * time.Minute}
}

func sessOpen(t *testing.T, b Bounds) *sessPair {
	t.Helper()
	x := &sessPair{t: t, client: &sessConn{}, server: &sessConn{}}
	x.p = NewProxy(x, b, slog.New(slog.DiscardHandler))
	var err error
	if x.s, err = x.p.Open(t.Context(), x.client, "", false); err != nil {
		t.Fatal(err)
	}
	return x
}

func sessParse(t *testing.T, text string) *Message {
	t.Helper()
	m, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// says lets the client say text, and replies the server.
func (x *sessPair) says(text string) {
	x.t.Helper()
	x.p.ToServer(x.t.Context(), x.s, sessParse(x.t, text))
}

func (x *sessPair) replies(text string) { x.t.Helper(); x.receive(sessParse(x.t, text), nil) }

// hears checks what one end got since it was last asked: each text must contain what is wanted of it.
func (x *sessPair) hears(who string, c *sessConn, want ...string) {
	x.t.Helper()
	got := c.take()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		for part := range strings.SplitSeq(want[i], "…") {
			ok = ok && strings.Contains(got[i], part)
		}
	}
	if !ok {
		x.t.Errorf("%s: got %q, want %q", who, got, want)
	}
}

func (x *sessPair) clientHears(want ...string) { x.t.Helper(); x.hears("client", x.client, want...) }
func (x *sessPair) serverHears(want ...string) { x.t.Helper(); x.hears("server", x.server, want...) }

func (x *sessPair) wantEnded(reason error) {
	x.t.Helper()
	synctest.Wait()
	if x.s.Ended() != (reason != nil) || x.s.Reason() != reason {
		x.t.Errorf("after %v: got ended %v, %v, want %v", time.Since(x.s.opened), x.s.Ended(), x.s.Reason(), reason)
	}
}

func sessCall(id string) string { return `{"jsonrpc":"2.0","id":` + id + `,"method":"ping"}` }

func sessTokenCall(id, token string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"a","_meta":{"progressToken":` + token + `}}}`
}

func sessProgress(token string) string {
	return `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":` + token + `,"progress":1}}`
}

func sessResult(id string) string { return `{"jsonrpc":"2.0","id":` + id + `,"result":{}}` }

// sessRefused reports whether err refuses with this code.
func sessRefused(err error, code int) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

func TestSessionsAreCapped(t *testing.T) {
	b := sessBounds()
	b.Sessions = 2
	closed := 0
	table := NewSessions(b, func(*Session, error) { closed++ })
	first, err := table.Open(&sessConn{}, "", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = table.Open(&sessConn{}, "", false); err != nil {
		t.Fatal(err)
	}
	_, err = table.Open(&sessConn{}, "", false)
	var e *Error
	if !errors.As(err, &e) || e.status() != 503 || e.RetryAfter <= 0 {
		t.Errorf("third session: got %#v, want 503 with Retry-After", err)
	}
	table.End(first, errServed)
	table.End(first, errServed) // frees one place, not two
	if _, err := table.Open(&sessConn{}, "", false); err != nil {
		t.Errorf("after one has ended: got %v, want a session", err)
	}
	if _, err := table.Open(&sessConn{}, "", false); !sessRefused(err, 503) {
		t.Errorf("got %v, want 503", err)
	}
	if closed != 1 {
		t.Errorf("got %d sessions closed, want 1", closed)
	}
	table.EndAll(errShutdown)
	if _, err := table.Open(&sessConn{}, "", false); !sessRefused(err, 503) {
		t.Errorf("after EndAll: got %v, want 503", err)
	}
	if closed != 3 {
		t.Errorf("got %d sessions closed, want 3", closed)
	}
}

func TestSessionsRefuse(t *testing.T) {
	table := NewSessions(sessBounds(), func(*Session, error) {})
	s, err := table.Open(&sessConn{}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	table.Refuse()
	if _, err := table.Open(&sessConn{}, "", false); !sessRefused(err, 503) {
		t.Errorf("got %v, want 503", err)
	}
	if s.Ended() {
		t.Error("got an open session ended, want it to go on")
	}
	table.End(s, errDeleted)
}

func TestSessionNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewSessions(sessBounds(), func(*Session, error) {})
		defer table.EndAll(errShutdown)
		seen := map[string]bool{}
		for range 10 {
			s, err := table.Open(&sessConn{}, "ann", false)
			if err != nil {
				t.Fatal(err)
			}
			id := table.Name(s)
			// "The session ID MUST only contain visible ASCII characters"; 128 bits are 26 digits in base 32.
			if seen[id] || len(id) < 26 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
				t.Errorf("got id %q, want a new one of 128 bits", id)
			}
			seen[id] = true
			if got := table.Get(id, "ann"); got != s || s.ID() != id {
				t.Errorf("got session %p with id %q, want %p with %q", got, s.ID(), s, id)
			}
			for _, user := range []string{"", "bob", "Ann"} {
				if table.Get(id, user) != nil {
					t.Errorf("user %q: got another user's session", user)
				}
			}
			if len(seen) > 5 {
				table.End(s, errDeleted)
				if table.Get(id, "ann") != nil {
					t.Error("got a session that has ended")
				}
				if again := table.Name(s); again != "" {
					t.Errorf("got name %q for a session that has ended, want none", again)
				}
			}
		}
		if table.Get("", "") != nil || table.Get("x", "ann") != nil {
			t.Error("got a session for an unknown id")
		}
	})
}

func TestCallsAreCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sessBounds()
		b.Calls = 2
		x := sessOpen(t, b)
		defer x.p.Close()
		x.says(sessCall("1"))
		x.says(sessCall("2"))
		x.says(sessCall("3"))
		x.clientHears(`"id":3…"code":503`)
		x.serverHears(sessCall("1"), sessCall("2"))
		x.replies(sessCall("1")) // the other direction has a book of its own
		x.replies(sessCall("2"))
		x.replies(sessCall("3"))
		x.clientHears(sessCall("1"), sessCall("2"))
		x.serverHears(`"id":3…"code":503`)
		x.replies(sessResult("1"))
		x.clientHears(sessResult("1"))
		x.says(sessCall("3"))
		x.serverHears(sessCall("3"))
		x.says(sessResult("2"))
		x.replies(sessCall("4"))
		x.serverHears(sessResult("2"))
		x.clientHears(sessCall("4"))
	})
}

func TestDuplicateIDs(t *testing.T) {
	for _, c := range []struct {
		first, second string
		same          bool
	}{
		{`7`, `7`, true},
		{`7`, `"7"`, false},
		{`"7"`, `7`, false},
		{`7`, `7.0`, true},
		{`7.0`, `7`, true},
		{`7e0`, `7`, true},
		{`700`, `7e2`, true},
		{`0`, `-0`, true},
		{`7`, `8`, false},
		{`"a"`, `"\u0061"`, true},
		{`"a"`, `"A"`, false},
		{`""`, `"a"`, false},
		{`9007199254740993`, `9007199254740992`, false},
		{`9007199254740993`, `9007199254740993.0`, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			x := sessOpen(t, sessBounds())
			defer x.p.Close()
			x.says(sessCall(c.first))
			x.says(sessCall(c.second))
			x.replies(sessCall(c.first))
			x.replies(sessCall(c.second))
			if c.same {
				x.serverHears(sessCall(c.first), `"id":`+c.second+`…"code":-32600`)
				x.clientHears(`"id":`+c.second+`…"code":-32600`, sessCall(c.first))
			} else {
				x.serverHears(sessCall(c.first), sessCall(c.second))
				x.clientHears(sessCall(c.first), sessCall(c.second))
			}
			// The call that was there first is not harmed, and its id is free after its answer.
			x.replies(sessResult(c.first))
			x.says(sessCall(c.first))
			x.clientHears(sessResult(c.first))
			x.serverHears(sessCall(c.first))
		})
	}
}

// A server may write an id otherwise than the client did.
func TestAnswersAreFoundByValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		x.says(sessCall(`"a/b"`))
		x.says(sessCall(`7.0`))
		x.replies(sessResult(`"a\/b"`))
		x.replies(sessResult(`7`))
		x.clientHears(sessResult(`"a\/b"`), sessResult(`7`))
	})
}

func TestIdleExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		x.p.Sessions.Name(x.s)
		for range 3 { // each message starts the time anew
			time.Sleep(29 * time.Minute)
			x.says(`{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}`)
			time.Sleep(29 * time.Minute)
			x.replies(`{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`)
		}
		time.Sleep(30*time.Minute - 1)
		x.wantEnded(nil)
		time.Sleep(time.Nanosecond)
		x.wantEnded(errIdle)
		if x.client.closes != 1 || x.server.closes != 1 {
			t.Errorf("got client closed %d times, server %d, want 1 and 1", x.client.closes, x.server.closes)
		}
	})
}

func TestIdleNeverWhileInUse(t *testing.T) {
	for _, c := range []struct {
		name string
		use  func(x *sessPair) (done func())
	}{
		{"call", func(x *sessPair) func() {
			x.says(sessCall("1"))
			return func() { x.replies(sessResult("1")) }
		}},
		{"subscription", func(x *sessPair) func() {
			x.says(`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}`)
			return func() { x.replies(sessResult("1")) }
		}},
		{"call of the server", func(x *sessPair) func() {
			x.replies(sessCall("1"))
			return func() { x.says(sessResult("1")) }
		}},
		{"stream", func(x *sessPair) func() { return x.s.holdStream() }},
		{"two streams", func(x *sessPair) func() {
			x.s.holdStream()()
			return x.s.holdStream()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := sessBounds()
				b.CallTimeout = 0
				x := sessOpen(t, b)
				x.p.Sessions.Name(x.s)
				time.Sleep(20 * time.Minute)
				done := c.use(x)
				time.Sleep(7 * time.Hour)
				x.wantEnded(nil)
				done()
				time.Sleep(30*time.Minute - 1)
				x.wantEnded(nil)
				time.Sleep(time.Nanosecond)
				x.wantEnded(errIdle)
			})
		})
	}
}

// initialize is under way when the session gets its id. Its time as a call must not hide the times of
// the session.
func TestExpiryBeginsWithInitialize(t *testing.T) {
	for _, c := range []struct {
		idle, lifetime time.Duration
		want           error
	}{
		{time.Minute, 0, errIdle},
		{0, time.Minute, errLifetime},
	} {
		synctest.Test(t, func(t *testing.T) {
			x := sessOpen(t, Bounds{Sessions: 1, Calls: 1, Idle: c.idle, Lifetime: c.lifetime, CallTimeout: time.Hour})
			x.says(`{"jsonrpc":"2.0","id":1,"method":"initialize"}`)
			x.p.Sessions.Name(x.s)
			x.replies(sessResult("1"))
			time.Sleep(time.Minute - 1)
			x.wantEnded(nil)
			time.Sleep(time.Nanosecond)
			x.wantEnded(c.want)
			x.p.Close()
		})
	}
}

func TestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		time.Sleep(time.Hour) // it counts from the beginning, not from the id
		x.p.Sessions.Name(x.s)
		release := x.s.holdStream()
		defer release()
		x.says(`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}`)
		time.Sleep(23*time.Hour - 1)
		x.wantEnded(nil)
		x.clientHears()
		time.Sleep(time.Nanosecond)
		x.wantEnded(errLifetime)
		x.clientHears(`"code":404`) // what waits for an answer hears that none will come
	})
}

// A conversation over stdio, or one request, lasts as long as its client.
func TestNoExpiryWithoutID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		x.says(sessCall("1"))
		x.replies(sessResult("1"))
		time.Sleep(1000 * time.Hour)
		x.wantEnded(nil)
		x.p.Close()
	})
}

func TestCallTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		x.says(sessCall("1"))
		x.says(`{"jsonrpc":"2.0","id":2,"method":"subscriptions/listen"}`)
		x.serverHears(sessCall("1"), "subscriptions/listen")
		time.Sleep(time.Minute)
		x.says(sessCall(`"later"`))
		x.serverHears(sessCall(`"later"`))
		time.Sleep(4*time.Minute - 1)
		x.clientHears()
		time.Sleep(time.Nanosecond)
		x.clientHears(`"id":1…"code":504`)
		x.serverHears(`notifications/cancelled…"requestId":1,`)
		time.Sleep(time.Minute)
		x.clientHears(`"id":"later"…"code":504`)
		x.serverHears(`notifications/cancelled…"requestId":"later"`)
		x.replies(sessResult("1")) // too late: it has been answered
		x.clientHears()
		time.Sleep(1000 * time.Hour)
		x.clientHears()
		x.replies(sessResult("2")) // a subscription has no time
		x.clientHears(sessResult("2"))
	})
}

func TestCallTimeoutOfServersCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		x.replies(sessTokenCall("1", `"t"`))
		x.clientHears(`"id":1`)
		time.Sleep(4 * time.Minute)
		x.says(sessProgress(`"t"`))
		x.serverHears("notifications/progress")
		time.Sleep(5*time.Minute - 1)
		x.serverHears()
		time.Sleep(time.Nanosecond)
		x.serverHears(`"id":1…"code":504`)
		x.says(sessResult("1"))
		x.serverHears()
	})
}

func TestProgressStartsTheTimeAnew(t *testing.T) {
	for _, c := range []struct {
		token, progress string
		anew            bool
	}{
		{`"t"`, `"t"`, true},
		{`7`, `7`, true},
		{`7`, `"7"`, false},
		{`"t"`, `"u"`, false},
		{`"a/b"`, `"a\/b"`, true}, // the same value, written as some serialisers do
		{`7`, `7.0`, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			x := sessOpen(t, sessBounds())
			defer x.p.Close()
			x.says(sessTokenCall("1", c.token))
			for range 3 {
				time.Sleep(4 * time.Minute)
				x.replies(sessProgress(c.progress))
			}
			time.Sleep(5*time.Minute - 1)
			got := x.client.take()
			timedOut := slices.ContainsFunc(got, func(m string) bool { return strings.Contains(m, `"code":504`) })
			if timedOut == c.anew {
				t.Errorf("token %s, progress of %s: got %q, want the time to begin anew: %v", c.token, c.progress, got, c.anew)
			}
			time.Sleep(time.Nanosecond)
			if c.anew {
				x.clientHears(`"id":1…"code":504`)
			}
		})
	}
}

// sessStream is the place of one HTTP request.
type sessStream struct{ name string }

func (*sessStream) Send(*Message) error { return nil }
func (*sessStream) Abort()              {}

func TestStreamFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		call := func(id, token string) *PendingCall {
			c := &PendingCall{Message: sessParse(t, sessTokenCall(id, token)), Stream: &sessStream{id}}
			if e := x.s.book(ToServer, c); e != nil {
				t.Fatal(e)
			}
			return c
		}
		check := func(token string, mayBelong bool, want string) {
			t.Helper()
			got := ""
			m := &Message{Kind: Notification, Method: "notifications/resources/updated"}
			if mayBelong {
				m.Method = methodLog
			}
			if token != "" {
				m = sessParse(t, sessProgress(token))
			}
			x.s.place(m)
			if s, ok := m.Stream.(*sessStream); ok {
				got = s.name
			}
			if got != want {
				t.Errorf("token %s, %v: got stream %q, want %q", token, mayBelong, got, want)
			}
		}
		check(`"a/b"`, true, "")
		first := call("1", `"a/b"`)
		check("", true, "1") // the only call
		check("", false, "")
		call("2", "7")
		check("", true, "") // which of them?
		check(`"a/b"`, true, "1")
		check(`"a\/b"`, true, "1")
		check(`7`, false, "2")
		check(`"7"`, true, "")
		if !x.s.strikeCall(ToServer, first) || x.s.strikeCall(ToServer, first) {
			t.Error("got a call struck out not just once")
		}
		check("", true, "2")
	})
}

func TestEndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settled := 0
		table := NewSessions(sessBounds(), func(*Session, error) { settled++ })
		client, server := &sessConn{}, &sessConn{}
		s, err := table.Open(client, "", false)
		if err != nil {
			t.Fatal(err)
		}
		table.Name(s)
		s.setServer(server)
		time.Sleep(30*time.Minute - 1)
		reasons := []error{errIdle, errDeleted, errLifetime, errShutdown}
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				time.Sleep(time.Nanosecond) // all at the moment when it expires
				if i%10 == 9 {
					table.EndAll(errShutdown)
				} else {
					table.End(s, reasons[i%len(reasons)])
				}
			})
		}
		wg.Wait()
		table.Wait()
		if settled != 1 || client.closes != 1 || server.closes != 1 {
			t.Errorf("got settled %d, client closed %d, server closed %d times, want 1 each", settled, client.closes, server.closes)
		}
		first := s.Reason()
		table.End(s, errServed)
		if !s.Ended() || s.Reason() != first || !slices.Contains(reasons, first) {
			t.Errorf("got reason %v, then %v, want the first to stay", first, s.Reason())
		}
	})
}

// A server that was dialled while its session ended must not be left open.
func TestEndWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &sessConn{}
		var p *Proxy
		p = NewProxy(sessDial(func(s *Session) (Server, error) {
			p.Sessions.End(s, errDeleted)
			return server, nil
		}), sessBounds(), slog.New(slog.DiscardHandler))
		if _, err := p.Open(t.Context(), &sessConn{}, "", false); err == nil {
			t.Error("got a session that has ended, want an error")
		}
		p.Close()
		if server.closes != 1 {
			t.Errorf("got server closed %d times, want 1", server.closes)
		}
	})
}

type sessDial func(*Session) (Server, error)

func (d sessDial) Dial(_ context.Context, s *Session, _ func(*Message, error)) (Server, error) {
	return d(s)
}

func TestDialFailure(t *testing.T) {
	b := sessBounds()
	b.Sessions = 1
	p := NewProxy(sessDial(func(*Session) (Server, error) {
		return nil, &Error{Code: 502, Text: "server could not be started"}
	}), b, slog.New(slog.DiscardHandler))
	for range 3 { // each gives its place back
		if _, err := p.Open(t.Context(), &sessConn{}, "", false); !sessRefused(err, 502) {
			t.Fatalf("got %v, want 502", err)
		}
	}
	p.Close()
}

func TestEndLeavesNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sessBounds()
		for _, named := range []bool{false, true} {
			x := sessOpen(t, b)
			if named {
				x.p.Sessions.Name(x.s)
			}
			x.says(sessCall("1"))
			time.Sleep(6 * time.Minute) // one was due already
			x.says(sessCall("2"))
			x.p.Sessions.End(x.s, errDeleted)
			x.p.Close()
			if x.s.timer == nil {
				t.Fatal("got no timer, want one that is stopped")
			}
			if x.s.timer.Stop() {
				t.Errorf("named %v: got a timer that runs on, want it stopped", named)
			}
			x.client.take()
			time.Sleep(1000 * time.Hour)
			x.clientHears()
		}
	})
}

func TestBookAfterEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		x.p.Sessions.Name(x.s)
		x.p.Sessions.End(x.s, errDeleted)
		x.p.Close()
		for _, d := range []Direction{ToServer, ToClient} {
			e := x.s.book(d, &PendingCall{Message: sessParse(t, sessCall("1"))})
			if e == nil || e.status() != 404 || !e.Bare { // with an id, clients keep the dead session
				t.Errorf("direction %d: got %#v, want 404 without an id", d, e)
			}
		}
		x.server.take()
		x.says(sessCall("1"))
		x.serverHears()
	})
}

// What a session owes when it ends is answered, once.
func TestEndAnswersCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			reason error
			want   string
		}{
			{&Error{Code: 502, Text: "server is gone", Exit: "exit status 3"}, `"code":502…"exit":"exit status 3"`},
			{errShutdown, `"code":503`},
			{errDeleted, `"code":404`},
		} {
			x := sessOpen(t, sessBounds())
			x.says(sessCall("1"))
			x.says(sessCall(`"1"`))
			x.receive(nil, c.reason)
			x.receive(sessParse(t, sessResult("1")), nil)
			synctest.Wait()
			slices.Sort(x.client.got) // any order will do
			x.clientHears(`"id":"1",…`+c.want, `"id":1,…`+c.want)
			x.p.Close()
			x.clientHears()
		}
	})
}

func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		isQuiet := func(c <-chan struct{}) bool {
			select {
			case <-c:
				return true
			default:
				return false
			}
		}
		check := func(when string, c <-chan struct{}, want bool) {
			t.Helper()
			if got := isQuiet(c); got != want {
				t.Errorf("%s: got quiet %v, want %v", when, got, want)
			}
		}
		check("new", x.s.Quiet(), true)
		x.says(`{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen"}`)
		x.replies(sessCall("1")) // the client owes this one
		check("subscription and server's call", x.s.Quiet(), true)
		x.says(sessCall("1"))
		x.says(sessCall("2"))
		first, second := x.s.Quiet(), x.s.Quiet()
		x.replies(sessResult("1"))
		check("one of two answered", first, false)
		x.replies(sessResult("2"))
		check("answered", first, true)
		check("answered, for another waiter", second, true)
		x.says(sessCall("3"))
		third := x.s.Quiet()
		check("a further call", third, false)
		x.says(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}`)
		check("cancelled", third, true)
		x.says(sessCall("4"))
		fourth := x.s.Quiet()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		x.p.Sessions.Quiet(ctx)
		if got := time.Since(begin); got != time.Second {
			t.Errorf("table: got quiet after %v, want its context's second", got)
		}
		x.p.Sessions.End(x.s, errDeleted)
		check("ended", fourth, true)
		check("after the end", x.s.Quiet(), true)
		x.p.Sessions.Quiet(t.Context())
		x.p.Close()
	})
}

func TestResponsesToNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		x.says(sessCall("1"))
		x.replies(sessResult(`"1"`))
		x.replies(sessResult("2"))
		x.replies(`{"jsonrpc":"2.0","error":{"code":1,"message":"no id"}}`)
		x.clientHears()
		x.replies(sessResult("1"))
		x.replies(sessResult("1"))
		x.clientHears(sessResult("1"))
		x.server.take()
		x.says(sessResult("1")) // a client answers what was not asked
		x.replies(sessCall("1"))
		x.says(sessResult("1"))
		x.says(sessResult("1"))
		x.serverHears(sessResult("1"))
	})
}

func TestLateAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		cancel := `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`
		x.says(sessCall("1"))
		x.says(sessCall("2"))
		x.says(cancel)
		x.serverHears(sessCall("1"), sessCall("2"), cancel)
		x.replies(sessResult("1"))
		x.replies(sessResult("2"))
		x.clientHears(sessResult("2"))
		x.replies(sessCall("1")) // and the other way
		x.replies(cancel)
		x.clientHears(sessCall("1"), cancel)
		x.says(sessResult("1"))
		x.serverHears()
		for _, params := range []string{`{}`, `{"requestId":null}`, `[1]`, `{"requestId":{}}`} { // cancels nothing
			x.says(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":` + params + `}`)
			x.replies(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":` + params + `}`)
		}
		x.wantEnded(nil)
	})
}

func TestServersCallsAndAClientThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		x.client.fail = errClosed
		x.replies(sessCall("1"))
		x.serverHears(`"id":1…"code":502`)
		x.replies(`{"jsonrpc":"2.0","method":"notifications/message"}`)
		x.serverHears() // nobody waits for an answer to that
		x.client.fail = nil
		x.replies(sessCall("1")) // its id is free again
		x.clientHears(sessCall("1"))
		x.says(sessResult("1"))
		x.serverHears(sessResult("1"))
	})
}

// A refused call must not stay in the book.
func TestRefusedCallsAreNotBooked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sessBounds()
		b.Calls = 1
		x := sessOpen(t, b)
		defer x.p.Close()
		x.server.fail = errors.New("broken pipe to 10.0.0.1")
		for range 3 {
			x.says(sessCall("1"))
			got := x.client.take()
			if len(got) != 1 || !strings.Contains(got[0], `"code":502`) || strings.Contains(got[0], "10.0.0.1") {
				t.Errorf("got %q, want one 502 that says nothing of the inside", got)
			}
		}
		x.p.chain = []Interceptor{func(_ context.Context, _ *Session, m *Message) (*Message, error) {
			if m.Dir == ToServer {
				return nil, &Error{Code: 429, Text: "no"}
			}
			return m, nil
		}}
		for range 3 {
			x.says(sessCall("1"))
			x.clientHears(`"id":1…"code":429`)
		}
		x.server.fail, x.p.chain = nil, nil
		x.says(sessCall("1"))
		x.serverHears(sessCall("1"))
		x.clientHears()
	})
}

// A server that replays its call on a GET that resumes a stream makes it once.
func TestServersCallReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		x.replies(sessCall("1"))
		again := sessParse(t, sessCall("1"))
		again.Resumed = true
		x.receive(again, nil)
		x.clientHears(sessCall("1"), sessCall("1"))
		x.says(sessResult("1"))
		x.serverHears(sessResult("1"))
	})
}

// Without a session id a call that comes too late is refused like those that were in flight.
func TestBookAfterEndWithoutID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		x.receive(nil, &Error{Code: 502, Text: "server is gone", Exit: "exit status 3"})
		x.says(sessCall("1"))
		x.clientHears(`"id":1…"code":502…"exit":"exit status 3"`)
	})
}

// A sessStuck is a server that reads nothing.
type sessStuck struct {
	sessConn
	free chan struct{}
}

func (c *sessStuck) Send(context.Context, *Message) error { <-c.free; return nil }

// A server that does not read costs no other session what the proxy has to say to its server.
func TestAsideIsEachSessionsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		stuck := &sessStuck{free: make(chan struct{})}
		defer close(stuck.free)
		other, err := x.p.Sessions.Open(&sessConn{}, "", false)
		if err != nil {
			t.Fatal(err)
		}
		other.setServer(stuck)
		for range 2 * maxAside {
			x.p.tellServer(other, sessParse(t, sessResult("1")))
		}
		synctest.Wait()
		if n := other.aside.Load(); n != maxAside {
			t.Errorf("got %d waiting, want %d", n, maxAside)
		}
		x.p.tellServer(x.s, sessParse(t, sessResult("2")))
		x.serverHears(sessResult("2"))
	})
}
