// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A verifyServer is a server on stdio: the demo server, in front of which answer may stand.
type verifyServer struct {
	t      *testing.T
	answer func(m *Message, say func(string)) bool // reports whether it has seen to m; nil never has
	change func(line string) string                // of what the demo server says; nil changes nothing
	starts int
	die    func() // of the process started last
}

func (v *verifyServer) dialer() *commandDialer { return newCommandDialer(v.start, 1<<20, upLog(v.t)) }

func (v *verifyServer) start() (*process, error) {
	v.starts++
	p, err := startDemo()
	if err != nil {
		return nil, err
	}
	in, clientIn := io.Pipe()
	clientOut, out := io.Pipe()
	say := func(text string) { io.WriteString(out, text+"\n") }
	go func() { // ends with the client's end of in
		defer p.in.Close()
		for r := bufio.NewReader(in); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			m, err := Parse(line)
			if err != nil || v.answer == nil || !v.answer(m, say) {
				io.WriteString(p.in, line)
			}
		}
	}()
	go func() { // ends with the server
		defer out.Close()
		for r := bufio.NewReader(p.out); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if v.change != nil {
				line = v.change(line)
			}
			io.WriteString(out, line)
		}
	}()
	end := p.end
	v.die = func() {
		out.Close()
		in.Close()
	}
	return &process{in: clientIn, out: clientOut, done: p.done, status: p.status, end: func() {
		clientIn.Close()
		end()
		clientOut.Close()
	}}, nil
}

// knowsOnly refuses the calls of the other era.
func (v *verifyServer) knowsOnly(era string) *verifyServer {
	inner := v.answer
	v.answer = func(m *Message, say func(string)) bool {
		if m.Kind == Call && (m.Revision != "") != (era == eraStateless) {
			say((&Error{Code: codeMethodNotFound, Text: "unknown method"}).answer(m.ID).Raw)
			return true
		}
		return inner != nil && inner(m, say)
	}
	return v
}

// verifyResult answers m.
func verifyResult(m *Message, result string) string {
	return `{"jsonrpc":"2.0","id":` + m.ID + `,"result":` + result + `}`
}

// verifyText answers m with a tool's text.
func verifyText(m *Message, text string) string {
	return verifyResult(m, `{`+demoText(quote(text))+`}`)
}

// verifyTape records what clients, one after the other, say to the server. Each call is answered before the next line,
// unless that begins with &. What the server asks gets the answer of its method.
func verifyTape(t *testing.T, dialer Dialer, answers map[string]string, clients ...[]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tape.jsonl")
	file := &tapeFile{path: path, sync: syncNever}
	if err := file.create(); err != nil {
		t.Fatal(err)
	}
	rec := newRecorder(file, upLog(t))
	rec.Header.Client, rec.Header.Server = "stdio", "stdio"
	p := NewProxy(dialer, Bounds{Sessions: 10, Calls: 10}, upLog(t), rec.Intercept)
	p.OnEnd, p.OnDrop = rec.Ended, rec.Dropped
	for _, lines := range clients {
		talk := (&verifier{proxy: p}).talk(&verifySession{})
		if err := talk.dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait := func(id string) {
			for {
				m := <-talk.conn.queue
				if m.Kind == Call {
					talk.send(t.Context(), `"id":`+m.ID+`,"result":`+answers[m.Method])
				}
				if m.Kind == Response && m.ID == id {
					return
				}
			}
		}
		for i, line := range lines {
			m, err := Parse(strings.TrimPrefix(line, "&"))
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			p.ToServer(t.Context(), talk.s, m)
			if m.Kind == Call && m.Method != methodListen && (i+1 == len(lines) || lines[i+1][0] != '&') {
				wait(m.ID)
			}
		}
		talk.close()
	}
	p.Close()
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	recordCheck(t, string(text))
	return string(text)
}

// verifyRun verifies the server against a tape.
func verifyRun(t *testing.T, tape string, dialer closingDialer, o VerifyOptions) *VerifyReport {
	t.Helper()
	defer dialer.Close()
	o.Log = upLog(t)
	r, err := Verify(t.Context(), strings.NewReader(tape), "t.jsonl", dialer, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// verifyWant checks the outcomes of the calls that are no MATCH, one a word: method or name, and outcome.
func verifyWant(t *testing.T, r *VerifyReport, want ...string) {
	t.Helper()
	var got []string
	for _, c := range r.Checks {
		if c.Outcome != outcomeMatch {
			name := c.Name
			if name == "" {
				name = c.Method
			}
			got = append(got, name+" "+string(c.Outcome))
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q:\n%s", got, want, r.Text())
	}
}

func verifyLegacy(id int, method, params string) string {
	return demoLegacyCall(fmt.Sprint(id), method, params)
}

func verifyModern(id int, method, params string) string {
	return demoModernCall(fmt.Sprint(id), method, params, `{"elicitation":{}}`)
}

// verifyHello begins a conversation of an older revision.
func verifyHello() []string {
	return []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}}`,
		upInitialized,
	}
}

// verifyVisit is what a client says that uses all of the demo server, in one era.
func verifyVisit(call func(id int, method, params string) string, modern bool) []string {
	lines := []string{
		call(10, "tools/list", ``),
		call(11, "resources/list", ``),
		call(12, "prompts/list", ``),
		call(13, "resources/templates/list", ``),
		call(14, "tools/call", demoTool("echo", `"text":"hello"`)),
		call(15, "tools/call", demoTool("add", `"a":1,"b":2.5`)),
		call(16, "tools/call", demoTool("countdown", `"from":3`)+`,"_meta":{"progressToken":"p"}`),
		call(17, "resources/read", `"uri":"demo://readme"`),
		call(18, "resources/read", `"uri":"demo://none"`),
		call(19, "prompts/get", `"name":"greet","arguments":{"name":"Ann"}`),
		call(20, "tools/call", demoTool("fail", `"message":"m"`)),
		call(21, "tools/call", demoTool("fail", `"message":"m","protocol":true`)),
		call(22, "nothing/there", ``),
	}
	if modern {
		lines[6] = call(16, "tools/call", demoTool("countdown", `"from":3`)) // with a token
		return append(append([]string{call(9, "server/discover", ``)}, lines...),
			call(23, "tools/call", demoTool("ask", `"question":"why?"`)),
			call(24, "tools/call", demoTool("ask", `"question":"why?"`)+`,"inputResponses":{"answer":{"action":"accept","content":{"answer":"so"}}},"requestState":"why?"`),
		)
	}
	return append(append(verifyHello(), lines...),
		call(23, "ping", ``),
		call(24, "tools/call", demoTool("ask", `"question":"why?"`)),
		call(25, "tools/call", demoTool("countdown", `"from":10,"everyMs":60000`)),
		`&{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":25}}`,
		call(26, "tools/call", demoTool("echo", `"text":"last"`)),
	)
}

// verifyAnswers are the client's answers to what the demo server asks.
func verifyAnswers() map[string]string {
	return map[string]string{"elicitation/create": `{"action":"accept","content":{"answer":"so"}}`}
}

// verifyDemoTape is a tape of the demo server in one era.
func verifyDemoTape(t *testing.T, era string) string {
	dialer := newCommandDialer(startDemo, 1<<20, upLog(t))
	defer dialer.Close()
	lines := verifyVisit(verifyLegacy, false)
	if era == eraStateless {
		lines = verifyVisit(verifyModern, true)
	}
	return verifyTape(t, dialer, verifyAnswers(), lines, lines)
}

func TestVerifySame(t *testing.T) {
	for _, c := range []struct {
		era, live string
		skipped   int // of the two sessions: what the other era does not have
		compared  int
	}{
		{eraSession, "", 0, 36},
		{eraSession, eraSession, 0, 36},
		{eraSession, eraStateless, 2, 34},
		{eraStateless, "", 0, 32},
		{eraStateless, eraStateless, 0, 32},
		{eraStateless, eraSession, 0, 32},
	} {
		t.Run(c.era+" to "+c.live, func(t *testing.T) {
			server := &verifyServer{t: t}
			if c.live != "" {
				server.knowsOnly(c.live)
			}
			r := verifyRun(t, verifyDemoTape(t, c.era), server.dialer(), VerifyOptions{})
			if r.Code() != 0 || r.Compared != c.compared || r.Counts[outcomeSkipped] != c.skipped || len(r.Warnings) > 0 {
				t.Errorf("got code %d, %d compared, %d skipped, want 0, %d, %d:\n%s", r.Code(), r.Compared, r.Counts[outcomeSkipped], c.compared, c.skipped, r.Text())
			}
		})
	}
}
