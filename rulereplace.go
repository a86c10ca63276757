// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A textReplacer replaces what a regular expression matches in strings. It is not changed once made by
// newTextReplacer.
//
// Go's regular expressions read some 20 MB/s, so most of a text is kept from them. The program of the expression says which
// bytes it can consume. A match that is not empty lies within a run of such bytes, as it cannot go on beyond; and nothing
// outside of a run counts, but for \b and \B the byte on each side. (Of a character with several bytes that byte is no
// letter to \b, as is the character.) So only those runs are searched that are as long as a match must be, and that hold
// the literal that each match has.
type textReplacer struct {
	match    *regexp.Regexp
	with     string // as in [regexp.Regexp.Expand]
	need     matchNeed
	escape   string    // is in the JSON text of a string that has need.literal, unless that is there as it is
	narrow   bool      // only runs count
	consumed [256]bool // bytes that can be in a match
	context  int       // bytes on each side of a run that count
}

// newTextReplacer returns a textReplacer for a regular expression in Go's syntax, and what to put in place of a match.
func newTextReplacer(match, with string) (*textReplacer, error) {
	re, err := regexp.Compile(match)
	if err != nil {
		return nil, err
	}
	tree, _ := syntax.Parse(match, syntax.Perl) // as regexp.Compile has done
	program, _ := syntax.Compile(tree.Simplify())
	need := needOf(tree)
	r := &textReplacer{match: re, with: with, need: need, escape: `\u`, narrow: need.length > 0}
	if strings.ContainsAny(need.literal, "\"\\/\b\f\n\r\t") {
		r.escape = `\`
	}
	for i := range program.Inst {
		switch in := &program.Inst[i]; in.Op {
		case syntax.InstEmptyWidth:
			const word = syntax.EmptyWordBoundary | syntax.EmptyNoWordBoundary
			r.narrow = r.narrow && syntax.EmptyOp(in.Arg)&^word == 0 // neither ^ nor $, for which the string counts
			r.context = 1
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			r.consume(in)
		}
	}
	return r, nil
}

// consume notes which bytes an instruction can consume. If it can consume one character beyond ASCII, the bytes of all of
// those count, so that a run never ends within a character.
func (r *textReplacer) consume(in *syntax.Inst) {
	for c := range utf8.RuneSelf {
		r.consumed[c] = r.consumed[c] || in.MatchRune(rune(c))
	}
	runes := in.Rune
	if len(runes) == 1 {
		runes = spellings(runes[0], syntax.Flags(in.Arg))
	}
	for c := utf8.RuneSelf; c < len(r.consumed) && len(runes) > 0 && slices.Max(runes) >= utf8.RuneSelf; c++ {
		r.consumed[c] = true
	}
}

// spellings returns c and, if flags say that case does not count, what else it can be.
func spellings(c rune, flags syntax.Flags) []rune {
	all := []rune{c}
	if flags&syntax.FoldCase != 0 {
		for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
			all = append(all, f)
		}
	}
	return all
}

// A matchNeed is what each match of an expression has. The zero value is nothing.
type matchNeed struct {
	literal string // a part of each match; "" if none is known
	length  int    // bytes that it has at least
}

// and is what a match has if one part of it has n and another m.
func (n matchNeed) and(m matchNeed) matchNeed {
	n.length += m.length
	if len(m.literal) > len(n.literal) {
		n.literal = m.literal
	}
	return n
}

// or is what a match has if it has n or has m.
func (n matchNeed) or(m matchNeed) matchNeed {
	n.length = min(n.length, m.length)
	if n.literal != m.literal {
		n.literal = ""
	}
	return n
}

// needOf returns what each match of an expression has.
func needOf(re *syntax.Regexp) (n matchNeed) {
	switch re.Op {
	case syntax.OpLiteral:
		literal := "" // up to there
		for _, c := range re.Rune {
			all := spellings(c, re.Flags)
			part := matchNeed{length: max(1, utf8.RuneLen(slices.Min(all)))} // surrogates have none
			if len(all) > 1 {
				literal = ""
			} else {
				literal += string(c)
				part.literal = literal
			}
			n = n.and(part)
		}
	case syntax.OpCharClass:
		if len(re.Rune) > 0 {
			n.length = max(1, utf8.RuneLen(re.Rune[0]))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		n.length = 1
	case syntax.OpCapture, syntax.OpPlus:
		return needOf(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			n = needOf(re.Sub[0])
			n.length *= re.Min
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			n = n.and(needOf(sub))
		}
	case syntax.OpAlternate:
		n = needOf(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			n = n.or(needOf(sub))
		}
	}
	return n
}

// in returns s with its matches replaced.
func (r *textReplacer) in(s string) string {
	var out []byte
	copied := 0 // s up to here is in out
	for from, to, ok := r.run(s, 0); ok; from, to, ok = r.run(s, to) {
		before, behind := min(from, r.context), min(len(s)-to, r.context) // no match can have these
		part := s[from-before : to+behind]
		if next := r.match.ReplaceAllString(part, r.with); next != part {
			if out == nil {
				out = make([]byte, 0, len(s)+len(r.with))
			}
			out = append(append(out, s[copied:from]...), next[before:len(next)-behind]...)
			copied = to
		}
		if !r.narrow {
			break
		}
	}
	if out == nil {
		return s
	}
	return string(append(out, s[copied:]...))
}

// run returns the next part of s, from s[at] on, in which there may be a match: none begins before it that is not in it.
// Without runs that is all of s.
func (r *textReplacer) run(s string, at int) (from, to int, ok bool) {
	if !r.narrow {
		return 0, len(s), strings.Contains(s, r.need.literal)
	}
	for {
		from = at + r.need.length - 1 // in each run that is long enough and begins by then
		if r.need.literal != "" {
			if from = strings.Index(s[at:], r.need.literal); from < 0 {
				return 0, 0, false
			}
			from += at
		}
		for from < len(s) && !r.consumed[s[from]] {
			from += r.need.length
		}
		if from >= len(s) {
			return 0, 0, false
		}
		for to = from + 1; to < len(s) && r.consumed[s[to]]; to++ {
		}
		for from > at && r.consumed[s[from-1]] {
			from--
		}
		if to-from >= r.need.length {
			return from, to, true
		}
		at = to
	}
}

// replace returns a message with what matches replaced in all strings, not keys, that are in params, in result and in
// error, or, if in is not nil, in the values to which in leads; it must lead into those three. All else is as it was. odd
// is as in [rulePath.find]; the message is then unchanged.
func (r *textReplacer) replace(text string, in rulePath) (changed string, odd bool) {
	w := edit{scanner: scanner{text: text}, limit: len(text) + maxGrowth}
	var places []span
	if in != nil {
		places, odd = in.locate(text)
	} else if r.mayBeIn(text) {
		w.value(w.space(0), 0, fieldMessage)
		places = w.at[fieldParams : fieldError+1]
		slices.SortFunc(places, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	}
	for _, at := range places {
		if r.mayBeIn(text[at.from:at.to]) {
			r.inStrings(&w, at)
		}
	}
	if w.over {
		return text, true
	}
	return w.done(), odd
}

// mayBeIn reports whether a JSON text may have strings with a match.
func (r *textReplacer) mayBeIn(text string) bool {
	return strings.Contains(text, r.need.literal) || strings.Contains(text, r.escape)
}

// inStrings replaces the matches in the strings at a place.
func (r *textReplacer) inStrings(w *edit, at span) {
	for i := at.from; ; {
		from := strings.IndexByte(w.text[i:at.to], '"')
		if from < 0 {
			return
		}
		from += i
		i, _ = skipString(w.text, from)
		inside := w.text[from+1 : i-1]
		if next := w.space(i); next < len(w.text) && w.text[next] == ':' || !r.mayBeIn(inside) {
			continue // a key
		}
		s := decode(inside)
		if t := r.in(s); t != s {
			w.put(from, i, quote(t))
		}
	}
}
