// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"
)

// maxConfig bounds the files that settings name, in bytes.
const maxConfig = 1 << 20

// file returns the settings in the file that g names.
func (p *configParser) file(g given) []given {
	data, err := readFile(g.values[0])
	if err != nil {
		p.problem("%s: %v", g.where, err)
		return nil
	}
	return p.fields(g.values[0], data)
}

// readFile returns what the file at path holds, if that is not more than maxConfig.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%s: more than %d bytes", path, maxConfig)
	}
	return data, err
}

// fields returns the settings in data, the text of the file called name: a JSON object with the
// names of flags as keys.
func (p *configParser) fields(name string, data []byte) (file []given) {
	at := func(offset int64) string {
		return fmt.Sprintf("%s:%d", name, 1+bytes.Count(data[:offset], []byte("\n")))
	}
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(data, new(json.RawMessage)); {
	case errors.As(err, &syntax):
		p.problem("%s: %v", at(syntax.Offset), err)
		return nil
	case !utf8.Valid(data):
		p.problem("%s: not UTF-8", name)
		return nil
	case bytes.TrimSpace(data)[0] != '{':
		p.problem("%s: want a JSON object whose keys are the names of flags", name)
		return nil
	}
	seen := map[string]bool{}
	// What follows cannot fail: data is valid JSON.
	d := json.NewDecoder(bytes.NewReader(data))
	for d.Token(); d.More(); {
		t, _ := d.Token()
		key, where := t.(string), at(d.InputOffset())
		var value json.RawMessage
		d.Decode(&value)
		s := p.find(key)
		switch {
		case s == nil:
			p.problem("%s: unknown field %q%s", where, key, p.guess(key, ""))
			continue
		case seen[key]:
			p.problem("%s: field %q occurs twice", where, key)
			continue
		}
		seen[key] = true
		if values, err := fieldValues(*s, value); err != nil {
			p.problem("%s: %s: %v", where, key, err)
		} else {
			file = append(file, given{*s, where + ": " + key, values})
		}
	}
	return file
}

// fieldValues returns the values of s that value, a JSON text, holds.
func fieldValues(s setting, value json.RawMessage) ([]string, error) {
	list := []json.RawMessage{value}
	switch isArray := value[0] == '['; {
	case s.name == "config":
		return nil, errors.New("a configuration file cannot name another")
	case s.name == "stdio" && !isArray:
		return nil, errors.New(`want an array of the command and its arguments, such as ["npx", "-y", "server"]`)
	case !s.repeat && isArray:
		return nil, errors.New("want one value, not an array")
	case isArray:
		json.Unmarshal(value, &list)
	}
	if len(list) == 0 {
		return nil, errors.New("the array is empty: leave the field out")
	}
	var values []string
	for _, v := range list {
		var text string
		switch v[0] {
		case '{', '[', 'n':
			return nil, errors.New("want a string, a number, true or false")
		case '"':
			json.Unmarshal(v, &text)
		default:
			text = string(v)
		}
		values = append(values, text)
	}
	return values, nil
}
