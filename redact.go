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
//	key=NAME             the value of every member called NAME, in any case and whatever - and _ there are
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
	keys     map[string]*secretKey // by what bareKey makes of them
	pointers []redactPointer
	matches  []*regexp.Regexp
	macs     sync.Pool // of hash.Hash

	odd   bool          // keys has one that suspect would not see, or that a message has
	tails [1 << 16]bool // what tail makes of keys
}

// A secretKey is a key whose value is replaced.
type secretKey struct {
	name  string // in placeholders
	whole bool   // any value is replaced, not just strings, numbers, and arrays that hold nothing else
}

// A redactPointer leads to a value that is replaced.
type redactPointer struct {
	rest Pointer
	name string
}

// NewRedactor returns a Redactor for rules, and for the usual names of secrets unless none is among the rules.
func NewRedactor(rules []RedactRule, key []byte) *Redactor {
	r := &Redactor{keys: map[string]*secretKey{}}
	r.macs.New = func() any { return hmac.New(sha256.New, key) }
	if !slices.ContainsFunc(rules, func(rule RedactRule) bool { return rule.source == ruleNone }) {
		r.rules = append(r.rules, ruleDefault)
		for _, name := range strings.Fields(usualNames) {
			r.add(name, false)
		}
	}
	for _, rule := range rules {
		switch {
		case rule.match != nil:
			r.matches = append(r.matches, rule.match)
		case rule.at != nil:
			r.pointers = append(r.pointers, redactPointer{rule.at, pointerName(rule.at)})
		case rule.key != "":
			r.add(rule.key, true)
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

func (r *Redactor) add(key string, whole bool) {
	bare := string(bareKey(nil, key))
	r.keys[bare] = &secretKey{placeholderName(key), whole}
	r.tails[tail(key)] = true
	r.odd = r.odd || isMember(bare) || strings.ContainsFunc(key, func(c rune) bool { // it may be written with a \, or another byte
		return c < ' ' || c >= utf8.RuneSelf || strings.ContainsRune(`"\/`, c)
	})
}

// pointerName is the last token that names something.
func pointerName(at Pointer) string {
	for _, token := range slices.Backward(at) {
		if token != "*" {
			return placeholderName(token)
		}
	}
	return placeholderName("")
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

// bareKey appends key in lower case to dst, without - and _.
func bareKey(dst []byte, key string) []byte {
	for _, c := range key {
		switch {
		case c == '-' || c == '_':
		case 'A' <= c && c <= 'Z':
			dst = append(dst, byte(c)|0x20)
		case c < utf8.RuneSelf:
			dst = append(dst, byte(c))
		default:
			if lower := unicode.ToLower(c); lower >= utf8.RuneSelf { // the sign of the kelvin is no k
				c = lower
			}
			dst = utf8.AppendRune(dst, c)
		}
	}
	return dst
}

// tail is a number for the last three letters of the key with which text ends, the same in any case and whatever - and _
// there are. Others may have it, too. Text may begin before the key, with a quote between.
func tail(text string) (n uint16) {
	if i := len(text) - 3; i >= 0 && min(text[i], text[i+1], text[i+2]) > '_' { // as nearly all
		return 1<<15 | uint16(text[i+2]&31)<<10 | uint16(text[i+1]&31)<<5 | uint16(text[i]&31)
	}
	n = 1
	for i := len(text) - 1; i >= 0 && n < 1<<15 && text[i] != '"'; i-- {
		if c := text[i]; c != '-' && c != '_' {
			n = n<<5 | uint16(c&31)
		}
	}
	return n
}

// secret returns what a key is if its value is to be replaced, else nil.
func (r *Redactor) secret(key string) *secretKey {
	if len(key) > maxKeyName || !r.odd && !r.tails[tail(key)] {
		return nil
	}
	var room [2 * maxKeyName]byte
	return r.keys[string(bareKey(room[:0], key))]
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
		if i += n; i < 2 {
			continue
		}
		switch end := text[i-1]; {
		case end == '"':
			key := text[:i-1]
			if key[len(key)-1] == '\\' { // it is within a string
				key = strings.TrimRight(key, `\`)
			}
			if r.tails[tail(key)] && r.secret(key[strings.LastIndexByte(key, '"')+1:]) != nil {
				return true
			}
		case end <= ' ' || text[i-2] == '\\': // there may be white space behind a key
			return true
		}
	}
}

// spares reports whether it is certain, with a look at its params, result and error alone, that m stays as it is.
func (r *Redactor) spares(m *Message) bool {
	n := len(`{"jsonrpc":"2.0"}`)
	for _, part := range [...]struct{ key, value string }{
		{`,"id":`, m.ID}, {`,"method":""`, m.Method}, {`,"params":`, m.Params}, {`,"result":`, m.Result}, {`,"error":`, m.Error},
	} {
		if part.value != "" {
			n += len(part.key) + len(part.value)
		}
	}
	return n == len(m.Raw) && // else there is white space, an escape, or a member of another name
		len(r.pointers) == 0 && len(r.matches) == 0 && !r.odd && !r.suspect(m.Params) && !r.suspect(m.Result) && !r.suspect(m.Error)
}

// Message replaces the secrets in the JSON text of a message, a batch, or any other object or array, which must be valid.
// It returns text itself if there are none, or if it is ""; all but secrets stays as it is, byte for byte. The jsonrpc, method and id of a
// message are replaced by a pointer only. JSON within strings is looked at too, by all rules but pointers.
func (r *Redactor) Message(text string) string {
	if r == nil || text == "" || len(r.rules) == 0 || len(r.pointers) == 0 && len(r.matches) == 0 && !r.odd && !r.suspect(text) {
		return text
	}
	var room [16]redactPointer
	return r.walk(text, place{alive: append(room[:0], r.pointers...), top: true})
}

// Text replaces the secrets in what is not JSON, or a string in JSON, decoded. If it holds no JSON, the usual names and
// keys are found where a string or a number stands behind "name": as in JSON, and matches of regular expressions anyhow.
func (r *Redactor) Text(s string) string {
	if r == nil || len(r.rules) == 0 {
		return s
	}
	last := s
	for range maxMatchRounds {
		next := last
		if holdsJSON(next) {
			next = r.walk(next, place{})
		} else if r.odd || r.suspect(next) {
			next = r.loosely(next)
		}
		if len(r.matches) > 0 {
			next = r.replaceMatches(next)
		}
		if next == last {
			return next
		}
		// With placeholders in it the text may match where it did not before, as \b does, or hold JSON.
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

// replaceMatches replaces what the regular expressions match in s, but for placeholders. Matches that overlap are one.
func (r *Redactor) replaceMatches(s string) string {
	const (
		within = 1 + iota // a match
		begins
	)
	var marks []byte // of each byte of s
	for _, re := range r.matches {
		for _, match := range re.FindAllStringIndex(s, -1) {
			if marks == nil {
				marks = make([]byte, len(s))
			}
			for i := match[0]; i < match[1]; i++ {
				if marks[i] == 0 && i == match[0] {
					marks[i] = begins
				} else {
					marks[i] = max(marks[i], within)
				}
			}
		}
	}
	if marks == nil {
		return s
	}
	for _, at := range placeholder.FindAllStringIndex(s, -1) {
		clear(marks[at[0]:at[1]])
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		from := i
		if i++; marks[from] == 0 {
			b.WriteByte(s[from])
			continue
		}
		for i < len(s) && marks[i] == within {
			i++
		}
		b.WriteString(r.placeholder("match", quote(s[from:i])))
	}
	return b.String()
}

// placeholder returns the placeholder of a value, given as its JSON text in the one form.
func (r *Redactor) placeholder(name, value string) string {
	mac := r.macs.Get().(hash.Hash)
	defer r.macs.Put(mac)
	mac.Reset()
	io.WriteString(mac, value)
	return "«redacted:" + name + ":" + hex.EncodeToString(mac.Sum(nil)[:8]) + "»"
}

// mark returns the placeholder of a text, without an HMAC if r is nil.
func (r *Redactor) mark(name, text string) string {
	if r == nil {
		return "«redacted:" + name + "»"
	}
	return r.placeholder(name, quote(text))
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
