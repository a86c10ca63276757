// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func testHiding(r *Redactor, header ...string) *hiding {
	return &hiding{secrets: headerSecrets(http.Header{"Authorization": header}), own: newKnownSecret("mcpsessionid", "up-1"), redact: r}
}

func TestHide(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", `{"jsonrpc":"2.0","id":1,"result":{"a":"\u00e9 \\"}}`, ""},
		{"value", `{"id":1,"result":{"a":"got s/k\"x", "b":[ "up-1" ]}}`, `{"id":1,"result":{"a":"got s/k\"x", "b":[ "⟦mcpsessionid "up-1"⟧" ]}}`},
		{"parts and the whole", `{"a":"bearer Bearer s/k-12, s/k-12 up-12"}`, `{"a":"bearer ⟦header "Bearer s/k-12"⟧, ⟦header "s/k-12"⟧ ⟦mcpsessionid "up-1"⟧2"}`},
		{"escapes", `{"a":"s\/k-12","b":"\u0073/k-12","c":"up\u002d1"}`, `{"a":"⟦header "s/k-12"⟧","b":"⟦header "s/k-12"⟧","c":"⟦mcpsessionid "up-1"⟧"}`},
		{"JSON in a string", `["{\"a\":\"s\\/k-12\"}","[\"\\u0075p-1\"]"]`, `["{\"a\":\"⟦header "s/k-12"⟧\"}","[\"⟦mcpsessionid "up-1"⟧\"]"]`},
		{"keys and numbers", `{"a":{"s/k-12":12345678,"b":-1123456780}}`, `{"a":{"⟦header "s/k-12"⟧":"⟦header "12345678"⟧","b":"-1⟦header "12345678"⟧0"}}`},
		{"what makes it a message", `{"jsonrpc":"2.0","id":"up-1","method":"params","params":{"method":"params"}}`,
			`{"jsonrpc":"2.0","id":"⟦mcpsessionid "up-1"⟧","method":"params","params":{"method":"⟦header "params"⟧"}}`},
	} {
		want := fillIn(c.want)
		if want == "" {
			want = c.text
		}
		if got := testHiding(testRedactor(t), "Bearer s/k-12", "12345678", "params").json(c.text, true); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
	h := testHiding(nil, "bearer a\"b\xff", "abc", "Basic k")
	for text, want := range map[string]string{
		"\xff up-1, a\"b\xff, abc, k": "\xff «redacted:mcpsessionid», «redacted:header», abc, k",
		`{"a":"up\u002d1"}`:           `{"a":"«redacted:mcpsessionid»"}`,
		`{"a":"up-1`:                  `{"a":"«redacted:mcpsessionid»`,
	} {
		if got := h.hide(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// What the proxy alone shares with a server does not come on the tape when the server repeats it.
func TestRecordKnownSecrets(t *testing.T) {
	const token = "s3cr+t/x=="
	said := "Bearer " + token + " upstream-1"
	serve := relayedSession(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer error="`+said+`"`)
		switch r.Header.Get("Mcp-Param-Case") {
		case "json":
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, frontResult("1", `{"text":"`+said+`"}`))
		case "raw":
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(403)
			io.WriteString(w, said)
		case "events":
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "id: "+said+"\ndata: {\"a\":\"\\u0075pstream-1\"}\n\nid: "+said+"\ndata: "+frontResult("1", `{"a":"`+strings.ReplaceAll(said, "/", `\/`)+`"}`)+"\n\n")
		}
	})
	for _, redact := range []*Redactor{testRedactor(t), nil} {
		path := filepath.Join(t.TempDir(), "t.jsonl")
		var rec *Recorder
		inFrontOf(t, serve, func(g *frontRig) {
			rec = recordFile(t, path)
			rec.HTTP, rec.Redact, rec.Secrets = true, redact, headerSecrets(http.Header{"Authorization": {"Bearer " + token}})
			g.chain = []Interceptor{rec.Intercept}
		}, func(g *frontRig) {
			session := replaySession(g, "c")
			for _, of := range []string{"json", "raw", "events"} {
				frontBody(t, g.do("POST", frontCall("1", "tools/list"), session, "Mcp-Param-Case: "+of))
			}
			if err := rec.Close(); err != nil {
				t.Error(err)
			}
		})
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]int{}
		for _, e := range recordCheck(t, string(text)) {
			all := e.Text + e.Msg + e.Headers + e.Event
			for _, secret := range []string{token, `s3cr+t\/x==`, "upstream-1", `\u0075pstream-1`} {
				if strings.Contains(all, secret) {
					t.Errorf("line %d has %s: %s", e.Seq, secret, all)
				}
			}
			for _, of := range []struct{ name, text string }{{"msg", e.Msg}, {"text", e.Text}, {"headers", e.Headers}, {"event", e.Event}} {
				found[of.name] += strings.Count(of.text, "«redacted:mcpsessionid")
			}
		}
		if want := "map[event:2 headers:4 msg:2 text:3]"; fmt.Sprint(found) != want {
			t.Errorf("got placeholders %v, want %s", found, want)
		}
	}
}

// The values of -header are what the Recorder of a configuration looks for.
func TestRecordHeaderSecrets(t *testing.T) {
	credentials := base64.StdEncoding.EncodeToString([]byte("user:pass"))
	c := &Config{
		Tape: filepath.Join(t.TempDir(), "t.jsonl"), URL: &url.URL{}, MaxMessage: 1 << 20,
		Headers: http.Header{"Authorization": {"Basic " + credentials}, "X-Short": {"abc"}},
	}
	r, err := openRecorder(t.Context(), c, recordFile(t, filepath.Join(t.TempDir(), "u.jsonl")).Log)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	for _, k := range r.Secrets {
		got = append(got, k.text)
	}
	if want := "Basic " + credentials + "," + credentials; strings.Join(got, ",") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

// However much longer placeholders make a message, its line can be read.
func TestRecordShortens(t *testing.T) {
	x := sessOpen(t, sessBounds())
	defer x.p.Close()
	path := filepath.Join(t.TempDir(), "t.jsonl")
	r := recordFile(t, path)
	r.Redact, r.Max = testRedactor(t, "re=[a-z]"), 2<<20
	many := `["` + strings.Repeat(`a","`, 60<<10) + `a"]`
	for _, text := range []string{
		`{"jsonrpc":"2.0", "id":"x","method":"m","params":` + many + `,"more":` + many + `}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x","data":` + many + `}}`,
		`{"jsonrpc":"2.0","id":2,"result":{"a":[1.0]}}`,
	} {
		if _, err := r.Intercept(t.Context(), x.s, sessParse(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	r.Garbage(x.s, many)
	r.Close()
	_, entries := recordRead(t, path)
	for i, want := range []string{
		`^{"jsonrpc":"2.0","id":"x","method":"m","params":{"redacted":"«redacted:message:[0-9a-f]{16}»"}}$`,
		`^{"jsonrpc":"2.0","id":1,"error":{"redacted":"«redacted:message:[0-9a-f]{16}»"}}$`,
		`^{"jsonrpc":"2.0","id":2,"result":{"a":\[1.0\]}}$`,
		`^«redacted:message:[0-9a-f]{16}»$`,
	} {
		e := entries[i+1]
		if got := e.Msg + e.Text; !regexp.MustCompile(want).MatchString(got) || e.Size > r.Max {
			t.Errorf("got a line of %d bytes, %.200s, want %s", e.Size, got, want)
		}
	}
}
