// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Config is what the user asked for, checked and with defaults filled in. It is not changed after
// [ParseConfig] has returned it. The settings a mode does not take have their defaults.
type Config struct {
	Mode string   // a name from [modes]
	Args []string // the words beside the flags, as many as the mode takes

	Stdio []string // the server's command and its arguments, for no shell; nil if the server is another
	URL   *url.URL // http or https, with a host, without user; nil if the server is another
	Demo  bool     // the server is the one built in

	Headers     http.Header    // sent to the server with each HTTP request; holds secrets; not nil
	PassHeaders []string       // canonical names of the client's headers that go to the server too
	CAs         *x509.CertPool // whom to trust as an https server; nil means the system's roots

	Listen         string         // HOST:PORT to serve HTTP at; "" means the client is on stdin and stdout
	AllowHosts     []string       // NAME or NAME:PORT in lower case, beside the loopback names
	AllowOrigins   []string       // as browsers write them: lower case, no default port; beside loopback
	AuthTokens     string         // file of users and their tokens' hashes; "" means that anyone is served
	TrustedProxies []netip.Prefix // whose X-Forwarded-For counts; masked, IPv4 never in its IPv6 form

	Limits      []Limit
	LimitStatus int  // HTTP status of what a limit refuses: 429 or 200
	LimitReport bool // log what the limits would refuse, and let it pass

	Rules       string // file of rules; "" for none
	RulesReport bool   // log what the rules would do, and do nothing

	MaxMessage  int           // bytes; 1 or more
	MaxSessions int           // open at a time; 1 or more
	MaxCalls    int           // in flight at a time in each session; 1 or more
	Idle        time.Duration // until an unused session ends; 0 means never
	Lifetime    time.Duration // until any session ends; 0 means never
	CallTimeout time.Duration // until a call without answer or progress is given up; 0 means never
	Grace       time.Duration // for the calls in flight at shutdown; 0 means none

	Tape       string // file to record to, or to play; "" for none
	TapeAppend bool   // record to the end of a tape that is there
	TapeSync   string // when a tape is brought to the disk: never, interval or each
	TapeError  string // what to do when it cannot be written: stop or pass
	TapeRotate int    // bytes after which another file begins; 0 means never
	TapeRing   int    // bytes kept in memory until something happens; 0 means to write them at once
	TapeDumpOn []DumpRate
	Redact     []RedactRule
	RedactKey  []byte // nil means one for each tape

	Order       string  // of calls that a tape answers: any or strict
	OnExhausted string  // error, last or cycle
	OnMiss      string  // error, pass or record
	Speed       float64 // 0 means not to wait
	FailUnused  bool
	Ignore      []Pointer

	Same             []string // kinds of values that may differ
	AllowDestructive bool
	Allow            []string // tools to be called whatever they do
	JUnit            string   // file for the report; "" for none
	JSON             bool

	Dir      string     // of what is explained; "" means as its kind has it
	User     string     // who sends it; "" means nobody known
	IP       netip.Addr // from where; not valid if not known
	Revision string     // of the protocol; "" means what the messages tell

	Session, Exchange int // of a tape, to be shown; 0 means all
	Method            string
	Out               string // file to write to; "" means stdout
	HTML, HAR         bool

	LogLevel  slog.Level
	LogFormat string // text or json
}

// defaultConfig returns a Config for which nothing was asked.
func defaultConfig() *Config {
	return &Config{
		Headers: http.Header{}, LimitStatus: http.StatusTooManyRequests,
		MaxMessage: 64 << 20, MaxSessions: 1000, MaxCalls: 256,
		Idle: 30 * time.Minute, Lifetime: 24 * time.Hour, CallTimeout: 5 * time.Minute, Grace: 10 * time.Second,
		TapeSync: syncInterval, TapeError: "stop", Order: "any", OnExhausted: "error", OnMiss: "error",
		LogLevel: slog.LevelInfo, LogFormat: "text",
	}
}

// Exposed reports whether c serves other machines than its own, and anyone there.
func (c *Config) Exposed() bool {
	host, _, _ := net.SplitHostPort(c.Listen)
	return c.Listen != "" && c.AuthTokens == "" && len(c.AllowHosts) == 0 && !isLoopback(host)
}

// A HelpRequest is the error for a user who asked for help or for the version: Text is what to
// print on stdout, newline included, and is no failure.
type HelpRequest struct{ Text string }

func (h *HelpRequest) Error() string { return h.Text }

// A UsageError lists everything that is wrong with flags, environment and configuration file, each
// with its place first. No problem contains the value of a header or a URL.
type UsageError struct {
	Problems []string
	Hint     string // where to read more
}

func (e *UsageError) Error() string { return strings.Join(e.Problems, "\n") + "\n" + e.Hint }

// A given is what one source has of a setting.
type given struct {
	where  string // the flag, the variable, or the place in the file
	values []string
}

// A configParser collects the settings of all sources and what is wrong with them.
type configParser struct {
	env          func(string) (string, bool)
	table, spare map[string]setting // for the Config to be returned, and for values that are only checked
	line, file   map[string]given   // what command line and file have, by name of the setting
	from         map[string]string  // name of a setting → where the value that counts comes from
	problems     []string
	asked        string // -h, -help or -version, without the dash, if the user asked for that
	// doubt is set once a word of the command line may be part of a header's value, as in
	// `-heder Authorization: Bearer x` without quotes. No unknown word is shown from then on.
	doubt bool
}

// ParseConfig reads args (without the program's name), then the environment through env, then the
// file that -config names. For each setting the first of them that has it wins, for repeatable ones
// with all its values; the others are checked all the same. A variable that is empty counts as not
// set. On the command line a setting that the mode does not take is refused; in environment and file
// it is ignored, so that they can serve several modes. The error is a *[HelpRequest] or a *[UsageError].
func ParseConfig(args []string, env func(string) (string, bool)) (*Config, error) {
	c := defaultConfig()
	p := &configParser{
		env: env, table: settings(c, env), spare: settings(defaultConfig(), env),
		line: map[string]given{}, file: map[string]given{}, from: map[string]string{},
	}
	c.Args = p.readArgs(args)
	m := findMode(p.first("mode"))
	switch p.asked {
	case "h", "help":
		return nil, &HelpRequest{usage(m)}
	case "version":
		return nil, &HelpRequest{versionText()}
	}
	if name := p.first("config"); name != "" && (m == nil || m.takes("common")) {
		if data, err := readFile(name); err == nil { // else apply tells
			p.readFile(name, data)
		}
		m = findMode(p.first("mode"))
	}
	p.apply(m)
	if m != nil && m.name == "verify" && p.from["log-level"] == "" {
		c.LogLevel = slog.LevelWarn // the report tells what matters
	}
	if m != nil {
		p.check(c, m)
	} else if p.from["mode"] == "" {
		p.problem("-mode: want %s", modeNames)
	}
	if p.problems == nil {
		return c, nil
	}
	e := &UsageError{p.problems, "see: mcpproxy help"}
	if m != nil {
		e.Hint += " " + m.name
	}
	if len(args) == 0 && m == nil {
		e.Hint = strings.TrimSpace(usageGeneral)
	}
	return nil, e
}

func (p *configParser) problem(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// sources returns what command line, environment and file have of the setting called name, as far as
// they are read. In a variable, a repeatable setting has a value a line.
func (p *configParser) sources(name string) []given {
	variable := given{where: "MCPPROXY_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
	if v, _ := p.env(variable.where); v != "" && p.table[name].kind&repeated != 0 {
		variable.values = strings.Split(strings.TrimSuffix(v, "\n"), "\n")
	} else if v != "" {
		variable.values = []string{v}
	}
	return []given{p.line[name], variable, p.file[name]}
}

// first returns the first value of the setting called name, or "".
func (p *configParser) first(name string) string {
	all := p.sources(name)
	return slices.Concat(all[0].values, all[1].values, all[2].values, []string{""})[0]
}

func (p *configParser) problemIf(wrong bool, format string, args ...any) {
	if wrong {
		p.problem(format, args...)
	}
}

// isFlag reports whether word looks like a flag.
func isFlag(word string) bool { return len(word) > 1 && word[0] == '-' }

// readArgs reads the command line and returns the words that belong to no flag.
func (p *configParser) readArgs(args []string) (words []string) {
	if len(args) > 0 && args[0] == "help" {
		args = append([]string{"-h"}, args[1:]...)
	}
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		if !isFlag(word) && p.line["mode"].values == nil && (!p.doubt || findMode(word) != nil) {
			word = "-mode=" + word // the first bare word means the same
		}
		if !isFlag(word) {
			words = append(words, word)
			continue
		}
		name, value, has := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
		if name == "h" || name == "help" || name == "version" {
			p.asked = name
			continue
		}
		s, known := p.table[name]
		if !has && known && s.arg == "" {
			value, has = "true", true
		} else if !has && len(args) > 0 && !isFlag(args[0]) {
			value, has, args = args[0], true, args[1:]
		}
		values := append(p.line[name].values, value)
		switch {
		case !known && (p.doubt || !isToken(name)):
			p.problem("unknown flag, not shown here: it may be part of a header's value")
		case !known:
			p.problem("-%s: unknown flag", name)
		case !has:
			p.problem("-%s: a value is missing: -%[1]s %s", name, s.arg)
		case name == "stdio": // all the rest is the command's
			values, args = append(values, args...), nil
			fallthrough
		default:
			p.line[name] = given{"-" + name, values}
		}
		p.doubt = p.doubt || (!known || name == "header") && !strings.Contains(value, " ")
	}
	return words
}

// readFile reads data, the text of the file called path: a JSON object with the names of flags as keys.
func (p *configParser) readFile(path string, data []byte) {
	line := func(offset int64) int { return 1 + bytes.Count(data[:offset], []byte("\n")) }
	var object map[string]any
	var syntax *json.SyntaxError
	if err := json.Unmarshal(data, &object); errors.As(err, &syntax) {
		p.problem("%s:%d: %v", path, line(syntax.Offset), err)
		return
	}
	if object == nil || !utf8.Valid(data) {
		p.problem("%s: want a JSON object in UTF-8 whose keys are the names of flags", path)
		return
	}
	d := json.NewDecoder(bytes.NewReader(data)) // does not fail: data is valid JSON
	d.UseNumber()
	for d.Token(); d.More(); {
		key, _ := d.Token()
		name := key.(string)
		g := given{where: fmt.Sprintf("%s:%d: %s", path, line(d.InputOffset()), name)}
		var value any
		d.Decode(&value)
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, v := range list {
			switch v.(type) {
			case string, json.Number, bool:
				g.values = append(g.values, fmt.Sprint(v))
			default:
				p.problem("%s: want a string, a number, true or false", g.where)
			}
		}
		switch _, known := p.table[name]; {
		case !known || name == "config":
			p.problem("%s: unknown field", g.where)
		case p.file[name].where != "":
			p.problem("%s: occurs twice", g.where)
		default:
			p.file[name] = g
		}
	}
}

// apply sets what m takes of all sources. A nil m takes all.
func (p *configParser) apply(m *mode) {
	for _, name := range slices.Sorted(maps.Keys(p.table)) {
		for i, g := range p.sources(name) {
			s := p.table[name]
			taken := m == nil || m.takes(s.group)
			if !taken && i == 0 && g.values != nil {
				p.problem("%s: -mode=%s does not take it", g.where, m.name)
			}
			if !taken || g.values == nil {
				continue
			}
			if len(g.values) > 1 && s.kind&repeated == 0 {
				p.problem("%s: given more than once", g.where)
				g.values = g.values[:1]
			}
			if p.from[name] == "" {
				p.from[name] = g.where
			} else {
				s = p.spare[name]
			}
			for _, v := range g.values {
				if err := s.set(v); err != nil && (s.kind&secret != 0 || v != "" && strings.HasPrefix(err.Error(), v+":")) {
					p.problem("%s: %v", g.where, err) // which names the file, if v is one
				} else if err != nil {
					p.problem("%s %q: %v", g.where, v, err)
				}
			}
		}
	}
}

// check finds what is wrong with c as a whole.
func (p *configParser) check(c *Config, m *mode) {
	switch want, more := len(strings.Fields(m.words)), strings.HasSuffix(m.words, "..."); {
	case more && len(c.Args) > want:
	case len(c.Args) < want:
		p.problem("a word is missing: mcpproxy -mode=%s %s", m.name, m.words)
	case len(c.Args) > want && p.doubt:
		p.problem("a word belongs to no flag, not shown here: it may be part of a header's value; " +
			"those with spaces need quotes")
	case len(c.Args) > want:
		p.problem("%q belongs to no flag; values with spaces need quotes, and a command stands after -stdio",
			c.Args[want])
	}
	var servers []string
	for _, name := range []string{"stdio", "url", "demo"} {
		if p.from[name] != "" && (name != "demo" || c.Demo) {
			servers = append(servers, p.from[name])
		}
	}
	p.checkTape(c, m, len(servers) > 0)
	if m.takes("server") && len(servers) == 0 && m.name != "replay" {
		p.problem("-mode=%s: no server: want one of -stdio CMD, -url URL, -demo", m.name)
	} else if len(servers) > 1 {
		p.problem("%s: more than one server; want one", strings.Join(servers, " and "))
	}
	for _, name := range slices.Sorted(maps.Keys(p.from)) {
		for _, other := range strings.Fields(p.table[name].needs) {
			if p.from[other] == "" {
				p.problem("%s: means nothing without -%s", p.from[name], other)
			}
		}
	}
	for _, l := range c.Limits {
		if m.name == "explain" { // says so itself
			break
		}
		if l.Tier == "user" && p.from["auth-tokens"] == "" || l.Tier == "ip" && p.from["listen"] == "" {
			p.problem("%s: tier %s counts nothing without -%s", p.from["limit"], l.Tier,
				map[string]string{"user": "auth-tokens", "ip": "listen"}[l.Tier])
		}
	}
	if c.AuthTokens != "" && slices.Contains(c.PassHeaders, "Authorization") {
		p.problem("%s: with Authorization the server would be given the proxy's tokens", p.from["pass-header"])
	}
}

// checkTool finds what is wrong with the words and flags of -mode=tape.
func (p *configParser) checkTool(c *Config) {
	command, files := c.Args[0], len(c.Args)-1
	want := 1 + btoi(command == "diff")
	if !slices.Contains(strings.Fields("show stat check trim redact diff export"), command) {
		p.problem("-mode=tape: %q is none of show, stat, check, trim, redact, diff and export", command)
		return
	}
	p.problemIf(files != want, "-mode=tape %s: got %d files, want %d", command, files, want)
	p.problemIf(command == "trim" && (c.Session == 0) == (c.Exchange == 0), "-mode=tape trim: want -session N or -exchange SEQ")
	p.problemIf(command == "export" && c.HTML == c.HAR, "-mode=tape export: want -html or -har")
	p.problemIf(command == "redact" && c.Redact == nil, "-mode=tape redact: want -redact RULE")
	p.problemIf(command != "redact" && c.Redact != nil, "%s: means nothing to -mode=tape %s", p.from["redact"], command)
}

// checkTape finds what does not go together of what c says of a tape.
func (p *configParser) checkTape(c *Config, m *mode, server bool) {
	if m.name == "tape" && len(c.Args) > 1 {
		p.checkTool(c)
	}
	p.problemIf((m.name == "record" || m.name == "verify") && c.Tape == "", "-mode=%s: -tape FILE is missing", m.name)
	if m.name == "explain" {
		p.problemIf(c.Rules == "" && c.Limits == nil, "-mode=explain: want -rules FILE, -limit TIER=RATE, or both")
		for _, name := range []string{"dir", "revision"} {
			p.problemIf(c.Tape != "" && p.from[name] != "", "%s: means nothing with -tape, which has it", p.from[name])
		}
	}
	if m.name == "replay" {
		p.problemIf(c.OnMiss != "error" && !server, "%s: no server: want one of -stdio CMD, -url URL, -demo", p.from["on-miss"])
		p.problemIf(c.OnMiss == "error" && server, "-mode=replay: a server is asked only with -on-miss pass or record")
		p.problemIf(c.OnMiss == "record" && c.Tape == "", "%s: means nothing without -tape", p.from["on-miss"])
		ci, _ := p.env("CI")
		p.problemIf(c.OnMiss == "record" && ci != "" && ci != "0" && ci != "false",
			"%s: record is not for CI, where the variable CI is set: a run would change the tape", p.from["on-miss"])
	}
	p.problemIf(c.TapeAppend && c.TapeRotate > 0, "%s: does not go with -tape-rotate", p.from["tape-append"])
	p.problemIf(c.TapeRing > 0 && (c.TapeAppend || c.TapeRotate > 0), "%s: goes neither with -tape-append nor with -tape-rotate", p.from["tape-ring"])
	p.problemIf(m.name == "forward" && c.Tape == "" && (c.Redact != nil || c.RedactKey != nil), "-redact and -redact-key mean nothing without -tape")
}

// maxConfig bounds the files that settings name, in bytes.
const maxConfig = 1 << 20

// readFile returns what the file at path holds, if that is not more than maxConfig.
func readFile(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path) // which might never end, or never begin
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%s: more than %d bytes", path, maxConfig)
	}
	return data, err
}
