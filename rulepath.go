// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A rulePath leads to values of a message: a JSON pointer (RFC 6901) in which the token * stands for any member or element,
// and NAME[KEY=PATTERN] for the elements of the array NAME, or of any with *[KEY=PATTERN], that are objects whose member
// KEY is a string that [matchesName] the pattern: /result/tools[name=delete_*]. In the pattern a / is one, and there can
// be no brackets; * may stand for those.
type rulePath []pathStep

// A pathStep leads from an object or array to some of what is in it.
type pathStep struct {
	token   string                    // the member, or the index of an element; * is all
	key     string                    // instead of the token: of the elements that are objects
	pattern string                    // of the string that their member key is
	pick    func(element string) bool // instead of the token: of the elements that it reports; nil for none
}

// selects reports whether s leads to elements by what is in them.
func (s *pathStep) selects() bool { return s.key != "" || s.pick != nil }

// parseRulePath reads a path such as /result/tools[name=delete_*]/description.
func parseRulePath(s string) (rulePath, error) {
	if !strings.HasPrefix(s, "/") {
		return nil, errors.New("want a JSON pointer that begins with /, such as /params/arguments/path or /result/tools[name=delete_*]")
	}
	var p rulePath
	for s != "" {
		token := s[1:]
		if i := strings.IndexAny(token, "/[]"); i >= 0 {
			token = token[:i]
		}
		s = s[1+len(token):]
		name, err := unescapeToken(token)
		if err != nil {
			return nil, err
		}
		p = append(p, pathStep{token: name})
		if s == "" || s[0] == '/' {
			continue
		}
		selector, rest, closed := strings.Cut(s, "]")
		selector, opened := strings.CutPrefix(selector, "[")
		key, pattern, ok := strings.Cut(selector, "=")
		if !opened || !closed || !ok || key == "" || token == "" || strings.Contains(selector, "[") || rest != "" && rest[0] != '/' {
			return nil, fmt.Errorf("want NAME[KEY=PATTERN] and then / or the end, such as /result/tools[name=delete_*], not %q", token+s)
		}
		if key, err = unescapeToken(key); err != nil {
			return nil, err
		}
		p = append(p, pathStep{key: key, pattern: pattern})
		s = rest
	}
	return p, nil
}

// String is what parseRulePath makes p of.
func (p rulePath) String() string {
	escape := strings.NewReplacer("~", "~0", "/", "~1").Replace
	var b strings.Builder
	for _, step := range p {
		if step.key != "" {
			b.WriteString("[" + escape(step.key) + "=" + step.pattern + "]")
		} else {
			b.WriteString("/" + escape(step.token))
		}
	}
	return b.String()
}

// unescapeToken decodes the two escapes of RFC 6901.
func unescapeToken(token string) (string, error) {
	if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(token), "~") {
		return "", fmt.Errorf("want ~0 for ~ and ~1 for /, not another ~, in %q", token)
	}
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(token), nil
}

// find returns the JSON texts of the values to which p leads in a message, in order. Here as in the other methods the text
// is one that Parse accepts.
//
// If odd, nothing that was found is to be relied on: p met something through which it cannot lead, or which two peers may
// read differently. That is so if
//   - p goes on at a value that is neither an object nor an array;
//   - p names a member of an array, or selects from what is no array;
//   - a key that p follows or selects by is there twice, or also in another case.
//
// What is absent is not odd, nor is an index beyond the end.
func (p rulePath) find(text string) (values []string, odd bool) {
	found, odd := p.locate(text)
	for _, at := range found {
		values = append(values, text[at.from:at.to])
	}
	return values, odd
}

// locate is [rulePath.find] for where the values are.
func (p rulePath) locate(text string) (found []span, odd bool) {
	w := pathWalk{edit: edit{scanner: scanner{text: text}}, path: p}
	w.pass(w.space(0), p)
	if w.odd {
		return nil, true
	}
	return w.found, false
}

// remove returns a message without the members and elements to which p leads. It is unchanged if that is odd.
func (p rulePath) remove(text string) (changed string, odd bool) {
	return p.change(text, pathWalk{task: pathRemoves})
}

// set returns a message in which the values to which p leads are value, a JSON text. It is unchanged if that is odd, or
// would make it much larger.
//
// If the object in which p ends lacks the member, it is added at the end of the object; a last token - adds an element to
// an array. Objects on the way are added too if they are named: not by * or [KEY=PATTERN], and no index leads into what is
// added. To the message itself only params is added, and only if there is a method.
func (p rulePath) set(text, value string) (changed string, odd bool) {
	return p.change(text, pathWalk{task: pathSets, value: value})
}

// change returns what the walk w along p makes of a message.
func (p rulePath) change(text string, w pathWalk) (changed string, odd bool) {
	w.text, w.path, w.limit = text, p, len(text)+maxGrowth
	w.pass(w.space(0), p)
	if w.odd || w.over {
		return text, true
	}
	return w.done(), false
}

// A pathTask is what is done with the values to which a path leads.
type pathTask uint8

const (
	pathFinds pathTask = iota
	pathRemoves
	pathSets
)

// A pathWalk follows a path through a message.
type pathWalk struct {
	edit
	path   rulePath
	task   pathTask
	value  string // to set
	method bool   // the message has one
	found  []span // of pathFinds
	odd    bool
}

// pass passes over the value at i, from which p leads on.
func (w *pathWalk) pass(i int, p rulePath) (end int) {
	if len(p) > 0 && (w.text[i] == '[' || w.text[i] == '{' && !p[0].selects()) {
		return w.inside(i, p)
	}
	end = w.skip(i)
	switch {
	case len(p) > 0:
		w.odd = true
	case w.task == pathSets:
		w.put(i, end, w.value)
	default:
		w.found = append(w.found, span{i, end})
	}
	return end
}

// inside passes over an object or an array.
func (w *pathWalk) inside(i int, p rulePath) (end int) {
	object, closing := w.text[i] == '{', w.text[i]+2 // ASCII: "{|}" and "[\\]"
	steps := pathStepper{step: p[0], odd: !object && !p[0].suitsArray()}
	open := i + 1
	behind := open     // the end of the last member or element
	kept, hits := 0, 0 // how many of them stay, and to how many p leads
	i = w.space(open)
	first := i
	for n := 0; w.text[i] != closing; n++ {
		from, hit := i, false
		if object {
			var key string
			key, i = w.memberKey(i)
			w.method = w.method || len(p) == len(w.path) && key == "method"
			hit = steps.member(key)
		} else {
			hit = steps.element(w, i, n)
		}
		hits += btoi(hit)
		if hit && w.task == pathRemoves && len(p) == 1 {
			i = w.skip(i)
			if kept > 0 {
				w.put(behind, i, "")
			}
		} else {
			if kept++; kept == 1 && n > 0 {
				w.put(first, from, "")
			}
			if hit {
				i = w.pass(i, p[1:])
			} else {
				i = w.skip(i)
			}
		}
		behind = i
		i = w.next(i)
	}
	w.odd = w.odd || steps.odd
	switch {
	case kept == 0 && hits > 0:
		w.put(open, behind, "")
	case w.task == pathSets && hits == 0:
		w.add(behind, behind > open, object, p)
	}
	return i + 1
}

// suitsArray reports whether s can lead to an element of an array, or to the place behind the last one.
func (s *pathStep) suitsArray() bool {
	return s.selects() || s.token == "*" || s.token == "-" || isIndex(s.token)
}

// isIndex reports whether a token is an index, by RFC 6901 without zeros in front.
func isIndex(token string) bool {
	return token == "0" || token != "" && token[0] != '0' && skipDigits(token, 0) == len(token)
}

// add puts what is absent where p leads at the end, i, of what is in an object or array; any says that something is.
func (w *pathWalk) add(i int, any, object bool, p rulePath) {
	step, top := p[0], len(p) == len(w.path)
	var text string
	switch {
	case !object && step.token == "-" && len(p) == 1:
		text = w.value
	case object && step.token != "*" && (len(p) == 1 || w.path.named(len(w.path)-len(p)+1)) && (!top || w.method && step.token == "params"):
		text = p.around(w.value)
		text = text[1 : len(text)-1]
	default:
		return
	}
	if any {
		text = "," + text
	}
	w.put(i, i, text)
}

// named reports whether p leads to one value at most, and behind its first n steps through objects only.
func (p rulePath) named(n int) bool {
	for i, step := range p {
		if step.selects() || step.token == "*" || i >= n && (step.token == "-" || isIndex(step.token)) {
			return false
		}
	}
	return true
}

// around returns the JSON text of objects, one in the other, in which p leads to a value.
func (p rulePath) around(value string) string {
	var b strings.Builder
	for _, step := range p {
		b.WriteString("{" + quote(step.token) + ":")
	}
	return b.String() + value + strings.Repeat("}", len(p))
}

// A pathStepper says to which members of one object, or elements of one array, a step leads.
type pathStepper struct {
	step pathStep
	odd  bool
	once bool            // the step led to a member
	keys map[string]bool // of the members to which * led
}

// member reports whether the step leads to the member called key. It is to be asked about each member of the object.
func (s *pathStepper) member(key string) bool {
	switch {
	case s.step.token == "*": // to those of another case too
		s.odd = s.odd || s.keys[key]
		if s.keys == nil {
			s.keys = map[string]bool{}
		}
		s.keys[key] = true
		return true
	case key == s.step.token:
		s.odd = s.odd || s.once
		s.once = true
		return true
	}
	s.odd = s.odd || strings.EqualFold(key, s.step.token)
	return false
}

// element reports whether the step leads to the element at w.text[i], the n-th of an array.
func (s *pathStepper) element(w *pathWalk, i, n int) bool {
	if s.step.pick != nil {
		return s.step.pick(w.text[i:w.skip(i)])
	}
	if s.step.key == "" {
		return s.step.token == "*" || s.step.token == strconv.Itoa(n)
	}
	if w.text[i] != '{' {
		return false
	}
	want, same, folded, value := s.step.key, 0, false, ""
	eachMember(w.text[i:w.skip(i)], func(key, text string) {
		if key == want {
			same, value = same+1, text
		} else {
			folded = folded || strings.EqualFold(key, want)
		}
	})
	s.odd = s.odd || folded || same > 1
	name, ok := unquote(value)
	return ok && matchesName(s.step.pattern, name)
}
