// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Grades of a change to what a server says of its tools, from the worst.
const (
	gradeBreaking   = "breaking"   // calls, or uses of results, that were valid may no longer be
	gradeCompatible = "compatible" // they all are
	gradeText       = "text only"  // nothing but words for people changed
)

// worse is the worse one of two grades, "" being none.
func worse(a, b string) string {
	for _, grade := range [...]string{gradeBreaking, gradeCompatible, gradeText} {
		if a == grade || b == grade {
			return grade
		}
	}
	return ""
}

// gradeTool grades a difference between two answers to tools/list in the form of [answerForm], "" if it is none of a tool.
func gradeTool(d Difference) string {
	at := d.At
	if len(at) < 3 || at[0] != "result" || at[1] != "tools" {
		return ""
	}
	if len(at) == 3 {
		return gradeMember(d)
	}
	switch last := at[len(at)-1]; {
	case at[3] == "inputSchema":
		return gradeSchema(Difference{at[4:], d.A, d.B}, false)
	case at[3] == "outputSchema":
		return gradeSchema(Difference{at[4:], d.A, d.B}, true)
	case last == "description" || last == "title":
		return gradeText
	}
	return gradeCompatible
}

// gradeMember grades that something was added or taken away.
func gradeMember(d Difference) string {
	if d.A == (absent{}) {
		return gradeCompatible
	}
	return gradeBreaking
}

// gradeSchema grades a difference within a JSON schema: of the arguments of a tool, where it breaks callers if less is
// valid than was, or, with output, of its results, where it breaks those who use them if more is.
func gradeSchema(d Difference, output bool) string {
	at := d.At
	for len(at) > 0 {
		d.At = at
		switch at[0] {
		case "properties", "patternProperties", "$defs", "definitions", "dependentSchemas":
			if len(at) <= 2 {
				return gradeMember(d)
			}
			at = at[2:]
		case "anyOf", "oneOf", "prefixItems", "allOf":
			if len(at) <= 2 {
				wider := (d.A == (absent{})) == (at[0] == "anyOf" || at[0] == "oneOf")
				return gradeRange(wider, !wider, output)
			}
			at = at[2:]
		case "items", "additionalProperties", "unevaluatedProperties", "not", "if", "then", "else", "contains", "propertyNames":
			if open := func(v any) bool { return v == (absent{}) || v == true }; len(at) > 1 {
				output = output != (at[0] == "not") // what widens it narrows what it is in
				at = at[1:]
			} else if open(d.A) && open(d.B) {
				return gradeCompatible
			} else {
				return gradeRange(open(d.B), open(d.A) || d.B == false, output)
			}
		default:
			return gradeKeyword(d, output)
		}
	}
	return gradeMember(d)
}

// gradeRange grades a change after which more is valid than was, or less; both or neither is a change of either kind.
func gradeRange(wider, narrower, output bool) string {
	if wider != narrower && wider != output {
		return gradeCompatible
	}
	return gradeBreaking
}

// gradeKeyword grades a change of the keyword with which d.At begins.
func gradeKeyword(d Difference, output bool) string {
	key, added, gone := d.At[0], d.A == (absent{}), d.B == (absent{})
	switch key {
	case "title", "description", "$comment", "examples", "example", "deprecated", "$schema", "$id":
		return gradeText
	case "default", "readOnly", "writeOnly":
		return gradeCompatible
	case "enum", "type":
		if len(d.At) > 1 { // an element: one more is more that is valid
			return gradeRange(added, gone, output)
		}
	}
	if strings.HasPrefix(key, "x-") {
		return gradeCompatible
	}
	a, errA := schemaNumber(d.A)
	b, errB := schemaNumber(d.B)
	if errA == nil && errB == nil {
		switch {
		case strings.HasPrefix(key, "min") || key == "exclusiveMinimum":
			return gradeRange(b < a, b > a, output)
		case strings.HasPrefix(key, "max") || key == "exclusiveMaximum":
			return gradeRange(b > a, b < a, output)
		}
	}
	return gradeRange(gone, added, output) // one rule more, one less, or another one
}

func schemaNumber(v any) (float64, error) {
	n, _ := v.(json.Number)
	return strconv.ParseFloat(string(n), 64)
}
