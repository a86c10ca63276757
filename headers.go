// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// The headers that mirror a request's body since revision 2026-07-28 (Streamable HTTP, sections
// "Request Metadata" to "Server Validation"), as [http.Header] spells them.
const (
	headerRevision = "Mcp-Protocol-Version"
	headerMethod   = "Mcp-Method"
	headerName     = "Mcp-Name"
	headerParam    = "Mcp-Param-" // and the name that the tool's inputSchema gives
)

const (
	annotation    = "x-mcp-header"
	encodedPrefix = "=?base64?"
	encodedSuffix = "?="

	maxAnnotatedTools  = 10_000
	maxAnnotatedParams = 100       // of one tool; HTTP servers take hardly more headers
	maxSafeInteger     = 1<<53 - 1 // "MUST be within the safe range for JavaScript"
)

// encodeHeader returns s as the value of Mcp-Name or Mcp-Param-*: as it is if that is safe, else in Base64
// between markers ("Value Encoding").
func encodeHeader(s string) string {
	plain := s == strings.Trim(s, " ") && !(strings.HasPrefix(s, encodedPrefix) && strings.HasSuffix(s, encodedSuffix))
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] <= '~'
	}
	if plain {
		return s
	}
	return encodedPrefix + base64.StdEncoding.EncodeToString([]byte(s)) + encodedSuffix
}

// decodeHeader returns the text that the value v of Mcp-Name or Mcp-Param-* carries. White space around
// v is none of it. Only what has both markers, in lower case, is Base64.
func decodeHeader(v string) (string, error) {
	v, err := plainHeader(v)
	if err != nil {
		return "", err
	}
	code, begun := strings.CutPrefix(v, encodedPrefix)
	code, ended := strings.CutSuffix(code, encodedSuffix)
	if !begun || !ended {
		return v, nil
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

// plainHeader returns v without white space around it, or an error if there are characters in it that
// the specification does not allow; [http.Server] lets bytes above 0x7F pass.
func plainHeader(v string) (string, error) {
	for i := range len(v) {
		if (v[i] < ' ' || v[i] > '~') && v[i] != '\t' {
			return "", errors.New("invalid character")
		}
	}
	return strings.Trim(v, " \t"), nil
}

// mirrorName returns the value in the body of m that Mcp-Name mirrors. It reports false if the method has
// none, or if the body of a method that should have one has no string in its place.
func mirrorName(m *Message) (name string, has bool) {
	key := ""
	switch m.Method {
	case "tools/call", "prompts/get":
		key, name = "name", m.Name
	case "resources/read":
		key, name = "uri", m.URI
	case "tasks/get", "tasks/update", "tasks/cancel": // the tasks extension
		return unquote(member(m.Params, "taskId"))
	default:
		return "", false
	}
	return name, name != "" || member(m.Params, key) == `""`
}

// A paramTable remembers the x-mcp-header annotations of one server's tools, learned from the tools/list
// results that passed by. The zero value is empty. It may be used concurrently. It holds at most 10,000
// tools; tools without annotations take no room.
type paramTable struct {
	mu    sync.RWMutex       // protects following
	tools map[string][]param // what is in it is never modified
}

// A param is a property of a tool's arguments that is mirrored, or that leads to such properties.
type param struct {
	key    string
	header string // canonical; "" if it only leads to others
	inner  []param
}

// learn takes in result, the JSON text of a tools/list result. Pages add up; a tool listed again replaces
// what was known of it. bad says for each tool that gets no headers because of its annotations which one
// it is and why: "Clients SHOULD log a warning". It costs one search if there are no annotations, here
// and earlier. An annotation whose key is written with escapes may go unseen.
func (t *paramTable) learn(result string) (bad []string) {
	t.mu.RLock()
	known := len(t.tools) > 0
	t.mu.RUnlock()
	if !known && !strings.Contains(result, annotation) {
		return nil
	}
	var tools []json.RawMessage
	if json.Unmarshal([]byte(member(result, "tools")), &tools) != nil {
		return nil // no list: nothing can be learned, and it is the client who has to complain
	}
	learned := make(map[string][]param, len(tools))
	for _, tool := range tools {
		name, ok := unquote(member(string(tool), "name"))
		if !ok {
			continue
		}
		params, err := toolParams(member(string(tool), "inputSchema"))
		if err != nil {
			bad = append(bad, fmt.Sprintf("tool %.64q: %v", name, err))
		}
		learned[strings.Clone(name)] = params // a clone, because name may be a part of a long text
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(learned)) {
		params := learned[name]
		if _, again := t.tools[name]; len(params) == 0 {
			delete(t.tools, name)
			continue
		} else if !again && len(t.tools) >= maxAnnotatedTools {
			bad = append(bad, fmt.Sprintf("tool %.64q: more than %d tools have annotations", name, maxAnnotatedTools))
			continue
		}
		if t.tools == nil {
			t.tools = make(map[string][]param)
		}
		t.tools[name] = params
	}
	return bad
}

// toolParams returns the annotated parameters in schema, the JSON text of a tool's inputSchema, or why the
// tool's definition must be rejected ("Schema Extension").
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
	return readProperties(root, make(map[string]bool))
}

// readProperties returns those properties of schema that are mirrored or lead to such. seen has the
// headers found so far.
func readProperties(schema map[string]any, seen map[string]bool) (params []param, err error) {
	for _, keyword := range slices.Sorted(maps.Keys(schema)) {
		properties, ok := schema[keyword].(map[string]any)
		if keyword != "properties" || !ok {
			if keyword != annotation && !holdsData(keyword) && annotated(schema[keyword], holdsNames(keyword)) {
				return nil, fmt.Errorf("%s below %.64q cannot be reached by properties alone", annotation, keyword)
			}
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(properties)) {
			property, _ := properties[key].(map[string]any) // else it is true or false
			p := param{key: key}
			if p.header, err = paramHeader(property, seen); err != nil {
				return nil, fmt.Errorf("property %.64q: %w", key, err)
			}
			if p.inner, err = readProperties(property, seen); err != nil {
				return nil, err
			}
			if p.header != "" || len(p.inner) > 0 {
				params = append(params, p)
			}
		}
	}
	return params, nil
}

// paramHeader returns the header that mirrors property, "" if none does, and adds it to seen.
func paramHeader(property map[string]any, seen map[string]bool) (string, error) {
	value, has := property[annotation]
	if !has {
		return "", nil
	}
	name, ok := value.(string)
	if !ok || name == "" {
		return "", fmt.Errorf("%s is empty or no string", annotation)
	}
	for _, c := range []byte(name) { // RFC 9110, section 5.6.2: token = 1*tchar
		alphanumeric := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !alphanumeric && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return "", fmt.Errorf("%s %.64q is no token", annotation, name)
		}
	}
	switch property["type"] {
	case "integer", "string", "boolean":
	default:
		return "", fmt.Errorf("%s %.64q is on a type other than integer, string and boolean", annotation, name)
	}
	header := http.CanonicalHeaderKey(headerParam + name)
	if seen[header] {
		return "", fmt.Errorf("%s %.64q is there twice", annotation, name)
	}
	if seen[header] = true; len(seen) > maxAnnotatedParams {
		return "", fmt.Errorf("more than %d properties have an %s", maxAnnotatedParams, annotation)
	}
	return header, nil
}

// annotated reports whether there is an annotation anywhere in the schema v. With named the keys of v are
// names of the tool's own, and only the values are schemas.
func annotated(v any, named bool) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, func(v any) bool { return annotated(v, false) })
	case map[string]any:
		for key, value := range v {
			if named && annotated(value, false) || !named && (key == annotation ||
				!holdsData(key) && annotated(value, holdsNames(key))) {
				return true
			}
		}
	}
	return false
}

// holdsData reports whether the value of a JSON Schema keyword is not a schema but an instance.
func holdsData(keyword string) bool {
	return keyword == "default" || keyword == "const" || keyword == "enum" || keyword == "examples"
}

// holdsNames reports whether the value of a JSON Schema keyword is a map of names to schemas.
func holdsNames(keyword string) bool {
	switch keyword {
	case "properties", "patternProperties", "dependentSchemas", "$defs", "definitions":
		return true
	}
	return false
}

// mirror sets on h the headers that mirror the body of m, as a client that speaks revision 2026-07-28 must.
// A value that its header cannot carry is left out; then the server refuses the request.
func (t *paramTable) mirror(h http.Header, m *Message) {
	for _, mirrored := range [2][2]string{{headerRevision, m.Revision}, {headerMethod, m.Method}} {
		// These have no encoding, and a line end among them would make the HTTP request fail.
		if value := mirrored[1]; value != "" && encodeHeader(value) == value {
			h.Set(mirrored[0], value)
		}
	}
	if name, has := mirrorName(m); has {
		h.Set(headerName, encodeHeader(name))
	}
	t.eachParam(m, func(header string, value any) error {
		if text, ok := headerText(value); ok {
			h[header] = []string{encodeHeader(text)}
		}
		return nil
	})
}

// check does the "Server Validation" of a request m that came with the headers h, in place of a server that
// does not see headers. The text of the error may be sent to the client as the message of a -32020.
// What the body lacks is the server's to refuse. A notification needs no headers ("not defined by this
// revision"), but those it has must be right.
func (t *paramTable) check(h http.Header, m *Message) error {
	if m.Kind != Call && m.Kind != Notification {
		return nil
	}
	// The table of "Standard Request Headers". The tasks extension asks clients for Mcp-Name, but does not
	// let servers insist on it.
	named := m.Method == "tools/call" || m.Method == "prompts/get" || m.Method == "resources/read"
	name, has := mirrorName(m)
	for _, c := range []struct {
		header, want      string
		required, mirrors bool
		decode            func(string) (string, error)
	}{
		{headerRevision, m.Revision, true, m.Revision != "", plainHeader},
		{headerMethod, m.Method, true, true, plainHeader},
		{headerName, name, named && has, named || has, decodeHeader},
	} {
		got, present, err := oneValue(h, c.header, c.decode)
		if err == nil && !present && c.required && m.Kind == Call {
			err = fmt.Errorf("header mismatch: %s header is missing", c.header)
		}
		if err == nil && present && c.mirrors {
			err = compare(c.header, got, c.want)
		}
		if err != nil {
			return err
		}
	}
	return t.eachParam(m, func(header string, value any) error { return checkParam(h, m, header, value) })
}

// checkParam checks the header of one annotated parameter ("Server Behavior for Custom Headers").
func checkParam(h http.Header, m *Message, header string, value any) error {
	got, present, err := oneValue(h, header, decodeHeader)
	text, ok := headerText(value)
	switch {
	case err != nil || !present && (value == nil || m.Kind == Notification):
		return err
	case value == nil:
		return fmt.Errorf("header mismatch: %s header is there, but no value in the body", header)
	case !present:
		return fmt.Errorf("header mismatch: %s header is missing, but the body has a value", header)
	case !ok:
		return fmt.Errorf("header mismatch: %s header: the body's value is no string, boolean or safe integer", header)
	}
	if _, number := value.(json.Number); number {
		if n, ok := safeInteger(got); ok { // "SHOULD compare … numerically"
			got = n
		}
	}
	return compare(header, got, text)
}

// oneValue returns the decoded value of a header; two values are an error even if they are equal, because
// whoever reads only one of them must know which.
func oneValue(h http.Header, header string, decode func(string) (string, error)) (value string, present bool, err error) {
	values := h[header]
	if len(values) == 0 {
		return "", false, nil
	}
	if len(values) > 1 {
		return "", true, fmt.Errorf("header mismatch: %s header has more than one value", header)
	}
	if value, err = decode(values[0]); err != nil {
		return "", true, fmt.Errorf("header mismatch: %s header: %w", header, err)
	}
	return value, true, nil
}

func compare(header, got, want string) error {
	if got == want {
		return nil
	}
	if len(got) > 64 || len(want) > 64 {
		return fmt.Errorf("header mismatch: %s header value does not match body value", header)
	}
	return fmt.Errorf("header mismatch: %s header value %q does not match body value %q", header, got, want)
}

// eachParam calls do with the header and value of each annotated parameter of the tool that m calls, until
// there is an error. The value is nil if it is null or absent.
func (t *paramTable) eachParam(m *Message, do func(header string, value any) error) error {
	if m.Method != "tools/call" {
		return nil
	}
	t.mu.RLock()
	params := t.tools[m.Name]
	t.mu.RUnlock()
	if len(params) == 0 {
		return nil
	}
	var arguments any
	d := json.NewDecoder(strings.NewReader(member(m.Params, "arguments")))
	d.UseNumber()
	if d.Decode(&arguments) != nil {
		arguments = nil // there are none
	}
	return walkParams(params, arguments, do)
}

func walkParams(params []param, value any, do func(header string, value any) error) error {
	object, _ := value.(map[string]any)
	for _, p := range params {
		if p.header != "" {
			if err := do(p.header, object[p.key]); err != nil {
				return err
			}
		}
		if err := walkParams(p.inner, object[p.key], do); err != nil {
			return err
		}
	}
	return nil
}

// headerText returns the text of a parameter's value ("Type conversion"), or false if it has none.
func headerText(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return safeInteger(string(v))
	}
	return "", false
}

// safeInteger returns the decimal digits of the integer that text writes, as 42, 42.0 or 4.2e1, or false if
// it writes none or one outside the safe range.
func safeInteger(text string) (string, bool) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.Trim(text, "0123456789+-.eE") != "" || f != math.Trunc(f) || math.Abs(f) > maxSafeInteger {
		return "", false
	}
	return strconv.FormatInt(int64(f), 10), true
}
