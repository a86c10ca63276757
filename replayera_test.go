// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

const replayInfo = `"io.modelcontextprotocol/serverInfo":{"name":"s a","version":"9"}`

func TestReplayLegacyForStateless(t *testing.T) {
	k := &tapeScript{session: 1}
	k.handshake("a")
	k.exchange(frontCall(`1`, "tools/list"), `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","n":1.0}] , "nextCursor":"x"}}`)
	k.tools("a", `{}`, "a")
	k.exchange(replayCall(`1`, "meta", `{}`), `{"jsonrpc":"2.0","id":1,"result":{ "_meta":{"k":1e2},"content":[]}}`)
	k.exchange(replayCall(`1`, "bad", `{}`), frontError(`1`, `-32602`))
	k.exchange(strings.Replace(`{"jsonrpc":"2.0","id":9,"method":"server/discover","params":{`+replayMeta+`}}`, "2026-07-28", "2099-01-01", 1),
		frontError(`9`, `-32020`)) // which does not say that the server knows the revision
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		call := func(id, method string) string {
			return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{` + replayMeta + `}}`
		}
		for range 2 { // in any number, on stdio and over HTTP
			for _, transient := range []bool{false, true} {
				g.open(transient).asks(call(`1`, "server/discover"), `{"jsonrpc":"2.0","id":1,"result":{"_meta":{`+replayInfo+`},"resultType":"complete","ttlMs":0,"cacheScope":"private",`+
					`"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"instructions":"hi"}}`)
			}
		}
		c := g.open(false)
		c.asks(call(`2`, "tools/list"), `{"jsonrpc":"2.0","id":2,"result":{"_meta":{`+replayInfo+`},"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[{"name":"a","n":1.0}] , "nextCursor":"x"}}`)
		c.asks(replayModern(`"3"`, "a", `{}`), `{"jsonrpc":"2.0","id":"3","result":{"_meta":{`+replayInfo+`},"resultType":"complete","content":[{"type":"text","text":"a"}]}}`)
		c.asks(replayModern(`4`, "meta", `{}`), `{"jsonrpc":"2.0","id":4,"result":{"resultType":"complete","_meta":{`+replayInfo+`,"k":1e2},"content":[]}}`)
		c.asks(replayModern(`5`, "bad", `{}`), frontError(`5`, `-32602`))
		c.asks(call(`6`, "ping"), `{"jsonrpc":"2.0","id":6,"result":{"_meta":{`+replayInfo+`},"resultType":"complete"}}`)
		c.asks(strings.Replace(call(`7`, "tools/list"), "2026-07-28", "2099-01-01", 1),
			`{"jsonrpc":"2.0","id":7,"error":{"code":-32022,"message":"Unsupported protocol version","data":{"proxy":"mcpproxy","supported":["2026-07-28"],"requested":"2099-01-01"}}}`)
		g.reports(true)
	})
}

func TestReplayStatelessForLegacy(t *testing.T) {
	k := &tapeScript{}
	info := `"io.modelcontextprotocol/serverInfo":{"name":"m","version":"2"}`
	k.exchange(`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{`+replayMeta+`}}`,
		`{"jsonrpc":"2.0","id":1,"result":{"_meta":{`+info+`},"resultType":"complete","ttlMs":1,"cacheScope":"public","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"x":1.0}},"instructions":"do"}}`)
	k.exchange(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{`+replayMeta+`}}`,
		`{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[{"name":"a","n":1.0}],"ttlMs":5,"cacheScope":"public","_meta":{`+info+`,"k":[1.0]}}}`)
	k.exchange(replayModern(`1`, "a", `{}`), `{"jsonrpc":"2.0","id":1,"result":{"ttlMs":"mine","_meta":{`+info+`},"resultType":"complete","content":[]}}`)
	k.exchange(replayModern(`1`, "more", `{}`), `{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{}}}`)
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		c.asks(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
		c.asks(frontCall(`1`, "ping"), `{"jsonrpc":"2.0","id":1,"result":{}}`)
		for _, v := range [][2]string{{"2024-11-05", "2024-11-05"}, {"2025-03-26", "2025-03-26"}, {"2025-06-18", "2025-06-18"}, {"2025-11-25", "2025-11-25"}, {"2099-01-01", "2025-11-25"}} {
			c.asks(frontInitialize(`1`, v[0]), `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"`+v[1]+`","capabilities":{"tools":{"x":1.0}},"serverInfo":{"name":"m","version":"2"},"instructions":"do"}}`)
		}
		c.asks(frontCall(`2`, "tools/list"), `{"jsonrpc":"2.0","id":2,"result":{"tools":[{"name":"a","n":1.0}],"_meta":{"k":[1.0]}}}`)
		c.asks(replayCall(`3`, "a", `{}`), `{"jsonrpc":"2.0","id":3,"result":{"ttlMs":"mine","content":[]}}`)
		c.asks(`{"jsonrpc":"2.0","id":4,"method":"logging/setLevel","params":{"level":"debug"}}`, `{"jsonrpc":"2.0","id":4,"result":{}}`)
		c.asks(replayCall(`5`, "more", `{}`), replayMiss(`5`, "other revision"))
	})
}

// A tape need not have a handshake: in 2026-07-28 there need be none.
func TestReplayWithoutHandshake(t *testing.T) {
	k := &tapeScript{}
	k.tools("a", `{}`, "a")
	k.exchange(frontCall(`1`, "prompts/list"), `{"jsonrpc":"2.0","id":1,"result":{"prompts":[]}}`)
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		g.open(false).asks(frontInitialize(`1`, "2025-11-25"), `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"prompts":{}},"serverInfo":{"name":"mcpproxy","version":"`+version+`"}}}`)
	})
	replaying(t, testTape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		c.asks(frontInitialize(`1`, "2025-11-25"), `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{},…`)
		c.asks(replayCall(`2`, "a", `{}`), replayMiss(`2`, "no such call"))
	})
}

// What was recorded of a refused level is played, and what the server logged after one that it took.
func TestReplayByRuleAsRecorded(t *testing.T) {
	level := func(id, level string) string {
		return `{"jsonrpc":"2.0","id":` + id + `,"method":"logging/setLevel","params":{"level":"` + level + `"}}`
	}
	k := &tapeScript{session: 1}
	k.exchange(level(`1`, "loud"), frontError(`1`, `-32602`))
	k.exchange(level(`2`, "info"), frontResult(`2`, `{"x":1.0}`))
	k.says(0, replayLog("level is info"))
	k.session = 0
	modern := `{"jsonrpc":"2.0","id":3,"method":"logging/setLevel","params":{"level":"info",` + replayMeta + `}}`
	k.exchange(modern, frontError(`3`, `-32601`)) // it is not in that revision
	k.exchange(strings.Replace(modern, "info", "debug", 1), frontError(`3`, `-32601`))
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		for range 2 {
			c.asks(level(`"a"`, "info"), frontResult(`"a"`, `{"x":1.0}`), replayLog("level is info"))
			c.asks(level(`"a"`, "loud"), frontError(`"a"`, `-32602`))
			c.asks(level(`"a"`, "debug"), frontResult(`"a"`, `{}`))
			g.open(true).asks(modern, frontError(`3`, `-32601`))
		}
	})
}

// What a server of 2026-07-28 refused for its _meta is refused again, and stands in the way of no other call. A call that it
// refused for its headers alone is not played where the tape has the same call with other headers.
func TestReplayRefusals(t *testing.T) {
	bare := `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`
	call := func(method, params string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{` + params + `}}`
	}
	mismatch := func(id string) string { return frontError(id, `-32020`) }
	headers := `{"mcp-protocol-version":"2026-07-28"}`
	k := &tapeScript{}
	refused := func(e Entry, code string) {
		e.Dir, e.Headers = dirToServer, headers
		k.add(Entry{Dir: dirToClient, Re: k.add(e), Status: 400, Msg: frontError(`1`, code)})
	}
	refused(Entry{Msg: call("tools/list", ``)}, `-32602`)
	refused(Entry{Msg: call("tools/list", bare)}, `-32602`)
	refused(Entry{Msg: call("server/discover", bare)}, `-32602`)
	refused(Entry{Msg: call("initialize", replayMeta)}, `-32601`)
	refused(Entry{Msg: call("resources/read", `"uri":"a:b",`+replayMeta)}, `-32602`)
	refused(Entry{Msg: call("tools/list", replayMeta)}, `-32020`)
	refused(Entry{Msg: replayModern(`1`, "odd", `{}`)}, `-32020`)
	refused(Entry{Msg: replayModern(`1`, "old", `{}`)}, `-32020`)
	local := k.call(call("tools/list", replayMeta)) // the proxy itself refused it, next to a command
	k.add(Entry{Dir: dirToClient, Re: local, Local: true, Msg: mismatch(`1`)})
	list := `{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","ttlMs":1,"cacheScope":"public","_meta":{` + replayInfo + `},"tools":[]}}`
	k.exchange(call("tools/list", replayMeta), list)
	k.exchange(call("server/discover", replayMeta), `{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","ttlMs":1,"cacheScope":"public","_meta":{`+replayInfo+`},"supportedVersions":["2026-07-28"],"capabilities":{}}}`)
	for _, order := range []string{orderAny, orderStrict} {
		replaying(t, k.tape(), PlayerOptions{Order: order, FailUnused: true}, func(g *replayRig) {
			asks := func(text, want string) { g.t.Helper(); g.open(true).asks(text, want) }
			asks(call("tools/list", bare), frontError(`1`, `-32602`))
			asks(call("server/discover", bare), frontError(`1`, `-32602`))
			asks(call("initialize", replayMeta), frontError(`1`, `-32601`))
			asks(call("resources/read", `"uri":"a:b",`+replayMeta), frontError(`1`, `-32602`))
			asks(replayModern(`1`, "odd", `{}`), mismatch(`1`))
			asks(call("tools/list", replayMeta), list)
			asks(call("server/discover", replayMeta), `{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete",…`)
			g.reports(true, "4 calls played, 0 unmatched, 0 loosened, 0 of 5 recorded calls unused")
		})
	}
}

func TestReplayListen(t *testing.T) {
	listen := func(id string) string {
		return `{"jsonrpc":"2.0","id":` + id + `,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},` + replayMeta + `}}`
	}
	note := func(id, method string) string {
		return `{"jsonrpc":"2.0","method":"notifications/` + method + `","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":` + id + `}}}`
	}
	for _, ends := range []string{"", "result", "cancelled"} {
		k := &tapeScript{}
		call := k.call(listen(`5`))
		k.says(call, note(`5`, "subscriptions/acknowledged"))
		k.says(call, note(`5`, "tools/list_changed"))
		want := func(id string) []string {
			return []string{note(id, "subscriptions/acknowledged"), note(id, "tools/list_changed")}
		}
		switch ends {
		case "result":
			k.reply(call, `{"jsonrpc":"2.0","id":5,"result":{"resultType":"complete","_meta":{`+replayInfo+`,"io.modelcontextprotocol/subscriptionId":5}}}`)
		case "cancelled":
			k.says(call, talkCancelled(`5`))
		}
		for _, transient := range []bool{false, true} {
			replaying(t, k.tape(), PlayerOptions{OnExhausted: exhaustedLast}, func(g *replayRig) {
				for _, id := range []string{`5`, `"5"`, `9007199254740993`} {
					lines := want(id)
					switch ends {
					case "result":
						lines = append(lines, `{"jsonrpc":"2.0","id":`+id+`,"result":{"resultType":"complete","_meta":{`+replayInfo+`,"io.modelcontextprotocol/subscriptionId":`+id+`}}}`)
					case "cancelled":
						lines = append(lines, talkCancelled(id))
					}
					c := g.open(transient)
					c.asks(listen(id), lines...)
					if ends == "" && !transient {
						c.asks(listen(`1`), want(`1`)...)
						c.asks(talkCancelled(id)) // is over without a word
						c.asks(listen(id), lines...)
					}
					g.proxy.Sessions.End(c.s, errGone)
				}
			})
		}
	}
}

// replayOnStdio plays a tape to a client on stdio, line by line.
func replayOnStdio(t *testing.T, tape string, o PlayerOptions, converse func(say func(string), hear func(want string))) string {
	t.Helper()
	o.Max, o.Log = 1<<20, slog.New(slog.DiscardHandler)
	player, err := OpenPlayer(strings.NewReader(tape), "t.jsonl", o)
	if err != nil {
		t.Fatal(err)
	}
	in, clientIn := io.Pipe()
	clientOut, out := io.Pipe()
	served := make(chan error, 1)
	go func() {
		p := NewProxy(player, Bounds{Sessions: 1, Calls: 100, CallTimeout: time.Minute}, o.Log)
		served <- serveStdio(context.Background(), p, in, out, 1<<20, time.Second)
		out.Close()
	}()
	lines := bufio.NewReader(clientOut)
	converse(func(text string) { io.WriteString(clientIn, text+"\n") }, func(want string) {
		t.Helper()
		if got, err := lines.ReadString('\n'); !demoMatches(strings.TrimSuffix(got, "\n"), want) {
			t.Fatalf("got %q, %v, want %s", got, err, want)
		}
	})
	clientIn.Close()
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v, want the end", rest, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	player.Close()
	text, _ := player.Report()
	return text
}

// The tape that is built in is what the demo server says, and is good for a conversation.
func TestDemoTape(t *testing.T) {
	tape, entries, err := readTape(demoTape)
	if err != nil || len(tape.Warnings()) > 0 || len(demoTape) > 6<<10 {
		t.Fatalf("got %v, %v, %d bytes, want a whole tape of 6 KiB at most", err, tape.Warnings(), len(demoTape))
	}
	p := demoStart(t, t.Context())
	report := replayOnStdio(t, demoTape, PlayerOptions{FailUnused: true}, func(say func(string), hear func(string)) {
		for _, e := range entries {
			switch {
			case e.Kind == lineMsg && e.Dir == dirToServer:
				p.say(e.Msg)
				say(strings.Replace(e.Msg, `"ask-1"`, `"tape-1"`, 1))
			case e.Kind == lineMsg:
				p.hears(e.Msg)
				hear(strings.Replace(e.Msg, `"ask-1"`, `"tape-1"`, 1))
			}
		}
	})
	p.ends()
	if !strings.HasPrefix(report, "replay: 7 calls played, 0 unmatched, 0 loosened, 0 of 7 recorded calls unused\n") {
		t.Errorf("got report %q", report)
	}
}

// A client of 2026-07-28 has the same tape.
func TestDemoTapeStateless(t *testing.T) {
	replayOnStdio(t, demoTape, PlayerOptions{}, func(say func(string), hear func(string)) {
		say(demoModern(`1`, "server/discover", ``))
		hear(`{"jsonrpc":"2.0","id":1,"result":{"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"mcpproxy-demo","version":"1.0.0"}},…"supportedVersions":["2026-07-28"],…`)
		say(demoModern(`2`, "tools/call", demoTool("countdown", `"from":2`)))
		hear(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"message":"1","progress":1,"progressToken":"p","total":2}}`)
		hear(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"message":"0","progress":2,"progressToken":"p","total":2}}`)
		hear(`{"jsonrpc":"2.0","id":2,"result":{"_meta":{…},"resultType":"complete","content":[{"text":"counted down from 2","type":"text"}]}}`)
	})
}
