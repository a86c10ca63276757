// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recordTalk makes a Recorder for w; check closes it and checks the tape.
func recordTalk(w *talk) (rec *Recorder, check func()) {
	path := filepath.Join(w.t.TempDir(), "talk.jsonl")
	file := &tapeFile{path: path, sync: syncNever}
	if err := file.create(); err != nil {
		w.t.Fatal(err)
	}
	rec = newRecorder(file, w.log)
	rec.Header.Client, rec.Header.Server = w.client, "stdio"
	if w.overHTTP() {
		rec.Header.Server, rec.HTTP = "http", true
	}
	return rec, func() {
		if err := rec.Close(); err != nil {
			w.t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		w.tape = string(text)
		recordCheck(w.t, w.tape)
	}
}

// recordCheck checks that a tape is whole and that its lines refer to the right ones.
func recordCheck(t *testing.T, text string) []*Entry {
	t.Helper()
	tape, entries, err := readTape(text)
	if err != nil || len(tape.Warnings()) > 0 {
		t.Fatal(err, tape.Warnings())
	}
	calls := map[int64]*Entry{}
	open := map[int64]bool{}
	for _, e := range entries {
		if e.Kind == lineOpen {
			open[e.Session] = true
		}
		if e.Session != 0 && !open[e.Session] && e.Kind != lineExit && e.Kind != lineStderr {
			t.Errorf("line %d: session %d is not open", e.Seq, e.Session)
		}
		if e.Kind == lineClose {
			open[e.Session] = false
		}
		if e.X != 0 && (calls[e.X] == nil || calls[e.X].Dir != dirToServer || calls[e.X].Session != e.Session) {
			t.Errorf("line %d: x is %d, want a call to the server", e.Seq, e.X)
		}
		if e.Kind != lineMsg {
			continue
		}
		m, err := Parse(e.Msg)
		if err != nil {
			t.Fatalf("line %d: %v", e.Seq, err)
		}
		switch call := calls[e.Re]; {
		case m.Kind == Call:
			calls[e.Seq] = e
		case m.Kind != Response || e.Re == 0:
		case call == nil:
			t.Errorf("line %d: re is %d, want a call", e.Seq, e.Re)
		default:
			c, _ := Parse(call.Msg)
			if canonicalID(c.ID) != canonicalID(m.ID) || call.Dir == e.Dir || call.Session != e.Session {
				t.Errorf("line %d: answers %s, want %s of the other side", e.Seq, call.Msg, m.ID)
			}
		}
	}
	return entries
}

// recordRun runs the program with this input and returns its tape.
func recordRun(t *testing.T, input string, args ...string) []*Entry {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run.jsonl")
	code, _, errs := runWith(strings.NewReader(input), append([]string{"-mode=record", "-tape", path}, args...)...)
	if code != 0 {
		t.Fatalf("got status %d, %s", code, errs)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, want 0600", info.Mode())
	}
	return recordCheck(t, string(text))
}

const recordHello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
`

func TestRecordDemo(t *testing.T) {
	var got []string
	for _, e := range recordRun(t, recordHello+`{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"countdown","arguments":{"from":1},"_meta":{"progressToken":"p"}}}`+"\n", "-demo") {
		m, _ := Parse(e.Msg)
		if m == nil {
			m = &Message{}
		}
		got = append(got, fmt.Sprintf("%d %s %d %s %d %d %s %s %s", e.Seq, e.Kind, e.Session, e.Dir, e.X, e.Re, e.Via, m.Method, m.ID))
	}
	want := []string{
		"1 open 1  0 0   ",
		"2 msg 1 to-server 0 0 stdio initialize 1",
		"3 msg 1 to-server 0 0 stdio notifications/initialized ",
		"4 msg 1 to-server 0 0 stdio tools/call 9007199254740993",
		"5 msg 1 to-client 0 2 stdio  1",
		"6 msg 1 to-client 4 0 stdio notifications/progress ",
		"7 msg 1 to-client 0 4 stdio  9007199254740993",
		"8 close 1  0 0   ",
		"9 end 0  0 0   ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A call that a limit refuses is on the tape, with its answer, as what never left the proxy.
func TestRecordRefusal(t *testing.T) {
	call := `{"jsonrpc":"2.0","id":%d,"method":"tools/list"}` + "\n"
	entries := recordRun(t, recordHello+fmt.Sprintf(call, 2)+fmt.Sprintf(call, 3), "-limit", "tools/list=1/d", "-demo")
	local := 0
	for i, e := range entries {
		if m, _ := Parse(e.Msg); m != nil && e.Local {
			local++
			if m.Kind == Response && (entries[i-1].Seq != e.Re || !entries[i-1].Local || !strings.Contains(e.Msg, `"code":429`)) {
				t.Errorf("got %+v after %+v, want the refusal after its call", e, entries[i-1])
			}
		}
	}
	if local != 2 {
		t.Errorf("got %d lines of the proxy, want the call and its refusal", local)
	}
}

// What an HTTP server answered that is no message is on the tape once, and nothing where the answer was all there is.
func TestRecordWithoutMessage(t *testing.T) {
	serve := relayedSession(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.Header.Get("Mcp-Param-Case") {
		case "refused":
			w.WriteHeader(400)
			relayFlush(w, frontError("1", "-32602"))
		case "empty":
			w.WriteHeader(503)
		case "text":
			w.WriteHeader(403)
			io.WriteString(w, "go away")
		case "piece":
			w.WriteHeader(403)
			relayFlush(w, "go away")
		case "events":
			w.Header().Set("Content-Type", "text/event-stream")
			relayFlush(w, ": hello\n\n")
			io.WriteString(w, "data: "+frontResult("1", "{}")+"\n\n")
		case "ended":
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "retry: 10\n\n")
		}
	})
	path := filepath.Join(t.TempDir(), "t.jsonl")
	var rec *Recorder
	inFrontOf(t, serve, func(g *frontRig) {
		rec = recordFile(t, path)
		rec.HTTP = true
		g.chain = []Interceptor{rec.Intercept}
	}, func(g *frontRig) {
		session := replaySession(g, "c")
		for _, of := range []string{"refused", "empty", "text", "piece", "events", "ended"} {
			frontBody(t, g.do("POST", frontCall("1", "tools/list"), session, "Mcp-Param-Case: "+of))
			g.do("DELETE", "", session)
			session = replaySession(g, "c")
		}
		if err := rec.Close(); err != nil {
			t.Error(err)
		}
	})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range recordCheck(t, string(text)) {
		if e.Kind == lineRaw {
			got = append(got, fmt.Sprintf("%d %s %q", e.Status, e.Via, e.Text))
		}
	}
	if want := []string{`503 json ""`, `403 json "go away"`, `403 json "go away"`, `200 sse ""`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Headers repeat arguments of a call: those of a redacted one are not on the tape.
func TestRecordRedactsRepeatedArguments(t *testing.T) {
	x := sessOpen(t, sessBounds())
	defer x.p.Close()
	path := filepath.Join(t.TempDir(), "r.jsonl")
	r := recordFile(t, path)
	r.HTTP, r.Redact = true, testRedactor(t)
	for _, key := range []string{"password", "region"} {
		m := sessParse(t, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"`+key+`":"hidden"}}}`)
		m.Origin = &Origin{Header: http.Header{"Mcp-Param-Sent": {"hidden"}, revisionHeader: {"2026-07-28"}}}
		if _, err := r.Intercept(t.Context(), x.s, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	_, entries := recordRead(t, path)
	if len(entries) != 4 {
		t.Fatal(entries)
	}
	if e := entries[1]; strings.Contains(e.Msg+e.Headers, "hidden") || !strings.Contains(e.Headers, "2026-07-28") {
		t.Errorf("got %s with %s, want no secret", e.Msg, e.Headers)
	}
	if e := entries[2]; !strings.Contains(e.Headers, `"mcp-param-sent":"hidden"`) {
		t.Errorf("got %s, want the argument", e.Headers)
	}
}

// recordFile makes a Recorder with a tape at path.
func recordFile(t *testing.T, path string) *Recorder {
	t.Helper()
	file := &tapeFile{path: path, sync: syncNever}
	if err := file.create(); err != nil {
		t.Fatal(err)
	}
	return newRecorder(file, slog.New(slog.DiscardHandler))
}

// recordBreak lets all writes to the tape fail; mend ends that.
func recordBreak(t *testing.T, r *Recorder) (mend func()) {
	t.Helper()
	r.Flush()
	broken, err := os.Open(r.file.f.Name()) // for reading only
	if err != nil {
		t.Fatal(err)
	}
	r.lock <- struct{}{}
	whole := r.file.f
	r.file.f = broken
	<-r.lock
	return func() {
		r.lock <- struct{}{}
		r.file.f = whole
		<-r.lock
		broken.Close()
	}
}

// recordCall passes a call and its answer through r and returns what becomes of the call.
func recordCall(t *testing.T, r *Recorder, s *Session, id int) error {
	m := sessParse(t, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"ping"}`, id))
	c := &PendingCall{Message: m}
	if e := s.book(ToServer, c); e != nil {
		t.Fatal(e)
	}
	_, err := r.Intercept(t.Context(), s, m)
	answer := sessParse(t, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{}}`, id))
	answer.Dir, answer.Answers = ToClient, s.strike(ToServer, m.ID)
	r.Intercept(t.Context(), s, answer)
	return err
}

func TestRecordStopsWhenTheTapeFails(t *testing.T) {
	for _, http := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			x := sessOpen(t, sessBounds())
			defer x.p.Close()
			r := recordFile(t, filepath.Join(t.TempDir(), "r.jsonl"))
			r.HTTP = http
			failed := 0
			r.Fail = func() { failed++ }
			if err := recordCall(t, r, x.s, 1); err != nil {
				t.Fatal(err)
			}
			recordBreak(t, r)
			for id := 2; id < 5; id++ {
				err := recordCall(t, r, x.s, id)
				if err == nil {
					err = r.Flush() // as a Conn on stdio does
				}
				var e *Error
				if !errors.As(err, &e) || e.Code != 503 {
					t.Errorf("got %v, want a refusal", err)
				}
			}
			time.Sleep(time.Second)
			if err := r.Close(); failed != 1 || err == nil {
				t.Errorf("got Fail called %d times and %v at the end, want once and why", failed, err)
			}
		})
	}
}

// Whoever is next to send something hears of a failure, also if the lines that failed were another's, or too long to
// wait.
func TestRecordRefusesAllAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		r := recordFile(t, filepath.Join(t.TempDir(), "r.jsonl"))
		recordBreak(t, r)
		big := sessParse(t, `{"jsonrpc":"2.0","method":"notifications/x","params":{"a":"`+strings.Repeat("x", 2*recordBuffer)+`"}}`)
		if _, err := r.Intercept(t.Context(), x.s, big); err == nil {
			err = r.Flush()
			if err == nil {
				t.Error("got nil, want the first refusal")
			}
		}
		if err := r.Flush(); err == nil {
			t.Error("got nil with nothing to write, want the refusal again")
		}
		r.Close()
	})
}

func TestRecordSaysWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		path := filepath.Join(t.TempDir(), "r.jsonl")
		r := recordFile(t, path)
		r.HTTP, r.Pass = true, true
		for id := 1; id <= 4; id++ {
			if id == 2 {
				time.AfterFunc(recordRetry/2, recordBreak(t, r))
			}
			if id == 4 {
				time.Sleep(3 * recordRetry)
			}
			if err := recordCall(t, r, x.s, id); err != nil {
				t.Errorf("call %d: got %v, want it to pass", id, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		tape, entries := recordRead(t, path)
		var kinds []string
		for _, e := range entries {
			kinds = append(kinds, e.Kind+" "+e.Text)
		}
		want := "open ,msg ,msg ,blind 4 lines before this one are missing,msg ,msg ,end "
		if got := strings.Join(kinds, ","); got != want || tape.Altered || !strings.Contains(entries[6].Counts, `"lines":6,"messages":4`) {
			t.Errorf("got %s, %s, want %s", got, entries[len(entries)-1].Counts, want)
		}
	})
}

// A tape that can be written again when it is being closed says what is missing, once.
func TestRecordRecoversWhenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	r := recordFile(t, path)
	r.Pass = true
	r.Stderr(nil, "first")
	r.Flush()
	r.fail(errHangs, nil)
	r.Stderr(nil, "missing")
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	defer time.AfterFunc(5*time.Second, func() { panic("recover goes on without end") }).Stop()
	r.recover()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, entries := recordRead(t, path); len(entries) != 3 || entries[1].Kind != lineBlind {
		t.Errorf("got %+v, want one line that says what is missing", entries)
	}
}

// A write that hangs refuses calls after its time, and does not keep the program from ending.
func TestRecordHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		r := recordFile(t, filepath.Join(t.TempDir(), "r.jsonl"))
		failed := make(chan struct{})
		r.Fail = func() { close(failed) }
		r.lock <- struct{}{} // as a write would hold it
		r.watch()
		began := time.Now()
		<-failed
		if err := recordCall(t, r, x.s, 1); err == nil {
			t.Error("got nil, want a refusal")
		}
		err := r.Close()
		if took := time.Since(began); err == nil || took > 4*recordWait {
			t.Errorf("got %v after %v, want to hear of it", err, took)
		}
		<-r.lock
		r.file.close()
	})
}

// An exit status that is no 0 stays one when it is recorded.
func TestRecordKeepsTheStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if code, _, errs := runWith(strings.NewReader(recordHello), "-mode=record", "-tape", path, "-stdio", "no-such-command"); code != 1 || !strings.Contains(errs, "no-such-command") {
		t.Errorf("got status %d, %q, want 1 and why", code, errs)
	}
}

// What goes to the server together has one time, and an answer the one at which it came.
func TestRecordTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := sessOpen(t, sessBounds())
		defer x.p.Close()
		path := filepath.Join(t.TempDir(), "r.jsonl")
		r := recordFile(t, path)
		call := func(id string) {
			m := sessParse(t, `{"jsonrpc":"2.0","id":`+id+`,"method":"ping"}`)
			m.own = &PendingCall{Message: m}
			if e := x.s.book(ToServer, m.own); e != nil {
				t.Fatal(e)
			}
			r.Intercept(t.Context(), x.s, m)
			time.Sleep(time.Millisecond / 2)
		}
		call("0")
		r.Flush()
		call("1")
		call("2")
		r.Flush()
		call("3")
		answer := sessParse(t, `{"jsonrpc":"2.0","id":1,"result":{}}`)
		answer.Dir, answer.Answers = ToClient, x.s.strike(ToServer, "1")
		time.Sleep(time.Millisecond)
		r.Intercept(t.Context(), x.s, answer)
		for _, call := range x.s.takeAll(ToServer) { // what the proxy answers itself has the time of that
			refused := (&Error{Code: 503, Text: "x"}).answer(call.Message.ID)
			refused.Dir, refused.Answers = ToClient, call
			r.Intercept(t.Context(), x.s, refused)
			break
		}
		time.Sleep(recordDelay) // it is written without a Flush
		text, _ := os.ReadFile(path)
		r.Close()
		var got []string
		for line := range strings.Lines(string(text)) {
			if e, err := ParseEntry(strings.TrimSpace(line)); err == nil && e.Kind == lineMsg {
				got = append(got, e.T.String())
			}
		}
		if want := "0s 500µs 500µs 1.5ms 2ms 3ms"; strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	})
}

// Lines that come while a tape is closed are on it or not, but the tape is whole.
func TestRecordCloseWhileMessagesPass(t *testing.T) {
	x := sessOpen(t, sessBounds())
	defer x.p.Close()
	for range 20 {
		path := filepath.Join(t.TempDir(), "r.jsonl")
		r := recordFile(t, path)
		r.Stderr(nil, "first")
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 2000 {
				r.Stderr(nil, "line")
			}
		})
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if tape, entries := recordRead(t, path); len(tape.Warnings()) > 0 {
			t.Fatalf("got %d lines, %v, want a whole tape", len(entries), tape.Warnings())
		}
	}
}
