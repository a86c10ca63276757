// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const testRedactKey = "0123456789abcdef"

func testRedactor(t testing.TB, rules ...string) *Redactor {
	t.Helper()
	var list []RedactRule
	for _, s := range rules {
		rule, err := ParseRedactRule(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rule)
	}
	return NewRedactor(list, []byte(testRedactKey))
}

// fillIn replaces each ⟦NAME VALUE⟧ in text by the placeholder of the value with this JSON text.
func fillIn(text string) string {
	return regexp.MustCompile(`⟦.*?⟧`).ReplaceAllStringFunc(text, func(s string) string {
		name, value, _ := strings.Cut(s[len("⟦"):len(s)-len("⟧")], " ")
		mac := hmac.New(sha256.New, []byte(testRedactKey))
		mac.Write([]byte(value))
		return fmt.Sprintf("«redacted:%s:%x»", name, mac.Sum(nil)[:8])
	})
}

func TestRedactMessage(t *testing.T) {
	for _, c := range []struct{ name, rules, text, want string }{
		{"nothing", "", `{"jsonrpc":"2.0","id":1,"method":"ping"}`, ""},
		{"usual name", "", `{"a":1, "password" : "x" ,"b":[ ]}`, `{"a":1, "password" : "⟦password "x"⟧" ,"b":[ ]}`},
		{"spellings of the key", "", `{"API_Key":"x","api-key":"x","apikey":"x","pass\u0077ord":"x","_To-Ken_":"x"}`,
			`{"API_Key":"⟦apikey "x"⟧","api-key":"⟦apikey "x"⟧","apikey":"⟦apikey "x"⟧","pass\u0077ord":"⟦password "x"⟧","_To-Ken_":"⟦token "x"⟧"}`},
		{"no secrets", "", `{"method":"m","params":{"_meta":{"progressToken":"p"},"nextCursor":"c","requestState":"s","maxTokens":5,"tokens":"t","nextPageToken":"t","passwords2":"p"}}`, ""},
		{"spellings of the value", "", `[{"token":"a"},{"token":"\u0061"},{"token":1},{"token":1.0},{"token":10e-1},{"token":12345678901234567890},{"token":1234567890123456789e1}]`,
			`[{"token":"⟦token "a"⟧"},{"token":"⟦token "a"⟧"},{"token":"⟦token 1⟧"},{"token":"⟦token 1⟧"},{"token":"⟦token 1⟧"},{"token":"⟦token 12345678901234567890⟧"},{"token":"⟦token 12345678901234567890⟧"}]`},
		{"numbers float64 cannot hold", "", `{"n":9007199254740993,"f":1.10,"e":1E400,"token":9007199254740993,"secret":9007199254740992}`,
			`{"n":9007199254740993,"f":1.10,"e":1E400,"token":"⟦token 9007199254740993⟧","secret":"⟦secret 9007199254740992⟧"}`},
		{"schema stays", "", `{"properties":{"password":{"type":"string"},"token":{"enum":["a"]}},"required":["password"]}`, ""},
		{"usual name, other types", "", `{"token":true,"secret":null,"cookie":["a",2,{"x":"y","pwd":3},["z"],[],false],"pwd":["a" , 1.0],"jwt":["a",true]}`,
			`{"token":true,"secret":null,"cookie":["⟦cookie "a"⟧","⟦cookie 2⟧",{"x":"y","pwd":"⟦pwd 3⟧"},"⟦cookie ["z"]⟧",[],false],"pwd":"⟦pwd ["a",1]⟧","jwt":["⟦jwt "a"⟧",true]}`},
		{"twice", "", `{"token":"a","token":"b"}`, `{"token":"⟦token "a"⟧","token":"⟦token "b"⟧"}`},
		{"none", "none", `{"password":"x"}`, ""},
		{"none with a key", "none key=ssn", `{"password":"x","SSN":[1]}`, `{"password":"x","SSN":"⟦ssn [1]⟧"}`},
		{"headers", "", `{"authorization":"Bearer x","mcp-session-id":"s","retry-after":"1"}`,
			`{"authorization":"⟦authorization "Bearer x"⟧","mcp-session-id":"⟦mcpsessionid "s"⟧","retry-after":"1"}`},
		{"key, any type", "key=Data", `{"data":{"b":1.0,"a":"\u0061"},"x":{"DATA":null},"dat":1}`,
			`{"data":"⟦Data {"a":"a","b":1}⟧","x":{"DATA":"⟦Data null⟧"},"dat":1}`},
		{"key beyond ASCII", "key=Größe", `{"GRÖSSE":1,"GRÖßE":2,"gr\u00f6\u00dfe":3}`, `{"GRÖSSE":1,"GRÖßE":"⟦Größe 2⟧","gr\u00f6\u00dfe":"⟦Größe 3⟧"}`},
		{"key with escapes", `key=a"/b`, `{"a\"\/b":1}`, `{"a\"\/b":"⟦a__b 1⟧"}`},
		{"short keys", "key=q key=id", `{"id":1,"params":{"id":2,"Q":3}}`, `{"id":1,"params":{"id":"⟦id 2⟧","Q":"⟦q 3⟧"}}`},
		{"pointer", "/params/arguments/card", `{"card":1,"params":{"card":2,"arguments":{"card":{"n":3},"Card":4}}}`,
			`{"card":1,"params":{"card":2,"arguments":{"card":"⟦card {"n":3}⟧","Card":4}}}`},
		{"pointer with *", "/result/content/*/text", `{"result":{"content":[{"text":"a","x":1},{"text":["b"]},3]}}`,
			`{"result":{"content":[{"text":"⟦text "a"⟧","x":1},{"text":"⟦text ["b"]⟧"},3]}}`},
		{"pointer with numbers", "/a/1 /b/01", `{"a":[1,2,3],"b":[1,2],"c":{"a":[1,2]}}`, `{"a":[1,"⟦1 2⟧",3],"b":[1,2],"c":{"a":[1,2]}}`},
		{"pointers that part", "/*/x /a/y /a/*/z", `{"a":{"x":1,"y":2,"k":{"z":3}},"b":{"x":1,"y":2}}`,
			`{"a":{"x":"⟦x 1⟧","y":"⟦y 2⟧","k":{"z":"⟦z 3⟧"}},"b":{"x":"⟦x 1⟧","y":2}}`},
		{"pointer to escapes", "/a~1b/~0", `{"a/b":{"\u007e":1}}`, `{"a/b":{"\u007e":"⟦_ 1⟧"}}`},
		{"pointer into a batch", "/params/a", ` [ {"params":{"a":1}} , {"params":{"b":1}} ] `, ` [ {"params":{"a":"⟦a 1⟧"}} , {"params":{"b":1}} ] `},
		{"pointer to an id", "/id", `{"id":1,"x":{"id":1}}`, `{"id":"⟦id 1⟧","x":{"id":1}}`},
		{"regular expression", `re=\d{4}`, `{"a":"pin 1234, \u0031235!","b":1234,"1234":["1234\n"]}`,
			`{"a":"pin ⟦match "1234"⟧, ⟦match "1235"⟧!","b":1234,"1234":["⟦match "1234"⟧\n"]}`},
		{"what holds the message together", `re=. key=id key=method`, `{"jsonrpc":"2.0","id":"x","method":"m"}`, ""},
		{"matches that overlap", `re=abc re=cde re=x`, `{"a":"-abcdex-"}`, `{"a":"-⟦match "abcde"⟧⟦match "x"⟧-"}`},
		{"JSON as text", "", `{"text":"{\"password\": \"x\",\"n\":1.0}\n","u":"[{\"token\":1},\"token\"]","v":"{\"token\":1"}`,
			`{"text":"{\"password\": \"⟦password "x"⟧\",\"n\":1.0}\n","u":"[{\"token\":\"⟦token 1⟧\"},\"token\"]","v":"{\"token\":\"⟦token 1⟧\""}`},
		{"JSON as text, escaped otherwise", "", `{"text":"\n\u007b\u0022password\u0022\n\u003a\"\\u0078\"}"}`, `{"text":"\n{\"password\"\n:\"⟦password "x"⟧\"}"}`},
		{"JSON among text", "", `["Here:\n\u0060\u0060{\"token\": \"x\"}","{\"token\":\"x\"}{\"a\":\"{\\\"pwd\\\":1"]`,
			`["Here:\n` + "``" + `{\"token\": \"⟦token "x"⟧\"}","{\"token\":\"⟦token "x"⟧\"}{\"a\":\"{\\\"pwd\\\":\\\"⟦pwd 1⟧\\\""]`},
		{"JSON in JSON as text", "", `["{\"a\":\"{\\\"pwd\\\":\\\"x\\\"}\"}"]`, `["{\"a\":\"{\\\"pwd\\\":\\\"⟦pwd "x"⟧\\\"}\"}"]`},
		{"match in JSON as text", `re=\d{4}`, `{"text":"{\"a\":\"1234\",\"b\":\"\\u0031234\"}"}`, `{"text":"{\"a\":\"⟦match "1234"⟧\",\"b\":\"⟦match "1234"⟧\"}"}`},
		{"placeholder", "", `{"token":"«redacted:other:0123456789abcdef»","pwd":"«redacted:other:0123»"}`,
			`{"token":"«redacted:other:0123456789abcdef»","pwd":"⟦pwd "«redacted:other:0123»"⟧"}`},
		{"match around a placeholder", `re=x.*`, `["x«redacted:a:0123456789abcdef»yz"]`, `["⟦match "x"⟧«redacted:a:0123456789abcdef»⟦match "yz"⟧"]`},
		{"matches without end", `re=\d\b`, `["a 1234567"]`, `["⟦match "a 1234567"⟧"]`},
	} {
		r := testRedactor(t, strings.Fields(c.rules)...)
		want := c.text
		if c.want != "" {
			want = fillIn(c.want)
		}
		got := r.Message(c.text)
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
		if again := r.Message(got); again != got {
			t.Errorf("%s: a second time: got %s, want %s", c.name, again, got)
		}
	}
}

func TestRedactNothing(t *testing.T) {
	var r *Redactor
	if got := r.Message(`{"password":1}`); got != `{"password":1}` || r.Rules() != nil || r.Text("x") != "x" {
		t.Errorf("got %s", got)
	}
	text, r := `{"a":{"b":["c:",1],"description":"d"}}`, testRedactor(t, "/a/b/c/d", "key=e", "re=fff")
	if n := testing.AllocsPerRun(100, func() { r.Message(text) }); n > 0 {
		t.Errorf("%v allocations for nothing", n)
	}
}

func TestRedactText(t *testing.T) {
	r := testRedactor(t, "re=sk-[a-z]+")
	for text, want := range map[string]string{
		"key sk-abc and sk-d":           `key ⟦match "sk-abc"⟧ and ⟦match "sk-d"⟧`,
		`{"token":"x","k":"sk-\u0061"}`: `{"token":"⟦token "x"⟧","k":"⟦match "sk-a"⟧"}`,
		"token=x":                       "token=x",
		"sk-a\xff":                      "⟦match \"sk-a\"⟧\xff",

		// What only resembles JSON.
		"{\"token\":\"x\",\"a\":\"\xff\"}":                      "{\"token\":\"⟦token \"x\"⟧\",\"a\":\"\xff\"}",
		`{"a":{"token" : "x\"y\\","pwd":-1.50,"k":"t`:           `{"a":{"token" : "⟦token "x\"y\\"⟧","pwd":"⟦pwd -15e-1⟧","k":"t`,
		`{"a":1,"token":"x\"`:                                   `{"a":1,"token":"⟦token "x\""⟧`,
		`n":1,"API-Key":12`:                                     `n":1,"API-Key":"⟦apikey 12⟧"`,
		"`{\"to\\u006ben\":\n\"x\"}` and {\"a\":[{\"pwd\":1}]}": "`{\"to\\u006ben\":\n\"⟦token \"x\"⟧\"}` and {\"a\":[{\"pwd\":\"⟦pwd 1⟧\"}]}",
		"\ufeff{\"token\":\"x\"}":                               "\ufeff{\"token\":\"⟦token \"x\"⟧\"}",
		`a="{\"token\":\"x\\\"y\",\"pwd\": 1}" :`:               `a="{\"token\":\"⟦token "x\\\"y"⟧\",\"pwd\": \"⟦pwd 1⟧\"}" :`,
		`"tokens":"x" : "token":true "token":["x"]`:             `"tokens":"x" : "token":true "token":["x"]`,
		`{"token":"⟦other 1⟧"`:                                  `{"token":"⟦other 1⟧"`,
		`{"token":"` + `" "pwd":""`:                             `{"token":"` + `" "pwd":""`,
	} {
		if got := r.Text(fillIn(text)); got != fillIn(want) {
			t.Errorf("%q: got %q, want %q", text, got, fillIn(want))
		}
	}
}

func TestParseRedactRule(t *testing.T) {
	for _, s := range []string{"", "password", "key=", "key=" + strings.Repeat("x", maxKeyName+1), "re=", "re=(", "None", "key=\xff"} {
		if _, err := ParseRedactRule(s); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", s)) {
			t.Errorf("%q: got %v, want an error that names it", s, err)
		}
	}
}

func TestTapeRedactor(t *testing.T) {
	rules := []string{"/a/*", "key=b", `re=c\d`}
	r := testRedactor(t, rules...)
	h := TapeHeader{Redact: r.Rules(), Key: fmt.Sprintf("%x", testRedactKey)}
	if want := append([]string{"default"}, rules...); !reflect.DeepEqual(h.Redact, want) {
		t.Errorf("got rules %q, want %q", h.Redact, want)
	}
	text := `{"a":[1],"x":{"b":2,"token":3,"y":"c4"}}`
	header, _ := json.Marshal(h)
	var read TapeHeader
	if err := json.Unmarshal(header, &read); err != nil {
		t.Fatal(err)
	}
	if again, err := newTapeRedactor(&read, nil); err != nil || again.Message(text) != r.Message(text) {
		t.Errorf("got %s, %v, want %s", again.Message(text), err, r.Message(text))
	}
	h.Key = ""
	if again, err := newTapeRedactor(&h, []byte(testRedactKey)); err != nil || again.Message(text) != r.Message(text) {
		t.Errorf("with a user's key: got %s, %v, want %s", again.Message(text), err, r.Message(text))
	}
	if _, err := newTapeRedactor(&h, nil); err == nil || !strings.Contains(err.Error(), "-redact-key") {
		t.Errorf("got %v, want an error that asks for -redact-key", err)
	}
	h.Redact = testRedactor(t, "none", "key=b").Rules()
	if again, err := newTapeRedactor(&h, []byte(testRedactKey)); err != nil || again.Message(`{"token":1}`) != `{"token":1}` {
		t.Errorf("got %v, want the usual names left alone", err)
	}
	for _, h := range []TapeHeader{{Redact: []string{"later"}, Key: "00"}, {Redact: []string{"default"}, Key: "xy"}, {Redact: make([]string, maxTapeRules+1), Key: "00"}} {
		if _, err := newTapeRedactor(&h, nil); err == nil {
			t.Errorf("%.20q: no error", h.Redact)
		}
	}
	if r, err := newTapeRedactor(&TapeHeader{}, nil); r != nil || err != nil {
		t.Errorf("without rules: got %v, %v, want nil", r, err)
	}
}

// secretsIn appends the values of the keys that named holds, as decodeJSON has them.
func secretsIn(list []any, v any, named func(string) bool) []any {
	switch v := v.(type) {
	case map[string]any:
		for k, value := range v {
			if named(k) {
				list = append(list, value)
			} else {
				list = secretsIn(list, value, named)
			}
		}
	case []any:
		for _, value := range v {
			list = secretsIn(list, value, named)
		}
	}
	return list
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{
		`{"a":{"pass_word":"x"},"d":[{"KEY":{"z":[1]}}]}`, `["{\"token\":\"x\",\"k\":12}"]`, `{"to\u006ben" :1.0,"p":{"q":[1,{"r":"k-12"}]}}`,
		`{"a":"\u007b\u0022token\u0022\t:1}"}`, `["{\"a\":\"{\\\"pwd\\\" : 1}\"}"]`, `["«redacted:a:0123456789abcdef»1«redacted:"]`, `{"":"\ud800"}`,
	} {
		f.Add(s)
	}
	r := testRedactor(f, "/p/*/1", "/*/q", "key=key", `re=\d\b|k-\d+`, `re=x.y`)
	usual, none, walked := testRedactor(f), testRedactor(f, "none"), testRedactor(f)
	walked.odd = true // so that it always walks
	f.Fuzz(func(t *testing.T, text string) {
		if !holdsJSON(text) {
			return
		}
		if got := none.Message(text); got != text {
			t.Fatalf("%s without rules: got %s", text, got)
		}
		if got, want := usual.Message(text), walked.Message(text); got != want {
			t.Fatalf("%s: got %s, without looking ahead %s", text, got, want)
		}
		for _, r := range []*Redactor{r, usual} {
			got := r.Message(text)
			if !holdsJSON(got) {
				t.Fatalf("%s: got %s", text, got)
			}
			if again := r.Message(got); again != got {
				t.Fatalf("%s: got %s, a second time %s", text, got, again)
			}
		}
		named := func(k string) bool { return strings.ToLower(k) == "key" }
		for _, v := range secretsIn(nil, decodeJSON(r.Message(text)), named) {
			if s, ok := v.(string); !ok || placeholder.FindString(s) != s {
				t.Fatalf("%s: got %s, which has %v", text, r.Message(text), v)
			}
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	size := func(n int, key string) string {
		s := `{"jsonrpc":"2.0","id":1234567,"method":"tools/call","params":{"name":"echo","arguments":{"` + key + `":"X"},"_meta":{"progressToken":"p1"}}}`
		return strings.Replace(s, "X", strings.Repeat("Some words: a line.\\n", (n-len(s))/20)+strings.Repeat("x", (n-len(s))%20), 1)
	}
	for _, c := range []struct {
		name  string
		rules []string
		text  string
	}{
		{"usual/160B", nil, size(160, "message")},
		{"usual/10KB", nil, size(10<<10, "message")},
		{"usual/1MB", nil, size(1<<20, "message")},
		{"pointers/160B", []string{"/params/arguments/card", "/result/content/*/text"}, size(160, "message")},
		{"pointers/1MB", []string{"/params/arguments/card", "/result/content/*/text"}, size(1<<20, "message")},
		{"regexp/160B", []string{`re=\bsk-[a-z0-9]{20}`}, size(160, "message")},
		{"regexp/1MB", []string{`re=\bsk-[a-z0-9]{20}`}, size(1<<20, "message")},
		{"replaced/160B", nil, size(160, "password")},
	} {
		r := testRedactor(b, c.rules...)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.text)))
			for b.Loop() {
				r.Message(c.text)
			}
		})
	}
}

func TestRedactSparesNoMemberOfAMessage(t *testing.T) {
	for _, c := range []struct{ rule, text string }{
		{"default", `{"jsonrpc":"2.0","id":1,"method":"m","params":{"token":"x"}}`},
		{"default", `{"jsonrpc":"2.0","id":1,"method":"m","params":{},"token":"x"}`},
		{"default", `{"token":"x","jsonrpc":"2.0","id":1,"result":{}}`},
		{"default", `{"jsonrpc":"2.0","id":1,"result":"{\"token\":1}"}`},
		{"default", `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x","data":{"token":"x"}}}`},
		{"default", `{"jsonrpc":"2.0","id":1, "result":{},"extra":{"token":"x"}}`},
		{"key=Params", `{"jsonrpc":"2.0","id":1,"method":"m","params":{}}`},
		{"key=re-sult", `{"jsonrpc":"2.0","id":1,"result":{}}`},
		{"/id", `{"jsonrpc":"2.0","id":1,"result":{}}`},
		{"re=^abc$", `{"jsonrpc":"2.0","id":1,"result":{"a":"abc"}}`},
	} {
		rule, err := ParseRedactRule(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		e := &Entry{Kind: lineMsg, Msg: m.Raw, of: m}
		NewRedactor([]RedactRule{rule}, make([]byte, 32)).entry(e)
		if !strings.Contains(e.Msg, "«redacted:") {
			t.Errorf("%s: %s stays as it is", c.rule, c.text)
		}
	}
}
