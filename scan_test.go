// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

const scanCall = `{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"read_file",` +
	`"arguments":{"path":"/home/user/notes.txt","limit":100},"_meta":{"progressToken":17}}}`

func scanNested(depth int) string {
	return `{"jsonrpc":"2.0","method":"m","params":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
}

func scanUnknown(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"x` + string(rune('a'+i)) + `":0`)
	}
	return `{"jsonrpc":"2.0","method":"m"` + b.String() + "}"
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		text string
		want Message // Raw is text without white space unless set
	}{
		{scanCall, Message{Kind: Call, ID: "17", Method: "tools/call", Name: "read_file", Token: "17",
			Params: `{"name":"read_file","arguments":{"path":"/home/user/notes.txt","limit":100},"_meta":{"progressToken":17}}`}},
		{" \r\n\t" + `{"jsonrpc":"2.0","method":"m"}` + "\n ", Message{Kind: Notification, Method: "m"}},
		{"{\r\"jsonrpc\":\"2.0\",\"method\":\"m\"}", Message{Kind: Notification, Method: "m", Newlines: true}},
		{"{\"jsonrpc\":\"2.0\",\"method\":\"m\"\n}\n", Message{Kind: Notification, Method: "m", Newlines: true}},
		{`{"jsonrpc":"2.0","method":"a\nb","params":[{"name":"x"}]}`,
			Message{Kind: Notification, Method: "a\nb", Params: `[{"name":"x"}]`}},
		{`{"method":"resources/read","params":{"uri":"file:\/\/\u00e9","x":1,"x":2},"id":"\u0041","jsonrpc":"2\u002e0"}`,
			Message{Kind: Call, ID: `"\u0041"`, Method: "resources/read", Params: `{"uri":"file:\/\/\u00e9","x":1,"x":2}`, URI: "file://é"}},
		{`{"jsonrpc":"2.0","m\u0065thod":"m","\u0069d":9007199254740993}`, Message{Kind: Call, ID: "9007199254740993", Method: "m"}},
		{`{"jsonrpc":"2.0","id":-1.5e3,"result":null}`, Message{Kind: Response, ID: "-1.5e3", Result: "null"}},
		{`{"jsonrpc":"2.0","error":{"code":1}}`, Message{Kind: Response, Error: `{"code":1}`}},
		{`{"jsonrpc":"2.0","id":"a","error":{}, "x":[{}],"y" : 1}`, Message{Kind: Response, ID: `"a"`, Error: `{}`}},
		{`{"jsonrpc":"2.0","method":"","params":{"name":7,"uri":null,"_meta":[],"Arguments":1,"":2}}`,
			Message{Kind: Notification, Params: `{"name":7,"uri":null,"_meta":[],"Arguments":1,"":2}`}},
		{`{"jsonrpc":"2.0","method":"m","params":{"_meta":{"progressToken":"a\u0062","name":1,"NAME":2,` +
			`"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`,
			Message{Kind: Notification, Method: "m", Token: `"a\u0062"`, Revision: "2026-07-28",
				Params: `{"_meta":{"progressToken":"a\u0062","name":1,"NAME":2,"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}`}},
		{`{"jsonrpc":"2.0","method":"\ud800 \udc00\ud83d\ude00"}`, Message{Kind: Notification, Method: "\ufffd \ufffd😀"}},
		{`{"jsonrpc":"2.0","method":"m","params":{"name":"n"},"progressToken":1,"uri":2}`,
			Message{Kind: Notification, Method: "m", Params: `{"name":"n"}`, Name: "n"}},
		{scanNested(maxDepth), Message{Kind: Notification, Method: "m", Params: strings.Repeat("[", 999) + strings.Repeat("]", 999)}},
		{scanUnknown(maxUnknown), Message{Kind: Notification, Method: "m"}},
	} {
		test.want.Raw = strings.Trim(test.text, " \t\r\n")
		m, err := Parse(test.text)
		if err != nil {
			t.Errorf("%.200s: got error %v", test.text, err)
		} else if !reflect.DeepEqual(*m, test.want) {
			t.Errorf("%.200s: got %+v, want %+v", test.text, *m, test.want)
		}
	}
}

type scanRefusal struct {
	text   string
	code   int
	reason string
	at     string // the offset is that of the last occurrence; "" is the end of text
	id     string
}

func scanRefusals() []scanRefusal {
	const v, bad, invalid = `{"jsonrpc":"2.0",`, codeParse, codeInvalid
	return []scanRefusal{
		{"", bad, "not JSON: the text ends too early", "", ""},
		{" \n", bad, "not JSON: the text ends too early", "", ""},
		{"\ufeff" + scanCall, bad, "not JSON: unexpected character", "\ufeff", ""},
		{v + `"id":1,"method":"m"} x`, bad, "data after the end of the value", "x", ""},
		{v + `"id":1,"method":"m"}{}`, bad, "data after the end of the value", "{}", ""},
		{v + `"method":"m"`, bad, "neither comma nor closing bracket", "", ""},
		{v + `"method":"m"]`, bad, "neither comma nor closing bracket", "]", ""},
		{v + `"method":"m",}`, bad, "not JSON: expected a key in double quotes", "}", ""},
		{v + `"params":[1,]}`, bad, "not JSON: unexpected character", "]", ""},
		{v + `"params":[1`, bad, "neither comma nor closing bracket", "", ""},
		{v + `"params":[1}}`, bad, "neither comma nor closing bracket", "}}", ""},
		{v + `"method" "m"}`, bad, "no colon after a key", `"m"`, ""},
		{v + `"method":`, bad, "not JSON: the text ends too early", "", ""},
		{v + "\v\"id\":1}", bad, "not JSON: expected a key in double quotes", "\v", ""},
		{v + "\"id\":1\x00}", bad, "neither comma nor closing bracket", "\x00", ""},
		{v + `'method':1}`, bad, "not JSON: expected a key in double quotes", "'method", ""},
		{v + `"method":"m}`, bad, "string does not end", "", ""},
		{v + `"method":"m\`, bad, "no such escape", `\`, ""},
		{v + `"method":"\x41"}`, bad, "no such escape", `\x`, ""},
		{v + `"method":"\u00g0"}`, bad, "no such escape", `\u`, ""},
		{v + `"method":"\u00`, bad, "no such escape", `\u`, ""},
		{v + "\"method\":\"a\nb\"}", bad, "control character in a string", "\n", ""},
		{v + "\"method\":\"a\xffb\"}", bad, "invalid UTF-8", "\xff", ""},
		{v + "\"method\":\"\xed\xa0\x80\"}", bad, "invalid UTF-8", "\xed", ""},
		{v + "\"method\":\"\xc0\xaf\"}", bad, "invalid UTF-8", "\xc0", ""},
		{v + "\"method\":\"é\xc3", bad, "invalid UTF-8", "\xc3", ""},
		{v + `"id":01}`, bad, "neither comma nor closing bracket", "1}", ""},
		{v + `"id":-}`, bad, "no digit where one should be", "}", ""},
		{v + `"id":1.}`, bad, "no digit where one should be", "}", ""},
		{v + `"id":1e+`, bad, "no digit where one should be", "", ""},
		{v + `"id":+1}`, bad, "not JSON: unexpected character", "+1", ""},
		{v + `"id":nul}`, bad, "not JSON: unexpected character", "nul", ""},
		{v + `"id":True}`, bad, "not JSON: unexpected character", "True", ""},
		{scanNested(maxDepth + 1), bad, "nested too deep", "[]", ""},
		{strings.Repeat(`{"":`, 1001), bad, "nested too deep", `{`, ""},
		{v + `"id":1,"id":2,"method":"m"} x`, bad, "data after the end of the value", "x", ""},

		{`"x"`, invalid, "message is not an object", `"x"`, ""},
		{` 1 `, invalid, "message is not an object", "1", ""},
		{`{}`, invalid, "jsonrpc is absent", "{", ""},
		{`{"id":"a","method":"m"}`, invalid, "jsonrpc is absent", "{", `"a"`},
		{`{"id":1,"method":"m","jsonrpc":2.0}`, invalid, `jsonrpc is not "2.0"`, "2.0", "1"},
		{`{"id":1,"method":"m","jsonrpc":"2"}`, invalid, `jsonrpc is not "2.0"`, `"2"`, "1"},
		{`{"id":1,"method":"m","jsonrpc":"2.00"}`, invalid, `jsonrpc is not "2.0"`, `"2.00"`, "1"},
		{`{"id":1,"method":"m","jsonrpc":null}`, invalid, `jsonrpc is not "2.0"`, "null", "1"},
		{v + `"id":null,"method":"m"}`, invalid, "id is neither a string nor a number", "null", ""},
		{v + `"id":null,"error":{}}`, invalid, "id is neither a string nor a number", "null", ""},
		{v + `"id":{},"method":"m"}`, invalid, "id is neither a string nor a number", "{}", ""},
		{v + `"id":[1],"method":"m"}`, invalid, "id is neither a string nor a number", "[1]", ""},
		{v + `"id":true,"method":"m"}`, invalid, "id is neither a string nor a number", "true", ""},
		{v + `"id":1,"method":7}`, invalid, "method is not a string", "7", "1"},
		{v + `"id":1,"method":null}`, invalid, "method is not a string", "null", "1"},
		{v + `"id":1,"method":"m","params":null}`, invalid, "params is neither an object nor an array", "null", "1"},
		{v + `"id":1,"method":"m","params":"p"}`, invalid, "params is neither an object nor an array", `"p"`, "1"},
		{v + `"id":1,"method":"m","result":{}}`, invalid, "message has both a method and a result or error", v, "1"},
		{v + `"id":1,"method":"m","error":{}}`, invalid, "message has both a method and a result or error", v, "1"},
		{v + `"id":1,"result":null,"error":{}}`, invalid, "message has both a result and an error", v, "1"},
		{v + `"id":1}`, invalid, "message has no method, result or error", v, "1"},
		{v + `"id":1,"params":{}}`, invalid, "message has no method, result or error", v, "1"},
		{v + `"result":{}}`, invalid, "result has no id", v, ""},
		{v + `"id":1,"error":"e"}`, invalid, "error is not an object", `"e"`, "1"},
		{v + `"id":1,"error":null}`, invalid, "error is not an object", "null", "1"},

		{v + `"method":"m","method":"m","id":1}`, invalid, `key "method" occurs twice`, `"method"`, "1"},
		{v + `"method":"m","m\u0065thod":"n","id":1}`, invalid, `key "method" occurs twice`, `"m\u0065`, "1"},
		{v + `"method":"m","id":1,"id":1}`, invalid, `key "id" occurs twice`, `"id"`, ""},
		{v + `"method":"m","id":1,"ID":1}`, invalid, `key "ID" is a known key in another case`, `"ID"`, ""},
		{v + `"method":"m","Id":1}`, invalid, `key "Id" is a known key in another case`, `"Id"`, ""},
		{v + `"method":"m","\u0049d":1}`, invalid, `key "Id" is a known key in another case`, `"\u0049d"`, ""},
		{v + `"METHOD":"m","method":"m","id":1}`, invalid, `key "METHOD" is a known key in another case`, `"METHOD"`, "1"},
		{v + `"method":"m","paramſ":{},"id":"é"}`, invalid, `key "paramſ" is a known key in another case`, `"paramſ"`, `"é"`},
		{v + `"method":"m","param\u017f":{}}`, invalid, `key "paramſ" is a known key in another case`, `"param\u017f"`, ""},
		{v + `"id":1,"method":"m","x":1,"y":2,"x":1}`, invalid, `key "x" occurs twice`, `"x"`, "1"},
		{v + `"id":1,"method":"m","x":1,"\u0078":1}`, invalid, `key "x" occurs twice`, `"\u0078"`, "1"},
		{v + `"id":1,"method":"m","":1,"":1}`, invalid, `key "" occurs twice`, `"":1}`, "1"},
		{v + `"id":1,"method":"m","\ud800":1,"\udfff":1}`, invalid, "key \"\ufffd\" occurs twice", `"\udfff`, "1"},
		{v + `"` + strings.Repeat("k", 99) + `":1,"` + strings.Repeat("k", 99) + `":1,"id":7}`, invalid,
			`key "` + strings.Repeat("k", maxQuoted) + `" occurs twice`, `"kkk`, "7"},
		{scanUnknown(maxUnknown + 1), invalid, `key "xq" is one unknown key too many`, `"xq"`, ""},
		{v + `"method":"m","params":{"name":"a","name":"b"},"id":1}`, invalid, `key "name" occurs twice`, `"name"`, "1"},
		{v + `"method":"m","params":{"name":"a","NAME":"b"},"id":1}`, invalid, `key "NAME" is a known key in another case`, `"NAME"`, "1"},
		{v + `"method":"m","params":{"Uri":"a"},"id":1}`, invalid, `key "Uri" is a known key in another case`, `"Uri"`, "1"},
		{v + `"method":"m","params":{"uri":"a","\u0075ri":0},"id":1}`, invalid, `key "uri" occurs twice`, `"\u0075`, "1"},
		{v + `"method":"m","params":{"_meta":{},"_meta":{}},"id":1}`, invalid, `key "_meta" occurs twice`, `"_meta"`, "1"},
		{v + `"method":"m","params":{"_META":{}},"id":1}`, invalid, `key "_META" is a known key in another case`, `"_META"`, "1"},
		{v + `"id":1,"method":"m","params":{"_meta":{"progressToken":1,"progressToken":1}}}`, invalid,
			`key "progressToken" occurs twice`, `"progressToken"`, "1"},
		{v + `"id":1,"method":"m","params":{"_meta":{"progreſſToKen":1}}}`, invalid,
			`key "progreſſToKen" is a known key in another case`, `"progreſ`, "1"},
		{v + `"method":"m","params":{"_meta":{"io.modelcontextprotocol/protocolversion":""}}}`, invalid,
			`key "io.modelcontextprotocol/protocolversion" is a known key in another case`, `"io.`, ""},
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range scanRefusals() {
		m, err := Parse(test.text)
		var e *ParseError
		if !errors.As(err, &e) {
			t.Errorf("%.200s: got %v, %v, want a ParseError", test.text, m, err)
			continue
		}
		want := ParseError{test.code, test.reason, strings.LastIndex(test.text, test.at), test.id}
		if m != nil || *e != want {
			t.Errorf("%.200s:\ngot  %+v\nwant %+v", test.text, *e, want)
		}
	}
	if m, err := Parse(" \n[nonsense"); m != nil || err != errBatch {
		t.Errorf("array: got %v, %v, want errBatch", m, err)
	}
	want := "message byte 1: message is not an object"
	if _, err := Parse(" 1"); err.Error() != want {
		t.Errorf("got error %q, want %q", err, want)
	}
}

// Every spelling that differs by one rune and that encoding/json takes for a key must be refused.
func TestParseFolds(t *testing.T) {
	for _, place := range []struct {
		before, after string
		keys          []string
	}{
		{`{"`, `":{}}`, []string{"jsonrpc", "id", "method", "params", "result", "error"}},
		{`{"params":{"`, `":{}}}`, []string{"name", "uri", "_meta"}},
		{`{"params":{"_meta":{"`, `":{}}}}`, []string{"progressToken", "io.modelcontextprotocol/protocolVersion"}},
	} {
		for _, key := range place.keys {
			for i, r := range key {
				for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
					other := key[:i] + string(f) + key[i+1:]
					_, err := Parse(place.before + other + place.after)
					if err == nil || !strings.Contains(err.Error(), `key "`+other+`" is a known key in another case`) {
						t.Errorf("key %q: got error %v, want it refused for its case", other, err)
					}
				}
			}
		}
	}
}

func TestParseAllocates(t *testing.T) {
	for _, text := range []string{
		scanCall, `{"jsonrpc":"2.0","id":1,"result":{"a":"\n\u00e9é"}}`, scanUnknown(maxUnknown),
		`{"jsonrpc":"2.0","method":"m","params":{"uri":"u","_meta":{"io.modelcontextprotocol/protocolVersion":"v"}}}`,
	} {
		if got := testing.AllocsPerRun(100, func() { Parse(text) }); got != 1 {
			t.Errorf("%.80s: got %v allocations, want 1", text, got)
		}
	}
	if got := testing.AllocsPerRun(100, func() { member(scanCall, "id"); locate(scanCall, "params", "name") }); got != 0 {
		t.Errorf("member, locate: got %v allocations, want 0", got)
	}
}

func TestSplitBatch(t *testing.T) {
	for _, test := range []struct {
		text string
		max  int
		want []string
		err  string
	}{
		{" [1 ,\n{\"a\":[ ]} , \"x\"\n] ", 3, []string{"1", `{"a":[ ]}`, `"x"`}, ""},
		{"[1,2,3]", 2, nil, "message byte 5: batch has too many elements"},
		{"[1,2,3", 2, nil, "message byte 6: neither comma nor closing bracket"},
		{" []", 9, nil, "message byte 1: batch is empty"},
		{`{"progressToken":1,"progressToken":1}`, 9, nil, "message byte 0: batch is not an array"},
		{"[1]]", 9, nil, "message byte 3: data after the end of the value"},
		{"", 9, nil, "message byte 0: not JSON: the text ends too early"},
	} {
		got, err := splitBatch(test.text, test.max)
		reason := ""
		if err != nil {
			reason = err.Error()
		}
		if !reflect.DeepEqual(got, test.want) || reason != test.err {
			t.Errorf("%q: got %q, %q, want %q, %q", test.text, got, reason, test.want, test.err)
		}
	}
	deep := scanNested(maxDepth)
	if got, err := splitBatch("["+deep+"]", 1); err != nil || len(got) != 1 || got[0] != deep {
		t.Errorf("element as deep as a message: got %v", err)
	}
}

func TestLocate(t *testing.T) {
	for _, test := range []struct {
		text string
		path []string
		want string
		ok   bool
	}{
		{scanCall, []string{"params", "arguments", "limit"}, "100", true},
		{scanCall, []string{"params", "_meta"}, `{"progressToken":17}`, true},
		{scanCall, []string{"limit"}, "", false},
		{scanCall, []string{"method", "x"}, "", false},
		{scanCall, []string{"params", "arguments", "Limit"}, "", false},
		{` { "a" : [ 1 ] , "" : 2 } `, nil, `{ "a" : [ 1 ] , "" : 2 }`, true},
		{` { "a" : [ 1 ] , "" : 2 } `, []string{"a"}, "[ 1 ]", true},
		{` { "a" : [ 1 ] , "" : 2 } `, []string{""}, "2", true},
		{`{"a":{"b":1},"\u0061":{"b":2}}`, []string{"a", "b"}, "2", true},
		{`{"a":{"b":1},"a":{"c":2}}`, []string{"a", "b"}, "", false},
		{`{"a\"":1}`, []string{`a"`}, "1", true},
		{`[{"a":1}]`, []string{"a"}, "", false},
		{`{"a":1`, []string{"a"}, "", false},
		{" ", nil, "", false},
		{"", []string{"a"}, "", false},
	} {
		start, end, ok := locate(test.text, test.path...)
		if ok != test.ok || ok && test.text[start:end] != test.want {
			t.Errorf("%s %q: got %d, %d, %v, want %s, %v", test.text, test.path, start, end, ok, test.want, test.ok)
		}
		if len(test.path) == 1 && member(test.text, test.path[0]) != test.want {
			t.Errorf("member(%s, %q): got %s, want %s", test.text, test.path[0], member(test.text, test.path[0]), test.want)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	block := `{"type":"text","text":"` + strings.Repeat(`The quick brown fox jumps over the lazy dog, said \"nobody\".\n`, 15) + `"},`
	answer := func(size int) string {
		return `{"jsonrpc":"2.0","id":17,"result":{"content":[` + strings.Repeat(block, size/len(block)) + `{}]}}`
	}
	for _, bench := range []struct{ name, text string }{
		{"call", scanCall},
		{"answer 10 KB", answer(10 << 10)},
		{"answer 1 MB", answer(1 << 20)},
		{"string 50 MB", `{"jsonrpc":"2.0","id":17,"result":"` + strings.Repeat("x", 50<<20) + `"}`},
		{"numbers 1 MB", `{"jsonrpc":"2.0","id":17,"result":[0` + strings.Repeat(`,{"x":1,"y":-2.5e3,"ok":true}`, 1<<15) + `]}`},
		{"not ASCII 1 MB", `{"jsonrpc":"2.0","id":17,"result":"` + strings.Repeat("漢字", 1<<17) + `"}`},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(bench.text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
