// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What follows is a statement of policy: the program stays auditable. Change the program to meet it.
const (
	policyLicence = "// SPDX-FileCopyrightText: 2026 The mcpproxy authors\n// SPDX-License-Identifier: MIT\n"

	policyFunctionLines = 70
	policyFileLines     = 500
	policyTotalLines    = 20900
)

func TestPolicy(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) < 10 {
		t.Fatalf("got %d files, %v, want the program's", len(names), err)
	}
	total := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		problems, lines := policyCheck(name, string(text))
		for _, p := range problems {
			t.Error(p)
		}
		total += lines
	}
	t.Run("total", func(t *testing.T) {
		if total > policyTotalLines {
			t.Errorf("got %d lines without tests, want at most %d", total, policyTotalLines)
		}
	})
}

func TestPolicyModule(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		switch directive, _, _ := strings.Cut(strings.TrimSpace(line), " "); directive {
		case "", "module", "go":
		default:
			t.Errorf("go.mod: got %q, want only module and go", line)
		}
	}
	if _, err := os.Stat("go.sum"); err == nil {
		t.Error("got a go.sum, want no dependencies")
	}
}

// policyCheck returns what is wrong with a file, and how many lines of the program it has.
func policyCheck(name, text string) (problems []string, lines int) {
	complain := func(format string, args ...any) {
		problems = append(problems, name+": "+fmt.Sprintf(format, args...))
	}
	if !strings.HasPrefix(text, policyLicence) {
		complain("does not begin with the two licence lines")
	}
	if strings.HasSuffix(name, "_test.go") {
		return problems, 0
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments)
	if err != nil {
		complain("%v", err)
		return problems, 0
	}
	line := func(p token.Pos) int { return set.Position(p).Line }
	if lines = strings.Count(text, "\n"); lines > policyFileLines {
		complain("got %d lines, want at most %d", lines, policyFileLines)
	}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") || path == "C" {
			complain("imports %s, which is not in the standard library", path)
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if n := line(d.End()) - line(d.Pos()) + 1; n > policyFunctionLines {
				complain("function %s: got %d lines, want at most %d", d.Name.Name, n, policyFunctionLines)
			}
			if d.Recv == nil && d.Name.Name == "init" {
				complain("has an init function")
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				if v := spec.(*ast.ValueSpec); !policyVariable(d, v) {
					complain("line %d: package variable %v", line(v.Pos()), v.Names)
				}
			}
		}
	}
	return problems, lines
}

// policyVariable reports whether a package may have the variables of v: errors to compare with, patterns,
// embedded files, and _.
func policyVariable(d *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{d.Doc, v.Doc} {
		if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") }) {
			return len(v.Values) == 0
		}
	}
	if slices.IndexFunc(v.Names, func(n *ast.Ident) bool { return n.Name != "_" }) < 0 {
		return true
	}
	for _, value := range v.Values {
		call, ok := value.(*ast.CallExpr)
		if !ok {
			return false
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := f.X.(*ast.Ident)
		if !ok {
			return false
		}
		switch from := pkg.Name + "." + f.Sel.Name; {
		case from == "regexp.MustCompile":
		case from == "errors.New" && strings.HasPrefix(strings.ToLower(v.Names[0].Name), "err"):
		default:
			return false
		}
	}
	return len(v.Values) > 0
}

// The policy is worth nothing if it finds nothing.
func TestPolicyFinds(t *testing.T) {
	long := strings.Repeat("\n", policyFunctionLines)
	for _, c := range []struct {
		body string
		want bool
	}{
		{``, false},
		{`import "net/http"`, false},
		{`import "golang.org/x/time/rate"`, true},
		{`import "C"`, true},
		{`var errA = errors.New("a")`, false},
		{"var (\n\terrA = errors.New(\"a\")\n\terrB = errors.New(\"b\")\n)", false},
		{`var pattern = regexp.MustCompile("a")`, false},
		{"//go:embed page.txt\nvar page string", false},
		{"// embedded\nvar page string", true},
		{"var _ Conn = (*lineConn)(nil)", false},
		{`var a int`, true},
		{`var a = map[string]int{}`, true},
		{`var errA = fmt.Errorf("a")`, true},
		{`var a = errors.New("a")`, true},
		{"func f() {\n\tvar a int\n\t_ = a\n}", false},
		{`func init() {}`, true},
		{`func (s *Session) init() {}`, false},
		{"func f() {" + long[2:] + "}", false},
		{"func f() {" + long + "}", true},
		{strings.Repeat("// a\n", policyFileLines), true},
	} {
		problems, _ := policyCheck("a.go", policyLicence+"\npackage main\n\n"+c.body+"\n")
		if got := len(problems) > 0; got != c.want {
			t.Errorf("%.60q: got %q, want problems: %v", c.body, problems, c.want)
		}
	}
	for _, name := range []string{"a.go", "a_test.go"} {
		if problems, _ := policyCheck(name, "package main\n"); len(problems) == 0 {
			t.Errorf("%s without licence: got no problem", name)
		}
	}
}
