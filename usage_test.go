// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestConfigHelp(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"-h", usageGeneral},
		{"-help", usageGeneral},
		{"--help", usageGeneral},
		{"help", usageGeneral},
		{"help|nothing", usageGeneral},
		{"help|forward", usageForward},
		{"help|demo", usageDemo},
		{"-mode=token|-h", usageToken},
		{"demo|-h", usageDemo},
		{"-h|demo", usageDemo},
		{"forward|-listen|-h|-nonsense", usageForward},
		{"-version", versionText()},
		{"forward|--version", versionText()},
	} {
		var h *HelpRequest
		if _, err := parseConfigIn("", test.args, ""); !errors.As(err, &h) || h.Text != test.want {
			t.Errorf("%s: got %v, want %s", test.args, err, test.want)
		}
	}
	for _, test := range []struct{ args, want string }{
		{"", strings.TrimSuffix(usageGeneral, "\n")},
		{"forward", "see: mcpproxy help forward"},
		{"-demo", "see: mcpproxy help"},
	} {
		var e *UsageError
		if _, err := parseConfigIn("", test.args, ""); !errors.As(err, &e) || e.Hint != test.want || !strings.HasSuffix(err.Error(), "\n"+test.want) {
			t.Errorf("%q: got %v, want the hint %s", test.args, err, test.want)
		}
	}
}

func TestUsagePages(t *testing.T) {
	table := settings(defaultConfig(), os.LookupEnv)
	flag := regexp.MustCompile(`(?:^|[\s\[(])-([a-z][a-z-]+)`)
	pages := map[string]string{"": usageGeneral}
	var names []string
	for _, m := range modes() {
		names = append(names, m.name)
		pages[m.name] = m.page
		if !strings.HasPrefix(m.page, "mcpproxy -mode="+m.name+" ") || !strings.Contains(usageGeneral, "\n    "+m.name+" ") {
			t.Errorf("%s: want it at the start of its page and in the general one", m.name)
		}
		for name, s := range table {
			line := regexp.MustCompile(`(?m)^  -` + strings.TrimRight(name+" "+regexp.QuoteMeta(s.arg), " ") + `( |$)`)
			taken, there := s.group != "" && m.takes(s.group), line.MatchString(m.page)
			for _, see := range regexp.MustCompile(`mcpproxy help ([a-z]+)`).FindAllStringSubmatch(m.page, -1) {
				there = there || taken && line.MatchString(findMode(see[1]).page)
			}
			if there != taken {
				t.Errorf("%s: -%s %s on its page or one that it names: got %v, want %v", m.name, name, s.arg, there, taken)
			}
		}
	}
	if got := strings.ReplaceAll(modeNames, " or ", ", "); got != strings.Join(names, ", ") {
		t.Errorf("got %s, want %s", got, names)
	}
	for name, page := range pages {
		lines := strings.Split(strings.TrimSuffix(page, "\n"), "\n")
		if len(lines) > 40 {
			t.Errorf("%q: got %d lines, want at most 40", name, len(lines))
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > 92 || strings.TrimRight(line, " ") != line || strings.Contains(line, "\t") {
				t.Errorf("%q: got %q, want at most 92 columns, no tabs, no spaces at the end", name, line)
			}
		}
		for _, m := range flag.FindAllStringSubmatch(page, -1) {
			if m[1] != "version" && table[m[1]].set == nil {
				t.Errorf("%q: got -%s, want flags of the table", name, m[1])
			}
		}
	}
}

// What the pages give in parentheses as defaults, set as values, must change nothing.
func TestUsageDefaults(t *testing.T) {
	seen := 0
	for _, m := range modes() {
		for _, found := range regexp.MustCompile(`(?m)^  -([a-z-]+) .*\(([0-9A-Za-z]+)\)$`).FindAllStringSubmatch(m.page, -1) {
			c := defaultConfig()
			if err := settings(c, os.LookupEnv)[found[1]].set(found[2]); err != nil {
				t.Errorf("%s: %v", found[0], err)
			}
			if got, want := fmt.Sprintf("%+v", c), fmt.Sprintf("%+v", defaultConfig()); got != want {
				t.Errorf("%s: got %s, want %s", found[0], got, want)
			}
			seen++
		}
	}
	if seen != 19 {
		t.Errorf("got %d defaults, want 19", seen)
	}
}

// The commands after a $ on the pages must be right but for the files they name.
func TestUsageExamples(t *testing.T) {
	dir := configFiles(t, map[string]string{"tokens": "", "rules.json": `{"version": 1, "rules": []}`})
	seen := 0
	for _, page := range []string{usageGeneral, usageForward, usageRecord, usageReplay, usageVerify, usageExplain, usageTape, usageDemo, usageToken} {
		for _, found := range regexp.MustCompile(`(?m)^    \$ mcpproxy (.*)$`).FindAllStringSubmatch(page, -1) {
			line := strings.NewReplacer(" tokens", " DIR/tokens", "rules.json", "DIR/rules.json", "-auth-tokens FILE", "-auth-tokens DIR/tokens", "-url URL", "-url http://a",
				"'Authorization: env:AUTH'", "Authorization:env:AUTH").Replace(found[1])
			if _, err := parseConfigIn(dir, strings.ReplaceAll(line, " ", "|"), "AUTH=x"); err != nil {
				t.Errorf("%s: %v", found[1], err)
			}
			seen++
		}
	}
	if seen != 19 {
		t.Errorf("got %d examples, want 19", seen)
	}
}
