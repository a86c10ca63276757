// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// replayDemoSays is what a client says to the demo server, in both eras on one conversation.
func replayDemoSays() []string {
	return []string{
		strings.Replace(frontInitialize(`"init"`, "2025-06-18"), `"capabilities":{}`, `"capabilities":{"elicitation":{}}`, 1),
		frontNote("initialized"),
		frontCall(`1`, "tools/list"),
		replayCall(`9007199254740993`, "echo", `{"text":"\u0041"}`),
		demoLegacyCall(`1.0`, "tools/call", demoTool("countdown", `"from":3,"everyMs":100`)+`,"_meta":{"progressToken":9007199254740993}`),
		replayCall(`"7"`, "ask", `{"question":"why?"}`),
		`{"jsonrpc":"2.0","id":"ask-1","result":{"action":"accept","content":{"answer":"so"}}}`,
		replayCall(`7`, "echo", `{"text":"a"}`),
		replayCall(`7`, "fail", `{"message":"m","protocol":true}`),
		demoLegacyCall(`8`, "resources/read", `"uri":"demo://none"`),
		frontCall(`9`, "ping"),
		demoModern(`10`, "server/discover", ``),
		demoModern(`11`, "tools/list", ``),
		demoModern(`12`, "tools/call", demoTool("countdown", `"from":2`)),
		demoModern(`13`, "resources/read", `"uri":"demo://readme"`),
		frontCall(`14`, "no/such"),
	}
}

// What was recorded is played byte for byte, by the Recorder's and the Player's own understanding of a tape.
func TestReplayWhatWasRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.jsonl")
	said := replayDemoSays()
	heard := make([][]string, len(said))
	synctest.Test(t, func(t *testing.T) {
		file := &tapeFile{path: path, sync: syncNever}
		err := file.create()
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		rec := newRecorder(file, log)
		d := newCommandDialer(recorded(startDemo, rec), 1<<20, log)
		p := NewProxy(d, Bounds{Sessions: 10, Calls: 100, CallTimeout: time.Hour}, log, rec.Intercept)
		rec.Attach(p)
		g := &replayRig{t: t, proxy: p}
		c := g.open(false)
		for i, text := range said {
			c.says(text)
			<-time.After(time.Second)
			heard[i] = c.client.take()
		}
		p.Close()
		d.Close()
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
	})
	tape, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	recordCheck(t, string(tape))
	for _, order := range []string{orderAny, orderStrict} {
		replaying(t, string(tape), PlayerOptions{Order: order, FailUnused: true}, func(g *replayRig) {
			c := g.open(false)
			for i, text := range said {
				c.says(strings.Replace(text, `"ask-1"`, `"tape-1"`, 1))
				got, want := strings.Join(c.client.take(), "\n"), strings.Join(heard[i], "\n")
				if got != strings.Replace(want, `"ask-1"`, `"tape-1"`, 1) {
					t.Errorf("%s: got %s, want %s", text, got, want)
				}
			}
			g.reports(true, "0 unmatched")
		})
	}
}
