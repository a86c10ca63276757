// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	stderrLine = 8 << 10 // bytes of a line of stderr that are logged
	stderrTail = 10      // lines of stderr that are kept
	pipeMost   = 1 << 20 // bytes in a pipe at most: the limit of Linux for unprivileged processes, other systems have less
)

// A spawner starts children, all from one operating system thread, which lives as long as the spawner: on Linux a
// child gets its parent-death signal when the thread that forked it ends, even if the program goes on. One program on
// a slow disk delays those that are started after it. A spawner may be used concurrently.
type spawner struct {
	calls chan func() // unbuffered
	quit  chan struct{}
	wg    sync.WaitGroup

	// How long End waits after closing stdin, then after asking for termination; and how long after a child's end its
	// output is waited for.
	closeWait, termWait, pipeWait time.Duration
}

// newSpawner returns a spawner, which the caller has to close.
func newSpawner() *spawner {
	s := &spawner{
		calls: make(chan func()), quit: make(chan struct{}),
		closeWait: 2 * time.Second, termWait: 3 * time.Second, pipeWait: time.Second,
	}
	s.wg.Go(s.run)
	return s
}

// run never gives up its thread: with the goroutine the thread ends too.
func (s *spawner) run() {
	runtime.LockOSThread()
	for {
		select {
		case f := <-s.calls:
			f()
		case <-s.quit:
			return
		}
	}
}

// Close ends the thread. It may be called once, after all children have ended: on Linux any that is left is killed.
func (s *spawner) Close() {
	close(s.quit)
	s.wg.Wait()
}

// call runs f on the spawner's thread.
func (s *spawner) call(f func() error) error {
	err := make(chan error, 1)
	select {
	case s.calls <- func() { err <- f() }:
		return <-err
	case <-s.quit:
		return errors.New("spawner is closed")
	}
}

// A Child is the process of a server, in a process group (on Windows: a job) of its own. When the process ends, what
// is left of its group is killed.
type Child struct {
	// In is the server's stdin. It is closed by End and when the process ends, which also ends a blocked Write.
	In *os.File
	// Out is the server's stdout, for one reader, who closes it. What the process wrote can be read after its end too.
	// Then comes io.EOF, even if a process outside the group still holds the pipe.
	Out io.ReadCloser

	s       *spawner
	cmd     *exec.Cmd
	group   group
	log     *slog.Logger
	done    chan struct{}
	drained chan struct{} // closed when stderr has been read out
	end     sync.Once

	mu   sync.Mutex // protects following
	gone bool       // reaped: pid and group may belong to someone else
	last []string   // the last lines of stderr
}

// start runs the command argv as it stands, without a shell; a name without a slash is looked up in PATH (on Windows
// with the endings in PATHEXT too, so that `npx` finds npx.cmd). What the server writes to stderr is logged on log,
// which must not be nil, and handed to heard. The caller owns the Child: it ends it with End, and reads Out to its end and
// closes it.
func (s *spawner) start(argv []string, log *slog.Logger, heard func(line string)) (*Child, error) {
	if len(argv) == 0 {
		return nil, errors.New("command is empty")
	}
	// Not cmd.StdoutPipe: Wait closes that one and what has not been read yet is lost.
	inR, in, err1 := os.Pipe()
	out, outW, err2 := os.Pipe()
	stderr, stderrW, err3 := os.Pipe()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = inR, outW, stderrW, procAttr()
	err := cmp.Or(err1, err2, err3)
	if err == nil {
		err = s.call(cmd.Start)
	}
	closeAll(inR, outW, stderrW)
	if err != nil {
		closeAll(in, out, stderr)
		if e := (*exec.Error)(nil); errors.As(err, &e) {
			err = e.Err // without the name, which is there already
		}
		return nil, fmt.Errorf("command %q: %w", argv[0], err)
	}
	c := &Child{
		In: in, Out: &childOut{f: out, left: pipeMost},
		s: s, cmd: cmd, group: newGroup(cmd.Process), log: log.With("pid", cmd.Process.Pid),
		done: make(chan struct{}), drained: make(chan struct{}),
	}
	go c.drain(stderr, heard)
	go c.wait(out, stderr)
	return c, nil
}

// closeAll closes what is not nil.
func closeAll(files ...*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// wait reaps the process and ends what belongs to it. The system unblocks it when the process ends.
func (c *Child) wait(stdout, stderr *os.File) {
	defer close(c.done)
	awaitEnd(c.cmd)
	c.mu.Lock()
	c.group.release()
	c.cmd.Wait() // an error is in ProcessState too, or says that awaitEnd has reaped already
	c.gone = true
	c.mu.Unlock()
	c.In.Close()
	// The reader gets an end of file of its own if nobody outside the group holds the pipe. Windows has no deadlines
	// for pipes, but a job that nobody can leave.
	stdout.SetReadDeadline(time.Now().Add(c.s.pipeWait))
	select {
	case <-c.drained:
	case <-time.After(c.s.pipeWait):
	}
	stderr.Close() // ends drain if it still reads
}

// Done is closed when the process has been reaped and its stderr read out. A process outside the group that holds
// stderr open delays that by a second at most; what it writes later is lost.
func (c *Child) Done() <-chan struct{} { return c.done }

// End ends the server in the steps of the specification (basic/lifecycle, Shutdown; since 2026-07-28
// basic/transports/stdio): it closes stdin, terminates the group if that did not help within two seconds, and kills it
// after three more. It returns when Done is closed. It may be called more than once, also concurrently.
func (c *Child) End() {
	c.end.Do(func() {
		c.In.Close()
		c.signalAfter(c.s.closeWait, "server still ran after its stdin was closed: terminated", c.group.terminate)
		c.signalAfter(c.s.termWait, "server still ran after it was asked to terminate: killed", c.group.kill)
	})
	<-c.done
}

// signalAfter calls f and logs why if the server still runs after d. It is not called once the process has been reaped:
// its numbers may belong to another one then.
func (c *Child) signalAfter(d time.Duration, why string, f func()) {
	select {
	case <-c.done:
		return
	case <-time.After(d):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		f()
		c.log.Info(why)
	}
}

// Status says in words for people how the process ended: "exit status 3", "signal: killed"; "running" before Done.
func (c *Child) Status() string {
	select {
	case <-c.done:
		return c.cmd.ProcessState.String()
	default:
		return "running"
	}
}

// Exit returns the exit status. It is not ok before Done, or if a signal ended the process.
func (c *Child) Exit() (code int, ok bool) {
	select {
	case <-c.done:
		code = c.cmd.ProcessState.ExitCode()
		return code, code != -1
	default:
		return -1, false
	}
}

// tail returns the last lines that the server wrote to stderr, ten at most, as they were logged. After Done it is
// complete.
func (c *Child) tail() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.last)
}

// drain logs what the server writes to stderr until its end: a server whose stderr nobody reads would block. MCP,
// stdio: the client "SHOULD NOT assume stderr output indicates error conditions", hence the level.
func (c *Child) drain(stderr io.Reader, heard func(string)) {
	defer close(c.drained)
	b := bufio.NewReaderSize(stderr, stderrLine+len("\r\n"))
	for {
		text, err := b.ReadSlice('\n')
		line := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = b.ReadSlice('\n')
		}
		if len(line) > stderrLine {
			line = line[:stderrLine] + " [cut]"
		}
		if line != "" {
			line = strings.ToValidUTF8(line, "?")
			c.log.Info("server stderr", "line", line)
			heard(line)
			c.mu.Lock()
			c.last = append(c.last[max(0, len(c.last)-stderrTail+1):], line)
			c.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// A childOut reads a server's stdout. Once the read deadline of f, which is set when the process has ended, is over,
// it reads only what is in the pipe: a reader that a slow client has held up still gets all the process wrote, and
// nobody else who has the pipe keeps it from the end.
type childOut struct {
	f    *os.File
	late bool // the deadline is over
	left int  // bytes that may be read when late
}

func (o *childOut) Read(p []byte) (int, error) {
	if !o.late {
		n, err := o.f.Read(p)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		o.late = true
	}
	c, err := o.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	// Not by a new deadline: on a busy machine it can be over before the read begins.
	n := 0
	if c.Control(func(fd uintptr) { n = readNow(fd, p[:min(len(p), o.left)]) }) != nil {
		return 0, os.ErrClosed
	}
	if n <= 0 {
		return 0, io.EOF // whatever the process wrote has been read
	}
	o.left -= n
	return n, nil
}

// Close may be called more than once, and ends a blocked Read.
func (o *childOut) Close() error { return o.f.Close() }
