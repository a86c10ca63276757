// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	maxCarried = 10000 // values of one session
	minCarried = 8     // bytes; shorter ones are too often equal by chance
)

// carriedValues are the values in answers that the server made up anew: a later request that has the recorded one must
// be sent with the live one. That a recorded value is used so shows that it may differ; until then it is a difference.
type carriedValues struct {
	same *sameKinds
	live map[string]carriedValue // by what was recorded
	used map[string]string       // what is shown of those that were sent, likewise
}

type carriedValue struct {
	value string
	shown string // the same, redacted
	lost  bool   // there is none, as the answer with it did not come
}

func newCarriedValues(same *sameKinds) *carriedValues {
	return &carriedValues{same: same, live: map[string]carriedValue{}, used: map[string]string{}}
}

var word = regexp.MustCompile(`[^\s"'<>()\[\]{},;=]*[^\s"'<>()\[\]{},;=.:!?]`)

// wordsOf are the parts of a text that may be values of their own.
func wordsOf(text string) []string { return word.FindAllString(text, -1) }

// learn notes the strings that differ between the recorded value was and the live value is, which shown is redacted.
func (c *carriedValues) learn(was, is, shown any, key string) {
	switch was := was.(type) {
	case map[string]any:
		is, _ := is.(map[string]any)
		shown, _ := shown.(map[string]any)
		for key, inner := range was {
			if other, ok := is[key]; ok {
				c.learn(inner, other, shown[key], key)
			}
		}
	case []any:
		is, _ := is.([]any)
		shown, _ := shown.([]any)
		for i := range min(len(was), len(is), len(shown)) {
			c.learn(was[i], is[i], shown[i], "")
		}
	case string:
		is, ok := is.(string)
		shown, isShown := shown.(string)
		if !ok || !isShown || was == is {
			return
		}
		if len(was) >= minCarried || isOpaque(key) {
			c.add(was, carriedValue{value: is, shown: shown})
		}
		a, b, s := wordsOf(was), wordsOf(is), wordsOf(shown)
		for i := range a {
			if len(a) == len(b) && len(a) == len(s) && a[i] != b[i] && len(a[i]) >= minCarried {
				c.add(a[i], carriedValue{value: b[i], shown: s[i]})
			}
		}
	}
}

// add notes one value.
func (c *carriedValues) add(was string, live carriedValue) {
	if _, known := c.live[was]; !known && len(c.live) >= maxCarried {
		return
	}
	c.live[was] = live
	if _, used := c.used[was]; used {
		c.used[was] = live.shown
	}
}

// lose notes that the opaque values of a recorded result did not come.
func (c *carriedValues) lose(result string) {
	mapStrings(decodeJSON(result), "", func(key, was string) any {
		if _, known := c.live[was]; !known && isOpaque(key) {
			c.add(was, carriedValue{lost: true})
		}
		return was
	})
}

// lacks says why params cannot be sent, "" if they can.
func (c *carriedValues) lacks(params string) (reason string) {
	mapStrings(decodeJSON(params), "", func(_, was string) any {
		if live, known := c.live[was]; live.lost {
			reason = "needs a value from an answer that did not come"
		} else if !known && placeholder.MatchString(was) {
			reason = "needs a secret that is not on the tape"
		}
		return was
	})
	return reason
}

// apply returns params with the live values in place of the recorded ones, where a whole string is one.
func (c *carriedValues) apply(params string) string {
	changed := false
	v := mapStrings(decodeJSON(params), "", func(_, was string) any {
		live, known := c.live[was]
		if !known || live.lost {
			return was
		}
		c.used[was], changed = live.shown, true
		return live.value
	})
	if changed {
		return encodeJSON(v)
	}
	return params
}

// isOpaque reports whether the value of a member of this name is for the server alone to understand.
func isOpaque(key string) bool {
	return slices.Contains([]string{"nextCursor", "requestState", "taskId", "elicitationId"}, key)
}

// equal reports whether a live value b counts as the recorded one a, at the place at.
func (c *carriedValues) equal(at Pointer, a, b any) bool {
	was, isText := a.(string)
	is, bothText := b.(string)
	if !isText || !bothText {
		return c.same.equal(a, b)
	}
	if len(at) > 0 && isOpaque(at[len(at)-1]) {
		return true
	}
	if shown, ok := c.used[was]; ok && shown == is {
		return true
	}
	for _, recorded := range slices.Backward(slices.Sorted(maps.Keys(c.used))) { // the longer ones of those that begin alike first
		if len(recorded) >= minCarried {
			was = strings.ReplaceAll(was, recorded, c.used[recorded])
		}
	}
	return was == is || c.same.equal(was, is)
}

// sameKinds are the kinds of values that count as equal although they differ.
type sameKinds struct {
	kinds     map[string]bool // uuid, time, path, number
	tolerance float64         // of numbers, relative to the larger one
}

var (
	sameUUID = regexp.MustCompile(`(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b`)
	sameTime = regexp.MustCompile(`\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?)?\b|` +
		`\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? (?:\d{1,2} [A-Z][a-z]{2}|[A-Z][a-z]{2} [ \d]\d)[a-z]* (?:\d{4} )?\d\d:\d\d:\d\d(?: ?(?:[A-Z]{1,5}\b|[+-]\d{4}))*(?: \d{4})?|` +
		`\b\d{1,2}:\d\d:\d\d(?:[.,]\d+)?(?: ?[AP]M)?\b`)
	samePath   = regexp.MustCompile(`(?:\b[A-Za-z]:|\b[A-Za-z][A-Za-z0-9+.-]+:/)?[/\\][^\s"'<>|:;,()]*`)
	sameNumber = regexp.MustCompile(`[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?`)
)

// newSameKinds makes the kinds of a list as -same has it.
func newSameKinds(list []string) *sameKinds {
	k := &sameKinds{kinds: map[string]bool{}}
	for _, kind := range list {
		name, tolerance, _ := strings.Cut(kind, ":")
		k.kinds[name] = true
		if name == "number" {
			k.tolerance, _ = strconv.ParseFloat(tolerance, 64)
		}
	}
	return k
}

// equal reports whether a and b differ in such values only: as a whole or in parts of a text.
func (k *sameKinds) equal(a, b any) bool {
	was, isText := a.(string)
	is, bothText := b.(string)
	if isText && bothText {
		was, is = k.masked(was), k.masked(is)
		return was == is || k.kinds["number"] && k.numbers(was, is)
	}
	x, isNumber := a.(json.Number)
	y, bothNumbers := b.(json.Number)
	if !isNumber || !bothNumbers {
		return false
	}
	return k.kinds["number"] && k.close(string(x), string(y)) || k.kinds["time"] && isEpoch(string(x)) && len(x) == len(y) && isEpoch(string(y))
}

// isEpoch reports whether a number may be a time: seconds or milliseconds since 1970, from 2001 on.
func isEpoch(n string) bool {
	return (len(n) == len("1700000000") || len(n) == len("1700000000000")) && skipDigits(n, 0) == len(n) && n[0] < '5'
}

// masked is a text with one sign for all values of a kind; of a path its last name is left.
func (k *sameKinds) masked(s string) string {
	if k.kinds["uuid"] {
		s = sameUUID.ReplaceAllString(s, "«uuid»")
	}
	if k.kinds["time"] {
		s = sameTime.ReplaceAllString(s, "«time»")
	}
	if !k.kinds["path"] {
		return s
	}
	return samePath.ReplaceAllStringFunc(s, func(found string) string {
		if strings.Contains(found, "://") && !strings.HasPrefix(found, "file:") {
			return found // an address elsewhere
		}
		return "«path»" + path.Base(strings.ReplaceAll(found, `\`, "/"))
	})
}

// numbers reports whether two texts are equal but for numbers that are close.
func (k *sameKinds) numbers(a, b string) bool {
	if sameNumber.ReplaceAllString(a, "«number»") != sameNumber.ReplaceAllString(b, "«number»") {
		return false
	}
	x, y := sameNumber.FindAllString(a, -1), sameNumber.FindAllString(b, -1)
	return slices.EqualFunc(x, y, k.close)
}

// close reports whether two numbers are equal within the tolerance.
func (k *sameKinds) close(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return cmp.Or(errX, errY) == nil && math.Abs(x-y) <= k.tolerance*max(math.Abs(x), math.Abs(y))
}
