// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

const (
	minKnownSecret = 4 // bytes; what is shorter occurs everywhere

	stampLength = 64       // bytes that a line has at most beside its fields and its message
	maxInShort  = 64 << 10 // bytes of what stays in a line that became too long
)

// A knownSecret is a text that must not come on a tape, whatever the rules are: the proxy sends it to the server, which may
// repeat it anywhere.
type knownSecret struct {
	name, text string
	spellings  []string // of text, outside of JSON and in it
}

// newKnownSecret returns nil if text is too short to be looked for.
func newKnownSecret(name, text string) *knownSecret {
	if len(text) < minKnownSecret {
		return nil
	}
	inside := quote(text)
	inside = inside[1 : len(inside)-1]
	k := &knownSecret{name, text, []string{text}}
	for _, s := range [...]string{inside, strings.ReplaceAll(inside, "/", `\/`)} {
		if !slices.Contains(k.spellings, s) {
			k.spellings = append(k.spellings, s)
		}
	}
	return k
}

// headerSecrets are the values of h, and the credentials in them without the scheme.
func headerSecrets(h http.Header) (secrets []*knownSecret) {
	add := func(text string) {
		if k := newKnownSecret("header", strings.TrimSpace(text)); k != nil {
			secrets = append(secrets, k)
		}
	}
	for _, values := range h {
		for _, value := range values {
			add(value)
			scheme, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
			if strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "Basic") {
				add(rest)
			}
		}
	}
	return secrets
}

// clean takes out of e, which belongs to s if that is not nil, what must not be on the tape.
func (r *Recorder) clean(s *Session, e *Entry) {
	var own *knownSecret
	if s != nil {
		own = s.secret.Load()
	}
	if own != nil || len(r.Secrets) > 0 {
		h := &hiding{secrets: r.Secrets, own: own, redact: r.Redact}
		if msg := h.json(e.Msg, true); msg != e.Msg {
			e.Msg, e.Headers = msg, withoutParams(e.Headers)
		}
		e.Headers = h.json(e.Headers, false)
		e.Text, e.Event = mapEvent(e, h.hide), h.hide(e.Event)
	}
	r.Redact.entry(e)
}

// A hiding takes known secrets out of one line.
type hiding struct {
	secrets  []*knownSecret
	own      *knownSecret // one more; may be nil
	redact   *Redactor    // has the key of the placeholders; they have no HMAC if it is nil
	replacer *strings.Replacer
}

// suspects reports whether a secret may be in s, or in JSON that is in its strings.
func (h *hiding) suspects(s string) bool {
	within := func(k *knownSecret) bool {
		return slices.ContainsFunc(k.spellings, func(t string) bool { return strings.Contains(s, t) })
	}
	return h.own != nil && within(h.own) || slices.ContainsFunc(h.secrets, within) ||
		strings.Contains(s, `\u`) || strings.Contains(s, `\\`) // it may be spelled in another way
}

// hide replaces the secrets in any text.
func (h *hiding) hide(s string) string {
	switch {
	case !h.suspects(s):
		return s
	case holdsJSON(s):
		return h.json(s, false)
	}
	return h.replace(s)
}

// json replaces the secrets in a valid JSON text, in numbers and keys too. The jsonrpc and the method of a message stay,
// as do the keys that make it one.
func (h *hiding) json(text string, message bool) string {
	if !h.suspects(text) {
		return text
	}
	w := edit{scanner: scanner{text: text}}
	depth, key := 0, ""
	for i := 0; i < len(text); {
		from, value, changed := i, "", ""
		switch c := text[i]; {
		case c == '"':
			i, _ = skipString(text, i)
			value = decode(text[from+1 : i-1])
			changed = h.hide(value)
			if message && depth == 1 {
				next := w.space(i)
				isKey := next < len(text) && text[next] == ':'
				if isKey {
					key = value
				}
				if isKey && isMember(key) || !isKey && (key == "jsonrpc" || key == "method") {
					continue
				}
			}
		case isNumber(c):
			i = skipNumber(text, i)
			value = text[from:i]
			changed = h.replace(value)
		default:
			depth += btoi(c == '{' || c == '[') - btoi(c == '}' || c == ']')
			i++
		}
		if changed != value {
			w.put(from, i, quote(changed))
		}
	}
	return w.done()
}

// isMember reports whether key is one of those that a message may have.
func isMember(key string) bool {
	switch key {
	case "jsonrpc", "id", "method", "params", "result", "error":
		return true
	}
	return false
}

// replace replaces the secrets in s as they stand there.
func (h *hiding) replace(s string) string {
	if h.replacer == nil {
		var pairs [][2]string
		add := func(k *knownSecret) {
			mark := h.redact.mark(k.name, k.text)
			for _, t := range k.spellings {
				pairs = append(pairs, [2]string{t, mark})
			}
		}
		for _, k := range h.secrets {
			add(k)
		}
		if h.own != nil {
			add(h.own)
		}
		// Of two that begin at the same place the longer one is to be found.
		slices.SortStableFunc(pairs, func(a, b [2]string) int { return cmp.Compare(len(b[0]), len(a[0])) })
		var list []string
		for _, p := range pairs {
			list = append(list, p[0], p[1])
		}
		h.replacer = strings.NewReplacer(list...)
	}
	return h.replacer.Replace(s)
}

// shorten makes a line that placeholders have made too long for those who read the tape one that is not.
func (r *Recorder) shorten(e *Entry) {
	short := func(s string) string {
		if len(s) > maxInShort {
			return r.Redact.mark("message", s)
		}
		return s
	}
	e.Text, e.Event = short(e.Text), short(e.Event)
	if len(e.Headers) > maxInShort {
		e.Headers = ""
	}
	if e.Msg == "" {
		return
	}
	var members []string
	eachMember(e.Msg, func(key, value string) {
		switch key {
		case "params", "result", "error":
			value = `{"redacted":"` + r.Redact.mark("message", value) + `"}`
		case "id", "method":
			if len(value) > maxInShort {
				value = quote(short(value))
			}
		case "jsonrpc":
		default:
			return
		}
		members = append(members, quote(key)+":"+value)
	})
	e.Msg = "{" + strings.Join(members, ",") + "}"
}
