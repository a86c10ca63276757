// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// usualNames are the keys whose values are replaced unless a rule says none, in lower case, without - and _. Only whole
// names count: progressToken, nextPageToken and maxTokens are no secrets.
const usualNames = "password passwd pwd passphrase passcode oldpassword newpassword currentpassword userpassword dbpassword " +
	"token accesstoken refreshtoken idtoken authtoken oauthtoken bearertoken bearer sessiontoken securitytoken apitoken " +
	"usertoken bottoken githubtoken csrftoken xsrftoken jwt jwttoken personalaccesstoken xauthtoken xaccesstoken xcsrftoken " +
	"xamzsecuritytoken awssessiontoken registrationaccesstoken " +
	"secret clientsecret appsecret apisecret sharedsecret consumersecret webhooksecret signingsecret secretkey " +
	"secretaccesskey awssecretaccesskey apikey xapikey accesskey privatekey signingkey encryptionkey " +
	"authorization proxyauthorization xauthorization cookie setcookie credential credentials clientassertion codeverifier " +
	"sessionid mcpsessionid sessioncookie"

const (
	ruleNone    = "none"
	ruleDefault = "default"

	maxKeyName     = 64  // bytes of a key that a rule can name
	maxTapeRules   = 256 // in a tape's header
	maxMatchRounds = 4   // over one string

	minRedactKey = 16 // bytes
)

// placeholder is what stands where a value was.
var placeholder = regexp.MustCompile(`«redacted:[\pL\pN._-]+:[0-9a-f]{16}»`)

// A RedactRule says what must not come on a tape. Make one with ParseRedactRule.
type RedactRule struct {
	source string
	at     Pointer
	key    string
	match  *regexp.Regexp
}

// String is the rule as it was written.
func (r RedactRule) String() string { return r.source }

// ParseRedactRule reads a rule:
//
//	none                 the usual names of secrets are not replaced
//	default              they are, which needs no saying but in the header of a tape
//	/params/arguments/x  the value at this place of a message; * is any member or element
//	key=NAME             the value of every member called NAME, in any case
//	re=REGEXP            what matches in any string that is a value
func ParseRedactRule(s string) (RedactRule, error) {
	r := RedactRule{source: s}
	var err error
	key, isKey := strings.CutPrefix(s, "key=")
	match, isMatch := strings.CutPrefix(s, "re=")
	switch {
	case s == ruleNone || s == ruleDefault:
	case isKey && (key == "" || len(key) > maxKeyName || !utf8.ValidString(key)):
		err = fmt.Errorf("want a key of 1 to %d bytes of UTF-8", maxKeyName)
	case isKey:
		r.key = key
	case isMatch && match == "":
		err = errors.New("want a regular expression after re=")
	case isMatch:
		r.match, err = regexp.Compile(match)
	case strings.HasPrefix(s, "/"):
		r.at, err = ParsePointer(s)
	default:
		err = errors.New("want none, a JSON pointer such as /params/arguments/card, key=NAME or re=REGEXP")
	}
	if err != nil {
		return RedactRule{}, fmt.Errorf("redaction rule %q: %w", s, err)
	}
	return r, nil
}

// A Redactor replaces secrets by placeholders, «redacted:NAME:HMAC», the same value always by the same one. NAME is the
// key as the rule has it, the last named token of the pointer, or match. HMAC is the beginning of the HMAC-SHA-256 of
// the value's JSON text as canonicalID or encodeJSON has it. A nil Redactor replaces nothing. It may be used concurrently.
type Redactor struct {
	rules    []string
	named    map[string]*secretKey // by lower case
	usual    map[string]*secretKey // by lower case without - and _
	pointers []*redactPointer
	matches  []*regexp.Regexp
	macs     sync.Pool // of hash.Hash

	foreign bool // a key of named is not ASCII
	odd     bool // suspect cannot tell whether a key of named is in a text
	class   [256]uint8
	tails   [1 << 15 / 64]uint64 // bit set: of the last three bytes of keys, by their classes
}

// A secretKey is a key whose value is replaced.
type secretKey struct {
	name  string // in placeholders
	whole bool   // any value is replaced, not just strings and numbers
}

// A redactPointer leads to a value that is replaced.
type redactPointer struct {
	at    Pointer
	index []int // of the element that each token stands for, -1 if for none
	name  string
}

// NewRedactor returns a Redactor for rules, and for the usual names of secrets unless none is among the rules.
func NewRedactor(rules []RedactRule, key []byte) *Redactor {
	r := &Redactor{named: map[string]*secretKey{}, usual: map[string]*secretKey{}}
	r.macs.New = func() any { return hmac.New(sha256.New, key) }
	for c := range 256 {
		r.class[c] = keyClass(byte(c))
	}
	if !slices.ContainsFunc(rules, func(rule RedactRule) bool { return rule.source == ruleNone }) {
		r.rules = append(r.rules, ruleDefault)
		r.addUsual()
	}
	for _, rule := range rules {
		switch {
		case rule.match != nil:
			r.matches = append(r.matches, rule.match)
		case rule.at != nil:
			r.pointers = append(r.pointers, newRedactPointer(rule.at))
		case rule.key != "":
			r.addKey(rule.key)
		default:
			continue
		}
		r.rules = append(r.rules, rule.source)
	}
	return r
}

// Rules returns the rules in force, for the header of a tape; default stands for the usual names.
func (r *Redactor) Rules() []string {
	if r == nil {
		return nil
	}
	return r.rules
}

func (r *Redactor) addUsual() {
	for _, name := range strings.Fields(usualNames) {
		r.usual[name] = &secretKey{name: name}
		r.addTail(name)
	}
	for tail := range 1 << 15 {
		if tail>>10 == classIgnored || tail>>5&31 == classIgnored || tail&31 == classIgnored {
			r.tails[tail/64] |= 1 << (tail % 64)
		}
	}
}

func (r *Redactor) addKey(key string) {
	lower := strings.ToLower(key)
	r.named[lower] = &secretKey{name: placeholderName(key), whole: true}
	for _, c := range []byte(lower) {
		r.foreign = r.foreign || c >= utf8.RuneSelf
		r.odd = r.odd || c >= utf8.RuneSelf || c < ' ' || strings.IndexByte(`"\/`, c) >= 0 // it may be written with a \
	}
	if r.odd = r.odd || len(lower) < 2; !r.odd {
		r.addTail(lower)
	}
}

func newRedactPointer(at Pointer) *redactPointer {
	p := &redactPointer{at: at, index: make([]int, len(at))}
	for i, token := range at {
		n, err := strconv.Atoi(token)
		if p.index[i] = n; err != nil || n < 0 || strconv.Itoa(n) != token {
			p.index[i] = -1
		}
		if token != "*" {
			p.name = token
		}
	}
	p.name = placeholderName(p.name)
	return p
}

// placeholderName makes a name of what may be any text.
func placeholderName(s string) string {
	name := strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.L, unicode.N) || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, s)
	return cmp.Or(name, "value")
}

// Classes of bytes in keys, such that no case matters.
const (
	classQuote   = 0
	classOther   = 27 // up to 30
	classIgnored = 31 // - and _
)

func keyClass(c byte) uint8 {
	switch lower := c | 0x20; {
	case c == '"':
		return classQuote
	case c == '-' || c == '_':
		return classIgnored
	case 'a' <= lower && lower <= 'z':
		return 1 + lower - 'a'
	}
	return classOther + c%4
}

// tail returns the classes of the last three bytes of s.
func (r *Redactor) tail(s string) int {
	s = s[len(s)-3:]
	return int(r.class[s[0]])<<10 | int(r.class[s[1]])<<5 | int(r.class[s[2]])
}

func (r *Redactor) addTail(name string) {
	tail := r.tail(`"` + name)
	r.tails[tail/64] |= 1 << (tail % 64)
}

// hasTail reports whether a key with its opening quote, at the end of text, may be a secret's; not if r.odd or the key is
// written with escapes.
func (r *Redactor) hasTail(text string) bool {
	if len(text) < 3 {
		return false
	}
	tail := r.tail(text)
	return r.tails[tail/64]&(1<<(tail%64)) != 0
}

// suspect reports whether the value of a key that is replaced may be in a JSON text, or in JSON that is in its strings. It
// never misses one unless r.odd, and looks only at what stands before a colon.
func (r *Redactor) suspect(text string) bool {
	if strings.Contains(text, `\u00`) { // only so can a letter be written in another way, however deep
		return true
	}
	for i := 0; ; i++ {
		n := strings.IndexByte(text[i:], ':')
		if n < 0 {
			return false
		}
		if i += n; i < 4 {
			continue
		}
		key, ok := text[:i-1], text[i-1] == '"'
		if text[i-2] == '\\' || text[i-1] <= ' ' {
			key, ok = beforeKeyEnd(text[:i])
		}
		if !ok {
			continue
		}
		if key == "" || r.hasTail(key) && r.secret(key[strings.LastIndexByte(key, '"')+1:]) != nil {
			return true
		}
	}
}

// beforeKeyEnd returns text, which a colon follows, without what ends a key: the quote, with white space after it, and
// backslashes before it if the key is within a string. It returns "" if that cannot be told, and false if no key ends there.
func beforeKeyEnd(text string) (key string, ok bool) {
	text = strings.TrimRight(text, whiteSpace)
	if strings.HasSuffix(text, `\n`) || strings.HasSuffix(text, `\r`) || strings.HasSuffix(text, `\t`) {
		return "", true // perhaps white space in JSON within a string
	}
	key, ok = strings.CutSuffix(text, `"`)
	return strings.TrimRight(key, `\`), ok
}

// secret returns what a key is if its value is to be replaced, else nil.
func (r *Redactor) secret(key string) *secretKey {
	if len(key) > maxKeyName {
		return nil
	}
	var lower, bare [maxKeyName]byte
	n, ascii := 0, true
	for i := range len(key) {
		c := key[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
		ascii = ascii && c < utf8.RuneSelf
		if c != '-' && c != '_' {
			bare[n] = c
			n++
		}
	}
	if len(r.named) > 0 {
		if k := r.named[string(lower[:len(key)])]; k != nil {
			return k
		}
		if r.foreign && !ascii {
			if k := r.named[strings.ToLower(key)]; k != nil {
				return k
			}
		}
	}
	return r.usual[string(bare[:n])]
}

// Message replaces the secrets in the JSON text of a message, a batch, or any other object or array, which must be valid.
// It returns text itself if there are none; all but secrets stays as it is, byte for byte. The jsonrpc, method and id of a
// message are replaced by a pointer only. JSON within strings is looked at too, by all rules but pointers.
func (r *Redactor) Message(text string) string {
	if r == nil || len(r.rules) == 0 || len(r.pointers) == 0 && len(r.matches) == 0 && !r.odd && !r.suspect(text) {
		return text
	}
	var room [16]*redactPointer
	w := redaction{r: r, text: text}
	return w.whole(place{alive: append(room[:0], r.pointers...), top: true})
}

// Text replaces the secrets in what is not JSON, or a string in JSON, decoded. Only matches of regular expressions are
// found in it, unless it holds JSON. Text that is not UTF-8 stays as it is.
func (r *Redactor) Text(s string) string {
	if r == nil || len(r.rules) == 0 || !utf8.ValidString(s) {
		return s
	}
	last := s
	for range maxMatchRounds {
		next := last
		if holdsJSON(next) {
			w := redaction{r: r, text: next}
			next = w.whole(place{})
		}
		if len(r.matches) == 0 {
			return next
		}
		if next = r.replaceMatches(next); next == last {
			return next
		}
		// With placeholders in it the text may match where it did not before, as \b does.
		last = next
	}
	return r.placeholder("match", quote(s))
}

// holdsJSON reports whether s is the JSON text of an object or array.
func holdsJSON(s string) bool {
	t := strings.TrimLeft(s, whiteSpace)
	if t == "" || t[0] != '{' && t[0] != '[' {
		return false
	}
	scan := scanner{text: t}
	return scan.whole(0, -1, fieldNone) >= 0
}

// replaceMatches replaces what the regular expressions match in s, but for placeholders.
func (r *Redactor) replaceMatches(s string) string {
	var found [][]int
	for _, re := range r.matches {
		found = append(found, re.FindAllStringIndex(s, -1)...)
	}
	if found == nil {
		return s
	}
	slices.SortFunc(found, func(a, b []int) int { return cmp.Or(a[0]-b[0], a[1]-b[1]) })
	taken := placeholder.FindAllStringIndex(s, -1)
	var b strings.Builder
	done := 0
	replace := func(from, to int) {
		if from = max(from, done); from < to {
			b.WriteString(s[done:from])
			b.WriteString(r.placeholder("match", quote(s[from:to])))
			done = to
		}
	}
	for i := 0; i < len(found); {
		from, to := found[i][0], found[i][1]
		for i++; i < len(found) && found[i][0] < to; i++ { // matches of several rules that overlap are one
			to = max(to, found[i][1])
		}
		for len(taken) > 0 && taken[0][0] < to {
			if taken[0][1] > from {
				replace(from, taken[0][0])
				from = max(from, taken[0][1])
			}
			if taken[0][1] > to {
				break
			}
			taken = taken[1:]
		}
		replace(from, to)
	}
	return b.String() + s[done:]
}

// placeholder returns the placeholder of a value, given as its JSON text in the one form.
func (r *Redactor) placeholder(name, value string) string {
	mac := r.macs.Get().(hash.Hash)
	defer r.macs.Put(mac)
	mac.Reset()
	io.WriteString(mac, value)
	return "«redacted:" + name + ":" + hex.EncodeToString(mac.Sum(nil)[:8]) + "»"
}

// newTapeRedactor returns the Redactor with which a tape was written, nil if with none. userKey is the key of the user's
// file, nil if none was given; the key in a tape takes precedence.
func newTapeRedactor(h *TapeHeader, userKey []byte) (*Redactor, error) {
	if len(h.Redact) == 0 {
		return nil, nil
	}
	if len(h.Redact) > maxTapeRules {
		return nil, fmt.Errorf("header of the tape: more than %d redaction rules", maxTapeRules)
	}
	var rules []RedactRule
	if !slices.Contains(h.Redact, ruleDefault) {
		rules = append(rules, RedactRule{source: ruleNone})
	}
	for _, s := range h.Redact {
		rule, err := ParseRedactRule(s)
		if err != nil {
			return nil, fmt.Errorf("header of the tape: %w", err)
		}
		rules = append(rules, rule)
	}
	key := userKey
	if h.Key != "" {
		var err error
		if key, err = hex.DecodeString(h.Key); err != nil {
			return nil, fmt.Errorf("header of the tape: key: %w", err)
		}
	} else if len(key) == 0 {
		return nil, errors.New("the tape was redacted with a key that is not in it: give its file with -redact-key")
	}
	return NewRedactor(rules, key), nil
}
