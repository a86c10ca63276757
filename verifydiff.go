// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxVerifyDiffs = 1000 // kept of one call
	maxExtra       = 100  // of what the server said in addition during one call, in a report
)

// contrast compares a live answer to the call m with the recorded one.
func (t *verifyTalk) contrast(m *Message, check *VerifyCheck, was, live *Message) {
	f := answerForm{method: m.Method, bridged: t.bridged()}
	a, b := f.of(was), f.of(redactedBy(t.v.o.Redact, live))
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
func (t *verifyTalk) sequence(run *running) {
	x := run.exchange
	counts := func(method string) bool {
		switch {
		case x.listens || method == methodProgress:
			return true
		case method == methodLog: // up to 2025-11-25 no call asks for them, and nothing says to which one belongs
			return t.live == eraStateless && !t.bridged() && !x.together
		}
		return !strings.HasPrefix(method, "notifications/") && !x.together // else it may have belonged to the other call
	}
	var was, is []any
	for _, method := range x.said {
		if counts(method) {
			was = append(was, method)
		}
	}
	for _, q := range t.plan.questions {
		if q.exchange == x && q.key != "" && t.bridged() { // it came in an answer, and comes as a request
			was = append(was, q.method)
		}
	}
	missing := was
	var extra []string
	for _, method := range run.heard {
		if !counts(method) {
			continue
		}
		if is = append(is, method); len(missing) > 0 && missing[0] == method {
			missing = missing[1:]
		} else {
			extra = append(extra, method)
		}
	}
	before := len(run.check.diffs)
	t.compare(run.check, Pointer{"notifications"}, was, is)
	if len(run.check.diffs) > before && len(missing) == 0 {
		run.check.diffs, run.check.Extra = run.check.diffs[:before], shownExtra(extra)
	}
	if run.flooded {
		run.check.Extra = append(run.check.Extra, heardTooMuch)
	}
}

// shownExtra is what a report has of methods.
func shownExtra(methods []string) (list []string) {
	for _, method := range methods[:min(len(methods), maxExtra)] {
		list = append(list, shorten(method))
	}
	if more := len(methods) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return list
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
	text := m.Result
	if f.bridged {
		method := f.method
		if isHandshake(method) {
			method = methodDiscover // whichever of the two was answered
		}
		text = resultFor(method, text, "", false)
		if isHandshake(method) && strings.HasPrefix(text, "{") {
			info := cmp.Or(member(member(m.Result, "_meta"), metaServerInfo), "{}")
			text = withMember(withoutMember(withoutMember(text, "protocolVersion"), "supportedVersions"), "serverInfo", info)
		}
	}
	v := unfoldText(decodeJSON(text))
	if result, ok := v.(map[string]any); ok {
		f.protocol(result)
		f.lists(result)
	}
	return map[string]any{"result": v}
}

// protocol takes out of a result what says nothing of how the server behaves: its version, and whose answer it is.
func (f answerForm) protocol(result map[string]any) {
	if result["isError"] == false {
		delete(result, "isError")
	}
	if info, ok := result["serverInfo"].(map[string]any); ok && isHandshake(f.method) {
		delete(info, "version")
	}
	if meta, ok := result["_meta"].(map[string]any); ok {
		if info, ok := meta[metaServerInfo].(map[string]any); ok {
			delete(info, "version")
		}
		if delete(meta, subscriptionID); len(meta) == 0 {
			delete(result, "_meta")
		}
	}
}

// lists makes objects of lists whose order means nothing, with the names of what is in them as keys.
func (f answerForm) lists(result map[string]any) {
	list := map[string][2]string{
		"tools/list": {"tools", "name"}, "prompts/list": {"prompts", "name"},
		"resources/list": {"resources", "uri"}, "resources/templates/list": {"resourceTemplates", "uriTemplate"},
	}[f.method]
	elements, isList := result[list[0]].([]any)
	if !isList {
		return
	}
	byName := map[string]any{}
	for _, element := range elements {
		object, _ := element.(map[string]any)
		name, ok := object[list[1]].(string)
		if _, twice := byName[name]; !ok || twice {
			return
		}
		byName[name] = element
		schemaSets(object["inputSchema"])
		schemaSets(object["outputSchema"])
	}
	result[list[0]] = byName
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
