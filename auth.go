// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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
	Log *slog.Logger // told when the file is read again, or cannot be; nil for nobody. Set it before the first User

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
	t := &Tokens{path: path, checked: time.Now()}
	if err := t.read(); err != nil {
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
	info, err := os.Stat(t.path)
	switch {
	case err != nil:
	case info.ModTime().Equal(t.seen.ModTime()) && info.Size() == t.seen.Size() && os.SameFile(info, t.seen):
		t.said = ""
		return t.lines
	default:
		err = t.read()
	}
	switch {
	case err == nil:
		t.said = ""
		if t.Log != nil {
			t.Log.Info("tokens read again", "file", t.path, "tokens", len(t.lines))
		}
	case err.Error() != t.said:
		t.said = err.Error()
		if t.Log != nil {
			t.Log.Error("tokens stay as they were", "err", err)
		}
	}
	return t.lines
}

// read reads the file. It needs mu, or t for itself.
func (t *Tokens) read() error {
	if info, err := os.Stat(t.path); err != nil {
		return err
	} else if !info.Mode().IsRegular() { // to open a pipe could block
		return fmt.Errorf("%s: not a regular file", t.path)
	}
	f, err := os.Open(t.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat() // before reading, so that a change meanwhile is seen next time
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTokensFile+1))
	if err != nil {
		return err
	}
	t.seen = info
	lines, err := parseTokens(text)
	if err != nil {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	t.lines = lines
	return nil
}

// parseTokens returns the lines of a tokens file.
func parseTokens(text []byte) ([]tokenLine, error) {
	if len(text) > maxTokensFile {
		return nil, fmt.Errorf("more than %d bytes", maxTokensFile)
	}
	var lines []tokenLine
	first := make(map[[sha256.Size]byte]int)
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, digits, _ := bytes.Cut(line, []byte(":"))
		l := tokenLine{name: string(name)}
		if checkName(l.name) != nil || len(digits) != 2*sha256.Size {
			return nil, fmt.Errorf("line %d: not a name, a colon, and %d hexadecimal digits", n, 2*sha256.Size)
		}
		if _, err := hex.Decode(l.sum[:], digits); err != nil {
			return nil, fmt.Errorf("line %d: not %d hexadecimal digits after the colon", n, 2*sha256.Size)
		}
		if at, twice := first[l.sum]; twice {
			return nil, fmt.Errorf("line %d: same token as line %d", n, at)
		}
		first[l.sum] = n
		lines = append(lines, l)
	}
	return lines, nil
}

// checkName returns what is wrong with a user's name.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("user name is empty")
	case name[0] == '#':
		return errors.New("user name starts with #, which makes a line a comment")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r == ' ' || r == ':' || !unicode.IsPrint(r) }):
		return fmt.Errorf("user name %q: only visible characters without ':' are allowed", name)
	}
	return nil
}

// newToken returns a new token for name, 256 bits at random, and its line for the file, without a
// line end. The prefix lets secret scanners know it.
func newToken(name string) (token, line string, err error) {
	if err := checkName(name); err != nil {
		return "", "", err
	}
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", "", err
	}
	token = "mcpp_" + base64.RawURLEncoding.EncodeToString(b[:])
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
	trust := func(p netip.Prefix) bool { return p.Contains(client) }
	if !ok || !slices.ContainsFunc(trusted, trust) {
		return client
	}
	for i := len(forwarded) - 1; i >= 0; i-- {
		for rest, more := forwarded[i], true; more; {
			last := rest
			if c := strings.LastIndexByte(rest, ','); c >= 0 {
				rest, last = rest[:c], rest[c+1:]
			} else {
				more = false
			}
			next, ok := parseIP(strings.Trim(last, " \t"))
			if !ok {
				return client
			}
			if client = next; !slices.ContainsFunc(trusted, trust) {
				return client
			}
		}
	}
	return client
}

// parseIP reads an address, with or without a port.
func parseIP(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil && strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		a, err = netip.ParseAddr(s[1 : len(s)-1])
	}
	if err != nil {
		var p netip.AddrPort
		if p, err = netip.ParseAddrPort(s); err != nil {
			return netip.Addr{}, false
		}
		a = p.Addr()
	}
	return a.Unmap().WithZone(""), true
}
