// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"strings"
	"testing"
)

// Where a rule changed the client's answer, what went to the server is what a replay compares, whose rules change it again,
// and what verify says.
func TestReplayAnswerChanged(t *testing.T) {
	k := &tapeScript{session: 1}
	call := k.call(replayCall(`1`, "ask", `{}`))
	ask := k.says(call, `{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"message":"?"}}`)
	was := k.answer(call, ask, `{"jsonrpc":"2.0","id":1,"result":{"action":"accept"}}`)
	k.add(Entry{Dir: dirToServer, X: call, Re: ask, Was: was, Rule: "r", Msg: `{"jsonrpc":"2.0","id":1,"result":{"action":"decline"}}`})
	k.reply(call, replayAnswer(`1`, "thanks"))
	replaying(t, k.tape(), PlayerOptions{Order: orderStrict}, func(g *replayRig) {
		c := g.open(false)
		c.asks(replayCall(`5`, "ask", `{}`), replayElicit(`"tape-1"`))
		c.asks(`{"jsonrpc":"2.0","id":"tape-1","result":{"action":"decline"}}`, replayAnswer(`5`, "thanks"))
		g.reports(true)
	})
	x, err := newVerifyIndex(namedTape{"t.jsonl", strings.NewReader(k.tape())}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	m, err := x.tape.message(x.asked[ask].answer)
	if err != nil || m.Result != `{"action":"decline"}` {
		t.Errorf("got %+v, %v of verify, want the changed answer", m, err)
	}
}
