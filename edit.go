// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import "strings"

// An edit changes a valid JSON text in one walk from the front to the back. What makes the walk embeds it.
type edit struct {
	scanner
	out    strings.Builder // what was read, changed
	copied int             // text up to here is in out, or left out
	limit  int             // bytes of out beyond which nothing is put any more; 0 for none
	over   bool            // that was so
}

// maxGrowth is how many bytes a rule may add to a message: many values may be set in one that a client has written.
const maxGrowth = 16 << 20

// put puts a value in place of text[from:to], which is behind what was replaced before, and not at the very front.
func (e *edit) put(from, to int, value string) {
	if e.over = e.over || e.limit > 0 && e.out.Len()+len(value) > e.limit; e.over {
		return
	}
	e.out.WriteString(e.text[e.copied:from])
	e.out.WriteString(value)
	e.copied = to
}

// done returns the text with what was put into it.
func (e *edit) done() string {
	if e.copied == 0 {
		return e.text
	}
	e.out.WriteString(e.text[e.copied:])
	return e.out.String()
}

// The methods below walk over a text that is known to be valid: they take an offset and return the one behind what they
// passed over.

// skip passes over a value.
func (s *scanner) skip(i int) (end int) { return s.value(i, -1, fieldNone) }

// memberKey passes over a key and the colon behind it, and returns the key decoded.
func (s *scanner) memberKey(i int) (key string, value int) {
	end, plain := skipString(s.text, i)
	if key = s.text[i+1 : end-1]; !plain {
		key = decode(key)
	}
	return key, s.space(s.space(end) + 1)
}

// next passes over what is between two members or elements, or in front of the closing bracket.
func (s *scanner) next(i int) int {
	if i = s.space(i); s.text[i] == ',' {
		i = s.space(i + 1)
	}
	return i
}
