// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
)

const (
	methodCallTool  = "tools/call"
	methodGetPrompt = "prompts/get"
	methodComplete  = "completion/complete"
)

// A meeting is a message on its way as the conditions of rules see it.
type meeting struct {
	m    *Message // as it is now
	call *Message // m; or the call that it answers, as it came, nil for a response to none
	dir  Direction
	// Who the client is: zero where that is not known.
	user, session, transport, revision string
	ip                                 netip.Addr
}

// newMeeting returns that of m, which travels in s.
func newMeeting(s *Session, m *Message) *meeting {
	x := &meeting{m: m, call: m, dir: m.Dir, user: s.User, session: s.ID(), transport: "http"}
	if m.Kind == Response {
		if x.call = nil; m.Answers != nil {
			x.call = m.Answers.Message
		}
	}
	client := x.call // what the client sent last of this exchange
	if m.Within != nil {
		client = m.Within.Message
	}
	if m.Origin != nil {
		x.ip = m.Origin.IP
	} else if client != nil && client.Origin != nil {
		x.ip = client.Origin.IP
	} else if x.session == "" && !s.Transient {
		x.session, x.transport = "-", "stdio"
	}
	x.revision = m.Revision
	if client != nil {
		x.revision = cmp.Or(x.revision, client.Revision)
	}
	x.revision = cmp.Or(x.revision, s.Revision())
	return x
}

func (x *meeting) method() string {
	if x.call == nil {
		return ""
	}
	return x.call.Method
}

// name is that of the tool or prompt, or the URI, that the call is about; "" if none.
func (x *meeting) name() string {
	if x.call == nil {
		return ""
	}
	return cmp.Or(x.call.Name, x.call.URI)
}

// A holding is how far a message meets a condition.
type holding uint8

const (
	fails holding = iota
	holds
	unclear // it cannot be said: see [rulePath.find]
)

// about returns the name or URI that a condition, tool, prompt or uri, is held against. It fails if there is none, and is
// unclear if two peers could read the message in different ways.
func (x *meeting) about(condition string) (name string, found holding) {
	switch method := x.method(); {
	case condition == "tool" && method == methodCallTool, condition == "prompt" && method == methodGetPrompt:
		return x.named(x.call.Name, "name")
	case condition == "prompt" && method == methodComplete:
		return x.reference("name")
	case condition == "uri" && method == methodComplete:
		return x.reference("uri")
	case condition == "uri" && x.call != nil:
		return x.named(x.call.URI, "uri")
	}
	return "", fails
}

// named returns name, the string that params has under key. If there is none, it is unclear what a server makes of that: of
// a value that is no string, of params that are a list, and of a call without the name that it must have.
func (x *meeting) named(name, key string) (string, holding) {
	if name != "" {
		return name, holds
	}
	value := member(x.call.Params, key)
	if value == "" && key == "name" || value != "" && value[0] != '"' || strings.HasPrefix(x.call.Params, "[") {
		return "", unclear
	}
	return "", holding(btoi(value != ""))
}

// reference returns the member called key of params.ref, which says what a call asks to complete.
func (x *meeting) reference(key string) (value string, found holding) {
	values, odd := rulePath{{token: "params"}, {token: "ref"}, {token: key}}.find(x.call.Raw)
	if value, ok := unquote(strings.Join(values, "")); ok && !odd {
		return value, holds
	} else if odd || len(values) > 0 {
		return "", unclear
	}
	return "", fails
}

// holds reports whether x meets all conditions but Where and those that count. If not, missed is the one that decides, by
// its word in rule files.
func (c *Condition) holds(x *meeting) (found holding, missed string) {
	found = holds
	switch {
	case c.Dirs != nil && !slices.Contains(c.Dirs, x.dir):
		return fails, "dir"
	case !matchesAny(c.Methods, x.method()):
		return fails, "method"
	case !matchesAny(c.Users, x.user):
		return fails, "user"
	case !matchesAny(c.Sessions, x.session):
		return fails, "session"
	case !matchesAny(c.Transports, x.transport):
		return fails, "transport"
	case !matchesAny(c.Revisions, x.revision):
		return fails, "revision"
	case c.IPs != nil && !slices.ContainsFunc(c.IPs, func(p netip.Prefix) bool { return p.Contains(x.ip.Unmap()) }):
		return fails, "ip"
	}
	if c.Tools != nil {
		found, missed = x.isAbout("tool", c.Tools), "tool"
	}
	if c.Prompts != nil && found == holds {
		found, missed = x.isAbout("prompt", c.Prompts), "prompt"
	}
	if c.URIs != nil && found == holds {
		found, missed = x.isAbout("uri", c.URIs), "uri"
	}
	return found, missed
}

// isAbout reports whether what x is about meets one of patterns.
func (x *meeting) isAbout(condition string, patterns []string) holding {
	name, found := x.about(condition)
	if found == holds && !matchesAny(patterns, name) {
		return fails
	}
	return found
}

// matchesAny reports whether one of patterns is met, or there is none.
func matchesAny(patterns []string, s string) bool {
	return patterns == nil || slices.ContainsFunc(patterns, func(p string) bool { return matchesName(p, s) })
}

// where reports whether x meets all of Where. If one fails, it does not matter that another is unclear.
func (c *Condition) where(x *meeting) holding {
	found := holds
	for i := range c.Where {
		switch c.Where[i].any(x.m.Raw) {
		case fails:
			return fails
		case unclear:
			found = unclear
		}
	}
	return found
}

// any reports whether a value to which d leads is as it demands, as a condition wants.
func (d *Demand) any(text string) holding {
	values, odd := d.At.find(text)
	for _, v := range values {
		switch d.fits(v) {
		case holds:
			if !odd {
				return holds
			}
		case unclear:
			odd = true
		}
	}
	if odd {
		return unclear
	}
	return fails
}

// all reports whether d leads to values and each of them is as it demands, as require wants.
func (d *Demand) all(text string) bool {
	values, odd := d.At.find(text)
	return !odd && len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return d.fits(v) != holds })
}

// fits reports whether the JSON text value is what d demands.
func (d *Demand) fits(value string) holding {
	if d.Match == nil {
		text := encodeJSON(decodeJSON(value))
		if keysIn(text) < keysIn(value) { // one is there twice
			return unclear
		}
		return holding(btoi(text == d.Value))
	}
	switch value[0] {
	case '{', '[', 'n':
		return unclear
	case '"':
		value, _ = unquote(value)
	}
	return holding(btoi(d.Match.MatchString(value)))
}

// keysIn counts the keys in a JSON text: each has a colon behind it.
func keysIn(text string) (n int) {
	for {
		i := strings.IndexByte(text, '"')
		if i < 0 {
			return n + strings.Count(text, ":")
		}
		n += strings.Count(text[:i], ":")
		end, _ := skipString(text, i)
		text = text[end:]
	}
}

// perCall reports whether c can be judged on a call only, not on what the call is named.
func (c *Condition) perCall() bool {
	return c.Where != nil || c.Every > 0 || c.Chance != nil || c.First > 0
}

// A ruleCount counts the messages that meet a rule. The zero value is ready; it may be used concurrently.
type ruleCount struct {
	met  atomic.Int64 // all conditions but those that count
	then atomic.Int64 // and every
	last atomic.Int64 // and chance
	seed uint64
}

// takes counts a message that meets all other conditions. missed is the one of every, chance and first by which it is not
// wanted, "" if it is.
func (n *ruleCount) takes(c *Condition) (missed string) {
	if k := n.met.Add(1); c.Every > 0 && k%c.Every != 0 {
		return "every"
	}
	k := n.then.Add(1)
	if c.Chance != nil && rand.New(rand.NewPCG(n.seed, uint64(k))).Float64() >= *c.Chance {
		return "chance"
	}
	if n.last.Add(1) > c.First && c.First > 0 {
		return "first"
	}
	return ""
}

// concerns reports whether r is about messages of this kind at all. A rule that denies, answers or breaks is about calls and
// notifications, and about responses only if it says in which direction.
func (r *Rule) concerns(x *meeting) bool {
	return x.m.Kind != Response || r.When.Dirs != nil || !r.Kind.ends() && r.Kind != actDelay
}
