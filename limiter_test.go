// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func limiterOf(t testing.TB, limits ...string) *Limiter {
	t.Helper()
	var list []Limit
	for _, s := range limits {
		limit, err := ParseLimit(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, limit)
	}
	return NewLimiter(list)
}

func limiterEpoch() time.Time { return time.Date(2026, 7, 28, 0, 0, 0, 0, time.UTC) }

// limiterAddr returns the first address of the n-th IPv6 /64.
func limiterAddr(n int) netip.Addr {
	b := [16]byte{0x20, 0x01}
	binary.BigEndian.PutUint32(b[4:], uint32(n))
	return netip.AddrFrom16(b)
}

func TestParseLimit(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		in   string
		want Limit
	}{
		{"global=1000/s:200", Limit{"global", 1, time.Millisecond, 200}},
		{"ip=100/m:20", Limit{"ip", 1, 600 * time.Millisecond, 20}},
		{"ip=100/m", Limit{"ip", 1, 600 * time.Millisecond, 100}},
		{"user=7/s", Limit{"user", 7, time.Second, 7}},
		{"session=30/m", Limit{"session", 1, 2 * time.Second, 30}},
		{"tools/list=7/d:1", Limit{"tools/list", 7, day, 1}},
		{"initialize=999999999/h:9", Limit{"initialize", 111111111, 400 * time.Second, 9}},
		{"tools/call:search=1/m", Limit{"tools/call:search", 1, time.Minute, 1}},
		{"tools/call:a=b c=1/m:3", Limit{"tools/call:a=b c", 1, time.Minute, 3}},
		{"resources/read:file:///x?a=1=1/h", Limit{"resources/read:file:///x?a=1", 1, time.Hour, 1}},
		{"ping=1000000000/s:1000000000", Limit{"ping", 1, 1, 1000000000}},
	} {
		if got, err := ParseLimit(c.in); err != nil || got != c.want {
			t.Errorf("ParseLimit(%q): got %+v, %v, want %+v", c.in, got, err, c.want)
		}
	}
}

func TestParseLimitErrors(t *testing.T) {
	for want, ins := range map[string][]string{
		"no '='":                         {"", "global"},
		"is none of":                     {"=1/s", "usr=1/s", "Global=1/s", "global =1/s", "global:x=1/s", "tools/list =1/s", "tools/call:=1/s"},
		`rate "b" does not end in`:       {"tools/call:a=b"},
		"does not end in":                {"ip=", "ip=5", "ip=5/w", "ip=5/s/m", "ip=5/S"},
		`rate "/s": "" is no whole`:      {"ip=/s"},
		"is no whole number from 1 to 1": {"ip= 5/s", "ip=-1/s", "ip=.5/s", "ip=5./s", "ip=0.5/s", "ip=+1/s", "ip=1e3/s", "ip=0/s", "ip=1000000001/s", "ip=99999999999999999999/s"},
		`burst "" is no whole`:           {"ip=5/s:"},
		"is no whole number from 1":      {"ip=5/s:0", "ip=5/s:1.5", "ip=5/s:1000000001", "ip=5/s:99999999999"},
		"too large to count":             {"ip=1/d:106752", "ip=123457/d"},
	} {
		for _, in := range ins {
			_, err := ParseLimit(in)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), limitExample) {
				t.Errorf("ParseLimit(%q): got %v, want %q and an example", in, err, want)
			}
		}
	}
}

type limiterStep struct {
	at   time.Duration
	t    Traffic
	ok   bool
	tier string
	wait time.Duration
}

type limiterScript struct {
	name, limits string
	steps        []limiterStep
}

func (c limiterScript) run(t *testing.T) {
	l := limiterOf(t, strings.Fields(c.limits)...)
	for i, p := range c.steps {
		if tier, wait, ok := l.Take(limiterEpoch().Add(p.at), p.t); tier != p.tier || wait != p.wait || ok != p.ok {
			t.Errorf("%s: step %d: got %q, %v, %v, want %q, %v, %v", c.name, i, tier, wait, ok, p.tier, p.wait, p.ok)
		}
	}
}

func TestTakeRates(t *testing.T) {
	const s, ms, yes, no = time.Second, time.Millisecond, true, false
	user := func(s string) Traffic { return Traffic{User: s} }
	for _, c := range []limiterScript{
		{"burst, then the rate", "global=2/s:3", []limiterStep{
			{0, Traffic{}, yes, "", 0}, {0, Traffic{}, yes, "", 0}, {0, Traffic{}, yes, "", 0},
			{0, Traffic{}, no, "global", 500 * ms}, {499 * ms, Traffic{}, no, "global", ms},
			{500 * ms, Traffic{}, yes, "", 0}, {500 * ms, Traffic{}, no, "global", 500 * ms},
			{9 * s, Traffic{}, yes, "", 0}, {9 * s, Traffic{}, yes, "", 0}, {9 * s, Traffic{}, yes, "", 0},
			{9 * s, Traffic{}, no, "global", 500 * ms}}},
		{"a third of a second", "global=3/s:1", []limiterStep{
			{0, Traffic{}, yes, "", 0}, {0, Traffic{}, no, "global", 333333334},
			{333333333, Traffic{}, no, "global", 1}, {333333334, Traffic{}, yes, "", 0}}},
		{"callers that race", "global=1/s", []limiterStep{
			{10 * s, Traffic{}, yes, "", 0}, {9500 * ms, Traffic{}, no, "global", s}, {10900 * ms, Traffic{}, no, "global", 100 * ms},
			{10 * s, Traffic{}, no, "global", 100 * ms}, {11 * s, Traffic{}, yes, "", 0}}},
		{"centuries", "user=1/d global=1/d:2", []limiterStep{
			{0, user("a"), yes, "", 0}, {1<<63 - 1, user("a"), yes, "", 0}, {1<<63 - 1, user("a"), no, "user", 24 * time.Hour}}},
	} {
		c.run(t)
	}
	for _, l := range []*Limiter{new(Limiter), NewLimiter(nil)} {
		if _, _, ok := l.Take(limiterEpoch(), user("a")); !ok {
			t.Error("no limits: got a refusal, want none")
		}
	}
}

func TestTakeTiers(t *testing.T) {
	const s, ms, yes, no = time.Second, time.Millisecond, true, false
	ip := func(s string) Traffic { return Traffic{IP: netip.MustParseAddr(s)} }
	user := func(s string) Traffic { return Traffic{User: s} }
	call := func(name string) Traffic { return Traffic{Method: "tools/call", Name: name} }
	list := func(name string) Traffic { return Traffic{Method: "tools/list", Name: name} }
	for _, c := range []limiterScript{
		{"IPv6 by /64, IPv4 by address", "ip=1/s", []limiterStep{
			{0, ip("2001:db8::1"), yes, "", 0}, {0, ip("2001:db8::ffff:2"), no, "ip", s},
			{0, ip("2001:db8:0:1::1"), yes, "", 0}, {0, ip("2001:db8:0:0:ffff::%eth0"), no, "ip", s},
			{0, ip("10.0.0.1"), yes, "", 0}, {0, ip("10.0.0.2"), yes, "", 0}, {0, ip("::ffff:10.0.0.1"), no, "ip", s},
			{0, ip("::1"), yes, "", 0}, {0, ip("::"), no, "ip", s}}},
		{"zero fields are not counted", "ip=1/h user=1/h session=1/h endpoint=1/h tools/call=1/h", []limiterStep{
			{0, Traffic{}, yes, "", 0}, {0, Traffic{}, yes, "", 0}, {0, Traffic{Name: "x"}, yes, "", 0}}},
		{"users and sessions of one name are apart", "user=1/s session=1/s", []limiterStep{
			{0, user("a"), yes, "", 0}, {0, user("b"), yes, "", 0}, {0, user("a"), no, "user", s},
			{0, Traffic{Session: "a"}, yes, "", 0}, {0, Traffic{Session: "b"}, yes, "", 0}, {0, Traffic{Session: "a"}, no, "session", s}}},
		{"endpoints by name where they have one", "endpoint=1/s", []limiterStep{
			{0, call("a"), yes, "", 0}, {0, call("b"), yes, "", 0}, {0, call("a"), no, "endpoint", s},
			{0, Traffic{Method: "prompts/get", Name: "a"}, yes, "", 0},
			{0, list(""), yes, "", 0}, {0, list("a"), no, "endpoint", s}}},
		{"one endpoint", "tools/call:a=1/m tools/call=1/s:2", []limiterStep{
			{0, call("a"), yes, "", 0}, {0, call("a"), no, "tools/call:a", time.Minute},
			{0, call("b"), yes, "", 0}, {0, call("c"), no, "tools/call", s}, {0, list("a"), yes, "", 0}, {0, list("a"), yes, "", 0}}},
		{"the longest wait of all", "global=1/s user=1/m ip=1/h", []limiterStep{
			{0, Traffic{User: "a"}, yes, "", 0}, {0, Traffic{User: "a"}, no, "user", time.Minute},
			{0, ip("1.1.1.1"), no, "global", s}}},
		{"two limits of one tier", "user=2/s user=3/h:3", []limiterStep{
			{0, user("a"), yes, "", 0}, {0, user("a"), yes, "", 0}, {0, user("a"), no, "user", 500 * ms},
			{s, user("a"), yes, "", 0}, {s, user("a"), no, "user", 20*time.Minute - s}}},
		{"a refusal charges nothing", "global=1/h:2 user=1/s", []limiterStep{
			{0, user("a"), yes, "", 0}, {0, user("a"), no, "user", s}, {0, user("a"), no, "user", s},
			{0, user("b"), yes, "", 0}, {0, user("c"), no, "global", time.Hour}, {time.Hour, user("c"), yes, "", 0}}},
	} {
		c.run(t)
	}
}

// limiterModel is a token bucket in exact fractions.
type limiterModel struct {
	rate, tokens, burst *big.Rat // rate in tokens per nanosecond
}

func (m *limiterModel) pass(d time.Duration) {
	m.tokens.Add(m.tokens, new(big.Rat).Mul(m.rate, big.NewRat(int64(d), 1)))
	if m.tokens.Cmp(m.burst) > 0 {
		m.tokens.Set(m.burst)
	}
}

// take returns 0 after taking a token, or how long there will be none.
func (m *limiterModel) take() time.Duration {
	one := big.NewRat(1, 1)
	if m.tokens.Cmp(one) >= 0 {
		m.tokens.Sub(m.tokens, one)
		return 0
	}
	w := one.Sub(one, m.tokens)
	w.Quo(w, m.rate)
	n, rest := new(big.Int).DivMod(w.Num(), w.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	return time.Duration(n.Int64())
}

func TestTakeIsExact(t *testing.T) {
	for _, s := range []string{
		"global=1/h", "global=100000/s", "global=100000/s:1", "global=7/s", "global=7/s:1000", "global=3/m:2", "global=3/d",
		"global=999999/h:5", "global=1000000000/s:3", "global=999999937/s:1", "global=1/d", "global=1/d:3650", "global=86399/d:106751",
	} {
		limit, err := ParseLimit(s)
		if err != nil {
			t.Fatal(err)
		}
		l, r := NewLimiter([]Limit{limit}), rand.New(rand.NewPCG(1, 2))
		m := &limiterModel{big.NewRat(limit.Calls, int64(limit.Period)), big.NewRat(limit.Burst, 1), big.NewRat(limit.Burst, 1)}
		now, gap := limiterEpoch(), max(1, int64(limit.Period)/limit.Calls)
		for i := range 4000 {
			_, got, ok := l.Take(now, Traffic{})
			want := m.take()
			if got != want || ok != (want == 0) {
				t.Fatalf("%s: take %d: got %v, %v, want %v", s, i, got, ok, want)
			}
			var d time.Duration
			switch r.IntN(5) {
			case 0, 1: // at once
			case 2:
				d = time.Duration(r.Int64N(gap) + 1)
			case 3: // a nanosecond too early, or just in time
				d = max(0, got-time.Duration(r.IntN(2)))
			case 4:
				d = time.Duration(r.Int64N(4 * gap))
			}
			if i%1000 == 999 {
				d = 5 * time.Hour
			}
			now = now.Add(d)
			m.pass(d)
		}
	}
}

// A bucket that never fills up must give exactly its rate for hours, with no drift in the wait.
func TestTakeDoesNotDrift(t *testing.T) {
	for _, c := range []struct {
		limit       string
		step        time.Duration
		each, steps int
		wait        time.Duration
	}{
		{"global=7/s:8", time.Second, 7, 3 * 3600, 142857143},
		{"global=100000/s:20", 100 * time.Microsecond, 10, 20_000, 10 * time.Microsecond},
		{"global=100000/s:100001", time.Second, 100_000, 5, 10 * time.Microsecond},
		{"global=1/h", time.Hour, 1, 24 * 365, time.Hour}, {"global=7/h:8", time.Hour, 7, 24 * 365, 514285714286},
	} {
		l, now := limiterOf(t, c.limit), limiterEpoch()
		for ok := true; ok; {
			_, _, ok = l.Take(now, Traffic{})
		}
		for i := range c.steps {
			now = now.Add(c.step)
			for n := range c.each {
				if _, wait, ok := l.Take(now, Traffic{}); !ok {
					t.Fatalf("%s: step %d: got a refusal of call %d for %v, want none", c.limit, i, n, wait)
				}
			}
			if _, wait, ok := l.Take(now, Traffic{}); ok || wait != c.wait {
				t.Fatalf("%s: step %d: got %v, %v, want %v, false", c.limit, i, wait, ok, c.wait)
			}
		}
	}
}

// limiterCheck fails unless the table's index and slots agree and are within bounds.
func limiterCheck(t *testing.T, l *Limiter) {
	t.Helper()
	if len(l.index) != len(l.slots) || len(l.slots) > maxBuckets {
		t.Fatalf("table: got %d keys, %d slots, want as many of each, at most %d", len(l.index), len(l.slots), maxBuckets)
	}
	for i, s := range l.slots {
		if b := l.index[s.key]; b == nil || b != s.bucket {
			t.Fatalf("index of slot %d: got %p, want %p", i, b, s.bucket)
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	l, now := limiterOf(t, "ip=1/h", "global=1000000000/s:1000000"), limiterEpoch()
	for i := range 1_000_000 {
		if _, _, ok := l.Take(now, Traffic{IP: limiterAddr(i)}); !ok {
			t.Fatalf("new address %d: got a refusal, want none", i)
		}
		if i%250_000 == 0 {
			limiterCheck(t, l)
		}
	}
	limiterCheck(t, l)
	if _, _, ok := l.Take(now, Traffic{IP: limiterAddr(999_999)}); ok {
		t.Error("latest address again: got let through, want a refusal")
	}
	if _, _, ok := l.Take(now, Traffic{}); ok {
		t.Error("global after a million calls: got let through, want a refusal")
	}
	now = now.Add(time.Hour)                    // all are full again
	for i := range 2 * maxBuckets / sweepStep { // each drops up to 8
		l.Take(now, Traffic{IP: limiterAddr(2_000_000 + i)})
	}
	limiterCheck(t, l)
	if want := 2 * maxBuckets / sweepStep; len(l.slots) != want {
		t.Errorf("table after an hour: got %d buckets, want the %d in use", len(l.slots), want)
	}
}

// Buckets that fill up as fast as they come are dropped long before there are many.
func TestTableIsSwept(t *testing.T) {
	l, now := limiterOf(t, "ip=1/s", "user=1/s"), limiterEpoch()
	for i := range 100_000 {
		now = now.Add(time.Millisecond)
		l.Take(now, Traffic{IP: limiterAddr(i), User: limiterAddr(i).String()})
		if len(l.slots) > 4000 { // 2000 are in use
			t.Fatalf("after %d calls: got %d buckets, want at most 4000", i, len(l.slots))
		}
	}
	limiterCheck(t, l)
}

// Neither refused calls nor other clients' accepted ones displace a bucket before its turn.
func TestDisplacement(t *testing.T) {
	l, now := limiterOf(t, "ip=1/h"), limiterEpoch()
	for i := range maxBuckets {
		l.Take(now.Add(time.Duration(i)), Traffic{IP: limiterAddr(i)})
	}
	now = now.Add(maxBuckets)
	l.hand = 0
	for range 2 * maxBuckets / sweepStep {
		l.Take(now, Traffic{IP: limiterAddr(16)}) // is refused
	}
	for i, c := range []struct {
		addr int
		ok   bool
	}{{maxBuckets, true}, {1, false}, {7, false}, {8, false}, {0, true}, {9, false}, {8, true}, {15, false}} {
		if _, _, ok := l.Take(now, Traffic{IP: limiterAddr(c.addr)}); ok != c.ok {
			t.Errorf("step %d: address %d: got %v, want %v", i, c.addr, ok, c.ok)
		}
	}
	limiterCheck(t, l)
}

func TestTakeConcurrently(t *testing.T) {
	l, now := limiterOf(t, "global=1/h:1000", "ip=1/h:100", "endpoint=1/h:90"), limiterEpoch()
	var passed [20]atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20 * 60 {
				if _, _, ok := l.Take(now, Traffic{IP: limiterAddr(i % 20), Method: "x/" + string(rune('a'+i%20))}); ok {
					passed[i%20].Add(1)
				}
			}
		})
	}
	wg.Wait()
	sum := int64(0)
	for i := range passed {
		if n := passed[i].Load(); n > 90 {
			t.Errorf("address %d: got %d calls passed, want at most 90", i, n)
		}
		sum += passed[i].Load()
	}
	if sum != 1000 {
		t.Errorf("all: got %d calls passed, want 1000", sum)
	}
	limiterCheck(t, l)
}

func TestTakeAllocates(t *testing.T) {
	l, now := limiterOf(t, "global=9/s", "ip=9/s", "user=9/s", "session=9/s", "endpoint=9/s"), limiterEpoch()
	who := Traffic{limiterAddr(1), "ann", "s1", "tools/call", "search"}
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(50 * time.Millisecond)
		l.Take(now, who)
	}); n != 0 {
		t.Errorf("Take of known keys: got %v allocations, want 0", n)
	}
}

func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"global=1000/s:200", "ip=50/m", "tools/call:a=b=1/h", "resources/read:file:///x=325/d:7", "=", "ping=1/s:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		limit, err := ParseLimit(s)
		if err != nil {
			if limit != (Limit{}) || !strings.Contains(err.Error(), limitExample) {
				t.Fatalf("ParseLimit(%q): got %+v, %v, want a zero Limit and an example", s, limit, err)
			}
			return
		}
		if want := s[:strings.LastIndex(s, "=")]; limit.Tier != want {
			t.Fatalf("ParseLimit(%q): got tier %q, want %q", s, limit.Tier, want)
		}
		limit.Burst = min(limit.Burst, 100)
		l, now := NewLimiter([]Limit{limit}), limiterEpoch()
		method, name, _ := strings.Cut(limit.Tier, ":")
		who := Traffic{limiterAddr(1), "u", "s", method, name}
		for i := range limit.Burst {
			if _, _, ok := l.Take(now, who); !ok {
				t.Fatalf("%q: call %d of %d at once: got a refusal, want none", s, i, limit.Burst)
			}
		}
		tier, wait, ok := l.Take(now, who)
		if ok || wait <= 0 || tier != limit.Tier {
			t.Fatalf("%q: one more than burst: got %q, %v, %v, want a refusal", s, tier, wait, ok)
		}
		if _, early, _ := l.Take(now.Add(wait-1), who); early != 1 {
			t.Fatalf("%q: wait just before its end: got %v, want 1ns", s, early)
		}
		if _, _, ok := l.Take(now.Add(wait), who); !ok {
			t.Fatalf("%q: after %v: got a refusal, want none", s, wait)
		}
	})
}

// known: traffic a little over the rates, with bursts that outlast it, so that all buckets stay in
// the table. attack: each address is new and the table full.
func BenchmarkTake(b *testing.B) {
	const most = "=4000/s:1000000000"
	for name, ip := range map[string]string{"known": "ip=4/s:100000000", "attack": "ip=1/h"} {
		b.Run(name, func(b *testing.B) {
			l, now := limiterOf(b, "global"+most, ip, "user"+most, "session"+most, "endpoint"+most), limiterEpoch()
			who := Traffic{User: "ann", Session: "0123456789abcdef", Method: "tools/call", Name: "search"}
			addrs := map[string]int{"known": 1000, "attack": 1 << 30}[name]
			for i := range b.N {
				now = now.Add(200 * time.Microsecond)
				who.IP = limiterAddr(i % addrs)
				if _, _, ok := l.Take(now, who); !ok {
					b.Fatal("got a refusal, want none")
				}
			}
		})
	}
}
