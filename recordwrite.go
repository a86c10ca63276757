// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

const (
	recordBuffer = 64 << 10         // bytes of lines that wait for those that follow at once
	recordDelay  = time.Millisecond // for which lines of messages to clients wait at most
	recordWait   = 10 * time.Second // for a write to the tape
	recordRetry  = time.Second      // between two looks whether a tape can be written again
)

// A tapeSink is where the lines of a tape go. Its methods are not called concurrently, but for idle.
type tapeSink interface {
	// write takes whole lines and returns how many bytes of them it took, which are whole lines too. It
	// comes after begin.
	write(lines []byte) (n int, err error)
	// begin starts a tape.
	begin(h TapeHeader) error
	// full reports by how much the tape is larger than it should be: 1 is not at all, 2 is so much that it
	// cannot wait.
	full() int
	// idle does what need not be done while a message waits. It is called now and then, also while others are.
	idle()
	// finish ends the tape with the line end, whose Sum it sets; without one if end is nil.
	finish(end *Entry) error
}

// Flush writes the lines of the messages that were said to be followed by more. A Conn that kept those
// back calls it before it writes them. It returns when all lines that were there are written.
func (r *Recorder) Flush() error {
	err := r.acquire()
	if err == nil {
		err = r.flush()
		<-r.lock
	} else {
		err = r.fail(err)
	}
	if err != nil {
		return errNotRecorded(err)
	}
	return nil
}

// Sent is called when messages were passed on to a client. Their lines go with those of the next message to the
// server, if that comes soon, and else a moment later: a write costs more than all else that recording does.
func (r *Recorder) Sent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.buf) > 0 && !r.due {
		r.due = true
		r.aside.Go(r.follow)
	}
}

// follow writes what was left to it, and ends when nothing is.
func (r *Recorder) follow() {
	for {
		time.Sleep(recordDelay)
		r.Flush()
		r.sink.idle()
		r.mu.Lock()
		if r.due = len(r.buf) > 0; !r.due {
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// flush requires the lock.
func (r *Recorder) flush() error {
	r.mu.Lock()
	lines, began, header := r.take(), r.began, TapeHeader{}
	if !began {
		header = r.header()
	}
	r.mu.Unlock()
	if len(lines) == 0 {
		return nil
	}
	if r.blind.Load() || r.refuses.Load() { // what came before is not there either
		r.missed.Add(linesIn(lines))
		return nil
	}
	if n, err := r.write(lines, header); err != nil {
		r.missed.Add(linesIn(lines[n:]))
		return r.fail(err)
	}
	if full := r.sink.full(); full > 0 {
		return r.rotate(full)
	}
	return nil
}

// acquire takes r.lock, unless a write holds it for too long.
func (r *Recorder) acquire() error {
	select {
	case r.lock <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(recordWait)
	defer t.Stop()
	select {
	case r.lock <- struct{}{}:
		return nil
	case <-t.C:
		return errors.New("a write takes more than " + recordWait.String())
	}
}

func linesIn(text []byte) int64 { return int64(bytes.Count(text, []byte{'\n'})) }

// take returns the lines to be written. It requires both locks.
func (r *Recorder) take() []byte {
	lines := r.buf
	r.buf, r.spare = r.spare[:0], lines
	if cap(lines) > 4*recordBuffer {
		r.spare = nil
	}
	return lines
}

// write requires r.lock.
func (r *Recorder) write(lines []byte, h TapeHeader) (n int, err error) {
	if !r.began {
		if err := r.sink.begin(h); err != nil {
			return 0, err
		}
		r.began = true
	}
	return r.sink.write(lines)
}

// header is that of a tape that begins now. It requires that r.mu is held.
func (r *Recorder) header() TapeHeader {
	h := r.Header
	h.Format, h.Version, h.Program, h.Created, h.Eras = tapeFormat, tapeVersion, version, r.start, r.counts.eras
	return h
}

// end is the last line. It requires that r.mu is held.
func (r *Recorder) end() *Entry {
	r.seq++
	return &Entry{Kind: lineEnd, Seq: r.seq, T: time.Since(r.start), Counts: r.counts.String()}
}

// rotate goes on with another tape: one of its own while nothing is open that began on this one, else,
// once this one cannot wait for that, its continuation. It requires r.lock.
func (r *Recorder) rotate(full int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := r.open == 0 && r.calls.Load() == 0
	if len(r.buf) > 0 || !own && full < 2 {
		return nil
	}
	if err := r.sink.finish(r.end()); err != nil {
		return r.fail(err)
	}
	r.start, r.began = time.Now(), false
	r.counts.lines, r.counts.messages = 0, 0
	r.Header.Continues = "the tape before"
	if own {
		r.seen[0].Store(false)
		r.seen[1].Store(false)
		r.Header.Continues, r.seq, r.counts = "", 0, tapeCounts{}
	}
	return nil
}

// fail is for a tape that cannot be written. It returns nil if that is no reason to stop.
func (r *Recorder) fail(err error) error {
	if !r.Pass {
		if r.refuses.CompareAndSwap(false, true) && r.Fail != nil {
			r.Fail(fmt.Errorf("-tape: %w", err))
		}
		return err
	}
	r.retry.Store(time.Now().Add(recordRetry).UnixNano())
	if r.blind.CompareAndSwap(false, true) {
		r.Log.Error("tape cannot be written: messages pass unrecorded", "error", err)
	}
	return nil
}

// sees reports whether a tape that failed can be written again, and if so says on it what it missed.
func (r *Recorder) sees() bool {
	if time.Now().UnixNano() < r.retry.Load() {
		return false
	}
	select {
	case r.lock <- struct{}{}:
	default:
		return false
	}
	defer func() { <-r.lock }()
	if !r.blind.Load() {
		return true
	}
	r.mu.Lock()
	missed := r.missed.Add(linesIn(r.buf))
	r.buf = r.buf[:0]
	r.line(&Entry{Kind: lineBlind, Text: fmt.Sprintf("%d lines before this one are missing", missed)})
	lines, header := r.take(), r.header()
	r.mu.Unlock()
	if _, err := r.write(lines, header); err != nil {
		r.fail(err)
		return false
	}
	r.missed.Store(0)
	r.blind.Store(false)
	r.Log.Warn("tape is written again", "missing", missed)
	return true
}

// Close ends the tape. No message may come after it.
func (r *Recorder) Close() error {
	if r.blind.Load() {
		r.retry.Store(0)
		r.sees()
	}
	r.aside.Wait()
	err := r.Flush()
	if busy := r.acquire(); busy != nil {
		return busy
	}
	defer func() { <-r.lock }()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blind.Load() || r.refuses.Load() {
		r.sink.finish(nil)
		return nil // what is wrong was said already
	}
	if r.start.IsZero() {
		r.start = time.Now()
	}
	if err == nil && !r.began {
		err = r.sink.begin(r.header())
	}
	if err == nil {
		err = r.sink.finish(r.end())
	}
	if err != nil {
		return fmt.Errorf("-tape: %w", err)
	}
	return nil
}
