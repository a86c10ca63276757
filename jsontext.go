// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
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
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) / 8
		}
		switch c := text[i]; {
		case c == '"':
			return i + 1, plain
		case c == '\\':
			n := escapeLen(text[i:])
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

// special returns the offset of the first byte of s[i:] that a JSON string cannot have or that ends a run of plain
// ASCII: a control character, a quote, a backslash, or a byte above 0x7f; len(s) if there is none.
func special(s string, i int) int {
	for ; i+8 <= len(s); i += 8 {
		if m := specials(s[i : i+8]); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
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

// escapeLen returns the length of the escape that s begins with; 0 if it is not valid.
func escapeLen(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := unit(s); ok {
			return 6
		}
	}
	return 0
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
	var b strings.Builder
	b.Grow(len(s))
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		c, n := s[i+1], 2
		if c == 'u' {
			r, _ := unit(s[i:])
			n = 6
			if low, ok := unit(s[i+6:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
				r, n = utf16.DecodeRune(r, low), 12
			}
			b.WriteRune(r) // a lone surrogate becomes U+FFFD
		} else {
			if j := strings.IndexByte("bfnrt", c); j >= 0 {
				c = "\b\f\n\r\t"[j]
			}
			b.WriteByte(c)
		}
		s = s[i+n:]
	}
}

// unquote returns the value of a JSON string, a part of text if it has no escape. Half a surrogate pair becomes U+FFFD.
// It returns false if text is not a valid JSON string from its first to its last byte.
func unquote(text string) (string, bool) {
	if text == "" || text[0] != '"' {
		return "", false
	}
	end, plain := skipString(text, 0)
	if end != len(text) {
		return "", false
	}
	if text = text[1 : end-1]; !plain {
		text = decode(text)
	}
	return text, true
}

// quote returns s as a JSON string. It escapes only what it must; bytes that are not UTF-8 become U+FFFD.
func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for {
		i := special(s, 0)
		b.WriteString(s[:i])
		if i == len(s) {
			b.WriteByte('"')
			return b.String()
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r >= utf8.RuneSelf {
			b.WriteRune(r)
		} else if j := strings.IndexByte("\"\\\b\f\n\r\t", byte(r)); j >= 0 {
			b.WriteByte('\\')
			b.WriteByte(`"\bfnrt`[j])
		} else {
			b.WriteString(`\u00`)
			b.WriteByte("01"[r>>4])
			b.WriteByte("0123456789abcdef"[r&15])
		}
		s = s[i+n:]
	}
}

// skipWord returns the offset behind true, false or null at text[i], ^i if there is none of them.
func skipWord(text string, i int) (end int) {
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(text[i:], word) {
			return i + len(word)
		}
	}
	return ^i
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
	if id == "-0" {
		return "0"
	}
	if !strings.ContainsAny(id, ".eE") {
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
