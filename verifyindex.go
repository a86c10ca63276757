// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"hash/maphash"
	"strings"
)

// A verifyIndex says what happened in the sessions on a tape, in small records. The messages stay in the file, and each
// is read again when its turn comes.
type verifyIndex struct {
	tape     namedTape
	sessions []*verifySession
	readOnly map[string]bool // tools on the tape, and whether each was always said to be read-only
	ownTime  map[string]bool // methods of what the server asked outside of any call, in any session
	warnings []string

	numbered  map[int64]*verifySession
	exchanges map[int64]*verifyExchange  // by the seq of the call, also as a rule changed it
	asked     map[int64]*verifyQuestion  // by the seq of the server's request
	asking    map[uint64]*verifyExchange // answered with a question, by what a call that brings the answer has
	seed      maphash.Seed
}

// A verifySession is a session on the tape, or all that belongs to none.
type verifySession struct {
	number    int64
	era       string
	hello     string // params of a message that say what the client is and can
	steps     []verifyStep
	questions []*verifyQuestion
	flying    map[*verifyExchange]bool // exchanges without an answer yet
	alone     *verifyExchange          // the one of them that was never together with another; nil for none
}

// A verifyStep is what a client does next: begin an exchange, end a subscription, say something that belongs to none, or
// wait for what the server says in its own time.
type verifyStep struct {
	exchange *verifyExchange
	ends     bool
	tell     messageAt
	await    string // a method
}

// A verifyExchange is a call of the client with all that belongs to it.
type verifyExchange struct {
	seq            int64
	call, response messageAt
	said           []string        // methods of the server's requests and notifications
	told           []toldLine      // what the client said meanwhile
	first          *verifyExchange // the call that was answered with a question, if this one brings the answer
	continued      bool            // there is a call that brings the answer to the question that this one was answered with
	live           *Message        // the answer to first, if the server asked during that call
	listens, lists bool            // it is a subscription; it is of tools/list
	local, refused bool            // the proxy did not let it pass; it made the answer
	together       bool            // another call was in flight at some time
	ended          bool            // the client cancelled it
	headers        bool            // the server refused it for headers
}

// A toldLine is what the client said once the server had said a number of things; no line is that it cancelled the call.
type toldLine struct {
	at    messageAt
	after int
}

// A verifyQuestion is a request of the server, sent during a call or, from 2026-07-28 on, in the answer to one.
type verifyQuestion struct {
	method   string
	exchange *verifyExchange // nil for none
	place    int             // in what was said there
	key      string          // in the inputRequests of an answer; "" if it was sent as a request
	at       messageAt       // of the message that it is, or is in
	answer   messageAt       // likewise
	used     bool            // it came again
}

// newVerifyIndex reads a tape whose messages have at most max bytes.
func newVerifyIndex(tape namedTape, max int) (*verifyIndex, error) {
	r, err := tape.reader(2*max + lineBuffer)
	if err != nil {
		return nil, err
	}
	x := &verifyIndex{
		tape: tape, readOnly: map[string]bool{}, ownTime: map[string]bool{}, numbered: map[int64]*verifySession{}, exchanges: map[int64]*verifyExchange{},
		asked: map[int64]*verifyQuestion{}, asking: map[uint64]*verifyExchange{}, seed: maphash.MakeSeed(),
	}
	err = r.Each(x.add)
	x.warnings = r.Warnings()
	for _, s := range x.sessions {
		s.era = cmp.Or(s.era, eraSession) // without calls it does not matter
	}
	return x, err
}

// add takes in one line.
func (x *verifyIndex) add(e *Entry) error {
	m := tapeMessage(e)
	if m.Kind == Opaque || e.Was != 0 && (m.Kind == Notification || e.Dir == dirToClient) {
		return nil // no message, which says enough elsewhere; or one that was there before a rule changed it
	}
	s := x.numbered[e.Session]
	if s == nil {
		s = &verifySession{number: e.Session, flying: map[*verifyExchange]bool{}}
		x.numbered[e.Session] = s
		x.sessions = append(x.sessions, s)
	}
	switch {
	case e.Dir == dirToServer && m.Kind == Call:
		x.addCall(s, e, m)
	case e.Dir == dirToServer && m.Kind == Response:
		if q := x.asked[e.Re]; q != nil {
			q.answer = placeOf(e)
		}
	case e.Dir == dirToServer:
		x.addTold(s, e, m)
	case m.Kind == Response:
		return x.addResponse(s, e, m)
	default:
		x.addSaid(s, e, m)
	}
	return nil
}

func (x *verifyIndex) addCall(s *verifySession, e *Entry, m *Message) {
	if was := x.exchanges[e.Was]; was != nil { // the server never saw it
		was.call = placeOf(e)
		x.exchanges[e.Seq] = was
		return
	}
	c := &verifyExchange{
		seq: e.Seq, call: placeOf(e), local: e.Local, listens: m.Method == methodListen, lists: m.Method == "tools/list",
	}
	x.exchanges[e.Seq] = c
	if !c.listens {
		if c.together = len(s.flying) > 0; !c.together {
			s.alone = c
		} else if s.alone != nil {
			s.alone.together, s.alone = true, nil
		}
		s.flying[c] = true
	}
	if m.Method == methodInitialize || s.hello == "" && m.Revision != "" {
		s.hello = strings.Clone(m.Params)
	}
	if m.Revision != "" {
		s.era = cmp.Or(s.era, eraStateless)
	} else if !c.local { // one such call makes it a session of the older revisions: others may be a probe
		s.era = eraSession
	}
	s.steps = append(s.steps, verifyStep{exchange: c})
	if member(m.Params, "inputResponses") == "" {
		return
	}
	if asks := x.asking[x.inputKey(m, m.Params)]; asks != nil {
		asks.continued, c.first = true, cmp.Or(asks.first, asks)
		for _, q := range s.questions {
			if q.at == asks.response {
				q.answer = c.call
			}
		}
	}
}

// inputKey is the same for a call, with the answer to it, and the call that brings what the answer asks for.
func (x *verifyIndex) inputKey(call *Message, state string) uint64 {
	return maphash.String(x.seed, call.Method+"\n"+call.Name+"\n"+member(state, "requestState"))
}

func (x *verifyIndex) addResponse(s *verifySession, e *Entry, m *Message) error {
	c := x.exchanges[e.Re]
	if c == nil || c.response.size > 0 {
		return nil
	}
	c.response, c.refused = placeOf(e), e.Local
	c.headers = e.Via != viaStdio && member(m.Error, "code") == "-32020"
	delete(s.flying, c)
	if c.lists {
		x.annotated(m)
	}
	if !asksForInput(m.Result) {
		return nil
	}
	call, err := x.tape.message(c.call)
	if err != nil {
		return err
	}
	x.asking[x.inputKey(call, m.Result)] = c
	eachMember(member(m.Result, "inputRequests"), func(key, request string) {
		method, _ := unquote(member(request, "method"))
		s.questions = append(s.questions, &verifyQuestion{
			method: strings.Clone(method), key: strings.Clone(key), at: c.response, exchange: cmp.Or(c.first, c),
		})
	})
	return nil
}

// addTold adds a notification of the client.
func (x *verifyIndex) addTold(s *verifySession, e *Entry, m *Message) {
	within := x.exchanges[e.X]
	switch {
	case m.Method == methodCancelled && (within == nil || within.response.size > 0): // it cancels nothing
	case m.Method == methodCancelled:
		within.ended = true
		delete(s.flying, within)
		if within.listens {
			s.steps = append(s.steps, verifyStep{exchange: within, ends: true})
		} else {
			within.told = append(within.told, toldLine{messageAt{}, len(within.said)})
		}
	case e.Local:
	case within != nil:
		within.told = append(within.told, toldLine{placeOf(e), len(within.said)})
	default:
		s.steps = append(s.steps, verifyStep{tell: placeOf(e)})
	}
}

// addSaid adds a request or notification of the server.
func (x *verifyIndex) addSaid(s *verifySession, e *Entry, m *Message) {
	method, within := strings.Clone(m.Method), x.exchanges[e.X]
	if m.Kind == Call {
		q := &verifyQuestion{method: method, at: placeOf(e), exchange: within}
		if within != nil {
			q.place = len(within.said)
		} else {
			x.ownTime[method] = true
		}
		x.asked[e.Seq] = q
		s.questions = append(s.questions, q)
	}
	switch {
	case method == methodPing:
	case within != nil && method != methodRoots:
		within.said = append(within.said, method)
	case m.Kind == Call || strings.HasSuffix(method, "/list_changed"):
		s.steps = append(s.steps, verifyStep{await: method})
	}
}

const methodRoots = "roots/list" // a server asks for them in its own time, whatever call is in flight

// annotated notes which tools of a tools/list are read-only. A tool is only if it always was.
func (x *verifyIndex) annotated(m *Message) {
	tools, _ := decodeJSON(cmp.Or(member(m.Result, "tools"), "null")).([]any)
	for _, tool := range tools {
		object, _ := tool.(map[string]any)
		name, _ := object["name"].(string)
		annotations, _ := object["annotations"].(map[string]any)
		was, known := x.readOnly[name]
		x.readOnly[name] = annotations["readOnlyHint"] == true && (was || !known)
	}
}
