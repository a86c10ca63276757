// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	demoMaxLine = 64 << 20 // bytes; a longer line ends the conversation
	demoWaiting = 128      // calls that may wait at once: countdowns and questions
	demoMeta    = "io.modelcontextprotocol/"

	demoInfo   = `{"name":"mcpproxy-demo","version":"1.0.0"}`
	demoReadme = "The demo server built into mcpproxy, to try things out with. Nothing it does has an effect " +
		"outside the conversation. Its tools are echo, add, countdown, ask and fail; its prompt is greet; its resource is demo://readme."
	demoAbilities = `"capabilities":{"prompts":{},"resources":{},"tools":{}},"instructions":"` + demoReadme + `"`
	demoPrompts   = `[{"name":"greet","description":"Asks for a greeting.","arguments":[{"name":"name","required":true}]}]`
	demoQuestion  = `{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}`
	demoTools     = `[
{"name":"echo","description":"Returns its text unchanged.","annotations":{"readOnlyHint":true},
 "inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}},
{"name":"add","description":"Adds two numbers.","annotations":{"readOnlyHint":true},
 "inputSchema":{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"]},
 "outputSchema":{"type":"object","properties":{"sum":{"type":"number"}},"required":["sum"]}},
{"name":"countdown","description":"Counts down and reports progress.",
 "annotations":{"readOnlyHint":true},"inputSchema":{"type":"object","required":["from"],"properties":{
 "from":{"type":"integer","minimum":0,"maximum":10000},
 "everyMs":{"type":"integer","minimum":0,"maximum":3600000,"default":0,"description":"milliseconds for each step"}}}},
{"name":"ask","description":"Asks the client a question and returns the answer.","annotations":{"readOnlyHint":true},
 "inputSchema":{"type":"object","properties":{"question":{"type":"string"}},"required":["question"]}},
{"name":"fail","description":"Fails: as a tool, or by a JSON-RPC error if protocol is true.",
 "annotations":{"readOnlyHint":true},"inputSchema":{"type":"object","required":["message"],"properties":{
 "message":{"type":"string"},"protocol":{"type":"boolean","default":false}}}}]`
)

// A demoCall is a request of the client, of 2026-07-28 if it has a Revision. The last two fields say
// what keeps it waiting.
type demoCall struct {
	*Message
	caps string // JSON text of the client's capabilities

	cancel context.CancelFunc // ends the countdown
	asked  string             // JSON text of the id of the elicitation request
}

// param returns the JSON text of a value in params, "" if it is absent.
func (c *demoCall) param(path ...string) string {
	start, end, _ := locate(c.Params, path...)
	return c.Params[start:end]
}

// A demoServer is one conversation. All its methods but line need s.mu.
type demoServer struct {
	ctx     context.Context // lives as long as the conversation
	stop    context.CancelCauseFunc
	running sync.WaitGroup // of countdowns

	mu       sync.Mutex // protects following, and serialises writes to out
	out      io.Writer
	revision string               // agreed on by initialize, "" before
	caps     string               // from initialize
	asked    int                  // elicitation requests sent
	waiting  map[string]*demoCall // by the JSON text of the id
}

// serveDemo is an MCP server for revisions 2024-11-05 to 2026-07-28, one message a line on in and
// out. It returns nil once in has ended and every call is answered; or the error of in, out or ctx
// (its cause), and then leaves calls unanswered. It waits for what it started, but one goroutine
// stays in in.Read after an error until that returns. A Write that blocks is not interrupted.
func serveDemo(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &demoServer{ctx: ctx, stop: stop, out: out, waiting: map[string]*demoCall{}}
	ended := make(chan error, 1)
	go func() { // ends with in
		ended <- readLines(in, demoMaxLine, s.line, func(string) {
			stop(fmt.Errorf("demo server: line longer than %d bytes", demoMaxLine))
		})
	}()
	select {
	case <-ctx.Done():
	case err := <-ended:
		if err != nil {
			stop(fmt.Errorf("demo server: read: %w", err))
		}
	}
	s.mu.Lock() // from here on, line does nothing if ctx is over
	for _, id := range slices.Sorted(maps.Keys(s.waiting)) {
		if c := s.waiting[id]; c.asked != "" && ctx.Err() == nil {
			s.fail(c, "the client hung up before it answered")
		}
	}
	s.mu.Unlock()
	s.running.Wait()
	return context.Cause(ctx)
}

func (s *demoServer) line(text string, _ bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	texts := []string{text}
	if s.revision == batchRevision {
		if batch, err := splitBatch(text, maxBatch); err == nil {
			texts = batch
		}
	}
	for _, text := range texts {
		if s.ctx.Err() == nil {
			s.message(text)
		}
	}
}

func (s *demoServer) message(text string) {
	m, err := Parse(text)
	var fault *ParseError
	switch c := (&demoCall{Message: m, caps: s.caps}); {
	case errors.As(err, &fault) && fault.Code == codeInvalid && member(text, "error") != "":
		// an error gets no answer, whatever is wrong with it
	case fault != nil:
		s.refuse(fault.ID, fault.Code, fault.Reason, "")
	case err != nil:
		s.refuse("", codeInvalid, err.Error(), "")
	case m.Kind == Response:
		s.answered(m)
	case m.Kind == Call:
		s.call(c)
	case m.Method == methodCancelled: // the other notifications change nothing here
		s.cancelled(c.param("requestId"))
	}
}

// call checks c in its era's way; both may be on one connection (2026-07-28, versioning).
func (s *demoServer) call(c *demoCall) {
	meta, stateless := c.param("_meta"), c.Revision != ""
	if stateless {
		c.caps = member(meta, demoMeta+"clientCapabilities")
	}
	switch {
	case c.Params != "" && c.Params[0] != '{' || meta != "" && meta[0] != '{':
		s.refuse(c.ID, codeParams, "params and _meta must be objects", "")
	case s.waiting[c.ID] != nil:
		s.refuse(c.ID, codeInvalid, "a call with this id is in flight", "")
	case stateless && c.Revision != statelessRevision:
		data := `{"requested":` + quote(c.Revision) + `,"supported":["` + statelessRevision + `"]}`
		s.refuse(c.ID, codeVersion, "Unsupported protocol version", data)
	case stateless && !strings.HasPrefix(c.caps, "{"),
		!stateless && s.revision == "" && c.Method != methodInitialize && c.Method != "ping":
		s.refuse(c.ID, codeParams, "send initialize first, or put "+demoMeta+"protocolVersion and clientCapabilities into _meta", "")
	case strings.HasSuffix(c.Method, "/list") && c.param("cursor") != "":
		s.refuse(c.ID, codeParams, "unknown cursor", "") // every list here has one page
	case c.Method == "tools/call":
		s.callTool(c)
	case stateless && c.Method == "server/discover":
		s.answer(c, demoAbilities+`,"supportedVersions":["`+statelessRevision+`"]`)
	case !stateless && c.Method == methodInitialize:
		s.initialize(c)
	case !stateless && c.Method == "ping":
		s.answer(c, "")
	default:
		s.read(c)
	}
}

func (s *demoServer) initialize(c *demoCall) {
	revision, isText := unquote(c.param("protocolVersion"))
	if !isText {
		s.refuse(c.ID, codeParams, "no protocolVersion", "")
		return
	}
	if !slices.Contains([]string{"2024-11-05", batchRevision, "2025-06-18"}, revision) {
		revision = "2025-11-25"
	}
	s.revision, s.caps = revision, c.param("capabilities")
	s.answer(c, demoAbilities+`,"protocolVersion":"`+revision+`","serverInfo":`+demoInfo)
}

// read answers the methods for what does not change.
func (s *demoServer) read(c *demoCall) {
	who, named := unquote(c.param("arguments", "name"))
	switch {
	case c.Method == "tools/list":
		s.answer(c, `"tools":`+strings.ReplaceAll(demoTools, "\n", ""))
	case c.Method == "prompts/list":
		s.answer(c, `"prompts":`+demoPrompts)
	case c.Method == "resources/list":
		s.answer(c, `"resources":[{"uri":"demo://readme","name":"readme","mimeType":"text/plain"}]`)
	case c.Method == "resources/templates/list":
		s.answer(c, `"resourceTemplates":[]`)
	case c.Method == "resources/read" && c.URI == "demo://readme":
		s.answer(c, `"contents":[{"mimeType":"text/plain","text":"`+demoReadme+`","uri":"demo://readme"}]`)
	case c.Method == "resources/read":
		code := codeParams
		if c.Revision == "" {
			code = -32002 // until 2025-11-25
		}
		s.refuse(c.ID, code, "Resource not found", `{"uri":`+quote(c.URI)+`}`)
	case c.Method == "prompts/get" && c.Name == "greet" && named:
		text := quote("Please greet " + who + ".")
		s.answer(c, `"messages":[{"content":{"text":`+text+`,"type":"text"},"role":"user"}]`)
	case c.Method == "prompts/get":
		s.refuse(c.ID, codeParams, "the only prompt is greet, with the argument name", "")
	default:
		s.refuse(c.ID, codeMethodNotFound, fmt.Sprintf("unknown method %.100q", c.Method), "")
	}
}

func (s *demoServer) callTool(c *demoCall) {
	args, text := c.param("arguments"), c.param("arguments", "text")
	message, isText := unquote(c.param("arguments", "message"))
	switch {
	case args != "" && args[0] != '{':
		s.refuse(c.ID, codeParams, "arguments must be an object", "")
	case c.Name == "echo" && strings.HasPrefix(text, `"`):
		s.answer(c, demoText(text)) // as written: decoding changes half a surrogate pair
	case c.Name == "echo":
		s.fail(c, "text must be a string")
	case c.Name == "add":
		x, errX := strconv.ParseFloat(member(args, "a"), 64)
		y, errY := strconv.ParseFloat(member(args, "b"), 64)
		sum, err := json.Marshal(x + y)
		if errX != nil || errY != nil || err != nil {
			s.fail(c, "a, b and their sum must be numbers of 64 bits")
		} else {
			s.answer(c, demoText(quote(string(sum)))+`,"structuredContent":{"sum":`+string(sum)+`}`)
		}
	case c.Name == "countdown":
		s.countdown(c)
	case c.Name == "ask":
		s.ask(c, c.param("arguments", "question"))
	case c.Name == "fail" && !isText:
		s.fail(c, "message must be a string")
	case c.Name == "fail" && member(args, "protocol") == "true":
		s.refuse(c.ID, -32603, message, `{"tool":"fail"}`)
	case c.Name == "fail":
		s.fail(c, message)
	default:
		s.refuse(c.ID, codeParams, fmt.Sprintf("unknown tool %.100q", c.Name), "")
	}
}

// countdown answers c in its own time, so that a cancellation can be read meanwhile.
func (s *demoServer) countdown(c *demoCall) {
	from, errFrom := strconv.Atoi(c.param("arguments", "from"))
	ms, errMs := strconv.Atoi(cmp.Or(c.param("arguments", "everyMs"), "0"))
	if errFrom != nil || errMs != nil || from < 0 || from > 10000 || ms < 0 || ms > 3600000 {
		s.fail(c, "from must be an integer from 0 to 10000, everyMs one from 0 to 3600000")
		return
	}
	if !s.wait(c) {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	c.cancel = cancel
	s.running.Go(func() {
		defer cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := 1; i <= from && ctx.Err() == nil; i++ {
			s.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(ms) * time.Millisecond):
			}
			s.mu.Lock()
			if ctx.Err() == nil && c.Token != "" && (c.Token[0] == '"' || isNumber(c.Token[0])) {
				s.notify(methodProgress, fmt.Sprintf(`"message":"%d","progress":%d,"progressToken":%s,"total":%d`,
					from-i, i, c.Token, from))
			}
		}
		if ctx.Err() == nil {
			s.answer(c, demoText(fmt.Sprintf(`"counted down from %d"`, from)))
		}
	})
}

// ask sends a client of an older revision a request. From 2026-07-28 on it asks for a retry with
// the answer; requestState, which is the question, ties that to it.
func (s *demoServer) ask(c *demoCall, question string) {
	modes := member(c.caps, "elicitation") // without a mode it means form mode
	can := strings.HasPrefix(modes, "{") && (member(modes, "form") != "" || member(modes, "url") == "")
	elicit := `"method":"elicitation/create","params":{"message":` + question + `,"requestedSchema":` + demoQuestion + `}`
	responses, response := c.param("inputResponses"), c.param("inputResponses", "answer")
	state := c.param("requestState")
	result, answered := demoElicited(response)
	switch {
	case !strings.HasPrefix(question, `"`):
		s.fail(c, "question must be a string")
	case !can && c.Revision != "":
		s.refuse(c.ID, -32021, "ask requires the elicitation capability", `{"requiredCapabilities":{"elicitation":{}}}`)
	case !can:
		s.fail(c, "the client did not declare the elicitation capability")
	case c.Revision == "":
		if s.wait(c) {
			s.asked++
			c.asked = fmt.Sprintf(`"ask-%d"`, s.asked)
			s.write(`"id":` + c.asked + `,` + elicit)
		}
	case responses != "" && responses[0] != '{' || response != "" && !answered:
		s.refuse(c.ID, codeParams, "inputResponses has no elicitation result", "")
	case (answered || state != "") && canonicalID(state) != canonicalID(question):
		s.refuse(c.ID, codeParams, "requestState does not belong to this question", "")
	case answered:
		s.answer(c, result)
	default:
		s.result(c, `"inputRequests":{"answer":{`+elicit+`}},"requestState":`+question+`,"resultType":"input_required"`)
	}
}

// demoElicited is the tool result that says what the ElicitResult in text does.
func demoElicited(text string) (result string, ok bool) {
	action, _ := unquote(member(text, "action"))
	answer, isText := unquote(member(member(text, "content"), "answer"))
	if action == "accept" {
		return demoText(quote("the client answered: " + answer)), isText
	}
	return demoText(quote("the client did not answer: " + action)), action == "decline" || action == "cancel"
}

// answered takes the client's response to an elicitation request.
func (s *demoServer) answered(m *Message) {
	for _, c := range s.waiting {
		if c.asked == "" || c.asked != m.ID {
			continue
		}
		if result, ok := demoElicited(m.Result); ok {
			s.answer(c, result)
		} else {
			s.fail(c, "the client's response is no elicitation result")
		}
	}
}

// cancelled ends a waiting call without an answer.
func (s *demoServer) cancelled(id string) {
	c := s.waiting[id]
	delete(s.waiting, id)
	if c != nil && c.cancel != nil {
		c.cancel()
	} else if c != nil {
		s.notify(methodCancelled, `"requestId":`+c.asked)
	}
}

// wait books c as waiting, or refuses it if too many calls are.
func (s *demoServer) wait(c *demoCall) bool {
	if len(s.waiting) >= demoWaiting {
		s.refuse(c.ID, -32603, "too many calls in flight", "")
		return false
	}
	s.waiting[c.ID] = c
	return true
}

// answer answers c with these members of the result, JSON text.
func (s *demoServer) answer(c *demoCall, members string) {
	if c.Revision != "" {
		members += `,"resultType":"complete"`
		if cacheable(c.Method) {
			members = `"cacheScope":"public",` + members + `,"ttlMs":3600000`
		}
	}
	s.result(c, members)
}

func (s *demoServer) result(c *demoCall, members string) {
	delete(s.waiting, c.ID)
	if c.Revision != "" {
		members = `"_meta":{"` + demoMeta + `serverInfo":` + demoInfo + `},` + members
	}
	s.write(`"id":` + c.ID + `,"result":{` + members + `}`)
}

// fail answers c with an error of the tool.
func (s *demoServer) fail(c *demoCall, text string) {
	s.answer(c, demoText(quote(text))+`,"isError":true`)
}

// refuse answers a call that does not wait with a JSON-RPC error; an id or data of "" is left out.
func (s *demoServer) refuse(id string, code int, message, data string) {
	if id != "" {
		id = `"id":` + id + `,`
	}
	if data != "" {
		data = `"data":` + data + `,`
	}
	s.write(fmt.Sprintf(`%s"error":{"code":%d,%s"message":%s}`, id, code, data, quote(message)))
}

func (s *demoServer) notify(method, params string) {
	s.write(`"method":"` + method + `","params":{` + params + `}`)
}

// write writes a message, of which these are all members but jsonrpc. An error ends the conversation.
func (s *demoServer) write(members string) {
	if _, err := io.WriteString(s.out, `{"jsonrpc":"2.0",`+members+"}\n"); err != nil {
		s.stop(fmt.Errorf("demo server: write: %w", err))
	}
}

// demoText is a tool result of one text, given as JSON.
func demoText(text string) string { return `"content":[{"text":` + text + `,"type":"text"}]` }
