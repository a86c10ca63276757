// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"time"
)

// A tapeWriter writes a tape that is made from another: the header, lines, the end. Make one with newTapeWriter; it
// does not close what it writes to.
type tapeWriter struct {
	out    *bufio.Writer // keeps its first error, which End returns
	sum    hash.Hash
	line   []byte
	seq    int64 // of the last line
	t      time.Duration
	counts tapeCounts // but for the eras
}

func newTapeWriter(w io.Writer, h TapeHeader) (*tapeWriter, error) {
	line, err := h.line()
	if err != nil {
		return nil, err
	}
	t := &tapeWriter{out: bufio.NewWriterSize(w, lineBuffer), sum: sha256.New()}
	t.write(line)
	return t, nil
}

func (w *tapeWriter) write(line []byte) {
	w.sum.Write(line)
	w.out.Write(line)
}

// Write writes e with the numbers that it has. It leaves out an end, which is End's to write.
func (w *tapeWriter) Write(e *Entry) {
	if e.Kind == lineEnd {
		return
	}
	w.seq, w.t = e.Seq, e.T
	w.counts.add(e.Kind)
	w.line = appendEntry(w.line[:0], e)
	w.write(w.line)
	if cap(w.line) > 4*lineBuffer {
		w.line = nil
	}
}

// End writes the end, with the eras of all messages, and returns the first error of the whole tape.
func (w *tapeWriter) End(eras []string) error {
	w.counts.eras = eras
	e := Entry{Seq: w.seq + 1, T: w.t, Kind: lineEnd, Counts: w.counts.String(), Sum: hex.EncodeToString(w.sum.Sum(nil))}
	w.out.Write(appendEntry(nil, &e))
	return w.out.Flush()
}
