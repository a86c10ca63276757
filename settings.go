// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A mode is one thing the program can be asked to do.
type mode struct {
	name   string
	groups string // of the settings it takes, with spaces between
	words  string // what the words beside its flags are called, with spaces between
	page   string // what -h prints
}

const modeNames = "forward, record, replay, verify, explain, tape, demo or token"

// modes returns all modes, in the order in which help lists them.
func modes() []mode {
	return []mode{
		{"forward", "server clients limits rules calls common tape record redact key", "", usageForward},
		{"record", "server clients limits rules calls common tape record redact key", "", usageRecord},
		{"replay", "server clients limits rules calls common tape replay ignore key", "", usageReplay},
		{"verify", "server calls common tape verify ignore json key", "", usageVerify},
		{"explain", "rules common tape explain json", "", usageExplain},
		{"tape", "common tool ignore json redact key", "COMMAND FILE...", usageTape},
		{"demo", "common", "", usageDemo},
		{"token", "", "NAME", usageToken},
	}
}

// takes reports whether the settings of group mean something in m.
func (m *mode) takes(group string) bool {
	return group == "" || slices.Contains(strings.Fields(m.groups), group)
}

// findMode returns the mode called name, or nil.
func findMode(name string) *mode {
	for _, m := range modes() {
		if m.name == name {
			return &m
		}
	}
	return nil
}

// A setting is something the user may ask for: with a flag, a variable (MCPPROXY_ and the name), or
// a field of the configuration file.
type setting struct {
	arg   string // what the pages call its value; "" for a switch, whose value is true or false
	group string // modes take settings by the group; all take ""
	needs string // the settings, with spaces between, without which it would mean nothing
	kind  int    // repeated and secret, or 0
	set   func(value string) error
}

const (
	repeated = 1 << iota // may be given several times; set is called for each value
	secret               // neither a problem nor an error of set shows the value
)

// settings returns all settings by name. They set the fields of c, and find variables through env.
func settings(c *Config, env func(string) (string, bool)) map[string]setting {
	return map[string]setting{
		"mode":          {"MODE", "", "", 0, sets(&c.Mode, parseMode)},
		"config":        {"FILE", "common", "", 0, sets(new([]byte), readFile)}, // ParseConfig has used it before
		"stdio":         {"CMD", "server", "", repeated, adds(&c.Stdio, parseText)},
		"url":           {"URL", "server", "", secret, sets(&c.URL, parseURL)},
		"demo":          {"", "server", "", 0, sets(&c.Demo, parseSwitch)},
		"header":        {"'NAME: VALUE'", "server", "url", repeated | secret, addsHeader(c.Headers, env)},
		"pass-header":   {"NAME", "server", "url listen", repeated, adds(&c.PassHeaders, parseHeaderName)},
		"ca":            {"FILE", "server", "url", 0, sets(&c.CAs, parseCA)},
		"listen":        {"ADDR", "clients", "", 0, sets(&c.Listen, parseListen)},
		"allow-host":    {"NAME[:PORT]", "clients", "listen", repeated, adds(&c.AllowHosts, parseHost)},
		"allow-origin":  {"ORIGIN", "clients", "listen", repeated, adds(&c.AllowOrigins, parseOrigin)},
		"auth-tokens":   {"FILE", "clients", "listen", 0, sets(&c.AuthTokens, parseTokensFile)},
		"trusted-proxy": {"CIDR", "clients", "listen", repeated, adds(&c.TrustedProxies, parsePrefix)},
		"limit":         {"TIER=RATE[:BURST]", "rules", "", repeated, adds(&c.Limits, ParseLimit)},
		"limit-status":  {"429|200", "limits", "limit listen", 0, sets(&c.LimitStatus, parseStatus)},
		"limit-report":  {"", "limits", "limit", 0, sets(&c.LimitReport, parseSwitch)},
		"rules":         {"FILE", "rules", "", 0, sets(&c.Rules, parseRulesFile)},
		"rules-report":  {"", "limits", "rules", 0, sets(&c.RulesReport, parseSwitch)},
		"max-sessions":  {"N", "limits", "listen", 0, sets(&c.MaxSessions, parseCount)},
		"max-calls":     {"N", "limits", "", 0, sets(&c.MaxCalls, parseCount)},
		"idle":          {"TIME", "limits", "", 0, sets(&c.Idle, parseTime)},
		"lifetime":      {"TIME", "limits", "", 0, sets(&c.Lifetime, parseTime)},
		"call-timeout":  {"TIME", "calls", "", 0, sets(&c.CallTimeout, parseTime)},
		"grace":         {"TIME", "limits", "", 0, sets(&c.Grace, parseTime)},
		"max-message":   {"SIZE", "common", "", 0, sets(&c.MaxMessage, parseSize)},

		"tape":         {"FILE", "tape", "", 0, sets(&c.Tape, parseText)},
		"tape-append":  {"", "record", "tape", 0, sets(&c.TapeAppend, parseSwitch)},
		"tape-sync":    {"never|interval|each", "record", "tape", 0, sets(&c.TapeSync, oneOf(syncNever, syncInterval, syncEach))},
		"tape-error":   {"stop|pass", "record", "tape", 0, sets(&c.TapeError, oneOf("stop", "pass"))},
		"tape-rotate":  {"SIZE", "record", "tape", 0, sets(&c.TapeRotate, parseSize)},
		"tape-ring":    {"SIZE", "record", "tape", 0, sets(&c.TapeRing, parseSize)},
		"tape-dump-on": {"KIND=N/TIME", "record", "tape-ring", repeated, adds(&c.TapeDumpOn, ParseDumpRate)},
		"redact":       {"RULE", "redact", "", repeated, adds(&c.Redact, ParseRedactRule)},
		"redact-key":   {"FILE", "key", "", secret, sets(&c.RedactKey, parseKeyFile)},

		"order":        {"any|strict", "replay", "", 0, sets(&c.Order, oneOf("any", "strict"))},
		"on-exhausted": {"error|last|cycle", "replay", "", 0, sets(&c.OnExhausted, oneOf("error", "last", "cycle"))},
		"on-miss":      {"error|pass|record", "replay", "", 0, sets(&c.OnMiss, oneOf("error", "pass", "record"))},
		"speed":        {"FACTOR", "replay", "tape", 0, sets(&c.Speed, parseFactor)},
		"fail-unused":  {"", "replay", "", 0, sets(&c.FailUnused, parseSwitch)},
		"ignore":       {"POINTER", "ignore", "", repeated, adds(&c.Ignore, ParsePointer)},

		"same":              {"KIND[,KIND]", "verify", "", 0, sets(&c.Same, parseSame)},
		"allow-destructive": {"", "verify", "", 0, sets(&c.AllowDestructive, parseSwitch)},
		"allow":             {"TOOL", "verify", "", repeated, adds(&c.Allow, parseText)},
		"junit":             {"FILE", "verify", "", 0, sets(&c.JUnit, parseText)},
		"json":              {"", "json", "", 0, sets(&c.JSON, parseSwitch)},

		"dir":      {"to-server|to-client", "explain", "", 0, sets(&c.Dir, oneOf(dirToServer, dirToClient))},
		"user":     {"NAME", "explain", "", 0, sets(&c.User, parseText)},
		"ip":       {"ADDR", "explain", "", 0, sets(&c.IP, parseAddress)},
		"revision": {"DATE", "explain", "", 0, sets(&c.Revision, parseRevision)},

		"session":  {"N", "tool", "", 0, sets(&c.Session, parseCount)},
		"exchange": {"SEQ", "tool", "", 0, sets(&c.Exchange, parseCount)},
		"method":   {"NAME", "tool", "", 0, sets(&c.Method, parseText)},
		"out":      {"FILE", "tool", "", 0, sets(&c.Out, parseText)},
		"html":     {"", "tool", "", 0, sets(&c.HTML, parseSwitch)},
		"har":      {"", "tool", "", 0, sets(&c.HAR, parseSwitch)},

		"log-level":  {"LEVEL", "common", "", 0, sets(&c.LogLevel, parseLevel)},
		"log-format": {"text|json", "common", "", 0, sets(&c.LogFormat, oneOf("text", "json"))},
	}
}

// sets returns a set function that gives field what parse makes of the value.
func sets[T any](field *T, parse func(string) (T, error)) func(string) error {
	return func(v string) (err error) {
		*field, err = parse(v)
		return err
	}
}

// adds is [sets] for a field with several values.
func adds[T any](field *[]T, parse func(string) (T, error)) func(string) error {
	return func(v string) error {
		x, err := parse(v)
		*field = append(*field, x)
		return err
	}
}

// letters are those of the names of variables, mostly.
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"

// addsHeader returns a set function that adds to h what the value says, or the variable or file it names.
func addsHeader(h http.Header, env func(string) (string, bool)) func(string) error {
	return func(v string) error {
		name, value, ok := strings.Cut(v, ":")
		if !ok || !isToken(name) {
			return errors.New("want 'Name: value', 'Name: env:VARIABLE' or 'Name: file:PATH'")
		}
		if _, err := parseHeaderName(name); err != nil {
			return fmt.Errorf("%s: the proxy sets this header itself", name)
		}
		value = strings.TrimSpace(value)
		if variable, ok := strings.CutPrefix(value, "env:"); ok {
			var set bool
			if value, set = env(variable); !set && strings.Trim(variable, letters) == "" {
				return fmt.Errorf("%s: variable %s is not set", name, variable)
			} else if !set { // that may be the value itself
				return fmt.Errorf("%s: its variable is not set", name)
			}
		} else if path, ok := strings.CutPrefix(value, "file:"); ok {
			data, err := readFile(path)
			if err != nil {
				return fmt.Errorf("%s: %v", name, err)
			}
			value = string(data)
		}
		value = strings.TrimSpace(value)
		if value == "" || strings.ContainsFunc(value, unicode.IsControl) { // RFC 9110, 5.5
			return fmt.Errorf("%s: the value is empty, or has a line break or other control character", name)
		}
		h.Add(name, value)
		return nil
	}
}

// valid returns x, and what is wanted unless ok.
func valid[T any](x T, ok bool, wanted string) (T, error) {
	if !ok {
		return x, errors.New("want " + wanted)
	}
	return x, nil
}

func parseText(v string) (string, error) { return v, nil }

// oneOf returns a parse function that takes these words only.
func oneOf(words ...string) func(string) (string, error) {
	return func(v string) (string, error) {
		last := len(words) - 1
		return valid(v, slices.Contains(words, v), strings.Join(words[:last], ", ")+" or "+words[last])
	}
}

// parseSame reads the kinds of values that may differ.
func parseSame(v string) ([]string, error) {
	kinds := strings.Split(v, ",")
	for _, kind := range kinds {
		tolerance, isNumber := strings.CutPrefix(kind, "number:")
		f, err := strconv.ParseFloat(tolerance, 64)
		if !slices.Contains([]string{"uuid", "time", "path"}, kind) && (!isNumber || err != nil || f < 0) {
			return nil, errors.New("want some of uuid, time, path and number:1e-6, with commas between")
		}
	}
	return kinds, nil
}

// parseFactor reads by what the times of a tape are divided; 0 is not to wait.
func parseFactor(v string) (float64, error) {
	f, err := strconv.ParseFloat(v, 64)
	return valid(f, err == nil && f >= 0 && f <= 1e6, "0, 1, or another factor, such as 0.5 or 10")
}

// parseKeyFile reads the key of the placeholders for what is not to stand on a tape.
func parseKeyFile(v string) ([]byte, error) {
	key, err := readFile(v)
	if err != nil {
		return nil, err
	}
	return valid(key, len(key) >= minRedactKey, fmt.Sprintf("a file of %d bytes or more", minRedactKey))
}

func parseMode(v string) (string, error) { return valid(v, findMode(v) != nil, modeNames) }

func parseLevel(v string) (l slog.Level, err error) {
	err = l.UnmarshalText([]byte(v))
	return valid(l, err == nil, "debug, info, warn or error")
}

func parseStatus(v string) (int, error) {
	n, _ := strconv.Atoi(v)
	return valid(n, n == 429 || n == 200, "429 or 200")
}

func parseSwitch(v string) (bool, error) {
	on, err := strconv.ParseBool(v)
	return valid(on, err == nil, "true or false")
}

func parseCount(v string) (int, error) {
	n, err := strconv.ParseInt(v, 10, 32)
	return valid(int(n), err == nil && n > 0, "a number of 1 or more")
}

func parseTime(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	return valid(d, err == nil && d >= 0, "a time such as 90s, 5m or 24h, or 0")
}

// parseSize returns the bytes that v stands for, digits and a unit in any case. They fit in 32 bits.
func parseSize(v string) (int, error) {
	digits := strings.TrimRightFunc(v, func(r rune) bool { return r < '0' || r > '9' })
	unit := map[string]uint64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
	}[strings.ToLower(v[len(digits):])]
	n, err := strconv.ParseUint(digits, 10, 31)
	n *= unit
	return valid(int(n), err == nil && n > 0 && n <= math.MaxInt32,
		"a size such as 500KB, 64MiB or 1GiB, less than 2GiB")
}

// parseHeaderName refuses the headers that the proxy writes itself or that concern one connection.
func parseHeaderName(v string) (string, error) {
	v = http.CanonicalHeaderKey(v)
	own := strings.Fields(`Accept Accept-Encoding Connection Content-Encoding Content-Length Content-Type Expect Host
		Keep-Alive Last-Event-Id Origin Proxy-Connection Te Trailer Transfer-Encoding Upgrade`)
	return valid(v, isToken(v) && !strings.HasPrefix(v, "Mcp-") && !slices.Contains(own, v),
		"the name of a header that the proxy does not set itself, such as X-Request-Id")
}

func parseURL(v string) (*url.URL, error) {
	u, err := url.Parse(v)
	ok := err == nil && (u.Scheme == "http" || u.Scheme == "https") && isHost(u.Host) && u.User == nil
	return valid(u, ok,
		"http or https, a host and no password (see -header), such as http://127.0.0.1:3001/mcp")
}

func parseListen(v string) (string, error) {
	host, _, err := net.SplitHostPort(v)
	return valid(v, err == nil && (isHost(v) || host == "" && isHost("any"+v)),
		"HOST:PORT, such as 127.0.0.1:8080")
}

func parseHost(v string) (string, error) {
	return valid(strings.ToLower(v), isHost(v), "NAME or NAME:PORT, such as mcp.example.com")
}

// parseOrigin takes away the default port of the scheme, as RFC 6454, 6.2, has it.
func parseOrigin(v string) (string, error) {
	scheme, host, _ := strings.Cut(strings.ToLower(v), "://")
	port := map[string]string{"http": ":80", "https": ":443"}[scheme]
	return valid(scheme+"://"+strings.TrimSuffix(host, port), isMadeOf(scheme, nameLetters) && isHost(host),
		"scheme://host or scheme://host:port, such as https://app.example.com")
}

func parsePrefix(v string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(v); err == nil {
		v = fmt.Sprintf("%v/%d", addr.Unmap(), addr.Unmap().BitLen())
	}
	prefix, err := netip.ParsePrefix(v)
	return valid(prefix.Masked(), err == nil && !prefix.Addr().Is4In6(),
		"an address or a range of them, such as 10.0.0.0/8")
}

func parseAddress(v string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(v)
	return valid(addr.Unmap(), err == nil, "an address, such as 10.0.0.7")
}

func parseRevision(v string) (string, error) {
	_, err := time.Parse(time.DateOnly, v)
	return valid(v, err == nil, "the date of a revision, such as "+newestSession)
}

func parseCA(v string) (*x509.CertPool, error) {
	data, err := readFile(v)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without roots is no reason to refuse the user's own
	}
	return valid(pool, pool.AppendCertsFromPEM(data), "certificates in PEM")
}

// parseTokensFile only finds what is wrong with the file: who uses it reads it again when it changes.
func parseTokensFile(v string) (string, error) {
	_, err := OpenTokens(v)
	return v, err
}

// parseRulesFile only finds what is wrong with the file: who uses it reads it again when it changes.
func parseRulesFile(v string) (string, error) {
	_, _, err := readRules(v)
	return v, err
}

const nameLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"

func isMadeOf(s, letters string) bool { return s != "" && strings.Trim(s, letters) == "" }

// isToken reports whether s is a token of RFC 9110, 5.6.2, as the names of headers are.
func isToken(s string) bool { return isMadeOf(s, nameLetters+"!#$%&'*+^`|~") }

// isHost reports whether s is a name or an address (IPv6 in brackets), with or without a port.
func isHost(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port, err = net.SplitHostPort(s + ":0")
	}
	_, notPort := strconv.ParseUint(port, 10, 16)
	addr, _ := netip.ParseAddr(host)
	return err == nil && notPort == nil && (addr.Is6() || isMadeOf(host, nameLetters) && s[0] != '[')
}
