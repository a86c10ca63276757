// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

const (
	orderAny    = "any"
	orderStrict = "strict"

	exhaustedError = "error"
	exhaustedLast  = "last"
	exhaustedCycle = "cycle"

	reasonNone      = "no such call"
	reasonExhausted = "exhausted"
	reasonOrder     = "out of order"
	reasonAnswer    = "other answer"   // the client's, to a request of the server
	reasonEra       = "other revision" // the exchange is not possible in the client's
)

// A matcher finds the recorded call that is to be played for a live one. Equal calls are played in recorded order, each
// live session from the beginning.
//
// A live session is played from one recorded session as long as that has the calls: of those that have every call that the
// live session has made so far, from the first one that the fewest live sessions are played from. As calls come in that
// not all of them have, the choice narrows. A call that none of them has is played from another, and changes nothing.
type matcher struct {
	index     *playIndex
	strict    bool
	exhausted string

	mu     sync.Mutex    // protects following, and all liveSessions
	taken  map[int64]int // how many live sessions are played from a recorded one
	played []int32       // by index of calls: how often, but by no session that has left the recorded one since
}

// A liveSession is what was called so far: in a session, or, by calls without one, in the whole run.
type liveSession struct {
	shared bool           // of calls without session: they are played from all recorded sessions, one after the other
	at     map[uint64]int // how many calls with this key were played
	fits   []int64        // the recorded sessions that have all of them
	bound  int64          // the one of them that is played
	count  int            // calls played
}

// A foundCall is an answer of a matcher: a call, or, with a reason, none.
type foundCall struct {
	call     int32 // with reasonOrder, the call that should have come, -1 if there is none
	loosened bool  // it is not equal in what may be ignored
	reason   string
}

// find returns the call to play for m.
func (x *matcher) find(l *liveSession, m *Message) foundCall {
	key, loose := x.index.keys(m)
	x.mu.Lock()
	defer x.mu.Unlock()
	exact, wide := x.index.equal(key, loose)
	switch {
	case len(wide) == 0:
		return foundCall{-1, false, reasonNone}
	case x.strict:
		return x.next(l, key, loose)
	}
	group, of := exact, key
	if len(group) == 0 {
		group, of = wide, loose
	}
	x.narrow(l, of, group)
	if !l.shared {
		session := l.bound
		if len(x.index.of(group, session)) == 0 {
			session = x.fewest(x.index.sessionsOf(group))
		}
		exact, wide = x.index.of(exact, session), x.index.of(wide, session)
	}
	return x.any(l, key, loose, exact, wide)
}

// hint narrows the choice of recorded sessions for l by a call that is answered by rule.
func (x *matcher) hint(l *liveSession, m *Message) {
	key, loose := x.index.keys(m)
	x.mu.Lock()
	defer x.mu.Unlock()
	exact, _ := x.index.equal(key, loose)
	x.narrow(l, key, exact)
}

// narrow leaves those recorded sessions in the choice that have a call of group, whose key is given, unless that is none.
// It requires that x.mu is held.
func (x *matcher) narrow(l *liveSession, key uint64, group []int32) {
	if _, known := l.at[key]; known || l.shared || len(l.fits) == 1 || len(group) == 0 {
		return
	}
	x.choose(l, x.index.sessionsOf(group))
}

// choose lets l be played from one of sessions, in order, which it may be. It requires that x.mu is held.
func (x *matcher) choose(l *liveSession, sessions []int64) {
	if l.fits != nil {
		sessions = slices.DeleteFunc(sessions, func(s int64) bool {
			_, ok := slices.BinarySearch(l.fits, s)
			return !ok
		})
	}
	if len(sessions) == 0 {
		return
	}
	was := l.fits != nil
	l.fits = sessions
	if _, ok := slices.BinarySearch(sessions, l.bound); was && ok {
		return
	}
	if was {
		x.taken[l.bound]--
		x.countPlayed(l, -1)
	}
	l.bound = x.fewest(sessions)
	x.taken[l.bound]++
	x.countPlayed(l, 1)
}

// countPlayed adds n to how often the calls of the session that l is played from were, as far as l has come in it: those
// it was given from another one have their equals there. It requires that x.mu is held.
func (x *matcher) countPlayed(l *liveSession, n int32) {
	if x.strict {
		from, all := x.index.begin(l.bound)
		for i := range min(l.count, all) {
			x.played[from+i] += n
		}
		return
	}
	played := map[int32]bool{}
	for key, count := range l.at {
		exact, wide := x.index.equal(key, key) // it is one of the two
		for _, group := range [...][]int32{exact, wide} {
			group = x.index.of(group, l.bound)
			for _, i := range group[:min(count, len(group))] {
				played[i] = true
			}
		}
	}
	for i := range played {
		x.played[i] += n
	}
}

// fewest is the first of sessions, which are not none, that the fewest live ones are played from. It requires that x.mu
// is held.
func (x *matcher) fewest(sessions []int64) int64 {
	return slices.MinFunc(sessions, func(a, b int64) int { return x.taken[a] - x.taken[b] })
}

// any finds a call in any order: one of exact, whose key is given, else of wide, those with the key loose. It requires that
// x.mu is held and that there is one at all.
func (x *matcher) any(l *liveSession, key, loose uint64, exact, wide []int32) foundCall {
	for range 2 {
		n := l.at[key]
		if passed := l.at[loose]; passed > 0 { // what was played as loosely equal is not played again
			for n < len(exact) && (passed >= len(wide) || exact[n] < wide[passed]) {
				n++
			}
		}
		if n < len(exact) {
			l.at[key] = n + 1
			x.played[exact[n]]++
			return foundCall{call: exact[n]}
		}
		n = l.at[loose]
		for n < len(wide) && x.playedExactly(l, wide[n]) {
			n++
		}
		if n < len(wide) {
			l.at[loose] = n + 1
			x.played[wide[n]]++
			return foundCall{call: wide[n], loosened: true}
		}
		if x.exhausted != exhaustedCycle {
			break
		}
		delete(l.at, loose)
		for _, i := range wide {
			delete(l.at, x.index.calls[i].key)
		}
	}
	switch {
	case x.exhausted != exhaustedLast:
		return foundCall{-1, false, reasonExhausted}
	case len(exact) > 0:
		return foundCall{call: exact[len(exact)-1]}
	}
	return foundCall{call: wide[len(wide)-1], loosened: true}
}

// playedExactly reports whether the call i was played for an equal one. It requires that x.mu is held.
func (x *matcher) playedExactly(l *liveSession, i int32) bool {
	c := &x.index.calls[i]
	exact, _ := x.index.equal(c.key, c.loose)
	if !l.shared {
		exact = x.index.of(exact, c.session)
	}
	rank, _ := slices.BinarySearch(exact, i)
	return rank < l.at[c.key]
}

// next finds the call that comes next in recorded order. It requires that x.mu is held.
func (x *matcher) next(l *liveSession, key, loose uint64) foundCall {
	isThis := func(i int) bool { c := &x.index.calls[i]; return c.key == key || c.loose == loose }
	for range 2 {
		if !l.shared {
			sessions := slices.Clone(l.fits)
			if sessions == nil {
				sessions = slices.Clone(x.index.all)
			}
			x.choose(l, slices.DeleteFunc(sessions, func(s int64) bool {
				from, n := x.index.begin(s)
				return l.count >= n || !isThis(from+l.count)
			}))
		}
		from, n := 0, x.index.plain
		if !l.shared {
			session := l.bound
			if l.fits == nil {
				session = x.fewest(x.index.all)
			}
			from, n = x.index.begin(session)
		}
		for l.count < n && x.index.calls[from+l.count].mismatch && !isThis(from+l.count) {
			l.count++ // the front has refused it
		}
		i := from + l.count
		switch {
		case l.count < n && isThis(i):
			l.count++
			x.played[i]++
			return foundCall{call: int32(i), loosened: x.index.calls[i].key != key}
		case l.count < n:
			return foundCall{int32(i), false, reasonOrder}
		case n > 0 && x.exhausted == exhaustedLast && isThis(i-1):
			return foundCall{call: int32(i - 1), loosened: x.index.calls[i-1].key != key}
		case x.exhausted != exhaustedCycle:
			return foundCall{-1, false, reasonExhausted}
		}
		l.count = 0
	}
	return foundCall{-1, false, reasonExhausted}
}

// unused returns those calls that were not played, but for those that are answered by rule.
func (x *matcher) unused() (list []int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.index.plain {
		if x.played[i] <= 0 && !x.index.calls[i].mismatch {
			list = append(list, int32(i))
		}
	}
	return list
}

const (
	nearestShown = 3
	nearestRead  = 256     // calls looked at for them
	nearestBytes = 4 << 20 // and their size
	differsShown = 10
)

// A nearCall is a recorded call like one that is not on the tape.
type nearCall struct {
	seq     int64
	name    string
	differs []Difference // from the recorded call to the live one
}

// nearest finds the recorded calls that differ least from m, first among those of the same tool, prompt or uri.
func (p *Player) nearest(m *Message) (near []nearCall) {
	x := p.index
	method, selector := x.hash(m.Method), x.hash(m.Method, selectorOf(m))
	seen := map[uint64]bool{}
	read, size := 0, 0
	for pass := range 2 {
		for i := range x.calls {
			c := &x.calls[i]
			if c.method != method || (c.selector == selector) != (pass == 0) || seen[c.key] {
				continue
			}
			if seen[c.key] = true; read == nearestRead || size > nearestBytes {
				break
			}
			read, size = read+1, size+int(x.lines[c.line].size)
			if n, ok := p.compare(c, m); ok {
				near = append(near, n)
			}
		}
		if len(near) >= nearestShown {
			break
		}
	}
	slices.SortStableFunc(near, func(a, b nearCall) int { return len(a.differs) - len(b.differs) })
	return near[:min(len(near), nearestShown)]
}

// compare says where m differs from the recorded call c.
func (p *Player) compare(c *playCall, m *Message) (nearCall, bool) {
	was, err := p.message(c.line)
	if err != nil {
		return nearCall{}, false
	}
	comparer := Comparer{Ignore: p.index.ignore}
	return nearCall{c.seq, selectorOf(was), comparer.Compare(Pointer{"params"}, matchedParams(was.Params), matchedParams(m.Params))}, true
}

// missed is the answer to a call that is not played. It counts as unmatched.
func (p *Player) missed(m *Message, reason string, near []nearCall) *Error {
	type place struct {
		At       string          `json:"at"`
		Recorded json.RawMessage `json:"recorded,omitempty"`
	}
	type call struct {
		Seq     int64   `json:"seq"`
		Name    string  `json:"name,omitempty"`
		Differs []place `json:"differs"`
	}
	var text strings.Builder
	nearest := []call{}
	for _, n := range near {
		one := call{n.seq, n.name, []place{}}
		fmt.Fprintf(&text, "; nearest is seq %d %s", n.seq, n.name)
		for _, d := range n.differs[:min(len(n.differs), differsShown)] {
			one.Differs = append(one.Differs, place{d.At.String(), rawJSON(d.A)})
			fmt.Fprintf(&text, ", %s", d)
		}
		nearest = append(nearest, one)
	}
	what := strings.TrimSpace(m.Method + " " + selectorOf(m))
	p.count(func(r *replayReport) { r.unmatched.add("%s: %s%s", what, reason, text.String()) })
	return &Error{Code: 404, Status: 200, Text: "not on the tape: " + reason, Data: `"reason":` + quote(reason) + `,"nearest":` + encodeJSON(nearest), Cause: fmt.Errorf("%s%s", what, text.String())}
}
