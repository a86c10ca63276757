// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	exportBlock   = 128 << 10 // bytes of rows after which a block of them is written
	exportCaption = 200       // characters of a tool's name and the like
)

// exportPage is complete but for the tape, which follows it in blocks.
//
//go:embed export.html
var exportPage string

// exportHTML writes a page that shows a tape. The page fetches nothing, and what is on the tape is no more than text to
// it.
func exportHTML(t *TapeReader, w *bufio.Writer, o TapeToolOptions) error {
	w.WriteString(sealedPage())
	header := t.Header
	header.Key = "" // with it, what was redacted could be guessed
	b := exportBlocks{w: w}
	b.write(map[string]any{"name": filepath.Base(t.name), "header": header})
	if err := o.each(t, w, b.add); err != nil {
		return err
	}
	b.flush()
	warnings := []string{}
	for _, text := range t.Warnings() {
		warnings = append(warnings, strings.TrimPrefix(text, t.name+": "))
	}
	b.write(map[string]any{"warnings": warnings})
	return nil
}

// each hands the lines of t that are to be exported to f, which writes to w, up to the first error of one of the two. The
// end is not among them.
func (o TapeToolOptions) each(t *TapeReader, w *bufio.Writer, f func(*Entry)) error {
	return t.Each(func(e *Entry) error {
		if e.Kind != lineEnd && (o.Session == 0 || e.Session == o.Session) {
			f(e)
		}
		_, err := w.Write(nil) // w keeps its first error
		return err
	})
}

// sealedPage is the page, which allows itself any script, with its own as the only one allowed.
func sealedPage() string {
	_, script, _ := strings.Cut(exportPage, "<script>")
	script, _, _ = strings.Cut(script, "</script>")
	sum := sha256.Sum256([]byte(script))
	hash := "script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	return strings.Replace(exportPage, "script-src 'unsafe-inline'", hash, 1)
}

// exportBlocks writes JSON in blocks that a browser does not look into. json.Marshal escapes <, >, &, U+2028 and
// U+2029, raw JSON included, so that nothing in a block can end it.
type exportBlocks struct {
	w    *bufio.Writer
	rows []any
	size int // of their lines
}

func (b *exportBlocks) write(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // all of it can be encoded
	}
	b.w.WriteString("<script type=\"application/json\">")
	b.w.Write(text)
	b.w.WriteString("</script>\n")
}

// add adds a row: the line without its message, what it is about, and the message's text as a string, which a browser
// gives back to the byte.
func (b *exportBlocks) add(e *Entry) {
	line := *e
	line.Msg = ""
	b.rows = append(b.rows, []any{json.RawMessage(appendEntry(nil, &line)), captionOf(e), e.Msg})
	if b.size += e.Size; b.size >= exportBlock {
		b.flush()
	}
}

// flush writes the rows that wait.
func (b *exportBlocks) flush() {
	if b.rows != nil {
		b.write(b.rows)
	}
	b.rows, b.size = nil, 0
}

// A caption says in a few words what a line of a tape is about. Its fields may be empty.
type caption struct {
	What   string `json:"what,omitempty"` // call, notification, response or batch
	Method string `json:"method,omitempty"`
	Name   string `json:"name,omitempty"`  // of the tool or prompt, or the uri
	Fault  string `json:"fault,omitempty"` // why the line tells of an error
}

func captionOf(e *Entry) caption {
	var c caption
	switch {
	case e.Kind == lineExit && e.Text != "exit status 0":
		c.Fault = e.Text
	case e.Kind == lineMsg:
		c = captionOfMessage(e.Msg)
	case e.Kind == lineDropped && e.Msg != "":
		c.Method = captionOfMessage(e.Msg).Method // its error, if it is one, reached nobody
		return c
	}
	if e.Status >= 400 {
		if c.Fault != "" {
			c.Fault += ", "
		}
		c.Fault += "HTTP " + strconv.Itoa(e.Status)
	}
	return c
}

func captionOfMessage(text string) caption {
	m, err := Parse(text)
	if err == errBatch {
		return caption{What: "batch"}
	}
	var fault *ParseError
	if errors.As(err, &fault) {
		return caption{Fault: "no JSON-RPC: " + fault.Reason}
	}
	c := caption{Method: clipped(m.Method, exportCaption), Name: clipped(m.Name+m.URI, exportCaption)}
	switch {
	case m.Kind == Call:
		c.What = "call"
	case m.Kind == Notification:
		c.What = "notification"
	default:
		c.What = "response"
		if m.Error != "" {
			message, _ := unquote(member(m.Error, "message"))
			c.Fault = clipped("error "+member(m.Error, "code")+" "+message, exportCaption)
		} else if isErrorResult(m) {
			var result struct{ Content []struct{ Text string } }
			c.Fault = "isError"
			if json.Unmarshal([]byte(m.Result), &result) == nil && len(result.Content) > 0 {
				c.Fault = clipped("isError: "+result.Content[0].Text, exportCaption)
			}
		}
	}
	return c
}
