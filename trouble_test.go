// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"io"
	"strings"
	"testing/synctest"
	"time"
)

func talkServerLineEnds(w *talk) {
	c := w.dial()
	one, two := w.call(`1`, `{}`, ""), w.call(`2`, `{}`, "")
	c.say(one)
	h := w.gets(one)
	h.say("\n\r\n \t\n" + talkResult(string(h.ID), `{"é":"日"}`) + "\r\n\r\n")
	c.hears(talkResult(`1`, `{"é":"日"}`))
	c.say(two)
	h = w.gets(two)
	p := w.processes[len(w.processes)-1]
	io.WriteString(p.out, talkResult(string(h.ID), `{"last":true}`)) // and no newline
	p.exit("exit status 0")
	c.hears(talkResult(`2`, `{"last":true}`))
}

func talkPretty(w *talk) {
	c := w.dial()
	call := strings.ReplaceAll(w.call(`1`, "{\r\n\t\"a\":\n1.0\r}", ""), `,"method"`, ",\n\"method\"")
	c.say("\n" + call + "\r\n")
	h := w.next()
	got, want := h.raw, call
	if !w.overHTTP() {
		if strings.ContainsAny(got, "\r\n") {
			w.t.Errorf("got a line end in %q", got)
		}
		want = strings.NewReplacer("\n", " ", "\r", " ").Replace(strings.Replace(want, `"id":1`, `"id":`+string(h.ID), 1))
	} else {
		got = strings.TrimSpace(got)
	}
	if got != want {
		w.t.Errorf("got %q, want %q", got, want)
	}
	h.result(`{}`)
	c.hears(talkResult(`1`, `{}`))
}

func talkEOF(w *talk) {
	c := w.dial()
	var at []*talkHeard
	for _, id := range []string{`1`, `2`, `3`} {
		c.say(w.call(id, `{}`, ""))
		at = append(at, w.next())
	}
	c.in.Close()
	c.silent()
	if !w.modern {
		w.push(talkQuestion) // nobody can answer it any more
		if got := w.next(); !strings.Contains(got.raw, `"id":1,"error"`) {
			w.t.Errorf("got %q, want an error for the server's call", got.raw)
		}
	}
	for _, h := range at {
		h.result(`{"for":` + string(h.ID) + `}`)
		c.hears(talkResult(string(h.ID), `{"for":`+string(h.ID)+`}`))
	}
	if err := <-c.exit; err != nil {
		w.t.Errorf("got error %v, want none", err)
	}
	if w.overHTTP() && !w.modern && w.deleted != 1 {
		w.t.Errorf("got %d sessions deleted at the server, want 1", w.deleted)
	}
}

func talkDies(w *talk) {
	c := w.dial()
	one, two := w.call(`1`, `{}`, ""), w.call(`"2"`, `{}`, `1`)
	c.say(one)
	at := []*talkHeard{w.gets(one)}
	c.say(two)
	at = append(at, w.gets(two))
	at[1].say(talkProgress(at[1].token(), "1")) // its stream has begun
	c.hears(talkProgress(`1`, "1"))
	began := time.Now()
	if w.overHTTP() {
		// The first is broken off before its head, the second within.
		at[0].abort()
		c.refused(`1`, 502)
		at[1].abort()
		if w.client == "stdio" {
			c.refused(`"2"`, 502)
		} else {
			synctest.Wait()
			for len(c.heard) > 0 {
				if got := <-c.heard; !strings.Contains(got, `"id":"2","error":{"code":502,`) {
					w.t.Errorf("got %q, want an error", got)
				}
			}
		}
		c.works()
		return
	}
	w.processes[len(w.processes)-1].exit("exit status 3")
	exits := map[string]string{}
	for range 2 {
		text := c.next()
		for _, id := range []string{`1`, `"2"`} {
			if strings.Contains(text, `"id":`+id+`,"error":{"code":502,`) && strings.Contains(text, `"proxy":"mcpproxy"`) {
				exits[id] = text
			}
		}
		if !strings.Contains(text, `"exit":"exit status 3"`) {
			w.t.Errorf("got %q, want the exit status", text)
		}
	}
	if len(exits) != 2 {
		w.t.Errorf("got %v, want an error for each call", exits)
	}
	if waited := time.Since(began); waited > 0 {
		w.t.Errorf("got the errors after %v, want them at once", waited)
	}
	switch {
	case w.client == "stdio":
		if err := <-c.exit; err == nil || !strings.Contains(err.Error(), "exit status 3") {
			w.t.Errorf("got error %v, want the exit status", err)
		}
	case w.modern:
		c.works() // with another process
	default:
		post := c.do("POST", w.call(`3`, `{}`, ""))
		post.wait(c)
		if c.refused("", 404); post.status != 404 {
			w.t.Errorf("got status %d, want 404", post.status)
		}
	}
}

// talkGoes is a client that goes away, which up to 2025-11-25 cancels nothing.
func talkGoes(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, "")
	post := c.say(call)
	h := w.gets(call)
	if post == nil {
		c.in.Close()
		c.out.Close() // nobody reads
		w.silent()
		h.result(`{}`)
		if <-c.exit; w.overHTTP() && w.deleted != 1 {
			w.t.Errorf("got %d sessions deleted at the server, want 1", w.deleted)
		}
		return
	}
	post.cancel()
	post.wait(c)
	w.silent()
	h.result(`{"late":true}`)
	c.silent()
	c.works()
}

func talkGarbage(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, "")
	c.say(call)
	h := w.gets(call)
	for _, line := range []string{
		"Server listening", `{"jsonrpc":"2.0","id":1`, "{}", "null", "\xff\xfe", `"text"`, `7`, `{"level":"info"}`, "[]",
		`{"jsonrpc":"2.0","id":null,"result":{}}`, `[` + talkProgress(`1`, `1`) + `]`, strings.Repeat("x", 5000),
		`{"jsonrpc":"2.0","method":"a","METHOD":"b"}`,
	} {
		h.say(line)
	}
	c.silent()
	h.result(`{}`)
	c.hears(talkResult(`1`, `{}`))
	c.works()
}

// cancelled checks that the server hears that nobody waits for h any more.
func (w *talk) cancelled(h *talkHeard) {
	w.t.Helper()
	if w.overHTTP() && w.modern {
		select {
		case <-h.gone:
		case <-time.After(time.Hour):
			w.t.Fatal("got an open request at the server, want it closed")
		}
	} else if got := w.next(); got.Method != methodCancelled || string(got.Params.RequestID) != string(h.ID) {
		w.t.Fatalf("got %q, want a cancellation of %s", got.raw, h.ID)
	}
	w.silent()
}

func talkTimeout(w *talk) {
	c := w.dial()
	call := w.call(`"t"`, `{}`, "")
	began := time.Now()
	post := c.say(call)
	h := w.gets(call)
	c.refused(`"t"`, 504)
	if waited := time.Since(began).Truncate(time.Second); waited != time.Minute {
		w.t.Errorf("got the error after %v, want 1m", waited)
	}
	if post != nil {
		if post.wait(c); post.status != 504 && post.status != 200 { // 200 when comments were sent while it waited
			w.t.Errorf("got status %d, want 504 or 200", post.status)
		}
	}
	w.cancelled(h)
	if !w.overHTTP() {
		h.result(`{"late":true}`)
	}
	c.silent()
	c.works()
}

func talkTimeoutProgress(w *talk) {
	c := w.dial()
	call := w.call(`"t"`, `{}`, `"p"`)
	began := time.Now()
	c.say(call)
	h := w.gets(call)
	for range 3 {
		<-time.After(40 * time.Second)
		h.say(talkProgress(h.token(), `1`))
		c.hears(talkProgress(`"p"`, `1`))
	}
	c.refused(`"t"`, 504)
	if waited := time.Since(began).Truncate(time.Second); waited != 3*time.Minute {
		w.t.Errorf("got the error after %v, want 3m", waited)
	}
	w.cancelled(h)
}

func talkBatch(w *talk) {
	c := w.dial()
	one, note, two := w.call(`1`, `{"é":1.0}`, ""), `{"jsonrpc":"2.0","method":"notifications/x"}`, w.call(`"2"`, `{}`, "")
	post := c.do1("[" + one + " , " + note + `,{"jsonrpc":"2.0","id":"bad","METHOD":"x"},` + two + "]")
	for answered := 0; answered < 2; {
		switch h := w.next(); h.raw {
		case one, two:
			h.result(`{"for":` + string(h.ID) + `}`)
			answered++
		case note:
		default:
			w.t.Fatalf("got %q, want a message of the batch", h.raw)
		}
	}
	want := map[string]bool{talkResult(`1`, `{"for":1}`): true, talkResult(`"2"`, `{"for":"2"}`): true}
	refused := 0
	for range 3 {
		if got := c.next(); want[got] {
			delete(want, got)
		} else if strings.Contains(got, `"id":"bad"`) || strings.Contains(got, `"error":{"code":-32600`) {
			refused++
		}
	}
	if len(want) > 0 || refused != 1 {
		w.t.Errorf("got %d refusals and without %v, want 1 and every answer", refused, want)
	}
	if post != nil {
		post.wait(c)
	}
	w.silent()
	c.works()
}

func (c *talkClient) refusedWhole(text string, code, status int) {
	c.w.t.Helper()
	post := c.say(text)
	c.refused("", code)
	if post != nil {
		if post.wait(c); post.status != status {
			c.w.t.Errorf("got status %d, want %d", post.status, status)
		}
	}
	c.w.silent()
	c.silent()
}

func talkBatchLong(w *talk) {
	c := w.dial()
	note := `{"jsonrpc":"2.0","method":"notifications/x"}`
	post := c.say("[" + strings.Repeat(note+",", 99) + note + "]")
	for range 100 {
		w.gets(note)
	}
	if post != nil && post.status != 202 {
		w.t.Errorf("got status %d for notifications alone, want 202", post.status)
	}
	c.refusedWhole("["+strings.Repeat(note+",", 100)+note+"]", codeInvalid, 400)
	c.refusedWhole("[]", codeInvalid, 400)
	c.refusedWhole("["+note+",", codeParse, 400)
	c.works()
}

func talkBatchLater(w *talk) {
	c := w.dial()
	c.refusedWhole("["+w.call(`1`, `{}`, "")+"]", codeInvalid, 400)
	c.works()
}

func talkAmbiguous(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, "")
	for _, x := range []struct {
		from, to string
		code     int
	}{
		{`"method"`, `"METHOD":"x","method"`, codeInvalid},
		{`"method"`, `"method":"x","m\u0065thod"`, codeInvalid},
		{`"id":1`, `"id":1,"Id":2`, codeInvalid},
		{`"id":1`, `"id":1,"id":1`, codeInvalid},
		{`"name"`, `"NAME":"x","name"`, codeInvalid},
		{`"name"`, `"n\u0061me":"x","name"`, codeInvalid},
		{`"id":1`, `"id":null`, codeInvalid},
		{`"id":1`, `"id":[1]`, codeInvalid},
		{`"2.0"`, `"1.0"`, codeInvalid},
		{`{}`, "{\"a\":\"\xff\"}", codeParse},
		{`{}`, `{]`, codeParse},
		{`{}`, strings.Repeat("[", 1001) + strings.Repeat("]", 1001), codeParse},
	} {
		post := c.do1(strings.Replace(call, x.from, x.to, 1))
		c.refused("", x.code)
		if post != nil {
			if post.wait(c); post.status != 400 {
				w.t.Errorf("got status %d for %s, want 400", post.status, x.to)
			}
		}
		w.silent()
	}
	c.works()
	// Spelled with an escape it is the method all the same.
	escaped := strings.Replace(call, `"method"`, `"m\u0065thod"`, 1)
	c.do1(escaped)
	w.gets(escaped).result(`{}`)
	c.hears(talkResult(`1`, `{}`))
}

// do1 is say for what need not be a message.
func (c *talkClient) do1(text string) *talkPost {
	if c.in != nil {
		return c.say(text)
	}
	return c.do("POST", text)
}

func talkLongCall(w *talk) {
	c := w.dial()
	call := w.call(`"l"`, `{"a":"`+strings.Repeat("é", 20_000)+`"}`, "")
	post := c.do1(call)
	c.refused(`"l"`, 413)
	if post != nil {
		if post.wait(c); post.status != 413 {
			w.t.Errorf("got status %d, want 413", post.status)
		}
	}
	// Without an id to be found near its start.
	late := strings.Replace(call, `"id":"l",`, ``, 1)
	late = strings.TrimSuffix(late, "}") + `,"id":"l"}`
	c.do1(late)
	c.refused("", 413)
	w.silent()
	c.works()
}

func talkLongAnswer(w *talk) {
	c := w.dial()
	call := w.call(`"l"`, `{}`, "")
	c.say(call)
	h := w.gets(call)
	go h.result(`{"a":"` + strings.Repeat("é", 20_000) + `"}`) // nobody reads it to its end
	c.refused(`"l"`, 502)
	c.silent()
	c.works()
}

func talkAtLimit(w *talk) {
	c := w.dial()
	call := w.call(`"l"`, `{"a":""}`, "")
	call = strings.Replace(call, `"a":""`, `"a":"`+strings.Repeat("x", w.max-len(call))+`"`, 1)
	c.say(call)
	h := w.gets(call)
	h.answer(talkResult(string(h.ID), `"`+strings.Repeat("x", w.max-len(talkResult(string(h.ID), `""`)))+`"`))
	c.hears(talkResult(`"l"`, `"`+strings.Repeat("x", w.max-len(talkResult(string(h.ID), `""`)))+`"`))
}

// talkOneWrite is a server whose answer and what is no message, or an answer to nobody, are read at once.
func talkOneWrite(w *talk) {
	c := w.dial()
	for _, after := range []string{"log line", talkResult(`"nobody"`, `{}`), "\n\r\n", "{\"x\":\"" + strings.Repeat("x", w.max) + "\"}"} {
		call := w.call(`1`, `{}`, "")
		c.say(call)
		h := w.gets(call)
		h.say(talkResult(string(h.ID), `{}`) + "\n" + after)
		c.hears(talkResult(`1`, `{}`))
	}
}

// talkOneRead is a client whose call and what the proxy refuses are read at once.
func talkOneRead(w *talk) {
	c := w.dial()
	call := w.call(`1`, `{}`, "")
	for _, after := range []string{"no JSON", w.call(`1`, `{}`, ""), strings.Repeat("x", w.max+10)} {
		c.say(call + "\n" + after)
		h := w.gets(call)
		c.next() // the refusal
		h.result(`{}`)
		c.hears(talkResult(`1`, `{}`))
	}
}

// talkBatchAlone is a batch without a session, which leaves nothing behind.
func talkBatchAlone(w *talk) {
	w.bounds.Sessions = 2
	c := &talkClient{w: w, heard: make(chan string, 1000)}
	c.connect()
	for range 5 {
		c.refusedWhole("["+w.call(`1`, `{}`, "")+"]", codeInvalid, 400)
	}
}
