// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	demoLineBytes = 64 << 20 // a longer line ends the conversation
	demoWaiting   = 128      // calls that may wait at once: countdowns, questions, subscriptions
	demoMeta      = "io.modelcontextprotocol/"

	demoInfo   = `{"name":"mcpproxy-demo","version":"1.0.0"}`
	demoReadme = "The demo server built into mcpproxy, to try things out with. Nothing it does has an effect " +
		"outside the conversation. Its tools are echo, add, countdown, ask and fail; its prompt is greet."
	demoResources = `[{"uri":"demo://readme","name":"readme","mimeType":"text/plain"}]`
	demoPrompts   = `[{"name":"greet","description":"Asks for a greeting.","arguments":[{"name":"name","required":true}]}]`
)

type demoAny map[string]any

// A demoObject is a JSON object. Unlike a struct it keeps keys apart that differ in case only.
type demoObject map[string]json.RawMessage

type demoMessage struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  demoAny         `json:"result,omitzero"`
	Error   demoAny         `json:"error,omitzero"`
}

// A demoCall is a request of the client. The fields from cancel on say what keeps it waiting.
type demoCall struct {
	id           json.RawMessage
	method       string
	params, meta demoObject
	modern       bool       // made with the metadata that requests have since 2026-07-28
	caps         demoObject // the client's capabilities

	cancel context.CancelFunc // ends the countdown
	asked  string             // JSON text of the id of the elicitation request
	tools  bool               // the subscription wants notifications/tools/list_changed
}

// A demoServer is one conversation. All its methods but read need s.mu. One goroutine handles
// what the client says; only countdowns that take time have their own, so that what waits never
// keeps a cancellation or an answer from being read.
type demoServer struct {
	ctx     context.Context // lives as long as the conversation
	stop    context.CancelCauseFunc
	running sync.WaitGroup

	mu       sync.Mutex // protects following, and serialises writes to out
	out      io.Writer
	revision string               // agreed on by initialize, "" before
	caps     demoObject           // from initialize
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
	lines := make(chan []byte)
	go s.read(in, lines)
	for more := true; more; {
		select {
		case <-ctx.Done():
			more = false
		case line, ok := <-lines:
			s.mu.Lock()
			if more = ok; ok {
				s.line(bytes.TrimSpace(line))
			} else {
				s.hangUp()
			}
			s.mu.Unlock()
		}
	}
	s.running.Wait()
	return context.Cause(ctx)
}

// read hands over what in has, line by line, and closes lines when it ends.
func (s *demoServer) read(in io.Reader, lines chan<- []byte) {
	limited := &io.LimitedReader{R: in}
	r := bufio.NewReader(limited)
	for {
		limited.N = demoLineBytes
		line, err := r.ReadBytes('\n')
		switch {
		case limited.N <= 0:
			s.stop(fmt.Errorf("demo server: line longer than %d bytes", demoLineBytes))
			return
		case err != nil && err != io.EOF:
			s.stop(fmt.Errorf("demo server: read: %w", err))
			return
		}
		select {
		case lines <- line:
		case <-s.ctx.Done():
			return
		}
		if err != nil {
			close(lines)
			return
		}
	}
}

func (s *demoServer) line(text json.RawMessage) {
	var batch []json.RawMessage
	switch {
	case len(text) == 0:
	case !json.Valid(text) || !utf8.Valid(text):
		s.refuse(&demoCall{}, codeParse, "not JSON", nil)
	case s.revision == "2025-03-26" && json.Unmarshal(text, &batch) == nil && len(batch) > 0:
		// Only 2025-03-26 has batches: "implementations MUST support receiving JSON-RPC batches".
		for _, m := range batch {
			s.message(m)
		}
	default:
		s.message(text)
	}
}

func (s *demoServer) message(text json.RawMessage) {
	m := demoParse(text)
	version, _ := demoString(m["jsonrpc"])
	method, isMethod := demoString(m["method"])
	c := &demoCall{id: demoID(m["id"]), method: method, params: demoParse(m["params"])}
	c.meta = demoParse(c.params["_meta"])
	switch {
	case m["method"] == nil && (m["result"] != nil || m["error"] != nil):
		s.answered(string(c.id), m["result"]) // a response gets no response, whatever is wrong with it
	case version != "2.0" || !isMethod || m["id"] != nil && c.id == nil:
		s.refuse(c, codeInvalid, "not a message of MCP", nil)
	case c.id == nil && method == methodCancelled:
		s.cancelled(string(c.params["requestId"]))
	case c.id == nil: // the other notifications change nothing here
	case m["params"] != nil && c.params == nil || c.params["_meta"] != nil && c.meta == nil:
		s.refuse(c, codeParams, "params and _meta must be objects", nil)
	default:
		s.call(c)
	}
}

// call finds out in which era's way c is made; both may be on one connection (2026-07-28, versioning).
func (s *demoServer) call(c *demoCall) {
	version, caps := c.meta[demoMeta+"protocolVersion"], c.meta[demoMeta+"clientCapabilities"]
	requested, isText := demoString(version)
	c.modern, c.caps = version != nil || caps != nil || c.meta[demoMeta+"clientInfo"] != nil, s.caps
	if c.modern {
		c.caps = demoParse(caps)
	}
	switch {
	case s.waiting[string(c.id)] != nil:
		s.refuse(c, codeInvalid, "a call with this id is in flight", nil)
	case c.modern && isText && requested != statelessRevision:
		data := demoAny{"supported": []string{statelessRevision}, "requested": version}
		s.refuse(c, codeVersion, "Unsupported protocol version", data)
	case c.modern && isText && c.caps != nil:
		s.modernCall(c)
	case !c.modern && (s.revision != "" || c.method == methodInitialize || c.method == "ping"):
		s.legacyCall(c)
	default:
		s.refuse(c, codeParams, "no initialize before, or no "+demoMeta+"protocolVersion and clientCapabilities in _meta", nil)
	}
}

func (s *demoServer) modernCall(c *demoCall) {
	switch c.method {
	case "server/discover":
		s.answer(c, demoAny{"supportedVersions": []string{statelessRevision}, "instructions": demoReadme,
			"capabilities": json.RawMessage(`{"prompts":{},"resources":{},"tools":{"listChanged":true}}`)})
	case methodListen:
		filter, agreed := demoParse(c.params["notifications"]), demoAny{}
		if filter == nil {
			s.refuse(c, codeParams, "no notifications", nil)
			return
		}
		if c.tools = string(filter["toolsListChanged"]) == "true"; c.tools {
			agreed["toolsListChanged"] = true
		}
		if s.wait(c) {
			s.write(demoMessage{Method: "notifications/subscriptions/acknowledged",
				Params: demoAny{"_meta": demoObject{subscriptionID: c.id}, "notifications": agreed}})
		}
	default:
		s.anyCall(c)
	}
}

func (s *demoServer) legacyCall(c *demoCall) {
	switch c.method {
	case methodInitialize:
		revision, isText := demoString(c.params["protocolVersion"])
		if !isText {
			s.refuse(c, codeParams, "no protocolVersion", nil)
			return
		}
		if !slices.Contains([]string{"2024-11-05", "2025-03-26", "2025-06-18"}, revision) {
			revision = "2025-11-25"
		}
		s.revision, s.caps = revision, demoParse(c.params["capabilities"])
		s.answer(c, demoAny{"protocolVersion": revision, "serverInfo": json.RawMessage(demoInfo), "instructions": demoReadme,
			"capabilities": json.RawMessage(`{"logging":{},"prompts":{},"resources":{},"tools":{"listChanged":true}}`)})
	case "ping":
		s.answer(c, demoAny{})
	case "logging/setLevel":
		levels := []string{"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"}
		if level, _ := demoString(c.params["level"]); !slices.Contains(levels, level) {
			s.refuse(c, codeParams, "unknown log level", nil)
			return
		}
		s.answer(c, demoAny{})
	default:
		s.anyCall(c)
	}
}

// anyCall answers the methods that all revisions have.
func (s *demoServer) anyCall(c *demoCall) {
	name, _ := demoString(c.params["name"])
	uri, _ := demoString(c.params["uri"])
	cursor, _ := demoString(c.params["cursor"])
	who, named := demoString(demoParse(c.params["arguments"])["name"])
	switch {
	case strings.HasSuffix(c.method, "/list") && cursor != "":
		s.refuse(c, codeParams, "unknown cursor", nil) // every list here has one page
	case c.method == "tools/list":
		s.answer(c, demoAny{"tools": json.RawMessage(demoTools)})
	case c.method == "prompts/list":
		s.answer(c, demoAny{"prompts": json.RawMessage(demoPrompts)})
	case c.method == "resources/list":
		s.answer(c, demoAny{"resources": json.RawMessage(demoResources)})
	case c.method == "resources/templates/list":
		s.answer(c, demoAny{"resourceTemplates": []any{}})
	case c.method == "resources/read" && uri == "demo://readme":
		s.answer(c, demoAny{"contents": []any{demoAny{"uri": uri, "mimeType": "text/plain", "text": demoReadme}}})
	case c.method == "resources/read" && !c.modern && uri != "":
		s.refuse(c, -32002, "Resource not found", demoAny{"uri": uri})
	case c.method == "resources/read":
		s.refuse(c, codeParams, "Resource not found", demoAny{"uri": uri})
	case c.method == "prompts/get" && name == "greet" && named:
		text := demoAny{"type": "text", "text": "Please greet " + who + "."}
		s.answer(c, demoAny{"messages": []any{demoAny{"role": "user", "content": text}}})
	case c.method == "prompts/get":
		s.refuse(c, codeParams, "the only prompt is greet, with the argument name", nil)
	case c.method == "tools/call":
		s.callTool(c, name)
	default:
		s.refuse(c, codeMethodNotFound, fmt.Sprintf("unknown method %.100q", c.method), nil)
	}
}

// cancelled ends a waiting call without an answer.
func (s *demoServer) cancelled(id string) {
	c := s.waiting[id]
	delete(s.waiting, id)
	if c != nil && c.cancel != nil {
		c.cancel()
	}
	if c != nil && c.asked != "" {
		s.write(demoMessage{Method: methodCancelled, Params: demoObject{"requestId": json.RawMessage(c.asked)}})
	}
}

// hangUp answers the calls that wait for the client, which says nothing more. Countdowns go on.
func (s *demoServer) hangUp() {
	for _, id := range slices.Sorted(maps.Keys(s.waiting)) {
		switch c := s.waiting[id]; {
		case c.asked != "":
			s.cancelled(id)
			s.fail(c, "the client hung up before it answered")
		case c.cancel == nil:
			// A subscription: "SHOULD respond to the original request with a completion result".
			s.answer(c, demoAny{})
		}
	}
}

// wait books c as waiting, or refuses it if too many calls are.
func (s *demoServer) wait(c *demoCall) bool {
	if len(s.waiting) >= demoWaiting {
		s.refuse(c, -32603, "too many calls in flight", nil)
		return false
	}
	s.waiting[string(c.id)] = c
	return true
}

func (s *demoServer) answer(c *demoCall, result demoAny) {
	delete(s.waiting, string(c.id))
	if c.modern {
		meta := demoObject{demoMeta + "serverInfo": json.RawMessage(demoInfo)}
		result["_meta"] = meta
		if result["resultType"] == nil {
			result["resultType"] = "complete"
		}
		switch c.method {
		case methodListen:
			meta[subscriptionID] = c.id
		case "server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read":
			result["ttlMs"], result["cacheScope"] = 3600000, "public"
		}
	}
	s.write(demoMessage{ID: c.id, Result: result})
}

// fail answers c with an error of the tool.
func (s *demoServer) fail(c *demoCall, text string) {
	result := demoText(text)
	result["isError"] = true
	s.answer(c, result)
}

// refuse answers c, which does not wait, with a JSON-RPC error; nil data is left out.
func (s *demoServer) refuse(c *demoCall, code int, message string, data any) {
	err := demoAny{"code": code, "message": message}
	if data != nil {
		err["data"] = data
	}
	s.write(demoMessage{ID: c.id, Error: err})
}

// write writes m as one line. An error ends the conversation.
func (s *demoServer) write(m demoMessage) {
	m.Version = "2.0"
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false) // ids, tokens and texts go back as they came
	err := e.Encode(m)
	if err == nil {
		_, err = s.out.Write(line.Bytes())
	}
	if err != nil {
		s.stop(fmt.Errorf("demo server: write: %w", err))
	}
}

// demoParse returns nil unless text is an object.
func demoParse(text json.RawMessage) (m demoObject) {
	if json.Unmarshal(text, &m) != nil {
		return nil
	}
	return m
}

func demoString(text json.RawMessage) (t string, ok bool) {
	ok = len(text) > 0 && text[0] == '"' && json.Unmarshal(text, &t) == nil
	return t, ok
}

// demoID returns nil unless text can be an id or a progress token: a string or a number.
func demoID(text json.RawMessage) json.RawMessage {
	if len(text) > 0 && strings.IndexByte(`"-0123456789`, text[0]) >= 0 {
		return text
	}
	return nil
}
