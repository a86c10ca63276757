// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// MCP 2025-11-25, Session Management: "The session ID SHOULD be globally unique and cryptographically secure",
// "MUST only contain visible ASCII characters".
func TestFrontSessionID(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		seen := map[string]bool{}
		for range 20 {
			session, _ := g.initialize("2025-11-25")
			id := strings.TrimPrefix(session, "Mcp-Session-Id: ")
			if seen[id] {
				t.Errorf("got id %q twice", id)
			}
			seen[id] = true
			// 128 bits need 26 letters of base 32, 22 of base 64.
			if len(id) < 22 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("got id %q, want 128 bits in visible ASCII", id)
			}
			if strings.Contains(g.log.String(), id) {
				t.Errorf("got id %q in the log, which is a secret", id)
			}
		}
	})
}

func TestFrontFailedInitialize(t *testing.T) {
	fail := func(g *frontRig) {
		g.script = func(c *frontChild, m *Message) { c.says(frontError(m.ID, "-32602")) }
	}
	inFront(t, fail, func(g *frontRig) {
		resp := g.do("POST", frontInitialize("1", "2025-11-25"))
		id := resp.Header.Get("Mcp-Session-Id")
		if body := frontBody(t, resp); resp.StatusCode != 200 || id != "" || body != frontError("1", "-32602") {
			t.Errorf("got %d, session %q, %s; want the server's error and no session", resp.StatusCode, id, body)
		}
		if !(<-g.children).ended() {
			t.Error("got the child alive, want it ended")
		}
		if n := len(g.front.Proxy.Sessions.open); n != 0 {
			t.Errorf("got %d sessions, want none", n)
		}
	})
}

func TestFrontDelete(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		other, d := g.initialize("2025-11-25")
		get := frontStream(t, g.do("GET", "", session))
		resp := g.do("DELETE", "", session)
		if body := frontBody(t, resp); resp.StatusCode != 204 || body != "" {
			t.Errorf("got %d %q, want 204", resp.StatusCode, body)
		}
		get.end()
		if !c.ended() {
			t.Error("got the child alive, want it ended")
		}
		for _, method := range []string{"DELETE", "GET", "POST"} {
			frontRefusal{404, 404, ""}.check(t, g.do(method, frontCall("1", "ping"), session))
		}
		if frontBody(t, g.do("POST", frontCall("1", "test/echo"), other)); d.ended() {
			t.Error("got another session's child ended")
		}
	})
}

// When a session's child dies the session is over.
func TestFrontChildGone(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		get := frontStream(t, g.do("GET", "", session))
		c.exit()
		get.end()
		frontRefusal{404, 404, ""}.check(t, g.do("POST", frontCall("1", "ping"), session))
	})
}

func TestFrontGetModern(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		for _, method := range []string{"GET", "DELETE"} {
			for _, extra := range []string{"X: y", "Mcp-Session-Id: old"} {
				resp := g.do(method, "", "MCP-Protocol-Version: 2026-07-28", extra)
				frontBody(t, resp)
				if resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" {
					t.Errorf("%s: got %d, Allow %q; want 405 and POST", method, resp.StatusCode, resp.Header.Get("Allow"))
				}
			}
		}
		resp := g.do("POST", frontInitialize("1", "2025-11-25"))
		frontBody(t, resp)
		// "ignore Mcp-Session-Id": it says nothing in this revision, known or not.
		body, headers := frontModern("1", "test/echo", "")
		resp = g.do("POST", body, append(headers, "Mcp-Session-Id: nosuch")...)
		if got := frontBody(t, resp); got != frontResult("1", `{"echo":true}`) || resp.Header.Get("Mcp-Session-Id") != "" {
			t.Errorf("got %s and session %q, want the answer and none", got, resp.Header.Get("Mcp-Session-Id"))
		}
	})
}

// What belongs to no call goes to the GET stream, in order, and waits for one in a queue of 64.
func TestFrontQueue(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		for i := range 63 {
			c.says(frontNote(strconv.Itoa(i)))
		}
		c.says(frontCall(`"ask"`, "roots/list"))
		synctest.Wait()
		if strings.Contains(g.log.String(), "lost") {
			t.Errorf("got a message lost before the queue was full: %s", g.log)
		}
		c.says(frontNote("toomany"))
		synctest.Wait()
		if !strings.Contains(g.log.String(), "notifications/toomany") {
			t.Errorf("got log %s, want a line for the notification that was dropped", g.log)
		}
		c.says(frontCall(`"more"`, "roots/list"))
		if m := c.hears(""); m.ID != `"more"` || m.Error == "" {
			t.Errorf("got %s, want an error for the request that nobody will see", m.Raw)
		}
		get := frontStream(t, g.do("GET", "", session))
		for i := range 63 {
			get.data(frontNote(strconv.Itoa(i)))
		}
		get.data(frontCall(`"ask"`, "roots/list"))
		c.says(frontNote("live"))
		get.data(frontNote("live"))
		resp := g.do("POST", frontResult(`"ask"`, `{"roots":[]}`), session)
		if body := frontBody(t, resp); resp.StatusCode != 202 || body != "" {
			t.Errorf("got %d %q, want 202", resp.StatusCode, body)
		}
		if m := c.hears(""); m.Raw != frontResult(`"ask"`, `{"roots":[]}`) {
			t.Errorf("got %s, want the client's answer", m.Raw)
		}
		c.hearsNothing()
	})
}

// A second GET takes the stream over; every message is on exactly one.
func TestFrontSecondGet(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		first := frontStream(t, g.do("GET", "", session))
		c.says(frontNote("1"))
		first.data(frontNote("1"))
		second := frontStream(t, g.do("GET", "", session))
		first.end()
		c.says(frontNote("2"))
		second.data(frontNote("2"))
	})
}

// A GET whose client is gone does not swallow what comes then.
func TestFrontGetReopened(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		p := g.start("GET", "", session)
		get := frontStream(t, p.answer())
		c.says(frontNote("1"))
		id := get.data(frontNote("1"))
		p.giveUp()
		synctest.Wait()
		c.says(frontNote("2"))
		c.says(frontNote("3"))
		synctest.Wait()
		again := frontStream(t, g.do("GET", "", session, "Last-Event-ID: "+id))
		c.says(frontNote("4"))
		again.data(frontNote("2"))
		again.data(frontNote("3"))
		again.data(frontNote("4"))
	})
}

// A client that heard nothing on its GET has no event to name when it comes back.
func TestFrontGetReopenedWithoutID(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		p := g.start("GET", "", session)
		p.answer()
		p.giveUp()
		synctest.Wait()
		c.says(frontCall(`"ask"`, "roots/list"))
		synctest.Wait()
		again := frontStream(t, g.do("GET", "", session))
		again.data(frontCall(`"ask"`, "roots/list"))
	})
}

// MCP 2025-11-25, Resumability: "The server MAY use this header to replay messages that would have been sent after
// the last event ID, on the stream that was disconnected … MUST NOT replay messages that would have been delivered
// on a different stream."
func TestFrontResume(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		call := strings.Replace(frontCall("1", "test/wait"), `}`, `,"params":{"_meta":{"progressToken":"p"}}}`, 1)
		progress := func(n int) string {
			return fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":%d}}`, n)
		}
		p := g.start("POST", call, session)
		c.hears("test/wait")
		c.says(progress(1))
		stream := frontStream(t, p.answer())
		stream.data("") // primes
		stream.data(progress(1))
		c.says(progress(2))
		last := stream.data(progress(2))
		p.giveUp()
		synctest.Wait()
		c.hearsNothing() // "Disconnection … SHOULD NOT be interpreted as the client cancelling its request"
		c.says(progress(3))
		c.says(frontNote("other"))
		synctest.Wait()

		again := g.start("GET", "", session, "Last-Event-ID: "+last)
		stream = frontStream(t, again.answer())
		stream.data(progress(3))
		c.says(progress(4))
		last = stream.data(progress(4))
		again.giveUp() // and once more, with the answer coming while nobody listens
		synctest.Wait()
		c.says(progress(5))
		c.says(frontResult("1", `{"done":true}`))
		synctest.Wait()
		for range 2 { // a finished stream replays its tail and ends, as often as it is asked for
			stream = frontStream(t, g.do("GET", "", session, "Last-Event-ID: "+last))
			stream.data(progress(5))
			stream.data(frontResult("1", `{"done":true}`))
			stream.end()
		}
		general := frontStream(t, g.do("GET", "", session))
		general.data(frontNote("other"))
	})
}

// A stream that is still being served is taken over by a GET that names it.
func TestFrontResumeTakesOver(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		p := g.start("POST", frontCall("1", "test/wait"), session)
		c.hears("test/wait")
		c.says(frontNote("message"))
		stream := frontStream(t, p.answer())
		last := stream.data("")
		stream.data(frontNote("message"))
		again := frontStream(t, g.do("GET", "", session, "Last-Event-ID: "+last))
		again.data(frontNote("message"))
		c.says(frontResult("1", `{}`))
		again.data(frontResult("1", `{}`))
		again.end()
		if rest, _ := io.ReadAll(stream.r); len(rest) > 0 { // whether it looks cut short does not matter
			t.Errorf("first stream: got %q after it was taken over, want nothing", rest)
		}
	})
}

func TestFrontBadLastEventID(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, _ := g.initialize("2025-11-25")
		for _, id := range []string{"x", "1", "1_", "_1", "1_x", "-1_1", "1_-1", "1_1_1", "99999999999999999999_1", "7_1"} {
			resp := g.do("GET", "", session, "Last-Event-ID: "+id)
			if resp.StatusCode != 400 {
				t.Errorf("%s: got %d, want 400", id, resp.StatusCode)
				resp.Body.Close()
				continue
			}
			frontRefusal{400, 400, ""}.check(t, resp)
		}
	})
}

// The ring of a session holds 256 events and 1 MiB.
func TestFrontRing(t *testing.T) {
	for _, c := range []struct {
		name         string
		events, size int
		least, most  int // events that can be had again
	}{
		{"number", 400, 10, 200, maxKept},
		{"bytes", 40, 100 << 10, 8, maxKeptBytes / (100 << 10)},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFront(t, nil, func(g *frontRig) {
				session, child := g.initialize("2025-11-25")
				p := g.start("GET", "", session)
				get := frontStream(t, p.answer())
				note := func(i int) string {
					return `{"jsonrpc":"2.0","method":"notifications/` + strconv.Itoa(i) + `","params":{"x":"` + strings.Repeat("x", c.size) + `"}}`
				}
				var first string
				for i := range c.events {
					child.says(note(i))
					if id := get.data(note(i)); i == 0 {
						first = id
					}
				}
				p.giveUp()
				synctest.Wait()
				client := g.front.Proxy.Sessions.Get(strings.TrimPrefix(session, "Mcp-Session-Id: "), "").client.(*httpClient)
				if len(client.kept) > maxKept || client.bytes > maxKeptBytes {
					t.Errorf("got %d events and %d bytes kept, want at most %d and %d", len(client.kept), client.bytes, maxKept, maxKeptBytes)
				}
				again := frontStream(t, g.do("GET", "", session, "Last-Event-ID: "+first))
				child.says(frontNote("end"))
				var n int
				for frame := again.frame(); !strings.Contains(frame, "notifications/end"); frame = again.frame() {
					n++
				}
				if n < c.least || n > c.most {
					t.Errorf("got %d events again, want %d to %d", n, c.least, c.most)
				}
			})
		})
	}
}

// Idle sessions end; one with an open stream or a call does not.
func TestFrontIdle(t *testing.T) {
	inFront(t, func(g *frontRig) { g.bounds.Idle = 10 * time.Minute }, func(g *frontRig) {
		idle, c := g.initialize("2025-11-25")
		listening, d := g.initialize("2025-11-25")
		get := frontStream(t, g.do("GET", "", listening))
		var comments int
		read := make(chan struct{})
		go func() {
			defer close(read)
			for frame := get.frame(); !strings.Contains(frame, "notifications/x"); frame = get.frame() {
				if comments++; frame != ": keep-alive\n\n" {
					t.Errorf("got %q, want keep-alives and then the notification", frame)
					return
				}
			}
		}()
		time.Sleep(11*time.Minute + time.Second)
		if !c.ended() || d.ended() {
			t.Errorf("got idle ended %v, listening ended %v; want true, false", c.ended(), d.ended())
		}
		frontRefusal{404, 404, ""}.check(t, g.do("POST", frontCall("1", "ping"), idle))
		d.says(frontNote("x"))
		if <-read; comments != 44 {
			t.Errorf("got %d comments in 11 minutes, want 44", comments)
		}
	})
}

// MCP 2025-03-26 has batches: each message is judged by itself, the answers come on one stream.
func TestFrontBatch(t *testing.T) {
	refuse := func(g *frontRig) {
		g.chain = []Interceptor{func(_ context.Context, _ *Session, m *Message) (*Message, error) {
			if m.Method == "test/refused" {
				return nil, &Error{Code: 429, Text: "rate limit exceeded"}
			}
			return m, nil
		}}
	}
	echo := func(id string) string { return frontResult(id, `{"echo":true}`) }
	for _, c := range []struct {
		name string
		send []string
		want []string // parts of the answers, in any order
	}{
		{"calls", []string{frontCall("1", "test/echo"), frontNote("x"), frontCall(`"2"`, "test/echo")}, []string{echo("1"), echo(`"2"`)}},
		{"bad first", []string{`{"id":1}`, frontCall("2", "test/echo")}, []string{`"code":-32600`, echo("2")}},
		{"bad last", []string{frontCall("2", "test/echo"), frontCall("3", "test/echo"), `7`}, []string{`"code":-32600`, echo("2"), echo("3")}},
		{"refused first", []string{frontCall("1", "test/refused"), frontCall("2", "test/echo")}, []string{`"id":1,"error":{"code":429`, echo("2")}},
		{"refused last", []string{frontCall("2", "test/echo"), frontCall("1", "test/refused")}, []string{`"id":1,"error":{"code":429`, echo("2")}},
		{"same id", []string{frontCall("1", "test/echo"), frontCall("2", "test/echo"), frontCall("1", "test/refused")}, []string{echo("1"), echo("2"), `"id":1,"error"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFront(t, refuse, func(g *frontRig) {
				session, _ := g.initialize("2025-03-26")
				stream := frontStream(g.t, g.do("POST", "["+strings.Join(c.send, ",")+"]", session))
				var got []string
				for frame := stream.frame(); frame != ""; frame = stream.frame() {
					if !strings.HasPrefix(frame, ":") {
						got = append(got, frame)
					}
				}
				if len(got) != len(c.want) {
					g.t.Errorf("got %d events %q, want %d", len(got), got, len(c.want))
				}
				for _, want := range c.want {
					if !strings.Contains(strings.Join(got, ""), want) {
						g.t.Errorf("got %q, want %s in it", got, want)
					}
				}
			})
		})
	}
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-03-26")
		resp := g.do("POST", "["+frontNote("a")+","+frontNote("b")+"]", session)
		if body := frontBody(t, resp); resp.StatusCode != 202 || body != "" {
			t.Errorf("notifications: got %d %q, want 202", resp.StatusCode, body)
		}
		c.hears("notifications/a")
		c.hears("notifications/b")
		many := strings.Repeat(frontNote("x")+",", maxBatch) + frontNote("x")
		frontRefusal{400, -32600, ""}.check(t, g.do("POST", "["+many+"]", session))
		frontRefusal{400, -32600, ""}.check(t, g.do("POST", "[]", session))
		c.hearsNothing()
	})
}

// The head of the answer to initialize carries the session's id, also when it is written before the
// answer is known: a command may take long to start, and may say something first.
func TestFrontSessionIDBeforeAnswer(t *testing.T) {
	for name, first := range map[string]func(c *frontChild){
		"slow start":   func(*frontChild) { time.Sleep(2 * keepAlive) },
		"notification": func(c *frontChild) { c.says(frontNote("message")) },
	} {
		for _, well := range []bool{true, false} {
			script := func(g *frontRig) {
				g.script = func(c *frontChild, m *Message) {
					if m.Method != "initialize" {
						frontScript(c, m)
						return
					}
					if first(c); well {
						c.says(frontResult(m.ID, `{"protocolVersion":"2025-11-25"}`))
					} else {
						c.says(frontError(m.ID, "-32602"))
					}
				}
			}
			inFront(t, script, func(g *frontRig) {
				resp := g.do("POST", frontInitialize("1", "2025-11-25"))
				id := resp.Header.Get("Mcp-Session-Id")
				frontBody(t, resp)
				synctest.Wait()
				if n := len(g.front.Proxy.Sessions.open); id == "" || n != btoi(well) {
					t.Errorf("%s, answered well %v: got session %q and %d open", name, well, id, n)
				}
			})
		}
	}
}
