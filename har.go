// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// What an export to HAR holds at most of calls in flight. Beyond it the oldest is written as it is then.
const (
	harOpen = 1000
	harHeld = 64 << 20 // bytes
)

type harObject = map[string]any

// exportHAR writes a tape as an HTTP Archive 1.2. Every call with what came back is an entry, and so is each other
// message; a conversation over stdio looks as if it had been one over HTTP. Entries are in the order in which they were
// complete.
func exportHAR(t *TapeReader, w *bufio.Writer, o TapeToolOptions) error {
	h := harWriter{w: w, created: t.Header.Created}
	fmt.Fprintf(h.w, `{"log":{"version":"1.2","creator":{"name":"mcpproxy","version":%s},"entries":[`, quote(version))
	if err := o.each(t, w, h.add); err != nil {
		return err
	}
	for len(h.open) > 0 {
		h.finish(h.open[0])
	}
	fmt.Fprintf(w, "\n],\"comment\":%s}}\n", quote(strings.Join(t.Warnings(), "; ")))
	return nil
}

// A harWriter makes entries of the lines of a tape.
type harWriter struct {
	w       *bufio.Writer
	created time.Time
	written int
	open    []*harExchange // in the order of their calls
	held    int            // bytes
}

// A harExchange is a message to the server and what came back, or what came by itself.
type harExchange struct {
	head     *Entry // the message as it went to the server, or the one to the client
	about    caption
	was      int64    // Seq of the message to the server as it came, if a rule changed it
	rules    []string // what rules did with the message to the server, but for changing it
	answers  []*Entry // messages to the client and raw bytes
	answered bool     // the response is the last of them
	held     int      // bytes
}

func (h *harWriter) add(e *Entry) {
	switch {
	case e.Kind == lineRule:
		if x := h.find(e.Re); x != nil {
			x.rules = append(x.rules, "rule "+e.Rule+": "+e.Text)
		}
		return
	case e.Kind != lineMsg && e.Kind != lineRaw:
		return
	case e.Dir == dirToServer:
		x, about := h.find(e.Was), captionOf(e)
		if x == nil && about.What != "call" {
			h.write(&harExchange{head: e, about: about})
			return
		}
		if x == nil {
			x = &harExchange{}
			h.open = append(h.open, x)
		}
		x.head, x.about, x.was = e, about, e.Was
		h.hold(x, e)
		return
	case e.Was != 0: // the server's own words stand in line Was
		return
	}
	if x := h.find(e.Re); x != nil && e.Kind == lineMsg {
		x.answers, x.answered = append(x.answers, e), true
		h.finish(x)
	} else if x = cmp.Or(x, h.find(e.X)); x != nil {
		x.answers = append(x.answers, e)
		h.hold(x, e)
	} else {
		h.write(&harExchange{head: e, about: captionOf(e), answers: []*Entry{e}})
	}
}

func (x *harExchange) toServer() bool { return x.head.Dir == dirToServer }

func (x *harExchange) isCall() bool { return x.toServer() && x.about.What == "call" }

// find returns the open exchange of the call in line seq, nil if there is none.
func (h *harWriter) find(seq int64) *harExchange {
	for _, x := range h.open {
		if seq != 0 && (x.head.Seq == seq || x.was == seq) {
			return x
		}
	}
	return nil
}

// hold counts e, which x has, among what is held, and lets go of the oldest if that is too much.
func (h *harWriter) hold(x *harExchange, e *Entry) {
	x.held += e.Size
	h.held += e.Size
	for len(h.open) > harOpen || h.held > harHeld && len(h.open) > 0 {
		h.finish(h.open[0])
	}
}

func (h *harWriter) finish(x *harExchange) {
	i := slices.Index(h.open, x)
	h.open = slices.Delete(h.open, i, i+1)
	h.held -= x.held
	h.write(x)
}

func (h *harWriter) write(x *harExchange) {
	text, err := json.Marshal(h.entry(x))
	if err != nil {
		panic(err) // all of it can be encoded
	}
	if h.written++; h.written > 1 {
		h.w.WriteByte(',')
	}
	h.w.WriteByte('\n')
	h.w.Write(text)
}

func (h *harWriter) entry(x *harExchange) harObject {
	head := x.head
	var wait, total time.Duration
	if n := len(x.answers); n > 0 {
		wait, total = x.answers[0].T-head.T, x.answers[n-1].T-head.T
	}
	ms := func(d time.Duration) float64 { return float64(max(d, 0).Microseconds()) / 1000 }
	entry := harObject{
		"startedDateTime": h.created.Add(head.T).UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		"time":            ms(total),
		"request":         harRequest(x),
		"response":        harResponse(x),
		"cache":           harObject{},
		"timings":         harObject{"send": 0, "wait": ms(wait), "receive": ms(total - wait)},
		"comment":         harComment(x),
		"_seq":            head.Seq, // of the line of the tape
	}
	if head.Session != 0 {
		entry["connection"] = strconv.FormatInt(head.Session, 10)
	}
	return entry
}

// harComment says what cannot be seen elsewhere in an entry.
func harComment(x *harExchange) string {
	var says []string
	switch {
	case !x.toServer():
		says = append(says, "belongs to no call")
	case x.head.Rule != "":
		says = append(says, "changed by a rule")
	}
	says = append(says, x.rules...)
	if x.isCall() && !x.answered {
		says = append(says, "no response")
	}
	for _, e := range x.answers {
		if e.Local {
			says = append(says, "answered by the proxy")
		}
		if fault := captionOf(e).Fault; fault != "" {
			says = append(says, fault)
		}
	}
	return strings.Join(says, "; ")
}

// harRequest is the request with the message to the server, or one for nothing, so to speak the GET of an event stream.
// A tape does not say where the server is: the url is made up, with what viewers should show.
func harRequest(x *harExchange) harObject {
	head, scheme := x.head, "stdio"
	if head.Via != viaStdio && head.Via != "" {
		scheme = "http"
	}
	query, list := url.Values{}, []harObject{}
	for _, q := range [...][2]string{{"method", x.about.Method}, {"name", x.about.Name}} {
		if q[1] != "" {
			query.Set(q[0], q[1])
			list = append(list, harObject{"name": q[0], "value": q[1]})
		}
	}
	address := url.URL{Scheme: scheme, Host: "server", Path: "/", RawQuery: query.Encode()}
	r := harObject{
		"method": "GET", "url": address.String(), "httpVersion": "unknown", "cookies": []string{}, "headers": []string{},
		"queryString": list, "headersSize": -1, "bodySize": 0,
	}
	if x.toServer() {
		body := head.Msg + head.Text
		r["method"], r["headers"], r["bodySize"] = "POST", harHeaders(head), len(body)
		r["postData"] = harObject{"mimeType": "application/json", "text": body}
	}
	return r
}

func harResponse(x *harExchange) harObject {
	status, headers, stream := 0, []harObject{}, !x.toServer() || len(x.answers) > 1
	for _, e := range x.answers {
		status = max(status, e.Status)
		if len(headers) == 0 {
			headers = harHeaders(e)
		}
		stream = stream || e.Via == viaSSE || e.Via == viaGet
	}
	mime := "application/json"
	switch {
	case len(x.answers) == 1 && x.answers[0].Kind == lineRaw:
		if mime, _ = unquote(member(x.answers[0].Headers, "content-type")); mime == "" {
			mime = "application/octet-stream"
		}
	case stream:
		mime = "text/event-stream"
	}
	switch {
	case status != 0:
	case !x.toServer() || x.answered:
		status = 200
	case !x.isCall():
		status = 202 // what MCP has a server say to a notification or a response
	}
	var body []byte
	for _, e := range x.answers {
		switch {
		case e.Kind == lineRaw:
			body = append(body, e.Text...)
		case !stream:
			body = append(body, e.Msg...)
		default:
			body = appendEvent(body, Event{ID: e.Event, HasID: e.Event != "", Name: "message", Data: e.Msg, HasData: true, Retry: -1})
		}
	}
	content := harObject{"size": len(body), "mimeType": mime, "text": string(body)}
	if !utf8.Valid(body) {
		content["text"], content["encoding"] = base64.StdEncoding.EncodeToString(body), "base64"
	}
	return harObject{
		"status": status, "statusText": http.StatusText(status), "httpVersion": "unknown", "cookies": []string{}, "headers": headers,
		"content": content, "redirectURL": "", "headersSize": -1, "bodySize": len(body),
	}
}

func harHeaders(e *Entry) []harObject {
	list := []harObject{}
	eachMember(e.Headers, func(name, v string) { // none of ""
		value, ok := unquote(v)
		if !ok {
			value = v
		}
		list = append(list, harObject{"name": name, "value": value})
	})
	return list
}
