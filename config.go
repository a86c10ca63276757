// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Config is what the user asked for, checked and with defaults filled in. Nothing that is given
// one looks at flags, environment or configuration file any more. It is not changed after
// [ParseConfig] has returned it, and so may be read concurrently. The settings a mode does not
// take have their defaults.
type Config struct {
	Mode string   // a name from [modes]
	Args []string // the words beside the flags, as many as the mode takes

	Stdio []string // the server's command and its arguments, for no shell; nil if the server is another
	URL   *url.URL // http or https, with a host, without user and fragment; nil if the server is another
	Demo  bool     // the server is the one built in

	Headers     http.Header    // sent to the server with each HTTP request; holds secrets; not nil
	PassHeaders []string       // canonical names of the client's headers that go to the server too
	CAs         *x509.CertPool // whom to trust as an https server; nil means the system's roots

	Listen         string         // HOST:PORT to serve HTTP at; "" means the client is on stdin and stdout
	AllowHosts     []string       // NAME or NAME:PORT in lower case, beside the loopback names
	AllowOrigins   []string       // as browsers write them: lower case, no default port, beside the loopback names
	AuthTokens     string         // file of users and their tokens' hashes; "" means that anyone is served
	TrustedProxies []netip.Prefix // whose X-Forwarded-For counts; masked, IPv4 never in its IPv6 form

	Limits      []Limit
	LimitStatus int  // HTTP status of what a limit refuses: 429 or 200
	LimitReport bool // log what the limits would refuse, and let it pass

	MaxMessage  int           // bytes; 1 or more
	MaxSessions int           // open at a time; 1 or more
	MaxCalls    int           // in flight at a time in each session; 1 or more
	Idle        time.Duration // until an unused session ends; 0 means never
	Lifetime    time.Duration // until any session ends; 0 means never
	CallTimeout time.Duration // until a call without answer or progress is given up; 0 means never
	Grace       time.Duration // for the calls in flight at shutdown; 0 means none

	LogLevel  slog.Level
	LogFormat string // text or json
}

// defaultConfig returns a Config for which nothing was asked.
func defaultConfig() *Config {
	return &Config{
		Headers: http.Header{}, LimitStatus: http.StatusTooManyRequests,
		MaxMessage: 64 << 20, MaxSessions: 1000, MaxCalls: 256,
		Idle: 30 * time.Minute, Lifetime: 24 * time.Hour, CallTimeout: 5 * time.Minute, Grace: 10 * time.Second,
		LogLevel: slog.LevelInfo, LogFormat: "text",
	}
}

// Exposed reports whether c serves other machines than its own, and anyone there.
func (c *Config) Exposed() bool {
	if c.Listen == "" || c.AuthTokens != "" || len(c.AllowHosts) > 0 {
		return false
	}
	host, _, _ := net.SplitHostPort(c.Listen)
	addr, err := netip.ParseAddr(host)
	return !(err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost"))
}

// A HelpRequest is the error for a user who asked for help or for the version: Text is what to
// print on stdout, newline included, and is no failure.
type HelpRequest struct{ Text string }

func (h *HelpRequest) Error() string { return h.Text }

// A UsageError lists everything that is wrong with flags, environment and configuration file, each
// with its place first. No problem contains the value of a header or a URL.
type UsageError struct {
	Problems []string
	Hint     string // where to read more; without newline at the end
}

// Error returns a line for each problem, and the hint.
func (e *UsageError) Error() string {
	return strings.Join(e.Problems, "\n") + "\n" + e.Hint
}

// A given is one setting at one of its sources.
type given struct {
	setting
	where  string   // the flag, variable, or place in the file
	values []string // one, or several where the setting is repeatable
}

// A configParser collects the settings of all sources and what is wrong with them.
type configParser struct {
	table    []setting
	problems []string
	help     bool
	version  bool
	// secret is set once a word of the command line may be part of a header's value, as in
	// `-header Authorization: Bearer x` without quotes. No word is shown from then on.
	secret bool
	from   map[string]string // name of a setting → where the value that counts comes from
}

// ParseConfig reads args (without the program's name), then the environment through env, then the
// file that -config names. For each setting the first of them that has it wins, for repeatable ones
// with all its values; the others are checked all the same. A variable that is empty counts as not
// set. On the command line a setting that the mode does not take is refused; in environment and file
// it is ignored, so that they can serve several modes. Files that settings name are read here, but
// for the users' tokens, which may change later. The error is a *[HelpRequest] or a *[UsageError].
func ParseConfig(args []string, env func(string) (string, bool)) (*Config, error) {
	p := &configParser{table: settings(env), from: map[string]string{}}
	line, words := p.commandLine(args)
	vars := p.environment(env)
	name, words := p.modeName(valuesOf("mode", line), words, len(args) > 0 && !isFlag(args[0]))
	if p.version {
		return nil, &HelpRequest{versionText()}
	}
	if p.help {
		return nil, &HelpRequest{usage(name)}
	}
	if name == "" {
		name = cmp.Or(valuesOf("mode", vars)...)
	}
	c, m := defaultConfig(), findMode(name)
	var file []given
	above := slices.Concat(line, vars)
	i := slices.IndexFunc(above, func(g given) bool { return g.name == "config" })
	if i >= 0 && (m == nil || m.takes("common")) {
		file = p.file(above[i])
	}
	if name == "" {
		name = cmp.Or(valuesOf("mode", file)...)
		m = findMode(name)
	}
	c.Mode, c.Args = name, words
	p.apply(c, m, line, true)
	p.apply(c, m, vars, false)
	p.apply(c, m, file, false)
	p.check(c, m)
	if len(p.problems) == 0 {
		return c, nil
	}
	e := &UsageError{Problems: p.problems, Hint: "see: mcpproxy help"}
	if len(args) == 0 && m == nil {
		e.Hint = strings.TrimSuffix(usageGeneral, "\n")
	} else if m != nil {
		e.Hint += " " + m.name
	}
	return nil, e
}

// apply sets in c what m takes of from, whose settings come after those applied before. A nil m
// takes all. Where loud, what m does not take is a problem.
func (p *configParser) apply(c *Config, m *mode, from []given, loud bool) {
	for _, g := range from {
		if m != nil && !m.takes(g.group) {
			if loud {
				p.problem("%s: -mode=%s does not take it", g.where, m.name)
			}
			continue
		}
		to := c
		if p.from[g.name] != "" {
			to = defaultConfig() // overruled, and only checked
		} else {
			p.from[g.name] = g.where
		}
		for _, v := range g.values {
			if err := g.set(to, v); err != nil && g.secret {
				p.problem("%s: %v", g.where, err)
			} else if err != nil {
				p.problem("%s %q: %v", g.where, v, err)
			}
		}
	}
}

// check finds what is wrong with c as a whole.
func (p *configParser) check(c *Config, m *mode) {
	if m == nil {
		if c.Mode == "" {
			p.problem("no mode: say -mode=%s", strings.Join(modeNames(), ", -mode="))
		}
		return
	}
	if !c.Demo {
		delete(p.from, "demo")
	}
	if !c.LimitReport {
		delete(p.from, "limit-report")
	}
	switch want := len(strings.Fields(m.words)); {
	case len(c.Args) < want:
		p.problem("a word is missing: mcpproxy -mode=%s %s", m.name, m.words)
	case len(c.Args) > want && p.secret:
		p.problem("a word belongs to no flag, not shown here: it may be part of a header's value; those with spaces need quotes")
	case len(c.Args) > want:
		p.problem("%q belongs to no flag; values with spaces need quotes, and a command stands after -stdio", c.Args[want])
	}
	if m.takes("server") {
		var servers []string
		for _, name := range []string{"stdio", "url", "demo"} {
			if p.from[name] != "" {
				servers = append(servers, p.from[name])
			}
		}
		switch len(servers) {
		case 0:
			p.problem("-mode=%s: no server: want one of -stdio CMD, -url URL, -demo", m.name)
		case 1:
		default:
			p.problem("%s: more than one server; want one", strings.Join(servers, " and "))
		}
	}
	for _, s := range p.table {
		for _, other := range strings.Fields(s.needs) {
			if p.from[s.name] != "" && p.from[other] == "" {
				p.problem("%s: means nothing without -%s", p.from[s.name], other)
			}
		}
	}
	if c.CAs != nil && c.URL != nil && c.URL.Scheme != "https" {
		p.problem("%s: means nothing without https in -url", p.from["ca"])
	}
	for _, name := range c.PassHeaders {
		if c.Headers[name] != nil {
			p.problem("%s %q: also in %s; want one of them", p.from["pass-header"], name, p.from["header"])
		}
		if name == "Authorization" && c.AuthTokens != "" {
			p.problem("%s %q: with %s the server would be given the proxy's tokens", p.from["pass-header"], name, p.from["auth-tokens"])
		}
	}
}

func (p *configParser) problem(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// find returns the setting called name, or nil.
func (p *configParser) find(name string) *setting {
	if i := slices.IndexFunc(p.table, func(s setting) bool { return s.name == name }); i >= 0 {
		return &p.table[i]
	}
	return nil
}

// guess returns a question with the setting that name may be a misspelling of, or "".
func (p *configParser) guess(name, dash string) string {
	var names []string
	for _, s := range p.table {
		names = append(names, s.name)
	}
	if n := nearest(name, names); n != "" {
		return " (did you mean " + dash + n + "?)"
	}
	return ""
}

// isFlag reports whether word looks like a flag.
func isFlag(word string) bool { return len(word) > 1 && word[0] == '-' }

// commandLine returns the flags in args, and the words that belong to none.
func (p *configParser) commandLine(args []string) (line []given, words []string) {
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		if !isFlag(word) {
			words = append(words, word)
			continue
		}
		name, value, assigned := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
		switch name {
		case "h", "help":
			p.help = true
			continue
		case "version":
			p.version = true
			continue
		}
		s := p.find(name)
		if s == nil {
			if guess := p.guess(name, "-"); guess != "" || !p.secret && isToken(name) {
				p.problem("-%s: unknown flag%s", name, guess)
			} else {
				p.problem("unknown flag, not shown here: it may be part of a header's value")
			}
			p.secret = true // the name may be a misspelling of header
			if !assigned && len(args) > 0 && !isFlag(args[0]) {
				args = args[1:] // most likely its value
			}
			continue
		}
		p.secret = p.secret || s.secret
		switch {
		case assigned:
		case s.arg == "":
			value = "true"
		case len(args) == 0:
			p.problem("-%s: a value is missing: -%[1]s %s", name, s.arg)
			continue
		case p.known(args[0]):
			p.problem("-%s: a value is missing before %s: -%[1]s %[3]s", name, args[0], s.arg)
			continue
		default:
			value, args = args[0], args[1:]
		}
		values := []string{value}
		if s.name == "stdio" { // all the rest is the command's
			values, args = append(values, args...), nil
		}
		line = p.add(line, given{*s, "-" + name, values})
	}
	return line, words
}

// known reports whether word is a flag of ours, without a value to it.
func (p *configParser) known(word string) bool {
	if !isFlag(word) {
		return false
	}
	name := strings.TrimPrefix(word[1:], "-")
	return name == "h" || name == "help" || name == "version" || p.find(name) != nil
}

// add appends g to line, or its values to those that the same flag has had before.
func (p *configParser) add(line []given, g given) []given {
	i := slices.IndexFunc(line, func(h given) bool { return h.name == g.name })
	switch {
	case i < 0:
		return append(line, g)
	case g.repeat || g.name == "mode":
		line[i].values = append(line[i].values, g.values...)
	default:
		p.problem("%s: given more than once", g.where)
	}
	return line
}

// environment returns the settings that have a variable.
func (p *configParser) environment(env func(string) (string, bool)) (vars []given) {
	for _, s := range p.table {
		name := "MCPPROXY_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
		v, _ := env(name)
		switch {
		case v == "":
		case s.repeat:
			vars = append(vars, given{s, name, strings.Split(strings.TrimSuffix(v, "\n"), "\n")})
		default:
			vars = append(vars, given{s, name, []string{v}})
		}
	}
	return vars
}

// modeName returns the mode that the command line asks for, "" if none, and words without the word
// for it. That is the first argument if it is no flag, as first says, or else the first of words if
// it is a mode's name and the mode in names, the values of -mode, takes no words.
func (p *configParser) modeName(names, words []string, first bool) (string, []string) {
	if first && words[0] == "help" {
		p.help, words = true, words[1:]
		first = len(words) > 0
	}
	m := findMode(cmp.Or(names...))
	if first || len(words) > 0 && findMode(words[0]) != nil && (m == nil || m.words == "") {
		if err := modeError(words[0]); err != nil {
			p.problem("%q: %v", words[0], err)
		}
		names, words = append(names, words[0]), words[1:]
	}
	for _, n := range names {
		if n != names[0] {
			p.problem("-mode: both %q and %q are given; one run has one mode", names[0], n)
		}
	}
	return cmp.Or(names...), words
}

// valuesOf returns the values of the setting called name in from.
func valuesOf(name string, from []given) []string {
	for _, g := range from {
		if g.name == name {
			return slices.Clone(g.values)
		}
	}
	return nil
}
