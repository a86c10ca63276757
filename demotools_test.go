// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

const demoElicit = `{"message":"why?","requestedSchema":{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}}`

func TestDemoTools(t *testing.T) {
	demoConverse(t, []demoConversation{
		{"legacy tools", []demoTurn{
			{demoInit, demoInitialized()},
			{demoLegacyCall(`"<é\u0041&>"`, "tools/call", demoTool("echo", `"text":"<\u0041\ud800\/&\u2028>"`)), demoTextLine(`"<é\u0041&>"`, `"<\u0041\ud800\/&\u2028>"`)},
			{demoLegacyCall("9007199254740993", "tools/call", demoTool("echo", `"text":""`)), demoTextLine("9007199254740993", `""`)},
			{demoLegacyCall("-1e2", "tools/call", demoTool("echo", `"TEXT":"a"`)), demoFailedLine("-1e2", "text must be a string")},
			{demoLegacyCall("1", "tools/call", demoTool("add", `"a":9007199254740992,"b":-1`)), demoResultLine("1", `"content":[{"text":"9007199254740991","type":"text"}],"structuredContent":{"sum":9007199254740991}}}`)},
			{demoLegacyCall("2", "tools/call", demoTool("add", `"a":0.5,"b":1`)), demoResultLine("2", `"content":[{"text":"1.5","type":"text"}],"structuredContent":{"sum":1.5}}}`)},
			{demoLegacyCall("3", "tools/call", demoTool("add", `"a":9223372036854775807,"b":1`)), demoResultLine("3", `…"structuredContent":{"sum":9223372036854776000}}}`)},
			{demoLegacyCall("4", "tools/call", demoTool("add", `"a":1e308,"b":1e308`)), demoFailedLine("4", "a, b and their sum must be numbers of 64 bits")},
			{demoLegacyCall("5", "tools/call", demoTool("add", `"a":1,"b":"2"`)), demoFailedLine("5", "a, b and their sum must be numbers of 64 bits")},
			{demoLegacyCall("6", "tools/call", demoTool("countdown", `"from":2`)+`,"_meta":{"progressToken":1.0}`),
				`{"jsonrpc":"2.0","method":"notifications/progress","params":{"message":"1","progress":1,"progressToken":1.0,"total":2}}` + "\n" +
					`{"jsonrpc":"2.0","method":"notifications/progress","params":{"message":"0","progress":2,"progressToken":1.0,"total":2}}` + "\n" +
					demoTextLine("6", `"counted down from 2"`)},
			{demoLegacyCall("7", "tools/call", demoTool("countdown", `"from":1`)+`,"_meta":{"progressToken":null}`), demoTextLine("7", `"counted down from 1"`)},
			{demoLegacyCall("8", "tools/call", demoTool("countdown", `"from":10001`)), demoFailedLine("8", "from must be …")},
			{demoLegacyCall("9", "tools/call", `"name":"countdown"`), demoFailedLine("9", "from must be …")},
			{demoLegacyCall("10", "tools/call", demoTool("fail", `"message":"no"`)), demoFailedLine("10", "no")},
			{demoLegacyCall("11", "tools/call", demoTool("fail", `"message":"no","protocol":true`)), `{"jsonrpc":"2.0","id":11,"error":{"code":-32603,"data":{"tool":"fail"},"message":"no"}}`},
			{demoLegacyCall("12", "tools/call", demoTool("fail", ``)), demoFailedLine("12", "message must be a string")},
			{demoLegacyCall("13", "tools/call", demoTool("none", ``)), demoErrorLine("13", -32602)},
			{demoLegacyCall("14", "tools/call", `"name":"echo","arguments":[]`), demoErrorLine("14", -32602)},
		}},
		{"modern tools", []demoTurn{
			{demoModern("1", "tools/call", demoTool("echo", `"text":"a"`)), demoResultLine("1", demoStamp+`,"content":[{"text":"a","type":"text"}]`+demoComplete+`}}`)},
			{demoModern("2", "tools/call", demoTool("add", `"a":1,"b":2`)), demoResultLine("2", demoStamp+`,"content":[{"text":"3","type":"text"}],"structuredContent":{"sum":3}`+demoComplete+`}}`)},
			{demoModern("3", "tools/call", demoTool("fail", `"message":"no"`)), demoResultLine("3", demoStamp+`,"content":[{"text":"no","type":"text"}],"isError":true`+demoComplete+`}}`)},
			{demoModern("4", "tools/call", demoTool("none", ``)), demoErrorLine("4", -32602)},
			{demoModern("5", "tools/call", demoTool("countdown", `"from":1`)),
				`{"jsonrpc":"2.0","method":"notifications/progress","params":{"message":"0","progress":1,"progressToken":"p","total":1}}` + "\n" +
					demoResultLine("5", demoStamp+`,"content":…}}`)},
		}},
	})
}

func TestDemoAsk(t *testing.T) {
	demoConverse(t, []demoConversation{
		{"legacy ask", []demoTurn{
			{demoInit, demoInitialized()},
			{demoLegacyCall("1", "tools/call", demoTool("ask", `"question":"why?"`)), `{"jsonrpc":"2.0","id":"ask-1","method":"elicitation/create","params":` + demoElicit + `}`},
			{demoLegacyCall("1", "ping", ``), demoErrorLine("1", -32600)}, // the id is in use
			{demoLegacyCall("2", "ping", ``), demoResultLine("2", `}}`)},
			{`{"jsonrpc":"2.0","id":"ask-2","result":{"action":"decline"}}`, ``},
			{`{"jsonrpc":"2.0","id":"ask-1","result":{"action":"accept","content":{"answer":"\"so\""}}}`, demoTextLine("1", `"the client answered: \"so\""`)},
			{`{"jsonrpc":"2.0","id":"ask-1","result":{"action":"decline"}}`, ``},
			{demoLegacyCall("3", "tools/call", demoTool("ask", `"question":"why?"`)), `{"jsonrpc":"2.0","id":"ask-2","method":"elicitation/create",…`},
			{`{"jsonrpc":"2.0","id":"ask-2","result":{"action":"cancel"}}`, demoTextLine("3", `"the client did not answer: cancel"`)},
			{demoLegacyCall("4", "tools/call", demoTool("ask", `"question":"why?"`)), `{"jsonrpc":"2.0","id":"ask-3","method":"elicitation/create",…`},
			{`{"jsonrpc":"2.0","id":"ask-3","error":{"code":-1,"message":"no"}}`, demoFailedLine("4", "the client's response is no elicitation result")},
			{demoLegacyCall("5", "tools/call", demoTool("ask", ``)), demoFailedLine("5", "question must be a string")},
			{demoLegacyCall("6", "tools/call", demoTool("ask", `"question":"why?"`)), `{"jsonrpc":"2.0","id":"ask-4","method":"elicitation/create",…`},
			{`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":6}}`,
				`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"ask-4"}}`},
			{`{"jsonrpc":"2.0","id":"ask-4","result":{"action":"decline"}}`, ``},
			{demoLegacyCall("6", "ping", ``), demoResultLine("6", `}}`)},
		}},
		{"legacy ask without the capability", []demoTurn{
			{demoLegacyCall("0", "initialize", `"protocolVersion":"2025-11-25","capabilities":{"elicitation":{"url":{}}}`), demoInitialized()},
			{demoLegacyCall("1", "tools/call", demoTool("ask", `"question":"why?"`)), demoFailedLine("1", "the client did not declare the elicitation capability")},
		}},
		{"modern ask", []demoTurn{
			{demoModern("1", "tools/call", demoTool("ask", `"question":"why?"`)),
				`{"jsonrpc":"2.0","id":1,"error":{"code":-32021,"data":{"requiredCapabilities":{"elicitation":{}}},"message":"ask requires the elicitation capability"}}`},
			{demoModernCall("2", "tools/call", demoTool("ask", `"question":"why?"`), `{"elicitation":{"form":{}}}`),
				demoResultLine("2", demoStamp+`,"inputRequests":{"answer":{"method":"elicitation/create","params":`+demoElicit+`}},"requestState":"…","resultType":"input_required"}}`)},
			{demoModernCall("3", "tools/call", demoTool("ask", `"question":"why?"`)+`,"inputResponses":{"answer":{"action":"decline"}},"requestState":"x"`, `{"elicitation":{}}`), demoErrorLine("3", -32602)},
			{demoModernCall("4", "tools/call", demoTool("ask", `"question":"why?"`)+`,"inputResponses":{"answer":{"action":"decline"}}`, `{"elicitation":{}}`), demoErrorLine("4", -32602)},
			{demoModernCall("5", "tools/call", demoTool("ask", `"question":"why?"`)+`,"inputResponses":{"answer":{"action":"run"}}`, `{"elicitation":{}}`), demoErrorLine("5", -32602)},
			{demoModernCall("6", "tools/call", demoTool("ask", `"question":"why?"`)+`,"inputResponses":1`, `{"elicitation":{}}`), demoErrorLine("6", -32602)},
			{demoModernCall("8", "tools/call", demoTool("ask", `"question":"why?"`)+`,"requestState":"x"`, `{"elicitation":{}}`), demoErrorLine("8", -32602)},
			{demoModernCall("7", "tools/call", demoTool("ask", `"question":"why?"`)+`,"inputResponses":{"other":{}}`, `{"elicitation":{}}`), demoResultLine("7", `…"resultType":"input_required"}}`)},
		}},
	})
}

// The retry carries the requestState of the first answer; that of another question does not do.
func TestDemoAskRetry(t *testing.T) {
	p := demoStart(t, t.Context())
	state := func(id, question string) string {
		p.say(demoModernCall(id, "tools/call", demoTool("ask", `"question":"`+question+`"`), `{"elicitation":{}}`))
		line, err := p.lines.ReadBytes('\n')
		var m struct {
			Result struct{ RequestState string }
		}
		if err == nil {
			err = json.Unmarshal(line, &m)
		}
		if err != nil || m.Result.RequestState == "" {
			t.Fatalf("got %s, %v, want a requestState", line, err)
		}
		return m.Result.RequestState
	}
	retry := func(id, state string) string {
		return demoModernCall(id, "tools/call", demoTool("ask", `"question":"why?"`)+
			`,"inputResponses":{"answer":{"action":"accept","content":{"answer":"so"}}},"requestState":"`+state+`"`, `{"elicitation":{}}`)
	}
	why, how := state("1", "why?"), state("2", "how?")
	p.say(retry("3", how))
	p.hears(`{"jsonrpc":"2.0","id":3,"error":{"code":-32602,…`)
	p.say(retry("4", why))
	p.hears(`{"jsonrpc":"2.0","id":4,"result":{…"content":[{"text":"the client answered: so","type":"text"}],"resultType":"complete"}}`)
	p.ends()
}

func TestDemoCancelCountdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := demoStart(t, t.Context())
		start := time.Now()
		p.say(demoModernCall("1", "tools/call", demoTool("countdown", `"from":10000,"everyMs":1000`), `{}`))
		p.hears(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"message":"9999","progress":1,…`)
		p.hears(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"message":"9998","progress":2,…`)
		p.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"1"}}`) // another id
		p.hears(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"message":"9997","progress":3,…`)
		p.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`)
		p.ends()
		if got, want := time.Since(start), 3*time.Second; got != want {
			t.Errorf("got an end after %v, want %v", got, want)
		}
	})
}

// A hundred calls wait at once, are answered in the order of their ends, and a few more are refused.
func TestDemoConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := demoStart(t, t.Context())
		for i := range demoWaiting + 2 {
			ms := 1000 * (1000 - i) // the last call ends first
			p.say(demoModernCall(fmt.Sprint(i), "tools/call", demoTool("countdown", fmt.Sprintf(`"from":1,"everyMs":%d`, ms)), `{}`))
			if i >= demoWaiting {
				p.hears(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"error":{"code":-32603,"message":"too many calls in flight"}}`, i))
			}
		}
		start := time.Now()
		for i := demoWaiting - 1; i >= 0; i-- {
			p.hears(`{"jsonrpc":"2.0","method":"notifications/progress",…`)
			p.hears(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{…"text":"counted down from 1",…`, i))
		}
		if got, want := time.Since(start), 1000*time.Second; got != want {
			t.Errorf("got the last answer after %v, want %v", got, want)
		}
		p.say(demoModernCall("1", "tools/call", demoTool("countdown", `"from":0`), `{}`)) // there is room again
		p.hears(`{"jsonrpc":"2.0","id":1,"result":{…`)
		p.ends()
	})
}
