// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// verifyShort is a short visit of an older revision, all of which the demo server answers at once.
func verifyShort() []string {
	return append(verifyHello(),
		verifyLegacy(2, "tools/list", ``),
		verifyLegacy(3, "tools/call", demoTool("echo", `"text":"hello"`)),
		verifyLegacy(4, "tools/call", demoTool("add", `"a":1,"b":2`)),
		verifyLegacy(5, "tools/call", demoTool("countdown", `"from":2`)+`,"_meta":{"progressToken":"p"}`),
		verifyLegacy(6, "tools/call", demoTool("ask", `"question":"why?"`)),
		verifyLegacy(7, "resources/read", `"uri":"demo://none"`),
	)
}

// replaced changes what a server says.
func replaced(old, new string) func(string) string {
	return func(line string) string { return strings.ReplaceAll(line, old, new) }
}

func TestVerifyDrift(t *testing.T) {
	tape := verifyTape(t, (&verifyServer{t: t}).dialer(), verifyAnswers(), verifyShort())
	for _, c := range []struct {
		name   string
		server verifyServer
		want   []string // method or name, and outcome
		text   []string // in the report
	}{
		{"same", verifyServer{}, nil, []string{"no drift: 7 MATCH"}},
		{"text", verifyServer{change: replaced(`"hello"`, `"hullo"`)}, []string{"echo CHANGED"},
			[]string{"CHANGED     tools/call echo (seq 7, session 1)\n    /result/content/0/text\n      was \"hello\"\n      is  \"hullo\"\n", "drift: 6 MATCH, 1 CHANGED\n"}},
		{"number", verifyServer{change: replaced(`"sum":3}`, `"sum":4}`)}, []string{"add CHANGED"}, []string{"/result/structuredContent/sum\n      was 3\n      is  4\n"}},
		{"number in another form", verifyServer{change: replaced(`"sum":3}`, `"sum":30e-1}`)}, nil, nil},
		{"tool gone", verifyServer{change: replaced(`"name":"fail"`, `"name":"fails"`)}, []string{"tools/list CHANGED"},
			[]string{"breaking)", "/result/tools/fail (breaking)", "/result/tools/fails (compatible)"}},
		{"order of tools", verifyServer{change: func(line string) string {
			if member(member(line, "result"), "tools") == "" {
				return line
			}
			tools := decodeJSON(line).(map[string]any)
			list := tools["result"].(map[string]any)["tools"].([]any)
			list[0], list[1] = list[1], list[0]
			return encodeJSON(tools) + "\n"
		}}, nil, nil},
		{"schema", verifyServer{change: replaced(`"required":["from"]`, `"required":["from","everyMs"]`)}, []string{"tools/list CHANGED"},
			[]string{"(seq 5, session 1) (breaking)", "/result/tools/countdown/inputSchema/required/everyMs (breaking)\n      was absent\n      is  true\n"}},
		{"description", verifyServer{change: replaced("Counts down and", "Counts and")}, []string{"tools/list CHANGED"}, []string{"session 1) (text only)"}},
		{"error for a result", verifyServer{change: replaced(`"result":{"content":[{"text":"hello","type":"text"}]}`, `"error":{"code":-32603,"message":"no"}`)},
			[]string{"echo ERROR-SHAPE"}, nil},
		{"error of the tool", verifyServer{change: replaced(`{"text":"hello","type":"text"}]`, `{"text":"hello","type":"text"}],"isError":true`)},
			[]string{"echo ERROR-SHAPE"}, nil},
		{"other code", verifyServer{change: replaced(`"code":-32002`, `"code":-32602`)}, []string{"demo://none ERROR-SHAPE"}, nil},
		{"other error text", verifyServer{change: replaced(`Resource not found`, `There is none`)}, []string{"demo://none CHANGED"}, nil},
		{"progress missing", verifyServer{change: func(line string) string {
			if strings.Contains(line, `"progress":2`) {
				return ""
			}
			return line
		}}, []string{"countdown CHANGED"}, []string{"/notifications/1\n      was \"notifications/progress\"\n      is  absent"}},
		{"progress more", verifyServer{change: func(line string) string {
			if strings.Contains(line, `"progress":2`) {
				return line + line
			}
			return line
		}}, []string{"countdown EXTRA"}, []string{"not on the tape: notifications/progress"}},
		{"version", verifyServer{change: replaced(demoInfo, `{"name":"mcpproxy-demo","version":"2"}`)}, nil, nil},
		{"instructions", verifyServer{change: replaced(`"instructions":"The`, `"instructions":"A`)}, []string{"initialize CHANGED"}, nil},
		{"revision", verifyServer{change: replaced(`"protocolVersion":"2025-11-25"`, `"protocolVersion":"2025-06-18"`)}, []string{"initialize CHANGED"}, nil},
		{"question changed", verifyServer{change: replaced(`"message":"why?"`, `"message":"why not?"`)}, []string{"ask CHANGED"},
			[]string{"/requests/0/params/message\n      was \"why?\"\n      is  \"why not?\""}},
		{"other question", verifyServer{change: func(line string) string {
			if strings.Contains(line, `"method":"elicitation/create"`) {
				return strings.Replace(line, "elicitation/create", "sampling/createMessage", 1)
			}
			return line
		}}, []string{"ask ERROR-SHAPE"}, []string{"/notifications/0\n      was \"elicitation/create\"\n      is  \"sampling/createMessage\""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.server.t = t
			r := verifyRun(t, tape, c.server.dialer(), VerifyOptions{})
			verifyWant(t, r, c.want...)
			for _, want := range c.text {
				if !strings.Contains(r.Text(), want) {
					t.Errorf("got\n%s\nwant %q in it", r.Text(), want)
				}
			}
			if (r.Code() == 0) != (c.want == nil) {
				t.Errorf("got code %d", r.Code())
			}
		})
	}
}

// A server that asks what it did not ask before gets an error, and the call counts as more than was recorded.
func TestVerifyExtraRequest(t *testing.T) {
	var answered []string
	server := &verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
		switch {
		case m.Name == "echo" && m.Kind == Call:
			say(`{"jsonrpc":"2.0","id":"x","method":"sampling/createMessage","params":{}}`)
			say(verifyText(m, "hello"))
			return true
		case m.Kind == Response && m.ID == `"x"`:
			answered = append(answered, member(m.Error, "code"))
			return true
		}
		return false
	}}
	tape := verifyTape(t, (&verifyServer{t: t}).dialer(), verifyAnswers(), verifyShort())
	r := verifyRun(t, tape, server.dialer(), VerifyOptions{})
	verifyWant(t, r, "echo EXTRA")
	if fmt.Sprint(answered) != "[-32601]" {
		t.Errorf("got answers %q, want -32601", answered)
	}
}

// The server dies at a call: that one has no answer, nor have those after it, but the next session has a new process.
func TestVerifyServerDies(t *testing.T) {
	tape := verifyTape(t, (&verifyServer{t: t}).dialer(), verifyAnswers(), verifyShort(), verifyShort())
	server := &verifyServer{t: t}
	died := false
	server.answer = func(m *Message, say func(string)) bool {
		if m.Name == "countdown" && !died {
			died = true
			server.die()
			return true
		}
		return false
	}
	r := verifyRun(t, tape, server.dialer(), VerifyOptions{})
	verifyWant(t, r, "countdown MISSING", "ask MISSING", "demo://none MISSING")
	if !strings.Contains(r.Text(), "server is gone: exit status 0") || r.Counts[outcomeMatch] != 11 {
		t.Errorf("got\n%s", r.Text())
	}
}

func TestVerifyNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tape := verifyTape(t, (&verifyServer{t: t}).dialer(), verifyAnswers(), verifyShort())
		cancelled := false
		r := verifyRun(t, tape, (&verifyServer{t: t, answer: func(m *Message, _ func(string)) bool {
			cancelled = cancelled || m.Method == methodCancelled
			return m.Name == "add"
		}}).dialer(), VerifyOptions{Timeout: time.Minute})
		verifyWant(t, r, "add TIMEOUT")
		if !cancelled || !strings.Contains(r.Text(), "within 1m0s") {
			t.Errorf("cancelled: %v, got\n%s", cancelled, r.Text())
		}
	})
}

// TestVerifyNoServer has servers with which nothing can be compared.
func TestVerifyNoServer(t *testing.T) {
	tape := verifyTape(t, (&verifyServer{t: t}).dialer(), verifyAnswers(), verifyShort())
	dies := &verifyServer{t: t}
	dies.answer = func(*Message, func(string)) bool { dies.die(); return true }
	web, _ := url.Parse("http://127.0.0.1:1/mcp")
	for name, dialer := range map[string]closingDialer{
		"not started":     newCommandDialer(func() (*process, error) { return nil, errors.New("no such file") }, 1<<20, upLog(t)),
		"dies at once":    dies.dialer(),
		"nobody listens":  newHTTPDialer(web, nil, 1<<20, upLog(t)),
		"no server there": newHTTPDialer(verifyWeb(t, nil), nil, 1<<20, upLog(t)),
	} {
		_, err := Verify(t.Context(), strings.NewReader(tape), "t.jsonl", dialer, VerifyOptions{Log: upLog(t), Timeout: time.Minute})
		dialer.Close()
		var missing *VerifyServerError
		if !errors.As(err, &missing) {
			t.Errorf("%s: got %v, want that there is no server", name, err)
		}
	}
	synctest.Test(t, func(t *testing.T) { // one that says nothing
		dialer := (&verifyServer{t: t, answer: func(*Message, func(string)) bool { return true }}).dialer()
		defer dialer.Close()
		_, err := Verify(t.Context(), strings.NewReader(tape), "t.jsonl", dialer, VerifyOptions{Log: upLog(t)})
		if missing := (*VerifyServerError)(nil); !errors.As(err, &missing) || !strings.Contains(err.Error(), "1m0s") {
			t.Errorf("silent: got %v, want that there is no server", err)
		}
	})
}

func TestVerifyNoTape(t *testing.T) {
	dialer := (&verifyServer{t: t}).dialer()
	defer dialer.Close()
	_, err := Verify(t.Context(), strings.NewReader("{}\n"), "t.jsonl", dialer, VerifyOptions{})
	var fault *TapeError
	if !errors.As(err, &fault) || fault.Line != 1 {
		t.Errorf("got %v, want a fault in line 1", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tape := verifyTape(t, dialer, verifyAnswers(), verifyShort())
	if r, err := Verify(ctx, strings.NewReader(tape), "t.jsonl", dialer, VerifyOptions{}); err != context.Canceled || r == nil {
		t.Errorf("got %v, %v, want a report and that it was cancelled", r, err)
	}
}

// verifyWeb serves a server on stdio over HTTP; nil is no MCP server.
func verifyWeb(t *testing.T, dialer Dialer) *url.URL {
	var server *httptest.Server
	if dialer == nil {
		server = httptest.NewServer(nil)
	} else {
		p := NewProxy(dialer, Bounds{Sessions: 100, Calls: 100}, upLog(t))
		server = httptest.NewServer(&httpFront{Proxy: p, Log: upLog(t), Command: true, Max: 1 << 20})
		t.Cleanup(p.Close)
	}
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL + endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Tapes of either era against a server over HTTP.
func TestVerifyHTTP(t *testing.T) {
	for _, era := range []string{eraSession, eraStateless} {
		for _, live := range []string{eraSession, eraStateless} {
			t.Run(era+" to "+live, func(t *testing.T) {
				inner := (&verifyServer{t: t}).knowsOnly(live).dialer()
				t.Cleanup(func() { inner.Close() })
				r := verifyRun(t, verifyDemoTape(t, era), newHTTPDialer(verifyWeb(t, inner), nil, 1<<20, upLog(t)), VerifyOptions{})
				if r.Code() != 0 || r.Compared < 32 {
					t.Errorf("got\n%s", r.Text())
				}
			})
		}
	}
}

// Both encodings of a report can be read again.
func TestVerifyReport(t *testing.T) {
	tape := verifyTape(t, (&verifyServer{t: t}).dialer(), verifyAnswers(), verifyShort())
	r := verifyRun(t, tape, (&verifyServer{t: t, change: replaced(`"hello"`, `"<&]]>\u0001\ufffe\u0000"`), answer: func(m *Message, say func(string)) bool {
		return m.Name == "ask" && m.Kind == Call
	}}).dialer(), VerifyOptions{Timeout: 50 * time.Millisecond})
	verifyWant(t, r, "echo CHANGED", "ask TIMEOUT")
	var suites junitSuites
	if err := xml.Unmarshal(r.JUnit(), &suites); err != nil {
		t.Fatalf("%v in %s", err, r.JUnit())
	}
	if s := suites.Suite; s.Tests != 7 || s.Failures != 1 || s.Errors != 1 || s.Skipped != 0 || len(s.Cases) != 7 {
		t.Errorf("got %s", r.JUnit())
	}
	var again struct {
		Code     int
		Compared int
		Counts   map[string]int
		Checks   []struct {
			Method, Outcome string
			Differences     []struct{ At, Was, Is any }
		}
	}
	if err := json.Unmarshal(r.JSON(), &again); err != nil {
		t.Fatal(err)
	}
	if again.Code != 1 || again.Compared != 7 || again.Counts["CHANGED"] != 1 || len(again.Checks) != 7 || again.Checks[2].Differences[0].Was != "hello" {
		t.Errorf("got %s", r.JSON())
	}
}

// What is not called counts as skipped, and if nothing else is on the tape, nothing is known.
func TestVerifySkips(t *testing.T) {
	writes := &verifyServer{t: t, change: replaced(`"readOnlyHint":true`, `"readOnlyHint":false`)}
	tape := verifyTape(t, writes.dialer(), verifyAnswers(), verifyShort())
	silent := verifyTape(t, writes.dialer(), nil, []string{verifyModern(1, "tools/call", demoTool("echo", `"text":"a"`))})
	for _, c := range []struct {
		tape string
		o    VerifyOptions
		want string // summary
		code int
	}{
		{tape, VerifyOptions{}, "no drift: 3 MATCH, 4 SKIPPED", 0},
		{tape, VerifyOptions{Allow: []string{"echo"}}, "no drift: 4 MATCH, 3 SKIPPED", 0},
		{tape, VerifyOptions{Allow: []string{"Echo", "ech"}}, "no drift: 3 MATCH, 4 SKIPPED", 0},
		{tape, VerifyOptions{AllowDestructive: true}, "no drift: 7 MATCH", 0},
		{silent, VerifyOptions{}, "nothing was compared, so nothing is known: 1 SKIPPED", 1},
		{testTape(), VerifyOptions{}, "nothing was compared, so nothing is known: no calls on the tape", 1},
	} {
		server := &verifyServer{t: t, change: writes.change}
		r := verifyRun(t, c.tape, server.dialer(), c.o)
		if r.Summary() != c.want || r.Code() != c.code {
			t.Errorf("got %d, want %q, %d:\n%s", r.Code(), c.want, c.code, r.Text())
		}
		var suites junitSuites
		if err := xml.Unmarshal(r.JUnit(), &suites); err != nil || suites.Suite.Failures != c.code {
			t.Errorf("got %v, %s", err, r.JUnit())
		}
	}
}

// What a tape has no server's answer to is not called.
func TestVerifyCutTape(t *testing.T) {
	call := func(id int) string { return verifyLegacy(id, "resources/list", ``) }
	msg := func(dir, text string, x, re int64, local bool) Entry {
		return Entry{Kind: lineMsg, Session: 1, Dir: dir, X: x, Re: re, Local: local, Msg: text}
	}
	hello := verifyHello()
	tape := testTape(
		msg(dirToServer, hello[0], 0, 0, false),
		msg(dirToClient, demoInitializedAnswer(), 0, 1, false),
		msg(dirToServer, hello[1], 0, 0, false),
		msg(dirToServer, call(2), 0, 0, true),
		msg(dirToClient, `{"jsonrpc":"2.0","id":2,"error":{"code":429,"message":"slow down"}}`, 0, 4, true),
		msg(dirToServer, call(3), 0, 0, false),
		msg(dirToClient, `{"jsonrpc":"2.0","id":3,"error":{"code":504,"message":"call took too long"}}`, 0, 6, true),
		msg(dirToServer, call(4), 0, 0, false),
	)
	r := verifyRun(t, tape, (&verifyServer{t: t}).dialer(), VerifyOptions{})
	verifyWant(t, r, "resources/list SKIPPED", "resources/list SKIPPED", "resources/list SKIPPED")
	for _, want := range []string{"the proxy had refused it", "the proxy had answered it", "no answer on the tape"} {
		if !strings.Contains(r.Text(), want) {
			t.Errorf("got\n%s\nwant %q in it", r.Text(), want)
		}
	}
}

// A cancellation that came too late cancels nothing, and the answer is compared.
func TestVerifyLateCancellation(t *testing.T) {
	msg := func(dir, text string, x, re int64) Entry {
		return Entry{Kind: lineMsg, Session: 1, Dir: dir, X: x, Re: re, Msg: text}
	}
	hello := verifyHello()
	tape := testTape(
		msg(dirToServer, hello[0], 0, 0),
		msg(dirToClient, demoInitializedAnswer(), 0, 1),
		msg(dirToServer, verifyLegacy(2, "prompts/list", ``), 0, 0),
		msg(dirToClient, `{"jsonrpc":"2.0","id":2,"result":{"prompts":[]}}`, 0, 3),
		msg(dirToServer, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}`, 3, 0),
	)
	verifyWant(t, verifyRun(t, tape, (&verifyServer{t: t}).dialer(), VerifyOptions{}), "prompts/list CHANGED")
}

// demoInitializedAnswer is what the demo server answers to verifyHello.
func demoInitializedAnswer() string {
	var out strings.Builder
	serveDemo(context.Background(), strings.NewReader(verifyHello()[0]+"\n"), &out)
	return strings.TrimSpace(out.String())
}

func TestVerifyIgnore(t *testing.T) {
	tape := verifyTape(t, (&verifyServer{t: t}).dialer(), verifyAnswers(), verifyShort())
	ignored, _ := ParsePointer("/result/content/*/text")
	r := verifyRun(t, tape, (&verifyServer{t: t, change: replaced(`"hello"`, `"hullo"`)}).dialer(), VerifyOptions{Ignore: []Pointer{ignored}})
	if r.Summary() != "no drift: 7 MATCH; differences ignored: 1" {
		t.Errorf("got %s", r.Text())
	}
}
