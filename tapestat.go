// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	maxStatRows  = 1000 // rows, each of a method or a tool, and as many of rules
	maxStatPeers = 10   // clients, and servers
	otherNames   = "(other)"
)

// TapeStat is what statTape counts.
type TapeStat struct {
	Tape     string     `json:"tape"`
	Seconds  float64    `json:"seconds"` // from the header to the last line
	ToServer tapeVolume `json:"toServer"`
	ToClient tapeVolume `json:"toClient"`
	Sessions int        `json:"sessions"` // that were opened
	Eras     []string   `json:"eras"`
	Clients  []string   `json:"clients"` // name and version, the first few that differ
	Servers  []string   `json:"servers"`
	Local    int        `json:"local"` // messages that the proxy made, or kept from the server

	Lines    map[string]int `json:"lines"` // by kind
	Rows     []*statRow     `json:"methods"`
	Rules    map[string]int `json:"rules"` // by name and what was done, the first few that differ
	Warnings []string       `json:"warnings,omitempty"`

	rows map[statKey]*statRow // what is in Rows at the end
}

type tapeVolume struct {
	Messages int   `json:"messages"`
	Bytes    int64 `json:"bytes"` // of messages, without what surrounds them
}

// A statKey names a row. Tool is "" in the row of a whole method.
type statKey struct {
	Dir    string `json:"dir"` // of the call
	Method string `json:"method"`
	Tool   string `json:"tool,omitempty"`
}

// A statRow is one method or tool. A notification has a count and nothing else.
type statRow struct {
	statKey
	Calls      int     `json:"calls"`
	Errors     int     `json:"errors"`     // of JSON-RPC
	IsErrors   int     `json:"isErrors"`   // results with isError
	Unanswered int     `json:"unanswered"` // when the tape ended
	P50        float64 `json:"p50Ms"`
	P90        float64 `json:"p90Ms"`
	P99        float64 `json:"p99Ms"`
	Max        float64 `json:"maxMs"`

	took histogram
}

// statTape prints how many calls of which methods and tools are on a tape, what became of them and how long they took.
func statTape(tape *TapeReader, w *bufio.Writer, o TapeToolOptions) error {
	s := &TapeStat{Tape: tape.name, Clients: []string{}, Servers: []string{}, Lines: map[string]int{}, Rules: map[string]int{}, Rows: []*statRow{},
		rows: map[statKey]*statRow{}}
	book := newCallBook()
	if err := o.pick(tape, book, func(l tapeLine) error { s.add(l); return nil }); err != nil {
		return err
	}
	s.Sessions, s.Eras, s.Warnings = s.Lines[lineOpen], tape.Eras, tape.Warnings()
	if book.full {
		s.Warnings = append(s.Warnings, fmt.Sprintf("more than %d calls were in flight at once: some count as open that were answered", maxFollowed))
	}
	for _, r := range s.rows {
		r.P50, r.P90, r.P99, r.Max = r.took.quantile(0.5), r.took.quantile(0.9), r.took.quantile(0.99), r.took.quantile(1)
		s.Rows = append(s.Rows, r)
	}
	slices.SortFunc(s.Rows, func(a, b *statRow) int {
		return cmp.Or(-cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Tool, b.Tool))
	})
	if o.JSON {
		return json.NewEncoder(w).Encode(s)
	}
	s.print(w)
	return nil
}

// add counts a line.
func (s *TapeStat) add(l tapeLine) {
	e, m, call := l.Entry, l.m, l.call
	s.Seconds = max(s.Seconds, e.T.Seconds())
	s.Lines[e.Kind]++
	if did := shorten(e.Rule) + ": " + cmp.Or(shorten(e.Text), "changed"); (e.Kind == lineRule || e.Was != 0) && (s.Rules[did] > 0 || len(s.Rules) < maxStatRows) {
		s.Rules[did]++
	}
	if e.Kind != lineMsg || e.Was != 0 { // one that a rule changed was counted as it came
		return
	}
	if e.Local {
		s.Local++
	}
	v := &s.ToServer
	if e.Dir == dirToClient {
		v = &s.ToClient
	}
	v.Messages++
	v.Bytes += int64(len(e.Msg))
	switch {
	case m.Kind == Call || m.Kind == Notification:
		if m.Method == methodInitialize || isStateless(m.Revision) {
			s.Clients = addPeer(s.Clients, m.Params, "clientInfo")
		}
		for _, r := range s.rowsOf(e.Dir, shorten(m.Method), shorten(m.Name+m.URI)) {
			r.Calls++
			if m.Kind == Call {
				r.Unanswered++
			}
		}
	case l.answered:
		if call.method == methodInitialize || call.method == methodDiscover {
			s.Servers = addPeer(s.Servers, m.Result, "serverInfo")
		}
		failed := isErrorResult(m)
		for _, r := range s.rowsOf(call.dir, call.method, call.name) {
			r.Unanswered--
			r.took.add(e.T - call.t)
			if m.Error != "" {
				r.Errors++
			} else if failed {
				r.IsErrors++
			}
		}
	}
}

// rowsOf returns the rows in which a call counts: that of its method, and that of its tool.
func (s *TapeStat) rowsOf(dir, method, name string) []*statRow {
	list := []*statRow{s.row(statKey{Dir: dir, Method: method}, statKey{Dir: dir, Method: otherNames})}
	if method == "tools/call" && name != "" {
		list = append(list, s.row(statKey{dir, method, name}, statKey{dir, method, otherNames}))
	}
	return list
}

// row returns the row called k, or, beyond the first ones, rest. There is always place for that.
func (s *TapeStat) row(k, rest statKey) *statRow {
	if s.rows[k] == nil && len(s.rows) >= maxStatRows {
		k = rest
	}
	if s.rows[k] == nil {
		s.rows[k] = &statRow{statKey: k}
	}
	return s.rows[k]
}

// addPeer adds the name and version of a peer to list, unless it is full: those under key in text, which has params or a
// result, or in their _meta.
func addPeer(list []string, text, key string) []string {
	info := cmp.Or(member(text, key), member(member(text, "_meta"), protocolMeta+key))
	if !strings.HasPrefix(info, "{") || len(list) >= maxStatPeers {
		return list
	}
	name, _ := unquote(member(info, "name"))
	version, _ := unquote(member(info, "version"))
	peer := joined(shorten(name), shorten(version))
	if peer == "" || slices.Contains(list, peer) {
		return list
	}
	return append(list, peer)
}

func (s *TapeStat) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s, sessions: %d, eras: %s\n", s.Tape, time.Duration(s.Seconds*1e9).Round(time.Millisecond), s.Sessions,
		printable(strings.Join(s.Eras, ", "), maxShown))
	fmt.Fprintf(w, "messages to the server: %d (%d bytes), to the client: %d (%d bytes), of the proxy: %d\n",
		s.ToServer.Messages, s.ToServer.Bytes, s.ToClient.Messages, s.ToClient.Bytes, s.Local)
	for _, client := range s.Clients {
		fmt.Fprintln(w, "client:", printable(client, maxShown))
	}
	for _, server := range s.Servers {
		fmt.Fprintln(w, "server:", printable(server, maxShown))
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Lines)) {
		if kind != lineMsg && kind != lineOpen && kind != lineClose && kind != lineEnd {
			fmt.Fprintf(w, "%s lines: %d\n", kind, s.Lines[kind])
		}
	}
	dir := ""
	for _, r := range s.Rows {
		if dir != r.Dir {
			dir = r.Dir
			fmt.Fprintf(w, "\n%-44s %8s %7s %7s %7s %8s %8s %8s %8s\n", dir, "count", "errors", "isError", "open", "p50", "p90", "p99", "max")
		}
		name := r.Method
		if r.Tool != "" {
			name = "  " + r.Tool
		}
		fmt.Fprintf(w, "%-44s %8d", printable(name, 44), r.Calls)
		if r.Unanswered > 0 || r.took.n > 0 { // not only notifications
			fmt.Fprintf(w, " %7d %7d %7d", r.Errors, r.IsErrors, r.Unanswered)
		}
		if r.took.n > 0 {
			for _, ms := range []float64{r.P50, r.P90, r.P99, r.Max} {
				fmt.Fprintf(w, " %8s", shownDuration(time.Duration(ms*1e6)))
			}
		}
		fmt.Fprintln(w)
	}
	if len(s.Rules) > 0 {
		fmt.Fprintf(w, "\n%-44s %8s\n", "rules", "count")
	}
	for _, rule := range slices.Sorted(maps.Keys(s.Rules)) {
		fmt.Fprintf(w, "%-44s %8d\n", printable(rule, 44), s.Rules[rule])
	}
	printWarnings(w, s.Warnings)
}

const (
	histogramSteps   = 32 // buckets for each power of two
	histogramBuckets = 40 * histogramSteps
)

// A histogram counts durations up to 2^40 µs, 12 days, in buckets of about a fiftieth. The zero value is empty.
type histogram struct {
	counts [histogramBuckets]uint32
	n      int
	max    time.Duration
}

func (h *histogram) add(d time.Duration) {
	us := max(d.Microseconds(), 0)
	h.counts[min(int(histogramSteps*math.Log2(float64(us+1))), histogramBuckets-1)]++
	h.n++
	h.max = max(h.max, d)
}

// quantile returns the milliseconds that the part q of the durations does not exceed, as far as buckets tell.
func (h *histogram) quantile(q float64) float64 {
	rank, seen, most := max(int(math.Ceil(q*float64(h.n))), 1), 0, float64(h.max.Microseconds())
	for i := 0; rank < h.n; i++ {
		if seen += int(h.counts[i]); seen >= rank { // the middle of the bucket, exact up to 40 µs
			return min(math.Round(math.Exp2((float64(i)+0.5)/histogramSteps)-1), most) / 1000
		}
	}
	return most / 1000
}
