// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// recordRoles are the program itself, as a process.
func recordRoles() map[string]func() {
	return map[string]func(){"program": func() {
		os.Exit(run(context.Background(), os.Args[1:], func(string) (string, bool) { return "", false }, stdio{os.Stdin, os.Stdout, os.Stderr}))
	}}
}

func recordRead(t *testing.T, path string) (*TapeReader, []*Entry) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tape, entries, err := readTape(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return tape, entries
}

// However a program ends, its tape can be read, and lacks at most the last answer.
func TestRecordKilled(t *testing.T) {
	for answers := 1; answers <= 20; answers += 6 {
		path := filepath.Join(t.TempDir(), "killed.jsonl")
		cmd := exec.Command(os.Args[0], "-mode=record", "-tape", path, "-log-level", "error", "-demo")
		cmd.Env = append(os.Environ(), "MCPPROXY_TEST_CHILD=program")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for id := 1; id <= answers; id++ {
			fmt.Fprintf(in, `{"jsonrpc":"2.0","id":%d,"method":"ping"}`+"\n", id)
			if line, err := lines.ReadString('\n'); err != nil {
				t.Fatalf("got %q, %v, want an answer", line, err)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		tape, entries := recordRead(t, path)
		calls, got := 0, 0
		for _, e := range entries {
			if e.Dir == dirToServer {
				calls++
			} else if e.Kind == lineMsg {
				got++
			}
		}
		if tape.Ended != nil || calls != answers || got < answers-1 {
			t.Errorf("got %d calls and %d answers on the tape, ended %v, want %d, at most one answer less, and no end", calls, got, tape.Ended, answers)
		}
	}
}

func TestRecordGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.jsonl")
	record := func(args ...string) (int, string) {
		code, _, errs := runWith(strings.NewReader(recordHello), append([]string{"-mode=record", "-tape", path, "-demo"}, args...)...)
		return code, errs
	}
	if code, errs := record("-tape-append"); code != 0 {
		t.Fatal(errs)
	}
	if code, errs := record(); code != 1 || !strings.Contains(errs, "run.jsonl exists") {
		t.Errorf("got %d, %s, want it to refuse a tape that exists", code, errs)
	}
	before, _ := os.ReadFile(path)
	os.WriteFile(path, before[:len(before)-10], 0o600) // as if killed while it wrote the end
	if code, errs := record("-tape-append"); code != 0 {
		t.Fatal(errs)
	}
	if code, errs := record("-tape-append", "-redact", "key=x"); code != 1 || !strings.Contains(errs, "-redact") {
		t.Errorf("got %d, %s, want it to refuse other rules", code, errs)
	}
	key := filepath.Join(t.TempDir(), "key")
	os.WriteFile(key, []byte(testRedactKey), 0o600)
	if code, errs := record("-tape-append", "-redact-key", key); code != 1 || !strings.Contains(errs, "-redact-key") {
		t.Errorf("got %d, %s, want it to refuse another key", code, errs)
	}
	text, _ := os.ReadFile(path)
	entries := recordCheck(t, string(text))
	if last := entries[len(entries)-2]; last.Session != 2 || !strings.HasPrefix(string(text), string(before[:100])) {
		t.Errorf("got %+v, want the end of a second session", last)
	}
}

// A tape with more rules than a reader takes is not begun.
func TestRecordTooManyRules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.jsonl")
	args := []string{"-mode=record", "-tape", path, "-demo"}
	for i := range maxTapeRules {
		args = append(args, "-redact", fmt.Sprintf("key=%d", i))
	}
	code, _, errs := runWith(strings.NewReader(recordHello), args...)
	if _, err := os.Stat(path); code != 1 || !strings.Contains(errs, "rules") || err == nil {
		t.Errorf("got %d, %s, and a file %v, want too many rules and none", code, errs, err == nil)
	}
}

func TestRecordRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "r.2.jsonl"), nil, 0o600) // not to be overwritten
		file := &tapeFile{path: filepath.Join(dir, "r.jsonl"), sync: syncInterval, rotate: 2000}
		if err := file.create(); err != nil {
			t.Fatal(err)
		}
		r := newRecorder(file, slog.New(slog.DiscardHandler))
		x := sessOpen(t, sessBounds())
		x.p.OnEnd = r.Ended
		for id := range 40 { // all in one session
			recordCall(t, r, x.s, id)
			time.Sleep(time.Second)
		}
		x.p.Close()
		y := sessOpen(t, sessBounds())
		y.p.OnEnd = r.Ended
		recordCall(t, r, y.s, 1)
		y.p.Close()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		next, messages, continued := int64(1), int64(0), 0
		for i := range names {
			path := filepath.Join(dir, fmt.Sprintf("r.%d.jsonl", i+1))
			if i == 0 {
				path = filepath.Join(dir, "r.jsonl")
			}
			if i == 1 {
				continue
			}
			tape, entries := recordRead(t, path)
			if len(tape.Warnings()) > 0 {
				t.Error(tape.Warnings())
			}
			if tape.Header.Continues == "" {
				next = 1
			} else {
				continued++
			}
			if entries[0].Seq != next {
				t.Errorf("%s: got seq %d, want %d", path, entries[0].Seq, next)
			}
			for _, e := range entries {
				messages += int64(btoi(e.Kind == lineMsg))
				next = e.Seq + 1
			}
			if info, _ := os.Stat(path); info.Size() > 3500 {
				t.Errorf("%s: got %d bytes, want about 2000", path, info.Size())
			}
		}
		if messages != 82 || continued < 2 {
			t.Errorf("got %d messages in %d files, %d of them continuations, want 82", messages, len(names)-1, continued)
		}
	})
}

// The next tape begins when nothing is open, whether calls were answered or not, and whether all was recorded or not.
func TestRecordRotatesBetweenSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := &tapeFile{path: filepath.Join(dir, "r.jsonl"), sync: syncNever, rotate: 1000}
		if err := file.create(); err != nil {
			t.Fatal(err)
		}
		r := newRecorder(file, slog.New(slog.DiscardHandler))
		r.Pass = true
		for n := range 6 {
			x := sessOpen(t, sessBounds())
			x.p.OnEnd = r.Ended
			x.s.Transient = n%2 == 1
			for id := range 4 {
				recordCall(t, r, x.s, id)
			}
			m := sessParse(t, `{"jsonrpc":"2.0","id":9,"method":"ping"}`)
			if _, err := r.Intercept(t.Context(), x.s, m); err != nil {
				t.Fatal(err)
			}
			mend := func() {}
			if n == 4 { // a session ends that cannot be recorded
				mend = recordBreak(t, r)
				recordCall(t, r, x.s, 10)
				time.Sleep(time.Second)
			}
			x.p.Close()
			mend()
			time.Sleep(3 * recordRetry)
		}
		if r.open != 0 {
			t.Errorf("got %d sessions open, want none", r.open)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, name := range names {
			if tape, entries := recordRead(t, name); tape.Header.Continues != "" || entries[0].Seq != 1 {
				t.Errorf("%s: got a tape from %d on that continues %q, want one of its own", name, entries[0].Seq, tape.Header.Continues)
			}
		}
		if len(names) < 3 {
			t.Errorf("got %d tapes, want one for each two sessions or so", len(names))
		}
	})
}

func TestRecordRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := newRecorder(&tapeFile{path: filepath.Join(dir, "r.jsonl"), sync: syncNever, other: true}, slog.New(slog.DiscardHandler))
		r.ring, r.rates = &tapeRing{size: 3000}, []eventRate{{DumpRate: DumpRate{"errors", 2, time.Minute}}}
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		for id := range 100 {
			recordCall(t, r, x.s, id)
			time.Sleep(time.Second)
		}
		if name, err := r.Dump("asked"); err != nil || filepath.Base(name) != "r.jsonl" {
			t.Fatal(name, err)
		}
		r.Exited(x.s, "exit status 3", true)
		synctest.Wait()
		for range 2 {
			time.Sleep(minDumpTime)
			failed := sessParse(t, `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}`)
			failed.Dir = ToClient
			r.Intercept(t.Context(), x.s, failed)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		for i, reason := range []string{"asked", "server ended: exit status 3", "errors=2/1m0s"} {
			tape, entries := recordRead(t, filepath.Join(dir, []string{"r.jsonl", "r.2.jsonl", "r.3.jsonl"}[i]))
			if tape.Header.Ring != reason || len(tape.Warnings()) > 0 || len(entries) < 10 || len(entries) > 40 || entries[0].Seq < 50 {
				t.Errorf("got %q, %v, %d lines from %d on, want %q and the last 3000 bytes", tape.Header.Ring, tape.Warnings(), len(entries), entries[0].Seq, reason)
			}
		}
	})
}

func TestParseDumpRate(t *testing.T) {
	for s, want := range map[string]DumpRate{
		"errors=5/m": {"errors", 5, time.Minute}, "refusals=1/s": {"refusals", 1, time.Second},
		"errors": {}, "errors=5": {}, "errors=0/m": {}, "other=1/m": {}, "errors=1/x": {}, "": {},
	} {
		got, err := ParseDumpRate(s)
		if (err == nil) != (want.N > 0) || err == nil && got != want {
			t.Errorf("%q: got %+v, %v, want %+v", s, got, err, want)
		}
	}
}
