// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func testReplacer(t testing.TB, match, with string) *textReplacer {
	t.Helper()
	r, err := newTextReplacer(match, with)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReplace(t *testing.T) {
	for _, c := range []struct {
		name, match, with, in, text, want string
		odd                               bool
	}{
		{"all strings, no key", `[\w.]+@[\w.]+`, "<mail>", "",
			`{"jsonrpc":"2.0","id":"a@b","method":"c@d","x@y":"e@f","params":{ "g@h" : "i@j, k@l" ,"m":["n@o",1.0,{"p":"q@r\n"}]}}`,
			`{"jsonrpc":"2.0","id":"a@b","method":"c@d","x@y":"e@f","params":{ "g@h" : "<mail>, <mail>" ,"m":["<mail>",1.0,{"p":"<mail>\n"}]}}`, false},
		{"result", `a+`, "b", "", `{"jsonrpc":"2.0","result":"aa","id":1}`, `{"jsonrpc":"2.0","result":"b","id":1}`, false},
		{"error before id", `a`, "b", "", `{"error":{"message":"aa","a":"\u0061"},"jsonrpc":"2.0","id":"a"}`, `{"error":{"message":"bb","a":"b"},"jsonrpc":"2.0","id":"a"}`, false},
		{"template", `(\w+)@(\w+)`, `$2 at ${1}x$$`, "", `{"params":{"a":"x@y"}}`, `{"params":{"a":"y at xx$"}}`, false},
		{"escaped match", `@`, `"\`, "", `{"params":["\u0040","\u00e9\/","@\/\ud83d\ude00"]}`, `{"params":["\"\\","\u00e9\/","\"\\/😀"]}`, false},
		{"literal with an escape", `a/b`, `c`, "", `{"params":["a\/b","a\\/b","a\u002fb","a/b"]}`, `{"params":["c","a\\/b","c","c"]}`, false},
		{"replaced by itself", `a|b`, `a`, "", `{"params":["\u0061","b"]}`, `{"params":["\u0061","a"]}`, false},
		{"in", `a`, "b", "/result/content/*/text", `{"result":{"content":[{"text":"a","x":"a"},{"text":["a"]},{}],"y":"a"}}`, `{"result":{"content":[{"text":"b","x":"a"},{"text":["b"]},{}],"y":"a"}}`, false},
		{"in, odd", `a`, "b", "/result/content/*/text", `{"result":{"content":[{"text":"a"},1]}}`, ``, true},
		{"in what is absent", `a`, "b", "/result/x", `{"result":"a"}`, ``, true},
		{"start and end", `^a|b$`, "c", "", `{"params":["aab","bab",""]}`, `{"params":["cac","bac",""]}`, false},
		{"empty matches", `x*`, "-", "", `{"params":["ax",""]}`, `{"params":["-a-","-"]}`, false},
	} {
		var in rulePath
		if c.in != "" {
			in, _ = parseRulePath(c.in)
		}
		if c.want == "" {
			c.want = c.text
		}
		got, odd := testReplacer(t, c.match, c.with).replace(c.text, in)
		if got != c.want || odd != c.odd {
			t.Errorf("%s: got %s, %v, want %s, %v", c.name, got, odd, c.want, c.odd)
		}
	}
}

// replacePatterns have in them what decides how much of a text is searched.
func replacePatterns() []string {
	return []string{
		`[\w.]+@[\w.]+`, `\b\d{3}-\d{2}-\d{4}\b`, `sk-[A-Za-z0-9]{20,}`, `(?i)password`, `(?i)kiss-me`, `a`, `a+b*`, `(a|ab)(c|bcd)`,
		`\bab\b`, `\Bb`, `b\B`, `\b`, `^a`, `a$`, `(?m)^a`, `(?m)a$`, `\Aa|b\z`, `a*`, `(?:a|b)?`, `.`, `.+`, `(?s).+b`, `[^a]+`, `[^é]b`,
		`é+`, `a?é`, `\x{FFFD}`, `[\x{FFFD}]a`, `[k]`, `(?i)k`, `(?i)ss?`, `K`, `\s+a`, `a{2,3}?`, `(a{2}){2}`, `a.b`, `\pL+`, `\PL+`,
		`[[:punct:]]`, `(?i:é)`, `a|@`, `a|aa|b`, `(?U)a+b`, `[^\x00-\x{10FFFF}]`, `\x{D800}`, `[\x{D800}-\x{DFFF}]a`, `(?i)a-b|b-a`,
		`"a"`, `\\`, `/`, `\n`, `ab|cab`, `(a)|(b)`, `()a`, `(?:)`, `\b\w+\b`, `-?\b1`, `日本`, `[a日]b`, `😀`, `(?i)ǆ`, `\d+`, `[0-9]{3}`,
	}
}

const replaceAlphabet = "aaabbcdk K ſsS-@.\n\"\\/1123éÉ日本😀\uFFFDǅ password PassWord"

func checkReplace(t *testing.T, r *textReplacer, re *regexp.Regexp, s string) {
	t.Helper()
	want := re.ReplaceAllString(s, r.with)
	if got := r.in(s); got != want {
		t.Fatalf("%q in %q: got %q, want %q", re, s, got, want)
	}
	text := `{"jsonrpc":"2.0","method":"m","params":[` + quote(s) + `]}`
	got, _ := r.replace(text, nil)
	if value := strings.TrimSuffix(strings.TrimPrefix(got, `{"jsonrpc":"2.0","method":"m","params":[`), `]}`); value != quote(want) {
		t.Fatalf("%q in %s: got %s, want %s", re, text, got, quote(want))
	}
}

// TestReplaceAsRegexp replaces in many strings, of which most have matches.
func TestReplaceAsRegexp(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []rune(replaceAlphabet)
	for _, match := range replacePatterns() {
		r, re := testReplacer(t, match, "<$0$1>"), regexp.MustCompile(match)
		for range 2000 {
			some := 1 + random.IntN(len(alphabet)) // few different ones make more matches
			offset := random.IntN(len(alphabet))
			s := make([]rune, random.IntN(40))
			for i := range s {
				s[i] = alphabet[(offset+random.IntN(some))%len(alphabet)]
			}
			checkReplace(t, r, re, string(s))
		}
	}
}

func FuzzReplace(f *testing.F) {
	for _, match := range replacePatterns() {
		f.Add(match, "<$1>", replaceAlphabet)
	}
	f.Fuzz(func(t *testing.T, match, with, s string) {
		r, err := newTextReplacer(match, with)
		if err != nil || !utf8.ValidString(s) || !utf8.ValidString(with) {
			return
		}
		checkReplace(t, r, regexp.MustCompile(match), s)
	})
}

// benchTexts are answers of 1 MB.
func benchTexts() map[string]string {
	prose := "The quick brown fox, who was well-known in Zürich – and beyond –, said: \"Nobody expects it on 2026-01-02.\"\n" +
		"So the dog slept through all 17 of the café's long and pleasant evenings, as dogs do; see https://example.org/a?b=c. "
	mails := prose + prose + prose + prose + "Write to jane.doe@example.org! "
	text := func(s string) string {
		return `{"content":[{"type":"text","text":` + quote(strings.Repeat(s, 1e6/len(s)+1)) + `}]}`
	}
	var objects []string
	for i := range 1_000_000 / 85 {
		objects = append(objects, fmt.Sprintf(`{"id":%d,"name":"item number %[1]d","tags":["red","blue"],"when":"2026-01-02","ok":true}`, i))
	}
	var people []string
	for i := range 1_000_000 / 85 {
		people = append(people, fmt.Sprintf(`{"id":%d,"name":"Jane Doe","mail":"jane.doe.%[1]d@example.org","since":"2026-01-02","ok":true}`, i))
	}
	return map[string]string{"people": "[" + strings.Join(people, ",") + "]", "prose": text(prose), "mails": text(mails), "chinese": text("日本語のテキスト、これは長い文字列です"),
		"objects": "[" + strings.Join(objects, ",") + "]"}
}

func BenchmarkReplace(b *testing.B) {
	texts := benchTexts()
	for _, name := range []string{"prose", "mails", "chinese", "objects", "people"} {
		text := `{"jsonrpc":"2.0","id":7,"result":` + texts[name] + `}`
		for _, match := range []string{`[\w.]+@[\w.]+`, `\b\d{3}-\d{2}-\d{4}\b`, `sk-[A-Za-z0-9]{20,}`, `(?i)password`} {
			r := testReplacer(b, match, "<gone>")
			b.Run(name+"/"+match, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					r.replace(text, nil)
				}
			})
		}
	}
}
