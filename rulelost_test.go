// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// A call whose response is lost after a while runs out of time, and no other has its place in the book until then.
func TestRuleLostInFullBook(t *testing.T) {
	rules := `{"when": {"tool": "slow", "dir": "to-client"}, "fault": "drop"}, {"when": {"tool": "slow", "dir": "to-client"}, "delay": "1s"}`
	ruleTalks(t, rules, func(w *talk) bool { return talkLegacy(w) && talkCommand(w) }, func(w *talk) {
		w.bounds.Calls = 1
		c := w.dial()
		slow, fast := replayCall("1", "slow", `{}`), replayCall("2", "fast", `{}`)
		c.say(slow)
		w.gets(slow).result(`{}`)
		synctest.Wait()
		c.say(fast)
		c.refused("2", 503)
		c.refused("1", 504)
		w.next() // that it is cancelled
	})
}

// A session that ends answers also a call with something held, and one whose response is held.
func TestRuleDelayedSessionEnds(t *testing.T) {
	for _, what := range []string{`"method": "notifications/progress"`, `"tool": "t", "dir": "to-client"`} {
		ruleTalks(t, `{"when": {`+what+`}, "delay": "1h"}`, func(w *talk) bool { return talkLegacy(w) && talkCommand(w) }, func(w *talk) {
			w.bounds.CallTimeout = 0
			c := w.dial()
			call := w.call("1", `{}`, `"p"`)
			c.say(call)
			h := w.gets(call)
			if h.say(talkProgress(h.token(), "1")); what[1] == 't' {
				c.hears(talkProgress(`"p"`, "1"))
				h.result(`{}`)
			}
			synctest.Wait()
			w.processes[len(w.processes)-1].exit("exit status 3")
			if exit := c.refused("1", 502); exit != "exit status 3" {
				t.Errorf("got exit %q", exit)
			}
		})
	}
}

// A response that is held counts towards the time of its call, and its client may cancel that.
func TestRuleDelayedResponse(t *testing.T) {
	ruleTalks(t, `{"when": {"tool": "t", "dir": "to-client"}, "delay": "1h"}`, talkLegacy, func(w *talk) {
		c, began := w.dial(), time.Now()
		call := w.call("1", `{}`, "")
		c.say(call)
		w.gets(call).result(`{}`)
		c.refused("1", 504)
		if d := time.Since(began).Truncate(time.Second); d != w.bounds.CallTimeout {
			t.Errorf("got the answer after %s", d)
		}
		w.next() // that it is cancelled
		post := c.say(replayCall("2", "t", `{}`))
		w.gets(replayCall("2", "t", `{}`)).result(`{}`)
		synctest.Wait()
		c.say(talkCancelled("2"))
		w.gets(talkCancelled("2"))
		if post != nil {
			post.wait(c)
		}
		<-time.After(2 * time.Hour)
		c.silent()
	})
}

// The end of its input is not the end of what a client is owed, also if nothing but a response is held.
func TestRuleDelayedResponseAtTheEnd(t *testing.T) {
	rules := `{"when": {"tool": "slow", "dir": "to-client"}, "delay": "2s"}`
	ruleTalks(t, rules, func(w *talk) bool { return talkLegacy(w) && talkPipes(w) }, func(w *talk) {
		c := w.dial()
		c.say(replayCall("1", "slow", `{}`))
		h := w.gets(replayCall("1", "slow", `{}`))
		c.in.Close()
		synctest.Wait()
		h.result(`{}`)
		c.hears(talkResult("1", `{}`))
		if err := <-c.exit; err != nil {
			t.Errorf("got error %v, want none", err)
		}
	})
}
