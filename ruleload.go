// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"time"
)

const (
	rulesCheck = time.Second     // between two looks at a rule file
	rulesFresh = 2 * time.Second // a file changed so lately may change again and look the same
)

// readRules reads the rule file at path. An error begins with path, and has line and column where that can be.
func readRules(path string) (set *RuleSet, text string, err error) {
	data, err := readFile(path)
	if err != nil {
		return nil, "", err
	}
	if set, err = parseRules(string(data)); err != nil {
		return nil, string(data), fmt.Errorf("%s:%w", path, err)
	}
	return set, string(data), nil
}

// A ruleWatch keeps Rules as their file is. One goroutine may use it at a time.
type ruleWatch struct {
	path  string
	rules *Rules
	text  string      // of the file, as it was read last
	seen  os.FileInfo // nil if another look is needed
	said  string      // the last complaint, not to be repeated each second
}

// OpenRules reads the rules of the file at path, which its Follow reads again.
func OpenRules(path string, log *slog.Logger) (*ruleWatch, error) {
	set, text, err := readRules(path)
	if err != nil {
		return nil, err
	}
	w := &ruleWatch{path: path, rules: NewRules(set, log), text: text}
	w.warn(set)
	return w, nil
}

// warn says so if no client can begin a conversation, which is easily forgotten where all is denied that is not allowed.
func (w *ruleWatch) warn(set *RuleSet) {
	begins := func(r *Rule) bool {
		return r.Kind != actDeny && r.Kind.ends() && r.When.Tools == nil &&
			canMatch(r.When.Methods, methodInitialize, methodDiscover)
	}
	if set.Deny && !slices.ContainsFunc(set.Rules, begins) {
		w.rules.Log.Warn("no rule allows initialize or server/discover: no client can begin", "file", w.path)
	}
}

// Follow puts in place what becomes of the file, each second and on a reload signal, until ctx ends.
func (w *ruleWatch) Follow(ctx context.Context) {
	heard := make(chan os.Signal, 1)
	if signals := reloadSignals(); len(signals) > 0 {
		signal.Notify(heard, signals...)
		defer signal.Stop(heard)
	}
	tick := time.NewTicker(rulesCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heard:
			w.look(true)
		case <-tick.C:
			w.look(false)
		}
	}
}

// look reads the file if it has changed. What is wrong with it leaves the rules as they are, and is said once, or again
// if asked.
func (w *ruleWatch) look(asked bool) {
	info, err := os.Stat(w.path) // before reading, so that a change meanwhile is seen next time
	if err == nil && !asked && w.seen != nil && info.ModTime().Equal(w.seen.ModTime()) && info.Size() == w.seen.Size() && os.SameFile(info, w.seen) {
		return
	}
	set, text, err := readRules(w.path)
	if w.seen = info; info != nil && time.Since(info.ModTime()) < rulesFresh {
		w.seen = nil
	}
	switch {
	case err != nil && (asked || err.Error() != w.said):
		w.said, w.text = err.Error(), text
		w.rules.Log.Error("rules stay as they were", "error", err)
	case err == nil && (asked || text != w.text):
		w.said, w.text = "", text
		w.rules.Put(set)
		w.warn(set)
		w.rules.Log.Info("rules read again", "file", w.path, "rules", len(set.Rules))
	}
}
