// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxTokensFile = 4 << 20     // bytes, some 50,000 tokens
	tokensCheck   = time.Second // between two looks at the file
)

// Tokens are the users that bearer tokens stand for, from a file with a line for each token:
//
//	name:64 hexadecimal digits of the token's SHA-256
//
// Blank lines and lines that start with # say nothing. A name may have several lines. The file is
// read again after it changed; one that cannot be read or has a mistake leaves all tokens as they
// were. A file without any token is no mistake: it shuts everybody out. [OpenTokens] makes Tokens;
// they may be used concurrently.
type Tokens struct {
	Log *slog.Logger // told when the file is read again, or cannot be. Set it before the first User

	path    string
	mu      sync.Mutex // protects following
	checked time.Time  // when the file was last looked at
	seen    os.FileInfo
	said    string // the last complaint, not to be repeated each second
	lines   []tokenLine
}

type tokenLine struct {
	name string
	sum  [sha256.Size]byte
}

// OpenTokens reads the file at path. An error names the file and the line and shows nothing of what
// it says there, which may be a token put in the wrong place.
func OpenTokens(path string) (*Tokens, error) {
	t := &Tokens{Log: slog.New(slog.DiscardHandler), path: path, checked: time.Now()}
	if _, err := t.read(); err != nil {
		return nil, err
	}
	return t, nil
}

// User returns the name that token stands for. How long that takes depends on the number of lines
// and the length of token, not on which line, if any, is right.
func (t *Tokens) User(token string) (name string, ok bool) {
	sum := sha256.Sum256([]byte(token))
	found := -1
	lines := t.current(time.Now())
	for i := range lines {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(lines[i].sum[:], sum[:]), i, found)
	}
	if found < 0 {
		return "", false
	}
	return lines[found].name, true
}

// current returns the lines as of now. They are not to be changed.
func (t *Tokens) current(now time.Time) []tokenLine {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := now.Sub(t.checked); 0 <= d && d < tokensCheck {
		return t.lines
	}
	t.checked = now
	changed, err := t.read()
	said := fmt.Sprint(err)
	if changed {
		t.Log.Info("tokens read again", "file", t.path, "tokens", len(t.lines))
	} else if err != nil && said != t.said {
		t.Log.Error("tokens stay as they were", "err", err)
	}
	t.said = said
	return t.lines
}

// read reads the file if it has changed. It needs mu, or t for itself.
func (t *Tokens) read() (changed bool, err error) {
	info, err := os.Stat(t.path) // before reading, so that a change meanwhile is seen next time
	switch {
	case err != nil:
		return false, err
	case !info.Mode().IsRegular(): // to open a pipe could block
		return false, fmt.Errorf("%s: not a regular file", t.path)
	case info.Size() > maxTokensFile:
		return false, fmt.Errorf("%s: more than %d bytes", t.path, maxTokensFile)
	case t.seen != nil && info.ModTime().Equal(t.seen.ModTime()) && info.Size() == t.seen.Size() && os.SameFile(info, t.seen):
		return false, nil
	}
	text, err := os.ReadFile(t.path)
	if err != nil {
		return false, err
	}
	lines, err := parseTokens(string(text))
	if err != nil {
		return false, fmt.Errorf("%s: %w", t.path, err)
	}
	_ = os.SameFile(info, info) // Windows looks a file up when it is first compared: do that now
	t.seen, t.lines = info, lines
	return true, nil
}

// parseTokens returns the lines of a tokens file.
func parseTokens(text string) ([]tokenLine, error) {
	var lines []tokenLine
	first := make(map[[sha256.Size]byte]int) // line of each token
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, digits, _ := strings.Cut(line, ":")
		sum, err := hex.DecodeString(digits)
		if checkName(name) != nil || err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("line %d: not a name, a colon, and %d hexadecimal digits", i+1, 2*sha256.Size)
		}
		l := tokenLine{name, [sha256.Size]byte(sum)}
		if at := first[l.sum]; at > 0 {
			return nil, fmt.Errorf("line %d: same token as line %d", i+1, at)
		}
		first[l.sum] = i + 1
		lines = append(lines, l)
	}
	return lines, nil
}

// checkName returns what is wrong with a user's name.
func checkName(name string) error {
	hidden := func(r rune) bool { return r == ' ' || r == ':' || r == utf8.RuneError || !unicode.IsPrint(r) }
	if name == "" || name[0] == '#' || strings.ContainsFunc(name, hidden) {
		return fmt.Errorf("user name %q: want visible characters without ':', the first one not '#'", name)
	}
	return nil
}

// newToken returns a new token for name, 130 bits at random, and its line for the file, without a
// line end. The prefix lets secret scanners know it.
func newToken(name string) (token, line string, err error) {
	if err := checkName(name); err != nil {
		return "", "", err
	}
	token = "mcpp_" + rand.Text()
	return token, fmt.Sprintf("%s:%x", name, sha256.Sum256([]byte(token))), nil
}

// bearer returns the token in the value of an Authorization header (RFC 6750, 2.1), and whether it
// is one. The scheme is in any case (RFC 9110, 11.1). A token is visible ASCII.
func bearer(header string) (token string, ok bool) {
	scheme, token, ok := strings.Cut(header, " ")
	token = strings.Trim(token, " ")
	if !ok || token == "" || !strings.EqualFold(scheme, "Bearer") ||
		strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", false
	}
	return token, true
}

// clientIP returns the address of the client, without a zone and with IPv4 as such, or the zero Addr
// if remote, the connection's other end, has none. forwarded has the X-Forwarded-For headers in
// order. Each proxy adds the address it was spoken to from on the right, and a client may write what
// it likes to the left of that: so they are read from the right, as long as trusted proxies wrote
// them, and end with the first address that is none of these, or before what is no address.
func clientIP(remote string, forwarded []string, trusted []netip.Prefix) netip.Addr {
	client, ok := parseIP(remote)
	rest := strings.Join(forwarded, ",")
	for ok && slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(client) }) {
		i := strings.LastIndexByte(rest, ',')
		var next netip.Addr
		if next, ok = parseIP(strings.Trim(rest[i+1:], " \t")); ok {
			client, rest = next, rest[:max(i, 0)]
		}
	}
	return client
}

// parseIP reads an address, with or without a port.
func parseIP(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		var p netip.AddrPort
		p, err = netip.ParseAddrPort(s)
		a = p.Addr()
	}
	return a.Unmap().WithZone(""), err == nil
}
