// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// linesOf reads r as readLines does. What is too long stands there with its length cut to 1 KiB and a
// mark before it.
func linesOf(r io.Reader, max int) (lines []string, err error) {
	err = readLines(r, max, func(line string, _ bool) { lines = append(lines, line) },
		func(start string) { lines = append(lines, "too long: "+start) })
	return lines, err
}

// lineReaders are the ways in which bytes may arrive.
func lineReaders(text string) map[string]io.Reader {
	return map[string]io.Reader{
		"whole":       strings.NewReader(text),
		"byte":        iotest.OneByteReader(strings.NewReader(text)),
		"half":        iotest.HalfReader(strings.NewReader(text)),
		"end at once": iotest.DataErrReader(strings.NewReader(text)),
	}
}

func TestReadLines(t *testing.T) {
	for _, c := range []struct {
		text string
		max  int
		want []string
	}{
		{"", 10, nil},
		{"\n", 10, nil},
		{"a\nb\n", 10, []string{"a", "b"}},
		{"a\r\nb\r\n", 10, []string{"a", "b"}},
		{"a\nb", 10, []string{"a", "b"}},
		{"a\r", 10, []string{"a"}},
		{"a\rb\n", 10, []string{"a\rb"}}, // a CR inside is no end of a line
		{"\n\r\n \t\n\na\n\n\nb\n\n", 10, []string{"a", "b"}},
		{" a \n", 10, []string{" a "}},
		{"0123456789\nb\n", 10, []string{"0123456789", "b"}},
		{"0123456789\r\nb\n", 10, []string{"0123456789", "b"}},
		{"0123456789", 10, []string{"0123456789"}},
		{"0123456789a\nb\n", 10, []string{"too long: 0123456789a", "b"}},
		{"0123456789a\r\nb", 10, []string{"too long: 0123456789a", "b"}},
		{"0123456789a", 10, []string{"too long: 0123456789a"}},
		{"a\n0123456789ab\n0123456789ab\nb", 10, []string{"a", "too long: 0123456789ab", "too long: 0123456789ab", "b"}},
		{"é\n\xff\n", 10, []string{"é", "\xff"}},
	} {
		for how, r := range lineReaders(c.text) {
			if got, err := linesOf(r, c.max); !slices.Equal(got, c.want) || err != nil {
				t.Errorf("%q, %s: got %q, %v, want %q", c.text, how, got, err, c.want)
			}
		}
	}
}

// What is shown of a line that is too long is of that line alone, also when less than 1 KiB of it is
// there, and wherever in the buffer it stands.
func TestReadLinesTooLongIsItself(t *testing.T) {
	for before := lineBuffer - 40; before <= lineBuffer; before++ {
		text := strings.Repeat("x", 9) + "\n"
		text = strings.Repeat(text, before/10) + strings.Repeat("\n", before%10)
		r := io.MultiReader(strings.NewReader(text), iotest.OneByteReader(strings.NewReader("0123456789abcdef\nnext\n")))
		got, err := linesOf(r, 10)
		if err != nil || len(got) < 2 {
			t.Fatalf("%d bytes before: got %d lines, %v", before, len(got), err)
		}
		start, cut := strings.CutPrefix(got[len(got)-2], "too long: ")
		if !cut || len(start) < 11 || !strings.HasPrefix("0123456789abcdef", start) || got[len(got)-1] != "next" {
			t.Fatalf("%d bytes before: got %.60q, want the line that is too long and the next", before, got[len(got)-2:])
		}
	}
}

func TestReadLinesLong(t *testing.T) {
	const size = 10 << 20
	long := strings.Repeat("0123456789abcde\x00", size/16)
	for _, c := range []struct {
		max  int
		want int
	}{{size, size}, {size - 1, peekBytes + len("too long: ")}} {
		got, err := linesOf(strings.NewReader("a\n"+long+"\nb\n"), c.max)
		if err != nil || len(got) != 3 || got[0] != "a" || len(got[1]) != c.want || got[2] != "b" ||
			!strings.HasPrefix(long, strings.TrimPrefix(got[1], "too long: ")) {
			t.Errorf("limit %d: got %d lines, %v, want 3 with %d bytes in the second", c.max, len(got), err, c.want)
		}
	}
}

func TestReadLinesErrors(t *testing.T) {
	fail := errors.New("fail")
	for _, text := range []string{"a\n", "a\nb", "a\n" + strings.Repeat("b", 40)} {
		r := io.MultiReader(strings.NewReader(text), iotest.ErrReader(fail))
		if got, err := linesOf(r, 10); err != fail || len(got) == 0 || got[0] != "a" {
			t.Errorf("%q: got %q, %v, want the lines before and %v", text, got, err, fail)
		}
	}
}

// more lets a writer wait for the next message: that must come at once, whatever stands between.
func TestReadLinesMore(t *testing.T) {
	for _, text := range []string{
		"a\nb\n", "a\n\n", "a\n\n\nb\n", "a\n  \n", "a\n\r\n", "a\n0123456789a\n", "a\nb", "a\nb\n\nc\n", "a\n", "a\n \t b\n",
	} {
		last, calls := false, 0
		blank := func(more bool) { last = more; calls++ }
		pr, pw := io.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			readLines(pr, 10, func(_ string, more bool) { blank(more) }, func(string) {
				if last {
					t.Errorf("%q: a line that is too long came where a message was announced", text)
				}
			})
		})
		io.WriteString(pw, text) // returns when it was read
		pw.Close()
		wg.Wait()
		if last || calls == 0 {
			t.Errorf("%q: after %d lines got more %v, want false", text, calls, last)
		}
	}
	var got []bool
	readLines(strings.NewReader("a\nb\nc\n"), 10, func(_ string, more bool) { got = append(got, more) }, nil)
	if want := []bool{true, true, false}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLineReaderShrinks(t *testing.T) {
	long := strings.Repeat("x", 5*lineBuffer) + "\n"
	l := lineReader{r: strings.NewReader("a\n" + long + "b\n" + long + "c"), max: 1 << 20, buf: make([]byte, lineBuffer)}
	for i, want := range []string{"a\n", long, "b\n", long, "c"} {
		line, whole, err := l.next()
		if string(line) != want || !whole || (err != nil) != (i == 4) {
			t.Fatalf("line %d: got %d bytes, %v, %v, want %d", i, len(line), whole, err, len(want))
		}
		if line = nil; i >= 3 || i == 0 {
			if l.shrink(); len(l.buf) != lineBuffer {
				t.Errorf("after line %d: got a buffer of %d bytes, want %d", i, len(l.buf), lineBuffer)
			}
		} else {
			l.shrink()
		}
	}
}

func FuzzReadLines(f *testing.F) {
	for _, text := range []string{"a\nb", "\r\n\n a\r\n", "0123456789ab\nc", "\xff\n\x00\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nb\n"} {
		f.Add([]byte(text), uint8(10))
	}
	f.Fuzz(func(t *testing.T, text []byte, max uint8) {
		if bytes.Contains(text, []byte("\r\r")) {
			t.Skip("how many CRs count as the end of a line is open")
		}
		var want []string
		for _, line := range bytes.Split(text, []byte("\n")) {
			line = bytes.TrimSuffix(line, []byte("\r"))
			switch {
			case len(line) > int(max):
				want = append(want, "too long: ")
			case len(line) > 0 && (line[0] > ' ' || len(bytes.TrimSpace(line)) > 0):
				want = append(want, string(line))
			}
		}
		for how, r := range lineReaders(string(text)) {
			got, err := linesOf(r, int(max))
			for i := range got {
				if start, cut := strings.CutPrefix(got[i], "too long: "); cut {
					if !bytes.Contains(text, []byte(start)) {
						t.Errorf("%s: got %q, which is not in the text", how, start)
					}
					got[i] = "too long: "
				}
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%q, %d, %s: got %q, %v, want %q", text, max, how, got, err, want)
			}
		}
	})
}

func TestPeekID(t *testing.T) {
	for _, c := range []struct{ start, want string }{
		{`{"jsonrpc":"2.0","id":7,"method":"a","params":{"x":"xx`, `7`},
		{`{"id":"a\"b","params":[`, `"a\"b"`},
		{` { "id" : 9007199254740993 , "a`, `9007199254740993`},
		{`{"params":{"id":1},"id":2,"x":"`, `2`},
		{`{"params":{"id":1},"x":"`, ``},
		{`{"params":{"id":1,`, ``},
		{`{"id":12`, ``}, // the rest of the number is not there
		{`{"id":12}`, `12`},
		{`{"id":1.`, ``},
		{`{"id":"ab`, ``},
		{`{"id"`, ``},
		{`{"id":null,"x`, ``},
		{`{"id":true,"x`, ``},
		{`{"id":false,"x`, ``},
		{`{"id":[1],"x`, ``},
		{`{"id":{"id":1},"x`, ``},
		{`[{"id":1,"x`, ``},
		{`"id":1`, ``},
		{`{"id":1 2`, `1`},
		{`{"id":1,"params":{"x":"`, `1`},
		{`xxxx`, ``},
		{``, ``},
	} {
		if got, _ := peekID(c.start); got != c.want {
			t.Errorf("%s: got %q, want %q", c.start, got, c.want)
		}
	}
}

// An id belongs to the side that made the call: to answer the other's is to answer the wrong call.
func TestPeekIDKind(t *testing.T) {
	for _, c := range []struct {
		start string
		want  Kind
	}{
		{`{"id":1,"method":"tools/call","params":{"x":"`, Call},
		{`{"method":"tools/call","id":1,"params":{"x":"`, Call},
		{`{"id":1,"result":{"x":"`, Response},
		{`{"error":{"x":1},"id":1,"y":"`, Response},
		{`{"id":1,"params":{"x":"`, Opaque},
	} {
		if id, kind := peekID(c.start); id != "1" || kind != c.want {
			t.Errorf("%s: got %s, %d, want 1, %d", c.start, id, kind, c.want)
		}
	}
	if e := tooLarge(`{"id":1,"result":{"x":"`); e.ID != "" {
		t.Errorf("got id %s in the refusal of a response, want none", e.ID)
	}
}

// A child that does not read must not hold on to those who write to it.
func TestLineConnPatience(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &lineConn{w: w, patience: 20 * time.Millisecond}
	defer c.Close()
	for _, size := range []int{1 << 20, 10} { // more than a pipe holds; and after that nothing goes
		if err := c.Send(t.Context(), &Message{Kind: Call, Raw: strings.Repeat("x", size)}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes: got %v, want %v", size, err, os.ErrDeadlineExceeded)
		}
	}
	c.waiting.Store(maxWaiting)
	var busy *Error
	if err := c.Send(t.Context(), &Message{Kind: Call, Raw: "{}"}); !errors.As(err, &busy) || busy.Code != 503 {
		t.Errorf("too many senders: got %v, want 503", err)
	}
}

// linePipe is a lineConn and what its reader reads.
func linePipe() (*lineConn, *bufio.Reader) {
	r, w := io.Pipe()
	return &lineConn{w: w}, bufio.NewReader(r)
}

func TestLineConnConcurrently(t *testing.T) {
	const senders, each = 16, 100
	c, r := linePipe()
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				size := []int{1, 100, 10_000, lineBuffer - 3, lineBuffer + 1}[(i+s)%5]
				m := &Message{Raw: fmt.Sprintf("%d %d %s", s, i, strings.Repeat("x", size)), Kind: Notification}
				if err := c.Send(t.Context(), m); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := [senders]int{}
	for range senders * each { // more than that would never come: nobody calls Flush
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		from, rest, _ := strings.Cut(line, " ")
		number, x, _ := strings.Cut(rest, " ")
		s, err1 := strconv.Atoi(from)
		i, err2 := strconv.Atoi(number)
		if err1 != nil || err2 != nil || strings.Trim(x, "x") != "\n" {
			t.Fatalf("got %.40q, want a whole line", line)
		}
		if next[s] != i {
			t.Fatalf("sender %d: got message %d, want %d", s, i, next[s])
		}
		next[s]++
	}
	wg.Wait()
	if len(c.buf) != 0 {
		t.Errorf("got %d bytes left unwritten, want none", len(c.buf))
	}
}

// lineSink counts writes.
type lineSink struct {
	bytes.Buffer
	writes int
	fail   error
}

func (s *lineSink) Write(p []byte) (int, error) {
	s.writes++
	if s.fail != nil {
		return 0, s.fail
	}
	return s.Buffer.Write(p)
}

func (s *lineSink) WriteString(p string) (int, error) { return s.Write([]byte(p)) }
func (s *lineSink) Close() error                      { return nil }

func TestLineConnBatches(t *testing.T) {
	sink := &lineSink{}
	c := &lineConn{w: sink}
	send := func(raw string, more bool) {
		t.Helper()
		if err := c.Send(t.Context(), &Message{Raw: raw, Kind: Call, More: more}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string, writes int) {
		t.Helper()
		if got := sink.String(); got != want || sink.writes != writes {
			t.Errorf("got %.40q in %d writes, want %.40q in %d", got, sink.writes, want, writes)
		}
		sink.Reset()
		sink.writes = 0
	}
	send("1", true)
	send("2", true)
	check("", 0)
	send("3", false)
	check("1\n2\n3\n", 1)
	send("4", true)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	check("4\n", 1)
	c.Flush()
	check("", 0)
	for range 3 * lineBuffer / 1000 { // what is kept back is bounded
		send(strings.Repeat("x", 999), true)
	}
	if sink.writes == 0 || len(c.buf) > lineBuffer {
		t.Errorf("got %d writes and %d bytes kept back, want at most %d", sink.writes, len(c.buf), lineBuffer)
	}
	c.Flush()
	sink.Reset()
	send("5", true)
	send(strings.Repeat("y", lineBuffer+1), false) // the order stays
	if got := sink.String(); !strings.HasPrefix(got, "5\nyyy") || !strings.HasSuffix(got, "yyy\n") {
		t.Errorf("got %.20q, want 5 first", got)
	}
	c.Send(t.Context(), &Message{Raw: "opaque"})
	if strings.Contains(sink.String(), "opaque") {
		t.Error("got bytes that are no message written")
	}
}

func TestLineConnNewlines(t *testing.T) {
	for _, size := range []int{1, 2 * lineBuffer} {
		sink := &lineSink{}
		c := &lineConn{w: sink}
		m := sessParse(t, "{\r\n\t\"jsonrpc\": \"2.0\",\n\"method\": \"a\\nb\", \"params\":{\"x\":\""+strings.Repeat("x", size)+"\"}\n}")
		raw := m.Raw
		if err := c.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		want := strings.NewReplacer("\r", " ", "\n", " ").Replace(raw) + "\n"
		if got := sink.String(); got != want || m.Raw != raw {
			t.Errorf("got %.80q, want %.80q, and the message unchanged", got, want)
		}
	}
}

func TestLineConnErrorsStay(t *testing.T) {
	fail := errors.New("fail")
	for _, size := range []int{1, lineBuffer + 1} {
		sink := &lineSink{fail: fail}
		c := &lineConn{w: sink}
		m := &Message{Raw: strings.Repeat("x", size), Kind: Call}
		if err := c.Send(t.Context(), m); err != fail {
			t.Errorf("got %v, want %v", err, fail)
		}
		sink.fail = nil // half a line may have been written: nothing may follow it
		if err := c.Send(t.Context(), m); err != fail {
			t.Errorf("second: got %v, want %v", err, fail)
		}
		if err := c.Flush(); err != fail || sink.Len() != 0 {
			t.Errorf("got %v and %d bytes, want %v and none", err, sink.Len(), fail)
		}
	}
}

func TestLineConnCloseUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := linePipe()
		var wg sync.WaitGroup
		send := func() {
			if err := c.Send(t.Context(), &Message{Raw: "x", Kind: Call}); err == nil {
				t.Error("got a message sent that nobody read")
			}
		}
		wg.Go(send)
		synctest.Wait() // it writes; those that wait for its lock would never let the bubble rest
		wg.Go(send)
		wg.Go(send)
		c.Close()
		wg.Wait()
		if err := c.Send(t.Context(), &Message{Raw: "x", Kind: Call}); err == nil {
			t.Error("after Close: got no error")
		}
	})
}

// lineProcess is a server without buffers between it and the proxy.
func lineProcess(serve func(in *bufio.Reader, out io.Writer)) *process {
	serverIn, in := io.Pipe()
	out, serverOut := io.Pipe()
	done := make(chan struct{})
	go func() { // ends with its input or output
		defer close(done)
		serve(bufio.NewReader(serverIn), serverOut)
		serverIn.Close()
		serverOut.Close()
	}()
	return &process{in: in, out: out, done: done,
		status: func() string { return "exit status 3" },
		end: func() {
			in.Close()
			out.Close()
			<-done
		}}
}

// lineProxy is a proxy with one session for client and a server that runs serve.
func lineProxy(t *testing.T, client Conn, serve func(in *bufio.Reader, out io.Writer)) (*Proxy, *Session) {
	t.Helper()
	start := func() (*process, error) { return lineProcess(serve), nil }
	d := newCommandDialer(start, 1<<20, slog.New(slog.DiscardHandler))
	p := NewProxy(d, Bounds{Sessions: 1, Calls: 1000}, d.log)
	s, err := p.Open(t.Context(), client, "", false)
	if err != nil {
		t.Fatal(err)
	}
	return p, s
}

// A lock held while writing to a server, and taken by whoever reads from it, is the end of both once
// the pipes are full.
func TestNoDeadlockWhenPipesAreFull(t *testing.T) {
	const clients, calls = 32, 10
	text := strings.Repeat("x", 10_000)
	client := &sessConn{}
	p, s := lineProxy(t, client, func(in *bufio.Reader, out io.Writer) {
		for i := 0; ; i++ { // it speaks before it reads
			fmt.Fprintf(out, `{"jsonrpc":"2.0","id":%d,"method":"ping","params":{"x":"%s"}}`+"\n", i, text)
			fmt.Fprintf(out, `{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"%s"}}`+"\n", text)
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if m, err := Parse(line); err == nil && m.Kind == Call {
				fmt.Fprintf(out, `{"jsonrpc":"2.0","id":%s,"result":{"x":"%s"}}`+"\n", m.ID, text)
			}
		}
	})
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range calls {
				raw := fmt.Sprintf(`{"jsonrpc":"2.0","id":"%d-%d","method":"a","params":{"x":"%s"}}`, c, i, text)
				p.ToServer(t.Context(), s, sessParse(t, raw))
			}
		})
	}
	procWithin(t, "all answers", func() {
		wg.Wait()
		<-s.Quiet()
		p.Close()
	})
	answers := 0
	for _, m := range client.got {
		answers += btoi(strings.Contains(m, `"result"`))
	}
	if answers != clients*calls {
		t.Errorf("got %d answers, want %d", answers, clients*calls)
	}
}

// A message must not wait for another that never comes.
func TestNoMessageIsKeptBack(t *testing.T) {
	answer := `{"jsonrpc":"2.0","id":1,"result":{}}` + "\n"
	call := `{"jsonrpc":"2.0","id":1,"method":"a"}` + "\n"
	for _, c := range []struct{ name, say, answer string }{
		{"plain", call, answer},
		{"garbage after the answer", call, answer + "garbage\n"},
		{"a response to no call after it", call, answer + strings.Replace(answer, "1", "2", 1)},
		{"a blank line after it", call, answer + "\n"},
		{"a line that is too long after it", call, answer + strings.Repeat("x", 2<<20) + "\n"},
		{"part of a line after it", call, answer + "{"},
		{"a batch after it", call, answer + "[1]\n"},
		{"garbage after the call", call + "garbage\n", answer},
		{"a response to no call after the call", call + strings.Replace(answer, "1", "2", 1), answer},
		{"a blank line after the call", call + "\n", answer},
		{"part of a line after the call", call + "{", answer},
		{"a line that is too long after the call", call + strings.Repeat("x", 2<<20) + "\n", answer},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, clientIn := io.Pipe()
				clientOut, out := io.Pipe()
				heard := ""
				var wg sync.WaitGroup
				wg.Go(func() {
					for r := bufio.NewReader(clientOut); ; {
						line, err := r.ReadString('\n')
						if heard += line; err != nil {
							return
						}
					}
				})
				start := func() (*process, error) {
					return lineProcess(func(in *bufio.Reader, out io.Writer) {
						for {
							line, err := in.ReadString('\n')
							if err != nil {
								return
							}
							if line == call {
								io.WriteString(out, c.answer)
							}
						}
					}), nil
				}
				d := newCommandDialer(start, 1<<20, slog.New(slog.DiscardHandler))
				p := NewProxy(d, sessBounds(), d.log)
				wg.Go(func() {
					serveStdio(t.Context(), p, in, out, 1<<20, time.Second)
					out.Close()
				})
				io.WriteString(clientIn, c.say)
				synctest.Wait()
				if !strings.Contains(heard, answer) {
					t.Errorf("while the conversation goes on: got %.80q, want the answer", heard)
				}
				clientIn.Close()
				wg.Wait()
				d.Close()
			})
		})
	}
}
