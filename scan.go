// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	maxDepth   = 1000 // objects and arrays one inside the other, the outermost included
	maxUnknown = 16   // members of a message that JSON-RPC does not define
	maxQuoted  = 64   // bytes of a key shown in an error

	whiteSpace = " \t\r\n"
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
	end := s.whole(start, 0, fieldMessage)
	if end >= 0 {
		s.check(start)
	}
	if s.fault != nil {
		if c := s.first(fieldID); end >= 0 && s.ids == 1 && (c == '"' || isNumber(c)) {
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
	return &Message{
		Raw: text[start:end], Kind: kind, ID: s.get(fieldID), Method: s.decoded(fieldMethod),
		Params: s.get(fieldParams), Result: s.get(fieldResult), Error: s.get(fieldError),
		Name: s.decoded(fieldName), URI: s.decoded(fieldURI), Token: s.get(fieldToken),
		Revision: s.decoded(fieldRevision), Newlines: s.newlines,
	}, nil
}

// splitBatch returns the JSON texts of the elements of an array, parts of text. The elements are valid JSON and need
// not be messages. An array that is empty or has more than max elements is refused with a *ParseError, as is text that
// is no array.
func splitBatch(text string, max int) ([]string, error) {
	s := scanner{text: text, max: max}
	start := s.space(0)
	if start < len(text) && text[start] != '[' {
		s.refuse(start, "batch is not an array")
	}
	if s.whole(start, -1, fieldBatch) >= 0 && len(s.list) == 0 { // an element may be as deep as a message
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
	start, end = s.space(0), len(strings.TrimRight(text, whiteSpace))
	for _, s.want = range path {
		s.at[fieldWanted] = span{}
		if start == len(text) || text[start] != '{' || s.value(start, -1, fieldSearched) < 0 || !s.has(fieldWanted) {
			return 0, 0, false
		}
		start, end = s.at[fieldWanted].from, s.at[fieldWanted].to
	}
	return start, end, start < end
}

// eachMember calls f with the decoded key and the JSON text of the value of each member of an object, in order; both are
// parts of text where no escape had to be decoded. The error is a *[ParseError] if text is no valid JSON, or no object;
// f may have been called before that shows.
func eachMember(text string, f func(key, value string)) error {
	s := scanner{text: text, each: f}
	start := s.space(0)
	if start < len(text) && text[start] != '{' {
		s.syntax(start, "not an object")
	} else {
		s.whole(start, -1, fieldEach)
	}
	if s.fault != nil {
		return s.fault
	}
	return nil
}

// A field is a value that the scanner takes note of. It also says what the keys in that value mean.
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

	fieldMessage  // the whole text, a message
	fieldBatch    // the whole text, an array whose elements are listed
	fieldSearched // an object in which the key scanner.want leads to fieldWanted
	fieldEach     // an object whose members go to scanner.each
)

// name is the key of fieldJSONRPC to fieldRevision.
func (f field) name() string {
	return [...]string{"", "jsonrpc", "id", "method", "params", "result", "error",
		"name", "uri", "_meta", "progressToken", "io.modelcontextprotocol/protocolVersion"}[f]
}

// A span is text[from:to]; to is 0 if there is none.
type span struct{ from, to int }

// A scanner goes over text once. Its methods take the offset of what they are to read and return the offset behind it,
// or -1 after syntax has noted why the text is not JSON. A message that is JSON but not acceptable is read to its end,
// because -32700 takes precedence and the id may come late.
type scanner struct {
	text     string
	newlines bool        // a CR or LF was skipped
	fault    *ParseError // the syntax error, else the first reason for -32600
	at       [fieldCount]span
	ids      int                // keys that are id in any case
	unknown  [maxUnknown]string // keys of the message that are no field
	unknowns int
	want     string                  // for fieldSearched
	list     []string                // for fieldBatch
	max      int                     // of list
	each     func(key, value string) // for fieldEach
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

// decoded returns the string that a value is; "" if it is none.
func (s *scanner) decoded(f field) string {
	if s.first(f) != '"' {
		return ""
	}
	return decode(s.text[s.at[f].from+1 : s.at[f].to-1])
}

// syntax notes that the text is not JSON.
func (s *scanner) syntax(i int, reason string) int {
	s.fault = &ParseError{Code: codeParse, Reason: reason, Offset: i}
	return -1
}

// refuse notes that the text is no acceptable message, unless that is known already.
func (s *scanner) refuse(i int, reason string) {
	if s.fault == nil {
		s.fault = &ParseError{Code: codeInvalid, Reason: reason, Offset: i}
	}
}

func (s *scanner) refuseKey(i int, key, reason string) {
	s.refuse(i, "key "+strconv.Quote(key[:min(len(key), maxQuoted)])+" "+reason)
}

// check refuses what JSON-RPC 2.0, sections 4 and 5, does not allow. The message begins at start.
func (s *scanner) check(start int) {
	id, method, params := s.first(fieldID), s.first(fieldMethod), s.first(fieldParams)
	result, fault := s.first(fieldResult), s.first(fieldError)
	switch {
	case s.text[start] != '{':
		s.refuse(start, "message is not an object")
	case !s.has(fieldJSONRPC):
		s.refuse(start, "jsonrpc is absent")
	case s.get(fieldJSONRPC) != `"2.0"` && s.decoded(fieldJSONRPC) != "2.0":
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

// whole reads the value at start, behind which nothing but white space may follow.
func (s *scanner) whole(start, depth int, f field) (end int) {
	s.newlines = false // those before the value do not count
	if end = s.value(start, depth, f); end >= 0 && end < len(s.text) {
		if rest := strings.TrimLeft(s.text[end:], whiteSpace); rest != "" {
			return s.syntax(len(s.text)-len(rest), "data after the end of the value")
		}
	}
	return end
}

func (s *scanner) value(i, depth int, f field) int {
	if i >= len(s.text) {
		return s.syntax(i, "not JSON: the text ends too early")
	}
	var end int
	switch c := s.text[i]; {
	case c == '"':
		if end, _ = skipString(s.text, i); end < 0 {
			return s.syntax(^end, stringFault(s.text, ^end))
		}
		return end
	case c == '{' || c == '[':
		return s.nest(i, depth+1, f)
	case isNumber(c):
		if end = skipNumber(s.text, i); end < 0 {
			return s.syntax(^end, "no digit where one should be")
		}
		return end
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(s.text[i:], word) {
			return i + len(word)
		}
	}
	return s.syntax(i, "not JSON: unexpected character")
}

// nest reads an object or an array.
func (s *scanner) nest(i, depth int, f field) int {
	if depth > maxDepth {
		return s.syntax(i, "nested too deep")
	}
	object, closing := s.text[i] == '{', s.text[i]+2 // ASCII: "{|}" and "[\\]"
	if i = s.space(i + 1); i < len(s.text) && s.text[i] == closing {
		return i + 1
	}
	for {
		inner, name := fieldNone, ""
		if object {
			if i >= len(s.text) || s.text[i] != '"' {
				return s.syntax(i, "not JSON: expected a key in double quotes")
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
			if f == fieldEach {
				name = s.text[key+1 : end-1]
				if !plain {
					name = decode(name)
				}
			} else if f != fieldNone {
				inner = s.key(span{key, end}, plain, f)
			}
		}
		from := i
		if i = s.value(i, depth, inner); i < 0 {
			return i
		}
		if inner != fieldNone {
			s.at[inner] = span{from, i}
		} else if f == fieldBatch {
			if s.list = append(s.list, s.text[from:i]); len(s.list) > s.max {
				s.refuse(from, "batch has too many elements")
				s.list = s.list[:s.max]
			}
		} else if f == fieldEach {
			s.each(name, s.text[from:i])
		}
		if i = s.space(i); i >= len(s.text) || s.text[i] != ',' {
			break
		}
		i = s.space(i + 1)
	}
	if i >= len(s.text) || s.text[i] != closing {
		return s.syntax(i, "neither comma nor closing bracket")
	}
	return i + 1
}

// key returns which field a key of the object that is outer leads to.
func (s *scanner) key(k span, plain bool, outer field) field {
	key := s.text[k.from+1 : k.to-1]
	if !plain {
		key = decode(key)
	}
	var first, last field
	switch outer {
	case fieldMessage:
		first, last = fieldJSONRPC, fieldError
	case fieldParams:
		first, last = fieldName, fieldMeta
	case fieldMeta:
		first, last = fieldToken, fieldRevision
	default:
		if outer == fieldSearched && key == s.want {
			return fieldWanted
		}
		return fieldNone
	}
	for f := first; f <= last && key != ""; f++ {
		name := f.name()
		if key[0]|0x20 != name[0]|0x20 || key != name && !strings.EqualFold(key, name) {
			continue // no rune beyond ASCII folds to the first byte of a name
		}
		if f == fieldID {
			s.ids++
		}
		if key != name {
			s.refuseKey(k.from, key, "is a known key in another case")
			return fieldNone
		}
		if s.has(f) {
			s.refuseKey(k.from, key, "occurs twice")
		}
		return f
	}
	if outer == fieldMessage {
		s.other(k.from, key)
	}
	return fieldNone
}

// other takes note of a key of the message that is no field.
func (s *scanner) other(i int, key string) {
	if slices.Contains(s.unknown[:s.unknowns], key) {
		s.refuseKey(i, key, "occurs twice")
	}
	if s.unknowns == maxUnknown {
		s.refuseKey(i, key, "is one unknown key too many")
		return
	}
	s.unknown[s.unknowns] = key
	s.unknowns++
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
