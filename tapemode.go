// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// errFound is the end of a mode that has found something and said so.
var errFound = errors.New("something was found")

// errNoTape is wrapped by the error of a tape that cannot be opened.
var errNoTape = errors.New("tape cannot be read")

func openTape(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errNoTape, err)
	}
	return f, nil
}

// runTape does what -mode=tape asks for.
func runTape(c *Config, std stdio) (err error) {
	var files [2]*os.File
	for i, path := range c.Args[1:] {
		if files[i], err = openTape(path); err != nil {
			return err
		}
		defer files[i].Close()
	}
	var out io.Writer = std.out
	if c.Out != "" {
		f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("-out: %w", err)
		}
		defer func() {
			if closed := f.Close(); err == nil {
				err = closed
			}
			if err != nil && err != errFound {
				os.Remove(c.Out) // there is no use for a part of it
			}
		}()
		out = f
	}
	in, name := files[0], c.Args[1]
	o := TapeToolOptions{JSON: c.JSON, Session: int64(c.Session), Method: c.Method, Exchange: int64(c.Exchange), Max: longestLine(c)}
	switch c.Args[0] {
	case "show":
		return showTape(in, name, out, o)
	case "stat":
		return statTape(in, name, out, o)
	case "check":
		verdict, err := checkTape(in, name, out, o)
		if err == nil && verdict.Errors > 0 {
			err = errFound
		}
		return err
	case "trim":
		return trimTape(in, name, out, o)
	case "diff":
		n, err := diffTapes(namedTape{c.Args[1], files[0]}, namedTape{c.Args[2], files[1]}, out, o)
		if err == nil && n > 0 {
			err = errFound
		}
		return err
	case "export":
		export := exportHAR
		if c.HTML {
			export = exportHTML
		}
		return export(in, name, out, ExportOptions{Session: o.Session, Max: o.Max})
	}
	return scrubTape(c, in, out, std.err)
}

// runVerify does what -mode=verify asks for.
func runVerify(ctx context.Context, c *Config, std stdio) error {
	log := newLogger(c, std.err)
	tape, err := openTape(c.Tape)
	if err != nil {
		return err
	}
	defer tape.Close()
	header, err := NewTapeReader(tape, c.Tape, longestLine(c))
	if err != nil {
		return err
	}
	redact, err := newTapeRedactor(&header.Header, c.RedactKey)
	if err != nil {
		return fmt.Errorf("-tape: %w", err)
	}
	dialer, err := newServerDialer(c, log, nil)
	if err != nil {
		return &VerifyServerError{err}
	}
	defer dialer.Close()
	report, err := Verify(ctx, tape, c.Tape, dialer, VerifyOptions{
		Ignore: c.Ignore, Same: c.Same, AllowDestructive: c.AllowDestructive, Allow: c.Allow, Timeout: c.CallTimeout,
		Max: c.MaxMessage, Redact: redact.Message, Log: log,
	})
	if err != nil {
		return err
	}
	if c.JUnit != "" {
		if err := os.WriteFile(c.JUnit, report.JUnit(), 0o600); err != nil {
			return fmt.Errorf("-junit: %w", err)
		}
	}
	if c.JSON {
		std.out.Write(report.JSON())
	} else {
		io.WriteString(std.out, report.Text())
	}
	if report.Code() != 0 {
		return errFound
	}
	return nil
}

// A replay is a Player with the server that gets what is not on its tape.
type replay struct {
	*Player
	server closingDialer // nil for none
	stderr io.Writer
}

// openReplay makes the Player that c asks for. rec is nil unless what the server says is to be recorded.
func openReplay(c *Config, log *slog.Logger, rec *Recorder, stderr io.Writer) (*replay, error) {
	o := PlayerOptions{
		Order: c.Order, Ignore: c.Ignore, OnExhausted: c.OnExhausted, Speed: c.Speed, FailUnused: c.FailUnused,
		RedactKey: c.RedactKey, Max: longestLine(c), Log: log,
	}
	p := &replay{stderr: stderr}
	if c.OnMiss != "error" {
		server, err := newServerDialer(c, log, rec)
		if err != nil {
			return nil, err
		}
		p.server, o.Server = server, server
	}
	if rec != nil {
		o.Record = rec.Intercept
	}
	var err error
	if c.Tape == "" {
		p.Player, err = OpenPlayer(strings.NewReader(demoTape), "the tape that is built in", o)
		return p, err
	}
	f, err := openTape(c.Tape)
	if err != nil {
		return nil, err
	}
	if p.Player, err = OpenPlayer(f, c.Tape, o); err != nil {
		f.Close()
	}
	return p, err
}

// Close says what became of the run.
func (p *replay) Close() error {
	text, ok := p.Report()
	p.Player.Close()
	if p.server != nil {
		p.server.Close()
	}
	io.WriteString(p.stderr, text)
	if !ok {
		return errFound
	}
	return nil
}

// scrubTape does -mode=tape redact.
func scrubTape(c *Config, in io.Reader, out, warnings io.Writer) error {
	t, err := NewTapeReader(in, c.Args[1], longestLine(c))
	if err == nil {
		err = redactTape(t, out, c.Redact, c.RedactKey)
	}
	if err == nil {
		for _, warning := range t.Warnings() {
			fmt.Fprintf(warnings, "mcpproxy: warning: %s\n", warning)
		}
	}
	return err
}

// longestLine is how many bytes a line of a tape may have when a message may have so many.
func longestLine(c *Config) int { return 2*c.MaxMessage + 1<<20 }

// openRecorder makes the Recorder that c asks for, and its tape.
func openRecorder(c *Config, log *slog.Logger) (*Recorder, error) {
	key := c.RedactKey
	if key == nil {
		key = make([]byte, 32)
		rand.Read(key) // never fails
	}
	var sink tapeSink
	var state *tapeState
	file, err := (*tapeFile)(nil), error(nil)
	switch _, missing := os.Stat(c.Tape); {
	case c.TapeRing > 0:
		file = &tapeFile{path: c.Tape, sync: c.TapeSync, n: 1}
		sink = &tapeRing{size: c.TapeRing, files: file}
	case c.Mode == "replay" || c.TapeAppend && missing == nil:
		file, state, err = reopenTape(c.Tape, c.TapeSync, int64(c.TapeRotate), longestLine(c))
		sink = file
	default:
		file, err = newTape(c.Tape, c.TapeSync, int64(c.TapeRotate))
		sink = file
	}
	if err != nil {
		return nil, fmt.Errorf("-tape: %w", err)
	}
	r := newRecorder(sink, log)
	r.ring, _ = sink.(*tapeRing)
	for _, rate := range c.TapeDumpOn {
		r.rates = append(r.rates, eventRate{DumpRate: rate})
	}
	r.Pass = c.TapeError == "pass"
	r.Header.Client, r.Header.Server = "stdio", "stdio"
	if c.Listen != "" {
		r.Header.Client = "http"
	}
	if c.URL != nil {
		r.Header.Server, r.HTTP = "http", true
	} else if c.Demo {
		r.Header.Server = "demo"
	}
	if state != nil && state.header.Key != "" && c.RedactKey == nil {
		if key, err = hex.DecodeString(state.header.Key); err != nil {
			return nil, fmt.Errorf("-tape: %s: key is not hexadecimal", c.Tape)
		}
	}
	if c.Mode == "replay" {
		if r.Redact, err = newTapeRedactor(&state.header, c.RedactKey); err != nil {
			return nil, fmt.Errorf("-tape: %w", err)
		}
		r.resume(state)
		return r, file.goOn()
	}
	if r.Redact = NewRedactor(c.Redact, key); r.Redact != nil {
		r.Header.Redact = r.Redact.Rules()
		if c.RedactKey == nil && len(r.Header.Redact) > 0 {
			r.Header.Key = hex.EncodeToString(key)
		}
	}
	if state == nil {
		return r, nil
	}
	if !slices.Equal(state.header.Redact, r.Header.Redact) || state.header.Key != r.Header.Key {
		return nil, errors.New("-tape-append: the tape was recorded with other -redact rules, or another -redact-key")
	}
	r.resume(state)
	return r, file.goOn()
}

// resume goes on with a tape. It is called before the first message.
func (r *Recorder) resume(state *tapeState) {
	r.Header, r.began = state.header, true
	r.seq, r.counts = state.seq, state.counts
	r.start = state.header.Created
	if now := time.Now(); now.Sub(r.start) < state.t { // the clock was set back
		r.start = now.Add(-state.t)
	}
}
