// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

const demoTools = `[
{"name":"echo","description":"Returns its text unchanged.","annotations":{"readOnlyHint":true},
 "inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}},
{"name":"add","description":"Adds two numbers.","annotations":{"readOnlyHint":true},
 "inputSchema":{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"]},
 "outputSchema":{"type":"object","properties":{"sum":{"type":"number"}},"required":["sum"]}},
{"name":"countdown","description":"Counts down and reports progress. Announces, if asked to, a change of the list of tools.",
 "annotations":{"readOnlyHint":true},"inputSchema":{"type":"object","required":["from"],"properties":{
 "from":{"type":"integer","minimum":0,"maximum":10000},"announce":{"type":"boolean","default":false},
 "everyMs":{"type":"integer","minimum":0,"maximum":3600000,"default":0,"description":"milliseconds for each step"}}}},
{"name":"ask","description":"Asks the client a question and returns the answer.","annotations":{"readOnlyHint":true},
 "inputSchema":{"type":"object","properties":{"question":{"type":"string"}},"required":["question"]}},
{"name":"fail","description":"Fails: as a tool, or by a JSON-RPC error if protocol is true.",
 "annotations":{"readOnlyHint":true},"inputSchema":{"type":"object","required":["message"],"properties":{
 "message":{"type":"string"},"protocol":{"type":"boolean","default":false}}}}]`

func (s *demoServer) callTool(c *demoCall, name string) {
	args := demoParse(c.params["arguments"])
	message, isText := demoString(args["message"])
	switch {
	case args == nil && c.params["arguments"] != nil:
		s.refuse(c, codeParams, "arguments must be an object", nil)
	case name == "echo":
		if _, isText := demoString(args["text"]); isText {
			s.answer(c, demoText(args["text"])) // as written: decoding changes half a surrogate pair
		} else {
			s.fail(c, "text must be a string")
		}
	case name == "add":
		s.add(c, string(args["a"]), string(args["b"]))
	case name == "countdown":
		s.countdown(c, args)
	case name == "ask":
		s.ask(c, args["question"])
	case name == "fail" && isText && string(args["protocol"]) == "true":
		s.refuse(c, -32603, message, demoAny{"tool": name})
	case name == "fail" && isText:
		s.fail(c, message)
	case name == "fail":
		s.fail(c, "message must be a string")
	default:
		s.refuse(c, codeParams, fmt.Sprintf("unknown tool %.100q", name), nil)
	}
}

// add adds two JSON texts, exactly if they and the sum are integers of 64 bits.
func (s *demoServer) add(c *demoCall, a, b string) {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	sum, err := json.Marshal(x + y)
	if errX != nil || errY != nil || err != nil {
		s.fail(c, "a, b and their sum must be numbers of 64 bits")
		return
	}
	i, errX := strconv.ParseInt(a, 10, 64)
	j, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil && (i+j > i) == (j > 0) {
		sum = strconv.AppendInt(nil, i+j, 10)
	}
	result := demoText(string(sum))
	result["structuredContent"] = demoObject{"sum": sum}
	s.answer(c, result)
}

func (s *demoServer) countdown(c *demoCall, args demoObject) {
	if args["everyMs"] == nil && args != nil {
		args["everyMs"] = json.RawMessage("0")
	}
	from, errFrom := strconv.ParseUint(string(args["from"]), 10, 64)
	ms, errMs := strconv.ParseUint(string(args["everyMs"]), 10, 64)
	if errFrom != nil || errMs != nil || from > 10000 || ms > 3600000 {
		s.fail(c, "from must be an integer from 0 to 10000, everyMs one from 0 to 3600000")
		return
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(s.ctx)
	every, announce := time.Duration(ms)*time.Millisecond, string(args["announce"]) == "true"
	switch {
	case !s.wait(c):
		c.cancel()
	case ms == 0 || from == 0:
		s.count(ctx, c, int(from), every, announce)
	default:
		s.running.Go(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.count(ctx, c, int(from), every, announce)
		})
	}
}

// count answers c after from steps, unless ctx ends before. It lets go of s.mu between steps.
func (s *demoServer) count(ctx context.Context, c *demoCall, from int, every time.Duration, announce bool) {
	defer c.cancel()
	token := demoID(c.meta["progressToken"])
	for i := 1; i <= from; i++ {
		if every > 0 {
			s.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(every):
			}
			s.mu.Lock()
		}
		if ctx.Err() != nil {
			return
		}
		if token != nil {
			s.write(demoMessage{Method: methodProgress, Params: demoAny{
				"progressToken": token, "progress": i, "total": from, "message": strconv.Itoa(from - i)}})
		}
	}
	changed := demoMessage{Method: "notifications/tools/list_changed"}
	if announce && s.revision != "" {
		s.write(changed)
	}
	for _, id := range slices.Sorted(maps.Keys(s.waiting)) {
		if announce && s.waiting[id].tools {
			changed.Params = demoAny{"_meta": demoObject{subscriptionID: s.waiting[id].id}}
			s.write(changed)
		}
	}
	s.answer(c, demoText(fmt.Sprintf("counted down from %d", from)))
}

// ask sends a client of an older revision a request. From 2026-07-28 on it asks for a retry with
// the answer. It does not authenticate requestState, which ties that to the question: a forged one
// can do no more than fail.
func (s *demoServer) ask(c *demoCall, question json.RawMessage) {
	modes := demoParse(c.caps["elicitation"]) // without a mode it means form mode
	can := modes != nil && (modes["form"] != nil || modes["url"] == nil)
	m := demoMessage{Method: "elicitation/create", Params: demoAny{"message": question, "requestedSchema": json.RawMessage(
		`{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}`)}}
	text, isText := demoString(question)
	responses, state := demoParse(c.params["inputResponses"]), fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	echoed, _ := demoString(c.params["requestState"])
	result, answered := demoElicited(responses["answer"])
	switch {
	case !isText:
		s.fail(c, "question must be a string")
	case !can && c.modern:
		required := json.RawMessage(`{"requiredCapabilities":{"elicitation":{}}}`)
		s.refuse(c, -32021, "ask requires the elicitation capability", required)
	case !can:
		s.fail(c, "the client did not declare the elicitation capability")
	case !c.modern && s.wait(c):
		s.asked++
		m.ID = strconv.AppendQuote(nil, "ask-"+strconv.Itoa(s.asked))
		c.asked = string(m.ID)
		s.write(m)
	case !c.modern: // refused
	case c.params["inputResponses"] != nil && responses == nil || responses["answer"] != nil && !answered:
		s.refuse(c, codeParams, "inputResponses has no elicitation result", nil)
	case (answered || c.params["requestState"] != nil) && echoed != state:
		s.refuse(c, codeParams, "requestState does not belong to this question", nil)
	case answered:
		s.answer(c, result)
	default:
		requests := demoAny{"answer": demoAny{"method": m.Method, "params": m.Params}}
		s.answer(c, demoAny{"resultType": "input_required", "inputRequests": requests, "requestState": state})
	}
}

// demoElicited is the tool result that says what the ElicitResult in text does.
func demoElicited(text json.RawMessage) (result demoAny, ok bool) {
	m := demoParse(text)
	action, _ := demoString(m["action"])
	answer, isText := demoString(demoParse(m["content"])["answer"])
	if action == "accept" {
		return demoText("the client answered: " + answer), isText
	}
	return demoText("the client did not answer: " + action), action == "decline" || action == "cancel"
}

// answered takes the client's response to an elicitation request; result is nil if it is an error.
func (s *demoServer) answered(id string, result json.RawMessage) {
	for _, c := range s.waiting {
		if c.asked == "" || c.asked != id {
			continue
		}
		if result, ok := demoElicited(result); ok {
			s.answer(c, result)
		} else {
			s.fail(c, "the client's response is no elicitation result")
		}
	}
}

// demoText is a tool result of one text: a string, or its JSON text.
func demoText(text any) demoAny {
	return demoAny{"content": []any{demoAny{"type": "text", "text": text}}}
}
