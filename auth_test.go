// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func tokensLine(name, token string) string {
	return fmt.Sprintf("%s:%x\n", name, sha256.Sum256([]byte(token)))
}

// tokensWrite writes a tokens file that was last changed at the given second.
func tokensWrite(t *testing.T, path, text string, second int64) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(second, 0), time.Unix(second, 0)); err != nil {
		t.Fatal(err)
	}
}

func tokensUser(t *testing.T, tokens *Tokens, token, want string) {
	t.Helper()
	if got, ok := tokens.User(token); got != want || ok != (want != "") {
		t.Errorf("User(%q): got %q, %v, want %q", token, got, ok, want)
	}
}

func TestTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokensWrite(t, path, "# who may\r\n\n"+tokensLine("ann", "a1")+"  "+tokensLine("jörg", "j")+
		strings.ToUpper(strings.TrimSpace(tokensLine("ANN", "a2")))+"\r\n"+strings.TrimSpace(tokensLine("ann", "a3")), 1)
	tokens, err := OpenTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{"a1": "ann", "a2": "ANN", "a3": "ann", "j": "jörg", "": "", "a": "", "a11": "", "A1": ""} {
		tokensUser(t, tokens, token, want)
	}
}

func TestOpenTokensErrors(t *testing.T) {
	dir := t.TempDir()
	good := tokensLine("ann", "a")
	hash := strings.TrimSpace(good)[4:]
	for name, c := range map[string]struct{ text, want string }{
		"no colon":        {"\n" + hash, "line 2: not a name"},
		"token for hash":  {"ann:mcpp_c2VjcmV0\n", "line 1: not a name"},
		"token for name":  {good + "mcpp_c2VjcmV0\n", "line 2: not a name"},
		"hash, name":      {hash + ":ann", "line 1: not a name"},
		"short hash":      {"ann:" + hash[1:], "line 1: not a name"},
		"no hexadecimal":  {"# x\nann:" + hash[:63] + "g", "line 2: not a name"},
		"empty name":      {":" + hash, "line 1: not a name"},
		"space in name":   {"an n:" + hash, "line 1: not a name"},
		"control in name": {"a\x00n:" + hash, "line 1: not a name"},
		"no UTF-8":        {"a\xff:" + hash, "line 1: not a name"},
		"same token":      {good + "\n" + "bob:" + hash, "line 3: same token as line 1"},
		"too long":        {strings.Repeat("#\n", maxTokensFile/2) + "#", "more than 4194304 bytes"},
	} {
		path := filepath.Join(dir, name)
		tokensWrite(t, path, c.text, 1)
		_, err := OpenTokens(path)
		if err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s: %s", name, err, path, c.want)
		} else if s := err.Error(); strings.Contains(s, "c2Vj") || strings.Contains(s, hash[1:9]) {
			t.Errorf("%s: got %v, which shows what is in the file", name, err)
		}
	}
	if _, err := OpenTokens(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("no file: got %v, want an error with its path", err)
	}
	if _, err := OpenTokens(dir); err == nil || !strings.Contains(err.Error(), dir+": not a regular file") {
		t.Errorf("a folder: got %v, want not a regular file", err)
	}
}

func TestTokensReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	cd, ce := tokensLine("cid", "c")+tokensLine("dan", "d"), tokensLine("cid", "c")+tokensLine("eve", "e")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tokensWrite(t, path, tokensLine("ann", "a"), 1)
		tokens, err := OpenTokens(path)
		if err != nil {
			t.Fatal(err)
		}
		tokens.Log = slog.New(slog.NewTextHandler(&log, nil))
		tokensWrite(t, path, tokensLine("bob", "b"), 2)
		time.Sleep(tokensCheck - 1)
		tokensUser(t, tokens, "a", "ann")
		time.Sleep(time.Nanosecond)
		tokensUser(t, tokens, "a", "")
		tokensUser(t, tokens, "b", "bob")
		for _, c := range []struct {
			name    string
			replace bool // the file by another one, not only what it says
			text    string
			second  int64
			in, out string // tokens that stand for somebody, and for nobody
			log     string
		}{
			{"nothing new", false, tokensLine("bob", "b"), 2, "b", "a", ""},
			{"broken", false, cd + "broken\n", 3, "b", "c", "line 3: not a name"},
			{"same time, other size", false, cd, 3, "d", "b", "tokens=2"},
			{"same time and size, other file", true, ce, 3, "e", "d", "tokens=2"},
			{"gone", true, "", 0, "e", "d", "tokens stay as they were"},
			{"nobody", false, "# nobody\n", 4, "", "e", "tokens=0"},
		} {
			log.Reset()
			if c.replace {
				if err := os.Rename(path, path+".old"); err != nil { // kept, so that its inode is not used again
					t.Fatal(err)
				}
			}
			if c.text != "" {
				tokensWrite(t, path, c.text, c.second)
			}
			for range 3 {
				time.Sleep(tokensCheck)
				if _, ok := tokens.User(c.in); ok != (c.in != "") {
					t.Errorf("%s: token %q: got %v", c.name, c.in, ok)
				}
				tokensUser(t, tokens, c.out, "")
			}
			if got := strings.Count(log.String(), "level="); got > 1 || (got == 1) != (c.log != "") || !strings.Contains(log.String(), c.log) {
				t.Errorf("%s: log: got %q, want one line with %q", c.name, log.String(), c.log)
			}
		}
	})
}

func TestTokensConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	tokensWrite(t, path, tokensLine("ann", "a"), 1)
	tokens, err := OpenTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				tokens.current(time.Now().Add(time.Duration(n) * time.Hour))
				tokensUser(t, tokens, "a", "ann")
				if i == 0 {
					tokensWrite(t, path+".new", tokensLine("ann", "a"), int64(n))
					if err := os.Rename(path+".new", path); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestNewToken(t *testing.T) {
	form := regexp.MustCompile(`^mcpp_[A-Z2-7]{26}$`)
	seen := make(map[string]bool)
	for range 100 {
		token, line, err := newToken("ann")
		if err != nil || !form.MatchString(token) || seen[token] || line+"\n" != tokensLine("ann", token) {
			t.Fatalf("newToken: got %q, %q, %v", token, line, err)
		}
		seen[token] = true
		if lines, err := parseTokens(line); err != nil || len(lines) != 1 || lines[0].name != "ann" {
			t.Fatalf("parseTokens(%q): got %v, %v, want ann's line", line, lines, err)
		}
		if got, ok := bearer("Bearer " + token); !ok || got != token {
			t.Fatalf("bearer: got %q, %v, want %q", got, ok, token)
		}
	}
	for _, name := range []string{"", "a b", "a:b", "#a", "a\n", "a\xff", "\ufeffa", "a\u00a0b"} {
		if token, line, err := newToken(name); err == nil || token != "" || line != "" {
			t.Errorf("newToken(%q): got %q, %q, want an error", name, token, line)
		}
	}
}

func TestBearer(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer abc": "abc", "bearer abc": "abc", "BEARER   a.b-c_d~e+f/g==  ": "a.b-c_d~e+f/g==", "Bearer hunter!2": "hunter!2",
		"": "", "Bearer": "", "Bearer ": "", "Bearer   ": "", "Bearerabc": "", "Basic abc": "", " Bearer abc": "", "Bearer\tabc": "",
		"Bearer a b": "", "Bearer a\tb": "", "Bearer a\x00": "", "Bearer ä": "", "Bearer \xff": "", "DPoP abc": "", "Bearer a, Basic b": "",
	} {
		if got, ok := bearer(header); got != want || ok != (want != "") {
			t.Errorf("bearer(%q): got %q, %v, want %q", header, got, ok, want)
		}
	}
}

func clientIPTrusted() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("fe80::/10")}
}

func TestClientIP(t *testing.T) {
	for _, c := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"direct", "203.0.113.9:5000", nil, "203.0.113.9"},
		{"direct, IPv6", "[2001:db8::1]:5000", nil, "2001:db8::1"},
		{"no port", "203.0.113.9", nil, "203.0.113.9"},
		{"mapped", "[::ffff:203.0.113.9]:5000", nil, "203.0.113.9"},
		{"no address", "@", []string{"203.0.113.9"}, ""},
		{"a header from an untrusted connection", "203.0.113.9:1", []string{"198.51.100.7"}, "203.0.113.9"},
		{"one proxy", "10.0.0.1:1", []string{"198.51.100.7"}, "198.51.100.7"},
		{"mapped proxy", "[::ffff:10.0.0.1]:1", []string{"198.51.100.7"}, "198.51.100.7"},
		{"proxy with a zone", "[fe80::1%eth0]:1", []string{"198.51.100.7"}, "198.51.100.7"},
		{"proxy that adds nothing", "10.0.0.1:1", nil, "10.0.0.1"},
		{"what a client wrote does not count", "10.0.0.1:1", []string{"1.1.1.1, 198.51.100.7"}, "198.51.100.7"},
		{"nor a trusted address in it", "10.0.0.1:1", []string{"10.9.9.9,198.51.100.7"}, "198.51.100.7"},
		{"two proxies", "10.0.0.1:1", []string{"1.1.1.1, 198.51.100.7 ,\t10.0.0.2"}, "198.51.100.7"},
		{"two headers", "10.0.0.1:1", []string{"1.1.1.1, 198.51.100.7", "fd00::2, 10.0.0.2"}, "198.51.100.7"},
		{"all trusted", "10.0.0.1:1", []string{"10.0.0.4", "10.0.0.3, 10.0.0.2"}, "10.0.0.4"},
		{"unknown", "10.0.0.1:1", []string{"198.51.100.7, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"unknown at once", "10.0.0.1:1", []string{"198.51.100.7, unknown"}, "10.0.0.1"},
		{"empty header", "10.0.0.1:1", []string{"198.51.100.7", ""}, "10.0.0.1"},
		{"empty element", "10.0.0.1:1", []string{"198.51.100.7,,10.0.0.2"}, "10.0.0.2"},
		{"with ports", "10.0.0.1:1", []string{"1.1.1.1, [2001:db8::1]:443, 10.0.0.2:80, [fd00::1]"}, "2001:db8::1"},
	} {
		got, want := clientIP(c.remote, c.forwarded, clientIPTrusted()), netip.Addr{}
		if c.want != "" {
			want = netip.MustParseAddr(c.want)
		}
		if got != want {
			t.Errorf("%s: got %v, want %v", c.name, got, want)
		}
	}
	if got := clientIP("10.0.0.1:1", []string{"1.1.1.1"}, nil); got.String() != "10.0.0.1" {
		t.Errorf("nobody trusted: got %v, want 10.0.0.1", got)
	}
}

// However much a client writes to the left of what a trusted proxy added, it stays who it is.
func FuzzClientIP(f *testing.F) {
	f.Add("10.0.0.2", "unknown, ,")
	f.Add("1.1.1.1", "::1, [::1]:x, 10.0.0.1")
	f.Fuzz(func(t *testing.T, a, b string) {
		if got := clientIP("10.0.0.1:1", []string{a, b + ",198.51.100.7, 10.0.0.2"}, clientIPTrusted()); got.String() != "198.51.100.7" {
			t.Errorf("headers %q, %q: got %v, want 198.51.100.7", a, b, got)
		}
		if got := clientIP("203.0.113.9:1", []string{a, b}, clientIPTrusted()); got.String() != "203.0.113.9" {
			t.Errorf("headers %q, %q: got %v, want 203.0.113.9", a, b, got)
		}
		if got := clientIP("10.0.0.1:1", []string{a, b}, clientIPTrusted()); !got.IsValid() || got.Zone() != "" || got.Is4In6() {
			t.Errorf("headers %q, %q: got %v, want an address without zone", a, b, got)
		}
	})
}
