// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A ruleRig is a rule file that is followed.
type ruleRig struct {
	t     *testing.T
	path  string
	watch *ruleWatch
	log   *frontLog
	said  int // bytes of the log that were looked at
}

func newRuleRig(t *testing.T, text string) *ruleRig {
	g := &ruleRig{t: t, path: filepath.Join(t.TempDir(), "rules.json"), log: &frontLog{}}
	g.write(text)
	var err error
	if g.watch, err = OpenRules(g.path, slog.New(slog.NewTextHandler(g.log, nil))); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *ruleRig) write(text string) {
	if err := os.WriteFile(g.path, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// asks is what becomes of a call of the tool t.
func (g *ruleRig) asks() string {
	m := sessParse(g.t, replayCall("1", "t", `{}`))
	if _, err := g.watch.rules.Intercept(g.t.Context(), &Session{}, m); err != nil {
		return err.(*Error).Text
	}
	return ""
}

// logs wants the log to have had this line, or none if part is "", since it was last asked.
func (g *ruleRig) logs(what, part string) {
	g.t.Helper()
	text := g.log.String()
	lines := strings.Split(strings.TrimSuffix(text[g.said:], "\n"), "\n")
	g.said = len(text)
	if part == "" && lines[0] == "" || part != "" && len(lines) == 1 && strings.Contains(lines[0], part) {
		return
	}
	g.t.Errorf("%s: got log %q, want one line with %q", what, lines, part)
}

func ruleDenies(text string) string {
	return `{"version": 1, "rules": [{"name": "r", "when": {"tool": "t"}, "deny": "` + text + `"}]}`
}

func TestRuleReload(t *testing.T) {
	g := newRuleRig(t, ruleDenies("a"))
	broken := "{\"version\": 1, \"rules\": [\n  {\"when\": {\"tool\": \"t\"}, \"denied\": \"x\"}]}"
	again, stay := "rules read again", `rules.json:2:27: `
	for _, c := range []struct {
		name  string
		do    func()
		asked bool
		logs  string
		deny  string
	}{
		{"unchanged", func() {}, false, "", "a"},
		{"unchanged, asked", func() {}, true, again, "a"},
		{"changed, of the same size", func() { g.write(ruleDenies("b")) }, false, again, "b"},
		{"once more, at once", func() { g.write(ruleDenies("c")) }, false, again, "c"},
		{"broken", func() { g.write(broken) }, false, stay, "c"},
		{"still broken", func() {}, false, "", "c"},
		{"still broken, asked", func() {}, true, stay, "c"},
		{"still broken, written again", func() { g.write(broken) }, false, "", "c"},
		{"broken otherwise", func() { g.write("{") }, false, `rules.json:1:2: `, "c"},
		{"repaired", func() { g.write(ruleDenies("c")) }, false, again, "c"},
		{"empty, as an editor leaves it for a moment", func() { g.write("") }, false, `rules.json:1:1: `, "c"},
		{"removed", func() { os.Remove(g.path) }, false, "rules stay as they were", "c"},
		{"still removed", func() {}, false, "", "c"},
		{"back", func() { g.write(ruleDenies("d")) }, false, again, "d"},
		{"without rules", func() { g.write(`{"version": 1, "rules": []}`) }, false, again, ""},
		{"another file in its place", func() {
			other := g.path + ".new"
			os.WriteFile(other, []byte(ruleDenies("e")), 0o600)
			os.Rename(other, g.path)
		}, false, again, "e"},
		{"a folder", func() { os.Remove(g.path); os.Mkdir(g.path, 0o700) }, false, "rules stay as they were", "e"},
	} {
		c.do()
		g.watch.look(c.asked)
		g.logs(c.name, c.logs)
		if got := g.asks(); got != c.deny {
			t.Errorf("%s: got %q, want %q", c.name, got, c.deny)
		}
		g.said = len(g.log.String())
	}
}

// A file that has not changed for a while is not read every second.
func TestRuleReloadLooksOnly(t *testing.T) {
	g := newRuleRig(t, ruleDenies("a"))
	old := time.Now().Add(-time.Hour)
	os.Chtimes(g.path, old, old)
	g.watch.look(false)
	g.write(ruleDenies("b"))
	os.Chtimes(g.path, old, old) // so that nothing shows that it has changed
	g.watch.look(false)
	g.logs("disguised", "")
	g.watch.look(true)
	g.logs("asked", "rules read again")
	if got := g.asks(); got != "b" {
		t.Errorf("got %q, want b", got)
	}
}

// What counts goes on counting when the file changes, under the name of its rule.
func TestRuleReloadCounts(t *testing.T) {
	file := func(text, when string) string {
		return `{"version": 1, "rules": [{"name": "r", "when": {"tool": "t", ` + when + `}, "deny": "` + text + `"}]}`
	}
	for _, when := range []string{`"every": 3`, `"first": 5`, `"chance": 0.5, "seed": 7`, `"chance": 0.5`} {
		g := newRuleRig(t, file("a", when))
		straight := newRuleRig(t, file("a", when))
		for name, count := range g.watch.rules.book.Load().counts { // without a seed in the file each has its own
			straight.watch.rules.book.Load().counts[name].seed = count.seed
		}
		for i := range 40 {
			if i%4 == 3 {
				g.write(file("a", when) + strings.Repeat(" ", i))
				g.watch.look(false)
			}
			if got, want := g.asks(), straight.asks(); got != want {
				t.Errorf("%s: call %d: got %q, want %q", when, i, got, want)
			}
		}
		if n := strings.Count(g.log.String(), "rules read again"); n != 10 {
			t.Errorf("%s: got %d reloads, want 10", when, n)
		}
	}
}

// A change is seen within a second, and messages that pass meanwhile meet the old rules or the new ones.
func TestRuleFollow(t *testing.T) {
	ended := make(chan os.Signal, 1) // the loop that waits for signals must not begin within the bubble
	signal.Notify(ended, os.Interrupt)
	signal.Stop(ended)
	synctest.Test(t, func(t *testing.T) {
		g := newRuleRig(t, ruleDenies("0"))
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { g.watch.Follow(ctx) })
		for i := range 5 {
			g.write(ruleDenies(fmt.Sprint(i)))
			wg.Go(func() { g.asks() })
			<-time.After(rulesCheck + time.Millisecond)
			synctest.Wait()
			if got := g.asks(); got != fmt.Sprint(i) {
				t.Errorf("got %q after a second, want %d", got, i)
			}
		}
		stop()
		wg.Wait()
	})
}
