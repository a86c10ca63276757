// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"strings"
)

// A rulePath leads to values of a message: a JSON pointer (RFC 6901) in which the token * stands for any member or element,
// and NAME[KEY=PATTERN] for the elements of the array NAME, or of any with *[KEY=PATTERN], that are objects whose member
// KEY is a string that [matchesName] the pattern: /result/tools[name=delete_*].
type rulePath []pathStep

// A pathStep leads from an object or array to some of what is in it.
type pathStep struct {
	token   string // the member, or the index of an element; * is all
	key     string // instead of the token: of the elements that are objects
	pattern string // of the string that their member key is
}

// parseRulePath reads a path such as /result/tools[name=delete_*]/description.
func parseRulePath(s string) (rulePath, error) {
	if !strings.HasPrefix(s, "/") {
		return nil, errors.New("want a JSON pointer that begins with /, such as /params/arguments/path or /result/tools[name=delete_*]")
	}
	var p rulePath
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for _, token := range splitPath(s[1:]) {
		name, selector, selects := strings.Cut(token, "[")
		p = append(p, pathStep{token: unescape.Replace(name)})
		if !selects {
			continue
		}
		key, pattern, ok := strings.Cut(strings.TrimSuffix(selector, "]"), "=")
		if !ok || key == "" || !strings.HasSuffix(selector, "]") {
			return nil, errors.New("want [KEY=PATTERN] behind the name of an array, such as /result/tools[name=delete_*]")
		}
		p = append(p, pathStep{key: unescape.Replace(key), pattern: pattern})
	}
	return p, nil
}

// splitPath cuts s at each / that is not in brackets.
func splitPath(s string) []string {
	var tokens []string
	from, inside := 0, false
	for i, c := range s {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == '/' && !inside:
			tokens = append(tokens, s[from:i])
			from = i + 1
		}
	}
	return append(tokens, s[from:])
}
