// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// writeLongTape writes a tape of n messages of about 300 bytes, in calls of which 16 are in flight, and their answers.
func writeLongTape(w io.Writer, n int64) error {
	const inFlight = 16
	buffer := bufio.NewWriterSize(w, 1<<20)
	t, err := newTapeWriter(buffer, TapeHeader{Format: tapeFormat, Version: tapeVersion, Eras: []string{eraSession}})
	if err != nil {
		return err
	}
	for i, e := range handshake() {
		e.Seq = int64(i + 1)
		t.Write(&e)
	}
	filling := strings.Repeat("0123456789 ", 12)
	for seq := int64(5); seq <= n+4; seq++ {
		e := toServer(0, 0, "")
		if (seq-5)/inFlight%2 == 1 && seq > inFlight {
			e = toClient(0, seq-inFlight, "")
			e.Msg = fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"%s"}],"structuredContent":{"n":%d,"text":"%s"}}}`, e.Re, filling, seq, filling[:40])
		} else {
			e.Msg = fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"tool%d","arguments":{"text":"%s","n":%d},"_meta":{"progressToken":%d}}}`, seq, seq%7, filling, seq, seq)
		}
		e.Seq, e.T = seq, time.Duration(seq)*time.Millisecond
		t.Write(&e)
	}
	t.Write(&Entry{Seq: n + 5, Kind: lineClose, Session: 1, Text: errGone.Error()})
	if err := t.End([]string{eraSession}); err != nil {
		return err
	}
	return buffer.Flush()
}

// TestLongTape takes MCPPROXY_LONG_TAPE, a number of messages such as 1000000, and says how long each tool takes for
// them and how much memory.
func TestLongTape(t *testing.T) {
	n, err := strconv.ParseInt(os.Getenv("MCPPROXY_LONG_TAPE"), 10, 64)
	if err != nil {
		t.Skip("MCPPROXY_LONG_TAPE is not set")
	}
	path := filepath.Join(t.TempDir(), "long.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeLongTape(f, n); err != nil {
		t.Fatal(err)
	}
	info, _ := f.Stat()
	t.Logf("%d messages, %d MB", n, info.Size()>>20)
	o := TapeToolOptions{Max: 64 << 20}
	for _, tool := range []struct {
		name string
		run  func() error
	}{
		{"read", func() error {
			tape, err := NewTapeReader(f, path, o.Max)
			if err != nil {
				return err
			}
			return tape.Each(func(*Entry) error { return nil })
		}},
		{"check", func() error {
			var v TapeVerdict
			err := checker(&v).run(f, path, io.Discard, o)
			if v.Errors+v.Warnings > 0 {
				t.Errorf("got %+v", v)
			}
			return err
		}},
		{"stat", func() error { return tapeTool(statTape).run(f, path, io.Discard, o) }},
		{"show", func() error { return tapeTool(showTape).run(f, path, io.Discard, o) }},
		{"explain", func() error {
			set, err := parseRules(`{"version": 1, "rules": [{"when": {"tool": "tool3"}, "deny": "no"}, {"when": {"dir": "to-client"}, "remove": "/result/structuredContent/n"}]}`)
			if err != nil {
				return err
			}
			limit, _ := ParseLimit("tools/call:tool4=30/s")
			if err = tapeTool(newExplainer(&Config{Limits: []Limit{limit}}, set).tape).run(f, path, io.Discard, o); err == errFound {
				err = nil
			}
			return err
		}},
		{"trim", func() error {
			return trimTape(f, path, io.Discard, TapeToolOptions{Session: 1, Max: o.Max})
		}},
		{"diff", func() error {
			_, err := diffTapes(namedTape{"a", f}, namedTape{"b", f}, io.Discard, o)
			return err
		}},
	} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := tool.run(); err != nil {
			t.Fatal(tool.name, err)
		}
		took := time.Since(start)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		status, _ := os.ReadFile("/proc/self/status")
		_, peak, _ := strings.Cut(string(status), "VmHWM:")
		peak, _, _ = strings.Cut(peak, "\n")
		t.Logf("%-7s %8v, heap %d MB, peak RSS %s", tool.name, took.Round(time.Millisecond), m.HeapSys>>20, strings.TrimSpace(peak))
	}
}
