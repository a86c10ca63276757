// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

const (
	methodPing     = "ping"
	methodSetLevel = "logging/setLevel"

	metaServerInfo = "io.modelcontextprotocol/serverInfo"
	newestSession  = "2025-11-25" // the last revision with a handshake
)

// answeredByRule reports whether a call of method says nothing of what a client does with the server. Such calls are
// answered in whatever number and order they come, and match nothing.
func answeredByRule(method string) bool {
	switch method {
	case methodInitialize, methodDiscover, methodPing, methodSetLevel:
		return true
	}
	return false
}

// handshakes finds the recorded answers to initialize and server/discover.
func (p *Player) handshakes() error {
	x := p.index
	p.info = `{"name":"mcpproxy","version":"` + version + `"}`
	for _, name := range [...]string{methodDiscover, methodInitialize} {
		method := x.hash(name)
		i := slices.IndexFunc(x.calls, func(c playCall) bool { return c.method == method && c.response != 0 && !c.failed })
		if i < 0 {
			continue
		}
		m, err := p.message(x.calls[i].response)
		if err != nil {
			return err
		}
		info := []string{"_meta", metaServerInfo}
		if name == methodInitialize {
			p.initialize, p.initialized, info = &x.calls[i], m.Result, []string{"serverInfo"}
		} else {
			p.discovered = m.Result
		}
		if start, end, ok := locate(m.Result, info...); ok {
			p.info = m.Result[start:end]
		}
	}
	return nil
}

// handshakeOf is the recorded initialize call of the session from which l is played, else the first, nil if there is none.
func (p *Player) handshakeOf(l *liveSession) *playCall {
	p.mu.Lock()
	bound, is := l.bound, l.fits != nil
	p.mu.Unlock()
	method := p.index.hash(methodInitialize)
	for i := p.index.plain; i < len(p.index.calls) && is; i++ {
		if c := &p.index.calls[i]; c.session == bound && c.method == method && c.response != 0 && !c.failed {
			return c
		}
	}
	return p.initialize
}

// rule answers a call by rule. matched is m, redacted.
func (c *playerConn) rule(ctx context.Context, m, matched *Message) error {
	p := c.p
	call, stateless := p.recorded(c.live, matched), isStateless(m.Revision)
	switch {
	case !isHandshake(m.Method) && call == nil:
		return c.answer(ctx, m, resultFor(m.Method, `{}`, p.info, stateless))
	case !isHandshake(m.Method):
	case call != nil && call.failed && stateless && p.discovered != "":
		// A server of this revision refused it: what must be in _meta is missing, or there is no such method any more.
	case m.Method == methodInitialize:
		c.real.initialize(m)
		p.hint(c.live, matched)
		result, err := p.initializeResult(m, p.handshakeOf(c.live))
		if err != nil {
			return &Error{Code: 502, Text: "tape could not be read", Cause: err}
		}
		return c.answer(ctx, m, result)
	default:
		return c.answer(ctx, m, p.discoverResult(m))
	}
	c.play(&playback{conn: c, call: call, m: m})
	return nil
}

// recorded is a recorded call that equals m and is answered: one of the same era, with a result if there is one, else one
// of the other era with a result. Of these it is that of the session from which l is played, if there is one.
func (p *Player) recorded(l *liveSession, m *Message) *playCall {
	key, loose := p.index.keys(m)
	exact, _ := p.index.equal(key, loose)
	p.mu.Lock()
	own := p.index.of(exact, l.bound)
	p.mu.Unlock()
	var failed, other *playCall
	for _, list := range [...][]int32{own, exact} {
		for _, i := range list {
			call := &p.index.calls[i]
			same := call.stateless == isStateless(m.Revision)
			switch {
			case call.response == 0:
			case same && !call.failed:
				return call
			case same && failed == nil:
				failed = call
			case !call.failed && other == nil:
				other = call
			}
		}
	}
	return cmp.Or(failed, other)
}

// initializeResult answers initialize, from call or else from server/discover, in the client's revision.
func (p *Player) initializeResult(m *Message, call *playCall) (string, error) {
	revision, _ := unquote(member(m.Params, "protocolVersion"))
	if !slices.Contains([]string{"2024-11-05", batchRevision, "2025-06-18"}, revision) {
		revision = newestSession
	}
	if call == nil {
		return `{"protocolVersion":"` + revision + `",` + p.abilities(p.discovered, `,"serverInfo":`+p.info) + `}`, nil
	}
	was, err := p.message(call.response)
	if err != nil {
		return "", err
	}
	return replace(was.Result, quote(revision), "protocolVersion"), nil
}

// discoverResult answers server/discover, from a recorded one or else from initialize.
func (p *Player) discoverResult(m *Message) string {
	result := p.discovered
	if result == "" {
		result = `{"supportedVersions":["` + statelessRevision + `"],` + p.abilities(p.initialized, "") + `}`
	}
	return resultFor(m.Method, result, p.info, isStateless(m.Revision))
}

// abilities are the members with the capabilities of the server and, behind more, its instructions, if it has any, as
// result has them. Without one they are guessed from what clients asked of the server.
func (p *Player) abilities(result, more string) string {
	capabilities := cmp.Or(member(result, "capabilities"), "{}")
	if result == "" {
		for _, a := range [...][2]string{{"logging/", "logging"}, {"completion/", "completions"}, {"resources/", "resources"},
			{"prompts/", "prompts"}, {"tools/", "tools"}} {
			for method := range p.index.methods {
				if strings.HasPrefix(method, a[0]) {
					capabilities = withMember(capabilities, a[1], "{}")
				}
			}
		}
	}
	text := `"capabilities":` + capabilities + more
	if instructions := member(result, "instructions"); instructions != "" {
		text += `,"instructions":` + instructions
	}
	return text
}

// cacheable reports whether results of method say how long they are good, from 2026-07-28 on.
func cacheable(method string) bool {
	return strings.HasSuffix(method, "/list") || method == methodDiscover || method == "resources/read"
}

// asksForInput reports whether a result asks the client to call again with more, which is new in 2026-07-28.
func asksForInput(result string) bool {
	kind, _ := unquote(member(result, "resultType"))
	return kind == "input_required"
}

// resultFor returns the result of a call of method with what 2026-07-28 demands in it, or, unless stateless, without what
// is new in that revision. The rest stays byte for byte, but for keys with escapes. info is the server's name and version.
func resultFor(method, result, info string, stateless bool) string {
	if !strings.HasPrefix(result, "{") {
		return result
	}
	if !stateless {
		result = withoutMember(result, "resultType")
		if cacheable(method) {
			result = withoutMember(withoutMember(result, "ttlMs"), "cacheScope")
		}
		if meta := member(result, "_meta"); meta != "" {
			if rest := withoutMember(meta, metaServerInfo); rest == "{}" {
				result = withoutMember(result, "_meta")
			} else if rest != meta {
				result = replace(result, rest, "_meta")
			}
		}
		return result
	}
	kind := member(result, "resultType")
	if cacheable(method) && (kind == "" || kind == `"complete"`) {
		result = withMember(withMember(result, "cacheScope", `"private"`), "ttlMs", "0")
	}
	result = withMember(result, "resultType", `"complete"`)
	meta := cmp.Or(member(result, "_meta"), "{}")
	if !strings.HasPrefix(meta, "{") {
		return result
	}
	result = withMember(result, "_meta", meta)
	return replace(result, withMember(meta, metaServerInfo, info), "_meta")
}

// withMember returns an object with a member added in front, unless it has one of that key.
func withMember(object, key, value string) string {
	if member(object, key) != "" {
		return object
	}
	rest := strings.TrimLeft(object[1:], whiteSpace)
	if rest != "}" {
		rest = "," + rest
	}
	return "{" + quote(key) + ":" + value + rest
}

// withoutMember returns an object without its members of that key.
func withoutMember(object, key string) string {
	if !strings.HasPrefix(object, "{") || member(object, key) == "" {
		return object
	}
	var b strings.Builder
	eachMember(object, func(k, v string) {
		if k != key {
			b.WriteString("," + quote(k) + ":" + v)
		}
	})
	return "{" + strings.TrimPrefix(b.String(), ",") + "}"
}
