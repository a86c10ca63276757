// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

const demoInit = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",` +
	`"capabilities":{"elicitation":{}},"clientInfo":{"name":"t","version":"1"}}}`

// demoModernCall is a call of 2026-07-28 with the members params, from a client with the capabilities caps.
func demoModernCall(id, method, params, caps string) string {
	if params != "" {
		params += ","
	}
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{` + params +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":"p",` +
		`"io.modelcontextprotocol/clientCapabilities":` + caps + `}}}`
}

func demoLegacyCall(id, method, params string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{` + params + `}}`
}

func demoTool(name, args string) string { return `"name":"` + name + `","arguments":{` + args + `}` }

// A demoPeer is the client's side of a conversation with the demo server.
type demoPeer struct {
	t     *testing.T
	in    *io.PipeWriter
	lines *bufio.Reader
	out   *io.PipeReader
	done  chan error // has what serveDemo returned
}

func demoStart(t *testing.T, ctx context.Context) *demoPeer {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	p := &demoPeer{t: t, in: inW, lines: bufio.NewReader(outR), out: outR, done: make(chan error, 1)}
	go func() {
		p.done <- serveDemo(ctx, inR, outW)
		outW.Close()
		inR.Close()
	}()
	return p
}

func (p *demoPeer) say(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatalf("writing %s: %v", line, err)
	}
}

// hears compares the next line with want, in which … stands for anything.
func (p *demoPeer) hears(want string) {
	p.t.Helper()
	got, err := p.lines.ReadString('\n')
	if err != nil {
		p.t.Fatalf("got error %v, want %s", err, want)
	}
	if got = strings.TrimSuffix(got, "\n"); !demoMatches(got, want) {
		p.t.Fatalf("got %s\nwant %s", got, want)
	}
}

// ends says that the client ends its side, and compares the rest of what the server says.
func (p *demoPeer) ends(want ...string) {
	p.t.Helper()
	p.in.Close()
	for _, w := range want {
		p.hears(w)
	}
	if rest, _ := io.ReadAll(p.lines); len(rest) > 0 {
		p.t.Errorf("got %q at the end, want nothing", rest)
	}
	if err := <-p.done; err != nil {
		p.t.Errorf("got %v from serveDemo, want nil", err)
	}
}

func demoMatches(got, want string) bool {
	parts := strings.Split(want, "…")
	got, ok := strings.CutPrefix(got, parts[0])
	for _, part := range parts[1:] {
		i := strings.Index(got, part)
		if part == "" {
			i = len(got)
		}
		if !ok || i < 0 {
			return false
		}
		got = got[i+len(part):]
	}
	return ok && got == ""
}

const (
	demoStamp    = `"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"mcpproxy-demo","version":"1.0.0"}}`
	demoCached   = demoStamp + `,"cacheScope":"public",`
	demoComplete = `,"resultType":"complete"`
	demoFresh    = demoComplete + `,"ttlMs":3600000}}`
)

func demoModern(id, method, params string) string { return demoModernCall(id, method, params, `{}`) }

func demoResultLine(id, fields string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"result":{` + fields
}

func demoTextLine(id, text string) string {
	return demoResultLine(id, `"content":[{"text":`+text+`,"type":"text"}]}}`)
}

func demoFailedLine(id, text string) string {
	return demoResultLine(id, `"content":[{"text":"`+text+`","type":"text"}],"isError":true}}`)
}

func demoInitialized() string {
	return demoResultLine("0", `"capabilities":…,"protocolVersion":"2025-11-25",…`)
}

// demoErrorLine leaves the id out if it is "".
func demoErrorLine(id string, code int) string {
	if id != "" {
		id = `"id":` + id + `,`
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0",%s"error":{"code":%d,"message":…}}`, id, code)
}

type (
	demoTurn         struct{ say, hear string } // hear is several lines, or none
	demoConversation struct {
		name  string
		turns []demoTurn
	}
)

func demoConverse(t *testing.T, conversations []demoConversation) {
	for _, test := range conversations {
		t.Run(test.name, func(t *testing.T) {
			p := demoStart(t, t.Context())
			for _, turn := range test.turns {
				p.say(turn.say)
				for line := range strings.Lines(turn.hear) {
					p.hears(strings.TrimSuffix(line, "\n"))
				}
			}
			p.ends()
		})
	}
}

func TestDemoLegacy(t *testing.T) {
	demoConverse(t, []demoConversation{
		{"legacy handshake", []demoTurn{
			{demoInit, `{"jsonrpc":"2.0","id":0,"result":{"capabilities":{"prompts":{},"resources":{},"tools":{}},` +
				`"instructions":"…","protocolVersion":"2025-11-25","serverInfo":{"name":"mcpproxy-demo","version":"1.0.0"}}}`},
			{`{"jsonrpc":"2.0","method":"notifications/initialized"}`, ``},
			{`{"jsonrpc":"2.0","id":1,"method":"ping"}`, demoResultLine("1", `}}`)},
		}},
		{"versions", []demoTurn{
			{demoLegacyCall("1", "initialize", `"protocolVersion":"2024-11-05"`), demoResultLine("1", `…"protocolVersion":"2024-11-05",…`)},
			{demoLegacyCall("2", "initialize", `"protocolVersion":"2025-03-26"`), demoResultLine("2", `…"protocolVersion":"2025-03-26",…`)},
			{demoLegacyCall("3", "initialize", `"protocolVersion":"2025-06-18"`), demoResultLine("3", `…"protocolVersion":"2025-06-18",…`)},
			{demoLegacyCall("4", "initialize", `"protocolVersion":"2025-11-25"`), demoResultLine("4", `…"protocolVersion":"2025-11-25",…`)},
			{demoLegacyCall("5", "initialize", `"protocolVersion":"2026-07-28"`), demoResultLine("5", `…"protocolVersion":"2025-11-25",…`)},
			{demoLegacyCall("6", "initialize", `"protocolVersion":1`), demoErrorLine("6", -32602)},
		}},
		{"legacy methods", []demoTurn{
			{demoLegacyCall("1", "tools/list", ``), demoErrorLine("1", -32602)}, // neither initialized nor with metadata
			{demoLegacyCall("2", "ping", ``), demoResultLine("2", `}}`)},
			{demoInit, demoInitialized()},
			{demoLegacyCall("3", "tools/list", ``), demoResultLine("3", `"tools":[{"name":"echo",…,{"name":"add",…,{"name":"countdown",…,{"name":"ask",…,{"name":"fail",…]}}`)},
			{demoLegacyCall("4", "tools/list", `"cursor":"x"`), demoErrorLine("4", -32602)},
			{demoLegacyCall("5", "resources/list", ``), demoResultLine("5", `"resources":[{"uri":"demo://readme","name":"readme","mimeType":"text/plain"}]}}`)},
			{demoLegacyCall("6", "resources/templates/list", ``), demoResultLine("6", `"resourceTemplates":[]}}`)},
			{demoLegacyCall("7", "resources/read", `"uri":"demo://readme"`), demoResultLine("7", `"contents":[{"mimeType":"text/plain","text":"The demo server…","uri":"demo://readme"}]}}`)},
			{demoLegacyCall("8", "resources/read", `"uri":"demo://no"`), `{"jsonrpc":"2.0","id":8,"error":{"code":-32002,"data":{"uri":"demo://no"},"message":"Resource not found"}}`},
			{demoLegacyCall("9", "prompts/list", ``), demoResultLine("9", `"prompts":[{"name":"greet",…,"arguments":[{"name":"name","required":true}]}]}}`)},
			{demoLegacyCall("10", "prompts/get", `"name":"greet","arguments":{"name":"Ada"}`), demoResultLine("10", `"messages":[{"content":{"text":"Please greet Ada.","type":"text"},"role":"user"}]}}`)},
			{demoLegacyCall("11", "prompts/get", `"name":"greet"`), demoErrorLine("11", -32602)},
			{demoLegacyCall("12", "prompts/get", `"name":"grate","arguments":{"name":"Ada"}`), demoErrorLine("12", -32602)},
			{demoLegacyCall("15", "server/discover", ``), demoErrorLine("15", -32601)},
			{demoLegacyCall("16", "completion/complete", ``), demoErrorLine("16", -32601)},
			{demoLegacyCall("17", "subscriptions/listen", `"notifications":{}`), demoErrorLine("17", -32601)},
		}},
	})
}

func TestDemoModern(t *testing.T) {
	demoConverse(t, []demoConversation{
		{"modern methods", []demoTurn{
			{demoModern("1", "server/discover", ``), demoResultLine("1", demoCached+`"capabilities":{"prompts":{},"resources":{},"tools":{}},"instructions":"…"`+
				`,"supportedVersions":["2026-07-28"]`+demoFresh)},
			{demoModern("2", "tools/list", ``), demoResultLine("2", demoCached+`"tools":[{"name":"echo",…]`+demoFresh)},
			{demoModern("3", "resources/list", ``), demoResultLine("3", demoCached+`"resources":[…]`+demoFresh)},
			{demoModern("4", "resources/templates/list", ``), demoResultLine("4", demoCached+`"resourceTemplates":[]`+demoFresh)},
			{demoModern("5", "resources/read", `"uri":"demo://readme"`), demoResultLine("5", demoCached+`"contents":[…]`+demoFresh)},
			{demoModern("6", "resources/read", `"uri":"demo://no"`), `{"jsonrpc":"2.0","id":6,"error":{"code":-32602,"data":{"uri":"demo://no"},"message":"Resource not found"}}`},
			{demoModern("7", "prompts/list", ``), demoResultLine("7", demoCached+`"prompts":[…]`+demoFresh)},
			{demoModern("8", "prompts/get", `"name":"greet","arguments":{"name":"Ada"}`), demoResultLine("8", demoStamp+`,"messages":[…]`+demoComplete+`}}`)},
			{demoModern("9", "initialize", `"protocolVersion":"2025-11-25"`), demoErrorLine("9", -32601)},
			{demoModern("10", "ping", ``), demoErrorLine("10", -32601)},
			{demoModern("11", "logging/setLevel", `"level":"info"`), demoErrorLine("11", -32601)},
			{demoModern("12", "resources/subscribe", `"uri":"demo://readme"`), demoErrorLine("12", -32601)},
			{demoModern("13", "subscriptions/listen", `"notifications":{}`), demoErrorLine("13", -32601)},
			{demoLegacyCall("14", "tools/list", `"_meta":{"io.modelcontextprotocol/protocolVersion":"1900-01-01","io.modelcontextprotocol/clientCapabilities":{}}`),
				`{"jsonrpc":"2.0","id":14,"error":{"code":-32022,"data":{"requested":"1900-01-01","supported":["2026-07-28"]},"message":"Unsupported protocol version"}}`},
			{demoLegacyCall("15", "tools/list", `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`), demoErrorLine("15", -32602)},
			{demoLegacyCall("16", "tools/list", `"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}`), demoErrorLine("16", -32602)},
			{demoLegacyCall("17", "tools/list", `"_meta":{"io.modelcontextprotocol/protocolVersion":20260728,"io.modelcontextprotocol/clientCapabilities":{}}`), demoErrorLine("17", -32602)},
		}},
		{"both eras at once", []demoTurn{
			{demoInit, demoInitialized()},
			{demoModern("1", "ping", ``), demoErrorLine("1", -32601)},
			{demoLegacyCall("2", "ping", ``), demoResultLine("2", `}}`)},
			{demoModern("3", "tools/call", demoTool("echo", `"text":"a"`)), demoResultLine("3", demoStamp+`…`)},
			{demoLegacyCall("4", "tools/call", demoTool("echo", `"text":"a"`)), demoTextLine("4", `"a"`)},
		}},
	})
}

func TestDemoMalformed(t *testing.T) {
	demoConverse(t, []demoConversation{
		{"not JSON-RPC", []demoTurn{
			{`nonsense`, demoErrorLine("", -32700)},
			{"\"\xff\"", demoErrorLine("", -32700)},
			{``, ``},
			{`7`, demoErrorLine("", -32600)},
			{`[` + demoInit + `]`, demoErrorLine("", -32600)},
			{`{"jsonrpc":"2.0"}`, demoErrorLine("", -32600)},
			{`{"jsonrpc":"1.0","id":1,"method":"ping"}`, demoErrorLine("1", -32600)},
			{`{"jsonrpc":"2.0","id":2,"method":7}`, demoErrorLine("2", -32600)},
			{`{"jsonrpc":"2.0","id":null,"method":"ping"}`, demoErrorLine("", -32600)},
			{`{"jsonrpc":"2.0","id":{},"method":"ping"}`, demoErrorLine("", -32600)},
			{`{"jsonrpc":"2.0","id":3,"METHOD":"ping"}`, demoErrorLine("3", -32600)},
			{`{"jsonrpc":"2.0","id":4,"method":"ping","params":[]}`, demoErrorLine("4", -32602)},
			{`{"jsonrpc":"2.0","id":5,"method":"ping","params":{"_meta":1}}`, demoErrorLine("5", -32602)},
			{`{"jsonrpc":"2.0","method":"nothing"}`, ``},
			{`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}`, ``},
			{` {"jsonrpc":"2.0", "id" : 6 ,"method":"ping"} ` + "\r", demoResultLine("6", `}}`)},
		}},
		{"batch", []demoTurn{
			{demoLegacyCall("0", "initialize", `"protocolVersion":"2025-03-26"`), demoResultLine("0", `…`)},
			{`[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"},1]`, demoResultLine("1", `}}`) + "\n" + demoErrorLine("", -32600)},
			{`[]`, demoErrorLine("", -32600)},
		}},
	})
}

// At its end the server answers what runs, and lets go of what waits for the client.
func TestDemoEOF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := demoStart(t, t.Context())
		p.say(demoInit)
		p.hears(`…`)
		p.say(demoLegacyCall("1", "tools/call", demoTool("countdown", `"from":2,"everyMs":60000`)))
		p.say(demoLegacyCall("2", "tools/call", demoTool("ask", `"question":"why?"`)))
		p.hears(`{"jsonrpc":"2.0","id":"ask-1",…`)
		start := time.Now()
		io.WriteString(p.in, demoLegacyCall("4", "ping", ``)) // a last line without its newline
		p.ends(`{"jsonrpc":"2.0","id":4,"result":{}}`,
			`{"jsonrpc":"2.0","id":2,"result":{"content":[{"text":"the client hung up before it answered","type":"text"}],"isError":true}}`,
			`{"jsonrpc":"2.0","id":1,"result":{"content":[{"text":"counted down from 2","type":"text"}]}}`)
		if got, want := time.Since(start), 2*time.Minute; got != want {
			t.Errorf("got an end after %v, want %v", got, want)
		}
	})
}

func TestDemoErrors(t *testing.T) {
	t.Run("context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			p := demoStart(t, ctx)
			p.say(demoModernCall("1", "tools/call", demoTool("countdown", `"from":2,"everyMs":60000`), `{}`))
			p.hears(`{"jsonrpc":"2.0","method":"notifications/progress",…`)
			cancel()
			if got := <-p.done; got != context.Canceled {
				t.Errorf("got %v, want %v", got, context.Canceled)
			}
			if rest, _ := io.ReadAll(p.lines); len(rest) > 0 {
				t.Errorf("got %q after the end, want nothing", rest)
			}
		})
	})
	t.Run("read", func(t *testing.T) {
		want := errors.New("torn")
		if got := serveDemo(t.Context(), iotest.ErrReader(want), io.Discard); !errors.Is(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("write", func(t *testing.T) {
		p := demoStart(t, t.Context())
		want := errors.New("torn")
		p.out.CloseWithError(want)
		p.say(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
		if got := <-p.done; !errors.Is(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// The longest line is read; a longer one ends the conversation.
func TestDemoLineLength(t *testing.T) {
	for _, test := range []struct {
		size int
		ok   bool
	}{{demoMaxLine, true}, {demoMaxLine + 1, false}} {
		var out strings.Builder
		line := `{"jsonrpc":"2.0","id":1,"method":"ping"}`
		line += strings.Repeat(" ", test.size-len(line)) + "\n" + `{"jsonrpc":"2.0","id":2,"method":"ping"}`
		err := serveDemo(t.Context(), strings.NewReader(line), &out)
		if want := `{"jsonrpc":"2.0","id":1,"result":{}}`; (err == nil) != test.ok || strings.HasPrefix(out.String(), want) != test.ok {
			t.Errorf("line of %d bytes: got %q, %v, want ok %v", test.size, out.String(), err, test.ok)
		}
	}
}

// Whatever a client says, the server says one valid message a line, ends when the client does, and
// answers each call once.
func FuzzDemo(f *testing.F) {
	f.Add([]byte(demoInit + "\n" + demoLegacyCall("1", "tools/call", demoTool("ask", `"question":"why?"`)) + "\n" +
		`{"jsonrpc":"2.0","id":"ask-1","result":{"action":"decline"}}`))
	f.Add([]byte(demoModernCall("1", "tools/call", demoTool("countdown", `"from":2,"everyMs":7`), `{}`)))
	f.Add([]byte(demoModernCall("1", "tools/call", demoTool("add", `"a":1,"b":2e9`), `{}`) + "\n[]\n{}\nx"))
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			if err := serveDemo(t.Context(), bytes.NewReader(in), &out); err != nil {
				t.Fatalf("got %v, want nil", err)
			}
			answers := 0
			for line := range bytes.Lines(out.Bytes()) {
				var m struct {
					Version       string `json:"jsonrpc"`
					Method        string
					Result, Error json.RawMessage
				}
				if err := json.Unmarshal(line, &m); err != nil || m.Version != "2.0" {
					t.Fatalf("got line %q, %v, want a message", line, err)
				}
				if m.Method == "" {
					answers++
					if (m.Result == nil) == (m.Error == nil) {
						t.Errorf("got %s, want either a result or an error", line)
					}
				}
			}
			// A batch may hold more calls than there are lines, each at least {} and a comma.
			if most := bytes.Count(in, []byte("\n")) + 1 + bytes.Count(in, []byte(",")); answers > most {
				t.Errorf("got %d answers, want at most %d", answers, most)
			}
		})
	})
}
