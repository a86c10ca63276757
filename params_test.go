// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// toolsResult returns a tools/list result with tools, each a name and the properties of its schema.
func toolsResult(tools ...[2]string) string {
	var list []string
	for _, tool := range tools {
		list = append(list, fmt.Sprintf(`{"name":%q,"inputSchema":{"type":"object","properties":{%s}}}`, tool[0], tool[1]))
	}
	return `{"tools":[` + strings.Join(list, ",") + `]}`
}

const regionProperty = `"region":{"type":"string","x-mcp-header":"Region"}`

// toolCall returns a call of a tool, as the scan of its text would.
func toolCall(name, arguments string) *Message {
	return &Message{Kind: Call, Method: "tools/call", Name: name, Revision: "2026-07-28",
		Params: fmt.Sprintf(`{"name":%q,"arguments":%s}`, name, arguments)}
}

// mirrored returns the Mcp-Param-* headers of a call as text, sorted.
func mirrored(t *paramTable, name, arguments string) string {
	h := make(http.Header)
	t.mirror(h, toolCall(name, arguments))
	var lines []string
	for _, header := range slices.Sorted(maps.Keys(h)) {
		if rest, ok := strings.CutPrefix(header, "Mcp-Param-"); ok {
			lines = append(lines, rest+": "+strings.Join(h[header], " | "))
		}
	}
	return strings.Join(lines, "; ")
}

// A toolParamsTest is an inputSchema and a part of why it is invalid, "" if it is not.
type toolParamsTest struct{ name, schema, err string }

func TestToolParams(t *testing.T) {
	annotatedType := func(typ string) string {
		return `{"type":"object","properties":{"a":{"type":` + typ + `,"x-mcp-header":"A"}}}`
	}
	annotatedName := func(name string) string {
		return `{"type":"object","properties":{"a":{"type":"string","x-mcp-header":` + name + `}}}`
	}
	tests := []toolParamsTest{
		{"absent", ``, ""},
		{"none", `{"type":"object"}`, ""},
		{"string", annotatedType(`"string"`), ""},
		{"integer", annotatedType(`"integer"`), ""},
		{"boolean", annotatedType(`"boolean"`), ""},
		{"number", annotatedType(`"number"`), "type other than"},
		{"object", annotatedType(`"object"`), "type other than"},
		{"array", annotatedType(`"array"`), "type other than"},
		{"null", annotatedType(`"null"`), "type other than"},
		{"two types", annotatedType(`["string","null"]`), "type other than"},
		{"no type", `{"properties":{"a":{"x-mcp-header":"A"}}}`, "type other than"},
		{"empty", annotatedName(`""`), "empty"},
		{"not a string", annotatedName(`7`), "empty or no string"},
		{"null name", annotatedName(`null`), "empty or no string"},
		{"space", annotatedName(`"My Region"`), "token"},
		{"colon", annotatedName(`"Region:Primary"`), "token"},
		{"not ASCII", annotatedName(`"Région"`), "token"},
		{"control", annotatedName(`"Region\t1"`), "token"},
		{"line end", annotatedName(`"Region\r\nX: y"`), "token"},
		{"all of a token", annotatedName("\"!#$%&'*+-.^_`|~09azAZ\""), ""},
		{"as a standard header", annotatedName(`"Method"`), ""},
	}
	runToolParamsTests(t, tests)
}

func TestToolParamsPlaces(t *testing.T) {
	const leaf = `{"type":"string","x-mcp-header":"A"}`
	runToolParamsTests(t, []toolParamsTest{
		{"twice", `{"properties":{"a":` + leaf + `,"b":` + leaf + `}}`, "twice"},
		{"twice ignoring case", `{"properties":{"a":{"type":"string","x-mcp-header":"REGION"},` + regionProperty + `}}`, "twice"},
		{"twice on two levels", `{"properties":{"a":` + leaf + `,"b":{"properties":{"c":` + leaf + `}}}}`, "twice"},
		{"nested", `{"properties":{"b":{"type":"object","properties":{"c":` + leaf + `}}}}`, ""},
		{"on the root", `{"type":"string","x-mcp-header":"A"}`, "whole"},
		{"items", `{"properties":{"b":{"type":"array","items":` + leaf + `}}}`, `below "items"`},
		{"object in items", `{"properties":{"b":{"items":{"properties":{"c":` + leaf + `}}}}}`, `below "items"`},
		{"oneOf", `{"properties":{"b":{"oneOf":[{"type":"null"},` + leaf + `]}}}`, `below "oneOf"`},
		{"allOf", `{"allOf":[{"properties":{"b":` + leaf + `}}]}`, `below "allOf"`},
		{"if", `{"if":{"properties":{"b":` + leaf + `}}}`, `below "if"`},
		{"not", `{"not":` + leaf + `}`, `below "not"`},
		{"$defs", `{"properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":` + leaf + `}}`, `below "$defs"`},
		{"patternProperties", `{"patternProperties":{"^a":` + leaf + `}}`, `below "patternProperties"`},
		{"additionalProperties", `{"additionalProperties":` + leaf + `}`, `below "additionalProperties"`},
		{"properties in a list", `{"properties":[` + leaf + `]}`, `below "properties"`},
		{"one good, one bad", `{"properties":{"a":` + leaf + `,"b":{"anyOf":[` + strings.ReplaceAll(leaf, "A", "B") + `]}}}`, `below "anyOf"`},
		{"a parameter of that name", `{"properties":{"x-mcp-header":{"type":"string"}}}`, ""},
		{"definition of that name", `{"$defs":{"x-mcp-header":{"type":"string"}}}`, ""},
		{"nested parameter of that name", `{"items":{"properties":{"x-mcp-header":true}}}`, ""},
		{"instance", `{"default":{"x-mcp-header":"A"},"properties":{"a":{"enum":[{"x-mcp-header":7}]}}}`, ""},
		{"instance in items", `{"items":{"const":{"x-mcp-header":"A"}}}`, ""},
		{"text", `{"description":"see x-mcp-header","properties":{"a":true}}`, ""},
		{"no object", `["x-mcp-header"]`, "not an object"},
	})
}

func runToolParamsTests(t *testing.T, tests []toolParamsTest) {
	t.Helper()
	for _, test := range tests {
		if _, err := toolParams(test.schema); (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.err)
		}
	}
}

func TestMirror(t *testing.T) {
	var table paramTable
	bad := table.learn(toolsResult([2]string{"sql", regionProperty + `,
		"count":{"type":"integer","x-mcp-header":"row-COUNT"},
		"dry":{"type":"boolean","x-mcp-header":"Dry"},
		"query":{"type":"string"},
		"where":{"type":"object","properties":{"zone":{"type":"string","x-mcp-header":"Zone"},
			"deep":{"properties":{"er":{"type":"integer","x-mcp-header":"Er"}}}}}`}))
	if len(bad) > 0 {
		t.Fatalf("got %q, want nothing bad", bad)
	}
	tests := []struct{ arguments, want string }{
		{`{"region":"us-west1","query":"SELECT"}`, "Region: us-west1"},
		{`{"region":"us-west1","count":42,"dry":false,"where":{"zone":"z","deep":{"er":-7}}}`,
			"Dry: false; Er: -7; Region: us-west1; Row-Count: 42; Zone: z"},
		{`{"region":"Hello, 世界","dry":true}`, "Dry: true; Region: =?base64?SGVsbG8sIOS4lueVjA==?="},
		{`{"region":"","count":null}`, "Region: "},
		{`{"region":"a\nb"}`, "Region: =?base64?YQpi?="},
		{`{"Region":"us-west1","zone":"z"}`, ""},
		{`{"count":42.0}`, "Row-Count: 42"},
		{`{"count":4.2e1}`, "Row-Count: 42"},
		{`{"count":-0}`, "Row-Count: 0"},
		{`{"count":9007199254740991}`, "Row-Count: 9007199254740991"},
		{`{"count":-9007199254740991}`, "Row-Count: -9007199254740991"},
		{`{"count":9007199254740992}`, ""},
		{`{"count":9007199254740993}`, ""},
		{`{"count":1e999999999}`, ""},
		{`{"count":3.5}`, ""},
		{`{"count":"42"}`, "Row-Count: 42"},
		{`{"region":["us-west1"],"where":"z"}`, ""},
		{`{"where":{"zone":null,"deep":null}}`, ""},
		{`null`, ""},
		{`["region"]`, ""},
	}
	for _, test := range tests {
		if got := mirrored(&table, "sql", test.arguments); got != test.want {
			t.Errorf("%s: got %q, want %q", test.arguments, got, test.want)
		}
	}
	if got := mirrored(&table, "other", `{"region":"r"}`); got != "" {
		t.Errorf("other tool: got %q, want nothing", got)
	}
}

func TestMirrorStandardHeaders(t *testing.T) {
	tests := []struct {
		m    Message
		want http.Header
	}{
		{Message{Kind: Call, Method: "tools/call", Name: "t", Revision: "2026-07-28"},
			http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"t"}}},
		{Message{Kind: Call, Method: "resources/read", URI: "f:///ö", Revision: "2026-07-28"},
			http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"resources/read"}, "Mcp-Name": {"=?base64?ZjovLy/Dtg==?="}}},
		{Message{Kind: Call, Method: "tools/list", Revision: "2026-07-28"},
			http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/list"}}},
		{Message{Kind: Call, Method: "a\r\nX: y", Revision: "ü"}, http.Header{}},
		{Message{Kind: Notification, Method: "n"}, http.Header{"Mcp-Method": {"n"}}},
		{Message{Kind: Response}, http.Header{}},
	}
	for _, test := range tests {
		h := make(http.Header)
		new(paramTable).mirror(h, &test.m)
		if !maps.EqualFunc(h, test.want, slices.Equal) {
			t.Errorf("%q: got %v, want %v", test.m.Method, h, test.want)
		}
	}
}

func TestLearn(t *testing.T) {
	const call = `{"region":"r"}`
	type step struct {
		result string
		bad    string // parts of what is bad, in order
		a, b   string // headers of a call of the tools a and b
	}
	a, b := [2]string{"a", regionProperty}, [2]string{"b", strings.ReplaceAll(regionProperty, `"Region"`, `"Place"`)}
	plain := func(name string) [2]string { return [2]string{name, `"region":{"type":"string"}`} }
	invalid := func(name string) [2]string { return [2]string{name, `"region":{"type":"string","x-mcp-header":""}`} }
	tests := []struct {
		name  string
		steps []step
	}{
		{"pages add up", []step{{toolsResult(a), "", "Region: r", ""}, {toolsResult(b), "", "Region: r", "Place: r"}}},
		{"listed again", []step{{toolsResult(a, b), "", "Region: r", "Place: r"},
			{toolsResult([2]string{"a", b[1]}), "", "Place: r", "Place: r"}}},
		{"loses it", []step{{toolsResult(a, b), "", "Region: r", "Place: r"}, {toolsResult(plain("a")), "", "", "Place: r"},
			{toolsResult(plain("c")), "", "", "Place: r"}}},
		{"loses it beside another", []step{{toolsResult(a), "", "Region: r", ""}, {toolsResult(plain("a"), b), "", "", "Place: r"}}},
		{"invalid", []step{{toolsResult(invalid("a"), b), `tool "a": property "region"`, "", "Place: r"}}},
		{"becomes invalid", []step{{toolsResult(a), "", "Region: r", ""}, {toolsResult(invalid("a")), `tool "a"`, "", ""}}},
		{"becomes valid", []step{{toolsResult(invalid("a")), `tool "a"`, "", ""}, {toolsResult(a), "", "Region: r", ""}}},
		{"listed twice", []step{{toolsResult(a, plain("a")), "", "", ""}, {toolsResult(plain("a"), a), "", "Region: r", ""}}},
		{"elsewhere", []step{{`{"tools":[{"name":"a","outputSchema":{"properties":{` + regionProperty + `}}}]}`, "", "", ""}}},
		{"no list", []step{{toolsResult(a), "", "Region: r", ""}, {`{"tools":"x-mcp-header"}`, "", "Region: r", ""},
			{``, "", "Region: r", ""}, {`[]`, "", "Region: r", ""}, {`{"tools":[null,7,{"name":7}]}`, "", "Region: r", ""}}},
		{"key in another case", []step{{strings.Replace(toolsResult(a), `"name"`, `"Name"`, 1), "", "", ""}}},
	}
	for _, test := range tests {
		var table paramTable
		for i, step := range test.steps {
			bad := table.learn(step.result)
			if got := strings.Join(bad, "; "); !strings.Contains(got, step.bad) || (got == "") != (step.bad == "") {
				t.Errorf("%s: %d: got bad %q, want %q", test.name, i, got, step.bad)
			}
			if got := mirrored(&table, "a", call); got != step.a {
				t.Errorf("%s: %d: a: got %q, want %q", test.name, i, got, step.a)
			}
			if got := mirrored(&table, "b", call); got != step.b {
				t.Errorf("%s: %d: b: got %q, want %q", test.name, i, got, step.b)
			}
		}
	}
}

func TestLearnBounds(t *testing.T) {
	table := paramTable{tools: make(map[string][]param)}
	for i := range maxAnnotatedTools - 1 {
		table.tools[fmt.Sprintf("t%05d", i)] = []param{{[]string{"region"}, "Mcp-Param-Region"}}
	}
	bad := table.learn(toolsResult([2]string{"a", regionProperty}, [2]string{"b", regionProperty}, [2]string{"t00001", regionProperty}))
	if len(table.tools) != maxAnnotatedTools || len(bad) != 1 || !strings.HasPrefix(bad[0], `tool "b": more than`) {
		t.Errorf("got %d tools and %q, want %d and one too many", len(table.tools), bad, maxAnnotatedTools)
	}
	bad = table.learn(toolsResult([2]string{"a", ""}, [2]string{"b", regionProperty}))
	if len(bad) != 0 || mirrored(&table, "b", `{"region":"r"}`) == "" {
		t.Errorf("got %q, want room for one after another went", bad)
	}
	var properties []string
	for i := range maxAnnotatedParams + 1 {
		properties = append(properties, fmt.Sprintf(`"p%d":{"type":"string","x-mcp-header":"P%d"}`, i, i))
	}
	if bad = new(paramTable).learn(toolsResult([2]string{"a", strings.Join(properties[1:], ",")})); len(bad) != 0 {
		t.Errorf("got %q, want %d parameters to be allowed", bad, maxAnnotatedParams)
	}
	if bad = new(paramTable).learn(toolsResult([2]string{"a", strings.Join(properties, ",")})); len(bad) != 1 {
		t.Errorf("got %q, want %d parameters to be too many", bad, len(properties))
	}
}

func TestLearnCosts(t *testing.T) {
	result := toolsResult([2]string{"a", `"region":{"type":"string"}`})
	var table paramTable
	if got := testing.AllocsPerRun(100, func() { table.learn(result) }); got != 0 {
		t.Errorf("without annotations: got %v allocations, want 0", got)
	}
	call, h := toolCall("a", `{"region":"r"}`), http.Header{"Mcp-Protocol-Version": {"2026-07-28"},
		"Mcp-Method": {"tools/call"}, "Mcp-Name": {"a"}}
	if got := testing.AllocsPerRun(100, func() { _ = table.check(h, call) }); got > 2 {
		t.Errorf("check: got %v allocations, want at most 2", got)
	}
}

func TestParamTableConcurrently(t *testing.T) {
	var table paramTable
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 50 {
				table.learn(toolsResult([2]string{fmt.Sprint("t", i), regionProperty}, [2]string{"shared", regionProperty}))
				if got := mirrored(&table, "shared", `{"region":"r"}`); got != "Region: r" {
					t.Errorf("got %q, want Region: r", got)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzLearn(f *testing.F) {
	f.Add(toolsResult([2]string{"a", regionProperty}), `{"region":"r"}`)
	f.Add(`{"tools":[{"name":"a","inputSchema":{"properties":{"b":{"properties":{"c":{"type":"integer","x-mcp-header":"C"}}}}}}]}`, `{"b":{"c":1}}`)
	f.Add(`{"tools":[{"name":"a","inputSchema":{"x-mcp-header":{"properties":[null,{"oneOf":7}]}}}]}`, `[]`)
	f.Add(`{"tools":[null]}x-mcp-header`, ``)
	f.Fuzz(func(t *testing.T, result, arguments string) {
		var table paramTable
		first := table.learn(result)
		known := len(table.tools)
		if second := table.learn(result); !slices.Equal(first, second) || len(table.tools) != known {
			t.Errorf("got %q and %d tools, then %q and %d, want the same", first, known, second, len(table.tools))
		}
		h := make(http.Header)
		m := toolCall("a", "null")
		m.Params = `{"name":"a","arguments":` + arguments + `}`
		table.mirror(h, m)
		_ = table.check(h, m)
		for header, values := range h {
			if len(values) != 1 || encodeHeader(header) != header || strings.Contains(values[0], "\n") {
				t.Errorf("got %q: %q, want one safe value", header, values)
			}
		}
	})
}
