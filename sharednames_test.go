// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// Ids and tokens of every kind that JSON has for them.
func sharedNames() []string {
	return []string{`7`, `"7"`, `-1`, `0`, `1.0`, `1E+2`, `9007199254740993`, `123456789012345678901234567890`, `""`, `"é日😀"`,
		`"\u00e9\"\\\/"`, `"a/b"`, `"\ud83d\ude00"`, `"id"`, `"` + strings.Repeat("x", 5000) + `"`}
}

// Nothing but the names changes on the way in; on the way out they are the client's own, as it wrote them.
func TestSharedNames(t *testing.T) {
	calls := []string{ // I is the id, T the token
		`{"jsonrpc":"2.0","id":<I>,"method":"tools/call","params":{"_meta":{"progressToken":<T>}}}`,
		"{ \"params\" : {\"id\":5,\"progressToken\":6, \"_meta\":\t{\"x\":1.0, \"progressToken\" : <T> ,\"é\":\"\\u00e9\"},\"z\":9007199254740993}\r\n,\"x\":{\"id\":1},\"id\"\t:\t<I>\t,\"method\":\"tools\\/call\",\"jsonrpc\":\"2.0\" }",
		`{"\u0069d":<I>,"method":"m","p\u0061rams":{"_m\u0065ta":{"a":[{"progressToken":1}],"progress\u0054oken":<T>}},"jsonrpc":"2.0"}`,
	}
	answers := []string{
		`{"jsonrpc":"2.0","id":<I>,"result":{"id":1,"z":1.0,"big":9007199254740993}}`,
		`{"result" : {"_meta":{"progressToken":3,"io.modelcontextprotocol/subscriptionId":4}} , "x":"\/","\u0069d" :  <I> ,"jsonrpc":"2.0"}`,
		`{"jsonrpc":"2.0","error":{"code":-1,"message":"\u0021","data":{"id":1E2}},"id":<I>}`,
	}
	progresses := []string{
		`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":<T>,"progress":1.0}}`,
		`{"params" : { "progress":1E2,"x":{"progressToken":1} , "progress\u0054oken" :  <T> },"method":"notifications\/progress","id2":1,"jsonrpc":"2.0"}`,
	}
	fill := func(text, id, token string) string { return strings.NewReplacer("<I>", id, "<T>", token).Replace(text) }
	crlf := strings.NewReplacer("\r", " ", "\n", " ") // which framing by lines cannot carry
	sharedTest(t, func(g *sharedRig) {
		names := sharedNames()
		for i, id := range names {
			call, token := calls[i%len(calls)], names[(i+4)%len(names)]
			x, at := g.call(fill(call, id, token))
			if want := crlf.Replace(fill(call, at.ID, at.Token)); at.Raw != want || !isNumber(at.ID[0]) || at.Token == "" {
				t.Errorf("got %.500q at the server, want %.500q", at.Raw, want)
			}
			for _, progress := range progresses {
				g.peer().says(fill(progress, "", at.Token))
				x.hears(fill(progress, "", token))
			}
			answer := answers[i/3%len(answers)]
			g.peer().says(fill(answer, at.ID, ""))
			x.hears(fill(answer, id, ""))
			x.isOver(true, false)
		}
	})
}

// An id or token that the client did not give is not made up.
func TestSharedCallWithoutToken(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		text := sharedPlain(`"a"`)
		x, at := g.call(text)
		if want := strings.Replace(text, `"a"`, at.ID, 1); at.Raw != want {
			t.Errorf("got %q at the server, want %q", at.Raw, want)
		}
		g.peer().says(talkProgress(at.ID, "1")) // nobody gave it this token
		x.hears()
		g.peer().says(talkResult(at.ID, `{}`))
		x.hears(talkResult(`"a"`, `{}`))
	})
}

func TestSharedSubscriptionNames(t *testing.T) {
	notes := []string{
		`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":<I>},"notifications":{}}}`,
		`{"method":"notifications/resources/updated" , "params":{"uri":"x:1","z":1.0, "_m\u0065ta" : {"é":1E2,"io.modelcontextprotocol\/subscriptionId" : <I> ,"io.modelcontextprotocol/subscription":1} },"jsonrpc":"2.0"}`,
		`{"jsonrpc":"2.0","method":"notifications/x/y","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":<I>}}}`,
	}
	ends := []string{
		`{"jsonrpc":"2.0","id":<I>,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":<I>}}}`,
		`{"result":{"_meta" : {"x":1.0,"io.modelcontextprotocol\/subscriptionId" : <I> } },"jsonrpc":"2.0" , "id": <I>}`,
		`{"jsonrpc":"2.0","id":<I>,"error":{"code":-32603,"message":"no"}}`,
		`{"jsonrpc":"2.0","id":<I>,"result":{}}`,
	}
	fill := func(text, id string) string { return strings.ReplaceAll(text, "<I>", id) }
	sharedTest(t, func(g *sharedRig) {
		for i, id := range sharedNames() {
			x, at := g.call(sharedListen(id))
			for _, note := range notes {
				g.peer().says(fill(note, at.ID))
				x.hears(fill(note, id))
			}
			x.isOver(false, false)
			end := ends[i%len(ends)]
			g.peer().says(fill(end, at.ID))
			x.hears(fill(end, id))
			x.isOver(true, false)
		}
	})
}

// A server may write a number otherwise than it read it.
func TestSharedNamesAreNumbers(t *testing.T) {
	for _, form := range []string{"%s", "%s.0", "%se0", "%s.00E+0", "%s0e-1"} {
		sharedTest(t, func(g *sharedRig) {
			x, at := g.call(sharedCallText(`"a"`, "tools/call", `,"progressToken":"t"`))
			g.peer().says(talkProgress(fmt.Sprintf(form, at.Token), "1"))
			g.peer().says(talkResult(fmt.Sprintf(form, at.ID), `{}`))
			x.hears(talkProgress(`"t"`, "1"), talkResult(`"a"`, `{}`))

			x, at = g.call(sharedListen(`"s"`))
			id := fmt.Sprintf(form, at.ID)
			g.peer().says(sharedEvent("tools/list_changed", id))
			end := `{"_meta":{"` + subscriptionID + `":%s}}`
			g.peer().says(talkResult(id, fmt.Sprintf(end, id)))
			x.hears(sharedEvent("tools/list_changed", `"s"`), talkResult(`"s"`, fmt.Sprintf(end, `"s"`)))

			x, at = g.call(sharedListen(`"s"`))
			g.peer().says(talkCancelled(fmt.Sprintf(form, at.ID)))
			x.hears(talkCancelled(`"s"`))
			x.isOver(true, false)
		})
	}
}

// Clients know nothing of each other: all names may be the same at the same time.
func TestSharedClientsWithTheSameNames(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		const n = 5
		var calls, subscriptions [n]*sharedStream
		var atCall, atSubscription [n]*Message
		seen := map[string]bool{}
		for i := range n {
			calls[i], atCall[i] = g.call(sharedCallText("1", "tools/call", `,"progressToken":1`))
			subscriptions[i], atSubscription[i] = g.call(sharedListen("1"))
			seen[atCall[i].ID], seen[atSubscription[i].ID] = true, true
			if atCall[i].Token == "" {
				t.Errorf("got %s, want a token", atCall[i].Raw)
			}
		}
		if len(seen) != 2*n || len(g.peers) != 1 {
			t.Errorf("got %d ids and %d processes, want %d and 1", len(seen), len(g.peers), 2*n)
		}
		for i := range n {
			i = n - 1 - i
			progress := fmt.Sprint(i)
			g.peer().says(talkProgress(atCall[i].Token, progress))
			g.peer().says(sharedEvent("x"+progress, atSubscription[i].ID))
			calls[i].hears(talkProgress("1", progress))
			subscriptions[i].hears(sharedEvent("x"+progress, "1"))
			g.peer().says(talkResult(atCall[i].ID, progress))
			calls[i].hears(talkResult("1", progress))
		}
		for i := range n {
			calls[i].hears()
			subscriptions[i].hears()
			calls[i].isOver(true, false)
			subscriptions[i].isOver(false, false)
		}
	})
}

// What belongs to nobody goes to nobody.
func TestSharedStray(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		x, at := g.call(sharedCallText(`"a"`, "tools/call", `,"progressToken":"t"`))
		y, sub := g.call(sharedListen(`1`))
		for _, text := range []string{
			talkResult("99", `{}`), talkResult(`"a"`, `{}`), talkResult(`"`+at.ID+`"`, `{}`), talkResult(`""`, `{}`),
			talkProgress("99", "1"), talkProgress(`"t"`, "1"), talkProgress(`"`+at.Token+`"`, "1"), talkProgress("null", "1"),
			sharedEvent("tools/list_changed", "99"), sharedEvent("tools/list_changed", `"`+sub.ID+`"`), sharedEvent("tools/list_changed", "{}"),
			`{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`,
			`{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{}}}`,
			`{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":[1]}}`,
			`{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":[1]}`,
			`{"jsonrpc":"2.0","method":"notifications/progress"}`, `{"jsonrpc":"2.0","method":"notifications/cancelled"}`,
			talkCancelled("99"), talkCancelled(`"a"`),
			`{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}`, `garbage`, `[]`, ``, `[` + talkResult(at.ID, `{}`) + `]`,
			sharedLog,
		} {
			g.peer().says(text)
		}
		x.hears()
		y.hears()
		g.peer().says(sharedEvent("tools/list_changed", sub.ID))
		y.hears(sharedEvent("tools/list_changed", "1"))
		g.peer().says(talkResult(at.ID, `{}`))
		x.hears(talkResult(`"a"`, `{}`))
		g.peer().says(talkResult(at.ID, `{"again":true}`))
		g.peer().says(talkProgress(at.Token, "2"))
		x.hears()
		g.peer().silent()
	})
}

func TestSharedLogs(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		plain, _ := g.call(sharedPlain("1"))
		listen, _ := g.call(sharedListen("2"))
		g.peer().says(sharedLog) // nobody asked
		// Some encoders escape each slash.
		a, atA := g.call(sharedCallText(`1`, "tools/call", `,"io.modelcontextprotocol\/logLevel":"info"`))
		g.peer().says(sharedLog)
		a.hears(sharedLog)
		b, atB := g.call(sharedLogging("1"))
		g.peer().says(sharedLog) // whose?
		a.hears()
		b.hears()
		g.peer().says(talkResult(atA.ID, `{}`))
		a.hears(talkResult("1", `{}`))
		g.peer().says(sharedLog)
		b.hears(sharedLog)
		g.peer().says(talkResult(atB.ID, `{}`))
		g.peer().says(sharedLog)
		b.hears(talkResult("1", `{}`))
		a.hears()
		c, _ := g.call(sharedLogging("1"))
		d, _ := g.call(sharedLogging("1"))
		d.giveUp()
		synctest.Wait()
		g.peer().says(sharedLog)
		c.hears(sharedLog)
		d.hears()
		plain.hears()
		listen.hears()
	})
}

// A subscription says the level too where a client says it everywhere, but log messages "continue to flow on the
// response stream of the request they relate to, not the subscriptions/listen stream".
func TestSharedLogsWhileSubscribed(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		listen, _ := g.call(sharedCallText("1", methodListen, `,"io.modelcontextprotocol/logLevel":"info"`))
		g.peer().says(sharedLog)
		x, _ := g.call(sharedLogging("2"))
		g.peer().says(sharedLog)
		x.hears(sharedLog)
		listen.hears()
	})
}

// The text within the arguments is not the request for log messages.
func TestSharedLogsAskedForInMeta(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		x, _ := g.call(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"_meta":{"io.modelcontextprotocol/logLevel":"info"}},"io.modelcontextprotocol/logLevel":1}}`)
		g.peer().says(sharedLog)
		x.hears()
	})
}

// Ids may be used again once they are free.
func TestSharedSameIDAgain(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		seen := map[string]bool{}
		for i := range 20 {
			x, at := g.call(sharedCallText(`1`, "tools/call", `,"progressToken":1`))
			if seen[at.ID] {
				t.Errorf("got id %s a second time", at.ID)
			}
			seen[at.ID] = true
			if i%3 == 2 {
				x.giveUp()
				g.peer().hearsCancel(at)
				g.peer().says(talkResult(at.ID, `{"late":true}`))
				x.hears()
				continue
			}
			g.peer().says(talkResult(at.ID, fmt.Sprint(i)))
			x.hears(talkResult("1", fmt.Sprint(i)))
			g.peer().says(talkProgress(at.Token, "1"))
		}
		g.peer().silent()
	})
}

func TestSharedCallIsGivenUp(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		other, atOther := g.call(sharedCallText(`"a"`, "tools/call", `,"progressToken":"t"`))
		for _, text := range []string{sharedCallText(`"a"`, "tools/call", `,"progressToken":"t"`), sharedListen(`"a"`)} {
			x, at := g.call(text)
			x.giveUp()
			g.peer().hearsCancel(at)
			x.isOver(true, false)
			g.peer().says(talkProgress(at.ID, "1"))
			g.peer().says(sharedEvent("tools/list_changed", at.ID))
			g.peer().says(talkCancelled(at.ID))
			g.peer().says(talkResult(at.ID, `{"late":true}`))
			x.hears()
		}
		other.hears()
		g.peer().says(talkResult(atOther.ID, `{}`))
		other.hears(talkResult(`"a"`, `{}`))
		g.peer().silent()
	})
}

// What a client POSTs about its call cancels neither that nor another client's, whose id it may name.
func TestSharedCancelledByName(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		x, at := g.call(sharedPlain("1"))
		g.posts(talkCancelled(at.ID))
		g.peer().silent()
		x.isOver(false, false)
	})
}

// "The client MUST NOT send JSON-RPC responses", and the proxy is the process's client.
func TestSharedResponse(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		g.call(sharedPlain("1"))
		x := g.posts(talkResult("1", `{}`))
		g.peer().silent()
		x.isOver(true, false)
		if got := x.take(); len(got) != 1 || !strings.Contains(got[0], `"code":-32600`) {
			t.Errorf("got %q, want a refusal with -32600", got)
		}
	})
}

func TestSharedNotification(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		text := `{"jsonrpc":"2.0", "method":"notifications/x","params":{"a":1.0,"_meta":{"progressToken":1}}}`
		g.posts(text)
		if got := g.peer().hears(); got.Raw != text {
			t.Errorf("got %q, want %q", got.Raw, text)
		}
	})
}

func TestSharedServerCancels(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		other, _ := g.call(sharedListen(`"s"`))
		x, at := g.call(sharedListen(`"s"`))
		cancel := `{"method":"notifications/cancelled","params" : {"reason":"r","requestId" : %s },"jsonrpc":"2.0"}`
		g.peer().says(fmt.Sprintf(cancel, at.ID))
		x.hears(fmt.Sprintf(cancel, `"s"`))
		x.isOver(true, false)
		g.peer().says(sharedEvent("tools/list_changed", at.ID))
		g.peer().says(talkResult(at.ID, `{}`))
		g.peer().says(fmt.Sprintf(cancel, at.ID))
		x.hears()
		other.hears()
		other.isOver(false, false)
		g.peer().silent()
	})
}

// "The server MUST NOT write JSON-RPC requests to stdout."
func TestSharedServerAsks(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		x, at := g.call(sharedPlain("1"))
		for _, id := range []string{at.ID, `"q"`, `1.0`} {
			g.peer().says(`{"jsonrpc":"2.0","id":` + id + `,"method":"sampling/createMessage","params":{"_meta":{"` + subscriptionID + `":` + at.ID + `}}}`)
			if got := g.peer().hears(); got.Kind != Response || got.ID != id || member(got.Error, "code") != "-32601" {
				t.Errorf("got %s, want id %s and -32601", got.Raw, id)
			}
		}
		x.hears()
		g.peer().says(talkResult(at.ID, `{}`))
		x.hears(talkResult("1", `{}`))
	})
}
