// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// redactTape writes the tape that t has begun to read to out, without what rules cover or the rules of the tape itself
// do. What was written is of no use after an error. Lines keep their numbers; a last one that broke off is left out, as
// are fields that this program does not know, since nobody can tell what they hold. userKey is the key of the user's
// file, nil if none was given. A tape with a key of its own keeps it, so that equal values have equal placeholders; one
// without any gets one, if userKey is nil.
func redactTape(t *TapeReader, out io.Writer, rules []RedactRule, userKey []byte) error {
	header := t.Header
	r, err := widenRules(&header, rules, userKey)
	if err == nil && r == nil {
		err = errors.New("no rule is left by which to redact")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	w, err := newTapeWriter(out, header)
	if err != nil {
		return err
	}
	t.All = true
	if err := t.Each(func(e *Entry) error {
		r.entry(e)
		w.Write(e)
		return nil
	}); err != nil {
		return err
	}
	if t.Ended == nil {
		return w.out.Flush()
	}
	return w.End(t.Eras)
}

// widenRules adds rules to those of a tape, and a key if it needs one, and returns the Redactor for all of them, nil if
// there are none.
func widenRules(h *TapeHeader, rules []RedactRule, userKey []byte) (*Redactor, error) {
	own := len(h.Redact) > 0 // and a key
	h.Redact = slices.Clone(h.Redact)
	for _, rule := range NewRedactor(rules, nil).Rules() {
		if !slices.Contains(h.Redact, rule) {
			h.Redact = append(h.Redact, rule)
		}
	}
	if !own && len(h.Redact) > 0 && h.Key == "" && userKey == nil {
		key := make([]byte, 2*minRedactKey)
		rand.Read(key) // never fails
		h.Key = hex.EncodeToString(key)
	}
	return newTapeRedactor(h, userKey)
}

// entry takes the secrets out of a line: out of its message, headers, text and event. A nil Redactor takes none.
func (r *Redactor) entry(e *Entry) {
	if r == nil {
		return
	}
	if e.of != nil && r.spares(e.of) {
		// there is nothing in the message
	} else if msg := r.Message(e.Msg); msg != e.Msg {
		e.Msg, e.Headers = msg, withoutParams(e.Headers)
	}
	if e.Headers != "" {
		e.Headers = r.Message(e.Headers)
	}
	if e.Text != "" || e.Event != "" {
		e.Text, e.Event = mapEvent(e, r.Text), r.Text(e.Event)
	}
}

// mapEvent returns the text of e with f applied to it. If e is a server-sent event that is no message, f sees its data
// first, as the lines of that may part what belongs together; all other fields but id, event and retry are left out then.
func mapEvent(e *Entry, f func(string) string) string {
	if e.Kind == lineRaw && (e.Via == viaSSE || e.Via == viaGet) {
		event, err := NewEventReader(strings.NewReader(e.Text), len(e.Text)+1).Next()
		if err == nil && event.Frame == e.Text {
			if data := f(event.Data); data != event.Data {
				event.Data = data
				return f(string(appendEvent(nil, event)))
			}
		}
	}
	return f(e.Text)
}

// withoutParams leaves the headers out that repeat arguments of a call, perhaps secret ones.
func withoutParams(headers string) string {
	var members []string
	eachMember(headers, func(name, value string) {
		if !strings.HasPrefix(name, strings.ToLower(headerParam)) {
			members = append(members, quote(name)+":"+value)
		}
	})
	if members == nil {
		return ""
	}
	return "{" + strings.Join(members, ",") + "}"
}
