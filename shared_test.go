// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A sharedRig is a shared server under a proxy in a bubble. The test is the process and the clients.
type sharedRig struct {
	t      *testing.T
	p      *Proxy
	d      *commandDialer
	broken error // why no process can be started
	cancel context.CancelFunc
	ctx    context.Context
	wg     sync.WaitGroup

	mu     sync.Mutex // protects following
	peers  []*sharedPeer
	starts []time.Time
}

// sharedTest runs f in a bubble of its own, which must be empty afterwards.
func sharedTest(t *testing.T, f func(g *sharedRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &sharedRig{t: t}
		g.ctx, g.cancel = context.WithCancel(context.Background())
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		g.d = newCommandDialer(g.start, 64<<20, log)
		g.p = NewProxy(g.d, Bounds{Sessions: 100, Calls: 10}, log)
		defer g.close()
		f(g)
	})
}

// close ends all there is, as the program does.
func (g *sharedRig) close() {
	g.cancel()
	g.p.Close()
	g.d.Close()
	g.wg.Wait()
}

// A sharedPeer is the process.
type sharedPeer struct {
	t      *testing.T
	in     *io.PipeReader
	out    *io.PipeWriter
	heard  chan *Message
	done   chan struct{}
	status string
	once   sync.Once
}

func (g *sharedRig) start() (*process, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.starts = append(g.starts, time.Now())
	if g.broken != nil {
		return nil, g.broken
	}
	inReader, in := io.Pipe()
	out, outWriter := io.Pipe()
	s := &sharedPeer{t: g.t, in: inReader, out: outWriter, heard: make(chan *Message, 1000), done: make(chan struct{})}
	g.peers = append(g.peers, s)
	go readLines(inReader, 64<<20, func(line string, _ bool) {
		m, err := Parse(line)
		if err != nil {
			g.t.Errorf("got line %q at the server, want a message: %v", line, err)
			return
		}
		s.heard <- m
	}, func(string) { g.t.Error("got a line over the limit at the server") })
	end := func() { in.Close(); s.exit("exit status 0") }
	return &process{in: in, out: out, done: s.done, status: func() (string, bool) { return s.status, s.status == "exit status 0" }, end: end}, nil
}

func (s *sharedPeer) exit(status string) {
	s.once.Do(func() {
		s.status = status
		close(s.done)
		s.in.CloseWithError(io.ErrClosedPipe)
		s.out.Close()
	})
}

func (s *sharedPeer) says(text string) { io.WriteString(s.out, text+"\n") }

// hears is the next message at the process.
func (s *sharedPeer) hears() *Message {
	s.t.Helper()
	synctest.Wait()
	select {
	case m := <-s.heard:
		return m
	default:
		s.t.Fatal("got no message at the server, want one")
		return nil
	}
}

func (s *sharedPeer) silent() {
	s.t.Helper()
	synctest.Wait()
	if len(s.heard) > 0 {
		s.t.Errorf("got %.300q at the server, want nothing", (<-s.heard).Raw)
	}
}

// hearsCancel wants the cancellation of a call that the process knows as m.
func (s *sharedPeer) hearsCancel(m *Message) {
	s.t.Helper()
	got := s.hears()
	if got.Method != methodCancelled || member(got.Params, "requestId") != m.ID {
		s.t.Errorf("got %q at the server, want a cancellation of %s", got.Raw, m.ID)
	}
}

// peer is the process that runs, and was started now if it is the first.
func (g *sharedRig) peer() *sharedPeer {
	g.t.Helper()
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.peers) == 0 {
		g.t.Fatal("got no process, want one")
	}
	return g.peers[len(g.peers)-1]
}

// A sharedStream is where a client waits for what belongs to its call.
type sharedStream struct {
	t       *testing.T
	giveUp  context.CancelFunc
	left    chan struct{} // closed when the proxy is done with the call
	aborted chan struct{}

	mu     sync.Mutex // protects following, but is not held while a Send waits
	reads  *sync.Cond
	stuck  bool
	broken bool
	ended  bool
	got    []string
}

func (x *sharedStream) Send(m *Message) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.stuck && !x.broken {
		x.reads.Wait()
	}
	if x.broken || x.ended {
		return errClosed
	}
	if m.Kind != Opaque {
		x.got = append(x.got, m.Raw)
	}
	x.ended = m.Last || m.Kind == Response
	return nil
}

func (x *sharedStream) Abort() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken {
		x.t.Error("got a stream aborted twice")
		return
	}
	x.broken = true
	x.reads.Broadcast()
	close(x.aborted)
}

// stops lets the client read nothing more, until it reads again.
func (x *sharedStream) stops(stuck bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stuck = stuck
	x.reads.Broadcast()
}

// hears wants what came on the stream since it was last asked, byte for byte.
func (x *sharedStream) hears(want ...string) {
	x.t.Helper()
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	if !slices.Equal(x.got, want) {
		x.t.Errorf("client:\ngot  %.1000q\nwant %.1000q", x.got, want)
	}
	x.got = nil
}

// take is what came since, for what hears is too strict.
func (x *sharedStream) take() []string {
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	got := x.got
	x.got = nil
	return got
}

// isOver wants the proxy to have finished the call, or not, and the stream to have been broken off, or not.
func (x *sharedStream) isOver(want, broken bool) {
	x.t.Helper()
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	select {
	case <-x.left:
		if !want {
			x.t.Error("got the call over, want it in flight")
		}
	default:
		if want {
			x.t.Error("got the call in flight, want it over")
		}
	}
	if x.broken != broken {
		x.t.Errorf("got stream broken %t, want %t", x.broken, broken)
	}
}

// refused wants one answer alone, with this code and exit status.
func (x *sharedStream) refused(id string, code int, exit string) {
	x.t.Helper()
	got := x.take()
	if len(got) != 1 {
		x.t.Errorf("got %.500q, want one refusal", got)
		return
	}
	m := sessParse(x.t, got[0])
	status, _ := unquote(member(member(m.Error, "data"), "exit"))
	if m.ID != id || member(m.Error, "code") != fmt.Sprint(code) || status != exit {
		x.t.Errorf("got %s, want id %s, code %d and exit %q", m.Raw, id, code, exit)
	}
}

// posts lets a client send text in a request of its own.
func (g *sharedRig) posts(text string) *sharedStream {
	g.t.Helper()
	x := &sharedStream{t: g.t, left: make(chan struct{}), aborted: make(chan struct{})}
	x.reads = sync.NewCond(&x.mu)
	var ctx context.Context
	ctx, x.giveUp = context.WithCancel(g.ctx)
	m := sessParse(g.t, text)
	m.Stream = x
	g.wg.Go(func() {
		defer close(x.left)
		defer x.giveUp()
		s, err := g.p.Open(ctx, &httpClient{}, "", true)
		if err != nil {
			g.t.Error(err)
			return
		}
		g.p.ToServer(ctx, s, m)
		g.p.Sessions.End(s, errServed)
	})
	return x
}

// call posts text and returns it as the process got it.
func (g *sharedRig) call(text string) (*sharedStream, *Message) {
	g.t.Helper()
	x := g.posts(text)
	return x, g.peer().hears()
}

// sharedCallText is a call; meta follows the revision in its _meta.
func sharedCallText(id, method, meta string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method +
		`","params":{"name":"n","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"` + meta + `}}}`
}

func sharedPlain(id string) string  { return sharedCallText(id, "tools/call", "") }
func sharedListen(id string) string { return sharedCallText(id, methodListen, "") }

// sharedLogging is a call that asks for log messages.
func sharedLogging(id string) string {
	return sharedCallText(id, "tools/call", `,"io.modelcontextprotocol/logLevel":"debug"`)
}

const sharedLog = `{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}`

func sharedEvent(method, id string) string {
	return `{"jsonrpc":"2.0","method":"notifications/` + method + `","params":{"_meta":{"` + subscriptionID + `":` + id + `}}}`
}

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

// sharedDies makes one call after the other, each to a process that dies at once, and returns when processes were started.
func (g *sharedRig) diesOnce(life time.Duration) {
	g.t.Helper()
	x := g.posts(sharedPlain("1"))
	n := len(g.starts)
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
