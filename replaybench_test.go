// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// benchReplay is a player of a file with benchCall on it, some other calls, and as many answers as needed.
func benchReplay(b *testing.B, size int) (p *Player, call string) {
	k := &tapeScript{session: 1}
	k.handshake("c")
	for range 100 {
		k.tools("other", `{}`, "x")
	}
	text := strings.Repeat("0123456789", size/10)
	call = replayCall(`7`, "echo", `{"text":"`+text+`"}`)
	k.exchange(call, replayAnswer(`7`, text))
	name := filepath.Join(b.TempDir(), "bench.jsonl")
	if err := os.WriteFile(name, []byte(k.tape()), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	p, err = OpenPlayer(f, name, PlayerOptions{OnExhausted: exhaustedLast, Max: 1 << 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return p, call
}

// benchStdio lets a client on stdio make its calls one after the other, each when the last is answered.
func benchStdio(b *testing.B, d closingDialer, call string) {
	in, out := io.Pipe()
	p := NewProxy(d, Bounds{Sessions: 1, Calls: 1 << 20}, slog.New(slog.DiscardHandler))
	answers := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		serveStdio(b.Context(), p, in, benchAnswers{answers}, 1<<20, 0)
		d.Close()
	}()
	io.WriteString(out, strings.ReplaceAll(frontInitialize(`0`, "2025-06-18"), "\n", "")+"\n")
	<-answers
	b.ReportAllocs()
	for b.Loop() {
		io.WriteString(out, call+"\n")
		<-answers
	}
	out.Close()
	<-done
}

// benchAnswers counts what is written, one answer at a time.
type benchAnswers struct{ answers chan struct{} }

func (a benchAnswers) Write(p []byte) (int, error) {
	if p[len(p)-1] == '\n' {
		a.answers <- struct{}{}
	}
	return len(p), nil
}
func (a benchAnswers) Close() error { return nil }

func benchSizes(b *testing.B, run func(b *testing.B, size int)) {
	for _, size := range []int{100, 10_000} {
		b.Run(map[int]string{100: "100B", 10_000: "10KB"}[size], func(b *testing.B) { run(b, size) })
	}
}

func BenchmarkReplayStdio(b *testing.B) {
	benchSizes(b, func(b *testing.B, size int) {
		p, call := benchReplay(b, size)
		benchStdio(b, p, call)
	})
}

func BenchmarkDemoStdio(b *testing.B) {
	benchSizes(b, func(b *testing.B, size int) {
		call := replayCall(`7`, "echo", `{"text":"`+strings.Repeat("0123456789", size/10)+`"}`)
		benchStdio(b, newCommandDialer(startDemo, 1<<20, slog.New(slog.DiscardHandler)), call)
	})
}

func benchOverHTTP(b *testing.B, d closingDialer, call string) {
	defer d.Close()
	front := benchFront(b, d, true)
	post := func(text, session string) *http.Response {
		r, _ := http.NewRequest("POST", front.URL+"/mcp", strings.NewReader(text))
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set(sessionHeader, session)
		if session == "" {
			r.Header.Del(sessionHeader)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		text2, _ := io.ReadAll(resp.Body)
		if resp.Body.Close(); resp.StatusCode != 200 {
			b.Fatalf("got %d %s", resp.StatusCode, text2)
		}
		return resp
	}
	session := post(frontInitialize(`0`, "2025-06-18"), "").Header.Get(sessionHeader)
	b.ReportAllocs()
	for b.Loop() {
		post(call, session)
	}
}

func BenchmarkReplayHTTP(b *testing.B) {
	p, call := benchReplay(b, 100)
	benchOverHTTP(b, p, call)
}

func BenchmarkDemoHTTP(b *testing.B) {
	call := replayCall(`7`, "echo", `{"text":"`+strings.Repeat("0123456789", 10)+`"}`)
	benchOverHTTP(b, newCommandDialer(startDemo, 1<<20, slog.New(slog.DiscardHandler)), call)
}

// benchPipelined sends all calls without waiting for answers.
func benchPipelined(b *testing.B, d closingDialer) {
	p := NewProxy(d, Bounds{Sessions: 1, Calls: 1 << 30}, slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	b.ResetTimer()
	in := io.MultiReader(strings.NewReader(frontInitialize(`0`, "2025-06-18")+"\n"), &benchInput{left: b.N})
	if err := serveStdio(b.Context(), p, in, benchOutput{io.Discard}, 1<<20, 0); err != nil {
		b.Fatal(err)
	}
	d.Close()
}

func BenchmarkReplayPipelined(b *testing.B) {
	p, _ := benchReplay(b, 70)
	benchPipelined(b, p)
}

func BenchmarkDemoPipelined(b *testing.B) {
	benchPipelined(b, newCommandDialer(startDemo, 1<<20, slog.New(slog.DiscardHandler)))
}
