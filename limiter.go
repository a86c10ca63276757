// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

const (
	maxBuckets   = 100_000                   // keys in a Limiter's table
	sweepStep    = 8                         // slots looked at in one step of the sweep
	maxCalls     = 1_000_000_000             // in a rate, per unit, and in a burst
	maxFill      = 10 * 365 * 24 * time.Hour // in which an empty bucket must fill up
	clockJitter  = time.Second               // callers may come out of order by this much
	limitExample = "for example ip=100/m:20 or tools/call:search=1/m"
)

// A Limit allows Calls in each Period on average, and Burst of them at once. [ParseLimit] makes it.
type Limit struct {
	Tier   string        // as the user wrote it, before the last '='
	Calls  int64         // in each Period; the two have no common factor
	Period time.Duration // more than 0
	Burst  int64         // at least 1
}

// A scope says what a Limit has a bucket for.
type scope uint8

const (
	perServer   scope = iota // one bucket for everything
	perIP                    // one for each IPv4 address or IPv6 /64
	perUser                  // one for each authenticated name
	perSession               // one for each session
	perEndpoint              // one for each method, and name or uri
	oneEndpoint              // one, for the endpoint that the tier names
	scopes      int   = iota
)

// ParseLimit reads TIER=RATE[:BURST]. The last '=' ends TIER, which is global, ip, user, session,
// endpoint, METHOD or METHOD:NAME; a METHOD has a '/', or is initialize or ping, so that a misspelt
// tier is an error. METHOD alone counts all its names together. RATE is a number with up to three
// decimals and a unit, /s /m /h /d. BURST defaults to that number, rounded up: 100/m lets 100 calls
// come at once, then one each 0.6 s. The same tier may be limited more than once (5/s and 100/h). The error does not repeat s.
func ParseLimit(s string) (Limit, error) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return Limit{}, fmt.Errorf("no '=' between tier and rate, %s", limitExample)
	}
	l := Limit{Tier: s[:i]}
	if _, _, _, err := l.scope(); err != nil {
		return Limit{}, fmt.Errorf("%v, %s", err, limitExample)
	}
	rate, burst, given := strings.Cut(s[i+1:], ":")
	if err := l.setRate(rate); err != nil {
		return Limit{}, fmt.Errorf("%v, %s", err, limitExample)
	}
	if given {
		n, err := strconv.ParseUint(burst, 10, 32)
		if err != nil || n < 1 || n > maxCalls {
			return Limit{}, fmt.Errorf("burst %q is no whole number from 1 to %d, %s", burst, maxCalls, limitExample)
		}
		l.Burst = int64(n)
	}
	if fill, ok := l.gaps(l.Burst); !ok || fill.ns > int64(maxFill) {
		return Limit{}, fmt.Errorf("burst %d takes more than 10 years to fill at this rate, %s", l.Burst, limitExample)
	}
	return l, nil
}

// scope returns what l has buckets for, and the endpoint if that is one.
func (l Limit) scope() (s scope, method, name string, err error) {
	switch l.Tier {
	case "":
		return 0, "", "", errors.New("tier is empty")
	case "global":
		return perServer, "", "", nil
	case "ip":
		return perIP, "", "", nil
	case "user":
		return perUser, "", "", nil
	case "session":
		return perSession, "", "", nil
	case "endpoint":
		return perEndpoint, "", "", nil
	}
	method, name, named := strings.Cut(l.Tier, ":")
	switch {
	case !strings.Contains(method, "/") && method != "initialize" && method != "ping":
		return 0, "", "", fmt.Errorf("tier %q is none of global, ip, user, session, endpoint, METHOD, METHOD:NAME", l.Tier)
	case strings.ContainsFunc(method, unicode.IsSpace):
		return 0, "", "", fmt.Errorf("tier %q has white space in its method", l.Tier)
	case named && name == "":
		return 0, "", "", fmt.Errorf("tier %q has no name after ':'", l.Tier)
	}
	return oneEndpoint, method, name, nil
}

// setRate sets all but the tier from NUMBER/UNIT.
func (l *Limit) setRate(s string) error {
	number, unit, _ := strings.Cut(s, "/")
	switch unit {
	case "s":
		l.Period = time.Second
	case "m":
		l.Period = time.Minute
	case "h":
		l.Period = time.Hour
	case "d":
		l.Period = 24 * time.Hour
	default:
		return fmt.Errorf("rate %q does not end in /s, /m, /h or /d", s)
	}
	whole, decimals, point := strings.Cut(number, ".")
	n, err := strconv.ParseUint(whole, 10, 32)
	if err != nil || n > maxCalls || point && (len(decimals) < 1 || len(decimals) > 3) {
		return fmt.Errorf("rate %q: %q is no number up to %d with at most three decimals", s, number, maxCalls)
	}
	l.Calls, l.Burst = int64(n), int64(n)
	for _, c := range []byte(decimals) {
		if c < '0' || c > '9' {
			return fmt.Errorf("rate %q: %q is no number up to %d with at most three decimals", s, number, maxCalls)
		}
		l.Calls = 10*l.Calls + int64(c-'0')
		l.Period *= 10 // at most 1000 days, in all
	}
	if l.Calls == 0 {
		return fmt.Errorf("rate %q is zero, which a rule that denies says better", s)
	}
	if strings.Trim(decimals, "0") != "" {
		l.Burst++
	}
	a, b := l.Calls, int64(l.Period)
	for b != 0 {
		a, b = b, a%b
	}
	l.Calls, l.Period = l.Calls/a, l.Period/time.Duration(a)
	return nil
}

// A stamp is a time on the Limiter's clock, or a length of it: ns nanoseconds and part Calls-ths of
// one. A whole number of nanoseconds would let 3/s drift, for its calls are 333,333,333⅓ apart.
type stamp struct{ ns, part int64 }

// later reports whether a comes after b, of the same limit.
func (a stamp) later(b stamp) bool { return a.ns > b.ns || a.ns == b.ns && a.part > b.part }

// gaps returns n times the gap between two calls, and whether that can be told at all.
func (l Limit) gaps(n int64) (stamp, bool) {
	hi, lo := bits.Mul64(uint64(n), uint64(l.Period))
	if hi >= uint64(l.Calls) {
		return stamp{}, false
	}
	ns, part := bits.Div64(hi, lo, uint64(l.Calls))
	return stamp{int64(ns), int64(part)}, ns <= 1<<62
}

// add returns a+b.
func (l Limit) add(a, b stamp) stamp {
	a.ns, a.part = a.ns+b.ns, a.part+b.part
	if a.part >= l.Calls {
		a.ns, a.part = a.ns+1, a.part-l.Calls
	}
	return a
}

// Traffic is what a message counts as. A zero field is not counted. Only tools/call, prompts/get and
// resources/read, /subscribe and /unsubscribe are endpoints by name: with other methods a client
// could put a new name into each call and so find a full bucket for each.
type Traffic struct {
	IP      netip.Addr
	User    string // authenticated name
	Session string
	Method  string
	Name    string // params.name or params.uri
}

// A Limiter holds the token buckets of a list of limits. The zero value, like an empty list, lets
// everything pass. It may be used concurrently.
//
// Each bucket is one number: when it will be full again (the generic cell rate algorithm). A full
// bucket needs no memory, so each call drops some of those. Refused calls leave no trace. The table
// has at most 100,000 buckets; if more than that are in use, each new one displaces, of the next 8
// in turn, the one soonest full. So a host attacked from everywhere still serves newcomers, and a
// bucket is forgotten about once for every 12,500 new ones, each of which took a call that all limits
// let pass. The buckets of global and of endpoints by name are outside the table and never displaced:
// they are what holds then.
type Limiter struct {
	seed  maphash.Seed
	uses  [scopes]bool // by some limit
	mu    sync.Mutex   // protects following
	tiers []tier       // only the field one of each changes
	base  time.Time    // when the clock stood at 0
	at    int64        // the clock at the last call, in nanoseconds
	index map[key]int  // to slots
	slots []slot       // in no order
	hand  int          // the slot that the sweep comes to next
	turn  int          // the slot whose turn to be displaced is next; apart, as refused calls move hand
	due   []charge     // room for Take
}

// A tier is a limit made ready.
type tier struct {
	Limit
	scope        scope
	method, name string // for oneEndpoint
	gap, slack   stamp  // between calls; that times Burst-1
	one          stamp  // for perServer and oneEndpoint: when the bucket will be full
}

// A key names a bucket in the table. Texts are hashed, or a client could fill the memory with them.
type key struct {
	tier   int
	hi, lo uint64
}

type slot struct {
	key
	full stamp
}

// A charge is what a call costs one tier.
type charge struct {
	tier *tier
	key  key
	full *stamp // nil if the bucket is not in the table
	from stamp  // the later of the clock and *full
}

// NewLimiter returns a Limiter with full buckets. The limits must come from [ParseLimit].
func NewLimiter(limits []Limit) *Limiter {
	l := &Limiter{seed: maphash.MakeSeed(), index: make(map[key]int), due: make([]charge, 0, len(limits))}
	for _, limit := range limits {
		r := tier{Limit: limit}
		var err error
		if r.scope, r.method, r.name, err = limit.scope(); err != nil {
			panic(err)
		}
		r.gap, _ = limit.gaps(1)
		r.slack, _ = limit.gaps(limit.Burst - 1)
		l.tiers = append(l.tiers, r)
		l.uses[r.scope] = true
	}
	return l
}

// Take charges t to all limits that apply, or to none. If some are short it returns the tier that is
// short for longest, as the user wrote it, how long that is, and false: at now+wait the call would
// pass, if no other came before it. A time up to 1 s before an earlier call's counts as that one's,
// since callers race; one further back means the clock was set, and counting goes on from there.
func (l *Limiter) Take(now time.Time, t Traffic) (tier string, wait time.Duration, ok bool) {
	if len(l.tiers) == 0 {
		return "", 0, true
	}
	ids := l.identify(&t) // outside the lock: names may be long
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.clock(now)
	l.sweep(at)
	l.due = l.due[:0]
	for i := range l.tiers {
		r := &l.tiers[i]
		c := charge{tier: r, from: stamp{ns: at}}
		switch id := ids[r.scope]; {
		case r.scope == perServer, r.scope == oneEndpoint && r.names(&t):
			c.full = &r.one
		case id.counts:
			c.key = key{i, id.hi, id.lo}
			if n, known := l.index[c.key]; known {
				c.full = &l.slots[n].full
			}
		default:
			continue
		}
		if c.full != nil && c.full.later(c.from) {
			c.from = *c.full
		}
		if limit := r.add(stamp{ns: at}, r.slack); c.from.later(limit) {
			short := c.from.ns - limit.ns
			if c.from.part > limit.part { // rounded up
				short++
			}
			if time.Duration(short) > wait {
				tier, wait = r.Tier, time.Duration(short)
			}
		}
		l.due = append(l.due, c)
	}
	if wait > 0 {
		return tier, wait, false
	}
	l.charge(at)
	return "", 0, true
}

// charge charges what is due. It needs mu.
func (l *Limiter) charge(at int64) {
	for _, c := range l.due {
		if c.full != nil {
			*c.full = c.tier.add(c.from, c.tier.gap)
		}
	}
	for _, c := range l.due { // last, since it moves slots
		if c.full == nil {
			l.insert(slot{c.key, c.tier.add(c.from, c.tier.gap)})
		}
	}
}

// names reports whether t is for the endpoint that r is for.
func (r *tier) names(t *Traffic) bool {
	return t.Method == r.method && (r.name == "" || t.Name == r.name)
}

type identity struct {
	hi, lo uint64
	counts bool
}

// identify returns whose buckets t is charged to, by scope.
func (l *Limiter) identify(t *Traffic) (ids [scopes]identity) {
	if l.uses[perIP] && t.IP.IsValid() {
		ip := t.IP.Unmap()
		b := ip.As16()
		ids[perIP] = identity{hi: binary.BigEndian.Uint64(b[:8]), counts: true}
		if ip.Is4() { // ::ffff:a.b.c.d, which is not in ::/64 as lo is 0 there
			ids[perIP].lo = binary.BigEndian.Uint64(b[8:])
		}
	}
	if l.uses[perUser] && t.User != "" {
		ids[perUser] = identity{hi: maphash.String(l.seed, t.User), counts: true}
	}
	if l.uses[perSession] && t.Session != "" {
		ids[perSession] = identity{hi: maphash.String(l.seed, t.Session), counts: true}
	}
	if l.uses[perEndpoint] && t.Method != "" {
		id := identity{hi: maphash.String(l.seed, t.Method), counts: true}
		switch t.Method {
		case "tools/call", "prompts/get", "resources/read", "resources/subscribe", "resources/unsubscribe":
			id.lo = maphash.String(l.seed, t.Name)
		}
		ids[perEndpoint] = id
	}
	return ids
}

// clock sets the clock to now and returns it. It never goes back. It needs mu.
func (l *Limiter) clock(now time.Time) int64 {
	switch at := int64(now.Sub(l.base)); {
	case at < l.at-int64(clockJitter):
		l.base = now.Add(-time.Duration(l.at))
	case at > 1<<62: // on the first call, or after 146 years: the clock starts anew before it overflows
		for i := range l.slots {
			l.slots[i].full.ns = max(l.slots[i].full.ns-at, -1)
		}
		for i := range l.tiers {
			l.tiers[i].one.ns = max(l.tiers[i].one.ns-at, -1)
		}
		l.base, l.at = now, 0
	case at > l.at:
		l.at = at
	}
	return l.at
}

// sweep drops the full buckets among the next few. It needs mu.
func (l *Limiter) sweep(at int64) {
	for range min(sweepStep, len(l.slots)) {
		if l.hand >= len(l.slots) {
			l.hand = 0
		}
		if l.slots[l.hand].full.later(stamp{ns: at}) {
			l.hand++
			continue
		}
		last := len(l.slots) - 1
		delete(l.index, l.slots[l.hand].key)
		if l.hand != last {
			l.slots[l.hand] = l.slots[last]
			l.index[l.slots[l.hand].key] = l.hand
		}
		l.slots = l.slots[:last]
	}
}

// insert puts s into the table, in place of another if there is no room. It needs mu.
func (l *Limiter) insert(s slot) {
	if len(l.slots) < maxBuckets {
		l.index[s.key] = len(l.slots)
		l.slots = append(l.slots, s)
		return
	}
	soonest := l.turn
	for range sweepStep {
		if l.slots[l.turn].full.ns < l.slots[soonest].full.ns {
			soonest = l.turn
		}
		l.turn = (l.turn + 1) % maxBuckets
	}
	delete(l.index, l.slots[soonest].key)
	l.slots[soonest] = s
	l.index[s.key] = soonest
}

// limitInterceptor refuses calls and notifications to the server that are over a limit, with this
// HTTP status. With report set it lets them pass and logs what it would have refused.
func limitInterceptor(l *Limiter, status int, report bool, log *slog.Logger) Interceptor {
	return func(_ context.Context, s *Session, m *Message) (*Message, error) {
		if m.Dir != ToServer || m.Kind != Call && m.Kind != Notification {
			return m, nil
		}
		t := Traffic{Session: s.ID(), User: s.User, Method: m.Method, Name: cmp.Or(m.Name, m.URI)}
		if m.Origin != nil {
			t.IP = m.Origin.IP
		}
		tier, wait, ok := l.Take(time.Now(), t)
		if ok {
			return m, nil
		}
		if report {
			log.Info("limit would refuse", "tier", tier, "method", m.Method, "name", t.Name, "user", t.User)
			return m, nil
		}
		return nil, &Error{Code: 429, Status: status, Text: "rate limit exceeded", Tier: tier, RetryAfter: wait}
	}
}
