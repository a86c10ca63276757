// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Pointer is a JSON pointer (RFC 6901) taken apart. The token * stands for any member or element.
type Pointer []string

// ParsePointer reads a pointer such as /result/content/*/text.
func ParsePointer(s string) (Pointer, error) {
	if !strings.HasPrefix(s, "/") {
		return nil, errors.New("want a JSON pointer that begins with /, such as /result/content/*/text")
	}
	p := Pointer(strings.Split(s[1:], "/"))
	for i, token := range p {
		p[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
	}
	return p, nil
}

// String is the pointer as RFC 6901 writes it; "" is the whole document.
func (p Pointer) String() string {
	var b strings.Builder
	for _, token := range p {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(token))
	}
	return b.String()
}

// Matches reports whether p, in which * stands for anything, leads to path or to something that path is in.
func (p Pointer) Matches(path Pointer) bool {
	if len(p) > len(path) {
		return false
	}
	for i, token := range p {
		if token != "*" && token != path[i] {
			return false
		}
	}
	return true
}

// decodeJSON returns a valid JSON text as encoding/json has it, numbers as json.Number in the one form that
// [canonicalID] gives numbers of the same value. Of keys that occur twice the last counts.
func decodeJSON(text string) any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	return canonicalNumbers(v)
}

func canonicalNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return json.Number(canonicalID(string(v)))
	case []any:
		for i := range v {
			v[i] = canonicalNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = canonicalNumbers(v[k])
		}
	}
	return v
}

// encodeJSON returns the JSON text of what [decodeJSON] returned: keys sorted, no white space. Texts of equal values,
// whatever their form, give equal texts, but for numbers with exponents beyond what canonicalID works out.
func encodeJSON(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// mapStrings puts in place of each string in v, a value of [decodeJSON] that is the member key of an object, or "", what f
// returns, which is given the string and the key of the member that it is.
func mapStrings(v any, key string, f func(key, s string) any) any {
	switch v := v.(type) {
	case string:
		return f(key, v)
	case map[string]any:
		for k, inner := range v {
			v[k] = mapStrings(inner, k, f)
		}
	case []any:
		for i := range v {
			v[i] = mapStrings(v[i], "", f)
		}
	}
	return v
}

// A Difference is one place where two JSON values are not the same.
type Difference struct {
	At   Pointer
	A, B any // as decodeJSON has them; absent is a value of its own
}

// absent is the value of what is not there.
type absent struct{}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s, was %s", d.At, shownJSON(d.B), shownJSON(d.A))
}

// rawJSON is [encodeJSON] for a part of another value, nil if v is absent.
func rawJSON(v any) json.RawMessage {
	if v == (absent{}) {
		return nil
	}
	return json.RawMessage(encodeJSON(v))
}

// shownJSON is v for people, clipped.
func shownJSON(v any) string {
	if v == (absent{}) {
		return "absent"
	}
	return clipped(encodeJSON(v), 100)
}

// clipped is the first n characters of s, with a sign if there are more.
func clipped(s string, n int) string {
	for i := range s {
		if n--; n < 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// A Comparer finds the differences between JSON values.
type Comparer struct {
	Ignore []Pointer
	// Same reports whether a and b, which are at the same place and not both objects or both arrays, count as
	// equal although they differ. Nil means that they never do.
	Same func(at Pointer, a, b any) bool
	// Ignored counts the differences that Ignore covered.
	Ignored int
}

// Compare returns the differences between a and b, values of [decodeJSON], in the order of their keys. at is where
// they are.
func (c *Comparer) Compare(at Pointer, a, b any) []Difference {
	objectA, isA := a.(map[string]any)
	objectB, isB := b.(map[string]any)
	listA, isListA := a.([]any)
	listB, isListB := b.([]any)
	var found []Difference
	switch {
	case isA && isB:
		keys := maps.Clone(objectA)
		maps.Copy(keys, objectB)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			found = append(found, c.Compare(append(at[:len(at):len(at)], k), valueAt(objectA, k), valueAt(objectB, k))...)
		}
	case isListA && isListB:
		for i := range max(len(listA), len(listB)) {
			found = append(found, c.Compare(append(at[:len(at):len(at)], strconv.Itoa(i)), elementAt(listA, i), elementAt(listB, i))...)
		}
	case isA != isB || isListA != isListB || a != b:
		switch {
		case slices.ContainsFunc(c.Ignore, func(p Pointer) bool { return p.Matches(at) }):
			c.Ignored++
		case c.Same != nil && c.Same(at, a, b):
		default:
			found = append(found, Difference{at, a, b})
		}
	}
	return found
}

func valueAt(object map[string]any, key string) any {
	if v, ok := object[key]; ok {
		return v
	}
	return absent{}
}

func elementAt(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return absent{}
}
