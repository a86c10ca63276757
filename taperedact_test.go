// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func redactedTape(t *testing.T, text string, userKey []byte, rules ...string) (string, error) {
	t.Helper()
	tape, err := NewTapeReader(strings.NewReader(text), "t.jsonl", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var list []RedactRule
	for _, s := range rules {
		rule, err := ParseRedactRule(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rule)
	}
	var out strings.Builder
	err = redactTape(tape, &out, list, userKey)
	return out.String(), err
}

func TestRedactTape(t *testing.T) {
	text := testTape(
		Entry{Kind: lineOpen, Session: 1},
		Entry{Kind: lineMsg, Session: 1, Dir: dirToServer, Headers: `{"cookie":"a","mcp-param-sent":"a"}`, Msg: `{"jsonrpc":"2.0","id":9007199254740993, "method":"m","params":{"token":"a","x":"12"}}`},
		Entry{Kind: lineStderr, Text: "pin 12 é"},
		Entry{Kind: lineRaw, Dir: dirToClient, Text: "pin 12"},
		Entry{Kind: lineRaw, Dir: dirToClient, Text: "\xff 12"},
		Entry{Kind: lineRaw, Dir: dirToClient, Via: viaSSE, Event: "id 12", Text: "id: 3\ndata: {\"pwd\":\ndata: {\"token\":\"x\"}}\n\n"},
		Entry{Kind: lineRaw, Dir: dirToClient, Via: viaSSE, Event: "3", Text: "id: 3\rdata: {}\r\r"},
		Entry{Kind: lineRule, Dir: dirToClient, Re: 2, Rule: "rule 12", Text: "tag no-12"},
		Entry{Kind: "later", Text: "12"},
		Entry{Kind: lineExit, Text: "exit status 12"},
	)
	text = strings.Replace(text, `"kind":"later"`, `"kind":"later","secret":"s","note":{"pwd":[1.0]}`, 1)
	got, err := redactedTape(t, text, []byte(testRedactKey), `re=\d\d`)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(text, `"redact":[]`, `"redact":["default","re=\\d\\d"]`, 1)
	for _, c := range [][2]string{
		{`{"cookie":"a","mcp-param-sent":"a"}`, `{"cookie":"⟦cookie "a"⟧"}`},
		{`"token":"a","x":"12"`, `"token":"⟦token "a"⟧","x":"⟦match "12"⟧"`},
		{`pin 12 \u00e9`, `pin ⟦match "12"⟧ é`}, {`pin 12 é`, `pin ⟦match "12"⟧ é`},
		{base64.StdEncoding.EncodeToString([]byte("pin 12")), base64.StdEncoding.EncodeToString([]byte(fillIn(`pin ⟦match "12"⟧`)))},
		{base64.StdEncoding.EncodeToString([]byte("\xff 12")), base64.StdEncoding.EncodeToString([]byte(fillIn("\xff ⟦match \"12\"⟧")))},
		{`id 12`, `id ⟦match "12"⟧`},
		{base64.StdEncoding.EncodeToString([]byte("id: 3\ndata: {\"pwd\":\ndata: {\"token\":\"x\"}}\n\n")),
			base64.StdEncoding.EncodeToString([]byte(fillIn("id: 3\ndata: {\"pwd\":\ndata: {\"token\":\"⟦token \"x\"⟧\"}}\n\n")))},
		{`tag no-12`, `tag no-⟦match "12"⟧`},
		{`exit status 12`, `exit status ⟦match "12"⟧`},
		{`"text":"12"`, `"text":"⟦match "12"⟧"`},
		{`,"secret":"s","note":{"pwd":[1.0]}`, ""},
	} {
		want = strings.Replace(want, c[0], fillIn(c[1]), 1)
	}
	cut := strings.LastIndex(want, "\n{")
	if !strings.HasPrefix(got, want[:cut+1]) {
		t.Errorf("got\n%s\nwant\n%s", got, want[:cut])
	}
	tape, entries, err := readTape(got)
	if err != nil || len(tape.Warnings()) > 0 || len(entries) != 10 || !reflect.DeepEqual(tape.Eras, []string{"initialize"}) {
		t.Errorf("got %d lines, %v, %v", len(entries), err, tape.Warnings())
	}
	if again, err := redactedTape(t, got, []byte(testRedactKey), `re=\d\d`); err != nil || again != got {
		t.Errorf("a second time: %v, got\n%s\nwant\n%s", err, again, got)
	}
	if _, err := redactedTape(t, got, nil); err == nil || !strings.Contains(err.Error(), "-redact-key") {
		t.Errorf("without the key: got %v, want an error that asks for -redact-key", err)
	}
}

func TestRedactTapeKeepsKeyAndRules(t *testing.T) {
	text := testTape(Entry{Kind: lineMsg, Dir: dirToServer, Msg: `{"a":"x","b":"x","pwd":"x"}`})
	once, err := redactedTape(t, text, nil, "none", "key=a")
	if err != nil {
		t.Fatal(err)
	}
	first, entries, _ := readTape(once)
	if key, err := hex.DecodeString(first.Header.Key); err != nil || len(key) < minRedactKey || !strings.HasSuffix(entries[0].Msg, `,"b":"x","pwd":"x"}`) {
		t.Errorf("got key %q and %s", first.Header.Key, entries[0].Msg)
	}
	twice, err := redactedTape(t, once, []byte("another key, ignored"), "key=b")
	if err != nil {
		t.Fatal(err)
	}
	second, entries, _ := readTape(twice)
	r, _ := newTapeRedactor(&second.Header, nil)
	if want := r.Message(`{"a":"x","b":"x","pwd":"x"}`); entries[0].Msg != want || second.Header.Key != first.Header.Key {
		t.Errorf("got %s, want %s", entries[0].Msg, want)
	}
	if want := []string{"key=a", "default", "key=b"}; !reflect.DeepEqual(second.Header.Redact, want) {
		t.Errorf("got rules %q, want %q", second.Header.Redact, want)
	}
	if _, err := redactedTape(t, text, nil, "none"); err == nil {
		t.Error("no rule at all: no error")
	}
}

func TestRedactTapeCutShort(t *testing.T) {
	text := testTape(Entry{Kind: lineOpen, Session: 1}, Entry{Kind: lineMsg, Dir: dirToServer, Msg: `{"token":"x"}`})
	whole, _ := redactedTape(t, text, []byte(testRedactKey))
	end := strings.LastIndex(text[:len(text)-1], "\n") + 1
	for _, cut := range []int{end, end + 5, len(text) - 1} {
		got, err := redactedTape(t, text[:cut], []byte(testRedactKey))
		if want := whole[:strings.LastIndex(whole[:len(whole)-1], "\n")+1]; err != nil || got != want {
			t.Errorf("cut at %d: got %v\n%s\nwant\n%s", cut, err, got, want)
		}
	}
	_, err := redactedTape(t, testTapeHeader+"{}\n", nil)
	if err == nil || !strings.HasPrefix(err.Error(), "t.jsonl:2: ") {
		t.Errorf("got %v, want what is wrong with line 2", err)
	}
	if _, err := redactedTape(t, strings.Replace(testTapeHeader, `[]`, `["future"]`, 1), nil); err == nil || !strings.Contains(fmt.Sprint(err), "future") {
		t.Errorf("got %v, want an error that names the rule", err)
	}
}
