// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The answer of a command is JSON if the first thing to send is the response and the client does not name event
// streams first, and server-sent events otherwise.
func TestStreamForm(t *testing.T) {
	const events = "Accept: text/event-stream, application/json"
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		resp := g.do("POST", frontCall("1", "test/echo"), session)
		if got := resp.Header.Get("Content-Type"); got != "application/json" || resp.ContentLength < 0 {
			t.Errorf("got %s with length %d, want JSON with its length", got, resp.ContentLength)
		}
		if got := frontBody(t, resp); got != frontResult("1", `{"echo":true}`) {
			t.Errorf("got %s", got)
		}
		stream := frontStream(t, g.do("POST", frontCall("2", "test/echo"), session, events))
		stream.data(frontResult("2", `{"echo":true}`))
		stream.end()

		p := g.start("POST", frontCall("3", "test/wait"), session)
		c.hears("test/wait")
		c.says(frontNote("message"))
		c.says(frontCall(`"ask"`, "roots/list")) // belongs to the only call in flight
		resp = p.answer()                        // before the call is answered
		if resp.Header.Get("X-Accel-Buffering") != "no" || !strings.Contains(resp.Header.Get("Cache-Control"), "no-cache") {
			t.Errorf("got %v, want what keeps others from buffering", resp.Header)
		}
		stream = frontStream(t, resp)
		stream.data("")
		stream.data(frontNote("message"))
		stream.data(frontCall(`"ask"`, "roots/list"))
		c.says(frontResult("3", `{}`))
		stream.data(frontResult("3", `{}`))
		stream.end()

		// A message with line ends between its tokens stays one data field.
		c.says("{\"jsonrpc\":\"2.0\",\r\"method\":\"notifications/x\"}")
		general := frontStream(t, g.do("GET", "", session))
		general.data(`{"jsonrpc":"2.0", "method":"notifications/x"}`)
	})
}

// MCP 2025-11-25: "the server SHOULD immediately send an SSE event consisting of an event ID and an empty data field
// in order to prime the client to reconnect". Clients of earlier revisions may take it for a broken message.
func TestStreamPriming(t *testing.T) {
	for _, revision := range []string{"2025-03-26", "2025-06-18", "2025-11-25"} {
		inFront(t, nil, func(g *frontRig) {
			session, c := g.initialize(revision)
			p := g.start("POST", frontCall("1", "test/wait"), session)
			c.hears("test/wait")
			c.says(frontNote("message"))
			frame := frontStream(t, p.answer()).frame()
			primes := strings.Contains(frame, "\ndata: \n") || strings.Contains(frame, "\ndata:\n")
			if primes != (revision == "2025-11-25") || !strings.Contains(frame, "id: ") || !strings.Contains(frame, "retry: ") {
				t.Errorf("%s: got %q first", revision, frame)
			}
		})
	}
	inFront(t, nil, func(g *frontRig) { // no resumption in 2026-07-28
		body, headers := frontModern("1", "test/wait", "")
		p := g.start("POST", body, headers...)
		c := <-g.children
		id := c.hears("test/wait").ID
		c.says(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":` + id + `,"progress":1}}`)
		want := `data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"tok","progress":1}}` + "\n\n"
		if got := frontStream(t, p.answer()).frame(); got != want {
			t.Errorf("2026-07-28: got %q, want %q", got, want)
		}
	})
}

// A comment every 15 s of silence, for as long as it lasts.
func TestStreamKeepAlive(t *testing.T) {
	for _, what := range []string{"GET", "POST", "modern", "listen"} {
		t.Run(what, func(t *testing.T) {
			inFront(t, nil, func(g *frontRig) {
				method, body, headers := "POST", "", []string(nil)
				switch what {
				case "modern":
					body, headers = frontModern("1", "test/wait", "")
				case "listen":
					body, headers = frontModern("1", "subscriptions/listen", `,"notifications":{}`)
				default:
					session, c := g.initialize("2025-11-25")
					g.children <- c
					method, body, headers = what, frontCall("1", "test/wait"), []string{session}
				}
				began := time.Now()
				p := g.start(method, body, headers...)
				c, id := <-g.children, ""
				if what != "GET" {
					id = c.hears(map[bool]string{true: "test/wait", false: "subscriptions/listen"}[what != "listen"]).ID
				}
				if what == "listen" {
					c.says(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":` + id + `}}}`)
				}
				stream := frontStream(t, p.answer())
				for n := 0; n < 20; { // five minutes
					if frame := stream.frame(); frame == ": keep-alive\n\n" {
						n++
					}
				}
				if got := time.Since(began); got < 5*time.Minute || got > 5*time.Minute+15*time.Second {
					t.Errorf("got 20 comments in %v, want 5m", got)
				}
				if what != "GET" {
					c.says(frontResult(id, `{}`))
					stream.data(frontResult("1", `{}`))
					stream.end()
				}
			})
		})
	}
}

// No comment between events that come often enough.
func TestStreamNoNeedlessKeepAlive(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		get := frontStream(t, g.do("GET", "", session))
		for i := range 30 {
			time.Sleep(10 * time.Second)
			c.says(frontNote(strconv.Itoa(i)))
			get.data(frontNote(strconv.Itoa(i)))
		}
	})
}

// Someone who takes long to send a body, or to answer, has no less time for the rest.
func TestStreamSlowBody(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		body := frontCall("1", "test/wait")
		conn := g.raw()
		conn.Write([]byte("POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + session + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body[:10]))
		time.Sleep(55 * time.Second)
		conn.Write([]byte(body[10:]))
		c.hears("test/wait")
		time.Sleep(10 * time.Second)
		go c.says(frontResult("1", `{}`))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("got error %v, want the answer", err)
		}
		if got := frontBody(t, resp); got != frontResult("1", `{}`) {
			t.Errorf("got %s, want the answer", got)
		}
	})
}

// A call that the client cancels after a long time ends its stream cleanly.
func TestStreamCancelled(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		p := g.start("POST", frontCall("1", "test/wait"), session)
		c.hears("test/wait")
		cancel := cancellation("1", "enough").Raw
		resp := g.do("POST", cancel, session)
		if frontBody(t, resp); resp.StatusCode != 202 {
			t.Errorf("got %d, want 202", resp.StatusCode)
		}
		if got := c.hears("notifications/cancelled").Raw; got != cancel {
			t.Errorf("got %s, want %s", got, cancel)
		}
		stream := frontStream(t, p.answer())
		for frame := stream.frame(); frame != ""; frame = stream.frame() {
			if strings.Contains(frame, "jsonrpc") {
				t.Errorf("got %q, want no message for a call that was cancelled", frame)
			}
		}
		c.says(frontResult("1", `{}`)) // too late
		c.says(frontNote("after"))
		frontStream(t, g.do("GET", "", session)).data(frontNote("after"))
	})
}

// MCP 2026-07-28: closing the response stream cancels. Up to 2025-11-25: "Disconnection … SHOULD NOT be interpreted as
// the client cancelling its request."
func TestStreamDisconnect(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		body, headers := frontModern(`"a"`, "test/wait", "")
		p := g.start("POST", body, headers...)
		c := <-g.children
		first := c.hears("test/wait").ID
		q := g.start("POST", body, headers...)
		second := c.hears("test/wait").ID
		if first == second {
			t.Fatalf("got id %s twice, want different ones for two clients", first)
		}
		p.giveUp()
		if got := member(c.hears("notifications/cancelled").Params, "requestId"); got != first {
			t.Errorf("got cancellation of %s, want %s", got, first)
		}
		c.says(frontResult(first, `{"late":true}`)) // dropped
		c.says(frontResult(second, `{"x":1}`))
		if got := frontBody(t, q.answer()); got != frontResult(`"a"`, `{"x":1}`) {
			t.Errorf("got %s, want the other client's answer", got)
		}
		c.hearsNothing()
	})
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		p := g.start("POST", frontCall("1", "test/wait"), session)
		c.hears("test/wait")
		p.giveUp()
		c.hearsNothing()
		frontRefusal{400, -32600, "1"}.check(t, g.do("POST", frontCall("1", "test/echo"), session)) // still in flight
	})
}

// What a child answers becomes the HTTP status that 2026-07-28 prescribes; before that it is always 200.
func TestStreamStatus(t *testing.T) {
	fails := func(g *frontRig) {
		g.script = func(c *frontChild, m *Message) {
			if m.Method == "initialize" {
				frontScript(c, m)
			} else {
				c.says(frontError(m.ID, m.Method[5:]))
			}
		}
	}
	inFront(t, fails, func(g *frontRig) {
		session, _ := g.initialize("2025-11-25")
		for code, want := range map[string]int{
			"-32601": 404, "-32020": 400, "-32021": 400, "-32022": 400,
			"-32602": 200, "-32603": 200, "-32700": 200, "-32600": 200, "-32002": 200, "-32023": 200, "1": 200, "404": 200,
		} {
			body, headers := frontModern(`"q"`, "test/"+code, "")
			resp := g.do("POST", body, headers...)
			if got := frontBody(t, resp); resp.StatusCode != want || got != frontError(`"q"`, code) {
				t.Errorf("modern %s: got %d %s, want %d and the error", code, resp.StatusCode, got, want)
			}
			resp = g.do("POST", frontCall("1", "test/"+code), session)
			if got := frontBody(t, resp); resp.StatusCode != 200 || got != frontError("1", code) {
				t.Errorf("legacy %s: got %d %s, want 200 and the error", code, resp.StatusCode, got)
			}
		}
		body, headers := frontModern("1", "test/-32602", "")
		body = strings.Replace(body, `"io.modelcontextprotocol/clientCapabilities":{},`, "", 1)
		resp := g.do("POST", body, headers...)
		if got := frontBody(t, resp); resp.StatusCode != 400 || got != frontError("1", "-32602") {
			t.Errorf("without capabilities: got %d %s, want 400 and the error", resp.StatusCode, got)
		}
	})
}

// A body without end is not read to its end.
func TestStreamEndlessBody(t *testing.T) {
	inFront(t, func(g *frontRig) { g.front.Max = 10_000 }, func(g *frontRig) {
		conn := g.raw()
		written := make(chan int)
		go func() {
			n, _ := conn.Write([]byte("POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"))
			chunk := "400\r\n" + `{"jsonrpc":"2.0","id":"big","method":"` + strings.Repeat("x", 1024-38) + "\r\n"
			for err := error(nil); err == nil; n += len(chunk) {
				_, err = conn.Write([]byte(chunk))
				chunk = "400\r\n" + strings.Repeat("x", 1024) + "\r\n"
			}
			written <- n
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		frontRefusal{413, 413, `"big"`}.check(t, resp)
		go io.Copy(io.Discard, conn)
		if n := <-written; n > 600_000 { // net/http reads up to 256 KiB more, for the sake of the connection
			t.Errorf("got %d bytes read, want it to give up", n)
		}
	})
}

// A body that does not come whole is not passed on in part.
func TestStreamPartialBody(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		for _, rest := range []string{"Content-Length: 1000\r\n\r\n" + frontNote("a"), "Transfer-Encoding: chunked\r\n\r\n28\r\n" + frontNote("b")} {
			conn := g.raw()
			conn.Write([]byte("POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + session + "\r\n" + rest))
			synctest.Wait()
			conn.Close()
			c.hearsNothing()
		}
		conn := g.raw() // one that says nothing more is given up after a minute
		conn.Write([]byte("POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + session + "\r\nContent-Length: 1000\r\n\r\n" + frontNote("a")))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("got error %v, want a refusal", err)
		}
		frontRefusal{400, 400, ""}.check(t, resp)
		c.hearsNothing()
		// Nor does one that was refused, or needs no body, keep its conn forever by not sending it.
		for _, head := range []string{"POST /mcp HTTP/1.1\r\nHost: evil.example.com", "GET /mcp HTTP/1.1\r\nHost: localhost\r\n" + session,
			"DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nMcp-Session-Id: x"} {
			conn := g.raw()
			conn.Write([]byte(head + "\r\nContent-Length: 1000\r\n\r\n"))
			began := time.Now()
			io.Copy(io.Discard, conn)
			if got := time.Since(began); got > 5*time.Minute {
				t.Errorf("%.10s: got the end after %v, want minutes", head, got)
			}
		}
	})
}

func TestStreamPipelined(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, _ := g.initialize("2025-11-25")
		conn, all := g.raw(), ""
		for _, id := range []string{"1", "2"} {
			body := frontCall(id, "test/echo")
			all += "POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + session + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
		}
		go conn.Write([]byte(all))
		r := bufio.NewReader(conn)
		for _, id := range []string{"1", "2"} {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := frontBody(t, resp); got != frontResult(id, `{"echo":true}`) {
				t.Errorf("got %s, want the answer to %s", got, id)
			}
		}
	})
}

// A client that does not read holds up its own session and nobody else's.
func TestStreamSlowReader(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		conn := g.raw()
		go conn.Write([]byte("GET /mcp HTTP/1.1\r\nHost: localhost\r\n" + session + "\r\n\r\n"))
		go func() {
			for range 1000 {
				c.says(frontNote("x"))
			}
		}()
		synctest.Wait()
		other, _ := g.initialize("2025-11-25")
		if got := frontBody(t, g.do("POST", frontCall("1", "test/echo"), other)); got != frontResult("1", `{"echo":true}`) {
			t.Errorf("got %s, want the answer", got)
		}
	})
}

// With a shared child a client that does not read is cut off, and the others go on.
func TestStreamCutOff(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		body, headers := frontModern("1", "test/slow", "")
		conn := g.raw()
		go conn.Write([]byte("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n" + body))
		c := <-g.children
		slow := c.hears("test/slow").ID
		body, headers = frontModern("1", "test/quick", "")
		p := g.start("POST", body, headers...)
		quick := c.hears("test/quick").ID
		progress := func(id string) string {
			return `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":` + id + `,"progress":1}}`
		}
		for range 4 * sharedQueue {
			c.says(progress(slow))
		}
		c.says(frontResult(quick, `{"quick":true}`))
		if got := frontBody(t, p.answer()); got != frontResult("1", `{"quick":true}`) {
			t.Errorf("got %s, want the answer", got)
		}
		if got := member(c.hears("notifications/cancelled").Params, "requestId"); got != slow {
			t.Errorf("got cancellation of %s, want %s", got, slow)
		}
		if _, err := io.Copy(io.Discard, conn); err == nil {
			synctest.Wait()
		}
		if !strings.Contains(g.log.String(), "does not read") {
			t.Errorf("got log %s, want a line for the client", g.log)
		}
		if n := len(g.front.Proxy.Sessions.open); n != 0 {
			t.Errorf("got %d sessions after the last request, want none", n)
		}
	})
}
