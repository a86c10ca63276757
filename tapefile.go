// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const tapeSyncInterval = time.Second

// maxRest is how many bytes may wait to be summed up.
const maxRest = 1 << 20

// maxTapes bounds how many names are tried for the next tape of a recording.
const maxTapes = 100_000

// When a tape is brought to the disk.
const (
	syncNever    = "never"    // when the system does it
	syncInterval = "interval" // after a second
	syncEach     = "each"     // before any message of it leaves
)

// A tapeFile is a tape in a file, which nobody but its owner may read. It is made by openTape.
type tapeFile struct {
	path   string // of the first
	sync   string
	rotate int64 // bytes of one file, about; 0 for no end

	f    *os.File // nil between two files
	size int64
	n    int    // of the file, counted from 1
	last string // name of the file before

	summing sync.Mutex // protects sum and spare, and comes before resting
	sum     hash.Hash
	spare   []byte
	resting sync.Mutex // protects following
	rest    []byte     // what was written and is not in sum yet

	mu    sync.Mutex  // protects following
	timer *time.Timer // for the next sync; nil if there is nothing to sync
	err   error       // of a sync, not yet reported
}

// newTape makes the file at path, which must not exist.
func newTape(path, sync string, rotate int64) (*tapeFile, error) {
	t := &tapeFile{path: path, sync: sync, rotate: rotate, n: 1}
	return t, t.create()
}

// A tapeState is how far a tape was recorded.
type tapeState struct {
	header TapeHeader
	seq    int64
	t      time.Duration // of the last line
	counts tapeCounts
}

// reopenTape opens the tape at path to go on with it. A line may have longest bytes.
func reopenTape(path, sync string, rotate int64, longest int) (*tapeFile, *tapeState, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, nil, err
	}
	r, err := NewTapeReader(f, path, longest)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	state := &tapeState{header: r.Header, counts: tapeCounts{eras: r.Header.Eras}}
	size := r.offset
	for {
		e, err := r.Next()
		if err != nil && err != io.EOF {
			f.Close()
			return nil, nil, err
		}
		if err == io.EOF || e.Kind == lineEnd {
			break
		}
		size = e.Offset + int64(e.Size)
		state.seq, state.t = e.Seq, e.T
		state.counts.lines++
		state.counts.messages += int64(btoi(e.Kind == lineMsg))
		state.counts.sessions = max(state.counts.sessions, e.Session)
	}
	state.counts.eras = r.Eras
	return &tapeFile{path: path, sync: sync, rotate: rotate, n: 1, f: f, size: size, sum: r.sum}, state, nil
}

// goOn cuts off the end of a tape that was opened again, and what broke off of it.
func (t *tapeFile) goOn() error { return t.f.Truncate(t.size) }

// create makes the file for the next tape.
func (t *tapeFile) create() (err error) {
	t.f, err = os.OpenFile(t.name(), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if errors.Is(err, os.ErrExist) && t.n == 1 {
		return fmt.Errorf("%s exists: name another file, or see -tape-append", t.path)
	}
	t.summing.Lock()
	defer t.summing.Unlock()
	t.resting.Lock()
	defer t.resting.Unlock()
	t.size, t.sum, t.rest = 0, sha256.New(), t.rest[:0]
	return err
}

// name is that of the file with number n: run.jsonl, then run.2.jsonl.
func (t *tapeFile) name() string {
	if t.n == 1 {
		return t.path
	}
	ext := filepath.Ext(t.path)
	return strings.TrimSuffix(t.path, ext) + "." + strconv.Itoa(t.n) + ext
}

func (t *tapeFile) begin(h TapeHeader) error {
	for t.f == nil {
		err := t.create()
		if errors.Is(err, os.ErrExist) && t.n < maxTapes {
			t.n++
			continue
		}
		if err != nil {
			return err
		}
	}
	if h.Continues != "" {
		h.Continues = filepath.Base(t.last)
	}
	if h.Redact == nil {
		h.Redact = []string{}
	}
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if n, err := t.write(append(line, '\n')); err != nil {
		return err
	} else if n == 0 {
		return io.ErrShortWrite
	}
	return nil
}

// write cuts off again what a full disk has taken of a line that it has not taken whole.
func (t *tapeFile) write(lines []byte) (n int, err error) {
	n, err = t.f.Write(lines)
	if whole := bytes.LastIndexByte(lines[:n], '\n') + 1; whole < n {
		n = whole
		if cut := t.f.Truncate(t.size + int64(n)); cut != nil {
			err = fmt.Errorf("%w, and the tape is left with a torn line: %v", err, cut)
		}
	}
	lines = lines[:n]
	t.size += int64(n)
	t.resting.Lock()
	t.rest = append(t.rest, lines...)
	much := len(t.rest) >= maxRest
	t.resting.Unlock()
	if much {
		t.idle()
	}
	switch {
	case err != nil:
	case t.sync == syncEach:
		err = t.f.Sync()
	case t.sync == syncInterval:
		err = t.syncLater()
	}
	return n, err
}

// idle brings the checksum up to date.
func (t *tapeFile) idle() {
	t.summing.Lock()
	defer t.summing.Unlock()
	t.resting.Lock()
	rest := t.rest
	t.rest, t.spare = t.spare[:0], rest
	t.resting.Unlock()
	t.sum.Write(rest)
}

// syncLater brings the file to the disk a moment later, and returns the error of an earlier time.
func (t *tapeFile) syncLater() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.f; t.timer == nil {
		t.timer = time.AfterFunc(tapeSyncInterval, func() { // finish stops it, or closes f
			t.mu.Lock()
			t.timer = nil
			t.mu.Unlock()
			if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
				t.mu.Lock()
				t.err = err
				t.mu.Unlock()
			}
		})
	}
	err := t.err
	t.err = nil
	return err
}

func (t *tapeFile) full() int {
	switch {
	case t.rotate == 0 || t.size < t.rotate:
		return 0
	case t.size < t.rotate+t.rotate/4:
		return 1
	}
	return 2
}

// finish writes the end and closes the file.
func (t *tapeFile) finish(end *Entry) (err error) {
	if t.f == nil {
		return nil
	}
	if end != nil {
		t.idle()
		t.summing.Lock()
		end.Sum = hex.EncodeToString(t.sum.Sum(nil))
		t.summing.Unlock()
		_, err = t.write(appendEntry(nil, end))
	}
	if err == nil && t.sync != syncNever {
		err = t.f.Sync()
	}
	t.mu.Lock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.mu.Unlock()
	t.last = t.f.Name()
	if closed := t.f.Close(); err == nil {
		err = closed
	}
	t.f = nil
	t.n++
	return err
}
