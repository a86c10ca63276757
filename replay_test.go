// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A tapeScript is a tape in the making. What its methods return is the seq of the line.
type tapeScript struct {
	entries []Entry
	session int64
	t       time.Duration
}

func (k *tapeScript) add(e Entry) int64 {
	e.Kind, e.Session, e.T = lineMsg, k.session, k.t
	k.entries = append(k.entries, e)
	return int64(len(k.entries))
}

func (k *tapeScript) call(text string) int64 { return k.add(Entry{Dir: dirToServer, Msg: text}) }

// says lets the server say something within a call, or, if that is 0, outside.
func (k *tapeScript) says(call int64, text string) int64 {
	return k.add(Entry{Dir: dirToClient, X: call, Msg: text})
}

func (k *tapeScript) reply(call int64, text string) int64 {
	return k.add(Entry{Dir: dirToClient, Re: call, Msg: text})
}

// answer is the client's, to a request of the server within a call.
func (k *tapeScript) answer(call, ask int64, text string) int64 {
	return k.add(Entry{Dir: dirToServer, X: call, Re: ask, Msg: text})
}

// exchange is a call and its response.
func (k *tapeScript) exchange(call, response string) { k.reply(k.call(call), response) }

// tools makes the exchanges of tools/call for one tool, each answered with a text.
func (k *tapeScript) tools(name, args string, answers ...string) {
	for i, answer := range answers {
		id := fmt.Sprint(100 + i)
		k.exchange(replayCall(id, name, args), replayAnswer(id, answer))
	}
}

func (k *tapeScript) tape() string { return testTape(k.entries...) }

func replayCall(id, name, args string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"` + name + `","arguments":` + args + `}}`
}

// replayModern is such a call of 2026-07-28.
func replayModern(id, name, args string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"` + name + `","arguments":` + args + `,` + replayMeta + `}}`
}

const replayMeta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`

func replayAnswer(id, text string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"result":{"content":[{"type":"text","text":"` + text + `"}]}}`
}

// A replayRig is a proxy in front of a tape.
type replayRig struct {
	t      *testing.T
	player *Player
	proxy  *Proxy
	log    *bytes.Buffer
}

// A replayPeer is a client of it.
type replayPeer struct {
	*replayRig
	s      *Session
	client *sessConn
}

// replaying runs test in front of tape.
func replaying(t *testing.T, tape string, o PlayerOptions, test func(g *replayRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &replayRig{t: t, log: &bytes.Buffer{}}
		o.Log, o.Max = slog.New(slog.NewTextHandler(g.log, nil)), 1<<20
		var err error
		if g.player, err = OpenPlayer(strings.NewReader(tape), "t.jsonl", o); err != nil {
			t.Fatal(err)
		}
		g.proxy = NewProxy(g.player, Bounds{Sessions: 100, Calls: 100, CallTimeout: time.Hour}, o.Log)
		test(g)
		g.proxy.Close()
		g.player.Close()
	})
}

func (g *replayRig) open(transient bool) *replayPeer {
	g.t.Helper()
	c := &sessConn{}
	s, err := g.proxy.Open(g.t.Context(), c, "", transient)
	if err != nil {
		g.t.Fatal(err)
	}
	return &replayPeer{g, s, c}
}

func (c *replayPeer) says(text string) {
	c.t.Helper()
	c.proxy.ToServer(c.t.Context(), c.s, sessParse(c.t, text))
}

// hears wants what the client got to be these texts, byte for byte but for a … that stands for anything.
func (c *replayPeer) hears(want ...string) {
	c.t.Helper()
	got := c.client.take()
	if !slices.EqualFunc(got, want, demoMatches) {
		c.t.Errorf("got  %q\nwant %q", got, want)
	}
}

// asks says and hears.
func (c *replayPeer) asks(text string, want ...string) { c.t.Helper(); c.says(text); c.hears(want...) }

// reports wants the report to be ok and to have these parts.
func (g *replayRig) reports(ok bool, parts ...string) {
	g.t.Helper()
	text, got := g.player.Report()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			got = !ok
		}
	}
	if got != ok {
		g.t.Errorf("got report %q, want ok=%v and %q", text, ok, parts)
	}
}

func replayMiss(id, reason string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"error":{"code":404,"message":"not on the tape: ` + reason + `","data":{"proxy":"mcpproxy","reason":"` + reason + `","nearest":[…`
}

// replayHandshake is an initialize call and its answer.
func (k *tapeScript) handshake(client string) {
	k.exchange(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"`+client+`","version":"1"}}}`,
		`{"jsonrpc":"2.0","id":0,"result":{"z":1.0,"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s `+client+`","version":"9"},"instructions":"hi"}}`)
	k.add(Entry{Dir: dirToServer, Msg: `{"jsonrpc":"2.0","method":"notifications/initialized"}`})
}

func TestReplayQueue(t *testing.T) {
	k := &tapeScript{session: 1}
	k.tools("poll", `{"job":1}`, "working", "working still", "done")
	k.tools("poll", `{"job":2}`, "other")
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		for i, id := range []string{`7`, `"7"`, `9007199254740993`} {
			c.asks(replayCall(id, "poll", `{ "job" : 1.0 }`), replayAnswer(id, []string{"working", "working still", "done"}[i]))
		}
		c.asks(replayCall(`1.0`, "poll", `{"job":2}`), replayAnswer(`1.0`, "other"))
		g.reports(true, "4 calls played", "0 unmatched", "0 of 4 recorded calls unused")
		c.asks(replayCall(`1`, "poll", `{"job":1}`), replayMiss(`1`, "exhausted"))
		g.reports(false, "1 unmatched", "tools/call poll: exhausted")
		g.open(false).asks(replayCall(`1`, "poll", `{"job":1}`), replayAnswer(`1`, "working")) // each session from the beginning
	})
	for policy, want := range map[string][]string{
		exhaustedLast:  {"working", "working still", "done", "done", "done"},
		exhaustedCycle: {"working", "working still", "done", "working", "working still"},
	} {
		for _, transient := range []bool{false, true} {
			replaying(t, k.tape(), PlayerOptions{OnExhausted: policy}, func(g *replayRig) {
				c := g.open(transient)
				for _, text := range want {
					if transient {
						c = g.open(true)
					}
					c.asks(replayCall(`5`, "poll", `{"job":1}`), replayAnswer(`5`, text))
				}
				g.reports(true)
			})
		}
	}
}

// Over HTTP in 2026-07-28 there is no session: the run of the proxy has one queue.
func TestReplayQueueWithoutSession(t *testing.T) {
	k := &tapeScript{}
	k.tools("poll", `{}`, "1", "2")
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		g.open(true).asks(replayCall(`1`, "poll", `{}`), replayAnswer(`1`, "1"))
		g.open(true).asks(replayCall(`1`, "poll", `{}`), replayAnswer(`1`, "2"))
		g.open(true).asks(replayCall(`1`, "poll", `{}`), replayMiss(`1`, "exhausted"))
	})
}

func TestReplayTokens(t *testing.T) {
	k := &tapeScript{session: 1}
	call := k.call(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow","_meta":{"progressToken":"was"}}}`)
	k.says(call, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1.0,"progressToken":"was"}}`)
	k.says(call, `{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":9007199254740993}}`)
	k.reply(call, replayAnswer(`1`, "done"))
	for _, token := range []string{`7`, `"7"`, `9007199254740993`, `1.0`, ``} {
		replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
			meta, want := "", []string{`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":9007199254740993}}`, replayAnswer(`2`, "done")}
			if token != "" {
				meta = `,"_meta":{"progressToken":` + token + `,"traceparent":"00-1"}`
				want = append([]string{`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1.0,"progressToken":` + token + `}}`}, want...)
			}
			g.open(false).asks(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow"`+meta+`}}`, want...)
		})
	}
}

// replayAsking is a tape with a request of the server in the middle of a call.
func replayAsking() *tapeScript {
	k := &tapeScript{session: 1}
	call := k.call(replayCall(`1`, "ask", `{}`))
	k.says(call, `{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"before"}}`)
	ask := k.says(call, `{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"message":"?"}}`)
	k.says(call, `{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"meanwhile"}}`)
	k.answer(call, ask, `{"jsonrpc":"2.0","id":1,"result":{"action":"accept"}}`)
	k.says(call, `{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"after"}}`)
	k.reply(call, replayAnswer(`1`, "thanks"))
	return k
}

func replayElicit(id string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"elicitation/create","params":{"message":"?"}}`
}

func replayLog(text string) string {
	return `{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"` + text + `"}}`
}

func TestReplayServerAsks(t *testing.T) {
	replaying(t, replayAsking().tape(), PlayerOptions{OnExhausted: exhaustedLast}, func(g *replayRig) {
		c := g.open(false)
		c.asks(replayCall(`5`, "ask", `{}`), replayLog("before"), replayElicit(`"tape-1"`), replayLog("meanwhile"))
		c.asks(replayCall(`6`, "ask", `{}`), replayLog("before"), replayElicit(`"tape-2"`), replayLog("meanwhile"))
		c.asks(`{"jsonrpc":"2.0","id":"tape-2","result":{"action":"decline"}}`, replayLog("after"), replayAnswer(`6`, "thanks"))
		c.asks(`{"jsonrpc":"2.0","id":"tape-1","error":{"code":-1,"message":"no"}}`, replayLog("after"), replayAnswer(`5`, "thanks"))
		g.reports(true)
	})
	replaying(t, replayAsking().tape(), PlayerOptions{Order: orderStrict, OnExhausted: exhaustedCycle}, func(g *replayRig) {
		c := g.open(false)
		c.asks(replayCall(`5`, "ask", `{}`), replayLog("before"), replayElicit(`"tape-1"`), replayLog("meanwhile"))
		c.asks(`{"jsonrpc":"2.0","id":"tape-1","result":{"action":"accept"}}`, replayLog("after"), replayAnswer(`5`, "thanks"))
		c.asks(replayCall(`6`, "ask", `{}`), replayLog("before"), replayElicit(`"tape-2"`), replayLog("meanwhile"))
		c.asks(`{"jsonrpc":"2.0","id":"tape-2","result":{"action":"decline"}}`, replayMiss(`6`, "other answer")+`"at":"/result/action","recorded":"accept"…`)
		g.reports(false, "other answer")
	})
	// 2026-07-28 has no such requests.
	replaying(t, replayAsking().tape(), PlayerOptions{}, func(g *replayRig) {
		g.open(true).asks(replayModern(`5`, "ask", `{}`), replayMiss(`5`, "other revision"))
		g.reports(false)
	})
}

func TestReplayCancelled(t *testing.T) {
	k := replayAsking()
	cancelled := k.call(replayCall(`2`, "slow", `{}`))
	k.says(cancelled, replayLog("begun"))
	k.add(Entry{Dir: dirToServer, X: cancelled, Msg: talkCancelled(`2`)})
	k.call(replayCall(`3`, "lost", `{}`))
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		c.asks(replayCall(`5`, "ask", `{}`), replayLog("before"), replayElicit(`"tape-1"`), replayLog("meanwhile"))
		c.asks(talkCancelled(`5`))
		c.asks(`{"jsonrpc":"2.0","id":"tape-1","result":{"action":"accept"}}`)
		c.asks(replayCall(`6`, "slow", `{}`), replayLog("begun")) // stays open, as it did
		c.asks(talkCancelled(`6`))
		c.asks(replayCall(`7`, "lost", `{}`), `{"jsonrpc":"2.0","id":7,"error":{"code":502,"message":"no answer was recorded"…`)
		g.proxy.Sessions.End(c.s, errGone)
		d := g.open(false) // goes in the middle
		d.asks(replayCall(`5`, "ask", `{}`), replayLog("before"), replayElicit(`"tape-2"`), replayLog("meanwhile"))
		g.proxy.Sessions.End(d.s, errGone)
		g.reports(true)
	})
}

func TestReplayOutsideCalls(t *testing.T) {
	k := &tapeScript{session: 1}
	k.handshake("a")
	changed := `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`
	roots := `{"jsonrpc":"2.0","id":1,"method":"roots/list"}`
	k.says(0, roots)
	k.tools("a", `{}`, "a")
	k.says(0, changed)
	k.tools("b", `{}`, "b")
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		c.says(frontInitialize(`1`, "2025-06-18"))
		c.hears(`{"jsonrpc":"2.0","id":1,"result":{"z":1.0,"protocolVersion":"2025-06-18",…`)
		c.asks(`{"jsonrpc":"2.0","method":"notifications/initialized"}`, strings.Replace(roots, `1`, `"tape-1"`, 1)[:0]+`{"jsonrpc":"2.0","id":"tape-1","method":"roots/list"}`)
		c.asks(`{"jsonrpc":"2.0","id":"tape-1","result":{"roots":[]}}`)
		c.asks(replayCall(`2`, "b", `{}`), replayAnswer(`2`, "b"))
		c.asks(replayCall(`3`, "a", `{}`), replayAnswer(`3`, "a"), changed)
		// Without sessions nothing can come outside calls.
		g.open(true).asks(replayModern(`3`, "a", `{}`), `{"jsonrpc":"2.0","id":3,"result":{…`)
	})
}

// Sessions that were recorded in parallel do the same, get different answers, and differ late.
func TestReplaySessionsNeverCross(t *testing.T) {
	const n = 50
	for _, differ := range []string{"client", "late", "not"} {
		k := &tapeScript{}
		step := func(f func(i int)) {
			for i := range n {
				k.session = int64(i + 1)
				f(i)
			}
		}
		client := func(i int) string {
			if differ == "client" {
				return fmt.Sprint("client ", i)
			}
			return "client"
		}
		step(func(i int) { k.handshake(client(i)) })
		step(func(i int) { k.tools("list", `{}`, "same") })
		if differ == "late" {
			step(func(i int) { k.tools("mine", fmt.Sprintf(`{"i":%d}`, i), fmt.Sprint("mine ", i)) })
		}
		for round := range 3 {
			step(func(i int) { k.tools("poll", `{}`, fmt.Sprint(i, " round ", round)) })
		}
		replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
			peers := make([]*replayPeer, n)
			order := func(i int) int { return i * 7 % n } // not as recorded
			if differ == "not" {
				order = func(i int) int { return i }
			}
			for j := range n {
				i := order(j)
				peers[i] = g.open(false)
				peers[i].says(strings.Replace(frontInitialize(`0`, "2025-11-25"), `"c"`, `"`+client(i)+`"`, 1))
				peers[i].client.take()
				peers[i].asks(replayCall(`1`, "list", `{}`), replayAnswer(`1`, "same"))
			}
			done := make(chan struct{})
			for i, c := range peers {
				go func() {
					defer func() { done <- struct{}{} }()
					if differ == "late" {
						c.says(replayCall(`2`, "mine", fmt.Sprintf(`{"i":%d}`, i)))
					}
					for range 3 {
						c.says(replayCall(`3`, "poll", `{}`))
					}
				}()
			}
			for range peers {
				<-done
			}
			for i, c := range peers {
				var want []string
				if differ == "late" {
					want = append(want, replayAnswer(`2`, fmt.Sprint("mine ", i)))
				}
				for round := range 3 {
					want = append(want, replayAnswer(`3`, fmt.Sprint(i, " round ", round)))
				}
				c.hears(want...)
			}
			g.reports(true, " 0 of ")
		})
	}
}

func TestReplayStrict(t *testing.T) {
	k := &tapeScript{session: 1}
	k.tools("a", `{"n":1}`, "1")
	k.tools("b", `{}`, "2")
	k.session = 2
	k.tools("c", `{}`, "3")
	replaying(t, k.tape(), PlayerOptions{Order: orderStrict, FailUnused: true}, func(g *replayRig) {
		c := g.open(false)
		c.asks(replayCall(`1`, "b", `{}`), replayMiss(`1`, "out of order")+`"name":"a","differs":[{"at":"/params/arguments/n","recorded":1},{"at":"/params/name","recorded":"a"}]}]}}}`)
		c.asks(replayCall(`1`, "a", `{"n":1}`), replayAnswer(`1`, "1"))
		c.asks(replayCall(`1`, "b", `{}`), replayAnswer(`1`, "2"))
		c.asks(replayCall(`1`, "b", `{}`), replayMiss(`1`, "exhausted"))
		g.reports(false, "2 unmatched", "1 of 3 recorded calls unused", "unused: 1\n  seq 5: tools/call c")
		g.open(false).asks(replayCall(`1`, "c", `{}`), replayAnswer(`1`, "3"))
		g.reports(false, "0 of 3 recorded calls unused")
	})
	replaying(t, k.tape(), PlayerOptions{Order: orderStrict, FailUnused: true}, func(g *replayRig) {
		g.reports(false, "3 of 3")
		for _, call := range []string{replayCall(`1`, "a", `{"n":1}`), replayCall(`1`, "b", `{}`), replayCall(`1`, "c", `{}`)} {
			c := g.open(true)
			c.says(call)
			if got := c.client.take(); len(got) != 1 || strings.Contains(got[0], "error") {
				t.Errorf("%s: got %q, want a result", call, got)
			}
		}
		g.reports(true)
	})
}

func TestReplayIgnore(t *testing.T) {
	k := &tapeScript{session: 1}
	for i := range 3 {
		k.tools("log", fmt.Sprintf(`{"time":%d,"text":"a"}`, i), fmt.Sprint(i))
	}
	for _, pointer := range []string{"/arguments/time", "/params/arguments/time", "/arguments/t*", "/arguments/*"} {
		at, _ := ParsePointer(pointer)
		replaying(t, k.tape(), PlayerOptions{Ignore: []Pointer{at}}, func(g *replayRig) {
			c := g.open(false)
			if pointer == "/arguments/t*" { // no wildcard
				c.asks(replayCall(`1`, "log", `{"time":9,"text":"a"}`), replayMiss(`1`, "no such call")+`{"at":"/params/arguments/time","recorded":0}…`)
				return
			}
			c.asks(replayCall(`1`, "log", `{"time":1,"text":"a"}`), replayAnswer(`1`, "1")) // the equal one first
			g.reports(true, "0 loosened")
			c.asks(replayCall(`1`, "log", `{"time":9,"text":"a"}`), replayAnswer(`1`, "0"))
			c.asks(replayCall(`1`, "log", `{"time":0,"text":"a"}`), replayAnswer(`1`, "2"))
			g.reports(true, "2 loosened", "loosened: 2\n  tools/call log: played seq 1")
			c.asks(replayCall(`1`, "log", `{"time":2,"text":"a"}`), replayMiss(`1`, "exhausted"))
		})
	}
}

// What clients of some vendor put into _meta tells calls apart if it can, and is no reason to miss one.
func TestReplayVendorMeta(t *testing.T) {
	call := func(meta string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{` + meta + `}}}`
	}
	k := &tapeScript{session: 1}
	k.exchange(call(`"x/tenant":1`), replayAnswer(`1`, "tenant 1"))
	k.exchange(call(`"x/tenant":2`), replayAnswer(`1`, "tenant 2"))
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		c.asks(call(`"x/tenant":2,"progressToken":1,"baggage":"b"`), replayAnswer(`1`, "tenant 2"))
		c.asks(call(`"x/tenant":3`), replayAnswer(`1`, "tenant 1"))
		g.reports(true, "1 loosened")
	})
}

func TestReplayMiss(t *testing.T) {
	k := &tapeScript{session: 1}
	k.tools("add", `{"a":1,"b":2}`, "3")
	k.tools("add", `{"a":1,"b":3,"c":[1]}`, "4")
	k.tools("echo", `{"text":"x"}`, "x")
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		c.asks(replayCall(`"x"`, "add", `{"a":1,"b":4}`), `{"jsonrpc":"2.0","id":"x","error":{"code":404,"message":"not on the tape: no such call","data":{"proxy":"mcpproxy","reason":"no such call","nearest":[`+
			`{"seq":1,"name":"add","differs":[{"at":"/params/arguments/b","recorded":2}]},`+
			`{"seq":3,"name":"add","differs":[{"at":"/params/arguments/b","recorded":3},{"at":"/params/arguments/c","recorded":[1]}]},`+
			`{"seq":5,"name":"echo","differs":[{"at":"/params/arguments/a"},{"at":"/params/arguments/b"},{"at":"/params/arguments/text","recorded":"x"},{"at":"/params/name","recorded":"echo"}]}]}}}`)
		c.asks(frontCall(`1`, "prompts/list"), `{"jsonrpc":"2.0","id":1,"error":{"code":404,"message":"not on the tape: no such call","data":{"proxy":"mcpproxy","reason":"no such call","nearest":[]}}}`)
		if log := g.log.String(); !strings.Contains(log, "not on the tape: no such call: tools/call add; nearest is seq 1 add, /params/arguments/b: 4, was 2") {
			t.Errorf("got log %s", log)
		}
		g.reports(false, "2 unmatched", "tools/call add: no such call; nearest is seq 1 add, /params/arguments/b: 4, was 2")
	})
}

func TestReplayRedacted(t *testing.T) {
	rule, err := ParseRedactRule("key=pin")
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("0123456789abcdef")
	r := NewRedactor([]RedactRule{rule}, key)
	k := &tapeScript{session: 1}
	k.exchange(r.Message(replayCall(`1`, "login", `{"pin":1234}`)), replayAnswer(`1`, "1234"))
	k.exchange(r.Message(replayCall(`1`, "login", `{"pin":9999}`)), replayAnswer(`1`, "9999"))
	tape := strings.Replace(k.tape(), `"redact":[]`, `"redact":["default","key=pin"]`, 1)
	if strings.Contains(tape, `"pin":1234`) {
		t.Fatal("got a secret on the tape")
	}
	if _, err := OpenPlayer(strings.NewReader(tape), "t.jsonl", PlayerOptions{Max: 1 << 20}); err == nil || !strings.Contains(err.Error(), "-redact-key") {
		t.Errorf("got error %v, want one that names -redact-key", err)
	}
	replaying(t, tape, PlayerOptions{RedactKey: key}, func(g *replayRig) {
		c := g.open(false)
		c.asks(replayCall(`1`, "login", `{"pin":9999}`), replayAnswer(`1`, "9999"))
		c.asks(replayCall(`2`, "login", `{"pin":1234}`), replayAnswer(`2`, "1234"))
		c.says(replayCall(`3`, "login", `{"pin":5555}`))
		if got := c.client.take(); len(got) != 1 || strings.Contains(got[0]+g.log.String(), "5555") {
			t.Errorf("got %q and log %s, want no secret in it", got, g.log)
		}
	})
}

// What the proxy itself made when it recorded is no part of the server.
func TestReplayLocal(t *testing.T) {
	k := &tapeScript{session: 1}
	refused := k.add(Entry{Dir: dirToServer, Local: true, Msg: replayCall(`1`, "a", `{}`)})
	k.add(Entry{Dir: dirToClient, Re: refused, Local: true, Msg: frontError(`1`, `429`)})
	k.tools("a", `{}`, "a")
	late := k.call(replayCall(`1`, "b", `{}`))
	k.add(Entry{Dir: dirToClient, Re: late, Local: true, Msg: frontError(`1`, `504`)})
	raw := k.call(replayCall(`1`, "c", `{}`))
	k.entries = append(k.entries, Entry{Kind: lineRaw, Session: 1, Dir: dirToClient, X: raw, Status: 403, Text: "go away"})
	was := k.call(replayCall(`1`, "d", `{"v":1}`))
	changed := k.add(Entry{Dir: dirToServer, Rule: "r", Was: was, Msg: replayCall(`1`, "d", `{"v":2}`)})
	said := k.reply(changed, replayAnswer(`1`, "as it was"))
	k.add(Entry{Dir: dirToClient, Re: changed, Rule: "r", Was: said, Msg: replayAnswer(`1`, "changed")})
	replaying(t, k.tape(), PlayerOptions{}, func(g *replayRig) {
		c := g.open(false)
		c.asks(replayCall(`1`, "a", `{}`), replayAnswer(`1`, "a"))
		c.asks(replayCall(`1`, "b", `{}`), `{"jsonrpc":"2.0","id":1,"error":{"code":502,"message":"no answer was recorded"…`)
		c.asks(replayCall(`1`, "c", `{}`), `{"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"server answered 403"…`)
		c.asks(replayCall(`1`, "d", `{"v":2}`), replayAnswer(`1`, "as it was"))
		c.asks(replayCall(`1`, "d", `{"v":1}`), replayMiss(`1`, "no such call"))
		g.reports(false, "4 calls played, 1 unmatched, 0 loosened, 0 of 4 recorded calls unused, 2 played had no answer on the tape")
	})
}

func TestReplaySpeed(t *testing.T) {
	k := &tapeScript{session: 1}
	call := k.call(replayCall(`1`, "slow", `{}`))
	k.t = 2 * time.Second
	k.says(call, replayLog("two"))
	k.t = 6 * time.Second
	k.reply(call, replayAnswer(`1`, "six"))
	k.t = 16 * time.Second
	k.says(0, replayLog("sixteen"))
	for _, speed := range []float64{0, 1, 2} {
		replaying(t, k.tape(), PlayerOptions{Speed: speed, OnExhausted: exhaustedLast}, func(g *replayRig) {
			c, factor := g.open(false), cmp.Or(speed, 1e12)
			began := time.Now()
			at := func(seconds float64) {
				<-time.After(time.Until(began.Add(time.Duration(seconds / factor * 1e9))))
			}
			c.says(replayCall(`1`, "slow", `{}`))
			if speed == 0 {
				c.hears(replayLog("two"), replayAnswer(`1`, "six"), replayLog("sixteen"))
				return
			}
			c.hears()
			at(2)
			c.hears(replayLog("two"))
			at(5.9)
			c.hears()
			at(6)
			c.hears(replayAnswer(`1`, "six"))
			at(16)
			c.hears(replayLog("sixteen"))
			c.asks(replayCall(`1`, "slow", `{}`))
			c.asks(talkCancelled(`1`))
			at(100)
			c.hears()
			c.says(replayCall(`1`, "slow", `{}`))
			began = time.Now()
			g.proxy.Sessions.End(c.s, errGone)
			g.proxy.Sessions.Wait()
			if time.Since(began) > 0 {
				t.Errorf("got %v until the session was closed, want no wait for timers", time.Since(began))
			}
		})
	}
}

func TestOpenPlayer(t *testing.T) {
	k := &tapeScript{session: 1}
	k.tools("a", `{}`, "a", "b")
	tape := k.tape()
	open := func(text string) (warnings string, err error) {
		var log bytes.Buffer
		_, err = OpenPlayer(strings.NewReader(text), "t.jsonl", PlayerOptions{Max: 1 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
		return log.String(), err
	}
	var fault *TapeError
	if _, err := open(strings.Replace(tape, `"seq":3`, `"seq":4`, 1)); !errors.As(err, &fault) || fault.Line != 4 {
		t.Errorf("got %v, want an error of line 4", err)
	}
	for text, want := range map[string]string{
		tape:                                   "",
		tape[:strings.Index(tape, `"end"`)]:    "broke off",
		strings.Replace(tape, `"a"`, `"b"`, 1): "checksum differs",
		strings.Replace(tape, `"jsonrpc":"2.0"`, `"x":1`, 1): "messages on the tape are not played",
	} {
		if log, err := open(text); err != nil || !strings.Contains(log, want) || want == "" && log != "" {
			t.Errorf("got %v and log %q, want %q", err, log, want)
		}
	}
}

// FuzzReplay opens what may be no tape, and makes the calls on it and others.
func FuzzReplay(f *testing.F) {
	k := replayAsking()
	k.handshake("a")
	k.says(0, `{"jsonrpc":"2.0","id":1,"method":"roots/list"}`)
	call := k.call(replayModern(`1`, "a", `{}`))
	k.says(call, sessProgress(`1`))
	k.reply(call, `{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","_meta":{},"tools":[]}}`)
	f.Add(k.tape(), true)
	f.Add(k.tape(), false)
	f.Add(strings.ReplaceAll(k.tape(), `"x":`, `"re":`), true)
	f.Add(demoTape, false)
	f.Fuzz(func(t *testing.T, tape string, strict bool) {
		o := PlayerOptions{Max: 1 << 20, Log: slog.New(slog.DiscardHandler), OnExhausted: exhaustedCycle, Ignore: []Pointer{{"arguments", "*"}}}
		if strict {
			o.Order = orderStrict
		}
		p, err := OpenPlayer(strings.NewReader(tape), "t.jsonl", o)
		if err != nil {
			return
		}
		proxy := NewProxy(p, Bounds{Sessions: 10, Calls: 10}, o.Log)
		for _, transient := range []bool{false, true} {
			s, err := proxy.Open(t.Context(), &sessConn{}, "", transient)
			if err != nil {
				t.Fatal(err)
			}
			said := []string{frontInitialize(`0`, "2025-06-18"), frontNote("initialized"), replayModern(`"m"`, "a", `{}`), replayCall(`"l"`, "a", `{}`),
				`{"jsonrpc":"2.0","id":"tape-1","result":{}}`, talkCancelled(`1`)}
			_, entries, _ := readTape(tape)
			for _, e := range entries {
				said = append(said, e.Msg)
			}
			for _, text := range said {
				if m, err := Parse(text); err == nil {
					proxy.ToServer(t.Context(), s, m)
				}
			}
			proxy.Sessions.End(s, errGone)
		}
		proxy.Close()
		p.Report()
	})
}
