// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A setting is something the user may ask for: with a flag, a variable (MCPPROXY_ and the name), or
// a field of the configuration file.
type setting struct {
	name  string
	arg   string // what the pages call its value; "" for a switch, whose value is true or false
	group string // modes take settings by the group
	needs string // the settings, with spaces between, without which it would mean nothing
	traits
	// set puts value into c. Its error says what is wrong and what would be right; that of a secret
	// setting does not contain value.
	set func(c *Config, value string) error
}

type traits struct {
	repeat bool // may be given several times; set is called for each value
	secret bool // no problem shows the value
}

// settings returns all settings there are. Through env they look up the variables that headers name.
func settings(env func(string) (string, bool)) []setting {
	repeat, secret := traits{repeat: true}, traits{secret: true}
	both := traits{repeat: true, secret: true}
	return []setting{
		{"mode", "MODE", "any", "", traits{}, func(_ *Config, v string) error { return modeError(v) }},
		{"config", "FILE", "common", "", traits{}, func(*Config, string) error { return nil }}, // read by ParseConfig before

		{"stdio", "CMD", "server", "", repeat, setStdio},
		{"url", "URL", "server", "", secret, setURL},
		{"demo", "", "server", "", traits{}, setSwitch(func(c *Config) *bool { return &c.Demo })},
		{"header", "'NAME: VALUE'", "server", "url", both, setHeader(env)},
		{"pass-header", "NAME", "server", "url listen", repeat, setPassHeader},
		{"ca", "FILE", "server", "url", traits{}, setCA},

		{"listen", "ADDR", "clients", "", traits{}, setListen},
		{"allow-host", "NAME[:PORT]", "clients", "listen", repeat, setAllowHost},
		{"allow-origin", "ORIGIN", "clients", "listen", repeat, setAllowOrigin},
		{"auth-tokens", "FILE", "clients", "listen", traits{}, setAuthTokens},
		{"trusted-proxy", "CIDR", "clients", "listen", repeat, setTrustedProxy},

		{"limit", "TIER=RATE[:BURST]", "limits", "", repeat, setLimit},
		{"limit-status", "429|200", "limits", "limit listen", traits{}, setLimitStatus},
		{"limit-report", "", "limits", "limit", traits{}, setSwitch(func(c *Config) *bool { return &c.LimitReport })},
		{"max-sessions", "N", "limits", "listen", traits{}, setCount(func(c *Config) *int { return &c.MaxSessions })},
		{"max-calls", "N", "limits", "", traits{}, setCount(func(c *Config) *int { return &c.MaxCalls })},
		{"idle", "TIME", "limits", "", traits{}, setTime(func(c *Config) *time.Duration { return &c.Idle })},
		{"lifetime", "TIME", "limits", "", traits{}, setTime(func(c *Config) *time.Duration { return &c.Lifetime })},
		{"call-timeout", "TIME", "limits", "", traits{}, setTime(func(c *Config) *time.Duration { return &c.CallTimeout })},
		{"grace", "TIME", "limits", "", traits{}, setTime(func(c *Config) *time.Duration { return &c.Grace })},

		{"max-message", "SIZE", "common", "", traits{}, setMaxMessage},
		{"log-level", "LEVEL", "common", "", traits{}, setLogLevel},
		{"log-format", "text|json", "common", "", traits{}, setLogFormat},
	}
}

func setStdio(c *Config, v string) error {
	if len(c.Stdio) == 0 && v == "" {
		return errors.New("want a command")
	}
	c.Stdio = append(c.Stdio, v)
	return nil
}

// setURL says nothing of the cause where v cannot be parsed: it would quote v, which may hold a password.
func setURL(c *Config, v string) error {
	u, err := url.Parse(v)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || !isHost(u.Host):
		return errors.New("want http or https with a host, such as http://127.0.0.1:3001/mcp")
	case u.User != nil:
		return errors.New("has a user or password, which others can see in a command line: want it in a -header")
	case u.Fragment != "" || strings.HasSuffix(v, "#"):
		return errors.New("has a fragment (#), which is never sent")
	}
	c.URL = u
	return nil
}

func setSwitch(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) error {
		if !slices.Contains([]string{"true", "1", "false", "0"}, v) {
			return errors.New("want true or false")
		}
		*field(c) = v == "true" || v == "1"
		return nil
	}
}

// setHeader reads the variable or file that stands for a value at once.
func setHeader(env func(string) (string, bool)) func(*Config, string) error {
	return func(c *Config, v string) error {
		name, value, ok := strings.Cut(v, ":")
		if !ok || !isToken(name) {
			return errors.New("want 'Name: value', 'Name: env:VARIABLE' or 'Name: file:PATH'")
		}
		if err := checkHeaderName(name); err != nil {
			return fmt.Errorf("%s: %v", name, err)
		}
		value = strings.Trim(value, " \t")
		if from, ok := strings.CutPrefix(value, "env:"); ok {
			if from == "" || strings.ContainsFunc(from, func(r rune) bool { return !isAlnum(r) && r != '_' }) {
				return fmt.Errorf("%s: what stands after env: is not the name of a variable", name)
			}
			if value, ok = env(from); !ok {
				return fmt.Errorf("%s: the variable %s is not set", name, from)
			}
		} else if path, ok := strings.CutPrefix(value, "file:"); ok {
			data, err := readFile(path)
			if err != nil {
				return fmt.Errorf("%s: %v", name, err)
			}
			value = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
		}
		if value = strings.Trim(value, " \t"); value == "" {
			return fmt.Errorf("%s: the value is empty", name)
		}
		// RFC 9110, 5.5: "a recipient of CR, LF, or NUL within a field value MUST either reject […]"
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("%s: the value has a line break or another control character", name)
		}
		c.Headers.Add(name, value)
		return nil
	}
}

func setPassHeader(c *Config, v string) error {
	if !isToken(v) {
		return errors.New("want the name of a header, such as X-Request-Id")
	}
	if err := checkHeaderName(v); err != nil {
		return err
	}
	if v = http.CanonicalHeaderKey(v); !slices.Contains(c.PassHeaders, v) {
		c.PassHeaders = append(c.PassHeaders, v)
	}
	return nil
}

// checkHeaderName refuses the headers that the proxy writes itself or that concern one connection.
func checkHeaderName(name string) error {
	own := []string{"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type",
		"expect", "host", "keep-alive", "last-event-id", "origin", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
	if name = strings.ToLower(name); strings.HasPrefix(name, "mcp-") || slices.Contains(own, name) {
		return errors.New("the proxy sets this header itself")
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110, 5.6.2, as the names of headers are.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !isAlnum(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

func isAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func setCA(c *Config, v string) error {
	data, err := readFile(v)
	if err != nil {
		return err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without roots is no reason to refuse the user's own
	}
	if !pool.AppendCertsFromPEM(data) {
		return errors.New("holds no certificate; want PEM")
	}
	c.CAs = pool
	return nil
}

func setListen(c *Config, v string) error {
	host, port, err := net.SplitHostPort(v)
	if err != nil || !isPort(port) || host != "" && !isHost(v) {
		return errors.New("want HOST:PORT, such as 127.0.0.1:8080")
	}
	c.Listen = v
	return nil
}

func setAllowHost(c *Config, v string) error {
	if !isHost(v) {
		return errors.New("want NAME or NAME:PORT, such as mcp.example.com")
	}
	c.AllowHosts = append(c.AllowHosts, strings.ToLower(v))
	return nil
}

func setAllowOrigin(c *Config, v string) error {
	scheme, host, _ := strings.Cut(strings.ToLower(v), "://")
	if u, err := url.Parse(scheme + "://"); err != nil || u.Scheme != scheme || scheme == "" || !isHost(host) {
		return errors.New("want scheme://host or scheme://host:port, such as https://app.example.com")
	}
	// RFC 6454, 6.2: an origin is written without the default port of its scheme.
	switch scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	c.AllowOrigins = append(c.AllowOrigins, scheme+"://"+host)
	return nil
}

// isHost reports whether s is a name or an address (IPv6 in brackets), with or without a port.
func isHost(s string) bool {
	host := s
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		if host = s[:i]; !isPort(s[i+1:]) {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6()
	}
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("-._", r) })
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// setAuthTokens leaves the reading to whoever reads the file again when it changes.
func setAuthTokens(c *Config, v string) error {
	f, err := os.Open(v)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return errors.New("want a file")
	}
	c.AuthTokens = v
	return nil
}

func setTrustedProxy(c *Config, v string) error {
	prefix, err := netip.ParsePrefix(v)
	if addr, e := netip.ParseAddr(v); e == nil && addr.Zone() == "" {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return errors.New("want an address or a range of them, such as 10.0.0.0/8")
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	c.TrustedProxies = append(c.TrustedProxies, prefix.Masked())
	return nil
}

func setLimit(c *Config, v string) error {
	l, err := ParseLimit(v)
	if err == nil {
		c.Limits = append(c.Limits, l)
	}
	return err
}

func setLimitStatus(c *Config, v string) error {
	if v != "429" && v != "200" {
		return errors.New("want 429 or 200")
	}
	c.LimitStatus, _ = strconv.Atoi(v)
	return nil
}

func setCount(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 1 {
			return errors.New("want a number of 1 or more")
		}
		*field(c) = int(n)
		return nil
	}
}

func setTime(field func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return errors.New("want a time such as 90s, 5m or 24h, or 0")
		}
		*field(c) = d
		return nil
	}
}

func setMaxMessage(c *Config, v string) (err error) {
	c.MaxMessage, err = parseSize(v)
	return err
}

// parseSize returns the number of bytes that s stands for: decimal digits and one of the units
// below, in any case. It is at least 1 and fits in 32 bits.
func parseSize(s string) (int, error) {
	digits := strings.TrimRightFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	unit, known := map[string]uint64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
	}[strings.ToLower(s[len(digits):])]
	n, err := strconv.ParseUint(digits, 10, 31)
	switch {
	case !known || errors.Is(err, strconv.ErrSyntax) || n == 0:
		return 0, errors.New("want a size such as 500KB, 64MiB or 1GiB")
	case err != nil || n*unit > math.MaxInt32:
		return 0, errors.New("want less than 2GiB")
	}
	return int(n * unit), nil
}

func setLogLevel(c *Config, v string) error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, v) {
		return errors.New("want debug, info, warn or error")
	}
	return c.LogLevel.UnmarshalText([]byte(v))
}

func setLogFormat(c *Config, v string) error {
	if v != "text" && v != "json" {
		return errors.New("want text or json")
	}
	c.LogFormat = v
	return nil
}
