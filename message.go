// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

// Command mcpproxy stands between Model Context Protocol clients and servers, over stdio and
// Streamable HTTP on either side. It forwards every message as it came, keeps sessions and
// enforces limits.
//
// A [Message] is one JSON-RPC message. A [Conn] is the proxy's end of a conversation with one
// peer; a [Dialer] makes the one to a server. A [Session] ties a client's Conn to a server's and
// keeps the books of calls in flight. A [Proxy] carries each message from one Conn to the other
// through a chain of [Interceptor]s.
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// The first revision without a handshake and without sessions.
const statelessRevision = "2026-07-28"

// isStateless reports whether revision, a date, is 2026-07-28 or later.
func isStateless(revision string) bool { return revision >= statelessRevision }

const (
	sessionHeader  = "Mcp-Session-Id"
	revisionHeader = "Mcp-Protocol-Version"
	lastEventID    = "Last-Event-Id"
	subscriptionID = "io.modelcontextprotocol/subscriptionId"
	metaAbilities  = "io.modelcontextprotocol/clientCapabilities"

	methodInitialize  = "initialize"
	methodInitialized = "notifications/initialized"
	methodCancelled   = "notifications/cancelled"
	methodProgress    = "notifications/progress"
	methodLog         = "notifications/message"
	methodListen      = "subscriptions/listen"
)

// A Kind is what a message is in JSON-RPC.
type Kind uint8

const (
	Opaque       Kind = iota // bytes that are no message: an HTTP body in another format, an SSE comment
	Call                     // a request
	Notification             // a request without id
	Response                 // a result or an error
)

// A Direction is where a message goes.
type Direction uint8

const (
	ToServer Direction = iota
	ToClient
)

// String is the word that tapes, rules and logs have for d.
func (d Direction) String() string {
	if d == ToServer {
		return dirToServer
	}
	return dirToClient
}

// A Message is one JSON-RPC message on its way. Whoever made it may fill it in; once handed on
// it is never modified, a changed copy is made. Its strings are parts of Raw, except where an
// escape had to be decoded.
type Message struct {
	Raw    string // the JSON text, without white space around it
	Kind   Kind
	Dir    Direction
	ID     string // JSON text of the id as it was written, "" if there is none
	Method string // decoded; "" in a Response
	Params string // JSON text, "" if absent
	Result string // JSON text, "" if absent
	Error  string // JSON text, "" if absent

	Name     string // params.name, decoded; "" if absent or no string
	URI      string // params.uri, likewise
	Token    string // JSON text of params._meta.progressToken, "" if absent
	Revision string // params._meta["io.modelcontextprotocol/protocolVersion"], decoded; "" if absent

	Newlines bool // Raw holds a CR or LF between tokens
	More     bool // another message follows at once: its Conn may wait for that before it writes
	Last     bool // nothing more follows on Stream
	Local    bool // the proxy made it
	Resumed  bool // a server sent it on the client's own GET: it may answer a call of long ago
	due      bool // Answers, a call of the client, is in the book until the Response goes on

	// Stream is where the message belongs on the client's side: the response to one of its HTTP
	// requests. Nil over stdio, and for what belongs to no request.
	Stream Stream
	// Origin is the HTTP request in which a message to the server came, nil over stdio.
	Origin *Origin
	// Reply is the HTTP response in which a message to the client came, nil over stdio.
	Reply *Reply
	// Event is the server-sent event in which a message to the client came, nil if in none.
	Event *Event
	// Answers is the call that a Response answers, once the session has found it, or that the proxy
	// itself cancels.
	Answers *PendingCall
	// Within is the client's call in whose exchange a message of the server came that is no response; nil for none. A
	// Conn that knows it sets it, else the session does.
	Within *PendingCall
	own    *PendingCall // a Call's place in the book
	// Ruled is what rules did with the message, nil if nothing.
	Ruled *Ruled
	// Refusal is the cause of a Response that the proxy made in place of the server's.
	Refusal *Error
}

// A Stream carries messages to the client that belong together. It may be used concurrently.
type Stream interface {
	Send(m *Message) error
	// Abort ends it at once, also a Send that waits for the client to read, and lets the client
	// see that something is missing.
	Abort()
}

// An Origin says who sent a message over HTTP, and what came with it.
type Origin struct {
	IP     netip.Addr
	User   string      // "" if nobody was authenticated
	Header http.Header // all headers of the request, to be read only
	Batch  bool        // other messages came with it, which must not wait for this one
}

// A Reply is the head of a server's HTTP response.
type Reply struct {
	Status  int
	Header  http.Header
	Whole   bool // the response is this one message or body and nothing else
	Listens bool // it answers a GET
}

// A Conn is the proxy's end of a conversation with one peer.
type Conn interface {
	// Send passes m to the peer. Messages sent one after another arrive in that order. It may be
	// called concurrently. It may wait for as long as the peer takes to read, or, when m.Stream
	// is set, until the exchange that m begins is over.
	Send(ctx context.Context, m *Message) error
	// Flush writes what Send kept back because of m.More.
	Flush() error
	// Close ends the conversation and waits for what it started. It may be called more than once.
	Close() error
}

// A Server is a Conn to a server. Close ends the server's side too (DELETE, or the child's end).
type Server interface {
	Conn
	// Listen makes the HTTP GET o of the client: it asks for what belongs to no call, or for the
	// rest of a stream after o's Last-Event-ID, to be sent on x. It returns when that is over. A
	// server on stdio sends such messages unasked, and Listen returns at once.
	Listen(ctx context.Context, x Stream, o *Origin) error
}

// A Dialer connects sessions to servers. What the server says is handed to receive, message by
// message in order. A message whose Reply is set has its Stream set too if it came in answer to a
// message that had one. receive(nil, err) says that the conversation is over; it comes once, last.
type Dialer interface {
	Dial(ctx context.Context, s *Session, receive func(*Message, error)) (Server, error)
}

// Codes of JSON-RPC and of MCP that the proxy uses for what those define.
const (
	codeParse          = -32700
	codeInvalid        = -32600
	codeMethodNotFound = -32601
	codeParams         = -32602
	codeHeader         = -32020
	codeVersion        = -32022
)

// An Error refuses a message. Its text goes to the peer and says nothing of the inside; Cause is
// for the log. Codes that JSON-RPC and MCP do not define are the HTTP status number, which lies
// outside JSON-RPC's reserved range.
type Error struct {
	Code       int
	Text       string
	Status     int           // HTTP status; 0 means Code
	ID         string        // the id to answer with when the message could not be parsed, "" if unknown
	Bare       bool          // the answer must not have an id even if there is one
	Tier       string        // the limit that was met, "" if none
	RetryAfter time.Duration // 0 if unknown
	Exit       string        // how the server's process ended, "" if it did not
	Rule       string        // name of the rule that refuses, for log and tape; "" if none does
	Data       string        // JSON text of further members of data, "" for none
	Cause      error         // may be nil
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %v", e.Text, e.Cause)
	}
	return e.Text
}

func (e *Error) Unwrap() error { return e.Cause }

// status is the HTTP status of a refusal.
func (e *Error) status() int {
	if e.Status != 0 {
		return e.Status
	}
	return e.Code
}

// answer is the response with which the proxy refuses the call id; "" leaves the id out.
func (e *Error) answer(id string) *Message {
	b := append(make([]byte, 0, 160+len(id)+len(e.Text)), `{"jsonrpc":"2.0",`...)
	if id != "" {
		b = append(append(append(b, `"id":`...), id...), ',')
	}
	b = append(b, `"error":`...)
	start := len(b)
	b = strconv.AppendInt(append(b, `{"code":`...), int64(e.Code), 10)
	b = append(append(b, `,"message":`...), quote(e.Text)...)
	b = append(b, `,"data":{"proxy":"mcpproxy"`...)
	if e.Tier != "" {
		b = append(append(b, `,"tier":`...), quote(e.Tier)...)
	}
	if e.RetryAfter > 0 {
		ms := (e.RetryAfter + time.Millisecond - 1) / time.Millisecond
		b = strconv.AppendInt(append(b, `,"retryAfterMs":`...), int64(ms), 10)
	}
	if e.Exit != "" {
		b = append(append(b, `,"exit":`...), quote(e.Exit)...)
	}
	if e.Data != "" {
		b = append(append(b, ','), e.Data...)
	}
	raw := string(append(b, `}}}`...))
	return &Message{Raw: raw, Kind: Response, ID: id, Error: raw[start : len(raw)-1], Local: true, Refusal: e}
}

// cancellation tells a peer that the proxy no longer waits for its answer to the call id.
func cancellation(id, reason string) *Message {
	params := `{"requestId":` + id + `,"reason":` + quote(reason) + `}`
	return &Message{
		Raw:    `{"jsonrpc":"2.0","method":"` + methodCancelled + `","params":` + params + `}`,
		Kind:   Notification,
		Method: methodCancelled,
		Params: params,
		Local:  true,
	}
}
