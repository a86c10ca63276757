// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"slices"
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

// A tapeRing keeps the last lines of a recording in memory.
type tapeRing struct {
	size int // bytes to keep; one batch of lines may be larger

	batches [][]byte // of whole lines, the oldest first; none is ever changed
	bytes   int

	dumping sync.Mutex // held while the Recorder's file is written
}

// keep copies lines, and forgets the oldest ones instead.
func (t *tapeRing) keep(lines []byte) {
	t.batches, t.bytes = append(t.batches, bytes.Clone(lines)), t.bytes+len(lines)
	for t.bytes > t.size && len(t.batches) > 1 {
		t.bytes -= len(t.batches[0])
		t.batches[0] = nil
		t.batches = t.batches[1:]
	}
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

// Dump writes what a Recorder with a ring has kept to a tape of its own, and returns the name of the file. Messages do
// not wait for it.
func (r *Recorder) Dump(reason string) (name string, err error) {
	r.ring.dumping.Lock()
	defer r.ring.dumping.Unlock()
	if err = r.acquire(); err == nil {
		r.mu.Lock()
		if lines := r.take(); len(lines) > 0 {
			r.ring.keep(lines)
		}
		h, end := r.header(), r.end()
		r.seq-- // the end is not of the recording, which goes on
		r.mu.Unlock()
		h.Ring = reason
		batches := slices.Clone(r.ring.batches)
		<-r.lock
		name, err = r.file.dump(h, batches, end)
	}
	if err != nil {
		r.Log.Error("tape was not written", "reason", reason, "error", err)
		return "", err
	}
	r.Log.Info("tape written", "reason", reason, "file", name)
	return name, nil
}

// dump writes a whole tape and returns the name of its file.
func (t *tapeFile) dump(h TapeHeader, batches [][]byte, end *Entry) (name string, err error) {
	_, err = t.write(nil, h)
	for i := 0; i < len(batches) && err == nil; i++ {
		_, err = t.write(batches[i], h)
	}
	if err == nil {
		err = t.f.Sync()
	}
	if err == nil {
		name = t.name()
		return name, t.finish(end)
	}
	if t.f != nil {
		os.Remove(t.name())
		t.close()
	}
	return "", err
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
	case m.Error == "" && !isErrorResult(m):
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
