// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

type scanMember struct {
	key   string
	value json.RawMessage
}

// scanMembers takes an object apart with encoding/json; false if text is no object.
func scanMembers(text string) (list []scanMember, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		key, _ := d.Token()
		m := scanMember{key: key.(string)}
		if err := d.Decode(&m.value); err != nil {
			return nil, false
		}
		list = append(list, m)
	}
	return list, true
}

// scanFind returns the values of a key and whether any key is in doubt: one of names in another case or twice.
func scanFind(list []scanMember, names ...string) (values map[string]string, doubt bool) {
	values = map[string]string{}
	for _, m := range list {
		for _, name := range names {
			if !strings.EqualFold(name, m.key) {
				continue
			}
			_, twice := values[name]
			doubt = doubt || twice || name != m.key
			values[name] = string(m.value)
		}
	}
	return values, doubt
}

func scanDepth(text string) (deepest int) {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == '{' || c == '['):
			depth++
			deepest = max(deepest, depth)
		case !inString && (c == '}' || c == ']'):
			depth--
		}
	}
	return deepest
}

// scanVerdict is Parse by way of encoding/json: the code of the refusal, 0 if there is none.
func scanVerdict(text string) int {
	if !utf8.ValidString(text) || !json.Valid([]byte(text)) || scanDepth(text) > maxDepth {
		return codeParse
	}
	list, ok := scanMembers(text)
	v, doubt := scanFind(list, "jsonrpc", "id", "method", "params", "result", "error")
	seen := map[string]bool{}
	for _, m := range list {
		doubt = doubt || seen[m.key]
		seen[m.key] = true
	}
	params, _ := scanMembers(v["params"])
	p, doubtParams := scanFind(params, "name", "uri", "_meta")
	meta, _ := scanMembers(p["_meta"])
	_, doubtMeta := scanFind(meta, "progressToken", "io.modelcontextprotocol/protocolVersion")
	var version any
	json.Unmarshal([]byte(v["jsonrpc"]), &version)
	has := func(key, types string) bool { return v[key] == "" || strings.Contains(types, v[key][:1]) }
	one := v["method"] != "" && v["result"] == "" && v["error"] == "" ||
		v["method"] == "" && (v["result"] == "") != (v["error"] == "")
	if !ok || doubt || doubtParams || doubtMeta || len(seen)-len(v) > maxUnknown || version != "2.0" || !one ||
		!has("id", `"-0123456789`) || !has("method", `"`) || !has("params", "{[") || !has("error", "{") ||
		v["result"] != "" && v["id"] == "" {
		return codeInvalid
	}
	return 0
}

func FuzzParse(f *testing.F) {
	for _, test := range scanRefusals() {
		f.Add(test.text)
	}
	f.Add(scanCall)
	f.Add(`{"jsonrpc":"2.0","method":"m","params":{"uri":"\u00e9😀","_meta":{"io.modelcontextprotocol/protocolVersion":"v"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err == errBatch {
			if trimmed := strings.TrimLeft(text, " \t\r\n"); trimmed[0] != '[' {
				t.Fatalf("%q: got errBatch", text)
			}
			return
		}
		code, want := 0, scanVerdict(text)
		var e *ParseError
		if errors.As(err, &e) {
			code = e.Code
		}
		if code != want || (err == nil) != (m != nil) || e != nil && (e.Offset < 0 || e.Offset > len(text)) {
			t.Fatalf("%q: got %v, want code %d", text, err, want)
		}
		var parts map[string]json.RawMessage
		if code == codeParse || json.Unmarshal([]byte(text), &parts) != nil {
			return
		}
		if e != nil {
			if e.ID != "" && e.ID != string(parts["id"]) {
				t.Fatalf("%q: got id %s, want %s", text, e.ID, parts["id"])
			}
			return
		}
		var method string
		json.Unmarshal(parts["method"], &method)
		if m.Method != method || m.ID != string(parts["id"]) || m.Params != string(parts["params"]) ||
			m.Result != string(parts["result"]) || m.Error != string(parts["error"]) {
			t.Fatalf("%q: got %+v", text, *m)
		}
		if again, err := Parse(m.Raw); err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%q: got %+v, then %+v, %v", text, *m, again, err)
		}
	})
}

func FuzzSplitBatch(f *testing.F) {
	for _, text := range []string{`[1,"a",{"b":[null]}]`, `[ ]`, `{}`, `[1,]`, "[\"\xff\"]", `[[],[[]]]x`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const limit = 5
		got, err := splitBatch(text, limit)
		var want []json.RawMessage
		valid := utf8.ValidString(text) && scanDepth(text) <= maxDepth+1 && json.Unmarshal([]byte(text), &want) == nil && want != nil
		if ok := valid && 0 < len(want) && len(want) <= limit; ok != (err == nil) {
			t.Fatalf("%q: got error %v, want %v", text, err, want)
		}
		for i := range got {
			if got[i] != string(want[i]) {
				t.Fatalf("%q: got element %q, want %q", text, got[i], want[i])
			}
		}
	})
}

func FuzzLocate(f *testing.F) {
	f.Add(scanCall, "params", "name")
	f.Add(`{"a":{"b":1},"\u0061":{"b":{}, "b":2}} `, "a", "b")
	f.Add(`{"\ud800":[1]}`, "\ufffd", "")
	f.Add(`["a",{"a":1}]`, "a", "")
	f.Fuzz(func(t *testing.T, text, first, second string) {
		start, end, ok := locate(text, first, second)
		if !utf8.ValidString(text) || !json.Valid([]byte(text)) || scanDepth(text) > maxDepth {
			member(text, first) // must not panic
			return
		}
		var outer, inner map[string]json.RawMessage
		json.Unmarshal([]byte(text), &outer)
		if got := member(text, first); got != string(outer[first]) {
			t.Fatalf("%q, %q: got member %q, want %q", text, first, got, outer[first])
		}
		json.Unmarshal(outer[first], &inner)
		want, exists := inner[second]
		if ok != exists || ok && text[start:end] != string(want) {
			t.Fatalf("%q, %q, %q: got %d, %d, %v, want %q", text, first, second, start, end, ok, want)
		}
	})
}
