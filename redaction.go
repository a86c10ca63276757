// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"strconv"
	"strings"
)

// A redaction is one walk over a valid JSON text, in which it puts placeholders.
type redaction struct {
	edit
	r *Redactor
}

// A place is where a value is.
type place struct {
	alive []redactPointer // those that lead on from there; what is inside may use the room behind them
	top   bool            // a message or a batch
	list  *secretKey      // the key, a usual one, of which the value is the array
}

// inner returns the place of the member or the element that token is, and the pointer that ends there.
func (p place) inner(token string) (inner place, hit *redactPointer) {
	inner = place{alive: p.alive[len(p.alive):]}
	for i := range p.alive {
		pointer := &p.alive[i]
		switch {
		case pointer.rest[0] != "*" && pointer.rest[0] != token:
		case len(pointer.rest) == 1:
			return inner, pointer
		default:
			inner.alive = append(inner.alive, redactPointer{pointer.rest[1:], pointer.name})
		}
	}
	return inner, nil
}

// walk returns a valid JSON text, which is at p, with placeholders.
func (r *Redactor) walk(text string, p place) string {
	w := redaction{edit: edit{scanner: scanner{text: text}}, r: r}
	w.pass(w.space(0), p)
	return w.done()
}

// pass passes over a value and replaces what is in it.
func (w *redaction) pass(i int, p place) (end int) {
	switch w.text[i] {
	case '{', '[':
		return w.inside(i, p)
	case '"':
		end, plain := skipString(w.text, i)
		w.inString(i, end, plain)
		return end
	}
	return w.skip(i)
}

// inside passes over an object or an array.
func (w *redaction) inside(i int, p place) (end int) {
	object, closing := w.text[i] == '{', w.text[i]+2 // ASCII: "{|}" and "[\\]"
	i = w.space(i + 1)
	for n := 0; w.text[i] != closing; n++ {
		switch {
		case object:
			key, value := w.memberKey(i)
			i = w.member(value, key, w.r.secret(key), p)
		case p.top: // a batch: pointers begin in its messages
			i = w.pass(i, p)
		case len(p.alive) == 0:
			i = w.member(i, "", p.list, p)
		default:
			i = w.member(i, strconv.Itoa(n), p.list, p)
		}
		i = w.next(i)
	}
	return i + 1
}

// member passes over the value to which token leads from p. It is a secret if k is not nil.
func (w *redaction) member(i int, token string, k *secretKey, p place) (end int) {
	inner, hit := p.inner(token)
	c := w.text[i]
	scalar := c == '"' || isNumber(c)
	switch {
	case hit != nil:
		return w.replace(i, hit.name)
	case p.top && scalar && (token == "id" || token == "method" || token == "jsonrpc"):
		return w.skip(i)
	case k != nil && (k.whole || scalar || c == '[' && w.isList(i)):
		return w.replace(i, k.name)
	}
	inner.list = k
	return w.pass(i, inner)
}

// isList reports whether an array has elements and all of them are strings or numbers. One placeholder stands for those: of
// many small ones each would take more room than the value.
func (w *redaction) isList(i int) bool {
	for i = w.space(i + 1); w.text[i] == '"' || isNumber(w.text[i]); i = w.space(i + 1) {
		if i = w.space(w.skip(i)); w.text[i] == ']' {
			return true
		}
	}
	return false
}

// inString looks into the string text[from:to], plain if it has no escape.
func (w *redaction) inString(from, to int, plain bool) {
	inside := w.text[from+1 : to-1]
	if len(w.r.matches) == 0 && (plain || !w.r.odd && !w.r.suspect(inside)) {
		return // no JSON, which would need escapes for its keys, or none with a key to replace
	}
	s := decode(inside)
	if t := w.r.Text(s); t != s {
		w.put(from, to, quote(t))
	}
}

// replace puts a placeholder in place of a value, unless one is there already.
func (w *redaction) replace(from int, name string) (end int) {
	end = w.skip(from)
	value := w.text[from:end]
	switch value[0] {
	case '{', '[':
		value = encodeJSON(decodeJSON(value))
	default:
		value = canonicalID(value)
	}
	if at := placeholder.FindStringIndex(value); at == nil || at[0] != 1 || at[1] != len(value)-1 {
		w.put(from, end, `"`+w.r.placeholder(name, value)+`"`)
	}
	return end
}

// loosely replaces the values of keys in what only resembles JSON: a part of it, or some among other text, also within a
// string, where quotes have backslashes.
func (r *Redactor) loosely(s string) string {
	w := edit{scanner: scanner{text: s}}
	for i := 0; i < len(s); i++ {
		n := strings.IndexByte(s[i:], ':')
		if n < 0 {
			break
		}
		i += n
		quoted, ok := strings.CutSuffix(strings.TrimRight(s[w.copied:i], whiteSpace), `"`)
		if !ok {
			continue
		}
		name := strings.TrimRight(quoted, `\`)
		depth := len(quoted) - len(name)
		name = name[strings.LastIndexByte(name, '"')+1:]
		if strings.IndexByte(name, '\\') >= 0 {
			name, _ = unquote(`"` + name + `"`)
		}
		k := r.secret(name)
		if k == nil {
			continue
		}
		from, to := looseValue(s, i+1)
		value := s[from:to]
		if value == "" || placeholder.FindString(value) == value {
			continue
		}
		if s[from-1] == '"' {
			w.put(from, to, r.placeholder(k.name, canonicalID(`"`+value+`"`)))
		} else {
			mark := strings.Repeat(`\`, depth) + `"`
			w.put(from, to, mark+r.placeholder(k.name, canonicalID(value))+mark)
		}
		i = to - 1
	}
	return w.done()
}

// looseValue returns where the inside of the string is that begins at s[i:], or the number, behind white space; nothing
// if there is neither. The string need not end.
func looseValue(s string, i int) (from, to int) {
	for i < len(s) && strings.IndexByte(whiteSpace, s[i]) >= 0 {
		i++
	}
	from = i
	for from < len(s) && s[from] == '\\' {
		from++
	}
	depth := from - i // backslashes before a quote that is no part of the string
	if from == len(s) || s[from] != '"' {
		for to = i; to < len(s) && (isNumber(s[to]) || to > i && strings.IndexByte(".eE+", s[to]) >= 0); {
			to++
		}
		return i, to
	}
	from++
	for to = from; to < len(s); to++ {
		n := 0
		for ; to < len(s) && s[to] == '\\'; to++ {
			n++
		}
		if to < len(s) && s[to] == '"' && (n <= depth || (n-depth)/(depth+1)%2 == 0) {
			return from, max(from, to-min(n, depth))
		}
	}
	return from, len(s)
}
