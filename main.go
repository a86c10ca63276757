// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// version is raised in the commit that releases it. A copy of the folder in another module keeps it.
const version = "0.1.0"

func main() {
	tuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, os.Args[1:], os.LookupEnv, stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// tuneMemory trades memory for time: the heap of a proxy is small and short-lived, and collecting it
// as often as by default took a quarter of the processor time of a 10 KB message from stdio to stdio.
// GOGC and GOMEMLIMIT have the last word.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(1 << 30)
	}
}

// stdio is what the program reads and writes.
type stdio struct {
	in  io.Reader
	out io.WriteCloser
	err io.Writer
}

// run does what args ask for and returns the exit status: 0 done, 1 failed, 2 misused, 3 the server to
// verify could not be run, 4 not a valid tape.
func run(ctx context.Context, args []string, env func(string) (string, bool), std stdio) int {
	c, err := ParseConfig(args, env)
	var help *HelpRequest
	switch {
	case errors.As(err, &help):
		fmt.Fprint(std.out, help.Text)
		return 0
	case err != nil:
		return exitStatus(err, std.err)
	}
	switch c.Mode {
	case "token":
		if err = printToken(c.Args[0], std); err != nil {
			fmt.Fprintf(std.err, "mcpproxy: %v\n", err)
			return 2
		}
	case "demo":
		err = serveDemo(ctx, std.in, std.out)
		if ctx.Err() != nil {
			err = nil
		}
	case "verify":
		err = runVerify(ctx, c, std)
	case "explain":
		err = runExplain(ctx, c, std)
	case "tape":
		err = runTape(ctx, c, std)
	default:
		err = forward(ctx, c, std)
	}
	return exitStatus(err, std.err)
}

// exitStatus says what went wrong and returns the status that stands for it.
func exitStatus(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	if err == errFound {
		return 1
	}
	var misuse *UsageError
	if errors.As(err, &misuse) {
		for _, problem := range misuse.Problems {
			fmt.Fprintf(stderr, "mcpproxy: %s\n", problem)
		}
		fmt.Fprintln(stderr, misuse.Hint)
		return 2
	}
	fmt.Fprintf(stderr, "mcpproxy: %v\n", err)
	var tape *TapeError
	var server *VerifyServerError
	switch {
	case errors.As(err, &tape), errors.Is(err, errNoTape):
		return 4
	case errors.As(err, &server):
		return 3
	}
	return 1
}

// versionText is what -version prints. The revision is named only when it is the program's own, not
// that of a module which holds a copy.
func versionText() string {
	text := "mcpproxy " + version
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path == "mcpproxy" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				text += " (" + s.Value[:min(12, len(s.Value))] + ")"
			}
		}
	}
	return text + "\n"
}

// printToken makes a token for a user of -auth-tokens.
func printToken(name string, std stdio) error {
	token, line, err := newToken(name)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.err, "The token, for the client; it is shown this once:\n")
	fmt.Fprintln(std.out, token)
	fmt.Fprintf(std.err, "The line for the file that -auth-tokens names:\n")
	fmt.Fprintln(std.out, line)
	return nil
}

func newLogger(c *Config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		// What a peer wrote as an id or a name may be as long as a message.
		if a.Value.Kind() == slog.KindString && len(a.Value.String()) > maxLogged {
			a.Value = slog.StringValue(a.Value.String()[:maxLogged] + " [cut]")
		}
		return a
	}}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// maxLogged is how much of one value is logged, in bytes: a line of a server's stderr is.
const maxLogged = stderrLine + 16

// A closingDialer has something of its own that must be closed when all sessions have ended.
type closingDialer interface {
	Dialer
	Close() error
}

// forward stands between clients and a server until ctx ends or the one client is gone.
func forward(ctx context.Context, c *Config, std stdio) (err error) {
	log := newLogger(c, std.err)
	var listener net.Listener
	if c.Listen != "" {
		if listener, err = net.Listen("tcp", c.Listen); err != nil {
			return fmt.Errorf("-listen: %w", err)
		}
		defer listener.Close()
	}
	front := &httpFront{
		Log: log, Command: c.URL == nil, Max: c.MaxMessage,
		TrustedProxies: c.TrustedProxies, Hosts: c.AllowHosts, Origins: c.AllowOrigins,
	}
	if c.AuthTokens != "" {
		if front.Tokens, err = OpenTokens(c.AuthTokens); err != nil {
			return err
		}
		front.Tokens.Log = log
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var rec *Recorder
	if c.Tape != "" && (c.Mode != "replay" || c.OnMiss == "record") {
		if rec, err = openRecorder(ctx, c, log); err != nil {
			return err
		}
		rec.Fail = stop
		defer func() {
			if closed := rec.Close(); err == nil {
				err = closed
			}
		}()
	}
	dialer, err := newDialer(ctx, c, log, rec, std.err)
	if err != nil {
		return err
	}
	defer func() {
		if closed := dialer.Close(); err == nil {
			err = closed
		}
	}()
	chain, done, err := interceptors(ctx, c, rec, log)
	if err != nil {
		return err
	}
	defer done()
	bounds := Bounds{c.MaxSessions, c.MaxCalls, c.Idle, c.Lifetime, c.CallTimeout}
	front.Proxy = NewProxy(dialer, bounds, log, chain...)
	if rec != nil {
		rec.Attach(front.Proxy)
		defer rec.dumpOnSignal()()
	}
	if listener == nil {
		return serveStdio(ctx, front.Proxy, std.in, std.out, c.MaxMessage, c.Grace)
	}
	if c.Exposed() {
		log.Warn("anyone who can reach this address can use the server: see -auth-tokens", "address", c.Listen)
	}
	log.Info("listening", "url", "http://"+listener.Addr().String()+endpoint)
	return serveHTTP(ctx, front, listener, c.Grace)
}

// interceptors makes the chain that c asks for. rec may be nil. done ends what keeps it up to date, and waits for that.
func interceptors(ctx context.Context, c *Config, rec *Recorder, log *slog.Logger) (chain []Interceptor, done func(), err error) {
	done = func() {}
	if c.Mode == "replay" { // a Player knows what of a message is to be recorded
		rec = nil
	}
	if len(c.Limits) > 0 {
		chain = append(chain, limitInterceptor(NewLimiter(c.Limits), c.LimitStatus, c.LimitReport, log))
	}
	if c.Rules != "" {
		watch, err := OpenRules(c.Rules, log)
		if err != nil {
			return nil, nil, fmt.Errorf("-rules: %w", err)
		}
		watch.rules.Report = c.RulesReport
		if rec != nil {
			watch.rules.Noted, rec.Rules = rec.Noted, true
			chain = append(chain, rec.Changed)
		}
		chain = append(chain, watch.rules.Intercept)
		ctx, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { watch.Follow(ctx) }) // ends with ctx
		done = func() { stop(); wg.Wait() }
	}
	if rec != nil {
		chain = append(chain, rec.Intercept)
	}
	return chain, done, nil
}

// newDialer makes the way to the server that c names, or to the tape that stands in for it.
func newDialer(ctx context.Context, c *Config, log *slog.Logger, rec *Recorder, stderr io.Writer) (closingDialer, error) {
	if c.Mode == "replay" {
		return openReplay(ctx, c, log, rec, stderr)
	}
	return newServerDialer(c, log, rec)
}

// newServerDialer makes the way to the server that c names. rec may be nil.
func newServerDialer(c *Config, log *slog.Logger, rec *Recorder) (closingDialer, error) {
	switch {
	case c.URL != nil:
		d := newHTTPDialer(c.URL, c.CAs, c.MaxMessage, log)
		d.header, d.pass = c.Headers, map[string]bool{}
		for _, name := range c.PassHeaders {
			d.pass[name] = true
		}
		return d, nil
	case c.Demo:
		return newCommandDialer(recorded(startDemo, rec), c.MaxMessage, log), nil
	}
	// Not found is better said now than to the first client.
	if _, err := exec.LookPath(c.Stdio[0]); err != nil {
		return nil, fmt.Errorf("-stdio: %w", err)
	}
	sp := newSpawner()
	start := func() (*process, error) { return startChild(sp, c.Stdio, log, rec) }
	d := newCommandDialer(recorded(start, rec), c.MaxMessage, log)
	d.release = sp.Close
	return d, nil
}

// recorded returns a start function whose processes tell rec what no interceptor sees. rec may be nil.
func recorded(start func() (*process, error), rec *Recorder) func() (*process, error) {
	if rec == nil {
		return start
	}
	return func() (*process, error) {
		p, err := start()
		if err == nil {
			p.before = rec.Flush
			p.garbage = func(line string) { rec.Garbage(p.owner.Load(), line) }
			p.stray = func(m *Message, why string) { rec.Dropped(nil, m, why) }
		}
		return p, err
	}
}

// startChild runs the server as a child of the program. rec may be nil.
func startChild(sp *spawner, argv []string, log *slog.Logger, rec *Recorder) (*process, error) {
	p := &process{}
	heard := func(string) {}
	if rec != nil {
		heard = func(line string) { rec.Stderr(p.owner.Load(), line) }
	}
	child, err := sp.start(argv, log, heard)
	if err != nil {
		return nil, err
	}
	log.Debug("server started", "command", argv[0])
	var ending atomic.Bool // it did not end by itself
	p.in, p.out, p.done = child.In, child.Out, child.Done()
	p.end = func() { ending.Store(true); child.End() }
	p.status = sync.OnceValue(func() string {
		code, ok := child.Exit()
		crashed := !ending.Load() && (!ok || code != 0)
		switch {
		case crashed:
			log.Error("server ended", "status", child.Status(), "stderr", strings.Join(child.tail(), "\n"))
		case ending.Load():
			log.Info("server ended", "status", child.Status())
		}
		if rec != nil {
			rec.Exited(p.owner.Load(), child.Status(), crashed)
		}
		return child.Status()
	})
	return p, nil
}

// startDemo runs the built-in server in the program itself.
func startDemo() (*process, error) {
	serverIn, in := io.Pipe()
	out, serverOut := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with its input, or with ctx
		defer close(done)
		err := serveDemo(ctx, serverIn, serverOut)
		serverIn.CloseWithError(io.ErrClosedPipe)
		serverOut.CloseWithError(err)
	}()
	return &process{in: in, out: out, done: done, status: func() string { return "exit status 0" }, end: func() {
		in.Close()
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			cancel()
			out.Close()
			<-done
		}
		cancel()
	}}, nil
}
