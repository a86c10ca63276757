// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
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
	// Interrupted says that there are more calls on the tape.
	Interrupted bool     `json:"interrupted,omitempty"`
	Warnings    []string `json:"warnings,omitempty"` // of the tape
}

// A VerifyCheck is what became of one call.
type VerifyCheck struct {
	Seq         int64              `json:"seq"` // of the call on the tape; 0 for what belongs to none
	Session     int64              `json:"session"`
	Method      string             `json:"method"`
	Name        string             `json:"name,omitempty"`  // of the tool or prompt, or the uri
	Outcome     Outcome            `json:"outcome"`         // until the session is over "" for what was compared
	Grade       string             `json:"grade,omitempty"` // of what tools/list answers: the worst of the differences
	Reason      string             `json:"reason,omitempty"`
	Took        time.Duration      `json:"ns"`
	Extra       []string           `json:"extra,omitempty"` // what the server said in addition
	Differences []VerifyDifference `json:"differences,omitempty"`

	diffs []Difference // until the session is over
}

// A VerifyDifference is one place where the answers differ. Was is recorded, Is live; nil is absent.
type VerifyDifference struct {
	At    string          `json:"at"`
	Was   json.RawMessage `json:"was,omitempty"`
	Is    json.RawMessage `json:"is,omitempty"`
	Grade string          `json:"grade,omitempty"`
}

// fail notes that nothing was compared, and why.
func (c *VerifyCheck) fail(o Outcome, reason string) { c.Outcome, c.Reason = o, reason }

// finish decides on a call, when the session is over and it is known which values were carried over, and puts it into
// the report.
func (t *verifyTalk) finish(c *VerifyCheck) {
	r := t.v.report
	if c.Outcome == "" {
		c.Outcome = outcomeMatch
		if len(c.Extra) > 0 {
			c.Outcome = outcomeExtra
		}
		for _, d := range c.diffs {
			if !t.carried.equal(d.At, d.A, d.B) {
				c.differ(d)
			}
		}
	}
	c.diffs = nil
	r.Checks = append(r.Checks, c)
	r.Counts[c.Outcome]++
	if c.Outcome != outcomeSkipped && c.Seq != 0 {
		r.Compared++
	}
}

// differ adds a difference to what is reported of a call.
func (c *VerifyCheck) differ(d Difference) {
	grade := ""
	if c.Method == "tools/list" {
		grade = gradeTool(d)
	}
	c.Grade = worse(c.Grade, grade)
	at := d.At.String()
	c.Differences = append(c.Differences, VerifyDifference{at, keptJSON(d.A), keptJSON(d.B), grade})
	switch at {
	case "/result", "/error", "/error/code", "/result/isError":
		c.Outcome = outcomeShape
	default:
		if c.Outcome != outcomeShape {
			c.Outcome = outcomeChanged
		}
	}
}

// Code is the exit status: 0 if nothing drifted, 1 if something did, or if nothing was compared, or not all.
func (r *VerifyReport) Code() int {
	return btoi(r.Interrupted || r.Compared == 0 || r.Counts[outcomeMatch]+r.Counts[outcomeSkipped] != len(r.Checks))
}

// keptJSON is a value in a report; nil if it is absent. A large one is cut, and then a string.
func keptJSON(v any) json.RawMessage {
	text := rawJSON(v)
	if len(text) > maxValueKept {
		text = json.RawMessage(quote(strings.ToValidUTF8(string(text[:maxValueKept]), "") + "…"))
	}
	return text
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
func (c *VerifyCheck) what() string { return joined(c.Method, c.Name) }

// where is the session of a call.
func (c *VerifyCheck) where() string {
	if c.Session == 0 {
		return "no session"
	}
	return fmt.Sprintf("session %d", c.Session)
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
		was, is := shownPair(cmp.Or(string(d.Was), "absent"), cmp.Or(string(d.Is), "absent"))
		fmt.Fprintf(&b, "    %s%s\n      was %s\n      is  %s\n", d.At, inBrackets(d.Grade), was, is)
	}
	if len(c.Extra) > 0 {
		fmt.Fprintf(&b, "    not on the tape: %s\n", strings.Join(c.Extra, ", "))
	}
	return b.String()
}

func inBrackets(grade string) string {
	if grade == "" {
		return ""
	}
	return " (" + grade + ")"
}

// shownPair is two values for people. Of long ones it is the part where they begin to differ.
func shownPair(was, is string) (string, string) {
	from := 0
	if max(len(was), len(is)) > maxValueShown {
		for from < min(len(was), len(is)) && was[from] == is[from] {
			from++
		}
		from = max(0, from-maxValueShown/4)
	}
	part := func(text string) string {
		if from > 0 {
			text = "…" + strings.ToValidUTF8(text[from:], "")
		}
		return printable(text, maxValueShown)
	}
	return part(was), part(is)
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
			fmt.Fprintf(&b, "%-11s %s (seq %d, %s)%s\n%s", c.Outcome, c.what(), c.Seq, c.where(), inBrackets(c.Grade), c.details())
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
	case r.Interrupted:
		verdict = "interrupted, so nothing is known of the rest"
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
		XMLName xml.Name   `xml:"testsuites"`
		Suite   junitSuite `xml:"testsuite"`
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
		Text    string `xml:",chardata"`
	}
)

// JUnit is the report as JUnit XML: a case for each call, whose class is its session, and a failure of its own if nothing
// was compared, or not all.
func (r *VerifyReport) JUnit() []byte {
	suite := junitSuite{Name: "mcpproxy verify " + r.Tape}
	for _, c := range r.Checks {
		one := junitCase{Name: fmt.Sprintf("%s #%d", c.what(), c.Seq), Class: c.where(), Seconds: fmt.Sprintf("%.3f", c.Took.Seconds())}
		fault := &junitFault{cmp.Or(c.Reason, string(c.Outcome)), c.details()}
		switch c.Outcome {
		case outcomeMatch:
		case outcomeSkipped:
			one.Skipped = fault
			suite.Skipped++
		case outcomeMissing, outcomeTimeout:
			one.Error = fault
			suite.Errors++
		default:
			one.Failure = fault
			suite.Failures++
		}
		suite.Cases = append(suite.Cases, one)
	}
	if r.Compared == 0 || r.Interrupted {
		suite.Cases = append(suite.Cases, junitCase{Name: "all compared", Class: "verify", Seconds: "0", Failure: &junitFault{Message: r.Summary()}})
		suite.Failures++
	}
	suite.Tests = len(suite.Cases)
	text, err := xml.MarshalIndent(junitSuites{Suite: suite}, "", "  ")
	if err != nil {
		panic(err) // all of it can be encoded
	}
	return append([]byte(xml.Header), append(text, '\n')...)
}
