// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// verifyTwoCalls is a tape of a handshake and the calls of two tools, a and b.
func verifyTwoCalls() string {
	k := &tapeScript{session: 1}
	k.exchange(verifyHello()[0], frontResult(`1`, `{"protocolVersion":"2025-11-25","capabilities":{}}`))
	k.exchange(replayCall(`2`, "a", `{}`), replayAnswer(`2`, "a"))
	k.exchange(replayCall(`3`, "b", `{}`), replayAnswer(`3`, "b"))
	return k.tape()
}

// verifyStub answers the calls of verifyTwoCalls as on it, after before.
func verifyStub(t *testing.T, before func(m *Message, say func(string)) (answered bool)) *verifyServer {
	return &verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
		switch {
		case m.Kind != Call:
		case m.Method == methodInitialize:
			say(verifyResult(m, `{"protocolVersion":"2025-11-25","capabilities":{}}`))
		case !before(m, say):
			say(replayAnswer(m.ID, m.Name))
		}
		return true
	}}
}

// What a server says without an end is dropped from some point on, and the call given up.
func TestVerifyFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := verifyStub(t, func(m *Message, say func(string)) bool {
			for i := 0; m.Name == "a" && i < 5*maxHeard; i++ {
				say(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}`)
			}
			return m.Name == "a"
		})
		r := verifyRun(t, verifyTwoCalls(), server.dialer(), VerifyOptions{AllowDestructive: true, Timeout: time.Minute})
		if text := r.Text(); r.Checks[1].Outcome != outcomeExtra || !strings.Contains(text, "    given up\n") || !strings.Contains(text, heardTooMuch) || len(text) > 10_000 {
			t.Errorf("got\n%s", text[:min(len(text), 2000)])
		}
	})
}

// What is kept of an exchange is bounded in number and in bytes, beside what is on the tape.
func TestVerifyHeard(t *testing.T) {
	said := slices.Repeat([]string{"said"}, 2*maxHeard)
	for method, want := range map[string]int{"said": 3 * maxHeard, "other": 3 * maxHeard, strings.Repeat("x", 1<<20): maxHeardBytes >> 20} {
		run := &running{exchange: &verifyExchange{said: said}}
		for range 4 * maxHeard {
			run.hear(method)
		}
		if got := len(run.heard); got != want || !run.flooded {
			t.Errorf("%s: got %d methods, want %d", shorten(method), got, want)
		}
	}
}

// The queue of a client that does not look is bounded in number and in bytes, and responses always have room.
func TestVerifyQueue(t *testing.T) {
	for text, want := range map[string]int{"{}": maxHeard, strings.Repeat("x", 1<<20): maxHeardBytes >> 20} {
		c := &verifyConn{queue: make(chan *Message, maxHeard+maxTalkCalls)}
		for range maxHeard + 10 {
			c.Send(t.Context(), &Message{Kind: Notification, Raw: text})
		}
		if got := len(c.queue); got != want || !c.lost.Load() {
			t.Errorf("%d bytes: got %d messages, want %d", len(text), got, want)
		}
		if err := c.Send(t.Context(), &Message{Kind: Response, Raw: text}); err != nil {
			t.Errorf("got %v, want the response taken", err)
		}
	}
}

// When ctx ends there is a report of what was compared until then, and nothing waits for a server that does not read.
func TestVerifyInterrupted(t *testing.T) {
	deaf := make(chan struct{})
	defer close(deaf)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := verifyStub(t, func(m *Message, say func(string)) bool {
		if m.Name == "b" {
			for range 10 { // the second answer to these waits to be read
				say(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
			}
			cancel()
			<-deaf
		}
		return m.Name == "b"
	})
	dialer := server.dialer()
	defer dialer.Close()
	r, err := Verify(ctx, strings.NewReader(verifyTwoCalls()), "t.jsonl", dialer, VerifyOptions{AllowDestructive: true})
	if err == nil || r == nil {
		t.Fatalf("got %v and %v, want a report and an error", r, err)
	}
	verifyWant(t, r, "b SKIPPED")
	if want := "interrupted, so nothing is known of the rest: 2 MATCH, 1 SKIPPED"; r.Summary() != want || r.Code() != 1 {
		t.Errorf("got code %d and %q, want 1 and %q", r.Code(), r.Summary(), want)
	}
	if !strings.Contains(string(r.JUnit()), `<failure message="interrupted`) {
		t.Errorf("got\n%s", r.JUnit())
	}
}

// The program prints the report of a run that was interrupted.
func TestVerifyInterruptedRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.jsonl")
	if err := os.WriteFile(path, []byte(verifyTwoCalls()), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut runOut
	code := run(ctx, []string{"verify", "-tape", path, "-demo"}, func(string) (string, bool) { return "", false }, stdio{strings.NewReader(""), &out, &errOut})
	if got := out.String() + errOut.String(); code != 1 || !strings.Contains(got, "\ninterrupted, so") || !strings.Contains(got, "mcpproxy: interrupted: the report") {
		t.Errorf("got %d and %s", code, got)
	}
}

// The time to index calls without an answer grows with their number, not with its square.
func TestVerifyUnanswered(t *testing.T) {
	k := &tapeScript{session: 1}
	const n = 50_000
	for range n {
		k.call(replayCall(`1`, "a", `{}`))
	}
	began := time.Now()
	x, err := newVerifyIndex(namedTape{"t.jsonl", strings.NewReader(k.tape())}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	for _, step := range x.sessions[0].steps {
		if !step.exchange.together {
			t.Fatalf("seq %d counts as alone", step.exchange.seq)
		}
	}
}

// A fadingTape cannot be read any more once it was read to its end.
type fadingTape struct {
	*strings.Reader
	read bool
}

func (f *fadingTape) ReadAt(p []byte, off int64) (int, error) {
	if f.read {
		return 0, errors.New("no such disk")
	}
	n, err := f.Reader.ReadAt(p, off)
	f.read = err == io.EOF
	return n, err
}

// If the tape cannot be read, nothing more is sent, and there is no report.
func TestVerifyTapeFails(t *testing.T) {
	calls := 0
	server := verifyStub(t, func(m *Message, _ func(string)) bool {
		calls += btoi(m.Method == "tools/call")
		return false
	})
	dialer := server.dialer()
	defer dialer.Close()
	r, err := Verify(t.Context(), &fadingTape{Reader: strings.NewReader(verifyTwoCalls())}, "t.jsonl", dialer, VerifyOptions{AllowDestructive: true})
	if want := "t.jsonl: no such disk"; r != nil || err == nil || err.Error() != want || calls > 0 {
		t.Errorf("got %v, %v and %d calls, want %s", r, err, calls, want)
	}
}
