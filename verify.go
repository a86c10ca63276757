// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
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
	Bounds           Bounds        // of the proxy through which the server is reached; counts of 0 stand for enough
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
	tape     namedTape
	o        VerifyOptions
	same     *sameKinds
	proxy    *Proxy
	sessions []*verifySession
	readOnly map[string]bool   // tools on the tape, and whether each was always said to be read-only
	stray    map[string]bool   // methods of what the server asked outside of any call, in any session
	hello    map[string]string // the first message of each era on the tape, which has what its handshake needs
	spoken   map[string]string // by era of the tape: the one in which the server is spoken to
	report   *VerifyReport
}

// A verifySession is a session on the tape, or all that belongs to none.
type verifySession struct {
	number int64
	era    string
	lines  []verifyLine
}

// A verifyLine is where a message is on the tape. The text is read again when it is needed, so that memory does not
// grow with the size of messages.
type verifyLine struct {
	at              lineAt
	seq, was, x, re int64
	kind            Kind
	dir             Direction
	local, http     bool
	method          string // if it is one that a plan must know
}

// Verify makes the calls on the tape again, which errors call name, to the server that dialer reaches, and compares the
// answers. The recorded sessions come one after the other, each in a conversation of its own; what belongs to no session
// counts as one. The calls of a session come in recorded order, each when the one before is answered, also those that
// were once in flight together. What the client said during a call (answers to the server's requests, a cancellation)
// it says during that call, after as many messages of the server as then. A subscription stays open until its client
// ended it, or else to the end of its session. A client that had seen lists change, or been asked something, outside of
// any call, waits for that again before it goes on, 5 seconds in all of a session.
//
// The tape is read once for an index of small records, and each message again when its turn comes.
//
// The error is a *[TapeError] for what is no tape, a *[VerifyServerError] if the server never answered a handshake, and
// else that of ctx or of the tape. With an error of ctx there is a report of what was compared until then.
func Verify(ctx context.Context, tape io.ReaderAt, name string, dialer Dialer, o VerifyOptions) (*VerifyReport, error) {
	o.Max = cmp.Or(o.Max, 64<<20)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Redact == nil {
		o.Redact = func(text string) string { return text }
	}
	v := &verifier{
		tape: namedTape{name, tape}, o: o, same: newSameKinds(o.Same), readOnly: map[string]bool{}, stray: map[string]bool{},
		hello: map[string]string{}, spoken: map[string]string{}, report: &VerifyReport{Tape: name, Counts: map[Outcome]int{}},
	}
	if err := v.index(); err != nil {
		return nil, err
	}
	b := o.Bounds
	b.Sessions, b.Calls, b.CallTimeout = max(b.Sessions, 2), cmp.Or(b.Calls, maxTalkCalls), o.Timeout
	v.proxy = NewProxy(dialer, b, o.Log, notesExchange)
	defer v.proxy.Close()
	for _, s := range v.sessions {
		if err := v.session(ctx, s); err != nil {
			if ctx.Err() != nil {
				return v.report, err
			}
			return nil, err
		}
	}
	return v.report, nil
}

// maxTalkCalls is how many calls of a session may be in flight: its subscriptions, and one more.
const maxTalkCalls = 1000

// notesExchange is an interceptor that notes in whose exchange a message of the server travels.
func notesExchange(_ context.Context, s *Session, m *Message) (*Message, error) {
	if m.Dir == ToServer || m.Kind == Response {
		return m, nil
	}
	noted := *m
	noted.Within = s.within(m)
	return &noted, nil
}

// index reads the tape.
func (v *verifier) index() error {
	r, err := NewTapeReader(io.NewSectionReader(v.tape, 0, math.MaxInt64), v.tape.Name, 2*v.o.Max+lineBuffer)
	if err != nil {
		return err
	}
	sessions := map[int64]*verifySession{}
	lists := map[int64]bool{} // calls of tools/list without an answer yet
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if e.Kind != lineMsg {
			continue
		}
		m, err := Parse(e.Msg)
		if err != nil || e.Was != 0 && e.Dir == dirToClient {
			continue // no message, which says enough elsewhere; or not what the server said
		}
		s := sessions[e.Session]
		if s == nil {
			s = &verifySession{number: e.Session, era: eraStateless}
			sessions[e.Session] = s
			v.sessions = append(v.sessions, s)
		}
		v.line(s, e, m)
		switch {
		case m.Method == "tools/list" && e.Dir == dirToServer && m.Kind == Call:
			lists[e.Seq] = true
		case m.Kind == Response && lists[e.Re]:
			delete(lists, e.Re)
			v.annotated(m)
		}
	}
	v.report.Warnings = r.Warnings()
	for _, s := range v.sessions {
		if s.era == eraStateless && !slices.ContainsFunc(s.lines, func(l verifyLine) bool { return l.kind == Call && l.dir == ToServer }) {
			s.era = eraSession // it does not matter, as nothing is compared
		}
	}
	return nil
}

// line adds the message m of e to s.
func (v *verifier) line(s *verifySession, e *Entry, m *Message) {
	l := verifyLine{
		at: lineAt{e.Offset, e.Size}, seq: e.Seq, was: e.Was, x: e.X, re: e.Re,
		kind: m.Kind, dir: ToClient, local: e.Local, http: e.Via == viaPost,
	}
	if e.Dir == dirToServer {
		l.dir = ToServer
	}
	for _, method := range [...]string{methodInitialize, methodCancelled, methodListen, methodLog, methodPing} {
		if m.Method == method {
			l.method = method
		}
	}
	if isListChange(m.Method) {
		l.method = strings.Clone(m.Method)
	}
	if e.Was != 0 { // the server never saw the other one
		s.lines = slices.DeleteFunc(s.lines, func(l verifyLine) bool { return l.seq == e.Was })
	}
	s.lines = append(s.lines, l)
	if l.dir == ToClient && l.kind == Call && l.x == 0 {
		v.stray[strings.Clone(m.Method)] = true
	}
	if l.dir == ToServer && l.kind == Call && !l.local {
		era := eraSession
		if m.Revision != "" {
			era = eraStateless
		}
		if m.Revision == "" { // one call without makes it a session of the older revisions: others may be a probe
			s.era = eraSession
		}
		if v.hello[era] == "" || era == eraSession && m.Method == methodInitialize && member(v.hello[era], "protocolVersion") == "" {
			v.hello[era] = cmp.Or(m.Params, "{}")
		}
	}
}

// isListChange reports whether a notification says that one of the server's lists changed.
func isListChange(method string) bool {
	return slices.Contains([]string{"notifications/tools/list_changed", "notifications/prompts/list_changed", "notifications/resources/list_changed"}, method)
}

// annotated notes which tools of a tools/list are read-only. A tool is only if it always was.
func (v *verifier) annotated(m *Message) {
	tools, _ := decodeJSON(cmp.Or(member(m.Result, "tools"), "null")).([]any)
	for _, tool := range tools {
		object, _ := tool.(map[string]any)
		name, _ := object["name"].(string)
		annotations, _ := object["annotations"].(map[string]any)
		was, known := v.readOnly[name]
		v.readOnly[name] = annotations["readOnlyHint"] == true && (was || !known)
	}
}

// message reads a message again.
func (v *verifier) message(l *verifyLine) (*Message, error) { return v.tape.message(l.at) }

// A verifyExchange is a call of the client on the tape, with all that belongs to it.
type verifyExchange struct {
	call     *verifyLine
	response *verifyLine   // nil if there is none
	said     []*verifyLine // requests and notifications of the server
	told     []toldLine    // notifications of the client
	together bool          // another call was in flight at some time
	ended    bool          // the client cancelled it
	run      *running      // the live one, of a subscription
}

// A toldLine is what the client said once the server had said a number of things.
type toldLine struct {
	line  *verifyLine
	after int
}

// A verifyStep is what a client does next: begin an exchange, end a subscription, say something that belongs to none, or,
// with a line to the client, wait for that.
type verifyStep struct {
	exchange *verifyExchange
	line     *verifyLine
}

// A verifyPlan is what happened in a session.
type verifyPlan struct {
	steps     []verifyStep
	questions []*verifyLine         // requests of the server
	answers   map[int64]*verifyLine // to them, by their seq
	strayLogs bool                  // there are log messages that belong to no call
}

// plan puts together what belongs together.
func (v *verifier) plan(s *verifySession) *verifyPlan {
	p := &verifyPlan{answers: map[int64]*verifyLine{}}
	exchanges := map[int64]*verifyExchange{}
	flying := map[*verifyExchange]bool{}
	for i := range s.lines {
		l := &s.lines[i]
		within := exchanges[l.x]
		switch {
		case l.dir == ToServer && l.kind == Call:
			x := &verifyExchange{call: l}
			exchanges[l.seq] = x
			if l.was != 0 {
				exchanges[l.was] = x
			}
			p.steps = append(p.steps, verifyStep{exchange: x})
			if l.method == methodListen {
				continue
			}
			flying[x] = true
			for other := range flying {
				x.together = x.together || other != x
				other.together = other.together || other != x
			}
		case l.dir == ToServer && l.kind == Response:
			p.answers[l.re] = l
		case l.dir == ToServer && within != nil:
			within.told = append(within.told, toldLine{l, len(within.said)})
			if l.method == methodCancelled {
				within.ended = true
				delete(flying, within)
				p.steps = append(p.steps, verifyStep{within, l})
			}
		case l.dir == ToServer:
			p.steps = append(p.steps, verifyStep{line: l})
		case l.kind == Response:
			if x := exchanges[l.re]; x != nil && x.response == nil {
				x.response = l
				delete(flying, x)
			}
		default:
			if l.kind == Call {
				p.questions = append(p.questions, l)
			}
			switch {
			case within != nil:
				within.said = append(within.said, l)
			case l.method == methodLog:
				p.strayLogs = true
			case (l.method != "") != (l.kind == Call): // the lists that a server changed, and what it asked
				p.steps = append(p.steps, verifyStep{line: l})
			}
		}
	}
	return p
}
