// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseRulePath(t *testing.T) {
	for _, c := range []struct {
		path string
		want rulePath
		err  string
	}{
		{"/a/b", rulePath{{token: "a"}, {token: "b"}}, ""},
		{"/", rulePath{{token: ""}}, ""},
		{"/a/", rulePath{{token: "a"}, {token: ""}}, ""},
		{"/a~1b/~01/*", rulePath{{token: "a/b"}, {token: "~1"}, {token: "*"}}, ""},
		{"/a[k=x]/b", rulePath{{token: "a"}, {key: "k", pattern: "x"}, {token: "b"}}, ""},
		{"/a/*[~1k=file:///x/*=~1]", rulePath{{token: "a"}, {token: "*"}, {key: "/k", pattern: "file:///x/*=~1"}}, ""},
		{"/a[k=]", rulePath{{token: "a"}, {key: "k"}}, ""},
		{"", nil, "begins with /"},
		{"a/b", nil, "begins with /"},
		{"/a~2", nil, `not another ~, in "a~2"`},
		{"/a~", nil, `not another ~, in "a~"`},
		{"/~~00", nil, `not another ~`},
		{"/a[~=x]", nil, `not another ~, in "~"`},
		{"/a[k]", nil, `not "a[k]"`},
		{"/a[=x]", nil, `not "a[=x]"`},
		{"/a[k=x", nil, `not "a[k=x"`},
		{"/a[k=x]b", nil, `not "a[k=x]b"`},
		{"/a[k=x][l=y]", nil, `not "a[k=x][l=y]"`},
		{"/a[k=[x]]", nil, `not "a[k=[x]]"`},
		{"/a]/b", nil, `not "a]/b"`},
		{"/b/[k=x]", nil, `not "[k=x]"`},
	} {
		got, err := parseRulePath(c.path)
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %v, %v, want %v, %s", c.path, got, err, c.want, c.err)
		}
	}
}

func TestPathFind(t *testing.T) {
	const odd = "odd"
	for _, c := range []struct{ path, text, want string }{
		{"/id", `{"id": 1 }`, `1`},
		{"/params/a", `{"params":{"b":{"a":0},"a" : [ 1.0 ] }}`, `[ 1.0 ]`},
		{"/params/a", `{"params":{"\u0061":"\n"}}`, `"\n"`},
		{"/params/a", `{"params":{}}`, ``},
		{"/params/a", `{"result":{}}`, ``},
		{"/params/a/b", `{"params":{"c":1}}`, ``},
		{"/params/", `{"params":{"":1}}`, `1`},
		{"/params/0", `{"params":{"0":1}}`, `1`},
		{"/params/1", `{"params":[1,2,3]}`, `2`},
		{"/params/3", `{"params":[1,2,3]}`, ``},
		{"/params/-", `{"params":[1,2,3]}`, ``},
		{"/params/99999999999999999999", `{"params":[1,2,3]}`, ``},
		{"/params/*", `{"params":{"a":1,"A":2,"b":{"c":3}}}`, `1 2 {"c":3}`},
		{"/params/*/c", `{"params":[{"c":1},{},{"c":2}]}`, `1 2`},
		{"/params/*", `{"params":[]}`, ``},
		{"/params[n=a*]/v", `{"params":[{"n":"ab","v":1},{"n":"b","v":2},{"v":3,"n":"\u0061"},{"n":1,"v":4},{"v":5},"a",[{"n":"a"}]]}`, `1 3`},
		{"/params/*[n=a]/v", `{"params":{"x":[{"n":"a","v":1}],"y":[{"n":"a","v":2},{"n":"a"}]}}`, `1 2`},
		{"/*/*", `{"params":{"x":1},"result":{"y":2}}`, `1 2`},

		{"/params/a/b", `{"params":{"a":"x"}}`, odd},
		{"/params/a/b", `{"params":{"a":null}}`, odd},
		{"/params/*/b", `{"params":[{"b":1},true]}`, odd},
		{"/params/01", `{"params":[1,2,3]}`, odd},
		{"/params/+1", `{"params":[1,2,3]}`, odd},
		{"/params/a", `{"params":[]}`, odd},
		{"/params/a/b", `{"params":{"a":{"b":1},"\u0061":{}}}`, odd},
		{"/params/a", `{"params":{"a":1,"A":1}}`, odd},
		{"/params/a", `{"params":{"A":1}}`, odd},
		{"/params/k", `{"params":{"\u212a":1}}`, odd},
		{"/params/*", `{"params":{"a":1,"a":2}}`, odd},
		{"/params[n=a]", `{"params":{}}`, odd},
		{"/params/*[n=a]", `{"params":{"x":[],"y":1}}`, odd},
		{"/params[n=a]", `{"params":[{"n":"b","n":"a"}]}`, odd},
		{"/params[n=a]", `{"params":[{"n":"b","N":"a"}]}`, odd},
		{"/params[n=a]", `{"params":[{"N":"a"}]}`, odd},
	} {
		p, err := parseRulePath(c.path)
		if err != nil {
			t.Fatal(err)
		}
		values, isOdd := p.find(c.text)
		got := strings.Join(values, " ")
		if isOdd {
			got += odd
		}
		if got != c.want {
			t.Errorf("%s in %s: got %s, want %s", c.path, c.text, got, c.want)
		}
	}
}

// A pathChange is a change along a path; want is "" if the text stays, as it does if odd.
type pathChange struct {
	path, text, want string
	odd              bool
}

func (c pathChange) check(t *testing.T, change func(p rulePath, text string) (string, bool)) {
	t.Helper()
	if c.want == "" {
		c.want = c.text
	}
	p, err := parseRulePath(c.path)
	if err != nil {
		t.Fatal(err)
	}
	if got, odd := change(p, c.text); got != c.want || odd != c.odd {
		t.Errorf("%s in %s: got %s, %v, want %s, %v", c.path, c.text, got, odd, c.want, c.odd)
	}
}

func TestPathRemove(t *testing.T) {
	for _, c := range []pathChange{
		{"/params/a", `{"params":{"a":1}}`, `{"params":{}}`, false},
		{"/params/a", "{\"params\":{\n  \"a\": 1\n}}", "{\"params\":{\n}}", false},
		{"/params/a", "{\"params\":{\n  \"a\": 1,\n  \"b\": 1.0\n}}", "{\"params\":{\n  \"b\": 1.0\n}}", false},
		{"/params/b", "{\"params\":{\n  \"a\": 1 ,\n  \"b\": 1.0\n}}", "{\"params\":{\n  \"a\": 1\n}}", false},
		{"/params/b", `{"params":{"a":1, "b":2, "c":3}}`, `{"params":{"a":1, "c":3}}`, false},
		{"/params/c", `{"params":{"a":1}}`, ``, false},
		{"/params/*", `{"params":{"a":1, "b":2 },"id":1}`, `{"params":{ },"id":1}`, false},
		{"/params/*", `{"params":[ ]}`, ``, false},
		{"/params/0", `{"params":[ 1 , 2 ]}`, `{"params":[ 2 ]}`, false},
		{"/params[n=a]", `{"params":[{"n":"a"},{"n":"a"}, 1,{"n":"a"} , 2, {"n":"a"}]}`, `{"params":[1 , 2]}`, false},
		{"/params/*/a", `{"params":[{"a":1},{"b":1,"a":2,"c":3},{}]}`, `{"params":[{},{"b":1,"c":3},{}]}`, false},
		{"/params", `{"id":1, "params":{} ,"method":"m"}`, `{"id":1 ,"method":"m"}`, false},
		{"/params/*/a", `{"params":[{"a":1},1]}`, ``, true},
		{"/params/a", `{"params":{"a":1,"A":2}}`, ``, true},
	} {
		c.check(t, rulePath.remove)
	}
}

func TestPathSet(t *testing.T) {
	for _, c := range []pathChange{
		{"/params/a", `{"params":{"a" : 1 ,"b":2}}`, `{"params":{"a" : [0] ,"b":2}}`, false},
		{"/params/a", `{"params":{ "b":2 }}`, `{"params":{ "b":2,"a":[0] }}`, false},
		{"/params/a", `{"params":{ }}`, `{"params":{"a":[0] }}`, false},
		{`/params/a"~1`, `{"params":{}}`, `{"params":{"a\"/":[0]}}`, false},
		{"/params/a/b/c", `{"params":{"x":1}}`, `{"params":{"x":1,"a":{"b":{"c":[0]}}}}`, false},
		{"/params/a/b/c", `{"params":{"a":{}}}`, `{"params":{"a":{"b":{"c":[0]}}}}`, false},
		{"/params/a", `{"id":1,"method":"m"}`, `{"id":1,"method":"m","params":{"a":[0]}}`, false},
		{"/params", `{"id":1,"method":"m" }`, `{"id":1,"method":"m","params":[0] }`, false},
		{"/params/a", `{"id":1,"result":{}}`, ``, false},
		{"/result/a", `{"id":1,"error":{}}`, ``, false},
		{"/error", `{"id":1,"result":{}}`, ``, false},
		{"/result", `{"id":1,"result":{}}`, `{"id":1,"result":[0]}`, false},
		{"/params/-", `{"params":[ ]}`, `{"params":[[0] ]}`, false},
		{"/params/-", `{"params":[1 ]}`, `{"params":[1,[0] ]}`, false},
		{"/params/-", `{"params":{}}`, `{"params":{"-":[0]}}`, false},
		{"/params/-/a", `{"params":[{}]}`, ``, false},
		{"/params/a/-", `{"params":{}}`, ``, false},
		{"/params/a/0", `{"params":{}}`, ``, false},
		{"/params/0", `{"params":{}}`, `{"params":{"0":[0]}}`, false},
		{"/params/0/a", `{"params":{}}`, `{"params":{"0":{"a":[0]}}}`, false},
		{"/params/1", `{"params":[1,2]}`, `{"params":[1,[0]]}`, false},
		{"/params/2", `{"params":[1,2]}`, ``, false},
		{"/params/*", `{"params":{"a":1,"b":{}}}`, `{"params":{"a":[0],"b":[0]}}`, false},
		{"/params/*", `{"params":{}}`, ``, false},
		{"/params/*/a", `{"params":[{"a":1},{},{"b":2}]}`, `{"params":[{"a":[0]},{"a":[0]},{"b":2,"a":[0]}]}`, false},
		{"/params/*/a/b", `{"params":[{"a":{}},{}]}`, `{"params":[{"a":{"b":[0]}},{}]}`, false},
		{"/params[n=a]/x", `{"params":[{"n":"a"},{"n":"b"}]}`, `{"params":[{"n":"a","x":[0]},{"n":"b"}]}`, false},
		{"/params/x[n=a]/x", `{"params":{}}`, ``, false},
		{"/params/a", `{"params":{"A":1}}`, ``, true},
		{"/params/a/b", `{"params":{"a":null}}`, ``, true},
		{"/params/a", `{"params":[]}`, ``, true},
	} {
		c.check(t, func(p rulePath, text string) (string, bool) { return p.set(text, "[0]") })
	}
}

// ambiguous reports whether a valid JSON text has an object with keys that differ in nothing but case, if in that.
func ambiguous(text string) bool {
	if list, ok := scanMembers(text); ok {
		for i, m := range list {
			if ambiguous(string(m.value)) || slices.ContainsFunc(list[:i], func(other scanMember) bool { return strings.EqualFold(other.key, m.key) }) {
				return true
			}
		}
		return false
	}
	var list []json.RawMessage
	json.Unmarshal([]byte(text), &list)
	return slices.ContainsFunc(list, func(v json.RawMessage) bool { return ambiguous(string(v)) })
}

// A naivePath follows a path through decoded values, of which no two keys fold to one another.
type naivePath struct {
	task  pathTask
	value any
	each  func(v any) any // instead of the task
	path  rulePath
	found []any
	n     int
	odd   bool
}

// member returns a member and whether it is there.
func (w *naivePath) member(object map[string]any, key string) (any, bool) {
	for k := range object {
		w.odd = w.odd || k != key && strings.EqualFold(k, key)
	}
	v, ok := object[key]
	return v, ok
}

// follow returns v changed; nil, false if it is to be removed.
func (w *naivePath) follow(v any, p rulePath) (any, bool) {
	if len(p) == 0 {
		w.n++
		w.found = append(w.found, v)
		switch {
		case w.each != nil:
			return w.each(v), true
		case w.task == pathSets:
			return w.value, true
		}
		return v, w.task != pathRemoves
	}
	switch v := v.(type) {
	case map[string]any:
		return w.object(v, p), true
	case []any:
		return w.array(v, p), true
	}
	w.odd = true
	return v, true
}

func (w *naivePath) object(object map[string]any, p rulePath) any {
	step := p[0]
	if step.key != "" {
		w.odd = true
		return object
	}
	changed := map[string]any{}
	if step.token != "*" {
		w.member(object, step.token)
	}
	for k, v := range object {
		keep := true
		if k == step.token || step.token == "*" {
			v, keep = w.follow(v, p[1:])
		}
		if keep {
			changed[k] = v
		}
	}
	if _, ok := object[step.token]; ok || step.token == "*" || w.task != pathSets {
		return changed
	}
	top := len(p) == len(w.path)
	if _, call := object["method"]; top && (!call || step.token != "params") {
		return changed
	}
	v := w.value
	for _, s := range slices.Backward(p[1:]) {
		if s.token == "-" || isIndex(s.token) {
			return changed
		}
		v = map[string]any{s.token: v}
	}
	for _, s := range w.path {
		if len(p) > 1 && (s.key != "" || s.token == "*") {
			return changed
		}
	}
	changed[step.token] = v
	w.n++
	return changed
}

func (w *naivePath) array(array []any, p rulePath) any {
	step := p[0]
	changed := []any{}
	w.odd = w.odd || step.key == "" && step.token != "*" && step.token != "-" && !isIndex(step.token)
	for i, v := range array {
		hit := step.key == "" && (step.token == "*" || step.token == strconv.Itoa(i))
		if object, ok := v.(map[string]any); ok && step.key != "" {
			name, _ := w.member(object, step.key)
			s, ok := name.(string)
			hit = ok && matchesName(step.pattern, s)
		}
		keep := true
		if hit {
			v, keep = w.follow(v, p[1:])
		}
		if keep {
			changed = append(changed, v)
		}
	}
	if step.key == "" && step.token == "-" && len(p) == 1 && w.task == pathSets {
		changed = append(changed, w.value)
		w.n++
	}
	return changed
}

// replaceStrings replaces in all strings of a decoded value.
func replaceStrings(r *textReplacer, v any) any {
	switch v := v.(type) {
	case string:
		return r.match.ReplaceAllString(v, r.with)
	case []any:
		for i := range v {
			v[i] = replaceStrings(r, v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = replaceStrings(r, v[k])
		}
	}
	return v
}

// checkReplaceIn replaces in the values to which a path leads, and in the whole of a message.
func checkReplaceIn(t *testing.T, p rulePath, text string) {
	r := testReplacer(t, `(?i)[a-m\x{FFFD}]\b`, `<$0"`)
	each := func(v any) any { return replaceStrings(r, v) }
	got, odd := r.replace(text, p)
	naive := naivePath{path: p, each: each}
	want, _ := naive.follow(decodeJSON(text), p)
	if odd != naive.odd || (odd || naive.n == 0) && got != text || !odd && encodeJSON(decodeJSON(got)) != encodeJSON(want) {
		t.Fatalf("%v in %s: got %s, %v, want %s, %v", p, text, got, odd, encodeJSON(want), naive.odd)
	}
	message := decodeJSON(text).(map[string]any)
	for _, key := range []string{"params", "result", "error"} {
		if v, ok := message[key]; ok {
			message[key] = each(v)
		}
	}
	if got, odd := r.replace(text, nil); odd || encodeJSON(decodeJSON(got)) != encodeJSON(message) {
		t.Fatalf("%s: got %s, %v, want %s", text, got, odd, encodeJSON(message))
	}
}

func FuzzRulePath(f *testing.F) {
	const text = `{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[{"n":"x","v":1}, {"n":"y","b":[1.0,"\u00e9"]} ,3],"b" : {"c":{},"-":null},"A":{}, "\u0062c":[]}}`
	for _, path := range []string{"/params/a/0", "/params/a/-", "/params/b/*", "/params/a[n=*]/v", "/params/*", "/*/b/c", "/params/x/y", "/params/b/c/d/e", "/params/bc/*"} {
		f.Add(path, text, `{"k":[1]}`)
	}
	f.Add("/params/a", `{"jsonrpc":"2.0","method":"m"}`, "1")
	f.Fuzz(func(t *testing.T, path, text, value string) {
		p, err := parseRulePath(path)
		if _, notMessage := Parse(text); err != nil || notMessage != nil || !json.Valid([]byte(value)) || !utf8.ValidString(path+value) {
			return // rule files are UTF-8
		}
		clear := !ambiguous(text) && !ambiguous(value)
		values, odd := p.find(text)
		if naive := (naivePath{path: p}); clear {
			naive.follow(decodeJSON(text), p)
			var got, want []string
			for _, v := range values {
				got = append(got, encodeJSON(decodeJSON(v)))
			}
			for _, v := range naive.found {
				want = append(want, encodeJSON(v))
			}
			slices.Sort(got) // the keys of a map have no order
			slices.Sort(want)
			if odd != naive.odd || !odd && !slices.Equal(got, want) {
				t.Fatalf("%s in %s: got %q, %v, want %q, %v", path, text, got, odd, want, naive.odd)
			}
		}
		if clear {
			checkReplaceIn(t, p, text)
		}
		for task, change := range map[pathTask]func() (string, bool){
			pathRemoves: func() (string, bool) { return p.remove(text) },
			pathSets:    func() (string, bool) { return p.set(text, value) },
		} {
			got, isOdd := change()
			if isOdd != odd || odd && got != text || !json.Valid([]byte(got)) {
				t.Fatalf("%d %s in %s: got %s, %v", task, path, text, got, isOdd)
			}
			if odd || !clear {
				continue
			}
			naive := naivePath{path: p, task: task, value: decodeJSON(value)}
			want, _ := naive.follow(decodeJSON(text), p)
			if encodeJSON(decodeJSON(got)) != encodeJSON(want) || naive.n == 0 && got != text {
				t.Fatalf("%d %s in %s: got %s, want %s", task, path, text, got, encodeJSON(want))
			}
			if _, err := Parse(got); err != nil && len(p) > 1 && !ambiguous(got) && p[0].token == "params" && scanDepth(got) <= maxDepth {
				t.Fatalf("%d %s in %s: got %s, which is refused: %v", task, path, text, got, err)
			}
		}
	})
}

func BenchmarkPathFind(b *testing.B) {
	p, _ := parseRulePath("/params/arguments/text")
	for b.Loop() {
		p.find(benchCall)
	}
}

// What a client writes decides how many values a rule sets: it must not decide how large a message becomes.
func TestPathSetIsBounded(t *testing.T) {
	text := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":[` + strings.Repeat("1,", 30) + `1]}}`
	value := quote(strings.Repeat("a", 1<<20))
	path, _ := parseRulePath("/params/arguments/*")
	if got, odd := path.set(text, value); got != text || !odd {
		t.Errorf("got %d bytes, %v, want it unchanged, and odd", len(got), odd)
	}
	text = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":[1,1]}}`
	if got, odd := path.set(text, value); len(got) < 2<<20 || odd {
		t.Errorf("got %d bytes, %v, want both set", len(got), odd)
	}
}
