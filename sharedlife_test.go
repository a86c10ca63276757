// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A burst waits for a client that reads, however slowly.
func TestSharedBurst(t *testing.T) {
	for _, stops := range []bool{false, true} {
		sharedTest(t, func(g *sharedRig) {
			x, at := g.call(sharedCallText("1", "tools/call", `,"progressToken":"t"`))
			x.stops(stops)
			var sent, want []string
			for i := range 500 {
				sent = append(sent, talkProgress(at.Token, fmt.Sprint(i)))
				want = append(want, talkProgress(`"t"`, fmt.Sprint(i)))
			}
			g.peer().says(strings.Join(append(sent, talkResult(at.ID, `{}`)), "\n"))
			if stops {
				x.hears()
				x.isOver(false, false)
				x.stops(false)
			}
			x.hears(append(want, talkResult("1", `{}`))...)
			x.isOver(true, false)
			g.peer().silent()
		})
	}
}

// sharedCutOff lets a client read nothing while the process says text count times, which must cut it off,
// and another client notice nothing of it.
func sharedCutOff(t *testing.T, text func(token string) string, count int) {
	sharedTest(t, func(g *sharedRig) {
		other, atOther := g.call(sharedCallText("1", "tools/call", `,"progressToken":"t"`))
		x, at := g.call(sharedCallText("1", "tools/call", `,"progressToken":"t"`))
		x.stops(true)
		line := text(at.Token)
		for i := range count {
			g.peer().says(line) // returns only if it is read
			if i%100 == 0 {
				g.peer().says(talkProgress(atOther.Token, fmt.Sprint(i)))
				other.hears(talkProgress(`"t"`, fmt.Sprint(i)))
			}
		}
		x.isOver(true, true)
		x.hears()
		g.peer().hearsCancel(at)
		g.peer().silent()
		g.peer().says(talkResult(at.ID, `{}`))
		x.hears()
		g.peer().says(talkResult(atOther.ID, `{}`))
		other.hears(talkResult("1", `{}`))
		again, at := g.call(sharedPlain("1"))
		g.peer().says(talkResult(at.ID, `{}`))
		again.hears(talkResult("1", `{}`))
	})
}

func TestSharedCutOff(t *testing.T) {
	sharedCutOff(t, func(token string) string { return talkProgress(token, "1") }, 3000)
}

func TestSharedCutOffByBytes(t *testing.T) {
	pad := strings.Repeat("x", 1<<20)
	sharedCutOff(t, func(token string) string {
		return `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":` + token + `,"message":"` + pad + `"}}`
	}, 20)
}

// One that reads nothing of its subscription is cut off as well, and what it has not read is not kept.
func TestSharedCutOffSubscription(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		x, at := g.call(sharedListen("1"))
		x.stops(true)
		for range 3000 {
			g.peer().says(sharedEvent("tools/list_changed", at.ID))
		}
		x.isOver(true, true)
		g.peer().hearsCancel(at)
		g.peer().silent()
	})
}

// A message within the size limit is passed on whatever its size, also to a client that is busy with an earlier one.
func TestSharedLargeMessage(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		x, at := g.call(sharedCallText("1", "tools/call", `,"progressToken":"t"`))
		x.stops(true)
		g.peer().says(talkProgress(at.Token, "1"))
		synctest.Wait()
		big := `"` + strings.Repeat("x", 17<<20) + `"`
		g.peer().says(talkResult(at.ID, big))
		x.isOver(false, false)
		x.stops(false)
		x.hears(talkProgress(`"t"`, "1"), talkResult("1", big))
		x.isOver(true, false)
	})
}

// The response over the queue's bound cuts off like any other message, and the process has nothing to cancel then.
func TestSharedCutOffByResponse(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		x, at := g.call(sharedCallText("1", "tools/call", `,"progressToken":"t"`))
		x.stops(true)
		for range 2 { // one is being written, one waits
			g.peer().says(talkProgress(at.Token, "1"))
			synctest.Wait()
		}
		g.peer().says(talkResult(at.ID, `"`+strings.Repeat("x", 17<<20)+`"`))
		x.isOver(true, true)
		x.hears()
		g.peer().silent()
	})
}

// diesOnce makes a call to a process that dies after life.
func (g *sharedRig) diesOnce(life time.Duration) {
	g.t.Helper()
	g.mu.Lock()
	n := len(g.starts)
	g.mu.Unlock()
	x := g.posts(sharedPlain("1"))
	for range 200 { // until it is started, 100 ms after 100 ms
		synctest.Wait()
		g.mu.Lock()
		started := len(g.starts) > n
		g.mu.Unlock()
		if started {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	g.peer().hears()
	time.Sleep(life)
	g.peer().exit("exit status 3")
	x.refused("1", 502, "exit status 3")
}

func (g *sharedRig) delays() (delays []time.Duration) {
	for i := 1; i < len(g.starts); i++ {
		delays = append(delays, g.starts[i].Sub(g.starts[i-1]))
	}
	return delays
}

func TestSharedBackoff(t *testing.T) {
	ms := time.Millisecond
	sharedTest(t, func(g *sharedRig) {
		for range 10 {
			g.diesOnce(0)
		}
		want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 10000 * ms, 10000 * ms}
		if got := g.delays(); !slices.Equal(got, want) {
			t.Errorf("got delays %v, want %v", got, want)
		}
		g.starts = g.starts[len(g.starts)-1:]
		time.Sleep(time.Minute)
		g.diesOnce(9 * time.Second) // too short a life
		g.diesOnce(0)
		g.diesOnce(11 * time.Second)
		g.diesOnce(0)
		g.diesOnce(0)
		got := g.delays()[1:]
		want = []time.Duration{19 * time.Second, 10 * time.Second, 11*time.Second + 100*ms, 200 * ms}
		if !slices.Equal(got, want) {
			t.Errorf("after a long life: got delays %v, want %v", got, want)
		}
	})
}

// A request that comes later than the delay does not wait, and one that waits for the start can be given up.
func TestSharedBackoffIsOver(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		g.diesOnce(0)
		x := g.posts(sharedPlain("1"))
		x.isOver(false, false)
		x.giveUp()
		x.isOver(true, false)
		x.hears()
		time.Sleep(100 * time.Millisecond)
		if len(g.starts) != 1 {
			t.Errorf("got %d starts, want none for a client that has gone", len(g.starts))
		}
		y := g.posts(sharedPlain("1"))
		z := g.posts(sharedPlain("1"))
		synctest.Wait()
		if len(g.starts) != 2 {
			t.Errorf("got %d starts, want 2", len(g.starts))
		}
		for range 2 {
			g.peer().says(talkResult(g.peer().hears().ID, `{}`))
		}
		y.hears(talkResult("1", `{}`))
		z.hears(talkResult("1", `{}`))
	})
}

func TestSharedCannotStart(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		g.broken = errors.New("no such file: /secret")
		for i := range 4 {
			x := g.posts(sharedPlain("1"))
			time.Sleep(time.Duration(100<<i) * time.Millisecond)
			if got := x.take(); len(got) != 1 || !strings.Contains(got[0], `"code":502`) || strings.Contains(got[0], "secret") {
				t.Errorf("got %q, want 502 and nothing of the inside", got)
			}
		}
		if got, want := fmt.Sprint(g.delays()), "[100ms 200ms 400ms]"; got != want {
			t.Errorf("got delays %s, want %s", got, want)
		}
	})
}

func TestSharedServerDies(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		listen, _ := g.call(sharedListen(`"s"`))
		a, atA := g.call(sharedCallText(`"a"`, "tools/call", `,"progressToken":"t"`))
		b, atB := g.call(sharedPlain(`1.0`))
		stuck, atStuck := g.call(sharedCallText(`4`, "tools/call", `,"progressToken":"t"`))
		stuck.stops(true)
		g.peer().says(strings.Join([]string{talkProgress(atA.Token, "1"), talkProgress(atStuck.Token, "1"), talkResult(atB.ID, `{}`)}, "\n"))
		died := time.Now()
		g.peer().exit("signal: killed")
		b.hears(talkResult(`1.0`, `{}`)) // what it said before counts
		listen.refused(`"s"`, 502, "signal: killed")
		got := a.take()
		if len(got) != 2 || got[0] != talkProgress(`"t"`, "1") || !strings.Contains(got[1], `"exit":"signal: killed"`) {
			t.Errorf("got %q, want progress and 502", got)
		}
		if took := time.Since(died); took != 0 {
			t.Errorf("got the answers after %v, want them at once", took)
		}
		stuck.stops(false)
		if got := stuck.take(); len(got) != 2 || !strings.Contains(got[1], `"code":502`) {
			t.Errorf("got %q, want progress and 502", got)
		}
	})
}

// A process that closed its output serves nobody, and one that closed its input nobody any more.
func TestSharedServerClosesPipes(t *testing.T) {
	t.Run("output", func(t *testing.T) {
		sharedTest(t, func(g *sharedRig) {
			x, _ := g.call(sharedPlain("1"))
			g.peer().out.Close()
			time.Sleep(time.Second) // to tell how it ended
			x.refused("1", 502, "exit status 0")
			g.diesOnce(0)
		})
	})
	t.Run("input", func(t *testing.T) {
		sharedTest(t, func(g *sharedRig) {
			first, _ := g.call(sharedListen("1"))
			g.peer().in.CloseWithError(io.ErrClosedPipe)
			x := g.posts(sharedPlain("2"))
			time.Sleep(time.Second)
			x.refused("2", 502, "exit status 0")
			first.refused("1", 502, "exit status 0")
			g.diesOnce(0)
		})
	})
}

// The process is told how long a call may take, and the client hears 504.
func TestSharedTimeout(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		g.p.Sessions.bounds.CallTimeout = time.Minute
		x, at := g.call(sharedCallText(`"a"`, "tools/call", `,"progressToken":"t"`))
		listen, _ := g.call(sharedListen(`"s"`))
		time.Sleep(59 * time.Second)
		g.peer().says(talkProgress(at.Token, "1"))
		x.hears(talkProgress(`"t"`, "1"))
		time.Sleep(59 * time.Second)
		x.isOver(false, false)
		time.Sleep(time.Second)
		x.refused(`"a"`, 504, "")
		x.isOver(true, false)
		g.peer().hearsCancel(at)
		g.peer().silent()
		listen.isOver(false, false)
	})
}

func TestSharedClose(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		a, _ := g.call(sharedPlain("1"))
		b, _ := g.call(sharedListen("2"))
		g.d.Close() // returns though they wait
		a.refused("1", 502, "exit status 0")
		b.refused("2", 502, "exit status 0")
		late := g.posts(sharedPlain("3"))
		time.Sleep(time.Minute)
		if got := late.take(); len(got) != 1 || !strings.Contains(got[0], `"id":3,"error":{"code":50`) {
			t.Errorf("after Close: got %q, want a refusal", got)
		}
		g.d.Close()
		if len(g.starts) != 1 {
			t.Errorf("got %d processes, want none after Close", len(g.starts))
		}
	})
}

// The proxy ends with calls in flight, with one that waits for the process to start, and one whose client does not read.
func TestSharedShutdown(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		a, _ := g.call(sharedPlain("1"))
		g.p.Close()
		a.refused("1", 503, "")
	})
	sharedTest(t, func(g *sharedRig) {
		g.diesOnce(0)
		b := g.posts(sharedPlain("2"))
		b.isOver(false, false)
		g.p.Close()
		b.refused("2", 503, "")
		g.d.Close()
		b.isOver(true, false)
	})
}

// An answer over the size limit is refused under the client's own id, for a subscription too.
func TestSharedAnswerTooLong(t *testing.T) {
	sharedTest(t, func(g *sharedRig) {
		g.d.shared.max = 20_000
		for _, text := range []string{sharedPlain(`"a"`), sharedListen(`"a"`)} {
			x, at := g.call(text)
			g.peer().says(talkResult(at.ID, `"`+strings.Repeat("x", 30_000)+`"`))
			x.refused(`"a"`, 502, "")
		}
	})
}

func TestSharedAnswerTooLongStatus(t *testing.T) {
	for _, method := range []string{"tools/list", methodListen} {
		inFront(t, nil, func(g *frontRig) {
			body, headers := frontModern("7", method, "")
			p := g.start("POST", body, headers...)
			child := <-g.children
			child.says(frontResult(child.hears(method).ID, `"`+strings.Repeat("x", 1<<20)+`"`))
			frontRefusal{502, 502, "7"}.check(t, p.answer())
		})
	}
}

// What HTTP asks of a server is done for the process, which sees no headers.
func TestSharedHeaders(t *testing.T) {
	body, good := frontModern("7", "tools/call", `,"name":"n","arguments":{}`)
	good = append(good, "Mcp-Name: n")
	without := `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"n"%s}}`
	for _, c := range []struct {
		name, body string
		headers    []string
		want       frontRefusal
	}{
		{"method", body, []string{good[0], "Mcp-Method: tools/list", good[2]}, frontRefusal{400, -32020, "7"}},
		{"method in another case", body, []string{good[0], "Mcp-Method: Tools/call", good[2]}, frontRefusal{400, -32020, "7"}},
		{"no method", body, []string{good[0], good[2]}, frontRefusal{400, -32020, "7"}},
		{"name", body, []string{good[0], good[1], "Mcp-Name: m"}, frontRefusal{400, -32020, "7"}},
		{"no name", body, good[:2], frontRefusal{400, -32020, "7"}},
		{"no version", body, good[1:], frontRefusal{400, -32020, "7"}},
		{"older version", body, []string{"MCP-Protocol-Version: 2025-11-25", good[1], good[2]}, frontRefusal{400, -32020, "7"}},
		{"no _meta", fmt.Sprintf(without, ``), good, frontRefusal{400, -32602, "7"}},
		{"no version in _meta", fmt.Sprintf(without, `,"_meta":{"progressToken":1}`), good, frontRefusal{400, -32602, "7"}},
		{"version is no string", fmt.Sprintf(without, `,"_meta":{"io.modelcontextprotocol/protocolVersion":20260728}`), good, frontRefusal{400, -32602, "7"}},
		{"a response", frontResult("7", `{}`), good[:1], frontRefusal{400, -32600, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFront(t, nil, func(g *frontRig) {
				c.want.check(t, g.do("POST", c.body, c.headers...))
				if len(g.children) > 0 {
					t.Error("got a process started for what is refused, want none")
				}
				p := g.start("POST", body, good...)
				child := <-g.children
				at := child.hears("tools/call")
				child.hearsNothing()
				child.says(frontResult(at.ID, `{}`))
				if got := frontBody(t, p.answer()); got != frontResult("7", `{}`) {
					t.Errorf("afterwards: got %s, want the server's answer", got)
				}
			})
		})
	}
}
