// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

const ruleSlow = `{"when": {"tool": "slow", "dir": "to-server"}, "delay": "2s"}`

// What is delayed holds up no other message.
func TestRuleDelayHoldsUpNoOther(t *testing.T) {
	note := `{"jsonrpc":"2.0","method":"notifications/x","params":{}}`
	rules := ruleSlow + `, {"when": {"method": "notifications/x"}, "delay": "3s"}, {"when": {"tool": "late", "dir": "to-client"}, "delay": "2s"}`
	ruleTalks(t, rules, talkLegacy, func(w *talk) {
		c, began := w.dial(), time.Now()
		at := func(want time.Duration) {
			t.Helper()
			if d := time.Since(began).Truncate(100 * time.Millisecond); d != want {
				t.Errorf("got it after %s, want %s", d, want)
			}
		}
		slow, fast, late := replayCall("1", "slow", `{}`), replayCall("2", "fast", `{}`), replayCall("3", "late", `{}`)
		c.say(slow)
		if c.in != nil { // over HTTP, say waits until it is taken
			c.say(note)
		}
		c.say(late)
		w.gets(late).result(`"late"`)
		synctest.Wait()
		c.say(fast)
		w.gets(fast).result(`"fast"`)
		c.hears(talkResult("2", `"fast"`))
		at(0)
		w.push(note)
		c.hears(talkResult("3", `"late"`))
		at(2 * time.Second)
		w.gets(slow).result(`"slow"`)
		c.hears(talkResult("1", `"slow"`))
		at(2 * time.Second)
		if c.in != nil {
			w.gets(note)
		}
		c.hears(note)
		at(3 * time.Second)
	})
}

// A call that is cancelled while it is held never goes anywhere.
func TestRuleDelayCancelled(t *testing.T) {
	ruleTalks(t, ruleSlow, talkLegacy, func(w *talk) {
		c := w.dial()
		post := c.say(replayCall("1", "slow", `{}`))
		synctest.Wait()
		c.say(talkCancelled("1"))
		w.gets(talkCancelled("1"))
		if post != nil {
			post.wait(c)
		}
		<-time.After(5 * time.Second)
		w.silent()
		c.silent()
		c.works()
	})
}

// A client that goes away takes what is held with it, in 2026-07-28.
func TestRuleDelayClientGoes(t *testing.T) {
	ruleTalks(t, `{"when": {"tool": "t", "dir": "to-server"}, "delay": "2s"}`, func(w *talk) bool { return talkModern(w) && talkWeb(w) }, func(w *talk) {
		c := w.dial()
		post := c.say(w.call("1", `{}`, ""))
		synctest.Wait()
		post.cancel()
		post.wait(c)
		<-time.After(5 * time.Second)
		w.silent()
	})
	ruleTalks(t, `{"when": {"tool": "t", "dir": "to-client", "first": 1}, "delay": "1h"}`, func(w *talk) bool { return talkModern(w) && talkWeb(w) }, func(w *talk) {
		w.bounds.Sessions = 1
		c, began := w.dial(), time.Now()
		call := w.call("1", `{}`, "")
		post := c.say(call)
		w.gets(call).result(`{}`)
		synctest.Wait()
		post.cancel()
		post.wait(c)
		synctest.Wait()
		if c.works(); time.Since(began) != 0 { // what is held no longer counts as a session
			t.Errorf("got the next answer after %s", time.Since(began))
		}
	})
}

// At the end of its input a client is still owed what is held.
func TestRuleDelayAtTheEnd(t *testing.T) {
	note := `{"jsonrpc":"2.0","method":"notifications/x"}`
	rules := ruleSlow + `, {"when": {"method": "notifications/x"}, "delay": "3s"}, {"when": {"tool": "slow", "dir": "to-client"}, "delay": "2s"}`
	ruleTalks(t, rules, func(w *talk) bool { return talkLegacy(w) && talkPipes(w) }, func(w *talk) {
		c := w.dial()
		c.say(replayCall("1", "slow", `{}`))
		c.say(note)
		c.in.Close()
		w.gets(replayCall("1", "slow", `{}`)).result(`{}`)
		w.gets(note)
		c.hears(talkResult("1", `{}`))
		if err := <-c.exit; err != nil {
			t.Errorf("got error %v, want none", err)
		}
	})
}

// A session that ends answers the call that is held, and leaves nothing running.
func TestRuleDelaySessionEnds(t *testing.T) {
	rules := `{"when": {"tool": "slow"}, "delay": "1h"}`
	ruleTalks(t, rules, func(w *talk) bool { return talkLegacy(w) && talkCommand(w) }, func(w *talk) {
		w.bounds.CallTimeout = 0
		c := w.dial()
		c.say(replayCall("1", "slow", `{}`))
		synctest.Wait()
		w.processes[len(w.processes)-1].exit("exit status 3")
		if exit := c.refused("1", 502); exit != "exit status 3" {
			t.Errorf("got exit %q", exit)
		}
	})
	ruleTalks(t, rules, talkLegacy, func(w *talk) { // and a client that leaves while something is held
		c, began := w.dial(), time.Now()
		c.say(replayCall("1", "slow", `{}`))
		synctest.Wait()
		if c.in != nil {
			c.refused("1", 504)
			w.gets(leaveCancelled(w, "")[0])
			synctest.Wait()
			c.in.Close()
			if <-c.exit; time.Since(began) != 10*time.Second {
				t.Errorf("got the end after %s, want it with the call's time", time.Since(began))
			}
		}
	})
	ruleTalks(t, rules, talkLegacy, func(w *talk) { // and one whose proxy is interrupted
		if w.bounds.CallTimeout = 0; w.client == "stdio" {
			c := w.dial()
			c.say(replayCall("1", "slow", `{}`))
			synctest.Wait()
			c.interrupt()
			c.refused("1", 503)
		}
	})
}

// What is held of calls that are over is no longer among those that may be held.
func TestRuleDelayCancelledMany(t *testing.T) {
	talkTest(t, &talk{client: "stdio", server: "stdio", rules: `{"when": {"tool": "slow"}, "delay": "1h"}`}, func(w *talk) {
		c, began := w.dial(), time.Now()
		for i := range maxHeld + 2 {
			id := strconv.Itoa(i)
			c.say(replayCall(id, "slow", `{}`))
			c.say(talkCancelled(id))
			w.gets(talkCancelled(id))
		}
		if c.works(); time.Since(began) != 0 {
			t.Errorf("got an answer after %s, want it at once", time.Since(began))
		}
	})
}

// More than can be held hold up those behind them, and none is lost or sent before its time.
func TestRuleDelayTooMany(t *testing.T) {
	w := &talk{client: "stdio", server: "stdio", rules: `{"when": {"method": "notifications/x", "dir": "to-server"}, "delay": "2s"}`}
	talkTest(t, w, func(w *talk) {
		c, began := w.dial(), time.Now()
		go func() {
			for i := range maxHeld + 2 {
				c.say(fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/x","params":{"i":%d}}`, i))
			}
		}()
		for i := range maxHeld + 2 {
			w.next()
			want := 2 * time.Second // the last but one too, for which the reader waits
			if i == maxHeld+1 {
				want = 4 * time.Second // it was read after that
			}
			if d := time.Since(began); d != want {
				t.Fatalf("got message %d after %s, want %s", i+1, d, want)
			}
		}
	})
}

// Progress that is held comes before the response that ends its stream, and in its order.
func TestRuleDelayedProgress(t *testing.T) {
	for _, rules := range []string{
		`{"when": {"method": "notifications/progress"}, "delay": "2s"}`,
		`{"when": {"method": "notifications/progress"}, "delay": "2s"}, {"when": {"dir": "to-client", "tool": "t"}, "delay": "1s"}`,
	} {
		ruleTalks(t, rules, ruleEverywhere, func(w *talk) {
			c := w.dial()
			call := w.call("1", `{}`, `"p"`)
			post := c.say(call)
			h := w.gets(call)
			h.say(talkProgress(h.token(), "1"))
			h.say(talkProgress(h.token(), "2"))
			h.result(`{}`)
			if c.in != nil {
				got := map[string]bool{c.next(): true, c.next(): true, c.next(): true}
				if !got[talkProgress(`"p"`, "1")] || !got[talkProgress(`"p"`, "2")] || !got[talkResult("1", `{}`)] {
					t.Errorf("got %v", got)
				}
				return
			}
			c.hears(talkProgress(`"p"`, "1"))
			c.hears(talkProgress(`"p"`, "2"))
			c.hears(talkResult("1", `{}`))
			if post.wait(c); post.err != nil {
				t.Errorf("got error %v", post.err)
			}
		})
	}
}

// A delay may be longer than peers over HTTP have to read and to write.
func TestRuleDelayLong(t *testing.T) {
	for _, dir := range []string{"to-server", "to-client"} {
		ruleTalks(t, `{"when": {"tool": "t", "dir": "`+dir+`"}, "delay": "10m"}`, ruleEverywhere, func(w *talk) {
			w.bounds.CallTimeout = time.Hour
			c, began, call := w.dial(), time.Now(), w.call("1", `{}`, "")
			c.say(call)
			w.gets(call).result(`{}`)
			c.hears(talkResult("1", `{}`))
			if d := time.Since(began).Truncate(time.Second); d != 10*time.Minute {
				t.Errorf("%s: got it after %s, want 10m", dir, d)
			}
		})
	}
}

// In a batch too a message that is held holds up no other.
func TestRuleDelayInBatch(t *testing.T) {
	ruleTalks(t, ruleSlow, func(w *talk) bool { return talkLegacy(w) && !(talkWeb(w) && w.overHTTP()) }, func(w *talk) {
		w.revision = batchRevision
		c, began := w.dial(), time.Now()
		slow, fast := replayCall("1", "slow", `{}`), replayCall("2", "fast", `{}`)
		post := c.do1("[" + slow + "," + fast + "]")
		w.gets(fast).result(`{}`)
		c.hears(talkResult("2", `{}`))
		if d := time.Since(began).Truncate(100 * time.Millisecond); d != 0 {
			t.Errorf("got the other one after %s", d)
		}
		w.gets(slow).result(`{}`)
		c.hears(talkResult("1", `{}`))
		if post != nil {
			post.wait(c)
		}
	})
}

// What belongs to no call, and what a client on stdio hears, is not held up by what is held before it.
func TestRuleDelayWithinAndOutside(t *testing.T) {
	rules := `{"when": {"method": ["notifications/x", "notifications/progress"], "dir": "to-client"}, "delay": "2s"}`
	note := func(method string) string { return `{"jsonrpc":"2.0","method":"notifications/` + method + `"}` }
	ruleTalks(t, rules, talkLegacy, func(w *talk) {
		c, began := w.dial(), time.Now()
		w.push(note("x"))
		w.push(note("y"))
		w.push(talkQuestion)
		c.hears(note("y"))
		c.hears(talkQuestion)
		if d := time.Since(began).Truncate(100 * time.Millisecond); d != 0 {
			t.Errorf("got the others after %s", d)
		}
		c.hears(note("x"))
		c.say(talkResult("1", `{}`))
		w.gets(talkResult("1", `{}`))
		if talkWeb(w) && w.overHTTP() {
			return // what is in one response over HTTP keeps its order
		}
		began = time.Now()
		call := w.call("1", `{}`, `"p"`)
		c.say(call)
		h := w.gets(call)
		h.say(talkProgress(`"p"`, "1"))
		h.say(talkQuestion)
		c.hears(talkQuestion)
		if d := time.Since(began).Truncate(100 * time.Millisecond); d != 0 {
			t.Errorf("got the question after %s", d)
		}
		c.say(talkResult("1", `{}`))
		w.gets(talkResult("1", `{}`))
		c.hears(talkProgress(`"p"`, "1"))
		h.result(`{}`)
		c.hears(talkResult("1", `{}`))
	})
}
