// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
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
	return &process{in: in, out: out, done: s.done, status: func() string { return s.status }, end: end}, nil
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
