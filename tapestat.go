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
	"math/bits"
	"slices"
	"strings"
	"time"
)

const (
	maxStatRows  = 1000 // rows, each of a method or a tool
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
	Partial  bool           `json:"partial,omitempty"` // more calls were in flight at once than are followed
	Warnings []string       `json:"warnings,omitempty"`
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

	took   histogram
	called bool // not only notifications
}

// statTape prints how many calls of which methods and tools are on a tape, what became of them and how long they took.
func statTape(tape *TapeReader, w *bufio.Writer, o TapeToolOptions) error {
	s := &TapeStat{Tape: tape.name, Clients: []string{}, Servers: []string{}, Lines: map[string]int{}, Rows: []*statRow{}}
	rows := map[statKey]*statRow{}
	filter := &tapeFilter{TapeToolOptions: o, book: newCallBook()}
	if err := tape.Each(func(e *Entry) error { s.add(e, filter, rows); return nil }); err != nil {
		return err
	}
	s.Eras, s.Warnings, s.Partial = tape.Eras, tape.Warnings(), filter.book.full
	for _, r := range rows {
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

// add counts the line e.
func (s *TapeStat) add(e *Entry, filter *tapeFilter, rows map[statKey]*statRow) {
	m := tapeMessage(e)
	call, answered, ok := filter.pick(e, m)
	if !ok {
		return
	}
	s.Seconds = max(s.Seconds, e.T.Seconds())
	s.Lines[e.Kind]++
	if e.Kind == lineOpen {
		s.Sessions++
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
		s.Clients = addPeer(s.Clients, clientInfo(m))
		for _, r := range statRows(rows, e.Dir, shorten(m.Method), shorten(m.Name+m.URI)) {
			r.Calls++
			if m.Kind == Call {
				r.called = true
				r.Unanswered++
			}
		}
	case answered:
		if call.method == methodInitialize || call.method == methodDiscover {
			s.Servers = addPeer(s.Servers, serverInfo(m))
		}
		failed := m.Error == "" && isErrorResult(m)
		for _, r := range statRows(rows, call.dir, call.method, call.name) {
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

// statRows returns the rows in which a call counts: that of its method, and that of its tool. There is always place for
// the rest of a direction.
func statRows(rows map[statKey]*statRow, dir, method, name string) []*statRow {
	keys := []statKey{{Dir: dir, Method: method}}
	if method == "tools/call" && name != "" {
		keys = append(keys, statKey{dir, method, name})
	}
	var list []*statRow
	for _, k := range keys {
		r := rows[k]
		if r == nil && len(rows) >= maxStatRows {
			if k.Tool != "" {
				k.Tool = otherNames
			} else {
				k.Method = otherNames
			}
			r = rows[k]
		}
		if r == nil {
			r = &statRow{statKey: k}
			rows[k] = r
		}
		list = append(list, r)
	}
	return list
}

func clientInfo(m *Message) string {
	if m.Kind != Call || m.Method != methodInitialize && !isStateless(m.Revision) {
		return ""
	}
	path := []string{"clientInfo"}
	if m.Method != methodInitialize {
		path = []string{"_meta", "io.modelcontextprotocol/clientInfo"}
	}
	return peerInfo(m.Params, path...)
}

func serverInfo(m *Message) string {
	if info := peerInfo(m.Result, "serverInfo"); info != "" {
		return info
	}
	return peerInfo(m.Result, "_meta", "io.modelcontextprotocol/serverInfo")
}

// peerInfo returns the name and the version in the object to which path leads, "" if there is none.
func peerInfo(text string, path ...string) string {
	from, to, ok := locate(text, path...)
	if !ok || text[from] != '{' {
		return ""
	}
	name, _ := unquote(member(text[from:to], "name"))
	version, _ := unquote(member(text[from:to], "version"))
	return joined(shorten(name), shorten(version))
}

func addPeer(list []string, peer string) []string {
	if peer == "" || slices.Contains(list, peer) || len(list) >= maxStatPeers {
		return list
	}
	return append(list, peer)
}

func (s *TapeStat) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s, sessions: %d, eras: %s\n", s.Tape, time.Duration(s.Seconds*1e9).Round(time.Millisecond), s.Sessions,
		printable(strings.Join(s.Eras, ", "), maxShown))
	fmt.Fprintf(w, "messages to the server: %d (%d bytes), to the client: %d (%d bytes), of the proxy: %d\n",
		s.ToServer.Messages, s.ToServer.Bytes, s.ToClient.Messages, s.ToClient.Bytes, s.Local)
	for _, peers := range []struct {
		what string
		list []string
	}{{"client: ", s.Clients}, {"server: ", s.Servers}} {
		for _, peer := range peers.list {
			fmt.Fprintln(w, peers.what+printable(peer, maxShown))
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Lines)) {
		if kind != lineMsg && kind != lineOpen && kind != lineClose && kind != lineEnd {
			fmt.Fprintf(w, "%s lines: %d\n", kind, s.Lines[kind])
		}
	}
	const columns = "%-44s %8s %7s %7s %7s %8s %8s %8s %8s\n"
	dir := ""
	for _, r := range s.Rows {
		if dir != r.Dir {
			dir = r.Dir
			fmt.Fprintln(w)
			fmt.Fprintf(w, columns, dir, "count", "errors", "isError", "open", "p50", "p90", "p99", "max")
		}
		name := r.Method
		if r.Tool != "" {
			name = "  " + r.Tool
		}
		cells := []any{printable(name, 44), fmt.Sprint(r.Calls), "", "", "", "", "", "", ""}
		if r.called {
			cells = append(cells[:2], fmt.Sprint(r.Errors), fmt.Sprint(r.IsErrors), fmt.Sprint(r.Unanswered))
			for _, ms := range []float64{r.P50, r.P90, r.P99, r.Max} {
				text := ""
				if r.took.n > 0 {
					text = shownDuration(time.Duration(ms * 1e6))
				}
				cells = append(cells, text)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(columns, cells...), " \n"))
	}
	if s.Partial {
		fmt.Fprintf(w, "more than %d calls were in flight at once: some count as open that were answered\n", maxFollowed)
	}
	printWarnings(w, s.Warnings)
}

// Durations up to 2^40 µs, 12 days, are told apart; each power of two has histogramSteps buckets.
const (
	histogramSteps   = 16
	histogramBuckets = 37 * histogramSteps
)

// A histogram counts durations in buckets that are at most 1/16 wide. The zero value is empty.
type histogram struct {
	counts   [histogramBuckets]uint32
	n        int
	min, max time.Duration
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	if h.n == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.n++
	us := uint64(d.Microseconds())
	bucket := int(us)
	if us >= histogramSteps { // its five highest bits count
		shift := bits.Len64(us) - 5
		bucket = shift*histogramSteps + int(us>>shift)
	}
	h.counts[min(bucket, histogramBuckets-1)]++
}

// quantile returns milliseconds that the part q of the durations does not exceed, by at most 1/32 wrong.
func (h *histogram) quantile(q float64) float64 {
	rank, seen := int(math.Ceil(q*float64(h.n))), 0
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	if rank >= h.n {
		return ms(h.max)
	}
	for i, n := range h.counts {
		if seen += int(n); seen >= rank && seen > 0 {
			us := float64(i)
			if shift := i/histogramSteps - 1; shift > 0 {
				us = (float64(i-shift*histogramSteps) + 0.5) * float64(uint64(1)<<shift)
			}
			return min(max(us/1000, ms(h.min)), ms(h.max))
		}
	}
	return ms(h.max)
}
