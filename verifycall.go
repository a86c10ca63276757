// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	protocolMeta = "io.modelcontextprotocol/" // begins the keys of _meta that are the protocol's

	maxInputAsked = 10 // how often one call may be answered with a question
)

// call makes a recorded call again and compares the answer.
func (t *verifyTalk) call(ctx context.Context, x *verifyExchange) {
	m := t.v.message(x.call)
	check := &VerifyCheck{Seq: x.seq, Session: t.plan.number, Method: shorten(m.Method), Name: shorten(selectorOf(m))}
	t.checks = append(t.checks, check)
	if reason := t.skips(x, m); reason != "" {
		check.fail(outcomeSkipped, reason)
		t.skipped = true
		t.lose(x)
		return
	}
	began := time.Now()
	defer func() {
		if check.Took = time.Since(began); ctx.Err() != nil {
			check.fail(outcomeSkipped, "interrupted")
		}
	}()
	if m.Method == methodInitialize {
		t.plan.hello = m.Params
		t.hangUp(ctx) // another client's conversation, without a session id
	}
	t.connect(ctx)
	if t.gone != "" || ctx.Err() != nil {
		check.fail(outcomeMissing, t.gone)
		return
	}
	method, params := m.Method, t.carried.apply(m.Params)
	if t.bridged() {
		if method, params = t.inOtherEra(m.Method, params); method == "" {
			check.fail(outcomeSkipped, "the era that the server speaks has no such call")
			return
		}
	}
	run := &running{check: check, exchange: x}
	toSession := t.bridged() && t.live == eraSession
	switch {
	case x.listens:
		t.subscribe(ctx, params, run)
		return
	case m.Method == methodInitialize || m.Method == methodDiscover && t.plan.era == eraStateless:
		run.response, run.heard, run.flooded = t.hello.response, t.hello.heard, t.hello.flooded
	case toSession && x.first != nil:
		// The server asked during the first call what it asked on the tape in the answer to that.
		if run.response = x.first.live; x.continued {
			check.fail(outcomeSkipped, "asked and answered within another call")
			return
		}
	case t.bridged() && !toSession:
		t.withInput(ctx, method, params, run)
	default:
		t.exchange(ctx, method, params, run)
	}
	if ctx.Err() == nil {
		t.answered(m, run)
	}
}

// exchange makes a call and waits for the answer, which says so if the server is gone. A call during which the server says
// more than is kept is given up: it might never end.
func (t *verifyTalk) exchange(ctx context.Context, method, params string, run *running) {
	t.begin(ctx, method, params, run)
	t.await(ctx, run, func() bool { return run.response != nil || run.flooded })
	if run.response == nil && run.flooded {
		t.cancel(ctx, run)
	}
}

func refusalText(e *Error) string {
	if e.Exit == "" {
		return e.Text
	}
	return e.Text + ": " + e.Exit
}

// subscribe begins a subscription and waits for the first that the server says on it.
func (t *verifyTalk) subscribe(ctx context.Context, params string, run *running) {
	t.open = append(t.open, run)
	t.begin(ctx, methodListen, params, run)
	t.listen(ctx, run, min(1, len(run.exchange.said)))
}

// listen waits until n messages have come on a subscription, or its end.
func (t *verifyTalk) listen(ctx context.Context, run *running, n int) {
	t.patiently(ctx, t.v.o.Timeout, run, func() bool { return run.response != nil || run.flooded || len(run.heard) >= n })
}

// unsubscribe waits until as much came on a subscription as is on the tape, and ends it, unless it has ended.
func (t *verifyTalk) unsubscribe(ctx context.Context, x *verifyExchange) {
	i := slices.IndexFunc(t.open, func(run *running) bool { return run.exchange == x })
	if i < 0 {
		return
	}
	run := t.open[i]
	if t.listen(ctx, run, len(x.said)); ctx.Err() != nil {
		return
	}
	t.open = slices.Delete(t.open, i, i+1)
	t.sequence(run)
	switch r := run.response; {
	case r == nil:
		t.cancel(ctx, run)
	case r.Refusal != nil:
		run.check.fail(outcomeMissing, refusalText(r.Refusal))
	case r.Error != "":
		run.check.diffs = append(run.check.diffs, Difference{Pointer{"error"}, absent{}, decodeJSON(redactedBy(t.v.o.Redact, r).Error)})
	}
}

// answered compares the answer to run with the recorded one.
func (t *verifyTalk) answered(m *Message, run *running) {
	x, check, live := run.exchange, run.check, run.response
	t.sequence(run)
	switch {
	case live == nil && run.flooded:
		check.fail(outcomeExtra, "given up")
	case x.ended && live == nil:
		return // as then: nobody waits for an answer
	case live == nil:
		check.fail(outcomeMissing, "no answer")
	case live.Refusal != nil && live.Refusal.Code == 504:
		check.fail(outcomeTimeout, fmt.Sprintf("no answer and no progress within %v", t.v.o.Timeout))
	case live.Refusal != nil:
		check.fail(outcomeMissing, refusalText(live.Refusal))
	case x.response.size == 0:
		check.diffs = append(check.diffs, Difference{Pointer{"result"}, absent{}, "an answer, before the client cancelled the call"})
	case t.bridged() && t.live == eraSession && x.continued:
		x.live = live // compared with what the call is answered that brings the input
	default:
		t.contrast(m, check, t.v.message(x.response), live)
	}
	if check.Outcome != "" {
		t.lose(x)
	}
}

// handshake is the call that begins a conversation in the era live, with what the client on the tape said.
func (s *verifySession) handshake(live string) (method, params string) {
	meta := member(s.hello, "_meta")
	info := cmp.Or(member(s.hello, "clientInfo"), member(meta, protocolMeta+"clientInfo"), `{"name":"mcpproxy","version":"`+version+`"}`)
	abilities := cmp.Or(member(s.hello, "capabilities"), member(meta, protocolMeta+"clientCapabilities"), "{}")
	if live == eraStateless {
		return methodDiscover, `{"_meta":{"` + protocolMeta + `protocolVersion":"` + statelessRevision +
			`","` + protocolMeta + `clientInfo":` + info + `,"` + protocolMeta + `clientCapabilities":` + abilities + `}}`
	}
	revision := cmp.Or(member(s.hello, "protocolVersion"), quote(newestSession))
	return methodInitialize, `{"protocolVersion":` + revision + `,"capabilities":` + abilities + `,"clientInfo":` + info + `}`
}

// inOtherEra is a call of the tape as a server of the other era has it; the method is "" if that has no such call.
func (t *verifyTalk) inOtherEra(method, params string) (string, string) {
	none := []string{methodPing, methodSetLevel, methodListen, "resources/subscribe", "resources/unsubscribe"}
	if slices.Contains(none, method) || method == methodDiscover && t.live == eraStateless { // of a client that went on in the older one
		return "", ""
	}
	_, hello := t.plan.handshake(eraStateless)
	return method, inEra(params, member(hello, "_meta"), t.live)
}

// inEra returns params with the members of hello in _meta, or, for a server of the older revisions, without them.
func inEra(params, hello, live string) string {
	if live == eraStateless {
		params = withMember(cmp.Or(params, "{}"), "_meta", "{}")
	}
	meta := member(params, "_meta")
	if !strings.HasPrefix(meta, "{") {
		return params
	}
	for _, key := range [...]string{"protocolVersion", "clientInfo", "clientCapabilities", "logLevel"} {
		key = protocolMeta + key
		if value := member(hello, key); live == eraSession {
			meta = withoutMember(meta, key)
		} else if value != "" {
			meta = withMember(meta, key, value)
		}
	}
	if meta == "{}" {
		return withoutMember(params, "_meta")
	}
	return replace(params, meta, "_meta")
}

// withInput makes a call to a server of 2026-07-28. What that asks in its answer is answered as the client on the tape
// answered the server's requests.
func (t *verifyTalk) withInput(ctx context.Context, method, params string, run *running) {
	round := params
	for range maxInputAsked {
		run.response = nil
		if t.exchange(ctx, method, round, run); run.response == nil || !asksForInput(run.response.Result) {
			return
		}
		responses := t.inputs(run)
		if responses == "" {
			return
		}
		round = withMember(params, "inputResponses", responses)
		if state := member(run.response.Result, "requestState"); state != "" {
			round = withMember(round, "requestState", state)
		}
	}
}

// inputs answers what the server asks in its answer to run, "" if there is something that is not on the tape.
func (t *verifyTalk) inputs(run *running) (responses string) {
	responses = "{}"
	eachMember(member(run.response.Result, "inputRequests"), func(key, request string) {
		method, _ := unquote(member(request, "method"))
		run.hear(method)
		q := t.recorded(method, run)
		if q == nil || responses == "" {
			responses = ""
			return
		}
		q.used = true
		_, answer := t.v.question(q)
		responses = withMember(responses, key, cmp.Or(member(answer, "result"), "{}"))
	})
	return responses
}

// skips says why a recorded call is not made again, "" if it is.
func (t *verifyTalk) skips(x *verifyExchange, m *Message) string {
	switch {
	case x.local:
		return "the proxy had refused it"
	case m.Method == "tools/call" && !t.v.o.AllowDestructive && !t.v.readOnly[m.Name] && !slices.Contains(t.v.o.Allow, m.Name):
		return "not recorded with readOnlyHint: true; see -allow and -allow-destructive"
	case x.listens: // it ends without an answer, or with one of the proxy
	case x.refused:
		return "the proxy had answered it, not the server"
	case x.headers:
		return "refused for its HTTP headers, which are not on the tape"
	case x.response.size == 0 && !x.ended:
		return "no answer on the tape"
	}
	if m.Method == methodInitialize {
		return ""
	}
	return t.carried.lacks(m.Params)
}

// lose notes which values there are none of because there is no live answer to a call.
func (t *verifyTalk) lose(x *verifyExchange) { t.carried.lose(t.v.message(x.response).Result) }
