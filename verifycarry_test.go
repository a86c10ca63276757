// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// verifyMint is a server that makes up values anew in each of its lives, which run names.
func verifyMint(t *testing.T, run string) *verifyServer {
	id, cursor := "item-"+run+"-0001", "c"+run
	refused := func(m *Message) string { return (&Error{Code: codeParams, Text: "unknown"}).answer(m.ID).Raw }
	return &verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
		given, _ := unquote(member(member(m.Params, "arguments"), "id"))
		at, _ := unquote(member(m.Params, "cursor"))
		switch {
		case m.Name == "create":
			say(verifyText(m, `{"name":"n","id":"`+id+`"}`))
		case m.Name == "make":
			say(verifyText(m, `Made item `+id+`.`))
		case m.Name == "get" && given == id:
			say(verifyText(m, "found "+id+" for "+run[:1]))
		case m.Name == "get" || m.URI != "" && m.URI != "mint://"+id:
			say(refused(m))
		case m.URI != "":
			say(verifyResult(m, `{"contents":[{"uri":"`+m.URI+`","text":"x"}]}`))
		case m.Name == "link":
			say(verifyResult(m, `{"content":[{"type":"resource_link","uri":"mint://`+id+`","name":"n"}]}`))
		case m.Method == "prompts/list" && at == "":
			say(verifyResult(m, `{"prompts":[{"name":"a"}],"nextCursor":"`+cursor+`"}`))
		case m.Method == "prompts/list" && at == cursor:
			say(verifyResult(m, `{"prompts":[{"name":"b"}]}`))
		case m.Method == "prompts/list":
			say(refused(m))
		default:
			return false
		}
		return true
	}}
}

// What the server made up reaches it again as it made it up this time, and is no drift, if the client used it.
func TestVerifyCarriesOver(t *testing.T) {
	tool := func(id int, name, args string) string { return verifyLegacy(id, "tools/call", demoTool(name, args)) }
	get := func(id int) string { return tool(id, "get", `"id":"item-aaaa-0001"`) }
	for _, c := range []struct {
		name    string
		lines   []string
		run     string
		want    []string
		carried int
	}{
		{"in JSON", []string{tool(2, "create", ``), get(3)}, "abbb", nil, 1},
		{"in a text", []string{tool(2, "make", ``), get(3)}, "abbb", nil, 1},
		{"within a later text", []string{tool(2, "create", ``), get(3), tool(4, "make", ``)}, "abbb", nil, 1},
		{"used late", []string{tool(2, "make", ``), tool(3, "create", ``), get(4)}, "abbb", nil, 1},
		{"not used", []string{tool(2, "create", ``)}, "abbb", []string{"create CHANGED"}, 0},
		{"and what is new", []string{tool(2, "create", ``), get(3)}, "bbbb", []string{"get CHANGED"}, 1},
		{"cursor", []string{verifyLegacy(2, "prompts/list", ``), verifyLegacy(3, "prompts/list", `"cursor":"caaaa"`)}, "abbb", nil, 1},
		{"uri", []string{tool(2, "link", ``), verifyLegacy(3, "resources/read", `"uri":"mint://item-aaaa-0001"`)}, "abbb", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tape := verifyTape(t, verifyMint(t, "aaaa").dialer(), nil, append(verifyHello(), c.lines...))
			r := verifyRun(t, tape, verifyMint(t, c.run).dialer(), VerifyOptions{AllowDestructive: true})
			verifyWant(t, r, c.want...)
			if r.Carried != c.carried {
				t.Errorf("got %d values carried over, want %d", r.Carried, c.carried)
			}
		})
	}
}

// Calls that need what a skipped call would have brought are skipped too.
func TestVerifyLost(t *testing.T) {
	server := func() *commandDialer {
		return (&verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
			switch {
			case m.Name == "start":
				say(verifyResult(m, `{"resultType":"task","taskId":"t1"}`))
			case m.Method == "tasks/get":
				say(verifyResult(m, `{"status":"working"}`))
			default:
				return false
			}
			return true
		}}).dialer()
	}
	tape := verifyTape(t, server(), nil, append(verifyHello(),
		verifyLegacy(2, "tools/call", demoTool("start", ``)), verifyLegacy(3, "tasks/get", `"taskId":"t1"`), verifyLegacy(4, "tasks/get", `"taskId":"t2"`)))
	verifyWant(t, verifyRun(t, tape, server(), VerifyOptions{}), "start SKIPPED", "tasks/get SKIPPED")
	verifyWant(t, verifyRun(t, tape, server(), VerifyOptions{Allow: []string{"start"}}))
}

// Secrets are compared by their placeholders. One that is not on the tape cannot be sent.
func TestVerifyRedacted(t *testing.T) {
	server := func(token string) *verifyServer {
		return &verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
			switch given, _ := unquote(member(member(m.Params, "arguments"), "token")); {
			case m.Name == "login":
				say(verifyText(m, `{"token":"`+token+`"}`))
			case m.Name == "use" && given == token:
				say(verifyText(m, "welcome"))
			case m.Name == "use":
				say(verifyText(m, "who are you?"))
			default:
				return false
			}
			return true
		}}
	}
	redactor := NewRedactor(nil, []byte("0123456789abcdef"))
	use := func(id int, token string) string {
		return verifyLegacy(id, "tools/call", demoTool("use", `"token":"`+token+`"`))
	}
	plain := verifyTape(t, server("hunter2-a").dialer(), nil, append(verifyHello(), verifyLegacy(2, "tools/call", demoTool("login", ``)), use(3, "hunter2-a"), use(4, "another")))
	var tape strings.Builder
	for line := range strings.Lines(plain) {
		if e, err := ParseEntry(strings.TrimSpace(line)); err == nil && e.Msg != "" {
			e.Msg = redactor.Message(e.Msg)
			line = string(appendEntry(nil, e))
		}
		tape.WriteString(line)
	}
	if strings.Contains(tape.String(), "hunter2") {
		t.Fatal("the tape has the secret")
	}
	for _, token := range []string{"hunter2-a", "hunter2-b"} {
		r := verifyRun(t, tape.String(), server(token).dialer(), VerifyOptions{AllowDestructive: true, Redact: redactor.Message})
		verifyWant(t, r, "use SKIPPED")
		if strings.Contains(r.Text()+string(r.JSON())+string(r.JUnit()), "hunter2") {
			t.Errorf("got the secret in %s", r.JSON())
		}
	}
}

func TestVerifyTextOfJSON(t *testing.T) {
	server := func(text string) *verifyServer {
		return &verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
			if m.Name == "json" {
				say(verifyText(m, text))
			}
			return m.Name == "json"
		}}
	}
	tape := verifyTape(t, server(`{"a":{"b":[1,2]},"c":9007199254740993}`).dialer(), nil, append(verifyHello(), verifyLegacy(2, "tools/call", demoTool("json", ``))))
	for text, want := range map[string]string{
		`{ "c": 9007199254740993, "a": {"b": [1.0, 2]} }`: "",
		`{"a":{"b":[1,3]},"c":9007199254740993}`:          "/result/content/0/text/a/b/1",
		`{"a":{"b":[1,2]},"c":9007199254740992}`:          "/result/content/0/text/c",
		`nothing`:                                         "/result/content/0/text",
	} {
		r := verifyRun(t, tape, server(text).dialer(), VerifyOptions{AllowDestructive: true})
		got := ""
		for _, c := range r.Checks {
			for _, d := range c.Differences {
				got += d.At
			}
		}
		if got != want {
			t.Errorf("%s: got differences %q, want %q", text, got, want)
		}
	}
}

// A server that asks for roots when it likes gets the recorded ones, once for each time on the tape.
func TestVerifyAnswersOutsideOfCalls(t *testing.T) {
	var got []string
	server := func(times int) *verifyServer {
		return &verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
			if m.Method == methodInitialized {
				for i := range times {
					say(fmt.Sprintf(`{"jsonrpc":"2.0","id":"r%d","method":"roots/list"}`, i))
				}
				say(`{"jsonrpc":"2.0","id":"p","method":"ping"}`)
			}
			if m.Kind == Response {
				got = append(got, m.ID+member(m.Result, "roots")+member(m.Error, "code"))
			}
			return m.Kind == Response
		}}
	}
	lines := append(verifyHello(), verifyLegacy(2, "tools/call", demoTool("countdown", `"from":2,"everyMs":1000`)))
	synctest.Test(t, func(t *testing.T) {
		tape := verifyTape(t, server(1).dialer(), map[string]string{"roots/list": `{"roots":[]}`, "ping": `{}`}, lines)
		for times, want := range []string{0: `["p"]`, 1: `["r0"[] "p"]`, 2: `["r0"[] "r1"-32601 "p"]`} {
			synctest.Wait() // for servers that end
			got = nil
			r := verifyRun(t, tape, server(times).dialer(), VerifyOptions{AllowDestructive: true})
			synctest.Wait()
			if times < 2 {
				verifyWant(t, r)
			}
			if fmt.Sprint(got) != want {
				t.Errorf("asked %d times: got %s, want %s", times, got, want)
			}
		}
	})
}

// A client that went on when a list had changed does so again, and no later. What a server logs meanwhile is no drift.
func TestVerifyWaitsForChange(t *testing.T) {
	const change = `{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}`
	msg := func(dir, text string, re int64) Entry {
		return Entry{Kind: lineMsg, Session: 1, Dir: dir, Re: re, Msg: text}
	}
	hello := verifyHello()
	tape := testTape(
		msg(dirToServer, hello[0], 0),
		msg(dirToClient, demoInitializedAnswer(), 1),
		msg(dirToServer, hello[1], 0),
		msg(dirToClient, change, 0),
		msg(dirToServer, verifyLegacy(2, "prompts/list", ``), 0),
		msg(dirToClient, `{"jsonrpc":"2.0","id":2,"result":{"prompts":[],"changed":true}}`, 5),
	)
	for _, c := range []struct {
		changes bool
		took    time.Duration
		want    []string
	}{
		{true, time.Second, nil},
		{false, ownTimePatience, []string{"prompts/list CHANGED"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := &verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
				switch m.Method {
				case methodInitialized:
					if <-time.After(time.Second); c.changes {
						say(change)
					}
				case "prompts/list":
					say(`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}`)
					say(verifyResult(m, fmt.Sprintf(`{"prompts":[],"changed":%v}`, c.changes)))
					return true
				}
				return false
			}}
			began := time.Now()
			verifyWant(t, verifyRun(t, tape, server.dialer(), VerifyOptions{}), c.want...)
			if took := time.Since(began); took != c.took {
				t.Errorf("took %v, want %v", took, c.took)
			}
		})
	}
}

// What the server asks outside of any call in one session, it may ask in another, whose client left earlier when it was
// recorded. Anything else is more than was recorded.
func TestVerifyAskedInOneSession(t *testing.T) {
	const hello, changed = `{"protocolVersion":"2025-11-25","capabilities":{}}`, `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`
	question := func(method string) string { return `{"jsonrpc":"2.0","id":"r","method":"` + method + `"}` }
	k := &tapeScript{}
	for k.session = 1; k.session <= 2; k.session++ {
		k.exchange(verifyHello()[0], frontResult(`1`, hello))
		k.exchange(replayCall(`2`, "a", `{}`), replayAnswer(`2`, "a"))
		if k.session == 1 {
			k.answer(0, k.says(0, question("roots/list")), frontResult(`"r"`, `{"roots":[]}`))
		}
		k.says(0, changed)
	}
	for method, want := range map[string][]string{"roots/list": nil, "elicitation/create": {"elicitation/create EXTRA", "elicitation/create EXTRA"}} {
		server := &verifyServer{answer: func(m *Message, say func(string)) bool {
			switch {
			case m.Method == methodInitialize:
				say(verifyResult(m, hello))
			case m.Name == "a":
				say(replayAnswer(m.ID, "a"))
				say(question(method))
				say(changed)
			}
			return true
		}}
		synctest.Test(t, func(t *testing.T) {
			server.t = t
			verifyWant(t, verifyRun(t, k.tape(), server.dialer(), VerifyOptions{AllowDestructive: true}), want...)
		})
	}
}

// The headers that a server refused are not sent again: they are not on the tape.
func TestVerifyWithoutHeaders(t *testing.T) {
	k := &tapeScript{}
	call := verifyModern(1, "tools/list", ``)
	k.add(Entry{Dir: dirToClient, Re: k.add(Entry{Dir: dirToServer, Via: viaPost, Msg: call}), Via: viaJSON, Status: 400, Msg: frontError(`1`, `-32020`)})
	r := verifyRun(t, k.tape(), (&verifyServer{t: t}).dialer(), VerifyOptions{})
	verifyWant(t, r, "tools/list SKIPPED")
	if r.Code() != 1 {
		t.Errorf("got code %d, want 1, as nothing was compared", r.Code())
	}
}

// Nobody waits for the change of a list that a skipped call would have made.
func TestVerifySkippedChange(t *testing.T) {
	changes := (&verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
		if m.Name == "write" {
			say(`{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}`)
			say(verifyText(m, "written"))
		}
		return m.Name == "write"
	}})
	lines := append(verifyHello(), verifyLegacy(2, "tools/call", demoTool("write", ``)), verifyLegacy(3, "tools/list", ``))
	synctest.Test(t, func(t *testing.T) {
		tape := verifyTape(t, changes.dialer(), nil, lines)
		began := time.Now()
		verifyWant(t, verifyRun(t, tape, changes.dialer(), VerifyOptions{}), "write SKIPPED")
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v, want nothing waited for", took)
		}
	})
}

// A subscription stays open while other calls are made, and is compared at its end.
func TestVerifySubscription(t *testing.T) {
	server := func(updates int) *verifyServer {
		listens := ""
		return &verifyServer{t: t, answer: func(m *Message, say func(string)) bool {
			event := func(method string) {
				say(`{"jsonrpc":"2.0","method":"` + method + `","params":{"_meta":{"` + subscriptionID + `":` + listens + `}}}`)
			}
			switch {
			case m.Method == methodListen:
				listens = m.ID
				event("notifications/subscriptions/acknowledged")
			case m.Name == "touch":
				for range updates {
					event("notifications/resources/updated")
				}
				say(verifyText(m, "done"))
			case m.Method == methodCancelled && member(m.Params, "requestId") == listens:
				listens = ""
			default:
				return false
			}
			return true
		}}
	}
	listen := verifyModern(1, methodListen, `"notifications":{}`)
	touch := verifyModern(2, "tools/call", demoTool("touch", ``))
	cancel := `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"1"}}`
	cancel = strings.Replace(cancel, `"1"`, `1`, 1)
	for _, lines := range [][]string{{listen, touch, cancel, touch}, {listen, touch}} {
		synctest.Test(t, func(t *testing.T) {
			if len(lines) == 4 {
				lines[3] = strings.Replace(lines[3], `"id":2`, `"id":3`, 1)
			}
			tape := verifyTape(t, server(2).dialer(), nil, lines[:min(3, len(lines))])
			for updates, want := range map[int][]string{1: {"subscriptions/listen CHANGED"}, 2: nil} {
				r := verifyRun(t, tape, server(updates).dialer(), VerifyOptions{AllowDestructive: true, Timeout: time.Minute})
				verifyWant(t, r, want...)
				if r.Compared != 2 {
					t.Errorf("got\n%s", r.Text())
				}
			}
		})
	}
}

func TestVerifySameKinds(t *testing.T) {
	const id, other = "0b0e2f2a-6f0e-4b7e-9d53-0a1b2c3d4e5f", "7C9E6679-7425-40DE-944B-E07FC1F90AE7"
	for _, c := range []struct {
		kinds string
		a, b  string // JSON text
		want  bool
	}{
		{"uuid", `"` + id + `"`, `"` + other + `"`, true},
		{"uuid", `"made ` + id + `, twice"`, `"made ` + other + `, twice"`, true},
		{"uuid", `"made ` + id + `"`, `"done ` + other + `"`, false},
		{"uuid", `"` + id + `"`, `"none"`, false},
		{"time", `"` + id + `"`, `"` + other + `"`, false},
		{"time", `"2026-01-02T03:04:05Z"`, `"2027-11-12T13:14:15.123+02:00"`, true},
		{"time", `"at 2026-01-02 03:04:05, done"`, `"at 2026-01-03 00:00:00, done"`, true},
		{"time", `"2026-01-02"`, `"1999-12-31"`, true},
		{"time", `"Fri, 02 Jan 2026 03:04:05 GMT"`, `"Sat, 03 Jan 2026 04:05:06 GMT"`, true},
		{"time", `"Fri Jan  2 03:04:05 UTC 2026"`, `"Sat Jan 13 04:05:06 UTC 2026"`, true},
		{"time", `"3:04:05 PM"`, `"11:12:13 AM"`, true},
		{"time", `1767322445`, `1767322446`, true},
		{"time", `1767322445123`, `1767322446000`, true},
		{"time", `1767322445`, `1767322446000`, false},
		{"time", `12`, `13`, false},
		{"time", `"12"`, `"13"`, false},
		{"number:1e-6", `1`, `1.0000001`, true},
		{"number:1e-6", `1`, `1.001`, false},
		{"number:1e-3", `-1000`, `-1000.5`, true},
		{"number:0", `1`, `2`, false},
		{"number:0.1", `"took 10.5 ms for 3 files"`, `"took 10.9 ms for 3 files"`, true},
		{"number:0.1", `"took 10.5 ms for 3 files"`, `"took 10.9 ms for 4 files"`, false},
		{"number:0.1", `"1"`, `"one"`, false},
		{"number:1", `1`, `"1"`, false},
		{"path", `"/tmp/a1/x.txt"`, `"/var/b/x.txt"`, true},
		{"path", `"wrote /tmp/a1/x.txt: ok"`, `"wrote C:\\Users\\me\\x.txt: ok"`, true},
		{"path", `"/tmp/a1/x.txt"`, `"/tmp/a1/y.txt"`, false},
		{"path", `"file:///tmp/a1/x.txt"`, `"file:///b/x.txt"`, true},
		{"path", `"http://a.example/1/x.txt"`, `"http://b.example/1/x.txt"`, false},
		{"uuid,time,path", `"/tmp/` + id + `/x 2026-01-02"`, `"/x/` + other + `/x 2026-02-02"`, true},
		{"", `"a"`, `"b"`, false},
		{"uuid,time,path,number:1", `null`, `1`, false},
		{"uuid,time,path,number:1", `true`, `"true"`, false},
	} {
		k := newSameKinds(strings.Split(c.kinds, ","))
		for range 2 {
			if got := k.equal(decodeJSON(c.a), decodeJSON(c.b)); got != c.want {
				t.Errorf("%s: %s and %s: got %v, want %v", c.kinds, c.a, c.b, got, c.want)
			}
			c.a, c.b = c.b, c.a
		}
	}
}

func TestVerifySchemaGrades(t *testing.T) {
	const base = `{"name":"t","description":"d","inputSchema":{"type":"object","properties":{
		"a":{"type":"string","enum":["x","y"]},"n":{"type":["integer","null"],"minimum":1,"maxLength":5},"l":{"items":{"type":"string"}},
		"required":{"type":"string","description":"d"},"u":{"anyOf":[{"type":"string"},{"type":"number"}],"not":{"enum":["z"]}}},"required":["a"]},
		"outputSchema":{"type":"object","properties":{"r":{"type":"string","enum":["p"]}},"required":["r"]}}`
	for _, c := range []struct{ old, new, want string }{
		{`"description":"d","inputSchema"`, `"description":"e","inputSchema"`, gradeText},
		{`"name":"t"`, `"name":"t","title":"T"`, gradeText},
		{`"name":"t"`, `"name":"t","annotations":{"readOnlyHint":true}`, gradeCompatible},
		{`"description":"d"}`, `"description":"e"}`, gradeText},
		{`["x","y"]`, `["y","x"]`, ""},
		{`["x","y"]`, `["x","y","z"]`, gradeCompatible},
		{`["x","y"]`, `["x"]`, gradeBreaking},
		{`"enum":["x","y"]`, `"default":"x"`, gradeCompatible},
		{`"required":["a"]`, `"required":["a","n"]`, gradeBreaking},
		{`"required":["a"]`, `"required":[]`, gradeCompatible},
		{`,"required":["a"]`, ``, gradeCompatible},
		{`"required":["a"]`, `"required":["a"],"additionalProperties":false`, gradeBreaking},
		{`"required":["a"]`, `"required":["a"],"additionalProperties":true`, gradeCompatible},
		{`"type":"string","enum":["x","y"]`, `"type":"number","enum":["x","y"]`, gradeBreaking},
		{`["integer","null"]`, `["integer","null","string"]`, gradeCompatible},
		{`["integer","null"]`, `["number","null"]`, gradeCompatible},
		{`"u":{"anyOf":[{"type":"string"},{"type":"number"}`, `"u":{"anyOf":[{"type":"string"},{"type":"integer"}`, gradeBreaking},
		{`["integer","null"]`, `"integer"`, gradeBreaking},
		{`"type":["integer","null"],`, ``, gradeCompatible},
		{`"minimum":1`, `"minimum":0`, gradeCompatible},
		{`"minimum":1`, `"minimum":2`, gradeBreaking},
		{`"maxLength":5`, `"maxLength":6`, gradeCompatible},
		{`"maxLength":5`, `"maxLength":4`, gradeBreaking},
		{`,"maxLength":5`, ``, gradeCompatible},
		{`"maxLength":5`, `"maxLength":5,"pattern":"a"`, gradeBreaking},
		{`"items":{"type":"string"}`, `"items":{"type":"string","minLength":1}`, gradeBreaking},
		{`"items":{"type":"string"}`, `"x":1`, gradeBreaking},
		{`"properties":{
		"a"`, `"properties":{"new":{"type":"string"},"a"`, gradeCompatible},
		{`"l":{"items":{"type":"string"}},`, ``, gradeBreaking},
		{`{"type":"number"}]`, `{"type":"number"},{"type":"null"}]`, gradeCompatible},
		{`,{"type":"number"}]`, `]`, gradeBreaking},
		{`["z"]`, `["y","z"]`, gradeBreaking},
		{`["z"]`, `[]`, gradeCompatible},
		{`"required":["r"]`, `"required":[]`, gradeBreaking},
		{`"required":["r"]`, `"required":["r","s"]`, gradeCompatible},
		{`["p"]`, `["p","q"]`, gradeBreaking},
		{`"properties":{"r"`, `"properties":{"s":{},"r"`, gradeCompatible},
		{`"properties":{"r":{"type":"string","enum":["p"]}}`, `"properties":{}`, gradeBreaking},
	} {
		changed := strings.Replace(base, c.old, c.new, 1)
		if changed == base {
			t.Fatalf("%s is not in the tool", c.old)
		}
		f := answerForm{method: "tools/list"}
		of := func(tool string) map[string]any { return f.of(&Message{Result: `{"tools":[` + tool + `]}`}) }
		got := ""
		differences := (&Comparer{}).Compare(nil, of(base), of(changed))
		for _, d := range differences {
			got = worse(got, gradeTool(d))
		}
		if got != c.want {
			t.Errorf("%s became %s: got %q, want %q: %v", c.old, c.new, got, c.want, differences)
		}
	}
}

// Whatever a server says, it is no other than itself, and every difference to something else has a grade.
func FuzzVerifyAnswers(f *testing.F) {
	f.Add(`{"tools":[{"name":"t","inputSchema":{"type":["a"],"required":["x"],"properties":{"x":{"enum":[1]}}}}],"nextCursor":"c"}`, `{"tools":[{"name":"t"},{}]}`)
	f.Add(`{"content":[{"text":"{\"a\":1}"}],"_meta":{"io.modelcontextprotocol/serverInfo":{"version":"1"}}}`, `{"content":[{"text":"/a/b 2026-01-02 1.5"}],"isError":false}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, text := range []string{a, b} {
			if _, err := Parse(`{"jsonrpc":"2.0","id":1,"result":` + text + `}`); err != nil {
				t.Skip()
			}
		}
		for _, bridged := range []bool{false, true} {
			form := answerForm{method: "tools/list", bridged: bridged}
			of := func(text string) map[string]any { return form.of(&Message{Result: text}) }
			carried := newCarriedValues(newSameKinds([]string{"uuid", "time", "path", "number:1e-3"}))
			carried.learn(of(a), of(b), of(b), "")
			c := Comparer{Same: carried.equal}
			if d := c.Compare(nil, of(a), of(a)); len(d) > 0 {
				t.Fatalf("%s differs from itself: %v", a, d)
			}
			for _, d := range c.Compare(nil, of(a), of(b)) {
				if len(d.At) > 2 && d.At[1] == "tools" && gradeTool(d) == "" {
					t.Fatalf("%v has no grade", d)
				}
			}
			carried.apply(a)
			hello := `{"` + protocolMeta + `clientInfo":{}}`
			a := strings.Trim(a, whiteSpace)
			meta := decodeJSON(cmp.Or(member(inEra(a, hello, eraStateless), "_meta"), "{}"))
			if object, ok := meta.(map[string]any); strings.HasPrefix(a, "{") && ok && object[protocolMeta+"clientInfo"] == nil {
				t.Fatalf("%s became %s", a, inEra(a, hello, eraStateless))
			}
			if _, err := Parse(`{"jsonrpc":"2.0","id":1,"method":"m","params":` + inEra(a, hello, eraSession) + `}`); strings.HasPrefix(a, "{") && err != nil {
				t.Fatalf("%s became %s", a, inEra(a, hello, eraSession))
			}
		}
	})
}
