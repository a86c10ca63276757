// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"
)

// minDumpTime is between two dumps that nobody asked for.
const minDumpTime = 10 * time.Second

// A DumpRate is how many events of a kind within a time are reason to keep what led to them.
type DumpRate struct {
	Kind string // errors or refusals
	N    int
	Per  time.Duration
}

// ParseDumpRate reads KIND=N/TIME, such as errors=5/m.
func ParseDumpRate(s string) (DumpRate, error) {
	kind, rate, _ := strings.Cut(s, "=")
	count, unit, _ := strings.Cut(rate, "/")
	n, err := strconv.Atoi(count)
	r := DumpRate{kind, n, map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]}
	if err != nil || n < 1 || r.Per == 0 || kind != "errors" && kind != "refusals" {
		return r, errors.New("want errors or refusals, a number and a time, such as errors=5/m")
	}
	return r, nil
}

// A tapeRing is a tape of which the last stretch is kept in memory. The zero value has no room.
type tapeRing struct {
	size  int       // bytes to keep; one batch of lines may be larger
	files *tapeFile // what dump writes

	batches [][]byte // of whole lines, the oldest first
	bytes   int
}

func (*tapeRing) begin(TapeHeader) error { return nil }
func (*tapeRing) full() int              { return 0 }
func (*tapeRing) finish(*Entry) error    { return nil }
func (*tapeRing) idle()                  {}

func (t *tapeRing) write(lines []byte) (int, error) {
	t.batches, t.bytes = append(t.batches, bytes.Clone(lines)), t.bytes+len(lines)
	for t.bytes > t.size && len(t.batches) > 1 {
		t.bytes -= len(t.batches[0])
		t.batches[0] = nil
		t.batches = t.batches[1:]
	}
	return len(lines), nil
}

// dump writes a tape of what is kept and returns the name of its file.
func (t *tapeRing) dump(h TapeHeader, end *Entry) (string, error) {
	if err := t.files.begin(h); err != nil {
		return "", err
	}
	for _, lines := range t.batches {
		if _, err := t.files.write(lines); err != nil {
			return t.files.name(), err
		}
	}
	name := t.files.name()
	return name, t.files.finish(end)
}

// An eventRate counts events for a [DumpRate].
type eventRate struct {
	DumpRate
	since time.Time
	n     int
}

// reached counts one event and reports whether that makes too many.
func (r *eventRate) reached(now time.Time) bool {
	if now.Sub(r.since) >= r.Per {
		r.since, r.n = now, 0
	}
	r.n++
	return r.n == r.N
}

// Dump writes what a Recorder with a ring has kept to a tape of its own, and returns the name of the file.
func (r *Recorder) Dump(reason string) (string, error) {
	if err := r.acquire(); err != nil {
		return "", err
	}
	defer func() { <-r.lock }()
	r.mu.Lock()
	lines, h := r.take(), r.header()
	h.Ring = reason
	if r.start.IsZero() {
		h.Created = time.Now()
	}
	end := r.end()
	r.seq--
	r.mu.Unlock()
	if len(lines) > 0 {
		r.ring.write(lines)
	}
	name, err := r.ring.dump(h, end)
	if err != nil {
		r.Log.Error("tape was not written", "reason", reason, "error", err)
		return "", err
	}
	r.Log.Info("tape written", "reason", reason, "file", name)
	return name, nil
}

// dumpOnSignal dumps on every dump signal, until stop is called.
func (r *Recorder) dumpOnSignal() (stop func()) {
	if r.ring == nil || len(dumpSignals()) == 0 {
		return func() {}
	}
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, dumpSignals()...)
	var wg sync.WaitGroup
	wg.Go(func() { // ends when heard is closed
		for s := range heard {
			r.Dump(s.String())
		}
	})
	return func() {
		signal.Stop(heard)
		close(heard)
		wg.Wait()
	}
}

// judge counts a response that may be reason to dump.
func (r *Recorder) judge(m *Message) {
	kind := "errors"
	switch {
	case m.Refusal != nil:
		kind = "refusals"
	case m.Error == "" && member(m.Result, "isError") != "true":
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for i := range r.rates {
		if rate := &r.rates[i]; rate.Kind == kind && rate.reached(now) {
			r.dumpSoon(now, kind+"="+strconv.Itoa(rate.N)+"/"+rate.Per.String())
		}
	}
}

// dumpSoon dumps without holding up who calls it, unless that was done just now. It requires that r.mu is held.
func (r *Recorder) dumpSoon(now time.Time, reason string) {
	if r.ring == nil || now.Sub(r.dumped) < minDumpTime {
		return
	}
	r.dumped = now
	r.aside.Go(func() { r.Dump(reason) })
}
