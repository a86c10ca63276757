// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

const (
	tapeInitialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","clientInfo":{"name":"cli","version":"2"}}}`
	tapeInitResult = `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","serverInfo":{"name":"srv","version":"3"}}}`
	tapeReady      = `{"jsonrpc":"2.0","method":"notifications/initialized"}`
)

// toServer and toClient are lines with a message of session 1; x and re as in an Entry.
func toServer(x, re int64, msg string) Entry {
	return Entry{Kind: lineMsg, Session: 1, Dir: dirToServer, Via: viaStdio, X: x, Re: re, Msg: msg}
}

func toClient(x, re int64, msg string) Entry {
	e := toServer(x, re, msg)
	e.Dir = dirToClient
	return e
}

func tapeCallText(id int, name, arguments string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%s,"arguments":%s,"_meta":{"progressToken":"t%d"}}}`, id, quote(name), arguments, id)
}

func textResult(id int, text string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":%s}]}}`, id, quote(text))
}

// handshake is how a session of 2025-11-25 begins: lines 1 to 4.
func handshake() []Entry {
	return []Entry{{Kind: lineOpen, Session: 1}, toServer(0, 0, tapeInitialize), toClient(0, 2, tapeInitResult), toServer(0, 0, tapeReady)}
}

// goodTape has a bit of everything that may be on a tape and is in order.
func goodTape() []Entry {
	lines := append(handshake(),
		toServer(0, 0, tapeCallText(2, "slow", `{"n":1}`)), // 5
		toClient(5, 0, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t2","progress":1}}`),
		toClient(5, 0, `{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}`), // 7
		toServer(5, 7, `{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}`),
		Entry{Kind: lineStderr, Session: 1, Text: "\x1b[31mhello\u202e"},
		toClient(0, 5, textResult(2, "one")),                // 10
		toServer(0, 0, tapeCallText(2, "quick", `{"n":2}`)), // 11: the id again, as it is free
		toClient(0, 11, `{"jsonrpc":"2.0","id":2,"result":{"content":[],"isError":true}}`),
		toServer(0, 0, tapeCallText(3, "hang", `{}`)), // 13
		toServer(13, 0, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}`),
		Entry{Kind: lineRaw, Session: 1, Dir: dirToClient, Text: "garbage\n"},
		toServer(0, 0, tapeCallText(4, "left", `{}`)), // 16
		Entry{Kind: lineClose, Session: 1, Text: errGone.Error()},
		Entry{Kind: lineExit, Session: 1, Text: "exit status 0"},
	)
	for i := range lines {
		lines[i].T = time.Duration(i*i) * time.Millisecond
	}
	return lines
}

// useTape returns what a tool prints.
func useTape(t *testing.T, tool tapeTool, text string, o TapeToolOptions) string {
	t.Helper()
	o.Max = 1 << 20
	var out bytes.Buffer
	if err := tool.run(strings.NewReader(text), "t.jsonl", &out, o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// wantText compares what was printed, line by line.
func wantText(t *testing.T, got, want string) {
	t.Helper()
	a, b := strings.Split(strings.TrimSpace(got), "\n"), strings.Split(strings.TrimSpace(want), "\n")
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			t.Errorf("got no line %d, want %q", i+1, b[i])
		case i >= len(b):
			t.Errorf("got line %d %q, want none", i+1, a[i])
		case strings.TrimRight(a[i], " ") != b[i]:
			t.Errorf("line %d:\n got %q\nwant %q", i+1, a[i], b[i])
		}
	}
}

func TestShowTape(t *testing.T) {
	lines := goodTape()
	lines[11].Local, lines[11].Status, lines[11].Via = true, 200, viaSSE
	got := useTape(t, showTape, testTape(lines...), TapeToolOptions{})
	wantText(t, got, `
t.jsonl: recorded 2026-01-02 03:04:05 by mcpproxy 0.1.0, client on stdio, server on stdio
   seq   seconds ses    kind    method and name                    id           took   size via      content
     1     0.000   1    open
     2     0.001   1 -> call    initialize                         1                    130 stdio    {"protocolVersion":"2025-11-25","clientInfo":{"name":"cl...
     3     0.004   1 <- result  initialize                         1             3ms    108 stdio    {"protocolVersion":"2025-11-25","serverInfo":{"name":"sr...
     4     0.009   1 -> notify  notifications/initialized                                54 stdio
     5     0.016   1 -> call    tools/call slow                    2                    122 stdio    {"n":1}
     6     0.025   1 <- notify  notifications/progress                                   96 stdio    {"progressToken":"t2","progress":1}
     7     0.036   1 <- call    sampling/createMessage             1                     70 stdio    {}
     8     0.049   1 -> error   sampling/createMessage             1            13ms     59 stdio    {"code":-1,"message":"no"}
     9     0.064   1    stderr                                                           13          \x1b[31mhello\u202e
    10     0.081   1 <- result  tools/call slow                    2            65ms     76 stdio    {"content":[{"type":"text","text":"one"}]}
    11     0.100   1 -> call    tools/call quick                   2                    123 stdio    {"n":2}
    12     0.121   1 <- isError tools/call quick                   2            21ms     63 sse 200  [local] {"content":[],"isError":true}
    13     0.144   1 -> call    tools/call hang                    3                    117 stdio    {}
    14     0.169   1 -> notify  notifications/cancelled                                  77 stdio    {"requestId":3}
    15     0.196   1 <- raw                                                               8          garbage\n
    16     0.225   1 -> call    tools/call left                    4                    117 stdio    {}
    17     0.256   1    close                                                            14          client is gone
    18     0.289   1    exit                                                             13          exit status 0
    19     0.000        end                                                                          {"eras":["initialize"]}
`)
	for line := range strings.Lines(got) {
		if n := len([]rune(line)); n > showWidth+1 {
			t.Errorf("got %d characters in a line, want at most %d", n, showWidth)
		}
	}
}

// ruledTape is a tape on which rules did something: with a call, its answer, and a call that they kept from the server.
func ruledTape() []Entry {
	did := func(dir string, x, re int64, rule, text string) Entry {
		return Entry{Kind: lineRule, Session: 1, Dir: dir, X: x, Re: re, Rule: rule, Text: text}
	}
	kept, refusal := toServer(0, 0, tapeCallText(3, "off", `{}`)), toClient(0, 10, `{"jsonrpc":"2.0","id":3,"error":{"code":403,"message":"no"}}`)
	kept.Local, kept.Via, refusal.Local, refusal.Via, refusal.Rule = true, "", true, "", "no off"
	return append(handshake(),
		toServer(0, 0, tapeCallText(2, "add", `{"n":1}`)), // 5
		did(dirToServer, 0, 5, "mark", "tag sums"),
		toClient(0, 5, textResult(2, "one")), // 7
		changedBy(toClient(0, 5, textResult(2, "two")), 7),
		did(dirToClient, 5, 8, "mark", "tag sums"),
		kept, // 10
		did(dirToServer, 0, 10, "no off", "deny"),
		refusal,
		Entry{Kind: lineClose, Session: 1, Text: errGone.Error()},
	)
}

func TestShowTapeRules(t *testing.T) {
	got := useTape(t, showTape, testTape(ruledTape()...), TapeToolOptions{Method: "tools/*"})
	_, got, _ = strings.Cut(got, "content\n")
	wantText(t, got, `
     5     0.000   1 -> call    tools/call add                     2                    121 stdio    {"n":1}
     6     0.000   1 -> rule    line 5                                                               [rule mark] tag sums
     7     0.000   1 <- result  tools/call add                     2              0s     76 stdio    {"content":[{"type":"text","text":"one"}]}
     8     0.000   1 <- result  tools/call add                     2                     76 stdio    [rule rule] [was 7] {"content":[{"type":"text","text":"t...
     9     0.000   1 <- rule    line 8                                                               [rule mark] tag sums
    10     0.000   1 -> call    tools/call off                     3                    116          [local] {}
    11     0.000   1 -> rule    line 10                                                              [rule no off] deny
    12     0.000   1 <- error   tools/call off                     3              0s     60          [local] [rule no off] {"code":403,"message":"no"}
`)
}

func TestStatTapeRules(t *testing.T) {
	text := testTape(ruledTape()...)
	got := useTape(t, statTape, text, TapeToolOptions{})
	_, got, _ = strings.Cut(got, "\n\nrules")
	wantText(t, "rules"+got, `
rules                                           count
mark: tag sums                                      2
no off: deny                                        1
rule: changed                                       1
`)
	var s TapeStat
	if err := json.Unmarshal([]byte(useTape(t, statTape, text, TapeToolOptions{JSON: true})), &s); err != nil || len(s.Rules) != 3 || s.Rules["mark: tag sums"] != 2 {
		t.Errorf("got %v, %+v", err, s.Rules)
	}
}

func TestTrimTapeKeepsRules(t *testing.T) {
	var out bytes.Buffer
	if err := trimTape(strings.NewReader(testTape(ruledTape()...)), "t.jsonl", &out, TapeToolOptions{Exchange: 12, Max: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	_, lines, err := readTape(out.String())
	if err != nil || len(lines) != 9 {
		t.Fatalf("got %v and\n%s, want 9 lines", err, out.String())
	}
	if r := lines[5]; r.Kind != lineRule || r.Re != 5 || r.Rule != "no off" || r.Text != "deny" || lines[6].Re != 5 {
		t.Errorf("got\n%s, want the rule line and the refusal about line 5", out.String())
	}
}

func TestShowTapeFilters(t *testing.T) {
	text := testTape(goodTape()...)
	for _, c := range []struct {
		o    TapeToolOptions
		want string // seqs
	}{
		{TapeToolOptions{Method: "tools/*"}, "5 6 7 8 10 11 12 13 14 16"},
		{TapeToolOptions{Method: "tools/call", Session: 2}, ""},
		{TapeToolOptions{Method: "sampling/*"}, "7 8"},
		{TapeToolOptions{Method: "notifications/*"}, "4 6 14"},
		{TapeToolOptions{Exchange: 5}, "5 6 7 8 10"},
		{TapeToolOptions{Session: 1}, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"},
	} {
		c.o.JSON = true
		var seqs []string
		for line := range strings.Lines(useTape(t, showTape, text, c.o)) {
			seqs = append(seqs, member(line, "seq"))
			if !strings.Contains(text, line) {
				t.Errorf("got %q, which is no line of the tape", line)
			}
		}
		if got := strings.Join(seqs, " "); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.o, got, c.want)
		}
	}
}

func TestMatchesName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"tools/call", "tools/call", true}, {"tools/call", "tools/calls", false}, {"*", "", true}, {"*/list", "tools/list", true},
		{"tools/*", "tools/", true}, {"a*a", "a", false}, {"a*b*c", "aXbYc", true}, {"a*b*c", "acb", false}, {"**", "x", true},
	} {
		if got := matchesName(c.pattern, c.name); got != c.want {
			t.Errorf("%q, %q: got %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for _, c := range []struct {
		s     string
		width int
		want  string
	}{
		{"plain é", 10, "plain é"}, {"\x1b[2J\r\n\x00", 30, `\x1b[2J\r\n\x00`}, {"\u009b\u202e\u2028\x7f\xff", 40, "\\u009b\\u202e\\u2028\\x7f\ufffd"},
		{"0123456789", 9, "012345..."}, {"0123456\n", 8, "01234..."}, {"abc", 2, ".."}, {"", 0, ""}, {"a", 0, ""},
	} {
		if got := printable(c.s, c.width); got != c.want {
			t.Errorf("%q: got %q, want %q", c.s, got, c.want)
		}
	}
}

func TestShowTapeTakesWhatIsCut(t *testing.T) {
	text := testTape(goodTape()...)
	got := useTape(t, showTape, text[:len(text)-9], TapeToolOptions{})
	if !strings.Contains(got, "broke off") || !strings.Contains(got, "no end") {
		t.Errorf("got %q, want warnings", got)
	}
	var out bytes.Buffer
	err := tapeTool(showTape).run(strings.NewReader(text[:len(text)-9]+"\n"), "t.jsonl", &out, TapeToolOptions{Max: 1 << 20})
	var fault *TapeError
	if !errors.As(err, &fault) || !strings.Contains(out.String(), "exit status 0") {
		t.Errorf("got %v and %q, want a TapeError after all lines that are good", err, out.String())
	}
	err = tapeTool(showTape).run(strings.NewReader(text), "t.jsonl", io.Discard, TapeToolOptions{Max: 175})
	if !errors.As(err, &fault) || !strings.Contains(fault.Reason, "more than 175") {
		t.Errorf("got %v, want a TapeError about a long line", err)
	}
}

func TestShowTapeShortensHugeLines(t *testing.T) {
	huge := toServer(0, 0, tapeCallText(1, strings.Repeat("é\x1b", 50000), `{"x":"`+strings.Repeat("y", 300000)+`"}`))
	for line := range strings.Lines(useTape(t, showTape, testTape(huge), TapeToolOptions{})) {
		if len([]rune(line)) > showWidth+1 || strings.ContainsRune(line, 0x1b) {
			t.Errorf("got %q", line)
		}
	}
}

func TestStatTape(t *testing.T) {
	text := testTape(goodTape()...)
	wantText(t, useTape(t, statTape, text, TapeToolOptions{}), `
t.jsonl: 289ms, sessions: 1, eras: initialize
messages to the server: 8 (799 bytes), to the client: 5 (413 bytes), of the proxy: 0
client: cli 2
server: srv 3
exit lines: 1
raw lines: 1
stderr lines: 1

to-server                                       count  errors isError    open      p50      p90      p99      max
initialize                                          1       0       0       0      3ms      3ms      3ms      3ms
notifications/cancelled                             1
notifications/initialized                           1
tools/call                                          4       0       1       2     21ms     65ms     65ms     65ms
  hang                                              1       0       0       1
  left                                              1       0       0       1
  quick                                             1       0       1       0     21ms     21ms     21ms     21ms
  slow                                              1       0       0       0     65ms     65ms     65ms     65ms

to-client                                       count  errors isError    open      p50      p90      p99      max
notifications/progress                              1
sampling/createMessage                              1       1       0       0     13ms     13ms     13ms     13ms
`)
	var s TapeStat
	if err := json.Unmarshal([]byte(useTape(t, statTape, text, TapeToolOptions{JSON: true})), &s); err != nil {
		t.Fatal(err)
	}
	if s.ToServer.Messages != 8 || s.ToClient.Messages != 5 || len(s.Rows) == 0 || s.Lines[lineRaw] != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestStatTapeSumsUpRareNames(t *testing.T) {
	var lines []Entry
	for i := range 2 * maxStatRows {
		lines = append(lines, toServer(0, 0, tapeCallText(i, fmt.Sprint("tool", i), "{}")))
	}
	for i := range lines[:2*maxStatRows] {
		lines = append(lines, toClient(0, int64(i+1), textResult(i, "")))
	}
	var s TapeStat
	json.Unmarshal([]byte(useTape(t, statTape, testTape(lines...), TapeToolOptions{JSON: true})), &s)
	var calls, open int
	for _, r := range s.Rows {
		if r.Tool != "" {
			calls, open = calls+r.Calls, open+r.Unanswered
		}
	}
	if len(s.Rows) != maxStatRows+1 || calls != 2*maxStatRows || open != 0 {
		t.Errorf("got %d rows with %d calls, %d open, want %d, %d, 0", len(s.Rows), calls, open, maxStatRows+1, 2*maxStatRows)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	for _, c := range []struct{ q, want float64 }{{0.5, 500}, {0.9, 900}, {0.99, 990}, {1, 1000}, {0, 1}} {
		if got := h.quantile(c.q); got < c.want*0.96 || got > c.want*1.04 {
			t.Errorf("quantile %v: got %v, want about %v", c.q, got, c.want)
		}
	}
	var one histogram
	one.add(7 * time.Microsecond)
	one.add(-time.Second)
	one.add(1 << 62)
	if got := one.quantile(0.5); got != 0.007 {
		t.Errorf("got %v, want 0.007", got)
	}
}
