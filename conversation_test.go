// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A conversation is what clients and server say; when says where it makes sense.
type conversation struct {
	name string
	when func(w *talk) bool // nil for everywhere
	run  func(w *talk)
	max  int
	call time.Duration // time for a call
	old  string        // revision of the handshake
	fast bool          // too long to go byte by byte
}

func talkLegacy(w *talk) bool  { return !w.modern }
func talkModern(w *talk) bool  { return w.modern }
func talkCommand(w *talk) bool { return !w.overHTTP() }
func talkPipes(w *talk) bool   { return w.client == "stdio" }
func talkWeb(w *talk) bool     { return w.client == "http" }

// TestConversations holds each conversation in each combination of transports, in both eras, with whole reads and
// with reads of one byte, which cut everything everywhere.
func TestConversations(t *testing.T) { talkAll(t, "") }

// TestConversationsUnderRules holds the same ones under rules of which none applies: what comes leaves byte for byte.
func TestConversationsUnderRules(t *testing.T) { talkAll(t, rulesForNone(100)) }

// talkAll holds all conversations under rules; those that are long, and reads of one byte, only if there are none.
func talkAll(t *testing.T, rules string) {
	for _, c := range conversations() {
		if c.fast && rules != "" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			ran := 0
			for i := range 2 * 3 * 2 * 2 {
				w := &talk{
					client: []string{"stdio", "http"}[i&1], modern: i&2 != 0, slow: i&4 != 0,
					server: []string{"stdio", "json", "events"}[i/8], max: c.max, revision: c.old,
				}
				w.bounds.CallTimeout = c.call
				if c.when != nil && !c.when(w) || w.slow && (c.fast || rules != "") {
					continue
				}
				w.rules = rules
				ran++
				t.Run(fmt.Sprintf("%s-%s,modern=%t,slow=%t", w.client, w.server, w.modern, w.slow), func(t *testing.T) {
					talkTest(t, w, c.run)
				})
			}
			if ran == 0 {
				t.Error("got no combination to run in")
			}
		})
	}
}

func conversations() []conversation {
	return []conversation{
		{name: "call", run: talkCall},
		{name: "ids", run: talkIDs},
		{name: "tokens", run: talkTokens},
		{name: "error", run: talkError},
		{name: "notification", run: talkNotification},
		{name: "progress", run: talkProgresses},
		{name: "server asks", when: talkLegacy, run: talkAsk},
		{name: "server asks without a call", when: talkLegacy, run: talkAskAlone},
		{name: "answers to nothing", run: talkStray},
		{name: "cancel", when: talkLegacy, run: talkCancel},
		{name: "cancel stateless", when: talkModern, run: talkCancelStateless},
		{name: "two clients", run: talkTwo},
		{name: "two subscriptions", when: talkModern, run: talkSubscriptions},
		{name: "same id twice", run: talkSameID},
		{name: "large", run: talkLarge, fast: true},
		{name: "many", run: talkMany, fast: true},
		{name: "burst", run: talkBurst, fast: true},
		{name: "line ends", when: talkPipes, run: talkLineEnds},
		{name: "server's line ends", when: talkCommand, run: talkServerLineEnds},
		{name: "pretty", when: talkWeb, run: talkPretty},
		{name: "end of input", when: talkPipes, run: talkEOF},
		{name: "server dies", run: talkDies},
		{name: "client goes", when: talkLegacy, run: talkGoes},
		{name: "garbage", when: talkCommand, run: talkGarbage},
		{name: "answer and garbage in one", when: talkCommand, run: talkOneWrite, max: 20_000},
		{name: "call and garbage in one", when: talkPipes, run: talkOneRead, max: 20_000},
		{name: "batch without a session", when: func(w *talk) bool { return w.client == "http" && w.overHTTP() && !w.modern }, run: talkBatchAlone},
		{name: "silence", run: talkSilence},
		{name: "slow upload", when: talkWeb, run: talkSlowUpload, fast: true},
		{name: "timeout", run: talkTimeout, call: time.Minute},
		{name: "progress puts timeout off", run: talkTimeoutProgress, call: time.Minute},
		{name: "batch", when: talkLegacy, run: talkBatch, old: "2025-03-26"},
		{name: "batch of 101", when: talkLegacy, run: talkBatchLong, old: "2025-03-26"},
		{name: "batch in a later revision", when: talkLegacy, run: talkBatchLater},
		{name: "ambiguous", run: talkAmbiguous},
		{name: "client over the limit", run: talkLongCall, max: 20_000},
		{name: "server over the limit", run: talkLongAnswer, max: 20_000},
		{name: "at the limit", run: talkAtLimit, max: 20_000},
	}
}

// What must survive: integers beyond 2^53, 1.0, exponents, the order of keys, space, escapes, unknown members.
const talkArgs = `{"z":9007199254740993, "a":1.0,"e":1E+2,"neg":-0,"é":"日本語 \u00e9 \/ 😀 \ud83d\ude00", "n":null,"deep":[[{"b":2,"a":[]}]]}`

func talkCall(w *talk) {
	c := w.dial()
	call := strings.TrimSuffix(w.call("1", talkArgs, ""), "}") + ` ,"x-unknown":{"k":[1.0]}}`
	post := c.say(call)
	h := w.gets(call)
	members := `,"result":` + talkArgs + `, "unknown":9007199254740993}`
	h.answer(`{ "jsonrpc":"2.0","id":` + string(h.ID) + members)
	c.hears(`{ "jsonrpc":"2.0","id":1` + members)
	if post != nil {
		if post.wait(c); post.status != 200 {
			w.t.Errorf("got status %d, want 200", post.status)
		}
	}
	c.works()
}

func talkIDs(w *talk) {
	c := w.dial()
	for _, id := range []string{`7`, `"7"`, `9007199254740993`, `"é"`, `""`, `-1`, `1.0`, `"\u00e9\"\\"`, `"` + strings.Repeat("x", 1024) + `"`, `123456789012345678901234567890`} {
		call := w.call(id, `{}`, "")
		c.say(call)
		w.gets(call).result(`{}`)
		c.hears(talkResult(id, `{}`))
	}
	// 7 and "7" at the same time are two.
	one, two := w.call(`7`, `{"n":1}`, ""), w.call(`"7"`, `{"n":2}`, "")
	c.say(one)
	first := w.gets(one)
	c.say(two)
	w.gets(two).result(`{"n":2}`)
	c.hears(talkResult(`"7"`, `{"n":2}`))
	first.result(`{"n":1}`)
	c.hears(talkResult(`7`, `{"n":1}`))
}

func talkTokens(w *talk) {
	c := w.dial()
	for _, token := range []string{`7`, `"7"`, `9007199254740993`, `"é"`, `""`, `1.0`} {
		call := w.call(`1`, `{}`, token)
		c.say(call)
		h := w.gets(call)
		h.say(talkProgress(h.token(), "1.0"))
		c.hears(talkProgress(token, "1.0"))
		h.result(`{}`)
		c.hears(talkResult(`1`, `{}`))
	}
}

func talkError(w *talk) {
	c := w.dial()
	call := w.call(`"e"`, `{}`, "")
	c.say(call)
	h := w.gets(call)
	rest := `,"error":{"data":{"é":[1.0,9007199254740993]},"code":-32000,"message":"no\u0021","more":{}}}`
	h.answer(`{"jsonrpc":"2.0","id":` + string(h.ID) + rest)
	c.hears(`{"jsonrpc":"2.0","id":"e"` + rest)
	c.works()
}

func talkNotification(w *talk) {
	c := w.dial()
	text := `{"jsonrpc":"2.0","method":"notifications/x","params":{"b":1.0,"a":9007199254740993` + w.meta("") + `}}`
	if post := c.say(text); post != nil && post.status != 202 {
		w.t.Errorf("got status %d, want 202", post.status)
	}
	w.gets(text)
	if !w.modern {
		w.push(text)
		c.hears(text)
	}
	c.silent()
}

func talkProgresses(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, `"t"`)
	c.say(call)
	h := w.gets(call)
	for _, progress := range []string{"0.5", "1.0", "9007199254740993"} {
		h.say(talkProgress(h.token(), progress))
		c.hears(talkProgress(`"t"`, progress)) // at once, not with the answer
	}
	h.result(`{"é":"é"}`)
	c.hears(talkResult(`1`, `{"é":"é"}`))
	c.works()
}

const talkQuestion = `{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"z":1.0,"a":"é"}}`

func talkAsk(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, "") // the server's id 1 is another one
	c.say(call)
	h := w.gets(call)
	h.say(talkQuestion)
	c.hears(talkQuestion)
	answer := talkResult(`1`, talkArgs)
	if post := c.say(answer); post != nil && post.status != 202 {
		w.t.Errorf("got status %d for an answer, want 202", post.status)
	}
	w.gets(answer)
	h.result(`{}`)
	c.hears(talkResult(`1`, `{}`))
}

func talkAskAlone(w *talk) {
	c := w.dial()
	w.push(talkQuestion)
	c.hears(talkQuestion)
	refusal := `{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no","data":1.0}}`
	c.say(refusal)
	w.gets(refusal)
	c.works()
}

func talkStray(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, "")
	c.say(call)
	h := w.gets(call)
	if !w.overHTTP() { // on HTTP it is in the answer to this call, and the client's to judge
		h.say(talkResult(`99`, `{"stray":true}`))
	}
	h.result(`{}`)
	c.hears(talkResult(`1`, `{}`))
	if !w.modern {
		c.say(talkResult(`98`, `{}`))
	}
	w.silent()
	c.silent()
	c.works()
}

func talkCancel(w *talk) {
	c := w.dial()
	call := w.call(`"c"`, `{}`, "")
	post := c.say(call)
	h := w.gets(call)
	cancel := talkCancelled(`"c"`)
	c.say(cancel)
	w.gets(cancel)
	if post != nil {
		post.wait(c)
	}
	h.result(`{"late":true}`)
	c.silent()
	c.works()
}

func talkCancelStateless(w *talk) {
	c := w.dial()
	call := w.call(`"c"`, `{}`, `"p"`)
	post := c.say(call)
	h := w.gets(call)
	if post != nil {
		post.cancel()
		post.wait(c)
	} else {
		c.say(talkCancelled(`"c"`))
	}
	if w.overHTTP() {
		select {
		case <-h.gone:
		case <-time.After(time.Hour):
			w.t.Fatal("got an open request at the server, want it closed")
		}
	} else if got := w.next(); got.Method != methodCancelled || string(got.Params.RequestID) != string(h.ID) {
		w.t.Fatalf("got %q, want a cancellation of %s", got.raw, h.ID)
	}
	w.silent() // over HTTP nothing is posted
	if !w.overHTTP() {
		h.say(talkProgress(h.token(), "1"))
		h.result(`{"late":true}`)
	}
	if w.shared() {
		c.silent()
	} else {
		synctest.Wait()
		for len(c.heard) > 0 { // progress may still come
			if got := <-c.heard; got != talkProgress(`"p"`, "1") {
				w.t.Errorf("got %q after the cancellation, want nothing", got)
			}
		}
	}
	c.works()
}

func talkTwo(w *talk) {
	a, b := w.dial(), w.dial()
	callA, callB := w.call(`1`, `{"who":"a"}`, `"t"`), w.call(`1`, `{"who":"b"}`, `"t"`)
	a.say(callA)
	atA := w.gets(callA)
	b.say(callB)
	atB := w.gets(callB)
	if w.shared() && (string(atA.ID) == string(atB.ID) || atA.token() == atB.token()) {
		w.t.Errorf("got the same names twice at a shared server: %s and %s", atA.raw, atB.raw)
	}
	atB.say(talkProgress(atB.token(), `2`))
	atA.say(talkProgress(atA.token(), `1`))
	a.hears(talkProgress(`"t"`, `1`))
	b.hears(talkProgress(`"t"`, `2`))
	atB.result(`{"for":"b"}`)
	b.hears(talkResult(`1`, `{"for":"b"}`))
	a.silent()
	atA.result(`{"for":"a"}`)
	a.hears(talkResult(`1`, `{"for":"a"}`))
	b.silent()
}

func talkEvent(method, id string) string {
	return `{"jsonrpc":"2.0","method":"` + method + `","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":` + id + `,"x":1.0}}}`
}

func talkSubscriptions(w *talk) {
	a, b := w.dial(), w.dial()
	listen := `{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}` + w.meta("") + `}}`
	a.say(listen)
	atA := w.gets(listen)
	post := b.say(listen)
	atB := w.gets(listen)
	for _, x := range []struct {
		c *talkClient
		h *talkHeard
	}{{a, atA}, {b, atB}, {b, atB}, {a, atA}} {
		for _, method := range []string{"notifications/subscriptions/acknowledged", "notifications/tools/list_changed"} {
			x.h.say(talkEvent(method, string(x.h.ID)))
			x.c.hears(talkEvent(method, `"s"`))
		}
	}
	a.silent()
	b.silent()
	if post != nil {
		post.cancel()
		post.wait(b)
		if w.shared() {
			if got := w.next(); string(got.Params.RequestID) != string(atB.ID) {
				w.t.Errorf("got %q, want a cancellation of %s", got.raw, atB.ID)
			}
		}
	} else {
		atB.result(`{}`)
		b.hears(talkResult(`"s"`, `{}`))
	}
	end := `{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":`
	atA.result(end + string(atA.ID) + `}}`)
	a.hears(talkResult(`"s"`, end+`"s"}}`))
}

func talkSameID(w *talk) {
	c := w.dial()
	call := w.call(`"d"`, `{"n":1}`, "")
	c.say(call)
	h := w.gets(call)
	if w.modern && w.client == "http" { // requests are independent: each is served by itself
		c.say(call)
		w.gets(call).result(`{"n":2}`)
		c.hears(talkResult(`"d"`, `{"n":2}`))
	} else {
		c.say(w.call(`"d"`, `{"n":2}`, ""))
		c.refused(`"d"`, codeInvalid)
		w.silent()
	}
	h.result(`{"n":1}`)
	c.hears(talkResult(`"d"`, `{"n":1}`))
	c.works()
}

func talkLarge(w *talk) {
	c := w.dial()
	big := `{"text":"` + strings.Repeat("0123456789é日😀\\n", 10<<20/22) + `"}`
	call := w.call(`1`, big, "")
	c.say(call)
	w.gets(call).result(big)
	c.hears(talkResult(`1`, big))
	c.works()
}

func talkMany(w *talk) {
	c := w.dial()
	var at []*talkHeard
	for i := range 200 {
		call := w.call(fmt.Sprint(i), `{}`, "")
		c.say(call)
		at = append(at, w.gets(call))
	}
	for i := range at {
		i = len(at) - 1 - i
		at[i].result(fmt.Sprint(i))
		c.hears(talkResult(fmt.Sprint(i), fmt.Sprint(i)))
	}
}

func talkBurst(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, `1`)
	c.say(call)
	h := w.gets(call)
	lines := make([]string, 500)
	for i := range lines {
		lines[i] = talkProgress(h.token(), fmt.Sprint(i))
	}
	if w.overHTTP() {
		for _, line := range lines {
			h.say(line)
		}
	} else {
		h.say(strings.Join(lines, "\n"))
	}
	h.result(`{}`)
	for i := range lines {
		c.hears(talkProgress(`1`, fmt.Sprint(i)))
	}
	c.hears(talkResult(`1`, `{}`))
}

func talkLineEnds(w *talk) {
	c := w.dial()
	one, two, last := w.call(`1`, `{"é":"日"}`, ""), w.call(`2`, `{}`, ""), w.call(`3`, `{}`, "")
	io.WriteString(c.in, "\n\r\n  \t\n"+one+"\r\n\r\n\n")
	w.gets(one).result(`{}`)
	c.hears(talkResult(`1`, `{}`))
	io.WriteString(c.in, " "+two+" \n"+last)
	w.gets(two).result(`{}`)
	c.hears(talkResult(`2`, `{}`))
	w.silent()
	c.in.Close()
	w.gets(last).result(`{}`)
	c.hears(talkResult(`3`, `{}`))
	if err := <-c.exit; err != nil {
		w.t.Errorf("got error %v, want none", err)
	}
}
