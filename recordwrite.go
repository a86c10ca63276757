// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"time"
)

const (
	recordBuffer = 1 << 20              // bytes of lines that wait; more hold up who adds them
	recordDelay  = 2 * time.Millisecond // for a line that nobody waits for
	recordWait   = 10 * time.Second     // for a write to the tape
	recordRetry  = time.Second          // between two looks whether a tape can be written again
)

// Flush writes the lines that are there and returns when they are written, nil also if Pass is set and they cannot be.
// Who sends the server something calls it before.
func (r *Recorder) Flush() error {
	if err := r.acquire(); err != nil {
		return r.fail(err, nil)
	}
	defer func() { <-r.lock }()
	r.mu.Lock()
	failed, lines := r.failed, r.take()
	var header, next TapeHeader
	var end *Entry
	if r.ring != nil {
		// its file is for dumps
	} else if !r.file.begun {
		header = r.header()
	} else if full := r.file.full(); len(lines) > 0 && (full == 2 || full == 1 && r.open == 0) {
		end = r.end()
		r.start, r.t, r.counts.lines, r.counts.messages = time.Now(), 0, 0, 0
		r.continues = r.open > 0
		if !r.continues { // the next one stands alone
			r.seq, r.counts = 0, tapeCounts{}
		}
		next = r.header()
	}
	r.mu.Unlock()
	switch {
	case failed != nil && !r.Pass:
		return errNotRecorded(failed)
	case len(lines) == 0:
		return nil
	case r.ring != nil:
		r.ring.keep(lines)
		return nil
	}
	r.watch()
	defer r.writing.Store(-1)
	n, err := r.file.write(lines, header)
	if err == nil && end != nil {
		old := r.file.part()
		r.ends.Go(func() {
			if err := old.finish(end); err != nil {
				r.Log.Error("tape has no end", "file", old.path, "error", err)
			}
		})
		n = len(lines)
		_, err = r.file.write(nil, next)
	}
	if err != nil {
		return r.fail(err, lines[n:])
	}
	return nil
}

// acquire takes r.lock, unless a write holds it for too long.
func (r *Recorder) acquire() error {
	for range 10 { // a write is over sooner than a goroutine has gone to sleep
		select {
		case r.lock <- struct{}{}:
			return nil
		default:
			runtime.Gosched()
		}
	}
	t := time.NewTimer(recordWait)
	defer t.Stop()
	select {
	case r.lock <- struct{}{}:
		return nil
	case <-t.C:
		return errHangs
	}
}

// watch notes that a write begins and sees to it that one that hangs is heard of. The timer is not set anew for each.
func (r *Recorder) watch() {
	r.writing.Store(int64(time.Since(r.made)))
	if !r.watched.Swap(true) {
		r.dog.Reset(recordWait)
	}
}

// bite fails if a write hangs, or has a look again when the one that goes on would.
func (r *Recorder) bite() {
	r.watched.Store(false) // before the look at writing, as watch does it the other way round
	began := r.writing.Load()
	left := time.Duration(began) + recordWait - time.Since(r.made)
	switch {
	case began < 0:
	case left <= 0:
		r.fail(errHangs, nil)
	case !r.watched.Swap(true):
		r.dog.Reset(left)
	}
}

var errHangs = errors.New("a write takes more than 10 s")

// take returns the lines to be written. It requires both locks.
func (r *Recorder) take() []byte {
	lines := r.buf
	r.buf, r.spare, r.sent = r.spare[:0], lines, 0
	if cap(lines) > recordBuffer {
		r.spare = nil
	}
	return lines
}

// header is that of a tape that begins now. It requires that r.mu is held.
func (r *Recorder) header() TapeHeader {
	if r.start.IsZero() {
		r.start = time.Now()
	}
	h := r.Header
	if r.continues {
		h.Continues = "the tape before"
	}
	h.Format, h.Version, h.Program, h.Created, h.Eras = tapeFormat, tapeVersion, version, r.start, r.counts.eras
	return h
}

// end is the last line. It requires that r.mu is held.
func (r *Recorder) end() *Entry {
	r.seq++
	return &Entry{Kind: lineEnd, Seq: r.seq, T: time.Since(r.start), Counts: r.counts.String()}
}

// follow writes the lines that nobody waits for, or tries a tape again that has failed.
func (r *Recorder) follow() {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return
	}
	r.aside.Add(1)
	again := r.failed != nil && r.Pass
	r.mu.Unlock()
	defer r.aside.Done()
	if !again {
		r.Flush()
		return
	}
	r.recover()
	r.mu.Lock()
	if r.failed != nil {
		r.late.Reset(recordRetry)
	}
	r.mu.Unlock()
}

// fail notes that the tape could not take the lines lost, and returns the refusal of what was to be recorded; nil if Pass
// is set.
func (r *Recorder) fail(err error, lost []byte) error {
	r.mu.Lock()
	first := r.failed == nil
	if first {
		r.failed = err
	}
	r.lose(lost)
	r.lose(r.buf)
	r.buf, r.sent = r.buf[:0], 0
	if first && r.Pass {
		r.late.Reset(recordDelay)
	}
	r.mu.Unlock()
	switch {
	case !first:
	case r.Pass:
		r.Log.Error("tape cannot be written: messages pass unrecorded", "error", err)
	default:
		r.refuses.Store(true)
		r.Log.Error("tape cannot be written: calls are refused", "error", err)
		if r.Fail != nil {
			r.Fail()
		}
	}
	if r.Pass {
		return nil
	}
	return errNotRecorded(err)
}

// lose counts lines that are not on the tape. It requires that r.mu is held.
func (r *Recorder) lose(lines []byte) {
	for line := range bytes.Lines(lines) {
		r.missed++
		r.counts.lines--
		fields := bytes.SplitN(line, []byte(","), 3) // seq, t, and the kind if it is no message
		r.counts.messages -= int64(btoi(!bytes.HasPrefix(fields[2], []byte(`"kind":`))))
	}
}

// recover says on a tape that failed what is missing, if it can be written again, and goes on with it then.
func (r *Recorder) recover() {
	if r.acquire() != nil {
		return
	}
	defer func() { <-r.lock }()
	for {
		r.mu.Lock()
		said := r.missed
		if said == 0 {
			r.failed = nil
			r.mu.Unlock()
			r.Log.Warn("tape is written again")
			return
		}
		blind := &Entry{Kind: lineBlind, Text: fmt.Sprintf("%d lines before this one are missing", said)}
		r.stamp(blind.Kind, "", "", time.Time{})
		line := append(appendFields(r.buf, blind), '}', '\n')
		r.buf = r.buf[:0]
		h := r.header()
		r.mu.Unlock()
		r.watch()
		n, err := r.file.write(line, h)
		r.writing.Store(-1)
		if err != nil && n == 0 {
			r.mu.Lock()
			r.counts.lines--
			r.mu.Unlock()
			return
		}
		r.mu.Lock()
		r.missed -= said
		r.mu.Unlock()
	}
}

// Close ends the tape, and returns the error for which it is not whole, once more if that was told before. Messages that
// come after it are not recorded. A write that hangs does not hold it up for long.
func (r *Recorder) Close() error {
	r.mu.Lock()
	pass := r.failed != nil && r.Pass
	r.mu.Unlock()
	if pass {
		r.recover()
	}
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.Flush() // what fails is looked at below
	done := make(chan struct{})
	go func() { // ends with follow and dumps, whose writes may hang
		r.aside.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(recordWait):
		return fmt.Errorf("-tape: %w", errHangs)
	}
	if r.ring != nil {
		return nil
	}
	if hangs := r.acquire(); hangs != nil {
		return fmt.Errorf("-tape: %w", hangs)
	}
	defer func() { <-r.lock }()
	r.ends.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.failed
	if err != nil {
		r.file.close()
	} else if _, err = r.file.write(nil, r.header()); err == nil {
		err = r.file.finish(r.end())
	}
	switch {
	case err == nil:
	case r.Pass: // that was its wish
		r.Log.Error("tape has no end", "error", err)
	default:
		return fmt.Errorf("-tape: %w", err)
	}
	return nil
}
