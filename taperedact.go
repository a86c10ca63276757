// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// redactTape writes the tape that t has begun to read to out, without what rules cover or the rules of the tape itself
// do. What was written is of no use after an error. Its lines keep their numbers and whatever they hold besides; a last line that broke off is left out. userKey is
// the key of the user's file, nil if none was given. A tape with a key of its own keeps it, so that equal values have
// equal placeholders; one without any gets one, if userKey is nil.
func redactTape(t *TapeReader, out io.Writer, rules []RedactRule, userKey []byte) error {
	header := t.Header
	r, err := widenRules(&header, rules, userKey)
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	to, sum := bufio.NewWriterSize(out, lineBuffer), sha256.New()
	w := io.MultiWriter(to, sum)
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(header); err != nil {
		return err
	}
	for t.All = true; ; {
		e, err := t.Next()
		if err == io.EOF {
			return to.Flush()
		}
		if err != nil {
			return err
		}
		if e.Kind == lineEnd {
			e.Sum = hex.EncodeToString(sum.Sum(nil))
		}
		if _, err := w.Write(r.line(t.line, e)); err != nil {
			return err
		}
	}
}

// widenRules adds rules to those of a tape, and a key if it needs one, and returns the Redactor for all of them.
func widenRules(h *TapeHeader, rules []RedactRule, userKey []byte) (*Redactor, error) {
	if len(h.Redact) == 0 && h.Key == "" && userKey == nil {
		key := make([]byte, 2*minRedactKey)
		rand.Read(key)
		h.Key = hex.EncodeToString(key)
	}
	h.Redact = slices.Clone(h.Redact)
	for _, rule := range NewRedactor(rules, nil).Rules() {
		if !slices.Contains(h.Redact, rule) {
			h.Redact = append(h.Redact, rule)
		}
	}
	if len(h.Redact) == 0 {
		return nil, errors.New("no rule is left by which to redact")
	}
	return newTapeRedactor(h, userKey)
}

// line returns a line of a tape, which e is, without secrets. What it holds that an Entry does not know is redacted as the
// same member of a message is.
func (r *Redactor) line(line []byte, e *Entry) []byte {
	dst := append(make([]byte, 0, len(line)+64), '{')
	eachMember(string(line), func(key, value string) {
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		name := quote(key)
		switch key {
		case "seq", "t", "kind", "session", "dir", "x", "re", "via", "status", "event", "local", "rule", "was", "counts":
		case "sha256":
			value = quote(e.Sum)
		case "msg", "headers":
			value = r.Message(value)
		case "text":
			switch e.Kind {
			case lineOpen, lineExit, lineDropped, lineBlind, lineClose: // the proxy's own words
			default:
				value = quote(r.Text(decode(value[1 : len(value)-1])))
			}
		case "base64":
			raw, _ := base64.StdEncoding.DecodeString(decode(value[1 : len(value)-1]))
			value = quote(base64.StdEncoding.EncodeToString([]byte(r.Text(string(raw)))))
		default:
			member := r.Message("{" + name + ":" + value + "}")
			value = member[len(name)+2 : len(member)-1]
		}
		dst = append(append(append(dst, name...), ':'), value...)
	})
	return append(dst, '}', '\n')
}
