// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// An Outcome is what became of a recorded call.
type Outcome string

const (
	outcomeMatch   Outcome = "MATCH"       // the answer says the same
	outcomeChanged Outcome = "CHANGED"     // it says something else
	outcomeShape   Outcome = "ERROR-SHAPE" // one is an error and the other is not, or another one
	outcomeMissing Outcome = "MISSING"     // there was none
	outcomeExtra   Outcome = "EXTRA"       // the server said more than on the tape before it
	outcomeSkipped Outcome = "SKIPPED"     // the call was not made
	outcomeTimeout Outcome = "TIMEOUT"     // the answer did not come in time
)

const (
	maxValueShown = 200      // characters of a value in the text of a report
	maxValueKept  = 16 << 10 // bytes of a value in a report
	maxDiffShown  = 20       // differences of one call in the text of a report
)

// A VerifyReport is what came out of Verify. It has a small record of each call; only those that differ have more.
type VerifyReport struct {
	Tape     string          `json:"tape"`
	Eras     []string        `json:"eras"` // that the server was spoken to in
	Counts   map[Outcome]int `json:"counts"`
	Compared int             `json:"compared"` // calls
	Ignored  int             `json:"ignored"`  // differences that -ignore covered
	Carried  int             `json:"carried"`  // values in answers that the server made up and later calls used
	Checks   []*VerifyCheck  `json:"checks"`
	Warnings []string        `json:"warnings,omitempty"` // of the tape

	words map[string]string // so that a report keeps no lines of the tape
}

// A VerifyCheck is what became of one call.
type VerifyCheck struct {
	Seq         int64              `json:"seq"` // of the call on the tape; 0 for what belongs to none
	Session     int64              `json:"session"`
	Method      string             `json:"method"`
	Name        string             `json:"name,omitempty"` // of the tool or prompt, or the uri
	Outcome     Outcome            `json:"outcome"`
	Grade       string             `json:"grade,omitempty"` // of what tools/list answers: the worst of the differences
	Reason      string             `json:"reason,omitempty"`
	Took        time.Duration      `json:"ns"`
	Extra       []string           `json:"extra,omitempty"` // what the server said in addition
	Differences []VerifyDifference `json:"differences,omitempty"`

	failed Outcome      // why nothing was compared, "" if it was
	diffs  []Difference // until the session is over, as is extra
	extra  []string
}

// A VerifyDifference is one place where the answers differ. Was is recorded, Is live; nil is absent.
type VerifyDifference struct {
	At    string          `json:"at"`
	Was   json.RawMessage `json:"was,omitempty"`
	Is    json.RawMessage `json:"is,omitempty"`
	Grade string          `json:"grade,omitempty"`
}

// word returns s, in memory of its own that is shared by all that are equal.
func (r *VerifyReport) word(s string) string {
	w, ok := r.words[s]
	if !ok {
		if r.words == nil {
			r.words = map[string]string{}
		}
		w = strings.Clone(s[:min(len(s), maxValueKept)])
		r.words[w] = w
	}
	return w
}

// finish decides on a call, when the session is over and it is known which values were carried over, and puts it into
// the report.
func (t *verifyTalk) finish(c *VerifyCheck) {
	r := t.v.report
	c.Outcome = cmp.Or(c.failed, outcomeMatch)
	for _, d := range c.diffs {
		if c.failed != "" || t.carried.equal(d.At, d.A, d.B) {
			continue
		}
		at, grade := d.At.String(), gradeTool(d)
		if c.Method != "tools/list" {
			grade = ""
		}
		c.Grade = worse(c.Grade, grade)
		c.Differences = append(c.Differences, VerifyDifference{at, keptJSON(d.A), keptJSON(d.B), grade})
		switch {
		case at == "/result" || at == "/error" || at == "/error/code" || at == "/result/isError":
			c.Outcome = outcomeShape
		case c.Outcome == outcomeMatch:
			c.Outcome = outcomeChanged
		}
	}
	if c.failed == "" {
		c.Extra = c.extra
	}
	if len(c.Extra) > 0 && c.Outcome == outcomeMatch {
		c.Outcome = outcomeExtra
	}
	c.diffs, c.extra = nil, nil
	r.Checks = append(r.Checks, c)
	r.Counts[c.Outcome]++
	if c.Outcome != outcomeSkipped && c.Seq != 0 {
		r.Compared++
	}
}

// Code is the exit status: 0 if nothing drifted, 1 if something did, or if nothing was compared.
func (r *VerifyReport) Code() int {
	return btoi(r.Compared == 0 || r.Counts[outcomeMatch]+r.Counts[outcomeSkipped] != len(r.Checks))
}

// keptJSON is a value in a report; nil if it is absent. A large one is cut, and then a string.
func keptJSON(v any) json.RawMessage {
	if v == (absent{}) {
		return nil
	}
	text := encodeJSON(v)
	if len(text) > maxValueKept {
		text = quote(strings.ToValidUTF8(text[:maxValueKept], "") + "…")
	}
	return json.RawMessage(text)
}

// JSON is the report as a JSON text.
func (r *VerifyReport) JSON() []byte {
	text, err := json.MarshalIndent(struct {
		Summary string `json:"summary"`
		Code    int    `json:"code"`
		*VerifyReport
	}{r.Summary(), r.Code(), r}, "", "  ")
	if err != nil {
		panic(err) // all of it can be encoded
	}
	return append(text, '\n')
}

// what names a call.
func (c *VerifyCheck) what() string { return strings.TrimSpace(c.Method + " " + c.Name) }

// where says where on the tape a call is.
func (c *VerifyCheck) where() string {
	place := fmt.Sprintf("session %d", c.Session)
	if c.Session == 0 {
		place = "no session"
	}
	if c.Seq == 0 {
		return place
	}
	return fmt.Sprintf("seq %d, %s", c.Seq, place)
}

// details are the lines that say what is wrong with a call.
func (c *VerifyCheck) details() string {
	var b strings.Builder
	if c.Reason != "" {
		fmt.Fprintf(&b, "    %s\n", c.Reason)
	}
	for i, d := range c.Differences {
		if i == maxDiffShown {
			fmt.Fprintf(&b, "    and %d more\n", len(c.Differences)-i)
			break
		}
		grade := ""
		if d.Grade != "" {
			grade = " (" + d.Grade + ")"
		}
		was, is := shownPair(d.Was, d.Is)
		fmt.Fprintf(&b, "    %s%s\n      was %s\n      is  %s\n", d.At, grade, was, is)
	}
	if len(c.Extra) > 0 {
		fmt.Fprintf(&b, "    not on the tape: %s\n", strings.Join(c.Extra, ", "))
	}
	return b.String()
}

// shownPair is two values for people: shortened to where they differ.
func shownPair(was, is json.RawMessage) (string, string) {
	a, b := string(was), string(is)
	if a == "" || b == "" {
		return shownFrom(cmp.Or(a, "absent"), 0), shownFrom(cmp.Or(b, "absent"), 0)
	}
	same := 0
	for same < min(len(a), len(b)) && a[same] == b[same] {
		same++
	}
	from := 0
	if same > maxValueShown/2 && max(len(a), len(b)) > maxValueShown {
		for from = same - maxValueShown/4; !utf8.RuneStart(a[from]); from-- {
		}
	}
	return shownFrom(a, from), shownFrom(b, from)
}

// shownFrom is a part of a text that begins at from.
func shownFrom(text string, from int) string {
	r := []rune(text[from:])
	text = string(r[:min(len(r), maxValueShown)])
	if len(r) > maxValueShown {
		text += "…"
	}
	if from > 0 {
		text = "…" + text
	}
	return text
}

// Text is the report for people: what differs, what was skipped, and a last line with the counts.
func (r *VerifyReport) Text() string {
	var b strings.Builder
	skipped := map[string]int{}
	for _, c := range r.Checks {
		switch c.Outcome {
		case outcomeMatch:
		case outcomeSkipped:
			skipped[c.what()+": "+c.Reason]++
		default:
			grade := ""
			if c.Grade != "" {
				grade = ", " + c.Grade
			}
			fmt.Fprintf(&b, "%-11s %s (%s%s)\n%s", c.Outcome, c.what(), c.where(), grade, c.details())
		}
	}
	for _, what := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(&b, "%-11s %d × %s\n", outcomeSkipped, skipped[what], what)
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", warning)
	}
	b.WriteString(r.Summary() + "\n")
	return b.String()
}

// Summary is the report in one line.
func (r *VerifyReport) Summary() string {
	var counts []string
	for _, o := range [...]Outcome{outcomeMatch, outcomeChanged, outcomeShape, outcomeMissing, outcomeExtra, outcomeTimeout, outcomeSkipped} {
		if n := r.Counts[o]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, o))
		}
	}
	verdict := "drift"
	switch {
	case r.Compared == 0:
		verdict = "nothing was compared, so nothing is known"
	case r.Code() == 0:
		verdict = "no drift"
	}
	text := verdict + ": " + cmp.Or(strings.Join(counts, ", "), "no calls on the tape")
	if r.Carried > 0 {
		text += fmt.Sprintf("; values carried over: %d", r.Carried)
	}
	if r.Ignored > 0 {
		text += fmt.Sprintf("; differences ignored: %d", r.Ignored)
	}
	return text
}

// The parts of a JUnit report, as CI systems read them.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string      `xml:"name,attr"`
		Class   string      `xml:"classname,attr"`
		Seconds string      `xml:"time,attr"`
		Failure *junitFault `xml:"failure"`
		Error   *junitFault `xml:"error"`
		Skipped *junitFault `xml:"skipped"`
	}
	junitFault struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// add adds a case to the suite and to its counts.
func (s *junitSuite) add(c junitCase) {
	s.Cases = append(s.Cases, c)
	s.Tests++
	s.Failures += btoi(c.Failure != nil)
	s.Errors += btoi(c.Error != nil)
	s.Skipped += btoi(c.Skipped != nil)
}

// JUnit is the report as JUnit XML: a suite for each session, a case for each call, and a failure of its own if nothing
// was compared.
func (r *VerifyReport) JUnit() []byte {
	all := junitSuites{Name: "mcpproxy verify " + r.Tape}
	bySession := map[int64]int{}
	suite := func(session int64, name string) *junitSuite {
		i, ok := bySession[session]
		if !ok {
			i = len(all.Suites)
			bySession[session] = i
			all.Suites = append(all.Suites, junitSuite{Name: name})
		}
		return &all.Suites[i]
	}
	for _, c := range r.Checks {
		name := fmt.Sprintf("session %d", c.Session)
		if c.Session == 0 {
			name = "no session"
		}
		one := junitCase{Name: fmt.Sprintf("%s #%d", c.what(), c.Seq), Class: c.Method, Seconds: fmt.Sprintf("%.3f", c.Took.Seconds())}
		fault := &junitFault{Message: cmp.Or(c.Reason, string(c.Outcome)), Type: string(c.Outcome), Text: c.details()}
		switch c.Outcome {
		case outcomeMatch:
		case outcomeSkipped:
			one.Skipped = &junitFault{Message: c.Reason}
		case outcomeMissing, outcomeTimeout:
			one.Error = fault
		default:
			one.Failure = fault
		}
		suite(c.Session, name).add(one)
	}
	if r.Compared == 0 {
		suite(-1, "verify").add(junitCase{Name: "anything compared", Class: "verify", Seconds: "0.000",
			Failure: &junitFault{Message: r.Summary(), Type: "NOTHING"}})
	}
	for _, s := range all.Suites {
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Errors += s.Errors
		all.Skipped += s.Skipped
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		panic(err) // all of it can be encoded
	}
	b.WriteByte('\n')
	return b.Bytes()
}
