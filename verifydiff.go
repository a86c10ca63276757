// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

const maxVerifyDiffs = 1000 // kept of one call

// redacted is m with its secrets replaced as on the tape.
func (v *verifier) redacted(m *Message) *Message {
	text := v.o.Redact(m.Raw)
	if text == m.Raw {
		return m
	}
	if r, err := Parse(text); err == nil {
		return r
	}
	return m
}

// contrast compares a live answer to the call m with the recorded one.
func (t *verifyTalk) contrast(m *Message, check *VerifyCheck, was, live *Message) {
	f := answerForm{method: m.Method, bridged: t.era != t.live}
	a, b := f.of(was), f.of(t.v.redacted(live))
	t.carried.learn(a, f.of(live), b, "")
	t.compare(check, nil, a, b)
}

// compare adds to check where the live value b differs from a, the recorded one.
func (t *verifyTalk) compare(check *VerifyCheck, at Pointer, a, b any) {
	c := Comparer{Ignore: t.v.o.Ignore, Same: t.carried.equal}
	check.diffs = append(check.diffs, c.Compare(at, a, b)...)
	check.diffs = check.diffs[:min(len(check.diffs), maxVerifyDiffs)]
	t.v.report.Ignored += c.Ignored
}

// sequence compares what the server said during a call, by method.
func (t *verifyTalk) sequence(run *running) error {
	x, check := run.exchange, run.check
	all := x.call.method == methodListen
	// Which call a log message belongs to is known over HTTP; on stdio it is guessed.
	logs := !x.together && !t.plan.strayLogs && x.call.http == (run.response != nil && run.response.Reply != nil)
	counts := func(method string, request, known bool) bool {
		switch {
		case all:
			return true
		case method == methodPing || method == "roots/list": // in the server's own time
			return false
		case request:
			return !x.together || !known // then it may have belonged to the other call
		case method == methodLog:
			return logs
		}
		return method == methodProgress
	}
	var was, is []any
	for _, l := range x.said {
		m, err := t.v.message(l)
		if err != nil {
			return err
		}
		if counts(m.Method, l.kind == Call, true) {
			was = append(was, m.Method)
		}
	}
	for _, h := range run.heard {
		if counts(h.method, !strings.HasPrefix(h.method, "notifications/"), h.known) {
			is = append(is, h.method)
		}
	}
	before := len(check.diffs)
	t.compare(check, Pointer{"notifications"}, was, is)
	rest, n := was, 0 // further ones among those that were recorded
	for _, method := range is {
		if len(rest) > 0 && rest[0] == method {
			rest, n = rest[1:], n+1
		} else {
			check.Extra = append(check.Extra, method.(string))
		}
	}
	if len(check.diffs) == before || n < len(was) {
		check.Extra = nil
	} else {
		check.diffs = check.diffs[:before]
	}
	return nil
}

// An answerForm brings answers into a form in which those that say the same are equal.
type answerForm struct {
	method  string
	bridged bool // the server speaks another era than the tape
}

func (f answerForm) of(m *Message) map[string]any {
	if m.Error != "" {
		e, _ := decodeJSON(m.Error).(map[string]any)
		if f.bridged && e["code"] == json.Number("-32002") {
			e["code"] = json.Number(strconv.Itoa(codeParams)) // a resource not found; the code changed with the era
		}
		return map[string]any{"error": e}
	}
	v := unfoldText(decodeJSON(m.Result))
	if result, ok := v.(map[string]any); ok {
		f.protocol(result)
		f.lists(result)
	}
	return map[string]any{"result": v}
}

// protocol takes out of a result what says nothing of how the server behaves: versions, and what only one era has.
func (f answerForm) protocol(result map[string]any) {
	if result["isError"] == false {
		delete(result, "isError")
	}
	meta, _ := result["_meta"].(map[string]any)
	info, _ := meta[metaServerInfo].(map[string]any)
	if info == nil {
		info, _ = result["serverInfo"].(map[string]any)
	}
	delete(info, "version")
	delete(meta, subscriptionID)
	if f.bridged {
		delete(meta, metaServerInfo)
		for _, key := range [...]string{"resultType", "ttlMs", "cacheScope", "protocolVersion", "supportedVersions"} {
			delete(result, key)
		}
		if isHandshake(f.method) {
			result["serverInfo"] = info
		}
	}
	if meta != nil && len(meta) == 0 {
		delete(result, "_meta")
	}
}

// lists makes objects of lists whose order means nothing, with the names of what is in them as keys.
func (f answerForm) lists(result map[string]any) {
	for _, list := range [...][3]string{
		{"tools/list", "tools", "name"}, {"prompts/list", "prompts", "name"},
		{"resources/list", "resources", "uri"}, {"resources/templates/list", "resourceTemplates", "uriTemplate"},
	} {
		if f.method != list[0] {
			continue
		}
		elements, isList := result[list[1]].([]any)
		byName := map[string]any{}
		for _, element := range elements {
			object, _ := element.(map[string]any)
			name, ok := object[list[2]].(string)
			if _, twice := byName[name]; !ok || twice {
				return
			}
			byName[name] = element
			schemaSets(object["inputSchema"])
			schemaSets(object["outputSchema"])
		}
		if isList {
			result[list[1]] = byName
		}
	}
}

// schemaSets makes objects of what is a set in a JSON schema. One type is a set too, and a number may be an integer.
func schemaSets(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			list, isSet := inner.([]any)
			if name, ok := inner.(string); ok && key == "type" {
				list, isSet = []any{name}, true
			}
			if !isSet || key != "required" && key != "enum" && key != "type" {
				schemaSets(inner)
				continue
			}
			set := map[string]any{}
			for _, element := range list {
				name, ok := element.(string)
				if !ok {
					name = encodeJSON(element)
				}
				if set[name] = true; key == "type" && name == "number" {
					set["integer"] = true
				}
			}
			v[key] = set
		}
	case []any:
		for _, inner := range v {
			schemaSets(inner)
		}
	}
}

// isOpaque reports whether the value of a member of this name is for the server alone to understand.
func isOpaque(key string) bool {
	return slices.Contains([]string{"nextCursor", "requestState", "taskId", "elicitationId"}, key)
}

// eachOpaque calls f with the opaque values in v.
func eachOpaque(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if s, ok := inner.(string); ok && isOpaque(key) {
				f(s)
			} else {
				eachOpaque(inner, f)
			}
		}
	case []any:
		for _, inner := range v {
			eachOpaque(inner, f)
		}
	}
}

// hasString reports whether f is true of a string in v.
func hasString(v any, f func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return f(v)
	case map[string]any:
		for _, inner := range v {
			if hasString(inner, f) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(inner any) bool { return hasString(inner, f) })
	}
	return false
}
