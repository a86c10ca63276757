// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

const (
	maxBuckets   = 100_000       // in a Limiter's table
	sweepStep    = 8             // slots looked at for each new bucket
	maxCalls     = 1_000_000_000 // in a rate, per unit, and in a burst
	limitExample = "for example ip=100/m:20 or tools/call:search=1/m"
)

// A Limit allows Calls in each Period on average, and Burst of them at once. [ParseLimit] makes it.
type Limit struct {
	Tier   string        // as the user wrote it, before the last '='
	Calls  int64         // in each Period; the two have no common factor
	Period time.Duration // more than 0; Burst times Period fits in 64 bits
	Burst  int64         // at least 1
}

// ParseLimit reads TIER=RATE[:BURST]. The last '=' ends TIER, which is global, ip, user, session,
// endpoint, METHOD (all its names together) or METHOD:NAME. RATE is a whole number and a unit, /s /m
// /h /d. BURST defaults to that number: 100/m lets 100 calls come at once, then one each 0.6 s. The
// same tier may be limited more than once (5/s and 100/h). The error does not repeat s.
func ParseLimit(s string) (Limit, error) {
	at := strings.LastIndexByte(s, '=')
	rate, burst, hasBurst := strings.Cut(s[at+1:], ":")
	number, unit, _ := strings.Cut(rate, "/")
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	l := Limit{Tier: s[:max(at, 0)], Calls: callCount(number), Period: units[unit]}
	if l.Burst = l.Calls; hasBurst {
		l.Burst = callCount(burst)
	}
	a, b := max(l.Calls, 1), int64(l.Period)
	for b != 0 {
		a, b = b, a%b
	}
	l.Calls, l.Period = l.Calls/a, l.Period/time.Duration(a)
	var err error
	switch {
	case at < 0:
		err = errors.New("no '=' between tier and rate")
	case !l.validTier():
		err = fmt.Errorf("tier %q is none of global, ip, user, session, endpoint, METHOD, METHOD:NAME", l.Tier)
	case l.Period == 0:
		err = fmt.Errorf("rate %q does not end in /s, /m, /h or /d", rate)
	case l.Calls == 0:
		err = fmt.Errorf("rate %q: %q is no whole number from 1 to %d", rate, number, maxCalls)
	case l.Burst == 0:
		err = fmt.Errorf("burst %q is no whole number from 1 to %d", burst, maxCalls)
	case l.Burst > math.MaxInt64/int64(l.Period):
		err = fmt.Errorf("burst %d is too large to count at this rate: give a smaller one after ':'", l.Burst)
	default:
		return l, nil
	}
	return Limit{}, fmt.Errorf("%v, %s", err, limitExample)
}

// String is l as ParseLimit reads it.
func (l Limit) String() string {
	text := ""
	for _, unit := range []struct {
		time.Duration
		name string
	}{{time.Second, "s"}, {time.Minute, "m"}, {time.Hour, "h"}, {24 * time.Hour, "d"}} {
		number := l.Calls * int64(unit.Duration/l.Period)
		switch {
		case unit.Duration%l.Period != 0:
		case number == l.Burst:
			return fmt.Sprintf("%s=%d/%s", l.Tier, number, unit.name)
		case text == "":
			text = fmt.Sprintf("%s=%d/%s:%d", l.Tier, number, unit.name, l.Burst)
		}
	}
	return text
}

// callCount returns 0 if s is no number of calls.
func callCount(s string) int64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxCalls {
		return 0
	}
	return int64(n)
}

// validTier asks for a '/' in a METHOD, or a misspelt tier would be one.
func (l Limit) validTier() bool {
	switch l.Tier {
	case "global", "ip", "user", "session", "endpoint":
		return true
	}
	method, name, named := strings.Cut(l.Tier, ":")
	return (strings.Contains(method, "/") || method == methodInitialize || method == "ping") &&
		!strings.ContainsFunc(method, unicode.IsSpace) && named == (name != "")
}

// Traffic is what a message counts as. A zero field is not counted.
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
// A full bucket is the same as none: each new one looks at the next 8 slots of the table in turn and
// drops the full ones. Refused calls leave no trace. If all of 100,000 are in use, a new one displaces,
// of those 8, the one soonest full. So a host attacked from everywhere still serves newcomers, and a
// bucket's turn comes once in 12,500 new ones, each of which took a call that all limits let pass. The
// buckets of global and of endpoints by name are outside the table: they are what holds then.
type Limiter struct {
	seed  maphash.Seed
	mu    sync.Mutex // protects following
	tiers []tier     // only the field one of each changes
	base  time.Time  // of the first call
	now   int64      // nanoseconds from base to the latest call; never goes backwards
	index map[key]*bucket
	slots []slot // of index, in no order
	hand  int    // the slot whose turn is next
	due   []slot // room for Take
}

// A tier is a limit made ready.
type tier struct {
	Limit
	method, name string // of METHOD:NAME
	one          bucket // of global, METHOD and METHOD:NAME
}

// A bucket counts in parts of a call, so that 3/s is exact: a call is Period parts, and each
// nanosecond gives back Calls of them. The zero value is a full bucket.
type bucket struct {
	debt int64 // parts that were missing
	at   int64 // at this time
}

// owed returns how many parts are missing in b now; nil is full.
func (r *tier) owed(b *bucket, now int64) int64 {
	if b == nil || now-b.at > b.debt/r.Calls {
		return 0
	}
	return b.debt - (now-b.at)*r.Calls
}

// A key names a bucket in the table. Texts are hashed, or a client could fill the memory with them.
type key struct {
	tier int
	who  uint64
}

type slot struct {
	key
	*bucket // nil if there is none yet
}

// NewLimiter returns a Limiter with full buckets. The limits must come from [ParseLimit].
func NewLimiter(limits []Limit) *Limiter {
	l := &Limiter{seed: maphash.MakeSeed(), index: make(map[key]*bucket), due: make([]slot, 0, len(limits))}
	for _, limit := range limits {
		method, name, _ := strings.Cut(limit.Tier, ":")
		l.tiers = append(l.tiers, tier{Limit: limit, method: method, name: name})
	}
	return l
}

// Take charges t to all limits that apply, or to none. If some are short it returns the tier that is
// short for longest, as the user wrote it, how long that is, and false: at now+wait the call would
// pass, if no other came before it. A time before an earlier call's counts as that one's.
func (l *Limiter) Take(now time.Time, t Traffic) (tier string, wait time.Duration, ok bool) {
	short, wait := l.take(now, t)
	if short == nil {
		return "", 0, true
	}
	return short.Tier, wait, false
}

// take is [Limiter.Take]; short is nil if t passes.
func (l *Limiter) take(now time.Time, t Traffic) (short *tier, wait time.Duration) {
	if len(l.tiers) == 0 {
		return nil, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.base.IsZero() {
		l.base = now
	}
	l.now = max(l.now, int64(now.Sub(l.base)))
	l.due = l.due[:0]
	for i := range l.tiers {
		r := &l.tiers[i]
		c, counts := l.find(i, &t)
		if !counts {
			continue
		}
		if over := r.owed(c.bucket, l.now) - (r.Burst-1)*int64(r.Period); over > 0 {
			if missing := time.Duration((over-1)/r.Calls + 1); missing > wait { // rounded up
				short, wait = r, missing
			}
		}
		l.due = append(l.due, c)
	}
	if short != nil {
		return short, wait
	}
	for _, c := range l.due {
		if c.bucket == nil {
			c.bucket = new(bucket)
			l.insert(c)
		}
		r := &l.tiers[c.tier]
		*c.bucket = bucket{r.owed(c.bucket, l.now) + int64(r.Period), l.now}
	}
	return nil, 0
}

// find returns what tier i would charge t to, and whether it counts t. It needs mu.
func (l *Limiter) find(i int, t *Traffic) (c slot, counts bool) {
	r, id := &l.tiers[i], [2]string{}
	switch r.Tier {
	case "global":
		c.bucket = &r.one
	case "ip":
		ip := t.IP.Unmap()
		if p, _ := ip.Prefix(min(ip.BitLen(), 64)); p.IsValid() {
			c.who = maphash.Comparable(l.seed, p)
		}
	case "user":
		id[0] = t.User
	case "session":
		id[0] = t.Session
	case "endpoint":
		id[0] = t.Method
		switch t.Method { // by a name that means nothing a client would get a full bucket for each call
		case "tools/call", "prompts/get", "resources/read", "resources/subscribe", "resources/unsubscribe":
			id[1] = t.Name
		}
	default:
		if t.Method == r.method && (r.name == "" || t.Name == r.name) {
			c.bucket = &r.one
		}
	}
	if id[0] != "" {
		c.who = maphash.Comparable(l.seed, id)
	}
	c.tier = i
	if c.who != 0 {
		c.bucket = l.index[c.key]
	}
	return c, c.bucket != nil || c.who != 0
}

// insert puts s into the table. It drops the full buckets among the next few, or displaces the one
// soonest full if there is no room. It needs mu.
func (l *Limiter) insert(s slot) {
	soonest, least := 0, int64(math.MaxInt64)
	for n := 0; n < min(sweepStep, len(l.slots)); n++ {
		l.hand %= len(l.slots)
		next, last := &l.slots[l.hand], len(l.slots)-1
		r := &l.tiers[next.tier]
		if owed := r.owed(next.bucket, l.now); owed == 0 {
			delete(l.index, next.key)
			*next, l.slots = l.slots[last], l.slots[:last]
		} else {
			if left := owed / r.Calls; left < least {
				soonest, least = l.hand, left
			}
			l.hand++
		}
	}
	if len(l.slots) < maxBuckets {
		l.slots = append(l.slots, s)
	} else {
		delete(l.index, l.slots[soonest].key)
		l.slots[soonest] = s
	}
	l.index[s.key] = s.bucket
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
		} else {
			t.Session = "-" // the only one there is
		}
		tier, wait, ok := l.Take(time.Now(), t)
		if ok {
			return m, nil
		}
		if report {
			log.Info("limit would refuse", "tier", tier, "method", m.Method, "name", t.Name, "user", t.User)
			return m, nil
		}
		e := overLimit(tier, wait)
		e.Status = status
		return nil, e
	}
}

// overLimit refuses what is over a limit.
func overLimit(tier string, wait time.Duration) *Error {
	return &Error{Code: 429, Text: "rate limit exceeded", Tier: tier, RetryAfter: wait}
}
