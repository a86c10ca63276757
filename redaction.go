// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import "strings"

// A redaction is one walk over a valid JSON text. Its methods take the offset of a value and return the offset behind it.
type redaction struct {
	r      *Redactor
	text   string
	out    strings.Builder // what was read, with placeholders
	copied int             // text up to here is in out
}

// A place is where a value is.
type place struct {
	alive []*redactPointer // those that lead on from there; what is inside may use the room behind them
	depth int              // how many of their tokens are behind
	top   bool             // a message or a batch
	list  *secretKey       // the key, a usual one, of which the value is the array
}

// inner returns the place of the member key, or of the element n where n is not negative, and the pointer that ends there.
func (p place) inner(key string, n int) (inner place, hit *redactPointer) {
	inner = place{alive: p.alive[len(p.alive):], depth: p.depth + 1}
	for _, pointer := range p.alive {
		if token := pointer.at[p.depth]; token != "*" && (n < 0 && token != key || n >= 0 && pointer.index[p.depth] != n) {
			continue
		}
		if len(pointer.at) == inner.depth {
			return inner, pointer
		}
		inner.alive = append(inner.alive, pointer)
	}
	return inner, nil
}

// whole walks over all of the text and returns it with placeholders.
func (w *redaction) whole(p place) string {
	w.value(len(w.text)-len(strings.TrimLeft(w.text, whiteSpace)), p)
	if w.copied == 0 {
		return w.text
	}
	w.out.WriteString(w.text[w.copied:])
	return w.out.String()
}

func (w *redaction) value(i int, p place) (end int) {
	switch w.text[i] {
	case '{':
		return w.object(i, p)
	case '[':
		return w.array(i, p)
	case '"':
		end, plain := skipString(w.text, i)
		w.inString(i, end, plain)
		return end
	}
	return w.skip(i)
}

// skip passes over a value.
func (w *redaction) skip(i int) (end int) {
	switch w.text[i] {
	case '{', '[':
		s := scanner{text: w.text}
		return s.value(i, -1, fieldNone)
	case '"':
		end, _ = skipString(w.text, i)
		return end
	}
	for i < len(w.text) && w.text[i] > ' ' && w.text[i] != ',' && w.text[i] != '}' && w.text[i] != ']' {
		i++
	}
	return i
}

func (w *redaction) space(i int) int {
	for w.text[i] <= ' ' {
		i++
	}
	return i
}

func (w *redaction) object(i int, p place) (end int) {
	for i = w.space(i + 1); w.text[i] != '}'; {
		end, plain := skipString(w.text, i)
		key := w.text[i+1 : end-1]
		if !plain {
			key = decode(key)
		}
		var k *secretKey
		if !plain || w.r.odd || w.r.hasTail(w.text[:end-1]) {
			k = w.r.secret(key)
		}
		i = w.space(w.space(end) + 1)
		i = w.space(w.member(i, key, k, p))
		if w.text[i] == ',' {
			i = w.space(i + 1)
		}
	}
	return i + 1
}

// member takes the value of key, which is a secret's if k is not nil.
func (w *redaction) member(i int, key string, k *secretKey, p place) (end int) {
	inner, hit := p.inner(key, -1)
	if hit != nil {
		return w.replace(i, w.skip(i), hit.name)
	}
	c := w.text[i]
	scalar := c == '"' || isNumber(c)
	if p.top && scalar && (key == "id" || key == "method" || key == "jsonrpc") {
		return w.skip(i)
	}
	if k != nil {
		if k.whole || scalar {
			return w.replace(i, w.skip(i), k.name)
		}
		inner.list = k
	}
	return w.value(i, inner)
}

func (w *redaction) array(i int, p place) (end int) {
	i = w.space(i + 1)
	for n := 0; w.text[i] != ']'; n++ {
		i = w.space(w.element(i, n, p))
		if w.text[i] == ',' {
			i = w.space(i + 1)
		}
	}
	return i + 1
}

func (w *redaction) element(i, n int, p place) (end int) {
	if p.top { // a batch: pointers begin in its messages
		return w.value(i, p)
	}
	inner, hit := p.inner("", n)
	if hit != nil {
		return w.replace(i, w.skip(i), hit.name)
	}
	if c := w.text[i]; p.list != nil && (c == '"' || isNumber(c)) {
		return w.replace(i, w.skip(i), p.list.name)
	}
	return w.value(i, inner)
}

// inString looks into the string text[from:to], plain if it has no escape.
func (w *redaction) inString(from, to int, plain bool) {
	inside := w.text[from+1 : to-1]
	if len(w.r.matches) == 0 && (plain || inside[0] > ' ' && strings.IndexByte(`{[\`, inside[0]) < 0 ||
		!w.r.odd && !w.r.suspect(inside)) {
		return // no JSON, which would need escapes for its keys, or none with a key to replace
	}
	s := decode(inside)
	if t := w.r.Text(s); t != s {
		w.put(from, to, quote(t))
	}
}

// replace puts a placeholder in place of the value text[from:to], unless one is there already, and returns to.
func (w *redaction) replace(from, to int, name string) int {
	value := w.text[from:to]
	switch value[0] {
	case '{', '[':
		value = encodeJSON(decodeJSON(value))
	default:
		value = canonicalID(value)
	}
	if at := placeholder.FindStringIndex(value); at == nil || at[0] != 1 || at[1] != len(value)-1 {
		w.put(from, to, `"`+w.r.placeholder(name, value)+`"`)
	}
	return to
}

// put puts a value in place of text[from:to].
func (w *redaction) put(from, to int, value string) {
	w.out.WriteString(w.text[w.copied:from])
	w.out.WriteString(value)
	w.copied = to
}
