// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// VerifyOptions say what is compared, and how. The zero value of a field loosens nothing.
type VerifyOptions struct {
	Ignore           []Pointer     // where answers may differ; * stands for any member or element
	Same             []string      // kinds of values that may differ: uuid, time, path, number:1e-6
	AllowDestructive bool          // call tools that are not recorded with readOnlyHint: true
	Allow            []string      // or these of them
	Timeout          time.Duration // for a call; each progress notification starts it anew; 0 is for ever
	Max              int           // bytes of a message on the tape; 0 stands for 64 MiB
	// Redact replaces secrets in the text of a message as they were when the tape was recorded. Nil replaces nothing.
	Redact func(string) string
	Log    *slog.Logger // nil logs nothing
}

// A VerifyServerError says why there was no server to compare with.
type VerifyServerError struct{ Err error }

func (e *VerifyServerError) Error() string { return fmt.Sprintf("server could not be run: %v", e.Err) }
func (e *VerifyServerError) Unwrap() error { return e.Err }

// A verifier compares one tape with one server.
type verifier struct {
	*verifyIndex
	o      VerifyOptions
	same   *sameKinds
	proxy  *Proxy
	spoken map[string]string // by era of the tape: the one in which the server is spoken to, once that is known
	report *VerifyReport
	stop   context.CancelCauseFunc // ends all with an error of the tape, or a *[VerifyServerError]
}

const (
	maxTalkCalls     = 1000 // calls of a session that may be in flight: its subscriptions, and one more
	handshakeTimeout = time.Minute
	forever          = 100 * 365 * 24 * time.Hour
)

// Verify makes the calls on the tape again, which errors call name, to the server that dialer reaches, and compares the
// answers, in the order and by the rules of docs/tape.md. The tape is read once for an index of small records, and each
// message again when its turn comes.
//
// The error is a *[TapeError] for what is no tape, a *[VerifyServerError] if the server never answered a handshake, and
// else that of ctx or of the tape. With an error of ctx there is a report of what was compared until then.
func Verify(ctx context.Context, tape io.ReaderAt, name string, dialer Dialer, o VerifyOptions) (*VerifyReport, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Redact == nil {
		o.Redact = func(text string) string { return text }
	}
	o.Timeout = cmp.Or(o.Timeout, forever)
	index, err := newVerifyIndex(namedTape{name, tape}, cmp.Or(o.Max, 64<<20))
	if err != nil {
		return nil, err
	}
	v := &verifier{
		verifyIndex: index, o: o, same: newSameKinds(o.Same), spoken: map[string]string{},
		report: &VerifyReport{Tape: name, Counts: map[Outcome]int{}, Warnings: index.warnings},
	}
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	v.stop = stop
	v.proxy = NewProxy(dialer, Bounds{Sessions: 2, Calls: maxTalkCalls, CallTimeout: o.Timeout}, o.Log)
	ended := make(chan struct{})
	unhook := context.AfterFunc(run, func() { // nothing waits for a server that does not read
		defer close(ended)
		v.proxy.Sessions.EndAll(errShutdown)
	})
	defer func() {
		if !unhook() {
			<-ended
		}
		v.proxy.Close()
	}()
	for _, s := range v.sessions {
		if v.play(run, s); run.Err() != nil {
			break
		}
	}
	err = context.Cause(run)
	v.report.Eras = slices.Compact(slices.Sorted(maps.Values(v.spoken)))
	if v.report.Interrupted = ctx.Err() != nil && err != nil; err != nil && !v.report.Interrupted {
		return nil, err
	}
	return v.report, err
}

// message reads what is at a place of the tape. If that fails, what it returns says nothing, and the verification ends.
func (v *verifier) message(at messageAt) *Message {
	m, err := v.tape.message(at)
	if err != nil {
		v.stop(err)
	}
	return cmp.Or(m, &Message{})
}

// play plays one recorded session, up to the end of ctx.
func (v *verifier) play(ctx context.Context, s *verifySession) {
	t := v.talk(s)
	for _, step := range s.steps {
		switch {
		case step.tell.size > 0:
			t.tell(ctx, step.tell)
		case step.await != "":
			t.expect(ctx, step.await)
		case step.ends:
			t.unsubscribe(ctx, step.exchange)
		default:
			t.call(ctx, step.exchange)
		}
		if ctx.Err() != nil {
			break
		}
	}
	t.hangUp(ctx)
	for _, run := range t.open { // only when ctx has ended
		run.check.fail(outcomeSkipped, "interrupted")
	}
	for _, c := range t.checks {
		t.finish(c)
	}
	v.report.Carried += len(t.carried.used)
}
