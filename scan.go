// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxDepth   = 1000 // objects and arrays one inside the other, the outermost included
	maxUnknown = 16   // members of a message that JSON-RPC does not define
	maxQuoted  = 64   // bytes of a key shown in an error
)

// errBatch is what Parse returns for a JSON array, of which only the first byte was read: splitBatch takes it apart.
var errBatch = errors.New("message is a batch")

// A ParseError says why a text was refused. Code is -32700 if the text is not JSON (syntax, UTF-8, data after the end,
// depth) and else -32600. Offset counts bytes of the text. Reason holds nothing of the text but a key, shortened.
// ID is the JSON text of the message's id if the code is -32600 and the key id occurs once, in no other case,
// with a string or a number; else it is "". It may be the id of a response, which nobody answers.
type ParseError struct {
	Code   int
	Reason string
	Offset int
	ID     string
}

func (e *ParseError) Error() string { return fmt.Sprintf("message byte %d: %s", e.Offset, e.Reason) }

// Parse reads one JSON-RPC message. The strings of the Message share the memory of text, but for those with escapes.
//
// JSON parsers differ about a key that occurs twice or in another case: Go's encoding/json takes the last and ignores
// case. What they may understand differently is refused, so that client, proxy and server see the same call: on the top
// level any key that occurs twice, and there, in params and in params._meta any spelling that folds to a key read here.
//
// The error is errBatch for an array and else a *ParseError, -32700 taking precedence. MCP has no null id ("Unlike base
// JSON-RPC, the ID MUST NOT be null", basic), so null is refused; an error may leave the id out.
func Parse(text string) (*Message, error) {
	s := scanner{text: text}
	start := s.space(0)
	if start < len(text) && text[start] == '[' {
		return nil, errBatch
	}
	raw, err := s.whole(0, placeTop)
	if err != nil {
		return nil, err
	}
	s.check(start)
	if s.fault != nil {
		if c := s.first(fieldID); s.ids == 1 && (c == '"' || isNumber(c)) {
			s.fault.ID = s.get(fieldID)
		}
		return nil, s.fault
	}
	kind := Response
	if s.has(fieldMethod) && s.has(fieldID) {
		kind = Call
	} else if s.has(fieldMethod) {
		kind = Notification
	}
	method, _ := unquote(s.get(fieldMethod))
	name, _ := unquote(s.get(fieldName))
	uri, _ := unquote(s.get(fieldURI))
	revision, _ := unquote(s.get(fieldRevision))
	return &Message{
		Raw: raw, Kind: kind, ID: s.get(fieldID), Method: method, Params: s.get(fieldParams), Result: s.get(fieldResult),
		Error: s.get(fieldError), Name: name, URI: uri, Token: s.get(fieldToken), Revision: revision, Newlines: s.newlines,
	}, nil
}

// splitBatch returns the JSON texts of the elements of an array, parts of text. The elements are valid JSON and need
// not be messages. An array that is empty or has more than max elements is refused with a *ParseError, as is text that
// is no array.
func splitBatch(text string, max int) ([]string, error) {
	s := scanner{text: text, max: max}
	raw, err := s.whole(-1, placeBatch) // an element may be as deep as a message
	if err != nil {
		return nil, err
	}
	if start := s.space(0); raw[0] != '[' {
		s.refuse(start, "batch is not an array")
	} else if len(s.list) == 0 {
		s.refuse(start, "batch is empty")
	}
	if s.fault != nil {
		return nil, s.fault
	}
	return s.list, nil
}

// member returns the JSON text of a member's value, a part of object; see locate.
func member(object, key string) string {
	start, end, _ := locate(object, key)
	return object[start:end]
}

// locate returns where in a JSON text the value is to which path leads, member by member: text[start:end], without white
// space around it; all of text if path is empty. Of keys that occur twice the last counts, as in most parsers. ok is false
// if there is no such value. The text must be valid JSON, not deeper than what Parse and splitBatch accept.
func locate(text string, path ...string) (start, end int, ok bool) {
	s := scanner{text: text}
	start, end = s.space(0), len(strings.TrimRight(text, " \t\r\n"))
	for _, s.want = range path {
		s.at[fieldWanted] = span{}
		if start == len(text) || text[start] != '{' || s.value(start, -1, placeSearch) < 0 || !s.has(fieldWanted) {
			return 0, 0, false
		}
		start, end = s.at[fieldWanted].from, s.at[fieldWanted].to
	}
	return start, end, start < end
}

// elements returns the JSON texts of the elements of a valid array, parts of it; nil if it is no array.
func elements(array string) []string {
	s := scanner{text: array, max: len(array), list: []string{}}
	if raw, err := s.whole(-1, placeBatch); err != nil || raw[0] != '[' {
		return nil
	}
	return s.list
}

// A place says what the keys of an object, or the elements of an array, mean to the scanner.
type place uint8

const (
	placePlain  place = iota // nothing
	placeBatch               // an array whose elements are listed
	placeTop                 // a message
	placeParams              // its params
	placeMeta                // its params._meta
	placeSearch              // an object in which the key scanner.want is looked for
)

// A field is a key that the scanner reads the value of.
type field uint8

const (
	fieldNone field = iota
	fieldJSONRPC
	fieldID
	fieldMethod
	fieldParams
	fieldResult
	fieldError
	fieldName
	fieldURI
	fieldMeta
	fieldToken
	fieldRevision
	fieldWanted
	fieldCount
)

func (f field) String() string {
	return [fieldCount]string{"", "jsonrpc", "id", "method", "params", "result", "error",
		"name", "uri", "_meta", "progressToken", "io.modelcontextprotocol/protocolVersion", ""}[f]
}

// fields returns the first and the last field of a place.
func (p place) fields() (first, last field) {
	switch p {
	case placeTop:
		return fieldJSONRPC, fieldError
	case placeParams:
		return fieldName, fieldMeta
	}
	return fieldToken, fieldRevision
}

// A span is text[from:to]; to is 0 if there is none.
type span struct{ from, to int }

// A scanner goes over text once. Its methods take the offset of what they are to read and return the offset behind it,
// or a negative number after syntax has noted why the text is not JSON. A message that is JSON but not acceptable is
// read to its end, because -32700 takes precedence and the id may come late.
type scanner struct {
	text     string
	newlines bool        // a CR or LF was skipped
	offset   int         // of the syntax error
	reason   string      // of the syntax error
	fault    *ParseError // the first reason for -32600
	at       [fieldCount]span
	ids      int                // keys that are id in any case
	unknown  [maxUnknown]string // keys of the message that are no field
	unknowns int
	want     string   // for placeSearch
	list     []string // for placeBatch
	max      int      // of list
}

func (s *scanner) has(f field) bool   { return s.at[f].to > 0 }
func (s *scanner) get(f field) string { return s.text[s.at[f].from:s.at[f].to] }

// first returns the first byte of a value, which tells its type; 0 if it is absent.
func (s *scanner) first(f field) byte {
	if !s.has(f) {
		return 0
	}
	return s.text[s.at[f].from]
}

// syntax notes that the text is not JSON.
func (s *scanner) syntax(i int, reason string) int {
	s.offset, s.reason = i, reason
	return -1
}

// refuse notes that the text is no acceptable message, unless that is known already.
func (s *scanner) refuse(i int, reason string) {
	if s.fault == nil {
		s.fault = &ParseError{Code: codeInvalid, Reason: reason, Offset: i}
	}
}

// refuseKey is refuse for what is wrong with a key.
func (s *scanner) refuseKey(i int, key, reason string) {
	if s.fault == nil {
		s.refuse(i, "key "+strconv.Quote(key[:min(len(key), maxQuoted)])+" "+reason)
	}
}

// check refuses what JSON-RPC 2.0, sections 4 and 5, does not allow. The message begins at start.
func (s *scanner) check(start int) {
	id, method, params := s.first(fieldID), s.first(fieldMethod), s.first(fieldParams)
	result, fault := s.first(fieldResult), s.first(fieldError)
	version, _ := unquote(s.get(fieldJSONRPC))
	switch {
	case s.text[start] != '{':
		s.refuse(start, "message is not an object")
	case !s.has(fieldJSONRPC):
		s.refuse(start, "jsonrpc is absent")
	case version != "2.0":
		s.refuse(s.at[fieldJSONRPC].from, `jsonrpc is not "2.0"`)
	case id != 0 && id != '"' && !isNumber(id):
		s.refuse(s.at[fieldID].from, "id is neither a string nor a number")
	case method != 0 && method != '"':
		s.refuse(s.at[fieldMethod].from, "method is not a string")
	case params != 0 && params != '{' && params != '[':
		s.refuse(s.at[fieldParams].from, "params is neither an object nor an array")
	case method != 0 && (result != 0 || fault != 0):
		s.refuse(start, "message has both a method and a result or error")
	case result != 0 && fault != 0:
		s.refuse(start, "message has both a result and an error")
	case method == 0 && result == 0 && fault == 0:
		s.refuse(start, "message has no method, result or error")
	case result != 0 && id == 0:
		s.refuse(start, "result has no id")
	case fault != 0 && fault != '{':
		s.refuse(s.at[fieldError].from, "error is not an object")
	}
}

// whole reads the one value of the text and returns it without the white space around it.
func (s *scanner) whole(depth int, p place) (string, error) {
	start := s.space(0)
	s.newlines = false
	end := s.value(start, depth, p)
	newlines := s.newlines
	if end >= 0 {
		if rest := s.space(end); rest < len(s.text) {
			end = s.syntax(rest, "data after the end of the value")
		}
	}
	if s.newlines = newlines; end < 0 {
		return "", &ParseError{Code: codeParse, Reason: s.reason, Offset: s.offset}
	}
	return s.text[start:end], nil
}

func (s *scanner) value(i, depth int, p place) int {
	if i >= len(s.text) {
		return s.syntax(i, "text ends where a value should be")
	}
	switch c := s.text[i]; {
	case c == '"':
		end, _ := skipString(s.text, i)
		if end < 0 {
			return s.syntax(^end, stringFault(s.text, ^end))
		}
		return end
	case c == '{' || c == '[':
		if depth++; depth > maxDepth {
			return s.syntax(i, "nested too deep")
		}
		if c == '{' {
			return s.object(i, depth, p)
		}
		return s.array(i, depth, p)
	case isNumber(c):
		end := skipNumber(s.text, i)
		if end < 0 {
			return s.syntax(^end, "no digit where one should be")
		}
		return end
	}
	end := skipWord(s.text, i)
	if end < 0 {
		return s.syntax(i, "no value begins so")
	}
	return end
}

func (s *scanner) object(i, depth int, p place) int {
	if i = s.space(i + 1); i < len(s.text) && s.text[i] == '}' {
		return i + 1
	}
	for more := true; more; {
		if i >= len(s.text) || s.text[i] != '"' {
			return s.syntax(i, "no key where one should be")
		}
		key := i
		end, plain := skipString(s.text, i)
		if end < 0 {
			return s.syntax(^end, stringFault(s.text, ^end))
		}
		if i = s.space(end); i >= len(s.text) || s.text[i] != ':' {
			return s.syntax(i, "no colon after a key")
		}
		i = s.space(i + 1)
		f, inner := fieldNone, placePlain
		if p > placeBatch {
			f, inner = s.key(span{key, end}, plain, p)
		}
		from := i
		if i = s.value(i, depth, inner); i < 0 {
			return i
		}
		if f != fieldNone {
			s.at[f] = span{from, i}
		}
		i, more = s.next(i, '}')
	}
	return i
}

// next goes from the end of a member or element to the next one, if there is more; else over the closing bracket.
func (s *scanner) next(i int, closing byte) (end int, more bool) {
	if i = s.space(i); i < len(s.text) {
		switch s.text[i] {
		case ',':
			return s.space(i + 1), true
		case closing:
			return i + 1, false
		}
	}
	return s.syntax(i, "neither comma nor closing bracket"), false
}

func (s *scanner) array(i, depth int, p place) int {
	if i = s.space(i + 1); i < len(s.text) && s.text[i] == ']' {
		return i + 1
	}
	for more := true; more; {
		from := i
		if i = s.value(i, depth, placePlain); i < 0 {
			return i
		}
		if p == placeBatch {
			if len(s.list) < s.max {
				s.list = append(s.list, s.text[from:i])
			} else {
				s.refuse(from, "batch has too many elements")
			}
		}
		i, more = s.next(i, ']')
	}
	return i
}

// key returns the field that a key of an object at p is, and the place that its value is.
func (s *scanner) key(k span, plain bool, p place) (field, place) {
	key := s.text[k.from+1 : k.to-1]
	if !plain {
		key = decode(key)
	}
	if p == placeSearch {
		if key == s.want {
			return fieldWanted, placePlain
		}
		return fieldNone, placePlain
	}
	first, last := p.fields()
	for f := first; f <= last && key != ""; f++ {
		name := f.String()
		if key[0]|0x20 != name[0]|0x20 || key != name && !strings.EqualFold(key, name) {
			continue // no rune beyond ASCII folds to the first byte of a name
		}
		if f == fieldID {
			s.ids++
		}
		if key != name {
			s.refuseKey(k.from, key, "is a known key in another case")
			return fieldNone, placePlain
		}
		if s.has(f) {
			s.refuseKey(k.from, key, "occurs twice")
		}
		switch f {
		case fieldParams:
			return f, placeParams
		case fieldMeta:
			return f, placeMeta
		}
		return f, placePlain
	}
	if p != placeTop {
		return fieldNone, placePlain
	}
	for _, u := range s.unknown[:s.unknowns] {
		if u == key {
			s.refuseKey(k.from, key, "occurs twice")
		}
	}
	if s.unknowns == maxUnknown {
		s.refuseKey(k.from, key, "is one unknown key too many")
		return fieldNone, placePlain
	}
	s.unknown[s.unknowns] = key
	s.unknowns++
	return fieldNone, placePlain
}

func (s *scanner) space(i int) int {
	if i < len(s.text) && s.text[i] > ' ' {
		return i
	}
	return s.skipSpace(i)
}

func (s *scanner) skipSpace(i int) int {
	for ; i < len(s.text); i++ {
		switch s.text[i] {
		case ' ', '\t':
		case '\n', '\r':
			s.newlines = true
		default:
			return i
		}
	}
	return i
}
