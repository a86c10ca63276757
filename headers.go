// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Beside revisionHeader, the headers that mirror a request's body since revision 2026-07-28 (Streamable HTTP, sections
// "Request Metadata" to "Server Validation"), as [http.Header] spells them.
const (
	headerMethod = "Mcp-Method"
	headerName   = "Mcp-Name"
	headerParam  = "Mcp-Param-" // and the name that the tool's inputSchema gives
)

const (
	annotation    = "x-mcp-header"
	encodedPrefix = "=?base64?"
	encodedSuffix = "?="

	maxAnnotatedTools  = 10_000
	maxAnnotatedParams = 100       // of one tool; HTTP servers take hardly more headers
	maxSafeInteger     = 1<<53 - 1 // "MUST be within the safe range for JavaScript"
)

// isPrintable reports whether s has nothing but printable ASCII; [http.Server] lets bytes above 0x7F pass.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// encodeHeader returns s as the value of Mcp-Name or Mcp-Param-*: as it is if that is safe, else in Base64 between
// markers ("Value Encoding").
func encodeHeader(s string) string {
	marked := strings.HasPrefix(s, encodedPrefix) && strings.HasSuffix(s, encodedSuffix)
	if isPrintable(s) && !marked && s == strings.Trim(s, " ") {
		return s
	}
	return encodedPrefix + base64.StdEncoding.EncodeToString([]byte(s)) + encodedSuffix
}

// decodeHeader returns the text that the value v of Mcp-Name or Mcp-Param-* carries. White space around v is none of
// it. Only what has both markers, in lower case, is Base64.
func decodeHeader(v string) (string, error) {
	v, err := plainHeader(v)
	code, begun := strings.CutPrefix(v, encodedPrefix)
	code, ended := strings.CutSuffix(code, encodedSuffix)
	if err != nil || !begun || !ended {
		return v, err
	}
	text, err := base64.StdEncoding.Strict().DecodeString(code)
	if err != nil {
		return "", errors.New("bad Base64")
	}
	if !utf8.Valid(text) {
		return "", errors.New("Base64 of something that is not UTF-8")
	}
	return string(text), nil
}

// plainHeader returns v without white space around it.
func plainHeader(v string) (string, error) {
	if !isPrintable(strings.ReplaceAll(v, "\t", " ")) {
		return "", errors.New("invalid character")
	}
	return strings.Trim(v, " \t"), nil
}

// mirrorName returns the value in the body of m that Mcp-Name mirrors. It reports false if the method has none, or if
// the body of a method that should have one has no string in its place.
func mirrorName(m *Message) (name string, has bool) {
	switch m.Method {
	case "tools/call", "prompts/get":
		return m.Name, m.Name != "" || member(m.Params, "name") == `""`
	case "resources/read":
		return m.URI, m.URI != "" || member(m.Params, "uri") == `""`
	case "tasks/get", "tasks/update", "tasks/cancel": // the tasks extension
		return unquote(member(m.Params, "taskId"))
	}
	return "", false
}

// A paramTable remembers the x-mcp-header annotations of one server's tools, learned from the tools/list results that
// passed by. The zero value is empty. It may be used concurrently. It holds at most 10,000 tools; tools without
// annotations take no room.
type paramTable struct {
	mu    sync.RWMutex       // protects following
	tools map[string][]param // what is in it is never modified
}

// A param is a property of a tool's arguments that is mirrored.
type param struct {
	path   []string // the keys that lead to it
	header string   // canonical
}

// learn takes in result, the JSON text of a tools/list result. Pages add up; a tool listed again replaces what was
// known of it. bad says for each tool that gets no headers because of its annotations which one it is and why: "Clients
// SHOULD log a warning". It costs one search if there are no annotations, here and earlier. An annotation whose key is
// written with escapes may go unseen.
func (t *paramTable) learn(result string) (bad []string) {
	t.mu.RLock()
	known := len(t.tools) > 0
	t.mu.RUnlock()
	if !known && !strings.Contains(result, annotation) {
		return nil
	}
	list := member(result, "tools")
	tools, _ := splitBatch(list, len(list)) // if it is no list, it is the client who has to complain
	for _, tool := range tools {
		name, ok := unquote(member(tool, "name"))
		if !ok {
			continue
		}
		params, err := toolParams(member(tool, "inputSchema"))
		if err = cmp.Or(err, t.set(name, params)); err != nil {
			bad = append(bad, fmt.Sprintf("tool %.64q: %v", name, err))
		}
	}
	return bad
}

// set replaces what is known of a tool.
func (t *paramTable) set(name string, params []param) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tools, name)
	if len(params) == 0 {
		return nil
	}
	if len(t.tools) >= maxAnnotatedTools {
		return fmt.Errorf("more than %d tools have annotations", maxAnnotatedTools)
	}
	if t.tools == nil {
		t.tools = make(map[string][]param)
	}
	t.tools[strings.Clone(name)] = params // name may be a part of a long text
	return nil
}

// note learns from response if call asked for the tools, and logs what is wrong with them.
func (t *paramTable) note(call, response *Message, log *slog.Logger) {
	if call.Method != "tools/list" || response.Result == "" {
		return
	}
	for _, bad := range t.learn(response.Result) {
		log.Warn("tool has an invalid x-mcp-header", "tool", bad)
	}
}

// toolParams returns the annotated parameters in schema, the JSON text of a tool's inputSchema, or why the tool's
// definition must be rejected ("Schema Extension").
func toolParams(schema string) ([]param, error) {
	if !strings.Contains(schema, annotation) {
		return nil, nil
	}
	var root map[string]any
	if json.Unmarshal([]byte(schema), &root) != nil {
		return nil, errors.New("inputSchema is not an object")
	}
	if _, has := root[annotation]; has {
		return nil, fmt.Errorf("%s is on the whole inputSchema, not on a property", annotation)
	}
	r := schemaReader{seen: make(map[string]bool)}
	if err := r.read(root, nil, ""); err != nil {
		return nil, err
	}
	return r.params, nil
}

// A schemaReader collects the annotations of an inputSchema.
type schemaReader struct {
	params []param
	seen   map[string]bool // headers
}

// read reads the schema at path. below is a keyword other than properties that leads there, "" if there is none.
func (r *schemaReader) read(schema any, path []string, below string) error {
	if list, ok := schema.([]any); ok {
		for _, schema := range list {
			if err := r.read(schema, path, below); err != nil {
				return err
			}
		}
	}
	object, _ := schema.(map[string]any) // else it is true or false
	if _, has := object[annotation]; has && below != "" {
		return fmt.Errorf("%s below %.64q cannot be reached by properties alone", annotation, below)
	} else if has {
		if err := r.add(object, path); err != nil {
			return fmt.Errorf("property %.64q: %w", path[len(path)-1], err)
		}
	}
	for _, keyword := range slices.Sorted(maps.Keys(object)) {
		schemas, named := object[keyword].(map[string]any)
		below := cmp.Or(below, keyword)
		switch keyword {
		case annotation, "default", "const", "enum", "examples":
			continue // no schemas
		case "properties":
			if named && below == keyword {
				below = ""
			}
		case "patternProperties", "dependentSchemas", "$defs", "definitions":
		default:
			named = false
		}
		if !named {
			schemas = map[string]any{"": object[keyword]}
		}
		for _, key := range slices.Sorted(maps.Keys(schemas)) {
			if err := r.read(schemas[key], append(path[:len(path):len(path)], key), below); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds the annotated property at path.
func (r *schemaReader) add(property map[string]any, path []string) error {
	name, _ := property[annotation].(string)
	if name == "" {
		return fmt.Errorf("%s is empty or no string", annotation)
	}
	for _, c := range []byte(name) { // RFC 9110, section 5.6.2: token = 1*tchar
		alphanumeric := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !alphanumeric && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return fmt.Errorf("%s %.64q is no token", annotation, name)
		}
	}
	header := http.CanonicalHeaderKey(headerParam + name)
	switch t := property["type"]; {
	case t != "integer" && t != "string" && t != "boolean":
		return fmt.Errorf("%s %.64q is on a type other than integer, string and boolean", annotation, name)
	case r.seen[header]:
		return fmt.Errorf("%s %.64q is there twice", annotation, name)
	case len(r.params) == maxAnnotatedParams:
		return fmt.Errorf("more than %d properties have an %s", maxAnnotatedParams, annotation)
	}
	r.seen[header], r.params = true, append(r.params, param{path, header})
	return nil
}

// values yields the header of each annotated parameter of the tool that m calls, and the JSON text of its value, ""
// if that is null or absent.
func (t *paramTable) values(m *Message) iter.Seq2[string, string] {
	return func(yield func(header, value string) bool) {
		if m.Method != "tools/call" {
			return
		}
		t.mu.RLock()
		params := t.tools[m.Name]
		t.mu.RUnlock()
		if len(params) == 0 {
			return
		}
		arguments := member(m.Params, "arguments")
		for _, p := range params {
			start, end, _ := locate(arguments, p.path...)
			if !yield(p.header, strings.TrimPrefix(arguments[start:end], "null")) {
				return
			}
		}
	}
}

// mirror sets on h the headers that mirror the body of m, as a client that speaks revision 2026-07-28 must. A value
// that its header cannot carry is left out; then the server refuses the request.
func (t *paramTable) mirror(h http.Header, m *Message) {
	for _, mirrored := range [2][2]string{{revisionHeader, m.Revision}, {headerMethod, m.Method}} {
		// These have no encoding, and a line end among them would make the HTTP request fail.
		if value := mirrored[1]; value != "" && encodeHeader(value) == value {
			h.Set(mirrored[0], value)
		}
	}
	if name, has := mirrorName(m); has {
		h.Set(headerName, encodeHeader(name))
	}
	for header, value := range t.values(m) {
		if text, ok := headerText(value); ok {
			h.Set(header, encodeHeader(text))
		}
	}
}

// refusal is why a server of 2026-07-28 that does not see headers, or none at all, need not be asked about m; nil if it must.
func (t *paramTable) refusal(m *Message) error {
	switch {
	case m.Kind == Response:
		// MCP 2026-07-28, both transports: "The client MUST NOT" send "JSON-RPC responses."
		return &Error{Code: codeInvalid, Status: 400, Text: "no responses from clients in this revision"}
	case m.Origin == nil:
		return nil
	}
	if err := t.check(m.Origin.Header, m); err != nil {
		return &Error{Code: codeHeader, Status: 400, Text: err.Error()}
	}
	if m.Kind == Call && m.Revision == "" {
		// On stdio nothing but _meta tells the revisions apart: the process would take this for an older one.
		return &Error{Code: codeParams, Status: 400, Text: "params._meta has no io.modelcontextprotocol/protocolVersion"}
	}
	return nil
}

// check does the "Server Validation" of a request m that came with the headers h, in place of a server that does not
// see headers. The text of the error may be sent to the client as the message of a -32020. What the body lacks is the
// server's to refuse. A notification needs no headers ("not defined by this revision"), but those it has must be right.
func (t *paramTable) check(h http.Header, m *Message) error {
	if m.Kind != Call && m.Kind != Notification {
		return nil
	}
	call := m.Kind == Call
	// The tasks extension asks clients for Mcp-Name, but does not let servers insist on it.
	named := m.Method == "tools/call" || m.Method == "prompts/get" || m.Method == "resources/read"
	name, has := mirrorName(m)
	err := match(h, revisionHeader, cmp.Or(m.Revision, strings.Trim(h.Get(revisionHeader), " \t")), call, plainHeader)
	if err == nil {
		err = match(h, headerMethod, m.Method, call, plainHeader)
	}
	if err == nil && (named || has) {
		err = match(h, headerName, name, call && named && has, decodeHeader)
	}
	if err != nil {
		return err
	}
	for header, value := range t.values(m) {
		text, ok := headerText(value)
		err := match(h, header, text, call && value != "", func(v string) (string, error) {
			got, err := decodeHeader(v)
			if n, isNumber := safeInteger(got); isNumber && value[:min(len(value), 1)] != `"` {
				got = n // "SHOULD compare … numerically"
			}
			if err == nil && value == "" {
				err = errors.New("no value in the body")
			} else if err == nil && !ok {
				err = errors.New("the body's value is no string, boolean or safe integer")
			}
			return got, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// match checks that a header says want, or is absent if it is not required. Two values are an error even if they are
// equal, because whoever reads only one of them must know which.
func match(h http.Header, header, want string, required bool, decode func(string) (string, error)) error {
	values := h[header]
	if len(values) == 0 && required {
		return fmt.Errorf("header mismatch: %s header is missing", header)
	} else if len(values) == 0 {
		return nil
	}
	got, err := decode(values[0])
	switch {
	case len(values) > 1:
		return fmt.Errorf("header mismatch: %s header has more than one value", header)
	case err != nil:
		return fmt.Errorf("header mismatch: %s header: %w", header, err)
	case got == want:
		return nil
	case len(got) > 64 || len(want) > 64:
		return fmt.Errorf("header mismatch: %s header value does not match body value", header)
	}
	return fmt.Errorf("header mismatch: %s header value %q does not match body value %q", header, got, want)
}

// headerText returns the text of a parameter's value ("Type conversion"), or false if it has none.
func headerText(value string) (string, bool) {
	switch {
	case value == "true" || value == "false":
		return value, true
	case strings.HasPrefix(value, `"`):
		return unquote(value)
	}
	return safeInteger(value)
}

// safeInteger returns the decimal digits of the integer that text writes, as 42, 42.0 or 4.2e1, or false if it writes
// none or one outside the safe range.
func safeInteger(text string) (string, bool) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.Trim(text, "0123456789+-.eE") != "" || f != math.Trunc(f) || math.Abs(f) > maxSafeInteger {
		return "", false
	}
	return strconv.FormatInt(int64(f), 10), true
}
