// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"hash/maphash"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// A playIndex says where on a tape the calls are and what belongs to them; the messages stay in the file. It is not
// changed once it is finished.
type playIndex struct {
	lines []playLine // the first stands for none
	calls []playCall // until finish in the order of the tape, then of the sessions; those answered by rule last
	plain int        // how many of calls are not answered by rule

	raw, exact, loose []int32 // calls in the order of that key
	all               []int64 // sessions with calls that are not answered by rule

	methods   map[string]bool // of calls
	stateless bool            // there are calls of 2026-07-28 or later
	revisions map[string]bool // later than 2026-07-28, of calls that had results
	skipped   int             // messages that cannot be played

	sessions map[int64]*indexSession // until finish
	odd      map[int64]string        // revisions later than 2026-07-28, by the seq of calls without answer; until finish

	seed   maphash.Seed
	ignore []Pointer
}

// A playLine is a message of the server, or the answer of the client that the server waited for.
type playLine struct {
	messageAt
	t, seq, re   int64 // t in microseconds
	next         int32 // of the same exchange, 0 for none
	idFrom, idTo int32 // where in the message the id of a response is
	reply        bool  // of the client
}

// A playCall is a call of a client and what belongs to it.
type playCall struct {
	seq, session     int64
	raw, key, loose  uint64
	method, selector uint64
	line, response   int32 // response is 0 if there is none
	first, last      int32 // of the exchange; from finish on the response is the last
	after, afterLast int32 // what belonged to no call and came next
	status           int16 // of the HTTP response without a message, 0 for none
	streamed         bool  // it was that of a stream
	rule             bool  // such calls are answered by rule
	failed           bool  // response is an error
	cancelled        bool  // by the client
	stateless        bool  // of 2026-07-28 or later
	bare             bool  // its headers have a revision of 2026-07-28 or later, and it has none, which the front refuses
	mismatch         bool  // the server refused it because of its headers
	gone             bool  // it is not played: it never reached the server, or the front refuses it
	instead          int32 // the call that a rule made of it, counted from 1; 0 for none
}

// An indexSession is what the index knows of a session while it is made.
type indexSession struct {
	done        int32 // the call that was answered last, else the first one, counted from 1; 0 for none
	early, last int32 // what came before any call
}

func newPlayIndex(ignore []Pointer) *playIndex {
	return &playIndex{
		lines: make([]playLine, 1), ignore: ignore, seed: maphash.MakeSeed(),
		methods: map[string]bool{}, revisions: map[string]bool{}, sessions: map[int64]*indexSession{}, odd: map[int64]string{},
	}
}

// call finds a call by its seq, nil if there is none that the server got.
func (x *playIndex) call(seq int64) *playCall {
	i, ok := slices.BinarySearchFunc(x.calls, seq, func(c playCall, seq int64) int { return cmp.Compare(c.seq, seq) })
	if !ok || seq == 0 {
		return nil
	}
	if instead := x.calls[i].instead; instead != 0 {
		i = int(instead - 1)
	}
	return &x.calls[i]
}

// add takes in one line. What the proxy made itself is no part of the server.
func (x *playIndex) add(e *Entry) error {
	if e.Kind == lineRaw && e.Status != 0 {
		if c := x.call(e.X); c != nil && e.Dir == dirToClient {
			c.status, c.streamed = int16(e.Status), e.Via == viaSSE
		}
	}
	if e.Kind != lineMsg || e.Local && e.Re == 0 {
		return nil
	}
	m, err := Parse(e.Msg)
	if err != nil {
		x.skipped++
		return nil
	}
	if e.Local {
		if c := x.call(e.Re); c != nil && e.Dir == dirToClient {
			c.gone = c.gone || c.refusedUnseen(m.Error) || member(m.Error, "code") == "-32020"
		}
		return nil
	}
	s := x.sessions[e.Session]
	if s == nil {
		s = &indexSession{}
		x.sessions[e.Session] = s
	}
	switch {
	case e.Dir == dirToClient && e.Was != 0: // a rule's work, which the rule does again
	case e.Dir == dirToClient && m.Kind == Response:
		x.addResponse(s, e, m)
	case e.Dir == dirToClient:
		if c := x.call(e.X); c != nil {
			x.link(&c.first, &c.last, x.line(e))
		} else if s.done != 0 {
			x.link(&x.calls[s.done-1].after, &x.calls[s.done-1].afterLast, x.line(e))
		} else {
			x.link(&s.early, &s.last, x.line(e))
		}
	case m.Kind == Call:
		x.addCall(s, e, m)
	case m.Kind == Response:
		if i := sort.Search(len(x.lines), func(i int) bool { return x.lines[i].seq >= e.Was }); i < len(x.lines) && x.lines[i].seq == e.Was && x.lines[i].reply {
			x.lines[i].messageAt = placeOf(e) // the server never saw the other
		} else if c := x.call(e.X); c != nil && c.response == 0 {
			x.link(&c.first, &c.last, x.line(e))
			x.lines[c.last].reply = true
		}
	case m.Method == methodCancelled:
		if c := x.call(e.X); c != nil && c.response == 0 {
			c.cancelled = true
		}
	}
	return nil
}

// link appends the line i to the list from first to last.
func (x *playIndex) link(first, last *int32, i int32) {
	if *last == 0 {
		*first = i
	} else {
		x.lines[*last].next = i
	}
	*last = i
}

func (x *playIndex) line(e *Entry) int32 {
	x.lines = append(x.lines, playLine{messageAt: placeOf(e), t: e.T.Microseconds(), seq: e.Seq, re: e.Re})
	return int32(len(x.lines) - 1)
}

func (x *playIndex) addCall(s *indexSession, e *Entry, m *Message) {
	if c := x.call(e.Was); c != nil {
		c.gone, c.instead = true, int32(len(x.calls)+1)
	}
	c := playCall{
		seq: e.Seq, session: e.Session, line: x.line(e), rule: answeredByRule(m.Method),
		stateless: isStateless(m.Revision), method: x.hash(m.Method), selector: x.hash(m.Method, selectorOf(m)),
	}
	revision, _ := unquote(member(e.Headers, "mcp-protocol-version"))
	c.bare = m.Revision == "" && isStateless(revision)
	c.raw = x.rawKey(m)
	c.key, c.loose = x.work(m)
	if s.done == 0 {
		c.after, c.afterLast = s.early, s.last
		s.done = int32(len(x.calls) + 1)
	}
	x.methods[m.Method] = true
	x.stateless = x.stateless || isStateless(m.Revision)
	if m.Revision > statelessRevision {
		x.odd[e.Seq] = m.Revision
	}
	x.calls = append(x.calls, c)
}

func (x *playIndex) addResponse(s *indexSession, e *Entry, m *Message) {
	c := x.call(e.Re)
	if c == nil || c.response != 0 {
		x.skipped++
		return
	}
	c.response, c.failed = x.line(e), m.Error != ""
	from, to, _ := locate(e.Msg, "id")
	x.lines[c.response].idFrom, x.lines[c.response].idTo = int32(from), int32(to)
	if c.session == e.Session {
		s.done = int32(sort.Search(len(x.calls), func(i int) bool { return x.calls[i].seq > c.seq }))
	}
	if revision := x.odd[c.seq]; revision != "" && m.Result != "" {
		x.revisions[revision] = true
	}
	delete(x.odd, c.seq)
	c.gone = c.refusedUnseen(m.Error)
	c.mismatch = !c.gone && member(m.Error, "code") == "-32020"
}

// refusedUnseen reports whether err, the answer to c, is about the revision. The front checks that before it looks for a
// call, as every server of 2026-07-28 does.
func (c *playCall) refusedUnseen(err string) bool {
	code := member(err, "code")
	return code == "-32022" || code == "-32602" && c.bare
}

// lone returns the keys of the calls that were only ever refused because of their headers. Where there is an equal call
// that was not, it was the headers indeed, which the front checks; else servers say so of other things, too.
func (x *playIndex) lone() map[uint64]bool {
	keys := map[uint64]bool{}
	for _, c := range x.calls {
		if c.mismatch {
			keys[c.key] = true
		}
	}
	for _, c := range x.calls {
		if !c.mismatch && !c.gone {
			delete(keys, c.key)
		}
	}
	return keys
}

// finish sorts what was added.
func (x *playIndex) finish() {
	x.sessions, x.odd = nil, nil
	lone := x.lone()
	x.calls = slices.DeleteFunc(x.calls, func(c playCall) bool { return c.gone || c.mismatch && !lone[c.key] })
	slices.SortStableFunc(x.calls, func(a, b playCall) int {
		if a.rule != b.rule {
			return btoi(a.rule) - btoi(b.rule)
		}
		return cmp.Compare(a.session, b.session)
	})
	x.exact = make([]int32, len(x.calls))
	for i := range x.calls {
		c := &x.calls[i]
		x.exact[i] = int32(i)
		x.plain += btoi(!c.rule)
		if c.response != 0 {
			x.link(&c.first, &c.last, c.response)
		}
	}
	x.all = x.sessionsOf(x.exact[:x.plain]) // not yet in the order of keys
	x.raw, x.loose = slices.Clone(x.exact), slices.Clone(x.exact)
	slices.SortStableFunc(x.raw, func(a, b int32) int { return cmp.Compare(x.calls[a].raw, x.calls[b].raw) })
	slices.SortStableFunc(x.exact, func(a, b int32) int { return cmp.Compare(x.calls[a].key, x.calls[b].key) })
	slices.SortStableFunc(x.loose, func(a, b int32) int { return cmp.Compare(x.calls[a].loose, x.calls[b].loose) })
}

// equal returns the calls with this key, and those that are also loosely equal, in recorded order, session by session.
func (x *playIndex) equal(key, loose uint64) (exact, wide []int32) {
	return x.span(x.exact, func(c *playCall) int { return cmp.Compare(c.key, key) }),
		x.span(x.loose, func(c *playCall) int { return cmp.Compare(c.loose, loose) })
}

// of returns those calls of group, which is of one key, that belong to session.
func (x *playIndex) of(group []int32, session int64) []int32 {
	return x.span(group, func(c *playCall) int { return cmp.Compare(c.session, session) })
}

// span returns the part of a sorted list for whose calls compare returns 0.
func (x *playIndex) span(list []int32, compare func(c *playCall) int) []int32 {
	list = list[sort.Search(len(list), func(i int) bool { return compare(&x.calls[list[i]]) >= 0 }):]
	return list[:sort.Search(len(list), func(i int) bool { return compare(&x.calls[list[i]]) > 0 })]
}

// sessionsOf returns the sessions in which there is a call of group, which is of one key.
func (x *playIndex) sessionsOf(group []int32) (list []int64) {
	for i := 0; i < len(group); {
		s := x.calls[group[i]].session
		list = append(list, s)
		i += sort.Search(len(group)-i, func(j int) bool { return x.calls[group[i+j]].session > s })
	}
	return list
}

// begin returns where in calls those of session begin that are not answered by rule, and how many there are.
func (x *playIndex) begin(session int64) (from, n int) {
	plain := x.calls[:x.plain]
	from = sort.Search(len(plain), func(i int) bool { return plain[i].session >= session })
	return from, sort.Search(len(plain)-from, func(i int) bool { return plain[from+i].session > session })
}

// keys returns the key by which a call is found, and the one that leaves out what may be ignored. Neither has the id or
// what the protocol has in _meta: the progress token, revision, client and capabilities, and the trace. That 2026-07-28
// demands capabilities and there are none is part of both, as servers refuse such calls. What else is in _meta is part of
// the first alone, as some clients number their calls there.
func (x *playIndex) keys(m *Message) (key, loose uint64) {
	raw := x.rawKey(m)
	if same := x.span(x.raw, func(c *playCall) int { return cmp.Compare(c.raw, raw) }); len(same) > 0 {
		c := &x.calls[same[0]]
		return c.key, c.loose
	}
	return x.work(m)
}

// rawKey is the same only for calls that keys are the same of: it saves working them out for params in the recorded form.
func (x *playIndex) rawKey(m *Message) uint64 {
	var h maphash.Hash
	h.SetSeed(x.seed)
	h.WriteString(m.Method)
	h.WriteByte(0xff)
	from, to, ok := 0, 0, false
	if strings.Contains(m.Params, `"_meta"`) {
		from, to, ok = locate(m.Params, "_meta")
	}
	if ok {
		h.WriteString(lacking(m))
		h.WriteString(m.Params[:from])
		eachMember(m.Params[from:to], func(key, value string) {
			if !ofProtocol(key) {
				h.WriteString(key)
				h.WriteByte(0xff)
				h.WriteString(value)
			}
		})
		h.WriteByte(0xff)
	}
	h.WriteString(m.Params[to:])
	return h.Sum64()
}

// work works out the keys of a call.
func (x *playIndex) work(m *Message) (key, loose uint64) {
	params := matchedParams(m.Params)
	text := encodeJSON(params)
	key = x.hash("exact", m.Method, lacking(m), text)
	object, _ := params.(map[string]any)
	if _, has := object["_meta"]; has || len(x.ignore) > 0 {
		ignore := append(x.ignore[:len(x.ignore):len(x.ignore)], Pointer{"params", "_meta"})
		text = encodeJSON(without(params, Pointer{"params"}, ignore))
	}
	return key, x.hash("loose", m.Method, lacking(m), text)
}

// lacking is what 2026-07-28 demands in the _meta of a call and m does not have, "" if there is no such thing.
func lacking(m *Message) string {
	if isStateless(m.Revision) && member(member(m.Params, "_meta"), metaAbilities) == "" {
		return metaAbilities
	}
	return ""
}

// hash is of texts, none of which runs into the next.
func (x *playIndex) hash(texts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(x.seed)
	for _, text := range texts {
		h.WriteString(text)
		h.WriteByte(0xff) // in no UTF-8
	}
	return h.Sum64()
}

// matchedParams is what of params tells calls apart, as decodeJSON has it.
func matchedParams(params string) any {
	if params == "" {
		params = "{}"
	}
	v := decodeJSON(params)
	object, _ := v.(map[string]any)
	meta, ok := object["_meta"].(map[string]any)
	if !ok {
		return v
	}
	if maps.DeleteFunc(meta, func(k string, _ any) bool { return ofProtocol(k) }); len(meta) == 0 {
		delete(object, "_meta")
	}
	return v
}

// ofProtocol reports whether a key of _meta is one of MCP's own, or of a trace. "Any prefix where the second label is
// modelcontextprotocol or mcp is reserved for MCP use."
func ofProtocol(key string) bool {
	switch key {
	case "progressToken", "traceparent", "tracestate", "baggage":
		return true
	}
	prefix, _, _ := strings.Cut(key, "/")
	labels := strings.Split(prefix, ".")
	return prefix != key && len(labels) > 1 && (labels[0] == "modelcontextprotocol" || labels[0] == "mcp" ||
		labels[1] == "modelcontextprotocol" || labels[1] == "mcp")
}

// without returns v, which is at this place, without what ignore covers, absent if that is all. It may change v.
func without(v any, at Pointer, ignore []Pointer) any {
	if slices.ContainsFunc(ignore, func(p Pointer) bool { return p.Matches(at) }) {
		return absent{}
	}
	at = at[:len(at):len(at)]
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			if v[k] = without(v[k], append(at, k), ignore); v[k] == (absent{}) {
				delete(v, k)
			}
		}
	case []any:
		kept := make([]any, 0, len(v))
		for i := range v {
			if inner := without(v[i], append(at, strconv.Itoa(i)), ignore); inner != (absent{}) {
				kept = append(kept, inner)
			}
		}
		return kept
	}
	return v
}

// selectorOf is what a call calls within its method: a tool, a prompt, a uri.
func selectorOf(m *Message) string { return cmp.Or(m.Name, m.URI) }
