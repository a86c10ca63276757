// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tapeSyncInterval = time.Second
	maxTapes         = 100_000 // names that are tried for the next tape of a recording
)

// When a tape is brought to the disk.
const (
	syncNever    = "never"    // when the system does it
	syncInterval = "interval" // after a second
	syncEach     = "each"     // before any message of it leaves
)

// A tapeFile is a tape in a file, which nobody but its owner may read. Its first file is made by create, or opened by
// reopen, the next ones by write. One goroutine may use it at a time.
type tapeFile struct {
	path   string // of the first
	sync   string
	rotate int64 // bytes of one file, about; 0 for no end
	other  bool  // also the first file takes another name if there is one

	f     *os.File // nil between two files
	begun bool     // the header is in f
	size  int64
	n     int    // files before this one
	last  string // name of the file before
	rest  bool   // behind size is what must go before anything is written: an end, or what broke off
	whole bool   // that is an end

	mu    sync.Mutex  // protects following
	timer *time.Timer // for the next sync; nil if there is nothing to sync
	err   error       // of a sync, not yet reported
}

// A tapeState is how far a tape was recorded.
type tapeState struct {
	header   TapeHeader
	seq      int64
	t        time.Duration // of the last line
	counts   tapeCounts
	warnings []string
}

// reopen opens the file at t.path to go on with it. A line may have longest bytes.
func (t *tapeFile) reopen(ctx context.Context, longest int) (state *tapeState, err error) {
	t.f, err = os.OpenFile(t.path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	stop := closeOn(ctx, t.f)
	defer func() {
		if !stop() {
			err = errInterrupted
		}
		if err != nil {
			t.close()
		}
	}()
	if err := lockFile(t.f); err != nil {
		return nil, fmt.Errorf("%s: %w", t.path, err)
	}
	r, err := NewTapeReader(t.f, t.path, longest)
	if err != nil {
		return nil, err
	}
	r.All = true // what this program does not know is to stay as well
	state = &tapeState{header: r.Header}
	t.begun, t.rest, t.size = true, true, r.offset
	err = r.Each(func(e *Entry) error {
		if e.Kind != lineEnd {
			t.size = e.Offset + int64(e.Size)
			state.seq, state.t = e.Seq, e.T
			state.counts.add(e.Kind)
			state.counts.sessions = max(state.counts.sessions, e.Session) // of a continuation, more than it opened
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	state.counts.eras = r.Eras
	if t.whole = r.Ended != nil; t.whole { // without one is what going on is for
		state.warnings = r.Warnings()
	}
	return state, nil
}

// create makes the file for the next tape.
func (t *tapeFile) create() error {
	for {
		f, err := os.OpenFile(t.name(), os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		switch {
		case err == nil:
			lockFile(f) // nobody else can have it
			t.f, t.begun, t.size = f, false, 0
			return nil
		case !errors.Is(err, os.ErrExist) || t.n == maxTapes:
			return err
		case t.n == 0 && !t.other:
			return fmt.Errorf("%s exists: name another file, or see -tape-append", t.path)
		}
		t.n++
	}
}

// name is that of the file: run.jsonl, then run.2.jsonl.
func (t *tapeFile) name() string {
	if t.n == 0 {
		return t.path
	}
	ext := filepath.Ext(t.path)
	return strings.TrimSuffix(t.path, ext) + "." + strconv.Itoa(t.n+1) + ext
}

// write takes whole lines, and before the first ones the header h, and returns how many bytes of the lines it took,
// which are whole lines too: what a full disk has taken of a line that it has not taken whole is cut off again.
func (t *tapeFile) write(lines []byte, h TapeHeader) (n int, err error) {
	if t.f == nil {
		if err := t.create(); err != nil {
			return 0, err
		}
	}
	if !t.begun {
		if h.Continues != "" {
			h.Continues = filepath.Base(t.last)
		}
		line, err := h.line()
		if err == nil {
			_, err = t.append(line)
		}
		if err != nil {
			return 0, err
		}
		t.begun = true
	}
	if n, err = t.append(lines); err != nil || n == 0 {
		return n, err
	}
	switch t.sync {
	case syncEach:
		err = t.f.Sync()
	case syncInterval:
		err = t.syncLater()
	}
	return n, err
}

func (t *tapeFile) append(lines []byte) (n int, err error) {
	if t.rest && len(lines) > 0 {
		if err := t.f.Truncate(t.size); err != nil {
			return 0, err
		}
		t.rest = false
	}
	n, err = t.f.Write(lines)
	if whole := bytes.LastIndexByte(lines[:n], '\n') + 1; whole < n {
		n = whole
		if cut := t.f.Truncate(t.size + int64(n)); cut != nil {
			err = fmt.Errorf("%w, and the tape is left with a torn line: %v", err, cut)
		}
	}
	t.size += int64(n)
	return n, err
}

// syncLater brings the file to the disk a moment later, and returns the error of an earlier time.
func (t *tapeFile) syncLater() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.f; t.timer == nil {
		t.timer = time.AfterFunc(tapeSyncInterval, func() { // ends with f, whose Close waits for it
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

// full reports whether the file is larger than it should be: 1 is a little, 2 is so much that it cannot wait.
func (t *tapeFile) full() int {
	switch {
	case t.rotate == 0 || t.size < t.rotate:
		return 0
	case t.size < t.rotate+t.rotate/4:
		return 1
	}
	return 2
}

// part takes the file away, to be finished while the next one is written already.
func (t *tapeFile) part() *tapeFile {
	old := &tapeFile{path: t.name(), sync: t.sync, f: t.f, size: t.size}
	t.stopSync()
	t.f, t.last = nil, t.name()
	t.n++
	return old
}

// finish writes the line end, whose Sum it sets, and closes the file. To sum a file up takes about a second for a
// gigabyte, which nobody should wait for who has a message. A tape that was opened again and has got nothing keeps the
// end that it has.
func (t *tapeFile) finish(end *Entry) error {
	if t.rest && t.whole {
		return t.close()
	}
	sum := sha256.New()
	_, err := io.Copy(sum, io.NewSectionReader(t.f, 0, t.size))
	if err == nil {
		end.Sum = hex.EncodeToString(sum.Sum(nil))
		_, err = t.append(appendEntry(nil, end))
	}
	if err == nil && t.sync != syncNever {
		err = t.f.Sync()
	}
	return cmp.Or(err, t.close())
}

// close closes the file as it is. There need not be one.
func (t *tapeFile) close() error {
	if t.f == nil {
		return nil
	}
	return t.part().f.Close()
}

func (t *tapeFile) stopSync() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}
