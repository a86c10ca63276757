// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	protocolMeta = "io.modelcontextprotocol/" // begins the keys of _meta that are the protocol's

	probeTimeout  = time.Minute // for a handshake that only shows which era a server speaks
	maxInputAsked = 10          // how often one call may be answered with a question
)

// speaks returns the era in which the server is spoken to for what is on the tape in era: that one if the server knows
// it, else the other one. It finds out in conversations of their own.
func (v *verifier) speaks(ctx context.Context, era string) (string, error) {
	if live := v.spoken[era]; live != "" {
		return live, nil
	}
	other := eraStateless
	if era == eraStateless {
		other = eraSession
	}
	var refused error // by the proxy: no server answered
	answered := false
	for _, live := range [...]string{era, other} {
		m, err := v.probe(ctx, era, live)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case err != nil:
			refused = cmp.Or(refused, err)
		case m.Result != "":
			v.spoken[era] = live
			v.report.Eras = append(v.report.Eras, live)
			return live, nil
		default:
			answered = true
		}
	}
	if !answered {
		return "", &VerifyServerError{refused}
	}
	v.spoken[era] = era // what it says to this is compared
	return era, nil
}

// probe makes the handshake of the era live, for a client that is on the tape in era, and ends the conversation. The
// error says why there is no answer.
func (v *verifier) probe(ctx context.Context, era, live string) (*Message, error) {
	patience := min(probeTimeout, cmp.Or(v.o.Timeout, probeTimeout))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t := v.talk(&verifyPlan{}, era)
	if err := t.dial(ctx); err != nil {
		return nil, err
	}
	defer t.close()
	run := &running{check: &VerifyCheck{}}
	method, params := v.handshake(era, live)
	t.begin(ctx, method, params, run)
	err := t.await(ctx, run, func() bool { return run.response != nil })
	switch {
	case err == context.DeadlineExceeded:
		err = fmt.Errorf("no answer to %s within %v", method, patience)
	case err == nil && run.response.Refusal != nil:
		err = run.response.Refusal
	}
	return run.response, err
}

// handshake is the call that begins a conversation in the era live, with what the client on the tape said in era.
func (v *verifier) handshake(era, live string) (method, params string) {
	hello := v.hello[era]
	meta := member(hello, "_meta")
	info := cmp.Or(member(hello, "clientInfo"), member(meta, protocolMeta+"clientInfo"), `{"name":"mcpproxy","version":"`+version+`"}`)
	abilities := cmp.Or(member(hello, "capabilities"), member(meta, protocolMeta+"clientCapabilities"), "{}")
	if live == eraStateless {
		return methodDiscover, `{"_meta":{"` + protocolMeta + `protocolVersion":"` + statelessRevision +
			`","` + protocolMeta + `clientInfo":` + info + `,"` + protocolMeta + `clientCapabilities":` + abilities + `}}`
	}
	revision := cmp.Or(member(hello, "protocolVersion"), quote(newestSession))
	return methodInitialize, `{"protocolVersion":` + revision + `,"capabilities":` + abilities + `,"clientInfo":` + info + `}`
}

// shake makes the handshake of a conversation that begins without one on the tape.
func (t *verifyTalk) shake(ctx context.Context) error {
	if t.shaken {
		return nil
	}
	t.shaken = true
	method, params := t.v.handshake(t.era, t.live)
	if t.live == eraStateless {
		if t.era != t.live {
			t.meta = inside(member(params, "_meta"))
		}
		return nil
	}
	run := &running{check: &VerifyCheck{}}
	if err := t.exchange(ctx, method, params, run); err != nil {
		return err
	}
	if t.hello = run.response; t.hello == nil || t.hello.Result == "" {
		t.gone = cmp.Or(t.gone, "the server refused the handshake")
		return nil
	}
	t.send(ctx, `{"jsonrpc":"2.0","method":"`+methodInitialized+`"}`)
	return nil
}

// inside is the text of an object without its braces.
func inside(object string) string { return strings.TrimSuffix(strings.TrimPrefix(object, "{"), "}") }

// withMeta returns params with these members in _meta, JSON text, in place of those of the protocol; "" takes those out.
func withMeta(params, members string) string {
	var meta, rest strings.Builder
	meta.WriteString(members)
	eachMember(params, func(key, value string) {
		if key == "_meta" {
			eachMember(value, func(key, value string) {
				if !strings.HasPrefix(key, protocolMeta) {
					appendMember(&meta, key, value)
				}
			})
		} else {
			appendMember(&rest, key, value)
		}
	})
	if meta.Len() > 0 {
		appendMember(&rest, "_meta", "{"+meta.String()+"}")
	}
	if rest.Len() == 0 {
		return params[:0]
	}
	return "{" + rest.String() + "}"
}

func appendMember(b *strings.Builder, key, value string) {
	if b.Len() > 0 {
		b.WriteByte(',')
	}
	b.WriteString(quote(key) + ":" + value)
}

// bridged makes a call to a server that speaks the other era than the tape.
func (t *verifyTalk) bridged(ctx context.Context, m *Message, run *running) error {
	if t.live == eraStateless {
		return t.toStateless(ctx, m, run)
	}
	return t.toSession(ctx, m, run)
}

func (c *VerifyCheck) skip(reason string) { c.failed, c.Reason = outcomeSkipped, reason }

const otherEra = "the era that the server speaks has no such call"

// toStateless makes a call of the older revisions to a server of 2026-07-28. What the server asks in its answer is
// answered as the client on the tape answered the server's requests.
func (t *verifyTalk) toStateless(ctx context.Context, m *Message, run *running) error {
	method, params := m.Method, m.Params
	switch method {
	case methodInitialize:
		t.shaken = true
		method, params = t.v.handshake(t.era, t.live)
		t.meta = inside(member(params, "_meta"))
	case methodSetLevel:
		t.level = member(params, "level")
		run.check.skip(otherEra)
		return nil
	case methodPing, methodDiscover, "resources/subscribe", "resources/unsubscribe":
		run.check.skip(otherEra)
		return nil
	}
	meta := t.meta
	if t.level != "" {
		meta += `,"` + metaLogLevel + `":` + t.level
	}
	params = withMeta(t.carried.apply(params), meta)
	for round := params; ; {
		if err := t.exchange(ctx, method, round, run); err != nil {
			return err
		}
		r := run.response
		if r == nil || !asksForInput(r.Result) || len(run.heard) > maxInputAsked {
			break
		}
		responses, err := t.inputs(r, run)
		if err != nil {
			return err
		}
		if responses == "" {
			break
		}
		round = strings.TrimSuffix(params, "}") + `,"inputResponses":` + responses
		if state := member(r.Result, "requestState"); state != "" {
			round += `,"requestState":` + state
		}
		round += "}"
		run.response = nil
	}
	return t.answered(m, run, run.exchange)
}

// inputs answers what the server asks in its answer r, "" if there is something that is not on the tape.
func (t *verifyTalk) inputs(r *Message, run *running) (responses string, err error) {
	var b strings.Builder
	known := true
	eachMember(member(r.Result, "inputRequests"), func(key, request string) {
		method, _ := unquote(member(request, "method"))
		line, _, wrong := t.recorded(method, run)
		err = cmp.Or(err, wrong)
		run.heard = append(run.heard, heardMessage{method, line != nil})
		if known = known && line != nil && t.plan.answers[line.seq] != nil; !known || err != nil {
			return
		}
		t.used[line] = true
		var answer *Message
		if answer, err = t.v.message(t.plan.answers[line.seq]); err == nil {
			appendMember(&b, key, cmp.Or(answer.Result, "{}"))
		}
	})
	if !known || err != nil {
		return "", err
	}
	return "{" + b.String() + "}", nil
}

// toSession makes a call of 2026-07-28 to a server of an older revision. A call that was answered with a question is
// answered in the end by the server that asks during the call: its answer is that to the call which brought the input.
func (t *verifyTalk) toSession(ctx context.Context, m *Message, run *running) error {
	x := run.exchange
	switch {
	case m.Method == methodListen:
		run.check.skip(otherEra)
		return nil
	case m.Method == methodDiscover:
		run.response = t.hello
		return t.answered(m, run, x)
	}
	if live, asked := t.pending[x.call.seq]; asked {
		if run.response = live; live == nil {
			run.check.skip("asked and answered within another call")
			return nil
		}
		return t.answered(m, run, x)
	}
	if level := member(member(m.Params, "_meta"), metaLogLevel); level != "" && level != t.level {
		t.level = level
		if err := t.exchange(ctx, methodSetLevel, `{"level":`+level+`}`, &running{check: &VerifyCheck{}}); err != nil {
			return err
		}
	}
	last, err := t.asksLater(x, m, run)
	if err != nil {
		return err
	}
	if err := t.exchange(ctx, m.Method, withMeta(t.carried.apply(m.Params), ""), run); err != nil {
		return err
	}
	if last == x {
		return t.answered(m, run, x)
	}
	for method, answers := range run.asked {
		if len(answers) > 0 {
			run.check.diffs = append(run.check.diffs, Difference{Pointer{"result", "inputRequests"}, method, absent{}})
		}
	}
	t.pending[last.call.seq] = run.response
	return nil
}

// asksLater follows a call that was answered with a question on the tape to the one that got the answer, and gives run
// what the client said to the questions. The calls in between have no live answer to be compared with.
func (t *verifyTalk) asksLater(x *verifyExchange, m *Message, run *running) (last *verifyExchange, err error) {
	last = x
	for _, step := range t.plan.steps {
		next := step.exchange
		if next == nil || step.line != nil || next.call.seq <= last.call.seq || last.response == nil {
			continue
		}
		r, err := t.v.message(last.response)
		if err != nil || !asksForInput(r.Result) {
			return last, err
		}
		c, err := t.v.message(next.call)
		if err != nil {
			return nil, err
		}
		responses := member(c.Params, "inputResponses")
		if responses == "" || c.Method != m.Method || c.Name != m.Name || member(c.Params, "requestState") != member(r.Result, "requestState") {
			continue
		}
		if run.asked == nil {
			run.asked = map[string][]string{}
		}
		eachMember(member(r.Result, "inputRequests"), func(key, request string) {
			method, _ := unquote(member(request, "method"))
			run.asked[method] = append(run.asked[method], cmp.Or(member(responses, key), "{}"))
		})
		t.pending[next.call.seq] = nil
		last = next
	}
	return last, nil
}

// skips says why a recorded call is not made again, if it is not.
func (t *verifyTalk) skips(x *verifyExchange, m *Message, check *VerifyCheck) error {
	reason := ""
	switch {
	case x.call.local:
		reason = "the proxy had refused it"
	case m.Method == "tools/call" && !t.v.allowed(m.Name):
		reason = "not recorded with readOnlyHint: true; see -allow and -allow-destructive"
	case x.call.method == methodListen: // it ends without an answer, or with one of the proxy
	case x.response != nil && x.response.local:
		reason = "the proxy had answered it, not the server"
	case x.response == nil && !x.ended:
		reason = "no answer on the tape"
	case m.Method == methodInitialize:
	case hasString(decodeJSON(m.Params), func(s string) bool { return t.lost[s] }):
		reason = "needs a value from an answer that did not come"
	case hasString(decodeJSON(t.carried.apply(m.Params)), placeholder.MatchString):
		reason = "needs a secret that is not on the tape"
	}
	if reason == "" && x.call.http && x.response != nil {
		was, err := t.v.message(x.response)
		if err != nil {
			return err
		}
		if member(was.Error, "code") == "-32020" {
			reason = "refused for its HTTP headers, which are not on the tape"
		}
	}
	if reason == "" {
		return nil
	}
	check.skip(reason)
	t.skipped = true
	return t.lose(x)
}

// allowed reports whether a tool may be called.
func (v *verifier) allowed(tool string) bool {
	if v.o.AllowDestructive || v.readOnly[tool] {
		return true
	}
	for _, name := range v.o.Allow {
		if name == tool {
			return true
		}
	}
	return false
}

// lose notes which values there are none of because there is no live answer to a call.
func (t *verifyTalk) lose(x *verifyExchange) error {
	if x.response == nil {
		return nil
	}
	m, err := t.v.message(x.response)
	if err != nil {
		return fmt.Errorf("what was lost: %w", err)
	}
	eachOpaque(decodeJSON(cmp.Or(m.Result, "null")), func(value string) { t.lost[value] = true })
	return nil
}
