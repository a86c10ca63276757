// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEncodeHeader(t *testing.T) {
	tests := []struct{ text, want string }{
		{"us-west1", "us-west1"},
		{"Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="},
		{" padded ", "=?base64?IHBhZGRlZCA=?="},
		{"line1\nline2", "=?base64?bGluZTEKbGluZTI=?="},
		{"line1\r\nline2", "=?base64?bGluZTENCmxpbmUy?="},
		{"=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="},
		{"=?base64?=", "=?base64?PT9iYXNlNjQ/PQ==?="},
		{" us-west1", "=?base64?IHVzLXdlc3Qx?="},
		{"us-west1 ", "=?base64?dXMtd2VzdDEg?="},
		{"us west 1", "us west 1"},
		{"日本語", "=?base64?5pel5pys6Kqe?="},
		{"\tindented", "=?base64?CWluZGVudGVk?="},
		{"a\tb", "=?base64?YQli?="},
		{"\x7f", "=?base64?fw==?="},
		{"\x00", "=?base64?AA==?="},
		{"", ""},
		{"=?base64?open", "=?base64?open"},
		{"file:///path/to/file%20name.txt", "file:///path/to/file%20name.txt"},
		{"https://example.com/resource?id=123", "https://example.com/resource?id=123"},
	}
	for _, test := range tests {
		if got := encodeHeader(test.text); got != test.want {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
		if got, err := decodeHeader(test.want); got != test.text || err != nil {
			t.Errorf("%q: got %q, %v back, want %q", test.want, got, err, test.text)
		}
	}
}

func TestDecodeHeader(t *testing.T) {
	tests := []struct {
		value, want string
		ok          bool
	}{
		{"=?base64?SGVsbG8=?=", "Hello", true},
		{"=?base64?SGVsbG8?=", "", false},
		{"=?base64?SGVs!!!bG8=?=", "", false},
		{"=?base64?SGVs\nbG8=?=", "", false},
		{"=?base64?SGVsbG9=?=", "", false}, // bits left over
		{"=?base64?/w==?=", "", false},     // not UTF-8
		{"=?base64??=", "", true},
		{"SGVsbG8=", "SGVsbG8=", true},
		{"=?base64?SGVsbG8=", "=?base64?SGVsbG8=", true},
		{"SGVsbG8=?=", "SGVsbG8=?=", true},
		{"=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?=", true},
		{"=?base64?=", "=?base64?=", true},
		{" \tfoo\t ", "foo", true},
		{" =?base64?SGVsbG8=?= ", "Hello", true},
		{"a\tb", "a\tb", true},
		{"世界", "", false},
		{"a\x00b", "", false},
		{"a\r\nb", "", false},
		{"\x7f", "", false},
	}
	for _, test := range tests {
		if got, err := decodeHeader(test.value); got != test.want || (err == nil) != test.ok {
			t.Errorf("%q: got %q, %v, want %q, %v", test.value, got, err, test.want, test.ok)
		}
	}
}

func FuzzEncodeHeader(f *testing.F) {
	for _, seed := range []string{"us-west1", " a", "=?base64?x?=", "世界", "a\r\nX: y", "\xff", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value := encodeHeader(text)
		if i := strings.IndexFunc(value, func(c rune) bool { return c < ' ' || c > '~' }); i >= 0 || strings.TrimSpace(value) != value {
			t.Errorf("%q: got %q, want what is safe in a header", text, value)
		}
		got, err := decodeHeader(value)
		if utf8.ValidString(text) && (got != text || err != nil) {
			t.Errorf("%q: got %q, %v from %q, want the same", text, got, err, value)
		}
		if !utf8.ValidString(text) && err == nil {
			t.Errorf("%q: got %q from %q, want an error", text, got, value)
		}
		if got, err = decodeHeader(text); err == nil && got != strings.Trim(text, " \t") && encodeHeader(got) == got {
			// Some write in Base64 what need not be, but then it must be Base64.
			if !strings.HasPrefix(strings.Trim(text, " \t"), encodedPrefix) {
				t.Errorf("%q: got %q, want it as it is", text, got)
			}
		}
	})
}

func TestMirrorName(t *testing.T) {
	tests := []struct {
		m    Message
		name string
		has  bool
	}{
		{Message{Method: "tools/call", Name: "t", Params: `{"name":"t"}`}, "t", true},
		{Message{Method: "prompts/get", Name: "p", URI: "u", Params: `{"name":"p","uri":"u"}`}, "p", true},
		{Message{Method: "resources/read", Name: "n", URI: "u:1", Params: `{"name":"n","uri":"u:1"}`}, "u:1", true},
		{Message{Method: "tasks/get", Params: `{"taskId":"a\u0062"}`}, "ab", true},
		{Message{Method: "tasks/update", Name: "n", Params: `{"taskId":"1","name":"n"}`}, "1", true},
		{Message{Method: "tasks/cancel", Params: `{"taskId":""}`}, "", true},
		{Message{Method: "tasks/cancel", Params: `{"taskId":7}`}, "", false},
		{Message{Method: "tools/call", Params: `{"name":""}`}, "", true},
		{Message{Method: "tools/call", Params: `{"name":7}`}, "", false},
		{Message{Method: "resources/read"}, "", false},
		{Message{Method: "resources/subscribe", URI: "u:1", Params: `{"uri":"u:1"}`}, "", false},
		{Message{Method: "tools/list", Name: "n", Params: `{"name":"n"}`}, "", false},
		{Message{}, "", false},
	}
	for _, test := range tests {
		if name, has := mirrorName(&test.m); name != test.name || has != test.has {
			t.Errorf("%s %s: got %q, %v, want %q, %v", test.m.Method, test.m.Params, name, has, test.name, test.has)
		}
	}
}

// A checkTest is a message with its headers, as lines, and what check says to it.
type checkTest struct {
	name, headers string
	m             *Message
	err           string // a part of it; "" if there is to be none
}

const (
	checkRevision = "MCP-Protocol-Version: 2026-07-28"
	checkCall     = checkRevision + "\nMcp-Method: tools/call\nMcp-Name: sql"
)

func runCheckTests(t *testing.T, tests []checkTest) {
	t.Helper()
	var table paramTable
	table.learn(toolsResult([2]string{"sql", regionProperty + `,"count":{"type":"integer","x-mcp-header":"Count"},
		"dry":{"type":"boolean","x-mcp-header":"Dry"},"in":{"properties":{"zone":{"type":"string","x-mcp-header":"Zone"}}}`}))
	for _, test := range tests {
		h := make(http.Header)
		for line := range strings.Lines(test.headers) {
			header, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			h.Add(header, value)
		}
		err := table.check(h, test.m)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.err)
		}
	}
}

func TestCheckStandardHeaders(t *testing.T) {
	long := strings.Repeat("x", 65)
	read := &Message{Kind: Call, Method: "resources/read", URI: "file:///ö", Revision: "2026-07-28", Params: `{"uri":"file:///ö"}`}
	task := &Message{Kind: Call, Method: "tasks/get", Revision: "2026-07-28", Params: `{"taskId":"7"}`}
	list := &Message{Kind: Call, Method: "tools/list", Revision: "2026-07-28"}
	noMeta := &Message{Kind: Call, Method: "tools/list"}
	noName := &Message{Kind: Call, Method: "tools/call", Revision: "2026-07-28", Params: `{}`}
	note := &Message{Kind: Notification, Method: "notifications/x", Revision: "2026-07-28"}
	const rev, sql = checkRevision, checkCall
	runCheckTests(t, []checkTest{
		{"no parameters", sql, toolCall("sql", `{}`), ""},
		{"other case", "mcp-protocol-version: 2026-07-28\nMCP-METHOD: tools/call\nmcp-name: sql", toolCall("sql", `{}`), ""},
		{"no version", "Mcp-Method: tools/list", list, "Mcp-Protocol-Version header is missing"},
		{"other version", "MCP-Protocol-Version: 2025-11-25\nMcp-Method: tools/list", list,
			`header mismatch: Mcp-Protocol-Version header value "2025-11-25" does not match body value "2026-07-28"`},
		{"version not in the body", rev + "\nMcp-Method: tools/list", noMeta, ""},
		{"two versions", rev + "\n" + rev + "\nMcp-Method: tools/list", list, "Mcp-Protocol-Version header has more than one value"},
		{"no method", rev, list, "Mcp-Method header is missing"},
		{"other method", rev + "\nMcp-Method: prompts/get", list, `"prompts/get" does not match body value "tools/list"`},
		{"method in another case", rev + "\nMcp-Method: TOOLS/LIST", list, `"TOOLS/LIST"`},
		{"encoded method", rev + "\nMcp-Method: " + "=?base64?dG9vbHMvbGlzdA==?=", list, "does not match"},
		{"empty method", rev + "\nMcp-Method:", list, "does not match"},
		{"bad method", rev + "\nMcp-Method: tools/l\xefst", list, "Mcp-Method header: invalid character"},
		{"no name", rev + "\nMcp-Method: tools/call", toolCall("sql", `{}`), "Mcp-Name header is missing"},
		{"other name", rev + "\nMcp-Method: tools/call\nMcp-Name: foo", toolCall("bar", `{}`),
			`header mismatch: Mcp-Name header value "foo" does not match body value "bar"`},
		{"white space", rev + "\nMcp-Method: tools/call\nMcp-Name:  \tfoo ", toolCall("foo", `{}`), ""},
		{"long name", rev + "\nMcp-Method: tools/call\nMcp-Name: " + long, toolCall("b", `{}`), "Mcp-Name header value does not match body value"},
		{"two names", sql + "\nMcp-Name: sql", toolCall("sql", `{}`), "more than one"},
		{"encoded name", rev + "\nMcp-Method: resources/read\nMcp-Name: =?base64?ZmlsZTovLy/Dtg==?=", read, ""},
		{"name not encoded", rev + "\nMcp-Method: resources/read\nMcp-Name: file:///ö", read, "Mcp-Name header: invalid character"},
		{"name badly encoded", rev + "\nMcp-Method: resources/read\nMcp-Name: =?base64?ZmlsZTovLy/Dtg?=", read, "Mcp-Name header: bad Base64"},
		{"no uri", rev + "\nMcp-Method: resources/read", read, "Mcp-Name header is missing"},
		{"task", rev + "\nMcp-Method: tasks/get\nMcp-Name: 7", task, ""},
		{"no task", rev + "\nMcp-Method: tasks/get", task, ""},
		{"other task", rev + "\nMcp-Method: tasks/get\nMcp-Name: 8", task, "does not match"},
		{"name of nothing", rev + "\nMcp-Method: tools/list\nMcp-Name: x", list, ""},
		{"name not in the body", rev + "\nMcp-Method: tools/call\nMcp-Name: x", noName, "does not match"},
		{"name neither here nor there", rev + "\nMcp-Method: tools/call", noName, ""},

		{"notification without headers", "", note, ""},
		{"notification with headers", rev + "\nMcp-Method: notifications/x", note, ""},
		{"notification with wrong method", "Mcp-Method: notifications/y", note, "does not match"},
		{"notification with two methods", "Mcp-Method: notifications/x\nMcp-Method: notifications/x", note, "more than one"},
		{"response", "", &Message{Kind: Response}, ""},
	})
}

func TestCheckParams(t *testing.T) {
	const rev, sql = checkRevision, checkCall
	runCheckTests(t, []checkTest{
		{"parameter", sql + "\nMcp-Param-Region: us-west1", toolCall("sql", `{"region":"us-west1"}`), ""},
		{"parameter in another case", sql + "\nMCP-PARAM-REGION: us-west1", toolCall("sql", `{"region":"us-west1"}`), ""},
		{"other parameter", sql + "\nMcp-Param-Region: a", toolCall("sql", `{"region":"b"}`), `Mcp-Param-Region header value "a" does not match body value "b"`},
		{"parameter encoded", sql + "\nMcp-Param-Region: =?base64?SGVsbG8=?=", toolCall("sql", `{"region":"Hello"}`), ""},
		{"parameter badly encoded", sql + "\nMcp-Param-Region: =?base64?SGVsbG8?=", toolCall("sql", `{"region":"Hello"}`), "bad Base64"},
		{"parameter not marked", sql + "\nMcp-Param-Region: SGVsbG8=", toolCall("sql", `{"region":"Hello"}`), "does not match"},
		{"invalid character", sql + "\nMcp-Param-Region: \xff", toolCall("sql", `{"region":"\u00ff"}`), "invalid character"},
		{"invalid character, nothing in the body", sql + "\nMcp-Param-Region: \xff", toolCall("sql", `{}`), "invalid character"},
		{"two parameters", sql + "\nMcp-Param-Region: a\nMcp-Param-Region: a", toolCall("sql", `{"region":"a"}`), "more than one value"},
		{"header omitted", sql, toolCall("sql", `{"region":"a"}`), "Mcp-Param-Region header is missing"},
		{"null", sql, toolCall("sql", `{"region":null}`), ""},
		{"null with header", sql + "\nMcp-Param-Region: null", toolCall("sql", `{"region":null}`), "no value in the body"},
		{"absent with header", sql + "\nMcp-Param-Region: a", toolCall("sql", `{}`), "no value in the body"},
		{"no arguments with header", sql + "\nMcp-Param-Region:", toolCall("sql", `null`), "no value in the body"},
		{"empty", sql + "\nMcp-Param-Region:", toolCall("sql", `{"region":""}`), ""},
		{"empty omitted", sql, toolCall("sql", `{"region":""}`), "missing"},
		{"unknown parameter", sql + "\nMcp-Param-Other: \xff", toolCall("sql", `{}`), ""},
		{"unknown tool", rev + "\nMcp-Method: tools/call\nMcp-Name: x\nMcp-Param-Region: a", toolCall("x", `{"region":"b"}`), ""},
		{"integer", sql + "\nMcp-Param-Count: 42", toolCall("sql", `{"count":42}`), ""},
		{"integer with fraction", sql + "\nMcp-Param-Count: 42.0", toolCall("sql", `{"count":42}`), ""},
		{"integer with fraction in the body", sql + "\nMcp-Param-Count: 42", toolCall("sql", `{"count":42.0}`), ""},
		{"integer with exponent", sql + "\nMcp-Param-Count: 42", toolCall("sql", `{"count":4.2e+1}`), ""},
		{"other integer", sql + "\nMcp-Param-Count: 43", toolCall("sql", `{"count":42}`), `"43" does not match body value "42"`},
		{"negative", sql + "\nMcp-Param-Count: -42", toolCall("sql", `{"count":42}`), "does not match"},
		{"hexadecimal", sql + "\nMcp-Param-Count: 0x2Ap0", toolCall("sql", `{"count":42}`), "does not match"},
		{"not a number", sql + "\nMcp-Param-Count: NaN", toolCall("sql", `{"count":42}`), "does not match"},
		{"integer as string", sql + "\nMcp-Param-Count: 42.0", toolCall("sql", `{"count":"42"}`), "does not match"},
		{"large integers", sql + "\nMcp-Param-Count: 9007199254740992", toolCall("sql", `{"count":9007199254740993}`), "safe integer"},
		{"large integer omitted", sql, toolCall("sql", `{"count":9007199254740993}`), "missing"},
		{"fraction", sql + "\nMcp-Param-Count: 3.5", toolCall("sql", `{"count":3.5}`), "safe integer"},
		{"boolean", sql + "\nMcp-Param-Dry: true", toolCall("sql", `{"dry":true}`), ""},
		{"boolean in another case", sql + "\nMcp-Param-Dry: True", toolCall("sql", `{"dry":true}`), "does not match"},
		{"false is a value", sql, toolCall("sql", `{"dry":false}`), "missing"},
		{"list", sql + "\nMcp-Param-Region: a", toolCall("sql", `{"region":["a"]}`), "no string"},
		{"nested", sql + "\nMcp-Param-Zone: z", toolCall("sql", `{"in":{"zone":"z"}}`), ""},
		{"nested omitted", sql, toolCall("sql", `{"in":{"zone":"z"}}`), "Mcp-Param-Zone header is missing"},
		{"notification with parameters", "", &Message{Kind: Notification, Method: "tools/call", Name: "sql",
			Params: `{"name":"sql","arguments":{"region":"a"}}`}, ""},
		{"nested elsewhere", sql + "\nMcp-Param-Zone: z", toolCall("sql", `{"zone":"z"}`), "no value in the body"},
	})
}

// What mirror writes, check accepts, if all values can be mirrored.
func FuzzMirrorCheck(f *testing.F) {
	f.Add("tool", "us-west1", int64(42), true)
	f.Add("", "=?base64?x?=", int64(1<<53), false)
	f.Add(" ö\n", "\r\n", int64(-1), true)
	f.Fuzz(func(t *testing.T, name, region string, count int64, dry bool) {
		if !utf8.ValidString(name) || !utf8.ValidString(region) {
			t.Skip()
		}
		quote := func(s string) string {
			text, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		var table paramTable
		table.learn(fmt.Sprintf(`{"tools":[{"name":%s,"inputSchema":{"properties":{%s,
			"count":{"type":"integer","x-mcp-header":"Count"},"dry":{"type":"boolean","x-mcp-header":"Dry"}}}}]}`, quote(name), regionProperty))
		m := &Message{Kind: Call, Method: "tools/call", Name: name, Revision: "2026-07-28", Params: fmt.Sprintf(
			`{"name":%s,"arguments":{"region":%s,"count":%d,"dry":%v}}`, quote(name), quote(region), count, dry)}
		h := make(http.Header)
		table.mirror(h, m)
		safe := count >= -maxSafeInteger && count <= maxSafeInteger
		if err := table.check(h, m); (err == nil) != safe {
			t.Errorf("%v: got %v, want %v", h, err, safe)
		}
		other := *m
		other.Params = strings.Replace(m.Params, fmt.Sprintf(`"dry":%v`, dry), fmt.Sprintf(`"dry":%v`, !dry), 1)
		if err := table.check(h, &other); err == nil && other.Params != m.Params {
			t.Errorf("%v: got no error for %s", h, other.Params)
		}
	})
}
