// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
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
func runTape(ctx context.Context, c *Config, std stdio) error {
	var files [2]*os.File
	for i, path := range c.Args[1:] {
		f, err := openTape(path)
		if err != nil {
			return err
		}
		defer f.Close()
		defer closeOn(ctx, f)()
		files[i] = f
	}
	var out io.Writer = std.out
	finish := func(err error) error { return err }
	if c.Out != "" {
		f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("-out: %w", err)
		}
		out, finish = f, func(err error) error {
			if closed := f.Close(); err == nil {
				err = closed
			}
			if err != nil && err != errFound {
				os.Remove(c.Out) // there is no use for a part of it
			}
			return err
		}
	}
	err := applyTool(c, files, out, std.err)
	if ctx.Err() != nil {
		err = errInterrupted
	}
	return finish(err)
}

// closeOn closes f when ctx ends, with which reading it ends, unless stop is called before.
func closeOn(ctx context.Context, f *os.File) (stop func() bool) {
	return context.AfterFunc(ctx, func() { f.Close() })
}

// errInterrupted is the end of what a signal has ended before it was done.
var errInterrupted = errors.New("interrupted")

// applyTool writes what the tool that c asks for makes of files to out.
func applyTool(c *Config, files [2]*os.File, out, stderr io.Writer) error {
	in, name := files[0], c.Args[1]
	o := TapeToolOptions{JSON: c.JSON, Session: int64(c.Session), Method: c.Method, Exchange: int64(c.Exchange), Ignore: c.Ignore, Max: longestLine(c)}
	switch c.Args[0] {
	case "trim":
		return trimTape(in, name, out, o)
	case "diff":
		n, err := diffTapes(namedTape{name, in}, namedTape{c.Args[2], files[1]}, out, o)
		if err == nil && n > 0 {
			err = errFound
		}
		return err
	}
	return toolOf(c, stderr).run(in, name, out, o)
}

// toolOf returns the tool that c asks for, one of those that go through a tape once.
func toolOf(c *Config, stderr io.Writer) tapeTool {
	switch c.Args[0] {
	case "show":
		return showTape
	case "stat":
		return statTape
	case "check":
		return func(t *TapeReader, w *bufio.Writer, o TapeToolOptions) error {
			verdict, err := checkTape(t, w, o)
			if err == nil && verdict.Errors > 0 {
				err = errFound
			}
			return err
		}
	case "export":
		if c.HTML {
			return exportHTML
		}
		return exportHAR
	}
	return func(t *TapeReader, w *bufio.Writer, _ TapeToolOptions) error {
		err := redactTape(t, w, c.Redact, c.RedactKey)
		if err == nil {
			for _, warning := range t.Warnings() {
				fmt.Fprintf(stderr, "mcpproxy: warning: %s\n", warning)
			}
		}
		return err
	}
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
	if report == nil {
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
	switch {
	case report.Interrupted:
		return errors.New("interrupted: the report has what was compared until then, and nothing else may be concluded")
	case report.Code() != 0:
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
func openReplay(ctx context.Context, c *Config, log *slog.Logger, rec *Recorder, stderr io.Writer) (*replay, error) {
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
	stop := closeOn(ctx, f)
	if p.Player, err = OpenPlayer(f, c.Tape, o); err != nil {
		f.Close()
	}
	if !stop() {
		err = errInterrupted
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

// longestLine is how many bytes a line of a tape may have when a message may have so many: placeholders make it longer.
func longestLine(c *Config) int { return 8*min(c.MaxMessage, math.MaxInt/16) + 1<<20 }

// openRecorder makes the Recorder that c asks for, and its tape.
func openRecorder(ctx context.Context, c *Config, log *slog.Logger) (*Recorder, error) {
	file := &tapeFile{path: c.Tape, sync: c.TapeSync, rotate: int64(c.TapeRotate)}
	r := newRecorder(file, log)
	for _, rate := range c.TapeDumpOn {
		r.rates = append(r.rates, eventRate{DumpRate: rate})
	}
	r.Pass = c.TapeError == "pass"
	r.Max = longestLine(c)
	r.HTTP, r.Secrets = c.URL != nil, headerSecrets(c.Headers)
	r.Header.Client, r.Header.Server = "stdio", "stdio"
	if c.Listen != "" {
		r.Header.Client = "http"
	}
	if r.HTTP {
		r.Header.Server = "http"
	} else if c.Demo {
		r.Header.Server = "demo"
	}
	if err := r.openFile(ctx, c, file); err != nil {
		file.close()
		return nil, fmt.Errorf("-tape: %w", err)
	}
	return r, nil
}

// openFile opens file, for a new tape or for more of the one that is there.
func (r *Recorder) openFile(ctx context.Context, c *Config, file *tapeFile) (err error) {
	if _, missing := os.Stat(c.Tape); c.Mode == "replay" || c.TapeAppend && missing == nil {
		return r.reopenFile(ctx, c, file)
	}
	if r.Redact, err = widenRules(&r.Header, c.Redact, c.RedactKey); err != nil {
		return err
	}
	if c.TapeRing > 0 {
		r.ring = &tapeRing{size: c.TapeRing}
		file.other, file.sync = true, syncNever
		return nil
	}
	return file.create()
}

// reopenFile makes r go on with the tape that is in file, as it was redacted so far. It is called before the first message.
func (r *Recorder) reopenFile(ctx context.Context, c *Config, file *tapeFile) error {
	state, err := file.reopen(ctx, longestLine(c))
	if err != nil {
		return err
	}
	h := &state.header
	if c.Mode != "replay" && (!slices.Equal(h.Redact, NewRedactor(c.Redact, nil).Rules()) || h.Key != "" && c.RedactKey != nil) {
		return fmt.Errorf("%s was recorded with other -redact rules, or another -redact-key", c.Tape)
	}
	if r.Redact, err = newTapeRedactor(h, c.RedactKey); err != nil {
		return err
	}
	for _, warning := range state.warnings {
		r.Log.Warn(warning)
	}
	r.Header = state.header
	r.seq, r.counts = state.seq, state.counts
	now := time.Now()
	r.start = now.Add(-max(now.Sub(state.header.Created), state.t)) // unless the clock was set back meanwhile
	return nil
}
