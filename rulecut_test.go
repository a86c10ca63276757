// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import "testing"

// Where the connection breaks that carries a question of the server, or the answer to one, the server is told in the end.
func TestRuleCutQuestion(t *testing.T) {
	for _, dir := range []string{"to-client", "to-server"} {
		rules := `{"when": {"method": "sampling/createMessage", "dir": "` + dir + `"}, "fault": "disconnect"}`
		ruleTalks(t, rules, func(w *talk) bool { return talkLegacy(w) && talkWeb(w) }, func(w *talk) {
			c := w.dial()
			call := w.call("1", `{}`, "")
			post := c.say(call)
			h := w.gets(call)
			h.say(talkQuestion)
			if dir == "to-server" {
				c.hears(talkQuestion)
				c.say(talkResult("1", `{}`))
			} else {
				post.wait(c)
			}
			if h.result(`{}`); dir == "to-server" {
				c.hears(talkResult("1", `{}`))
			}
			w.gets(leaveRefuses(504, "call took too long")(nil, "")[0])
		})
	}
}
