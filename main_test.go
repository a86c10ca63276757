// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxyRoles are servers on stdio: "talk-server" answers each call with its id, "talk-dies" exits with 3 at the third
// call, leaving all of them unanswered.
func proxyRoles() map[string]func() {
	serve := func(dies bool) {
		calls := 0
		for r := bufio.NewReader(os.Stdin); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			h := newTalkHeard(line)
			switch {
			case h.Method == methodInitialize:
				fmt.Println(talkResult(string(h.ID), `{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"r","version":"1"}}`))
			case h.ID != nil && !dies:
				fmt.Println(talkResult(string(h.ID), `{"for":`+string(h.ID)+`}`))
			case h.ID != nil:
				if calls++; calls == 3 {
					fmt.Fprintln(os.Stderr, "last words")
					os.Exit(3)
				}
			}
		}
	}
	return map[string]func(){"talk-server": func() { serve(false) }, "talk-dies": func() { serve(true) }}
}

// A runOut is what the program writes.
type runOut struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *runOut) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *runOut) Close() error { return nil }

func (o *runOut) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// runWith runs the program and returns its exit status, stdout and stderr.
func runWith(in io.Reader, args ...string) (code int, out, err string) {
	var o, e runOut
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	code = run(ctx, args, func(string) (string, bool) { return "", false }, stdio{in, &o, &e})
	return code, o.String(), e.String()
}

func TestRunStatus(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, x := range []struct {
		args     string
		code     int
		out, err string // parts; "" for nothing at all
	}{
		{"-help", 0, "mcpproxy", ""},
		{"help forward", 0, "-stdio", ""},
		{"-version", 0, "mcpproxy " + version, ""},
		{"-mode=forward -demo -nonsense", 2, "", "-nonsense"},
		{"-mode=nonsense", 2, "", "nonsense"},
		{"-mode=forward", 2, "", "-stdio"},
		{"-mode=forward -demo -max-calls=x", 2, "", "-max-calls"},
		{"-mode=forward -stdio /nonexistent/command", 1, "", "/nonexistent/command"},
		{"-mode=forward -listen " + l.Addr().String() + " -demo", 1, "", "address already in use"},
	} {
		began := time.Now()
		code, out, stderr := runWith(strings.NewReader(""), strings.Fields(x.args)...)
		if code != x.code || !strings.Contains(out, x.out) || !strings.Contains(stderr, x.err) || x.out == "" && out != "" || x.err == "" && stderr != "" {
			t.Errorf("%s: got status %d, stdout %q, stderr %q, want %d, %q, %q", x.args, code, out, stderr, x.code, x.out, x.err)
		}
		if x.code == 1 && strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: got stderr %q, want one line", x.args, stderr)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v", x.args, took)
		}
	}
}

// TestRunDemo pipes a whole conversation in, whose end comes before its answers.
func TestRunDemo(t *testing.T) {
	in := demoLegacyCall(`1`, "initialize", `"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}`) + "\n" +
		`{"jsonrpc":"2.0","method":"notifications/initialized"}` + "\r\n\n" +
		demoLegacyCall(`"é"`, "tools/call", demoTool("echo", `"text":"日本"`)) + "\n" +
		demoLegacyCall(`9007199254740993`, "tools/call", demoTool("countdown", `"from":2`))
	code, out, stderr := runWith(strings.NewReader(in), "-mode=forward", "-demo")
	if code != 0 {
		t.Errorf("got status %d and stderr %q, want 0", code, stderr)
	}
	for _, want := range []string{`"id":1,`, `"id":"é",`, "日本", `"id":9007199254740993,`} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %s in it", out, want)
		}
	}
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("got line %q on stdout, want messages only", line)
		}
	}
}

// TestRunServerDies has a child that ends with calls in flight.
func TestRunServerDies(t *testing.T) {
	t.Setenv("MCPPROXY_TEST_CHILD", "talk-dies")
	var in strings.Builder
	for i := range 3 {
		fmt.Fprintf(&in, `{"jsonrpc":"2.0","id":%d,"method":"x"}`+"\n", i)
	}
	code, out, stderr := runWith(strings.NewReader(in.String()), "-mode=forward", "-stdio", os.Args[0])
	for i := range 3 {
		if want := fmt.Sprintf(`"id":%d,"error":{"code":502,`, i); !strings.Contains(out, want) {
			t.Errorf("got %q, want %s in it", out, want)
		}
	}
	if code != 1 || strings.Count(out, `"exit":"exit status 3"`) != 3 || !strings.Contains(stderr, "last words") || !strings.Contains(stderr, "mcpproxy: server ended: exit status 3") {
		t.Errorf("got status %d, stdout %q, stderr %q, want 1, exit status 3 and the server's last words", code, out, stderr)
	}
	if strings.Contains(out, os.Args[0]) || strings.Contains(out, "last words") {
		t.Errorf("got %q, want nothing of the inside", out)
	}
}

// talkUsed counts what sessions could leave behind.
func talkUsed() (goroutines, files, children int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range lists {
		b, _ := os.ReadFile(name)
		children += len(strings.Fields(string(b)))
	}
	return runtime.NumGoroutine(), len(entries), children
}

// talkSession opens a session over HTTP, makes a call, and deletes the session, unless it leaves.
func talkSession(client *http.Client, url string, stream bool) error {
	do := func(ctx context.Context, method, body, session string) (*http.Response, error) {
		r, _ := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("Content-Type", "application/json")
		if session != "" {
			r.Header.Set("Mcp-Session-Id", session)
		}
		return client.Do(r)
	}
	ctx := context.Background()
	resp, err := do(ctx, "POST", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}`, "")
	if err != nil {
		return err
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	session := resp.Header.Get("Mcp-Session-Id")
	if stream { // ends with the session
		get, err := do(ctx, "GET", "", session)
		if err != nil {
			return err
		}
		defer get.Body.Close()
		defer io.Copy(io.Discard, get.Body)
	}
	if resp, err = do(ctx, "POST", `{"jsonrpc":"2.0","id":"é","method":"x"}`, session); err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := talkResult(`"é"`, `{"for":"é"}`); string(body) != want {
		return fmt.Errorf("got %q, %v, want %s", body, err, want)
	}
	if resp, err = do(ctx, "DELETE", "", session); err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("got status %d for DELETE", resp.StatusCode)
	}
	return nil
}

// TestSessionsLeaveNothing opens and closes 200 sessions with a process each.
func TestSessionsLeaveNothing(t *testing.T) {
	procOnly(t, true)
	t.Setenv("MCPPROXY_TEST_CHILD", "talk-server")
	log := slog.New(slog.DiscardHandler)
	d, err := newDialer(t.Context(), &Config{Stdio: []string{os.Args[0]}, MaxMessage: 1 << 20}, log, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p := NewProxy(d, Bounds{Sessions: 20, Calls: 10, Idle: time.Minute, Lifetime: time.Hour, CallTimeout: time.Minute}, log)
	server := httptest.NewServer(&httpFront{Proxy: p, Log: log, Command: true, Max: 1 << 20})
	client := server.Client()
	sessions := func(n int) {
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := range 4 {
			wg.Go(func() {
				for j := range n / 4 {
					if err := talkSession(client, server.URL+endpoint, (i+j)%2 == 0); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	idle := func() (goroutines, files, children int) {
		p.Sessions.Wait()
		client.CloseIdleConnections()
		return talkUsed()
	}
	sessions(4)
	var goroutines, files int
	procPoll(t, "the children of the first sessions to end", func() bool {
		var children int
		goroutines, files, children = idle()
		return children == 0
	})
	sessions(200)
	var g, f, c int
	procPoll(t, "everything to be as it was", func() bool {
		g, f, c = idle()
		return g <= goroutines && f <= files && c == 0
	})
	if t.Failed() {
		t.Logf("got %d goroutines, %d files, %d children, want %d, %d, 0", g, f, c, goroutines, files)
	}
	server.Close()
	p.Close()
	d.Close()
}
