// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import "strings"

// An edit is a valid JSON text that is read once, from the front to the back, and changed on the way. What reads it embeds
// it, and takes the offset of a value and returns the offset behind it.
type edit struct {
	scanner
	out    strings.Builder // what was read, changed
	copied int             // text up to here is in out, or left out
}

// put puts a value in place of text[from:to], which is behind what was replaced before, and not at the very front.
func (e *edit) put(from, to int, value string) {
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

// skip passes over a value.
func (e *edit) skip(i int) (end int) { return e.value(i, -1, fieldNone) }

// memberKey passes over a key and the colon behind it, and returns it decoded.
func (e *edit) memberKey(i int) (key string, value int) {
	end, plain := skipString(e.text, i)
	if key = e.text[i+1 : end-1]; !plain {
		key = decode(key)
	}
	return key, e.space(e.space(end) + 1)
}

// next passes over what is between two members or elements, or in front of the closing bracket.
func (e *edit) next(i int) int {
	if i = e.space(i); e.text[i] == ',' {
		i = e.space(i + 1)
	}
	return i
}
