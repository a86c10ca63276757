// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A frontChild is the process of a command.
type frontChild struct {
	t      *testing.T
	in     *io.PipeReader
	out    *io.PipeWriter
	heard  chan *Message // what the script left to the test
	done   chan struct{}
	status string // set before it ends
	once   sync.Once
}

func (g *frontRig) startChild() (*process, error) {
	if g.broken != nil {
		return nil, g.broken
	}
	inReader, in := io.Pipe()
	out, outWriter := io.Pipe()
	c := &frontChild{t: g.t, in: inReader, out: outWriter, heard: make(chan *Message, 1000), done: make(chan struct{}), status: "exit status 0"}
	script := g.script
	if script == nil {
		script = frontScript
	}
	go func() { // ends with its input
		for lines := bufio.NewReader(inReader); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				c.exit()
				return
			}
			m, err := Parse(strings.TrimSpace(line))
			if err != nil {
				g.t.Errorf("child: got line %q: %v", line, err)
				continue
			}
			script(c, m)
		}
	}()
	g.children <- c
	return &process{in: in, out: out, done: c.done, status: func() string { return c.status }, end: func() {
		in.Close()
		c.exit()
	}}, nil
}

// frontScript answers initialize and test/echo, and leaves all else to the test.
func frontScript(c *frontChild, m *Message) {
	switch m.Method {
	case "initialize":
		revision, _ := unquote(member(m.Params, "protocolVersion"))
		c.says(frontResult(m.ID, `{"protocolVersion":"`+revision+`","capabilities":{},"serverInfo":{"name":"s","version":"1"}}`))
	case "test/echo":
		c.says(frontResult(m.ID, `{"echo":true}`))
	default:
		c.heard <- m
	}
}

func (c *frontChild) says(line string) { io.WriteString(c.out, line+"\n") }

// exit is the end of the process.
func (c *frontChild) exit() {
	c.once.Do(func() {
		close(c.done)
		c.in.CloseWithError(io.ErrClosedPipe)
		c.out.Close()
	})
}

// hears wants the next message to have this method ("" for a response).
func (c *frontChild) hears(method string) *Message {
	c.t.Helper()
	select {
	case m := <-c.heard:
		if m.Method != method {
			c.t.Fatalf("child: got %s, want method %q", m.Raw, method)
		}
		return m
	case <-time.After(time.Minute):
		c.t.Fatalf("child: got nothing, want method %q", method)
	}
	return nil
}

// hearsNothing wants no message once all is quiet.
func (c *frontChild) hearsNothing() {
	c.t.Helper()
	synctest.Wait()
	select {
	case m := <-c.heard:
		c.t.Errorf("child: got %s, want nothing", m.Raw)
	default:
	}
}

func (c *frontChild) ended() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// A frontLog is a log that a test can look into.
type frontLog struct {
	mu sync.Mutex // protects following
	b  bytes.Buffer
}

func (l *frontLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *frontLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A frontNet is a listener in memory. What a client has yet to read is bounded.
type frontNet struct {
	addr   string
	remote string // the client's address in conns to come
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newFrontNet(addr string) *frontNet {
	return &frontNet{addr: addr, remote: "127.0.0.1:50000", conns: make(chan net.Conn), closed: make(chan struct{})}
}

type frontAddr string

func (frontAddr) Network() string  { return "tcp" }
func (a frontAddr) String() string { return string(a) }

type frontConn struct {
	net.Conn
	remote frontAddr
}

func (c frontConn) RemoteAddr() net.Addr { return c.remote }

// A frontClientConn reads ahead up to 64 writes.
type frontClientConn struct {
	net.Conn
	parts  chan []byte // closed at the end
	rest   []byte
	closed chan struct{}
	once   sync.Once
}

func newFrontClientConn(conn net.Conn) *frontClientConn {
	c := &frontClientConn{Conn: conn, parts: make(chan []byte, 64), closed: make(chan struct{})}
	go func() { // ends with conn
		defer close(c.parts)
		for {
			b := make([]byte, 64<<10)
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			select {
			case c.parts <- b[:n]:
			case <-c.closed:
				return
			}
		}
	}()
	return c
}

func (c *frontClientConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case c.rest = <-c.parts:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *frontClientConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (n *frontNet) Addr() net.Addr { return frontAddr(n.addr) }

func (n *frontNet) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *frontNet) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *frontNet) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case n.conns <- frontConn{server, frontAddr(n.remote)}:
		return newFrontClientConn(client), nil
	case <-n.closed:
		return nil, fmt.Errorf("dial %s: connection refused", n.addr)
	}
}

// raw opens a conn for what net/http's client would not do.
func (g *frontRig) raw() net.Conn {
	c, err := g.net.dial(context.Background(), "", "")
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}
