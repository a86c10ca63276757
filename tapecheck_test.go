// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// checker is checkTape, which sets v.
func checker(v *TapeVerdict) tapeTool {
	return func(t *TapeReader, w *bufio.Writer, o TapeToolOptions) (err error) {
		*v, err = checkTape(t, w, o)
		return err
	}
}

// useCheck returns what checkTape prints about a tape.
func useCheck(t *testing.T, text string, o TapeToolOptions) (string, TapeVerdict) {
	t.Helper()
	o.Max = 1 << 20
	var out bytes.Buffer
	var v TapeVerdict
	if err := checker(&v).run(strings.NewReader(text), "t.jsonl", &out, o); err != nil {
		t.Fatal(err)
	}
	return out.String(), v
}

func TestCheckPassesGoodTapes(t *testing.T) {
	got, v := useCheck(t, testTape(goodTape()...), TapeToolOptions{})
	if want := "t.jsonl: 18 lines, 13 messages: 0 errors, 0 warnings; without answer, as they may be: 1 cancelled, 0 subscriptions/listen, 1 of a session that the client ended\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if v.Errors+v.Warnings != 0 || v.Cancelled != 1 || v.Left != 1 {
		t.Errorf("got %+v", v)
	}
	// 2026-07-28 over HTTP: no sessions, ids of different clients, a listen stream that goes on, an answer of the proxy.
	stateless := func(id int, method string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q,"params":{"_meta":{"progressToken":1,"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`, id, method)
	}
	lines := []Entry{
		toServer(0, 0, stateless(1, "server/discover")), toServer(0, 0, stateless(1, "tools/list")), toClient(0, 2, textResult(1, "")),
		toClient(1, 0, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1.0,"progress":1}}`),
		toClient(0, 1, textResult(1, "")), toServer(0, 0, stateless(1, "subscriptions/listen")),
		toServer(0, 0, stateless(1, "tools/call")), toClient(0, 7, textResult(1, "")),
		toClient(0, 0, `{"jsonrpc":"2.0","error":{"code":413,"message":"too large"}}`),
	}
	for i := range lines {
		lines[i].Session = 0
	}
	for _, i := range []int{6, 7, 8} {
		lines[i].Local = true
	}
	if got, v := useCheck(t, testTape(lines...), TapeToolOptions{}); v.Errors+v.Warnings != 0 || v.Listening != 1 {
		t.Errorf("got %s", got)
	}
}

// changedBy is a line as a rule changed it.
func changedBy(e Entry, was int64) Entry {
	e.Rule, e.Was = "rule", was
	return e
}

func TestCheckFindings(t *testing.T) {
	ask := toServer(0, 0, tapeCallText(2, "ask", "{}")) // line 5 after the handshake
	cancel := toServer(5, 0, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}`)
	progress := toClient(0, 0, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t2","progress":1}}`)
	sample := toClient(0, 0, `{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":{}}`)
	answer := toClient(0, 5, textResult(2, "x"))
	task := toClient(0, 5, `{"jsonrpc":"2.0","id":2,"result":{"task":{"taskId":"1"}}}`)
	initialize, initResult := toServer(0, 0, tapeInitialize), toClient(0, 2, tapeInitResult)
	open, gone := Entry{Kind: lineOpen, Session: 1}, Entry{Kind: lineClose, Session: 1, Text: errGone.Error()}
	local := func(e Entry) Entry { e.Local = true; return e }
	session := func(n int64, e Entry) Entry { e.Session = n; return e }
	dropped := func(why string) Entry {
		return Entry{Kind: lineDropped, Session: 1, Dir: dirToClient, Text: why, Msg: textResult(2, "x")}
	}
	after := func(lines ...Entry) []Entry { return append(append(handshake(), lines...), gone) }
	modern := `{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`
	for _, c := range []struct {
		name  string
		lines []Entry
		want  string // in the findings, one after the other; "" for none
	}{
		{"answered", after(ask, answer), ""},
		{"changed by a rule", after(ask, changedBy(ask, 5), answer, changedBy(answer, 7)), ""},
		{"answer to the changed call", after(ask, changedBy(ask, 5), toClient(0, 6, textResult(2, ""))), ""},
		{"not answered", append(after(ask)[:5], Entry{Kind: lineClose, Session: 1, Text: "server crashed"}),
			"t.jsonl:6: seq 5: error: tools/call ask id 2 was never answered before its session ended: server crashed\n"},
		{"the proxy ended", append(after(ask)[:5], Entry{Kind: lineClose, Session: 1, Text: errShutdown.Error()}), "warning: tools/call ask id 2 was never answered: proxy"},
		{"not closed", append(handshake(), ask), "t.jsonl:6: seq 5: warning: tools/call ask id 2 was never answered on this tape\nt.jsonl:7: seq 6: warning: session 1 was not closed"},
		{"server asks and is left", after(sample), ""},
		{"id in use", after(ask, ask, answer, toClient(0, 6, textResult(2, ""))), "seq 6: error: tools/call ask id 2 has the id of the call seq 5, which is in flight\nt.jsonl:7: seq 6: error: tools/call ask id 2 has the progress token of"},
		{"id refused", after(ask, local(ask), local(toClient(0, 6, textResult(2, ""))), answer), ""},
		{"same id both ways", after(ask, toClient(5, 0, strings.Replace(sample.Msg, "9", "2", 1)), toServer(5, 6, textResult(2, "")), answer), ""},
		{"response to no call", after(toClient(0, 0, textResult(7, ""))), "seq 5: error: a response to no call, with id 7"},
		{"response to a notification", after(toClient(0, 4, textResult(7, ""))), "error: re is 4, which is no call"},
		{"second response", after(ask, answer, answer), "seq 7: error: a second response to the call seq 5"},
		{"other id", after(ask, toClient(0, 5, textResult(3, ""))), "error: a response with id 3 to the call seq 5 with id 2"},
		{"id of another type", after(ask, toClient(0, 5, strings.Replace(textResult(2, ""), `"id":2`, `"id":"2"`, 1))), `error: a response with id "2" to the call seq 5 with id 2`},
		{"id in another form", after(ask, toClient(0, 5, strings.Replace(textResult(2, ""), `"id":2`, `"id":2.0`, 1))), ""},
		{"wrong way", after(ask, toServer(0, 5, textResult(2, "")), answer), "error: a response that goes the way of its call seq 5"},
		{"other session", append(after(ask, session(2, Entry{Kind: lineOpen}), session(2, answer)), session(2, gone)),
			"seq 7: error: a response in session 2 to the call seq 5 of session 1"},
		{"late answer", after(ask, cancel, answer), "seq 7: warning: a late answer: the call seq 5 was cancelled"},
		{"late answer of a forgotten call", after(ask, cancel, toClient(0, 0, textResult(2, ""))), "seq 7: warning: a late answer: the call seq 5 was cancelled"},
		{"late answer that was dropped", after(ask, cancel, dropped(answersNoCall)), "seq 7: warning: a late answer: the call seq 5 was cancelled"},
		{"late answer that was dropped, after the proxy", after(ask, local(answer), dropped(answersNoCall)), "seq 7: warning: a late answer: the proxy had answered"},
		{"answer that did not arrive", after(ask, answer, dropped("client is gone")), ""},
		{"response to no call that was dropped", after(dropped(answersNoCall)), "seq 5: error: a response to no call, with id 2"},
		{"response to no call without session", []Entry{session(0, dropped(answersNoCall))}, "seq 1: warning: a response with id 2 to no call, or a late one"},
		{"second late answer", after(ask, cancel, answer, answer), "seq 7: warning: a late answer: the call seq 5 was cancelled\nt.jsonl:9: seq 8: error: a second response"},
		{"late after the proxy", after(ask, local(answer), answer), "seq 7: warning: a late answer: the proxy had answered"},
		{"cancelled too late", after(ask, answer, cancel), ""},
		{"id free after a cancellation", after(ask, cancel, ask, toClient(0, 7, textResult(2, ""))), ""},
		{"initialize cancelled", []Entry{open, initialize, toServer(2, 0, strings.Replace(cancel.Msg, "2}", "1}", 1)), gone}, "error: initialize id 1 is cancelled"},
		{"no JSON-RPC", after(toServer(0, 0, `{"jsonrpc":"1.0","method":"x"}`)), `error: no message of JSON-RPC: message byte 11: jsonrpc is not "2.0"`},
		{"batch", after(toServer(0, 0, `[]`)), "error: no message of JSON-RPC: message is a batch"},
		{"before initialize", append([]Entry{open, ask, toClient(0, 2, textResult(2, ""))}, gone), "t.jsonl:3: seq 2: error: tools/call before initialize"},
		{"ping before initialize", []Entry{open, toServer(0, 0, `{"jsonrpc":"2.0","id":1,"method":"ping"}`), toClient(0, 2, `{"jsonrpc":"2.0","id":1,"result":{}}`), initialize, toClient(0, 4, tapeInitResult), gone}, ""},
		{"before the answer to initialize", []Entry{open, initialize, ask, initResult, toClient(0, 3, textResult(2, "")), gone}, "seq 3: warning: tools/call before the answer to initialize"},
		{"initialized before the answer", []Entry{open, initialize, toServer(0, 0, tapeReady), initResult, sample, gone}, "t.jsonl:4: seq 3: warning: notifications/initialized before the answer to initialize\n"},
		{"server too early", []Entry{open, initialize, initResult, sample, gone}, "seq 4: warning: server asks for sampling/createMessage before notifications/initialized"},
		{"second initialize", after(toServer(0, 0, strings.Replace(tapeInitialize, `"id":1`, `"id":5`, 1)), toClient(0, 5, strings.Replace(tapeInitResult, `"id":1`, `"id":5`, 1))), "seq 5: error: a second initialize in session 1"},
		{"initialize again after it failed", []Entry{open, initialize, toClient(0, 2, `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}`), initialize, toClient(0, 4, tapeInitResult), gone}, ""},
		{"initialize after a probe", []Entry{open, toServer(0, 0, strings.Replace(modern, "tools/list", "server/discover", 1)), toClient(0, 2, textResult(2, "")), initialize, toClient(0, 4, tapeInitResult), gone}, ""},
		{"modern on stdio", []Entry{open, toServer(0, 0, modern), toClient(0, 2, textResult(2, "")), gone}, ""},
		{"modern server asks", []Entry{open, toServer(0, 0, modern), sample, toServer(0, 3, textResult(9, "")), toClient(0, 2, textResult(2, "")), gone}, "seq 3: error: server asks for sampling/createMessage, and since 2026-07-28 no server asks"},
		{"modern server asks over HTTP", []Entry{session(0, toServer(0, 0, modern)), session(0, toClient(1, 0, sample.Msg)), session(0, toServer(1, 2, textResult(9, ""))), session(0, toClient(0, 1, textResult(2, "")))}, "seq 2: error: server asks"},
		{"modern client is gone", []Entry{session(0, toServer(0, 0, modern))}, "seq 1: warning: tools/list id 2 was never answered on this tape; its client may have gone"},
		{"progress", after(ask, progress, answer), ""},
		{"unknown token", after(progress), `seq 5: error: progress for the token "t2", which no call in flight has given`},
		{"progress after the answer", after(ask, answer, progress), `seq 7: error: progress for the token "t2"`},
		{"progress after the cancellation", after(ask, cancel, toClient(5, 0, progress.Msg)), "seq 7: warning: progress of the call seq 5, which was cancelled"},
		{"progress of a task", after(ask, task, progress), ""},
		{"error without id", after(toClient(0, 0, `{"jsonrpc":"2.0","error":{"code":1,"message":""}}`)), "warning: an error without id"},
		{"error without id, to a call", after(ask, toClient(0, 5, `{"jsonrpc":"2.0","error":{"code":1,"message":""}}`)), ""},
		{"session not open", append(handshake()[1:], gone), "t.jsonl:2: seq 1: warning: a message of session 1, which is not open"},
		{"opened twice", after(open), "seq 5: error: session 1 is open already"},
		{"open without session", after(session(0, open)), "seq 5: error: an open without session"},
		{"closed twice", append(after(), gone), "seq 6: error: a close of session 1, which is not open"},
		{"points forward", after(toServer(9, 0, ask.Msg), answer), "seq 5: error: x, re or was is not the seq of an earlier line"},
		{"rule", after(ask, Entry{Kind: lineRule, Session: 1, Dir: dirToServer, Re: 5, Rule: "r", Text: "tag fault"}, answer), ""},
		{"rule about nothing", after(Entry{Kind: lineRule, Session: 1, Dir: dirToServer, Rule: "r", Text: "deny"}), "seq 5: error: a rule line without re"},
		{"rule about what follows", after(Entry{Kind: lineRule, Session: 1, Dir: dirToServer, Re: 9, Rule: "r", Text: "deny"}), "seq 5: error: x, re or was is not"},
		{"after a fault", after(ask, Entry{Kind: lineRule, Session: 1, Dir: dirToServer, Re: 5, Rule: "r", Text: "fault duplicate"}, answer, answer),
			"seq 8: warning: a second response to the call seq 5 (perhaps because not all that passed is on the tape, or because of a fault that a rule made)"},
		{"after a gap", append([]Entry{{Kind: lineBlind, Text: "disk full"}}, after(progress)...), "warning: progress for the token \"t2\", which no call in flight has given (perhaps"},
		{"hostile names", after(toServer(0, 0, `{"jsonrpc":"2.0","id":"\u001b\u009b","method":"\u001b[2J\u202e"}`), Entry{Kind: lineClose, Session: 1, Text: "\x1b"})[:6], `\x1b[2J\u202e id "\u001b\u009b" was never answered before its session ended: \x1b`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, v := useCheck(t, testTape(c.lines...), TapeToolOptions{})
			findings, _, _ := strings.Cut(got, "t.jsonl: ")
			if c.want == "" && findings != "" || !strings.Contains(findings, c.want) || v.Errors+v.Warnings != int64(strings.Count(findings, "\n")) {
				t.Errorf("got %+v\n%s\nwant %q", v, findings, c.want)
			}
			if want := strings.Count(c.want, "\n"); want > 0 && !strings.HasSuffix(c.want, "\n") && strings.Count(findings, "\n") != want+1 {
				t.Errorf("got\n%s\nwant %d findings", findings, want+1)
			}
			if strings.ContainsAny(got, "\x1b\u009b\u202e") {
				t.Errorf("got control characters: %q", got)
			}
		})
	}
}

func TestCheckTapeAsAFile(t *testing.T) {
	text := testTape(goodTape()...)
	end := strings.LastIndexByte(text[:len(text)-1], '\n') + 1
	ring := strings.Replace(testTapeHeader, `"redact":[]`, `"redact":[],"ring":"1MiB"`, 1) +
		string(appendEntry(nil, &Entry{Seq: 90, Kind: lineMsg, Session: 4, Dir: dirToClient, Re: 80, Msg: textResult(3, "")}))
	for _, c := range []struct{ name, text, want string }{
		{"altered", strings.Replace(text, `"one`, `"two`, 1), "t.jsonl:20: seq 19: error: the checksum differs"},
		{"torn", text[:end+5], "t.jsonl:19: warning: the next line broke off"},
		{"no end", text[:end], "t.jsonl:19: warning: no end"},
		{"cut off in flight", testTapeHeader + string(appendEntry(nil, &Entry{Seq: 1, Kind: lineMsg, Dir: dirToServer, Msg: tapeCallText(1, "x", "{}")})),
			"t.jsonl:2: seq 1: warning: tools/call x id 1 was never answered before the tape broke off\nt.jsonl:2: warning: no end"},
		{"ring", ring, "t.jsonl:2: warning: no end"},
	} {
		got, v := useCheck(t, c.text, TapeToolOptions{})
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %s%+v, want %s", c.name, got, v, c.want)
		}
	}
}

func TestCheckJSON(t *testing.T) {
	got, v := useCheck(t, testTape(append(handshake(), toClient(0, 0, textResult(7, "")))...), TapeToolOptions{JSON: true})
	var f tapeFinding
	line, _, _ := strings.Cut(got, "\n")
	if err := json.Unmarshal([]byte(line), &f); err != nil || f.Line != 6 || f.Seq != 5 || f.Severity != severityError || strings.Count(got, "\n") != int(v.Errors+v.Warnings) {
		t.Errorf("got %v, %+v of %s", err, f, got)
	}
}

func TestCheckBooksAreBounded(t *testing.T) {
	var text bytes.Buffer
	w, err := newTapeWriter(&text, TapeHeader{Format: tapeFormat, Version: tapeVersion})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(maxFollowed + 10) {
		w.Write(&Entry{Seq: 2*i + 1, Kind: lineOpen, Session: i + 1})
		w.Write(&Entry{Seq: 2*i + 2, Kind: lineMsg, Session: i + 1, Dir: dirToServer, Msg: `{"jsonrpc":"2.0","id":1,"method":"ping"}`})
	}
	if err := w.End(nil); err != nil {
		t.Fatal(err)
	}
	got, _ := useCheck(t, text.String(), TapeToolOptions{})
	if want := "more than 100000 calls in flight, or open sessions"; !strings.Contains(got, want) {
		t.Errorf("got no %q", want)
	}
}

// FuzzTapeTools gives the tools lines of a tape that somebody else wrote.
func FuzzTapeTools(f *testing.F) {
	text := testTape(goodTape()...)
	f.Add(strings.TrimPrefix(text, testTapeHeader))
	f.Add(strings.TrimPrefix(testTape(ruledTape()...), testTapeHeader))
	lines := strings.SplitAfter(text, "\n")
	for _, line := range lines[1:] {
		f.Add(line + line)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		text := testTapeHeader + lines
		o := TapeToolOptions{Max: 1 << 16}
		var out bytes.Buffer
		tapeTool(showTape).run(strings.NewReader(text), "t", &out, o)
		for line := range strings.Lines(out.String()) {
			if len([]rune(line)) > showWidth+1 || strings.ContainsAny(line, "\x1b\r\u009b") {
				t.Errorf("show prints %q", line)
			}
		}
		tapeTool(statTape).run(strings.NewReader(text), "t", &out, o)
		checker(&TapeVerdict{}).run(strings.NewReader(text), "t", &out, o)
		tape := namedTape{"t", strings.NewReader(text)}
		if n, err := diffTapes(tape, tape, &out, o); err == nil && n != 0 {
			t.Errorf("diff of a tape with itself finds %d differences", n)
		}
		for _, o := range []TapeToolOptions{{Session: 1, Max: 1 << 16}, {Exchange: 2, Max: 1 << 16}} {
			var cut bytes.Buffer
			if trimTape(strings.NewReader(text), "t", &cut, o) == nil {
				if tape, _, err := readTape(cut.String()); err != nil || tape.Altered {
					t.Errorf("trim wrote %q: %v", cut.String(), err)
				}
			}
		}
	})
}
