// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import "regexp"

// A textReplacer replaces what a regular expression matches in strings. It is not changed once made by
// newTextReplacer.
type textReplacer struct {
	match *regexp.Regexp
	with  string // as in [regexp.Regexp.Expand]
}

// newTextReplacer returns a textReplacer for a regular expression in Go's syntax, and what to put in place of a match.
func newTextReplacer(match, with string) (*textReplacer, error) {
	re, err := regexp.Compile(match)
	if err != nil {
		return nil, err
	}
	return &textReplacer{match: re, with: with}, nil
}
