// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// skipString returns the offset behind the JSON string that begins with the quote at text[i], and whether it has no
// escape. If it is not valid, end is ^j, and stringFault(text, j) says why.
func skipString(text string, i int) (end int, plain bool) {
	plain = true
	for i++; i < len(text); {
		if i+8 <= len(text) {
			m := specials(text[i : i+8])
			if m == 0 {
				if i += 8; i&0x1f8 == 0x1f8 {
					i = skipPlain(text, i)
				}
				continue
			}
			i += bits.TrailingZeros64(m) / 8
		}
		switch c := text[i]; {
		case c == '"':
			return i + 1, plain
		case c == '\\':
			_, n := escape(text[i:])
			if n == 0 {
				return ^i, false
			}
			i, plain = i+n, false
		case c < ' ':
			return ^i, false
		case c < utf8.RuneSelf: // only among the last seven bytes
			i++
		default:
			for i < len(text) && text[i] >= utf8.RuneSelf {
				_, n := utf8.DecodeRuneInString(text[i:])
				if n == 1 {
					return ^i, false
				}
				i += n
			}
		}
	}
	return ^i, false
}

// stringFault says what is wrong at text[i], at which skipString stopped.
func stringFault(text string, i int) string {
	switch {
	case i == len(text):
		return "string does not end"
	case text[i] == '\\':
		return "no such escape"
	case text[i] < ' ':
		return "control character in a string"
	}
	return "invalid UTF-8"
}

// skipPlain returns an offset up to which there are no special bytes in text[i:].
//
//go:noinline
func skipPlain(text string, i int) int {
	for ; i+32 <= len(text); i += 32 {
		b := text[i : i+32]
		if specials(b)|specials(b[8:])|specials(b[16:])|specials(b[24:]) != 0 {
			break
		}
	}
	return i
}

// specials looks for special bytes in the first eight bytes of b. The lowest bit set is the high bit of the first one.
func specials(b string) uint64 {
	const ones = 0x0101010101010101
	_ = b[7]
	w := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
	// Flipping bit 1 swaps the quote (0x22) and the space (0x20), so that one subtraction finds quotes and control
	// characters. A subtraction borrows only from bytes above one that is special itself.
	return (w | ((w ^ 2*ones) - 0x21*ones) | ((w ^ '\\'*ones) - ones)) & (0x80 * ones)
}

// escape returns the character that the escape at the beginning of s stands for, and the length of the escape, 0 if it
// is not valid. Half a surrogate pair becomes U+FFFD.
func escape(s string) (r rune, n int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	r, ok := unit(s)
	if !ok {
		return 0, 0
	}
	if utf16.IsSurrogate(r) {
		low, _ := unit(s[6:])
		if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
			return r, 12
		}
	}
	return r, 6
}

// unit returns the UTF-16 code unit of the escape \uXXXX that s begins with, if it does.
func unit(s string) (r rune, ok bool) {
	if len(s) < 6 || s[:2] != `\u` {
		return 0, false
	}
	for _, c := range []byte(s[2:6]) {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// decode replaces the escapes in s, which is the inside of a valid JSON string.
func decode(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	var b strings.Builder
	for b.Grow(len(s)); i >= 0; i = strings.IndexByte(s, '\\') {
		r, n := escape(s[i:])
		b.WriteString(s[:i])
		b.WriteRune(r)
		s = s[i+n:]
	}
	b.WriteString(s)
	return b.String()
}

// unquote returns the value of a JSON string, a part of text if it has no escape. Half a surrogate pair becomes U+FFFD.
// It returns false if text is not a valid JSON string from its first to its last byte.
func unquote(text string) (string, bool) {
	if text == "" || text[0] != '"' {
		return "", false
	}
	if end, _ := skipString(text, 0); end != len(text) {
		return "", false
	}
	return decode(text[1 : len(text)-1]), true
}

// quote returns s as a JSON string. It escapes only what it must; bytes that are not UTF-8 become U+FFFD.
func quote(s string) string {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	written := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b.WriteString(s[written:i])
		written = i + 1
		if i := strings.IndexByte("\"\\\b\f\n\r\t", c); i >= 0 {
			b.WriteByte('\\')
			b.WriteByte(`"\bfnrt`[i])
		} else {
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	b.WriteString(s[written:])
	b.WriteByte('"')
	return b.String()
}

func isNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' }

// skipNumber returns the offset behind the JSON number that begins at text[i], which is a digit or minus. If it is not
// valid, end is ^j, and text[j] is no digit but should be one.
func skipNumber(text string, i int) (end int) {
	if text[i] == '-' {
		i++
	}
	if i < len(text) && text[i] == '0' {
		i++
	} else if i = skipDigits(text, i); i < 0 {
		return i
	}
	if i < len(text) && text[i] == '.' {
		if i = skipDigits(text, i+1); i < 0 {
			return i
		}
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		if i++; i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		return skipDigits(text, i)
	}
	return i
}

// skipDigits returns the offset behind the digits at text[i], ^i if there is none.
func skipDigits(text string, i int) int {
	from := i
	for i < len(text) && '0' <= text[i] && text[i] <= '9' {
		i++
	}
	if i == from {
		return ^i
	}
	return i
}

// maxExponent bounds the exponents that canonicalID works out, as each costs a digit.
const maxExponent = 1000

// canonicalID returns the key under which to look up an id, given as its JSON text: ids that have the same value have
// the same key, and others differ. Strings compare decoded and numbers as decimals of any length. A number written with
// an exponent beyond ±maxExponent stays as it is, and equals only numbers written so.
func canonicalID(id string) string {
	if id == "" {
		return id
	}
	if !isNumber(id[0]) {
		if strings.IndexByte(id, '\\') < 0 {
			return id
		}
		if s, ok := unquote(id); ok {
			return quote(s)
		}
		return id
	}
	if id != "-0" && (len(id) == 1 || skipDigits(id, 1) == len(id)) { // an integer
		return id
	}
	number, sign := id, ""
	if id[0] == '-' {
		number, sign = id[1:], "-"
	}
	exponent := 0
	if i := strings.IndexAny(number, "eE"); i >= 0 {
		e, err := strconv.Atoi(number[i+1:])
		if err != nil || e > maxExponent || e < -maxExponent {
			return id
		}
		number, exponent = number[:i], e
	}
	whole, fraction, _ := strings.Cut(number, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	exponent -= len(fraction)
	short := strings.TrimRight(digits, "0")
	if exponent += len(digits) - len(short); short == "" {
		return "0"
	}
	if exponent < 0 {
		return sign + short + "e" + strconv.Itoa(exponent)
	}
	return sign + short + strings.Repeat("0", exponent)
}
