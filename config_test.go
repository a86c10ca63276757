// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// configFiles writes files into a fresh folder and returns it.
func configFiles(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// parseConfigIn is ParseConfig with args and env given as words separated by | and with DIR replaced by dir.
func parseConfigIn(dir, args, env string) (*Config, error) {
	split := func(s string) []string {
		if s == "" {
			return nil
		}
		return strings.Split(strings.ReplaceAll(s, "DIR", dir), "|")
	}
	vars := map[string]string{}
	for _, v := range split(env) {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	return ParseConfig(split(args), func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	})
}

func configCertificate(t *testing.T) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

const (
	configDemo = "forward|-demo"
	configWeb  = "forward|-url=http://a|-listen=:1"
)

// A configCase is a command line and environment, as parseConfigIn takes them, and what comes of it.
type configCase struct {
	name, args, env string
	get             func(*Config) any
	want            string // what get returns, as %q
}

func checkConfigs(t *testing.T, cases []configCase) {
	dir := configFiles(t, map[string]string{
		"full.json": `{
			"mode": "forward",
			"stdio": ["npx", "-y", "a server", ""],
			"listen": ":80",
			"max-calls": 7,
			"max-message": 500,
			"limit": ["ip=100/m:20", "global=1000/s"],
			"limit-report": true,
			"log-level": "debug"
		}`,
		"false.json": `{"demo": false, "idle": "1h", "url": "https://a/b"}`,
		"one.json":   `{"allow-host": "a.example", "header": ["A: env:SECRET"]}`,
		"secret":     "from file\r\n",
		"tokens":     "# nobody yet\n",
		"ca.pem":     configCertificate(t),
	})
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c, err := parseConfigIn(dir, test.args, test.env)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%q", test.get(c)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func limitTiers(c *Config) (tiers []string) {
	for _, l := range c.Limits {
		tiers = append(tiers, l.Tier)
	}
	return tiers
}

func TestConfigModes(t *testing.T) {
	checkConfigs(t, []configCase{
		{"equals sign", "-mode=forward|-demo", "", func(c *Config) any { return c.Mode }, `"forward"`},
		{"two words", "-mode|forward|-demo", "", func(c *Config) any { return c.Mode }, `"forward"`},
		{"two dashes", "--mode|forward|--demo", "", func(c *Config) any { return c.Demo }, `%!q(bool=true)`},
		{"first word", "forward|-demo", "", func(c *Config) any { return c.Mode }, `"forward"`},
		{"later word", "-demo|forward", "", func(c *Config) any { return c.Mode }, `"forward"`},
		{"mode last", "-demo|-mode=forward", "", func(c *Config) any { return c.Mode }, `"forward"`},
		{"token", "token|alice", "", func(c *Config) any { return []any{c.Mode, c.Args} }, `["token" ["alice"]]`},
		{"token named as a mode", "-mode=token|demo", "", func(c *Config) any { return []any{c.Mode, c.Args} }, `["token" ["demo"]]`},
		{"mode from environment", "-demo", "MCPPROXY_MODE=forward", func(c *Config) any { return c.Mode }, `"forward"`},
		{"explain", "explain|-limit=ip=1/m|-ip=::ffff:10.0.0.7|-user=joe|-revision=2025-06-18|-dir=to-client", "MCPPROXY_LIMIT_STATUS=200", func(c *Config) any {
			return []any{c.IP, c.User, c.Revision, c.Dir, c.LimitStatus}
		}, `["10.0.0.7" "joe" "2025-06-18" "to-client" 'ƭ']`},
		{"mode from file", "-config|DIR/full.json", "", func(c *Config) any { return c.Mode }, `"forward"`},
		{"file from environment", "", "MCPPROXY_CONFIG=DIR/full.json", func(c *Config) any { return c.Stdio }, `["npx" "-y" "a server" ""]`},
	})
}

func TestConfigSources(t *testing.T) {
	checkConfigs(t, []configCase{
		{"flag before environment", "-max-calls=9", "MCPPROXY_MAX_CALLS=8|MCPPROXY_CONFIG=DIR/full.json", func(c *Config) any { return fmt.Sprint(c.MaxCalls) }, `"9"`},
		{"environment before file", "-config=DIR/full.json", "MCPPROXY_MAX_CALLS=8", func(c *Config) any { return fmt.Sprint(c.MaxCalls) }, `"8"`},
		{"file before default", "-config=DIR/full.json", "", func(c *Config) any { return fmt.Sprint(c.MaxCalls, c.MaxMessage, c.LimitReport, c.LogLevel) }, `"7 500 true DEBUG"`},
		{"empty variable", "-config=DIR/full.json", "MCPPROXY_MAX_CALLS=", func(c *Config) any { return fmt.Sprint(c.MaxCalls) }, `"7"`},
		{"a source replaces all values", "-config=DIR/full.json", "MCPPROXY_LIMIT=global=1/s\nendpoint=2/s", func(c *Config) any { return limitTiers(c) }, `["global" "endpoint"]`},
		{"switched off by a flag", "forward|-demo=false|-url=http://a", "MCPPROXY_DEMO=true", func(c *Config) any { return fmt.Sprint(c.Demo) }, `"false"`},
		{"switched off in the file", "forward|-config=DIR/false.json", "", func(c *Config) any { return c.URL.Host }, `"a"`},
		{"one value for many", "forward|-config=DIR/one.json|-url=http://a|-listen=:1", "SECRET=x", func(c *Config) any { return []any{c.AllowHosts, c.Headers.Get("a")} }, `[["a.example"] "x"]`},
		{"variables of other modes", "token|alice", "MCPPROXY_LISTEN=nonsense|MCPPROXY_CONFIG=DIR/none", func(c *Config) any { return c.Listen }, `""`},
		{"fields of other modes", "demo|-config=DIR/full.json", "", func(c *Config) any { return []any{c.Stdio, fmt.Sprint(c.MaxMessage)} }, `[[] "500"]`},
	})
}

func TestConfigSettings(t *testing.T) {
	checkConfigs(t, []configCase{
		{"command takes the rest", "forward|-stdio|cmd|-h|-mode=demo|--|", "", func(c *Config) any { return c.Stdio }, `["cmd" "-h" "-mode=demo" "--" ""]`},
		{"command after equals sign", "forward|-stdio=cmd|a", "", func(c *Config) any { return c.Stdio }, `["cmd" "a"]`},
		{"command from environment", "forward", "MCPPROXY_STDIO=cmd\n\na b\n", func(c *Config) any { return c.Stdio }, `["cmd" "" "a b"]`},
		{"url", "forward|-url|HTTPS://h:1/mcp?k=v", "", func(c *Config) any { return c.URL.String() }, `"https://h:1/mcp?k=v"`},
		{"url of an IPv6 host", "forward|-url|http://[::1]:1/mcp", "", func(c *Config) any { return c.URL.Host }, `"[::1]:1"`},
		{"repeated", "forward|-demo|-limit=global=1/s|-limit|session=1/s", "", func(c *Config) any { return limitTiers(c) }, `["global" "session"]`},
		{"header", "forward|-url=http://a|-header|x-a:  b: c ", "", func(c *Config) any { return c.Headers }, `map["X-A":["b: c"]]`},
		{"header from variable", "forward|-url=http://a|-header=A: env:V_1", "V_1=env:x", func(c *Config) any { return c.Headers }, `map["A":["env:x"]]`},
		{"header from file", "forward|-url=http://a|-header=A: file:DIR/secret", "", func(c *Config) any { return c.Headers }, `map["A":["from file"]]`},
		{"pass-header", "forward|-url=http://a|-listen=:1|-pass-header=x-request-ID", "", func(c *Config) any { return c.PassHeaders }, `["X-Request-Id"]`},
		{"ca", "forward|-url=https://a|-ca=DIR/ca.pem", "", func(c *Config) any { return fmt.Sprint(c.CAs != nil) }, `"true"`},
		{"hosts", "forward|-demo|-listen=:1|-allow-host=A.example:80|-allow-host=[::2]", "", func(c *Config) any { return c.AllowHosts }, `["a.example:80" "[::2]"]`},
		{"origins", "forward|-demo|-listen=:1|-allow-origin=HTTPS://A:443|-allow-origin=http://a:443|-allow-origin=vscode-webview://x1", "", func(c *Config) any { return c.AllowOrigins }, `["https://a" "http://a:443" "vscode-webview://x1"]`},
		{"proxies", "forward|-demo|-listen=:1|-trusted-proxy=10.1.2.3/8|-trusted-proxy=::1|-trusted-proxy=::ffff:10.0.0.1", "", func(c *Config) any { return fmt.Sprint(c.TrustedProxies) }, `"[10.0.0.0/8 ::1/128 10.0.0.1/32]"`},
		{"times", "forward|-demo|-idle=0|-lifetime=90s|-call-timeout=1h30m|-grace=0s", "", func(c *Config) any { return fmt.Sprint(c.Idle, c.Lifetime, c.CallTimeout, c.Grace) }, `"0s 1m30s 1h30m0s 0s"`},
		{"limit status", "forward|-demo|-listen=:1|-limit=ip=1/s|-limit-status=200", "", func(c *Config) any { return fmt.Sprint(c.LimitStatus) }, `"200"`},
		{"token file", "forward|-demo|-listen=:1|-auth-tokens=DIR/tokens", "", func(c *Config) any { return filepath.Base(c.AuthTokens) }, `"tokens"`},
		{"defaults", "forward|-demo", "", func(c *Config) any {
			return fmt.Sprint(c.MaxMessage, c.MaxSessions, c.MaxCalls, c.Idle, c.Lifetime, c.CallTimeout, c.Grace, c.LimitStatus, c.LogLevel, " ", c.LogFormat, c.Headers, c.CAs == nil)
		}, `"67108864 1000 256 30m0s 24h0m0s 5m0s 10s 429 INFO textmap[] true"`},
	})
}

// A problemCase is a command line and environment, as parseConfigIn takes them, and what is wrong with it.
type problemCase struct {
	args, env string
	want      []string
}

func checkProblems(t *testing.T, cases []problemCase) {
	dir := configFiles(t, map[string]string{
		"syntax.json":  "{\n\"demo\": true,\n\"idle\" 5}",
		"list.json":    "[]",
		"null.json":    "null",
		"empty.json":   "",
		"latin.json":   "{\"listen\": \"\xe9\"}",
		"trailing.txt": "{\"demo\": true}\n{}",
		"many.json": "{\"demo\": true,\n\"lisen\": 1,\n\n\"config\": \"x\", \"demo\": true,\n\"idle\": null,\n\"limit\": {},\n" +
			"\"max-calls\": [1, 2],\n\"limit-report\": \"x\",\n\"header\": [],\n\"mode\": \"forwrd\", \"grace\": 5, \"allow-host\": [[]]}",
		"none.json":   `{"stdio": [], "max-calls": [7]}`,
		"stdio.json":  `{"stdio": "npx -y x"}`,
		"big.json":    `{"demo": true}` + strings.Repeat(" ", maxConfig),
		"breaks":      "a\nb\n",
		"tokens":      "",
		"nocert.pem":  "nothing",
		"ca.pem":      configCertificate(t),
		"header.json": "{\n\"header\": [\"A: b\", \"B b\"]}",
	})
	for _, test := range cases {
		t.Run(test.args, func(t *testing.T) {
			c, err := parseConfigIn(dir, test.args, test.env)
			var e *UsageError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, %v, want a *UsageError", c, err)
			}
			got := strings.ReplaceAll(strings.Join(e.Problems, "\n"), dir, "DIR")
			if want := strings.Join(test.want, "\n"); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if strings.Contains(err.Error(), "hunter") {
				t.Errorf("got a secret in %v, want none", err)
			}
		})
	}
}

func TestProblemsModes(t *testing.T) {
	checkProblems(t, []problemCase{
		{"-demo", "", []string{`-mode: want forward, record, replay, verify, explain, tape, demo or token`}},
		{"forwrd|-demo", "", []string{`-mode "forwrd": want forward, record, replay, verify, explain, tape, demo or token`}},
		{"-mode=x|-demo", "", []string{`-mode "x": want forward, record, replay, verify, explain, tape, demo or token`}},
		{"demo|-mode=forward", "", []string{`-mode: given more than once`}},
		{"-mode=demo|forward", "", []string{`"forward" belongs to no flag; values with spaces need quotes, and a command stands after -stdio`}},
		{"-mode=demo|-mode=token|x", "", []string{`-mode: given more than once`, `"x" belongs to no flag; values with spaces need quotes, and a command stands after -stdio`}},
		{configDemo, "MCPPROXY_MODE=x", []string{`MCPPROXY_MODE "x": want forward, record, replay, verify, explain, tape, demo or token`}},
		{"token", "", []string{`a word is missing: mcpproxy -mode=token NAME`}},
		{"token|a|b", "", []string{`"b" belongs to no flag; values with spaces need quotes, and a command stands after -stdio`}},
		{"token|a|-demo", "", []string{`-demo: -mode=token does not take it`}},
		{"explain", "", []string{`-mode=explain: want -rules FILE, -limit TIER=RATE, or both`}},
		{"explain|-limit=ping=1/s|-tape=t|-revision=2025-06-18|-limit-report|-ip=x", "", []string{`-ip "x": want an address, such as 10.0.0.7`,
			`-limit-report: -mode=explain does not take it`, `-revision: means nothing with -tape, which has it`}},
		{"demo|-listen=:1", "", []string{`-listen: -mode=demo does not take it`}},
	})
}

func TestProblemsTape(t *testing.T) {
	const ci = `-on-miss: record is not for CI, where the variable CI is set: a run would change the tape`
	cases := []problemCase{
		{"replay|-on-miss=record", "CI=yes", []string{`-on-miss: no server: want one of -stdio CMD, -url URL, -demo`, `-on-miss: means nothing without -tape`, ci}},
		{"record|-demo|-tape-append|-tape-rotate=1MiB|-tape-ring=1MiB", "", []string{`-mode=record: -tape FILE is missing`,
			`-tape-append: does not go with -tape-rotate`, `-tape-ring: goes neither with -tape-append nor with -tape-rotate`,
			`-tape-append: means nothing without -tape`, `-tape-ring: means nothing without -tape`, `-tape-rotate: means nothing without -tape`}},
		{"tape|trim|a|b|-redact=default", "", []string{`-mode=tape trim: got 2 files, want 1`, `-mode=tape trim: want -session N or -exchange SEQ`,
			`-redact: means nothing to -mode=tape trim`}},
	}
	for _, value := range []string{"1", "true", "TRUE", "yes"} {
		cases = append(cases, problemCase{"replay|-tape=t|-demo|-on-miss=record", "CI=" + value, []string{ci}})
	}
	checkProblems(t, cases)
	for _, value := range []string{"", "0", "false"} {
		if _, err := parseConfigIn(t.TempDir(), "replay|-tape=t|-demo|-on-miss=record", "CI="+value); err != nil {
			t.Errorf("CI=%s: got %v", value, err)
		}
	}
}

func TestProblemsFlags(t *testing.T) {
	checkProblems(t, []problemCase{
		{"forward", "", []string{`-mode=forward: no server: want one of -stdio CMD, -url URL, -demo`}},
		{"forward|-demo|-stdio|x", "MCPPROXY_URL=http://a", []string{`-stdio and MCPPROXY_URL and -demo: more than one server; want one`}},
		{"forward|-stdio", "", []string{`-stdio: a value is missing: -stdio CMD`, `-mode=forward: no server: want one of -stdio CMD, -url URL, -demo`}},
		{"forward|ls|-stdio|x", "", []string{`"ls" belongs to no flag; values with spaces need quotes, and a command stands after -stdio`}},
		{configDemo + "|-demo=x", "", []string{`-demo: given more than once`}},
		{configDemo + "|-idle=1s|-idle|2s", "", []string{`-idle: given more than once`}},
		{configDemo + "|-idle", "", []string{`-idle: a value is missing: -idle TIME`}},
		{configDemo + "|-idle|-limit-report", "", []string{`-idle: a value is missing: -idle TIME`, `-limit-report: means nothing without -limit`}},
		{configDemo + "|-lisen|:1|-x=y", "", []string{`-lisen: unknown flag`, `unknown flag, not shown here: it may be part of a header's value`}},
		{configDemo + "|-what|ever", "", []string{`-what: unknown flag`}},
		{configDemo + "|--|x", "", []string{`unknown flag, not shown here: it may be part of a header's value`}},
	})
}

func TestProblemsURLs(t *testing.T) {
	checkProblems(t, []problemCase{
		{"forward|-url=http://u:hunter2@a/", "", []string{`-url: want http or https, a host and no password (see -header), such as http://127.0.0.1:3001/mcp`}},
		{"forward|-url=ftp://hunter2", "", []string{`-url: want http or https, a host and no password (see -header), such as http://127.0.0.1:3001/mcp`}},
		{"forward|-url=http://a:hunter2/", "", []string{`-url: want http or https, a host and no password (see -header), such as http://127.0.0.1:3001/mcp`}},
		{"forward|-url=http:///x", "", []string{`-url: want http or https, a host and no password (see -header), such as http://127.0.0.1:3001/mcp`}},
		{"forward|-url=http://:80", "", []string{`-url: want http or https, a host and no password (see -header), such as http://127.0.0.1:3001/mcp`}},
	})
}

func TestProblemsCombinations(t *testing.T) {
	checkProblems(t, []problemCase{
		{"forward|-header=A: b|-stdio|x", "", []string{`-header: means nothing without -url`}},
		{"forward|-url=http://a|-pass-header=A", "", []string{`-pass-header: means nothing without -listen`}},
		{configDemo + "|-auth-tokens=DIR/tokens", "MCPPROXY_ALLOW_HOST=a", []string{`MCPPROXY_ALLOW_HOST: means nothing without -listen`, `-auth-tokens: means nothing without -listen`}},
		{configDemo + "|-limit-status=429|-listen=:1", "", []string{`-limit-status: means nothing without -limit`}},
		{configWeb + "|-auth-tokens=DIR/tokens|-pass-header=authorization", "", []string{`-pass-header: with Authorization the server would be given the proxy's tokens`}},
		{configWeb + "|-pass-header=a b|-pass-header=HOST", "", []string{`-pass-header "a b": want the name of a header that the proxy does not set itself, such as X-Request-Id`, `-pass-header "HOST": want the name of a header that the proxy does not set itself, such as X-Request-Id`}},
		{configWeb + "|-ca=DIR/nocert.pem", "", []string{`-ca "DIR/nocert.pem": want certificates in PEM`}},
		{configWeb + "|-auth-tokens=DIR/none", "", []string{`-auth-tokens "DIR/none": stat DIR/none: no such file or directory`}},
		{configWeb + "|-ca=DIR/none", "", []string{`-ca "DIR/none": open DIR/none: no such file or directory`}},
		{configWeb + "|-auth-tokens=DIR", "", []string{`-auth-tokens: DIR: not a regular file`}},
	})
}

func TestProblemsHeaders(t *testing.T) {
	checkProblems(t, []problemCase{
		{configWeb + "|-header=hunter2", "", []string{`-header: want 'Name: value', 'Name: env:VARIABLE' or 'Name: file:PATH'`}},
		{configWeb + "|-header=hunter 2: x", "", []string{`-header: want 'Name: value', 'Name: env:VARIABLE' or 'Name: file:PATH'`}},
		{configWeb + "|-header=Mcp-Method: hunter2", "", []string{`-header: Mcp-Method: the proxy sets this header itself`}},
		{configWeb + "|-header=A: env:V", "", []string{`-header: A: variable V is not set`}},
		{configWeb + "|-header=A: env:V", "V=", []string{`-header: A: the value is empty, or has a line break or other control character`}},
		{configWeb + "|-header=A: env:hunter-2", "", []string{`-header: A: its variable is not set`}},
		{configWeb + "|-header=A: env:V", "V=hunter2\nB: c", []string{`-header: A: the value is empty, or has a line break or other control character`}},
		{configWeb + "|-header=A: file:DIR/breaks", "", []string{`-header: A: the value is empty, or has a line break or other control character`}},
		{configWeb + "|-header=A: file:DIR/none", "", []string{`-header: A: open DIR/none: no such file or directory`}},
		{configWeb + "|-header|A:|Bearer|hunter2|-hunter2", "", []string{`unknown flag, not shown here: it may be part of a header's value`, `-header: A: the value is empty, or has a line break or other control character`,
			`a word belongs to no flag, not shown here: it may be part of a header's value; those with spaces need quotes`}},
		{configWeb + "|-header|A: hunter2|-lisen|:1|x", "", []string{`-lisen: unknown flag`,
			`a word belongs to no flag, not shown here: it may be part of a header's value; those with spaces need quotes`}},
		{configWeb + "|-heder|A: hunter2|-idel=5m", "", []string{`-heder: unknown flag`, `-idel: unknown flag`}},
		{"-header|A:|hunter2|-url=http://a", "", []string{`-header: A: the value is empty, or has a line break or other control character`, `-mode: want forward, record, replay, verify, explain, tape, demo or token`}},
	})
}

func TestProblemsValues(t *testing.T) {
	checkProblems(t, []problemCase{
		{configDemo + "|-listen=8080", "", []string{`-listen "8080": want HOST:PORT, such as 127.0.0.1:8080`}},
		{configDemo + "|-listen=a:65536", "", []string{`-listen "a:65536": want HOST:PORT, such as 127.0.0.1:8080`}},
		{configDemo + "|-listen=a/b:1", "", []string{`-listen "a/b:1": want HOST:PORT, such as 127.0.0.1:8080`}},
		{configDemo + "|-listen=:1|-allow-host=*.a|-allow-host=http://a|-allow-host=a:|-allow-host=::1|-allow-host=[1.2.3.4]", "", []string{
			`-allow-host "*.a": want NAME or NAME:PORT, such as mcp.example.com`, `-allow-host "http://a": want NAME or NAME:PORT, such as mcp.example.com`,
			`-allow-host "a:": want NAME or NAME:PORT, such as mcp.example.com`, `-allow-host "::1": want NAME or NAME:PORT, such as mcp.example.com`,
			`-allow-host "[1.2.3.4]": want NAME or NAME:PORT, such as mcp.example.com`}},
		{configDemo + "|-listen=:1|-allow-origin=a.example|-allow-origin=null|-allow-origin=http://a/|-allow-origin=*://a|-allow-origin=://a", "", []string{
			`-allow-origin "a.example": want scheme://host or scheme://host:port, such as https://app.example.com`, `-allow-origin "null": want scheme://host or scheme://host:port, such as https://app.example.com`,
			`-allow-origin "http://a/": want scheme://host or scheme://host:port, such as https://app.example.com`, `-allow-origin "*://a": want scheme://host or scheme://host:port, such as https://app.example.com`,
			`-allow-origin "://a": want scheme://host or scheme://host:port, such as https://app.example.com`}},
		{configDemo + "|-listen=:1|-trusted-proxy=a|-trusted-proxy=10.0.0.0/33|-trusted-proxy=fe80::1%eth0", "", []string{
			`-trusted-proxy "a": want an address or a range of them, such as 10.0.0.0/8`, `-trusted-proxy "10.0.0.0/33": want an address or a range of them, such as 10.0.0.0/8`,
			`-trusted-proxy "fe80::1%eth0": want an address or a range of them, such as 10.0.0.0/8`}},
		{configDemo + "|-listen=:1|-limit=ip=abc|-limit-status=503", "", []string{`-limit "ip=abc": rate "abc" does not end in /s, /m, /h or /d, for example ip=100/m:20 or tools/call:search=1/m`, `-limit-status "503": want 429 or 200`}},
		{configDemo + "|-max-calls=0|-idle=-1s|-lifetime=5|-log-level=loud|-log-format=xml|-limit-report=y|-max-message=0", "", []string{
			`-idle "-1s": want a time such as 90s, 5m or 24h, or 0`, `-lifetime "5": want a time such as 90s, 5m or 24h, or 0`, `-limit-report "y": want true or false`,
			`-log-format "xml": want text or json`, `-log-level "loud": want debug, info, warn or error`, `-max-calls "0": want a number of 1 or more`,
			`-max-message "0": want a size such as 500KB, 64MiB or 1GiB, less than 2GiB`, `-limit-report: means nothing without -limit`}},
		{configDemo + "|-idle=5m", "MCPPROXY_IDLE=x|MCPPROXY_CONFIG=DIR/none", []string{`MCPPROXY_CONFIG "DIR/none": open DIR/none: no such file or directory`, `MCPPROXY_IDLE "x": want a time such as 90s, 5m or 24h, or 0`}},
	})
}

func TestProblemsFiles(t *testing.T) {
	checkProblems(t, []problemCase{
		{"forward|-config=", "", []string{`-config "": open : no such file or directory`, `-mode=forward: no server: want one of -stdio CMD, -url URL, -demo`}},
		{configDemo + "|-config=DIR/syntax.json", "", []string{`DIR/syntax.json:3: invalid character '5' after object key`}},
		{configDemo + "|-config=DIR/trailing.txt", "", []string{`DIR/trailing.txt:2: invalid character '{' after top-level value`}},
		{configDemo + "|-config=DIR/empty.json", "", []string{`DIR/empty.json:1: unexpected end of JSON input`}},
		{configDemo + "|-config=DIR/list.json", "", []string{`DIR/list.json: want a JSON object in UTF-8 whose keys are the names of flags`}},
		{configDemo + "|-config=DIR/null.json", "", []string{`DIR/null.json: want a JSON object in UTF-8 whose keys are the names of flags`}},
		{configDemo + "|-config=DIR/latin.json", "", []string{`DIR/latin.json: want a JSON object in UTF-8 whose keys are the names of flags`}},
		{configDemo + "|-config=DIR/big.json", "", []string{`-config: DIR/big.json: more than 1048576 bytes`}},
		{"forward|-config=DIR/none.json", "", []string{`-mode=forward: no server: want one of -stdio CMD, -url URL, -demo`}},
		{configDemo + "|-config=DIR/stdio.json", "", []string{`DIR/stdio.json:1: stdio and -demo: more than one server; want one`}},
		{configDemo + "|-config=DIR/header.json", "", []string{`DIR/header.json:2: header: want 'Name: value', 'Name: env:VARIABLE' or 'Name: file:PATH'`, `DIR/header.json:2: header: means nothing without -url`}},
		{configDemo + "|-config=DIR/many.json", "", []string{
			`DIR/many.json:2: lisen: unknown field`, `DIR/many.json:4: config: unknown field`, `DIR/many.json:4: demo: occurs twice`,
			`DIR/many.json:5: idle: want a string, a number, true or false`, `DIR/many.json:6: limit: want a string, a number, true or false`,
			`DIR/many.json:10: allow-host: want a string, a number, true or false`, `DIR/many.json:10: grace "5": want a time such as 90s, 5m or 24h, or 0`,
			`DIR/many.json:8: limit-report "x": want true or false`, `DIR/many.json:7: max-calls: given more than once`,
			`DIR/many.json:10: mode "forwrd": want forward, record, replay, verify, explain, tape, demo or token`, `DIR/many.json:8: limit-report: means nothing without -limit`}},
	})
}

func TestConfigExposed(t *testing.T) {
	for listen, want := range map[string]bool{
		"": false, "127.0.0.1:1": false, "127.9.9.9:1": false, "[::1]:1": false, "[::ffff:127.0.0.1]:1": false, "LocalHost:1": false,
		":1": true, "0.0.0.0:1": true, "[::]:1": true, "10.0.0.1:1": true, "example.com:1": true, "localhost.example.com:1": true,
	} {
		if got := (&Config{Listen: listen}).Exposed(); got != want {
			t.Errorf("%q: got %v, want %v", listen, got, want)
		}
	}
	for _, c := range []Config{{Listen: ":1", AuthTokens: "f"}, {Listen: ":1", AllowHosts: []string{"a"}}} {
		if c.Exposed() {
			t.Errorf("%+v: got true, want false", c)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int{
		"1": 1, "500": 500, "500B": 500, "64KiB": 64 << 10, "16MiB": 16 << 20, "1GiB": 1 << 30, "1kb": 1000, "3MB": 3e6, "2GB": 2e9,
		"2147483647": math.MaxInt32, "2047MiB": 2047 << 20,
	} {
		if got, err := parseSize(s); got != want || err != nil {
			t.Errorf("%q: got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "0MiB", "-1", "+1", "1.5MiB", "1 MiB", "MiB", "1TiB", "1M", "2GiB", "2147483648", "99999999999999999999", "0x10", "1_0", "1MiB "} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"500", "64KiB", "3MB", "2GiB", "18446744073709551616GiB", "1\u212a\u0069B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err != nil {
			return
		}
		if n < 1 || n > math.MaxInt32 {
			t.Fatalf("%q: got %d, want 1 to %d", s, n, math.MaxInt32)
		}
		if again, err := parseSize(strconv.Itoa(n)); again != n || err != nil {
			t.Errorf("%d: got %d, %v, want the same", n, again, err)
		}
		unit := strings.TrimLeft(s, "0123456789")
		d, _ := new(big.Int).SetString(strings.TrimSuffix(s, unit), 10)
		factor, rest := new(big.Int).DivMod(big.NewInt(int64(n)), d, new(big.Int))
		if want := strings.ToLower(map[string]string{"1": "B", "1000": "KB", "1024": "KiB", "1000000": "MB", "1048576": "MiB",
			"1000000000": "GB", "1073741824": "GiB"}[factor.String()]); rest.Sign() != 0 || strings.ToLower(unit) != want && unit != "" {
			t.Errorf("%q: got %d, which is %v%s", s, n, factor, unit)
		}
	})
}

func FuzzConfigFile(f *testing.F) {
	f.Add([]byte(`{"stdio": ["a", 1, true], "idle": "5m", "max-calls": 7, "demo": false}`))
	f.Add([]byte("{\"demo\": true,\n\"d\\u0065mo\": [[]], \"x\": {\"y\": null}}"))
	f.Add([]byte(`{"limit": [], "header": ["A: env:B"]} x`))
	f.Fuzz(func(t *testing.T, data []byte) {
		env := func(string) (string, bool) { return "", false }
		p := configParser{env: env, table: settings(defaultConfig(), env), file: map[string]given{}}
		p.readFile("f", data)
		for name, g := range p.file {
			if p.table[name].set == nil && len(p.problems) == 0 {
				t.Errorf("%s: got %q, want a problem", g.where, g.values)
			}
		}
		var want map[string]any
		err := json.Unmarshal(data, &want)
		if len(p.problems) == 0 && (err != nil || len(want) != len(p.file)) {
			t.Errorf("got %d fields, want %d; %v", len(p.file), len(want), err)
		}
		if err != nil && len(p.file) > 0 {
			t.Errorf("got %d fields of a file with an error: %v", len(p.file), err)
		}
	})
}

func FuzzCommandLine(f *testing.F) {
	f.Add("forward\n-url=http://a\n-header\nA:\nBearer\nx")
	f.Add("-mode\ntoken\na\n--\n-\n\n-=\n--=x\n-h")
	f.Add("help\n-stdio\ncmd\n-h")
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\n")
		for _, a := range args {
			if strings.ContainsAny(a, "/.") || strings.Contains(a, "file:") {
				t.Skip("may name a file")
			}
		}
		const secret = "zwV5Qk0tR"
		line := append([]string{"forward", "-url=http://u:" + secret + "@a", "-header=\x00: " + secret, "-header", "A:", secret, "-" + secret}, args...)
		for _, args := range [][]string{args, line} {
			c, err := ParseConfig(args, func(string) (string, bool) { return "", false })
			var h *HelpRequest
			var e *UsageError
			switch {
			case err == nil && c != nil && findMode(c.Mode) != nil:
			case errors.As(err, &h) && h.Text != "":
			case errors.As(err, &e) && len(e.Problems) > 0 && (strings.Contains(s, secret) || !strings.Contains(err.Error(), secret)):
			default:
				t.Errorf("%q: got %+v, %v", args, c, err)
			}
		}
	})
}

// A file that is none may never end.
func TestReadFileRegular(t *testing.T) {
	if _, err := readFile(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v, want that it is not a regular file", err)
	}
}
