// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"net/netip"
	"regexp"
	"time"
)

// A Rule is one rule of a rule file: what it does with the messages that meet all its conditions.
type Rule struct {
	Name string // as the file has it, or "rule 3" for the third; no two rules have the same
	Line int    // of the file
	When Condition
	Action
}

// A Condition is what a message must meet: all fields that are not zero, and of a list one element. Strings are patterns of
// [matchesName].
type Condition struct {
	Methods    []string // of the message, or of the call that a response answers
	Tools      []string // tools/call
	Prompts    []string // prompts/get, and completion/complete about a prompt
	URIs       []string // of a resource, whatever is done with it
	Dirs       []Direction
	Users      []string
	Sessions   []string // ids towards the client; - is the one on stdio
	IPs        []netip.Prefix
	Transports []string // stdio or http, of the client
	Revisions  []string
	Where      []Demand
	Every      int64    // of the messages that meet the above, each one with this number
	Chance     *float64 // of those, this part: from 0 to 1
	Seed       *uint64  // of the chance; nil for another one at each start of the program
	First      int64    // of those, so many, and no more

	texts map[string]string // of each of these, its JSON text in the file, for people
}

// A Demand is what a value of a message must be.
type Demand struct {
	At    rulePath
	Match *regexp.Regexp // of a string, decoded, or the JSON text of a number, true or false; nil if Value counts
	Value string         // JSON text, in the form of encodeJSON
}

// An actionKind is a word of the rule file.
type actionKind uint8

const (
	actAllow actionKind = iota
	actDeny
	actRequire
	actSet
	actRemove
	actReplace
	actAnswer
	actDelay
	actFault
	actLog
	actTag
)

// actionWords returns the words of all kinds, in their order.
func actionWords() []string {
	return []string{"allow", "deny", "require", "set", "remove", "replace", "answer", "delay", "fault", "log", "tag"}
}

// String is the word.
func (k actionKind) String() string { return actionWords()[k] }

// ends reports whether a rule of this kind that meets a message is the last to do so.
func (k actionKind) ends() bool {
	return k == actAllow || k == actDeny || k == actRequire || k == actAnswer || k == actFault
}

// What goes wrong when a rule says fault.
const (
	faultDrop       = "drop"       // the message is lost
	faultTimeout    = "timeout"    // as if the call had taken too long
	faultDisconnect = "disconnect" // the connection to the client breaks
	faultMalformed  = "malformed"  // the message breaks off in the middle
	faultDuplicate  = "duplicate"  // it comes twice
	faultError      = "error"      // the call fails with a code
)

// An Action is what a rule does. Kind says which of the other fields count.
type Action struct {
	Kind    actionKind
	Text    string       // deny: for the client; log: for the log; tag: the word
	Demands []Demand     // require: each value that is there must be so, and there must be one
	Set     []Assignment // in the order of the file
	Remove  []rulePath
	Replace *textReplacer
	In      rulePath // replace: nil for all strings
	Result  string   // answer: JSON text; "" for an error
	Failure string   // answer: JSON text of an error object
	Delay   time.Duration
	Fault   string
	Code    int // fault error: of JSON-RPC
}

// An Assignment is a value that a rule puts into a message.
type Assignment struct {
	At    rulePath
	Value string // JSON text
}

// A RuleSet is a rule file.
type RuleSet struct {
	Deny  bool // calls and notifications that no rule allows are denied
	Rules []*Rule
}
