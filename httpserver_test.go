// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// MCP, Streamable HTTP: "Servers MUST validate the Origin header on all incoming connections to prevent DNS
// rebinding attacks."
func TestFrontHostAndOrigin(t *testing.T) {
	allow := func(g *frontRig) {
		g.front.Hosts = []string{"mcp.example.com", "port.example.com:8080", "[2001:db8::1]", "192.0.2.7"}
		g.front.Origins = []string{"https://app.example.com", "https://port.example.com:8443", "vscode-webview://abc"}
	}
	rows := map[string]bool{
		"Host: localhost": true, "Host: localhost:1": true, "Host: LOCALHOST:8080": true, "Host: 127.0.0.1": true,
		"Host: 127.0.0.1:9": true, "Host: 127.9.9.9": true, "Host: [::1]": true, "Host: [::1]:8080": true,
		"Host: mcp.example.com": true, "Host: MCP.Example.COM:99": true, "Host: port.example.com:8080": true,
		"Host: [2001:db8::1]": true, "Host: [2001:db8::1]:8080": true, "Host: 192.0.2.7:80": true,

		"Host: evil.example.com": false, "Host: localhost.evil.com": false, "Host: localhost.evil.com:8080": false,
		"Host: 127.0.0.1.evil.com": false, "Host: evil-localhost": false, "Host: 127.0.0.1.nip.io": false, "Host: 0.0.0.0": false,
		"Host: [::]": false, "Host: 10.0.0.1": false, "Host: [2001:db8::2]": false, "Host: x.mcp.example.com": false,
		"Host: mcp.example.com.evil.com": false, "Host: port.example.com": false, "Host: port.example.com:9090": false,
		"Host: 2130706433": false,

		"Origin: http://localhost": true, "Origin: http://localhost:5173": true, "Origin: https://LOCALHOST": true,
		"Origin: http://127.0.0.1:1": true, "Origin: http://[::1]:3": true, "Origin: https://app.example.com": true,
		"Origin: https://port.example.com:8443": true, "Origin: vscode-webview://abc": true,

		"Origin: null": false, "Origin: http://evil.example.com": false, "Origin: http://localhost.evil.com": false,
		"Origin: http://127.0.0.1.evil.com": false, "Origin: https://app.example.com.evil.com": false,
		"Origin: http://app.example.com": false, "Origin: https://app.example.com:444": false,
		"Origin: https://port.example.com": false, "Origin: https://x.app.example.com": false, "Origin: file://localhost": false,
		"Origin: file://": false, "Origin: http://localhost@evil.com": false, "Origin: http://evil.com#localhost": false,
		"Origin: localhost": false, "Origin: http://": false, "Origin: http://mcp.example.com": false, "Origin: vscode-webview://abcd": false,
	}
	inFront(t, allow, func(g *frontRig) {
		for header, allowed := range rows {
			for _, method := range []string{"POST", "GET", "DELETE", "OPTIONS"} {
				resp := g.do(method, frontCall("1", "ping"), header)
				body := frontBody(t, resp)
				if got := resp.StatusCode != 403; got != allowed {
					t.Errorf("%s with %s: got %d, want it let in: %v", method, header, resp.StatusCode, allowed)
				}
				if resp.StatusCode == 403 {
					frontRefusal{403, 403, ""}.checkText(t, body)
				}
			}
		}
		resp := g.do("POST", "", "Path: /elsewhere", "Host: evil.example.com")
		frontRefusal{403, 403, ""}.check(t, resp)
		if len(g.children) > 0 {
			t.Errorf("got %d children, want none", len(g.children))
		}
	})
}

func TestFrontCORS(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		const origin = "http://localhost:6274"
		resp := g.do("OPTIONS", "", "Origin: "+origin, "Access-Control-Request-Method: POST",
			"Access-Control-Request-Headers: content-type,mcp-protocol-version,mcp-param-x")
		frontBody(t, resp)
		h := resp.Header
		if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != origin || h.Get("Vary") != "Origin" {
			t.Errorf("preflight: got %d %v, want 204 that allows the origin and varies by it", resp.StatusCode, h)
		}
		has := func(header string, names ...string) {
			t.Helper()
			for _, name := range names {
				if got := resp.Header.Get(header); !strings.Contains(strings.ToLower(got), strings.ToLower(name)) {
					t.Errorf("got %s %q, want %s in it", header, got, name)
				}
			}
		}
		has("Access-Control-Allow-Methods", "GET", "POST", "DELETE")
		has("Access-Control-Allow-Headers", "content-type", "mcp-protocol-version", "mcp-param-x")
		if h.Get("Access-Control-Allow-Credentials") != "" {
			t.Error("preflight: got credentials allowed, want not")
		}
		resp = g.do("POST", frontInitialize("1", "2025-11-25"), "Origin: "+origin)
		frontBody(t, resp)
		has("Access-Control-Expose-Headers", "Mcp-Session-Id", "MCP-Protocol-Version", "WWW-Authenticate", "Retry-After")
		has("Access-Control-Allow-Origin", origin)
		resp = g.do("POST", `{`, "Origin: "+origin) // a page must be able to read why it was refused
		frontBody(t, resp)
		has("Access-Control-Allow-Origin", origin)
		resp = g.do("POST", frontCall("1", "ping"))
		frontBody(t, resp)
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("without Origin: got allowed origin %q, want none", got)
		}
	})
}

func TestFrontPathAndMethod(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		for _, path := range []string{"/", "/mcp/", "/mcp/x", "/MCP", "/mcpx"} {
			resp := g.do("POST", frontInitialize("1", "2025-11-25"), "Path: "+path)
			if frontBody(t, resp); resp.StatusCode != 404 || len(g.children) > 0 {
				t.Errorf("%s: got %d, want 404 and no child", path, resp.StatusCode)
			}
		}
		for _, method := range []string{"PUT", "PATCH", "OPTIONS", "FOO"} {
			resp := g.do(method, "")
			frontBody(t, resp)
			if allow := resp.Header.Get("Allow"); resp.StatusCode != 405 || !strings.Contains(allow, "POST") {
				t.Errorf("%s: got %d and Allow %q, want 405 and the methods there are", method, resp.StatusCode, allow)
			}
		}
	})
}

// TestFrontRefusals goes through DESIGN.md's table of what the proxy answers itself.
func TestFrontRefusals(t *testing.T) {
	const wait = `{"jsonrpc":"2.0","id":7,"method":"test/wait"}`
	post := func(body string, headers ...string) func(*frontRig) *http.Response {
		return func(g *frontRig) *http.Response { return g.do("POST", body, headers...) }
	}
	inSession := func(body string) func(*frontRig) *http.Response {
		return func(g *frontRig) *http.Response {
			session, _ := g.initialize("2025-11-25")
			return g.do("POST", body, session)
		}
	}
	dies := func(status string, modern bool) func(*frontRig) *http.Response {
		return func(g *frontRig) *http.Response {
			body, headers := frontModern("7", "test/wait", "")
			if !modern {
				session, c := g.initialize("2025-11-25")
				g.children <- c
				body, headers = wait, []string{session}
			}
			p := g.start("POST", body, headers...)
			c := <-g.children
			c.hears("test/wait")
			c.status = status
			c.exit()
			return p.answer()
		}
	}
	busy := func(id string) func(*frontRig) *http.Response {
		return func(g *frontRig) *http.Response {
			session, c := g.initialize("2025-11-25")
			g.start("POST", frontCall(id, "test/first"), session)
			c.hears("test/first")
			return g.do("POST", wait, session)
		}
	}
	mismatch, modern := frontModern("7", "test/wait", "")
	unversioned := strings.Replace(mismatch, `"io.modelcontextprotocol/protocolVersion":"2026-07-28",`, "", 1)
	long := strings.Repeat("x", 1<<10)
	small := func(g *frontRig) { g.front.Max = 1 << 10 }
	refuse := func(err error) func(*frontRig) {
		return func(g *frontRig) {
			g.chain = []Interceptor{func(_ context.Context, _ *Session, m *Message) (*Message, error) {
				if m.Method == "test/wait" {
					return nil, err
				}
				return m, nil
			}}
		}
	}
	cases := []struct {
		name  string
		setup func(*frontRig)
		do    func(*frontRig) *http.Response
		want  frontRefusal
		data  map[string]any
	}{
		{"not JSON", nil, post(`{"jsonrpc":`), frontRefusal{400, -32700, ""}, nil},
		{"empty", nil, post(``), frontRefusal{400, -32700, ""}, nil},
		{"not UTF-8", nil, post("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}"), frontRefusal{400, -32700, ""}, nil},
		{"not JSON-RPC", nil, post(`{"id":7}`), frontRefusal{400, -32600, ""}, nil},
		{"ambiguous", nil, post(`{"jsonrpc":"2.0","id":7,"method":"a","METHOD":"b"}`), frontRefusal{400, -32600, ""}, nil},
		{"batch", nil, inSession(`[` + wait + `]`), frontRefusal{400, -32600, ""}, nil},
		{"header disagrees", nil, post(mismatch, modern[0], "Mcp-Method: ping"), frontRefusal{400, -32020, "7"}, nil},
		{"header missing", nil, post(mismatch, modern[0]), frontRefusal{400, -32020, "7"}, nil},
		{"revision header missing", nil, post(mismatch, modern[1]), frontRefusal{400, -32020, "7"}, nil},
		{"revision header older", nil, post(mismatch, "MCP-Protocol-Version: 2025-11-25", modern[1]), frontRefusal{400, -32020, "7"}, nil},
		{"revision header newer", nil, post(strings.Replace(mismatch, "2026-07-28", "2025-06-18", 1), modern...), frontRefusal{400, -32020, "7"}, nil},
		{"_meta missing", nil, post(unversioned, modern...), frontRefusal{400, -32602, "7"}, nil},
		{"no session", nil, post(wait), frontRefusal{400, -32600, "7"}, nil},
		{"no session, string", nil, post(frontCall(`"7"`, "x")), frontRefusal{400, -32600, `"7"`}, nil},
		{"no session, notification", nil, post(frontNote("x")), frontRefusal{400, -32600, ""}, nil},
		{"no session, GET", nil, func(g *frontRig) *http.Response { return g.do("GET", "") }, frontRefusal{400, -32600, ""}, nil},
		{"no session, DELETE", nil, func(g *frontRig) *http.Response { return g.do("DELETE", "") }, frontRefusal{400, -32600, ""}, nil},
		{"unknown session", nil, post(wait, "Mcp-Session-Id: nosuch"), frontRefusal{404, 404, ""}, nil},
		{"rule", refuse(&Error{Code: 403, Status: 200, Text: "refused"}), inSession(wait), frontRefusal{200, 403, "7"}, nil},
		{"rule, notification", refuse(&Error{Code: 403, Status: 200, Text: "refused"}),
			inSession(`{"jsonrpc":"2.0","method":"test/wait"}`), frontRefusal{200, 403, ""}, nil},
		{"too large", small, post(`{"jsonrpc":"2.0","id":7,"method":"` + long + `"}`), frontRefusal{413, 413, "7"}, nil},
		{"too large, id far", small, post(`{"jsonrpc":"2.0","method":"` + long + `","id":7}`), frontRefusal{413, 413, ""}, nil},
		{"too many sessions", func(g *frontRig) { g.bounds.Sessions = 1 }, func(g *frontRig) *http.Response {
			g.initialize("2025-11-25")
			return g.do("POST", frontInitialize("7", "2025-11-25"))
		}, frontRefusal{503, 503, "7"}, nil},
		{"too many calls", func(g *frontRig) { g.bounds.Calls = 1 }, busy("1"), frontRefusal{503, 503, "7"}, nil},
		{"id in use", nil, busy("7"), frontRefusal{400, -32600, "7"}, nil},
		{"cannot start", func(g *frontRig) { g.broken = errors.New("secret") },
			post(frontInitialize("7", "2025-11-25")), frontRefusal{502, 502, "7"}, nil},
		{"cannot start, modern", func(g *frontRig) { g.broken = errors.New("secret") }, post(mismatch, modern...), frontRefusal{502, 502, "7"}, nil},
		{"gone", nil, dies("exit status 3", false), frontRefusal{502, 502, "7"}, map[string]any{"exit": "exit status 3"}},
		{"gone, modern", nil, dies("exit status 4", true), frontRefusal{502, 502, "7"}, map[string]any{"exit": "exit status 4"}},
		{"too slow", func(g *frontRig) { g.bounds.CallTimeout = 5 * time.Second }, inSession(wait), frontRefusal{504, 504, "7"}, nil},
		{"too slow, modern", func(g *frontRig) { g.bounds.CallTimeout = 5 * time.Second }, post(mismatch, modern...), frontRefusal{504, 504, "7"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inFront(t, c.setup, func(g *frontRig) {
				resp := c.do(g)
				h := resp.Header
				if data := c.want.check(g.t, resp); c.data["exit"] != data["exit"] {
					g.t.Errorf("got data %v, want %v", data, c.data)
				}
				if retry, _ := strconv.Atoi(h.Get("Retry-After")); (retry > 0) != (c.want.status == 503) {
					g.t.Errorf("got Retry-After %q with status %d", h.Get("Retry-After"), c.want.status)
				}
				if got := h.Get("Content-Type"); got != "application/json" {
					g.t.Errorf("got content type %q, want application/json", got)
				}
			})
		})
	}
}

// The text of a refusal says nothing of the inside; the log has the cause.
func TestFrontRefusalKeepsCause(t *testing.T) {
	broken := func(g *frontRig) { g.broken = errors.New("fork /opt/secret: denied") }
	inFront(t, broken, func(g *frontRig) {
		resp := g.do("POST", frontInitialize("7", "2025-11-25"))
		if body := frontBody(t, resp); strings.Contains(body, "secret") {
			t.Errorf("got %s, want nothing of the cause", body)
		}
		if !strings.Contains(g.log.String(), "fork /opt/secret") {
			t.Errorf("got log %s, want the cause in it", g.log)
		}
	})
}

func TestFrontExpiredCallIsCancelled(t *testing.T) {
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		inFront(t, func(g *frontRig) { g.bounds.CallTimeout = 5 * time.Second }, func(g *frontRig) {
			body, headers := frontModern("7", "test/wait", "")
			var c *frontChild
			if revision != "2026-07-28" {
				var session string
				session, c = g.initialize(revision)
				body, headers = frontCall("7", "test/wait"), []string{session}
			}
			began := time.Now()
			resp := g.do("POST", body, headers...)
			frontRefusal{504, 504, "7"}.check(t, resp)
			if got := time.Since(began); got != 5*time.Second {
				t.Errorf("%s: got the refusal after %v, want 5s", revision, got)
			}
			if c == nil {
				c = <-g.children
			}
			id := c.hears("test/wait").ID
			if got := member(c.hears("notifications/cancelled").Params, "requestId"); got != id {
				t.Errorf("%s: got cancellation of %s, want %s", revision, got, id)
			}
		})
	}
}

func TestFrontLimits(t *testing.T) {
	limits := func(status int, limits ...string) func(*frontRig) {
		return func(g *frontRig) {
			limiter := limiterOf(g.t, limits...)
			g.chain = []Interceptor{limitInterceptor(limiter, status, false, g.front.Log)}
		}
	}
	for _, status := range []int{429, 200} {
		inFront(t, limits(status, "endpoint=1/m:1"), func(g *frontRig) {
			session, c := g.initialize("2025-11-25")
			frontBody(t, g.do("POST", frontCall("1", "test/echo"), session))
			resp := g.do("POST", frontCall("2", "test/echo"), session)
			retry := resp.Header.Get("Retry-After")
			data := frontRefusal{status, 429, "2"}.check(t, resp)
			if data["tier"] != "endpoint" || data["retryAfterMs"] != 60000.0 || retry != "60" {
				t.Errorf("got data %v and Retry-After %q, want tier endpoint and a minute", data, retry)
			}
			resp = g.do("POST", frontNote("x"), session)
			frontBody(t, resp)
			if resp.StatusCode != 202 {
				t.Errorf("first notification: got %d, want 202", resp.StatusCode)
			}
			frontRefusal{status, 429, ""}.check(t, g.do("POST", frontNote("x"), session))
			c.hears("notifications/x")
			c.hearsNothing()
			time.Sleep(time.Minute)
			if resp = g.do("POST", frontCall("3", "test/echo"), session); frontBody(t, resp) != frontResult("3", `{"echo":true}`) {
				t.Errorf("a minute later: got %d, want the answer", resp.StatusCode)
			}
		})
	}
}

// X-Forwarded-For counts only when the connection comes from a trusted proxy, and is read from the right.
func TestFrontForwardedFor(t *testing.T) {
	setup := func(g *frontRig) {
		g.front.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		g.chain = []Interceptor{limitInterceptor(limiterOf(g.t, "ip=1/h:1"), 429, false, g.front.Log)}
	}
	inFront(t, setup, func(g *frontRig) {
		for _, c := range []struct {
			remote, forwarded string
			want              int
		}{
			{"203.0.113.1:1", "198.51.100.1", 400}, // counts as 203.0.113.1
			{"203.0.113.1:2", "198.51.100.2", 429}, // and again: what it claims does not matter
			{"10.0.0.1:1", "198.51.100.1", 400},    // unused until now
			{"10.0.0.1:2", "198.51.100.1", 429},
			{"10.0.0.2:1", "1.2.3.4, 198.51.100.1", 429}, // what the client wrote to the left does not matter
			{"10.0.0.2:1", "198.51.100.3, 10.0.0.9", 400},
			{"10.0.0.2:1", "198.51.100.3", 429},
		} {
			g.net.remote = c.remote
			g.http.CloseIdleConnections()
			// A call of the modern era without its headers goes past the limiter and no further.
			body, _ := frontModern("1", "test/echo", "")
			resp := g.do("POST", body, "X-Forwarded-For: "+c.forwarded)
			if frontBody(t, resp); resp.StatusCode != c.want {
				t.Errorf("%s for %s: got %d, want %d", c.remote, c.forwarded, resp.StatusCode, c.want)
			}
		}
	})
}

func TestFrontTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(tokensLine("ann", "token-a")+"\n"+tokensLine("bob", "token-b")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := OpenTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	inFront(t, func(g *frontRig) { g.front.Tokens = tokens }, func(g *frontRig) {
		const ann, bob = "Authorization: Bearer token-a", "Authorization: bearer token-b"
		for _, header := range []string{"X: none", "Authorization: Bearer wrong", "Authorization: Basic dG9rZW4tYQ==", "Authorization: token-a"} {
			for _, method := range []string{"POST", "GET", "DELETE"} {
				resp := g.do(method, frontInitialize("1", "2025-11-25"), header)
				if got := resp.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
					t.Errorf("%s with %s: got WWW-Authenticate %q, want Bearer", method, header, got)
				}
				frontRefusal{401, 401, ""}.check(t, resp)
			}
		}
		resp := g.do("OPTIONS", "", "Origin: http://localhost")
		if frontBody(t, resp); resp.StatusCode != 204 {
			t.Errorf("preflight, which never has a token: got %d, want 204", resp.StatusCode)
		}
		session, c := g.initialize("2025-11-25", ann)
		// A session belongs to the user that opened it.
		frontRefusal{404, 404, ""}.check(t, g.do("POST", frontCall("2", "test/echo"), session, bob))
		frontRefusal{404, 404, ""}.check(t, g.do("GET", "", session, bob))
		frontRefusal{404, 404, ""}.check(t, g.do("DELETE", "", session, bob))
		if c.ended() {
			t.Error("another user ended the session")
		}
		if got := frontBody(t, g.do("POST", frontCall("2", "test/echo"), session, ann)); got != frontResult("2", `{"echo":true}`) {
			t.Errorf("owner: got %s, want the answer", got)
		}
		if log := g.log.String(); strings.Contains(log, "token-") || strings.Contains(log, "dG9rZW4") {
			t.Errorf("got a token in the log: %s", log)
		}
	})
}

// Shutdown: calls in flight finish, streams end, children and server sessions are ended, nothing new begins.
func TestFrontShutdown(t *testing.T) {
	inFront(t, nil, func(g *frontRig) {
		session, c := g.initialize("2025-11-25")
		get := frontStream(t, g.do("GET", "", session))
		p := g.start("POST", frontCall("1", "test/wait"), session)
		c.hears("test/wait")
		late := g.raw()
		opening := frontInitialize("9", "2025-11-25")
		late.Write([]byte("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + strconv.Itoa(len(opening)) + "\r\n\r\n"))
		synctest.Wait()
		g.stop()
		synctest.Wait()
		if c.ended() {
			t.Fatal("got the child ended with a call in flight, want it to finish")
		}
		late.Write([]byte(opening))
		resp, err := http.ReadResponse(bufio.NewReader(late), nil)
		if err != nil {
			t.Fatal(err)
		}
		frontRefusal{503, 503, "9"}.check(t, resp)
		if _, err := g.net.dial(context.Background(), "", ""); err == nil {
			t.Error("new connection: got one, want none")
		}
		time.Sleep(5 * time.Second) // within grace
		c.says(frontResult("1", `{"late":true}`))
		if got := frontBody(t, p.answer()); got != frontResult("1", `{"late":true}`) {
			t.Errorf("call in flight: got %s, want its answer", got)
		}
		get.end()
		<-g.served
		if !c.ended() {
			t.Error("got the child alive, want it ended")
		}
	})
}

// A call that outlasts the grace is answered too.
func TestFrontShutdownGrace(t *testing.T) {
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		inFront(t, nil, func(g *frontRig) {
			body, headers := frontModern("1", "test/wait", "")
			if revision == "2025-11-25" {
				session, c := g.initialize(revision)
				body, headers = frontCall("1", "test/wait"), []string{session}
				g.children <- c
			}
			p := g.start("POST", body, headers...)
			c := <-g.children
			c.hears("test/wait")
			began := time.Now()
			g.stop()
			frontRefusal{503, 503, "1"}.check(t, p.answer())
			if got := time.Since(began); got != g.grace {
				t.Errorf("%s: got the refusal after %v, want %v", revision, got, g.grace)
			}
			<-g.served
		})
	}
}

// A client that does not read what is written to it does not hold up the end. This runs in real time: who
// waits for a mutex stops the time of a bubble.
func TestFrontShutdownSlowReader(t *testing.T) {
	g := newFrontRig(t, func(g *frontRig) { g.grace = 100 * time.Millisecond })
	g.serve(newCommandDialer(g.startChild, 1<<20, slog.New(slog.NewTextHandler(g.log, nil))), true)
	session, c := g.initialize("2025-11-25")
	call := `{"jsonrpc":"2.0","id":1,"method":"test/wait","params":{"_meta":{"progressToken":"p"}}}`
	conn := g.raw()
	go conn.Write([]byte("POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + session +
		"\r\nContent-Length: " + strconv.Itoa(len(call)) + "\r\n\r\n" + call))
	c.hears("test/wait")
	go func() { // ends with the child
		for range 1000 {
			c.says(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}`)
		}
	}()
	g.stop()
	select {
	case <-g.served:
	case <-time.After(20 * time.Second):
		t.Error("got no end, want one")
		conn.Close()
	}
}

// What is more than an origin, or more than one, is nobody's whom the proxy knows.
func TestFrontOriginExact(t *testing.T) {
	f := &httpFront{Origins: []string{"https://app.example.com"}}
	for origin, want := range map[string]bool{
		"http://localhost": true, "http://localhost:3000": true, "https://[::1]:1": true, "https://app.example.com": true,
		"http://localhost#x": false, "http://localhost/": false, "http://localhost?x": false, "http://u@localhost": false,
		"https://app.example.com.evil.com": false, "localhost": false, "null": false,
	} {
		if got := f.originAllowed(origin); got != want {
			t.Errorf("%s: got %t, want %t", origin, got, want)
		}
	}
}
