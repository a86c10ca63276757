// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// replayInFront runs test in front of a tape, over HTTP.
func replayInFront(t *testing.T, tape string, o PlayerOptions, test func(g *frontRig, p *Player)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newFrontRig(t, nil)
		o.Log, o.Max = g.front.Log, 1<<20
		p, err := OpenPlayer(strings.NewReader(tape), "t.jsonl", o)
		if err != nil {
			t.Fatal(err)
		}
		g.serve(p, true)
		test(g, p)
	})
}

// replaySession begins a session and returns the header that names it.
func replaySession(g *frontRig, client string) string {
	g.t.Helper()
	resp := g.do("POST", strings.Replace(frontInitialize("0", "2025-11-25"), `"c"`, `"`+client+`"`, 1))
	frontBody(g.t, resp)
	session := "Mcp-Session-Id: " + resp.Header.Get("Mcp-Session-Id")
	if got := frontBody(g.t, g.do("POST", frontNote("initialized"), session)); got != "" {
		g.t.Errorf("got %q, want nothing", got)
	}
	return session
}

func TestReplayOverHTTP(t *testing.T) {
	k := replayAsking()
	k.says(0, frontNote("tools/list_changed"))
	call := k.call(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow","_meta":{"progressToken":"was"}}}`)
	k.says(call, sessProgress(`"was"`))
	k.reply(call, replayAnswer(`1`, "done"))
	replayInFront(t, k.tape(), PlayerOptions{}, func(g *frontRig, p *Player) {
		session := replaySession(g, "c")
		get := g.do("GET", "", session, "Accept: text/event-stream")
		alone := frontStream(t, get)
		resp := g.do("POST", replayCall(`9007199254740993`, "ask", `{}`), session)
		events := frontStream(t, resp)
		events.frame() // the priming event
		events.data(replayLog("before"))
		events.data(replayElicit(`"tape-1"`))
		events.data(replayLog("meanwhile"))
		if resp := g.do("POST", `{"jsonrpc":"2.0","id":"tape-1","result":{"action":"accept"}}`, session); resp.StatusCode != 202 {
			t.Errorf("got status %d, want 202", resp.StatusCode)
		}
		events.data(replayLog("after"))
		events.data(replayAnswer(`9007199254740993`, "thanks"))
		events.end()
		alone.data(frontNote("tools/list_changed"))
		events = frontStream(t, g.do("POST", `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow","_meta":{"progressToken":1.0}}}`, session))
		events.frame()
		events.data(sessProgress(`1.0`))
		events.data(replayAnswer(`2`, "done"))
		events.end()
		// An HTTP 404 would end the session.
		frontRefusal{200, 404, "3"}.check(t, g.do("POST", replayCall(`3`, "none", `{}`), session))
		frontRefusal{200, 404, "4"}.check(t, g.do("POST", replayCall(`4`, "slow", `{}`), session))
		get.Body.Close()
		if resp := g.do("DELETE", "", session); resp.StatusCode != 204 {
			t.Errorf("got status %d, want 204", resp.StatusCode)
		}
		if text, ok := p.Report(); ok || !strings.Contains(text, "2 calls played, 2 unmatched") {
			t.Errorf("got report %q", text)
		}
	})
}

func TestReplayOverHTTPStateless(t *testing.T) {
	k := &tapeScript{}
	call := k.call(replayModern(`1`, "slow", `{}`))
	k.says(call, sessProgress(`"was"`))
	k.t = 10 * time.Second
	k.reply(call, replayAnswer(`1`, "done"))
	k.t = 0
	listen := k.call(`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{` + replayMeta + `}}`)
	k.says(listen, `{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}`)
	k.exchange(replayModern(`1`, "unknown", `{}`), frontError(`1`, `-32601`))
	replayInFront(t, k.tape(), PlayerOptions{Speed: 1, OnExhausted: exhaustedLast}, func(g *frontRig, p *Player) {
		began := time.Now()
		slow, headers := frontModern(`7`, "tools/call", `,"name":"slow","arguments":{}`)
		headers = append(headers, "Mcp-Name: slow")
		events := frontStream(t, g.do("POST", slow, headers...))
		events.data(sessProgress(`"tok"`))
		events.data(`{"jsonrpc":"2.0","id":7,"result":{"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"mcpproxy","version":"` + version + `"}},"resultType":"complete","content":[{"type":"text","text":"done"}]}}`)
		events.end()
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("got an answer after %v, want it after ten seconds", took)
		}
		// The client goes, which in this revision cancels: with a call that waits for its time, and with a subscription.
		gone := g.start("POST", slow, headers...)
		events = frontStream(t, gone.answer())
		events.data(sessProgress(`"tok"`))
		gone.giveUp()
		body, listens := frontModern(`"l"`, "subscriptions/listen", ``)
		gone = g.start("POST", body, listens...)
		events = frontStream(t, gone.answer())
		events.data(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"l"}}}`)
		gone.giveUp()
		synctest.Wait()
		if n := len(g.front.Proxy.Sessions.open); n != 0 {
			t.Errorf("got %d open sessions, want none", n)
		}
		// Headers, _meta and status are as a server's.
		frontRefusal{400, -32020, "7"}.check(t, g.do("POST", slow, headers[0], headers[1], "Mcp-Name: other"))
		frontRefusal{400, -32602, "1"}.check(t, g.do("POST", frontCall(`1`, "tools/list"), "MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/list"))
		unknown, headers := frontModern(`8`, "tools/call", `,"name":"unknown","arguments":{}`)
		if resp := g.do("POST", unknown, append(headers, "Mcp-Name: unknown")...); resp.StatusCode != 404 || frontBody(t, resp) != frontError(`8`, `-32601`) {
			t.Errorf("got status %d, want the recorded error and 404", resp.StatusCode)
		}
	})
}

// Sessions over HTTP are played each from its own recording, while they all call at once.
func TestReplayHTTPSessionsNeverCross(t *testing.T) {
	k := &tapeScript{}
	const n = 50
	for i := range n {
		k.session = int64(i + 1)
		k.handshake(fmt.Sprint("client ", i))
		for j := range 5 {
			k.tools("poll", `{}`, fmt.Sprint(i, " ", j))
		}
	}
	replayInFront(t, k.tape(), PlayerOptions{}, func(g *frontRig, p *Player) {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				session := replaySession(g, fmt.Sprint("client ", i))
				for j := range 5 {
					if got, want := frontBody(t, g.do("POST", replayCall(`1`, "poll", `{}`), session)), replayAnswer(`1`, fmt.Sprint(i, " ", j)); got != want {
						t.Errorf("got %s, want %s", got, want)
					}
				}
			})
		}
		wg.Wait()
	})
}

// Where the server ended the stream of a call that it had not answered, the tape does, and the call is over.
func TestReplayStreamEnds(t *testing.T) {
	k := &tapeScript{session: 1}
	call := k.call(replayCall(`1`, "a", `{}`))
	k.says(call, replayLog("before"))
	silent := k.call(replayCall(`2`, "b", `{}`))
	for _, x := range []int64{call, silent} {
		k.entries = append(k.entries, Entry{Kind: lineRaw, Session: 1, Dir: dirToClient, X: x, Via: viaSSE, Status: 200})
	}
	tape := k.tape()
	replayInFront(t, tape, PlayerOptions{OnExhausted: exhaustedLast}, func(g *frontRig, p *Player) {
		session := replaySession(g, "c")
		for range 2 {
			events := frontStream(t, g.do("POST", replayCall(`1`, "a", `{}`), session))
			events.frame() // the priming event
			events.data(replayLog("before"))
			if got := events.frame(); got != "retry: 1000\n\n" {
				t.Errorf("got %q, want when to come back", got)
			}
			events.end()
			if got := frontBody(t, g.do("POST", replayCall(`1`, "b", `{}`), session)); got != "retry: 1000\n\n" {
				t.Errorf("got %q, want when to come back", got)
			}
		}
	})
	replayInFront(t, strings.ReplaceAll(tape, `"via":"sse","status":200`, `"via":"json","status":200`), PlayerOptions{}, func(g *frontRig, p *Player) {
		session := replaySession(g, "c") // the server's answer was no message
		got := frontBody(t, g.do("POST", replayCall(`1`, "b", `{}`), session))
		if !strings.Contains(got, `"error":{"code":502,"message":"no answer was recorded"`) {
			t.Errorf("got %s", got)
		}
	})
	replaying(t, tape, PlayerOptions{}, func(g *replayRig) { // on stdio no stream ends
		g.open(false).asks(replayCall(`1`, "b", `{}`), `{"jsonrpc":"2.0","id":1,"error":{"code":502,"message":"no answer was recorded"…`)
	})
}

// A client that goes away in the middle, up to 2025-11-25, comes back for the rest.
func TestReplayClientComesBack(t *testing.T) {
	replayInFront(t, replayAsking().tape(), PlayerOptions{}, func(g *frontRig, p *Player) {
		session := replaySession(g, "c")
		gone := g.start("POST", replayCall(`1`, "ask", `{}`), session)
		events := frontStream(t, gone.answer())
		events.frame()
		id := events.data(replayLog("before"))
		gone.giveUp()
		synctest.Wait()
		g.do("POST", `{"jsonrpc":"2.0","id":"tape-1","result":{"action":"accept"}}`, session)
		events = frontStream(t, g.do("GET", "", session, "Last-Event-ID: "+id))
		for _, want := range []string{replayElicit(`"tape-1"`), replayLog("meanwhile"), replayLog("after"), replayAnswer(`1`, "thanks")} {
			events.data(want)
		}
		events.end()
	})
}

// What is not on the tape goes to a server, which gets the handshake first, and only that is recorded.
func TestReplayPass(t *testing.T) {
	for _, mode := range []string{"session", "stateless"} {
		k := &tapeScript{session: 1}
		k.handshake("c")
		k.tools("echo", `{"text":"on tape"}`, "tape")
		var recorded []string
		o := PlayerOptions{Record: func(_ context.Context, s *Session, m *Message) (*Message, error) {
			text := m.Method + m.Name
			if m.Kind == Response {
				text = "answer to " + m.Answers.Message.Method
			}
			recorded = append(recorded, text)
			return m, nil
		}}
		demo := newCommandDialer(startDemo, 1<<20, slog.New(slog.DiscardHandler))
		o.Server = demo
		replaying(t, k.tape(), o, func(g *replayRig) {
			if mode == "stateless" {
				g.open(true).asks(replayModern(`1`, "echo", `{"text":"on tape"}`), `{"jsonrpc":"2.0","id":1,…"text":"tape"…`)
				g.open(true).asks(replayModern(`2`, "echo", `{"text":"new"}`), `{"jsonrpc":"2.0","id":2,…"text":"new"…`)
				g.reports(true, "1 calls played", "1 passed to the server")
				demo.Close()
				return
			}
			c := g.open(false)
			c.says(frontInitialize(`1`, "2025-06-18"))
			c.says(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
			c.client.take()
			c.asks(replayCall(`2`, "echo", `{"text":"on tape"}`), replayAnswer(`2`, "tape"))
			c.asks(replayCall(`"3"`, "echo", `{"text":"new"}`), `{"jsonrpc":"2.0","id":"3","result":{"content":[{"text":"new","type":"text"}]}}`)
			c.asks(replayCall(`4`, "countdown", `{"from":1,"everyMs":1000}`))
			c.asks(talkCancelled(`4`))
			<-time.After(time.Minute)
			c.hears()
			g.reports(true, "1 calls played", "2 passed to the server")
			if got, want := fmt.Sprint(recorded), "[initialize answer to initialize notifications/initialized tools/callecho answer to tools/call tools/callcountdown notifications/cancelled]"; got != want {
				t.Errorf("got recorded %s, want %s", got, want)
			}
			g.proxy.Sessions.End(c.s, errGone)
		})
	}
}

// The same over HTTP to both sides. An answer of the server that is no message ends here.
func TestReplayPassOverHTTP(t *testing.T) {
	k := &tapeScript{session: 1}
	k.handshake("c")
	k.tools("echo", `{}`, "tape")
	server := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		m, _ := Parse(string(b))
		switch {
		case m == nil || m.Kind != Call:
			w.WriteHeader(http.StatusAccepted)
		case m.Method == methodInitialize:
			w.Header().Set("Mcp-Session-Id", "server-session")
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, frontResult(m.ID, `{}`))
		case r.Header.Get("Mcp-Session-Id") != "server-session" || m.Name == "bad":
			http.Error(w, "no", http.StatusForbidden)
		default:
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "id: 1\ndata: "+replayLog("live")+"\n\ndata: "+replayAnswer(m.ID, "live")+"\n\n")
		}
	}
	inFrontOf(t, server, nil, func(g *frontRig) {
		dialer := g.front.Proxy.dialer
		p, err := OpenPlayer(strings.NewReader(k.tape()), "t.jsonl", PlayerOptions{Server: dialer, Max: 1 << 20, Log: g.front.Log})
		if err != nil {
			t.Fatal(err)
		}
		g.front.Command, g.front.Proxy.dialer = true, p
		session := replaySession(g, "c")
		if got := frontBody(t, g.do("POST", replayCall(`1`, "echo", `{}`), session)); got != replayAnswer(`1`, "tape") {
			t.Errorf("got %s, want the tape's answer", got)
		}
		events := frontStream(t, g.do("POST", replayCall(`"2"`, "new", `{}`), session))
		events.frame()
		events.data(replayLog("live"))
		events.data(replayAnswer(`"2"`, "live"))
		events.end()
		frontRefusal{502, 502, "3"}.check(t, g.do("POST", replayCall(`3`, "bad", `{}`), session))
	})
}
