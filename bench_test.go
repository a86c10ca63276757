// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	benchCall   = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"0123456789012345678901234567890123456789012345678901234567890123456789"}}}`
	benchAnswer = `{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"0123456789012345678901234567890123456789012345678901234567890123456789"}]}}`
)

// benchFront serves HTTP in front of the server that dialer reaches.
func benchFront(b *testing.B, dialer Dialer, command bool) *httptest.Server {
	log := slog.New(slog.DiscardHandler)
	p := NewProxy(dialer, Bounds{Sessions: 1000, Calls: 256}, log)
	front := httptest.NewServer(&httpFront{Proxy: p, Log: log, Command: command, Max: 1 << 20})
	b.Cleanup(func() { front.Close(); p.Close() })
	return front
}

// benchPost posts the call again and again over one connection.
func benchPost(b *testing.B, front *httptest.Server, session string) {
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if session != "" {
		session = "Mcp-Session-Id: " + session + "\r\n"
	}
	request := fmt.Sprintf("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n%sContent-Length: %d\r\n\r\n%s",
		session, len(benchCall), benchCall)
	r := bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		io.WriteString(conn, request)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), benchAnswer) {
			b.Fatalf("got %d %s", resp.StatusCode, body)
		}
	}
}

func benchHTTPToHTTP(b *testing.B, mediaType, body string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		io.WriteString(w, body)
	}))
	defer server.Close()
	u, _ := url.Parse(server.URL)
	d := newHTTPDialer(u, nil, 1<<20, slog.New(slog.DiscardHandler))
	defer d.Close()
	benchPost(b, benchFront(b, d, false), "")
}

func BenchmarkHTTPToHTTP(b *testing.B) { benchHTTPToHTTP(b, "application/json", benchAnswer) }

func BenchmarkHTTPToHTTPEvents(b *testing.B) {
	benchHTTPToHTTP(b, "text/event-stream", "data: "+benchAnswer+"\n\n")
}

// benchServer answers every call on a line, under its id.
func benchServer() (*process, error) {
	serverIn, in := io.Pipe()
	out, serverOut := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer serverOut.Close()
		for r := bufio.NewReader(serverIn); ; {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			m, _ := Parse(string(line))
			answer := strings.Replace(benchAnswer, `"id":7`, `"id":`+m.ID, 1)
			if m.Method == methodInitialize {
				answer = `{"jsonrpc":"2.0","id":` + m.ID + `,"result":{"protocolVersion":"2025-06-18"}}`
			}
			io.WriteString(serverOut, answer+"\n")
		}
	}()
	return &process{in: in, out: out, done: done, status: func() string { return "exit status 0" },
		end: func() { in.Close(); <-done }}, nil
}

func BenchmarkHTTPToStdio(b *testing.B) {
	d := newCommandDialer(benchServer, 1<<20, slog.New(slog.DiscardHandler))
	defer d.Close()
	front := benchFront(b, d, true)
	resp, err := http.Post(front.URL+"/mcp", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":0,"method":"initialize"}`))
	if err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
	benchPost(b, front, resp.Header.Get(sessionHeader))
}

// A benchInput is so many calls.
type benchInput struct {
	left int
	rest string
}

func (r *benchInput) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.rest == "" && r.left > 0 {
			r.rest = strings.Replace(benchCall, `"id":7`, `"id":`+strconv.Itoa(1e6+r.left), 1) + "\n"
			r.left--
		}
		if r.rest == "" {
			return n, io.EOF
		}
		k := copy(p[n:], r.rest)
		n, r.rest = n+k, r.rest[k:]
	}
	return n, nil
}

type benchOutput struct{ io.Writer }

func (benchOutput) Close() error { return nil }

// BenchmarkStdioToStdio measures calls only: what the server says is not part of it.
func BenchmarkStdioToStdio(b *testing.B) {
	d := newCommandDialer(benchServer, 1<<20, slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	p := NewProxy(d, Bounds{Sessions: 1, Calls: 1 << 30}, slog.New(slog.DiscardHandler))
	b.ResetTimer()
	if err := serveStdio(b.Context(), p, &benchInput{left: b.N}, benchOutput{io.Discard}, 1<<20, 0); err != nil {
		b.Fatal(err)
	}
	d.Close()
}

// BenchmarkRecord records calls and their answers, 25 at a time, as they come over stdio.
func BenchmarkRecord(b *testing.B) {
	file := &tapeFile{path: filepath.Join(b.TempDir(), "r.jsonl"), sync: syncNever}
	if err := file.create(); err != nil {
		b.Fatal(err)
	}
	r := newRecorder(file, slog.New(slog.DiscardHandler))
	r.Redact = NewRedactor(nil, make([]byte, 32))
	s := &Session{}
	call, err := Parse(`{"jsonrpc":"2.0","id":1234567,"method":"tools/call","params":{"name":"echo","arguments":{"text":"` + strings.Repeat("x", 100) + `"}}}`)
	if err != nil {
		b.Fatal(err)
	}
	call.own = &PendingCall{Message: call, struck: 1} // by the session, also without a tape
	answer, err := Parse(`{"jsonrpc":"2.0","id":1234567,"result":{"content":[{"type":"text","text":"` + strings.Repeat("x", 100) + `"}]}}`)
	if err != nil {
		b.Fatal(err)
	}
	answer.Dir, answer.Answers = ToClient, call.own
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		call.own.seq.Store(0)
		r.Intercept(b.Context(), s, call)
		r.Intercept(b.Context(), s, answer)
		if i%25 == 0 {
			r.Flush()
		}
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}
