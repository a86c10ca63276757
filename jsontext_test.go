// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// Every byte at every position in the eight bytes that are looked at together, next to every kind of neighbour.
func TestSkipString(t *testing.T) {
	for position := range 10 {
		for c := range 256 {
			for _, after := range []string{"", " ", "\x80", "\xbf\xbf", `"`, "u0041", "!#[]\x7f"} {
				for _, tail := range []string{`"`, `"        `, ""} {
					text := `"` + strings.Repeat("a", position) + string([]byte{byte(c)}) + after + tail
					end, plain := skipString(text, 0)
					want := -1
					for i := 2; i <= len(text) && want < 0; i++ { // the shortest prefix that is a string
						if utf8.ValidString(text[:i]) && json.Valid([]byte(text[:i])) {
							want = i
						}
					}
					if (end < 0) != (want < 0) || end >= 0 && end != want || ^end > len(text) {
						t.Fatalf("%q: got end %d, want %d", text, end, want)
					}
					if end >= 0 && plain == strings.Contains(text[:end], `\`) {
						t.Fatalf("%q: got plain %v", text, plain)
					}
				}
			}
		}
	}
}

func TestQuote(t *testing.T) {
	for _, test := range []struct{ value, want string }{
		{"", `""`},
		{"abcdefghijklmnop", `"abcdefghijklmnop"`},
		{"a\"b\\c/\b\f\n\r\t", `"a\"b\\c/\b\f\n\r\t"`},
		{"\x00\x0e\x1f\x7f<&>\u2028é😀", "\"\\u0000\\u000e\\u001f\x7f<&>\u2028é😀\""},
		{"a\xffb\xed\xa0\x80", "\"a\ufffdb\ufffd\ufffd\ufffd\""},
	} {
		if got := quote(test.value); got != test.want {
			t.Errorf("%q: got %s, want %s", test.value, got, test.want)
		}
	}
	for _, text := range []string{"", `"`, "a", `"a`, `"a" `, ` "a"`, `"a"b"`, `"\x"`, "\"\n\"", "\"\xff\"", "null", "1"} {
		if got, ok := unquote(text); ok || got != "" {
			t.Errorf("unquote(%q): got %q, %v, want false", text, got, ok)
		}
	}
	if got := testing.AllocsPerRun(100, func() { unquote(`"plain é"`) }); got != 0 {
		t.Errorf("unquote: got %v allocations, want 0", got)
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a\x00\"\xff", `"\ud800\u0041"`, `"\ud83d\ude00\ud83d"`, `"\ud800\ud83d\ude00"`, `"\/\b\f\n\r\t\\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var value string
		if err := json.Unmarshal([]byte(quote(s)), &value); err != nil || value != string([]rune(s)) {
			t.Fatalf("quote(%q): got %s, %v", s, quote(s), err)
		}
		if got, ok := unquote(quote(s)); !ok || got != value {
			t.Fatalf("unquote(quote(%q)): got %q, want %q", s, got, value)
		}
		got, ok := unquote(s)
		isString := strings.HasPrefix(s, `"`) && strings.HasSuffix(s, `"`) && utf8.ValidString(s) && json.Unmarshal([]byte(s), &value) == nil
		if ok != isString || ok && got != value {
			t.Fatalf("unquote(%q): got %q, %v, want %q, %v", s, got, ok, value, isString)
		}
	})
}

func TestCanonicalID(t *testing.T) {
	for _, test := range []struct{ id, want string }{
		{"", ""}, {"null", "null"},
		{`"é"`, `"é"`}, {`"\u00e9"`, `"é"`}, {`"1"`, `"1"`}, {`"\u0031"`, `"1"`}, {`"a\/\u000ab"`, `"a/\nb"`}, {`"a/\nb"`, `"a/\nb"`},
		{"1", "1"}, {"1.0", "1"}, {"1e0", "1"}, {"10e-1", "1"}, {"0.1E+1", "1"}, {"1e2", "100"}, {"100", "100"}, {"1.20e1", "12"},
		{"0", "0"}, {"-0", "0"}, {"-0.0", "0"}, {"0e5", "0"}, {"-1.0", "-1"}, {"-1e1", "-10"},
		{"1.5", "15e-1"}, {"15e-1", "15e-1"}, {"0.15e1", "15e-1"}, {"-0.001", "-1e-3"},
		{"9007199254740993", "9007199254740993"}, {"9007199254740993.0", "9007199254740993"}, {"9007199254740992e0", "9007199254740992"},
		{"1e1000", "1" + strings.Repeat("0", 1000)}, {"1e0000000000000000000002", "100"},
		{"1e1001", "1e1001"}, {"1e-1001", "1e-1001"}, {"10e-1001", "10e-1001"}, {"1e999999999", "1e999999999"}, {"1e-99999999999999999999", "1e-99999999999999999999"},
	} {
		if got := canonicalID(test.id); got != test.want {
			t.Errorf("%s: got %s, want %s", test.id, got, test.want)
		}
	}
	if got := testing.AllocsPerRun(100, func() { canonicalID("17"); canonicalID(`"é17"`); canonicalID("-3") }); got != 0 {
		t.Errorf("plain ids: got %v allocations, want 0", got)
	}
}

func FuzzCanonicalID(f *testing.F) {
	f.Add("1.0", "1e0")
	f.Add("-0.00120e+2", "-12e-2")
	f.Add(`"\u00e9"`, `"é"`)
	f.Add("9007199254740993", "9007199254740992")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := canonicalID(a), canonicalID(b)
		if !json.Valid([]byte(a)) || !json.Valid([]byte(b)) || len(a) > 50 || len(b) > 50 {
			return
		}
		if again := canonicalID(x); again != x {
			t.Fatalf("%s: got %s, then %s", a, x, again)
		}
		var s, u string
		if unmarshal := json.Unmarshal([]byte(a), &s) == nil && json.Unmarshal([]byte(b), &u) == nil; unmarshal &&
			a[0] == '"' && b[0] == '"' && a == strings.TrimSpace(a) && b == strings.TrimSpace(b) && utf8.ValidString(a+b) && (s == u) != (x == y) {
			t.Fatalf("%s, %s: got %s, %s", a, b, x, y)
		}
		for _, id := range []string{a, b} {
			_, exponent, _ := strings.Cut(strings.ToLower(id), "e")
			if e, err := strconv.Atoi("0" + strings.TrimLeft(exponent, "+-")); err != nil || e > maxExponent ||
				!isNumber(id[0]) || strings.ContainsAny(id, " \t\r\n") {
				return
			}
		}
		r, okA := new(big.Rat).SetString(a)
		q, okB := new(big.Rat).SetString(b)
		if !okA || !okB || (r.Cmp(q) == 0) != (x == y) {
			t.Fatalf("%s, %s: got %s, %s", a, b, x, y)
		}
	})
}
