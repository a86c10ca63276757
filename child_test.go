// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

const procBurst = 3000 // bytes: they fit into any pipe

// procRoles are the servers of these tests: TestMain calls the one that MCPPROXY_TEST_CHILD names and exits with 0.
// None outlives a failed test by more than a minute.
func procRoles() map[string]func() {
	return map[string]func(){
		"proc-echo":  func() { io.Copy(os.Stdout, os.Stdin) },
		"proc-burst": func() { fmt.Print(strings.Repeat("x", procBurst)); os.Exit(3) },
		"proc-stderr": func() {
			for i := range 12 {
				fmt.Fprintf(os.Stderr, "line %d\n", i)
			}
			fmt.Fprint(os.Stderr, strings.Repeat("y", 9000)+"\r\n\nlast")
		},
		"proc-deaf": func() { // to the end of stdin and to SIGTERM
			signal.Ignore(syscall.SIGTERM)
			fmt.Println("ready")
			time.Sleep(time.Minute)
		},
		"proc-term": func() { // deaf to the end of stdin
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			fmt.Println("ready")
			<-c
			os.Exit(7)
		},
		"proc-hold":         func() { time.Sleep(time.Minute) },
		"proc-parent":       func() { procParent(false) },
		"proc-parent-leave": func() { procParent(true) },
		// Starts a child as the proxy does, says its pid and waits to be killed.
		"proc-spawner": func() {
			os.Setenv("MCPPROXY_TEST_CHILD", "proc-deaf")
			c, err := newSpawner().start(os.Args[:1], slog.New(slog.DiscardHandler), func(string) {})
			if err != nil {
				panic(err)
			}
			bufio.NewReader(c.Out).ReadString('\n') // deaf from here on
			fmt.Println(c.cmd.Process.Pid)
			time.Sleep(time.Minute)
		},
	}
}

// procParent starts the role in its argument, which inherits stdout and stderr, says its pid, and ends with stdin.
func procParent(leave bool) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MCPPROXY_TEST_CHILD="+os.Args[1])
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, &syscall.SysProcAttr{}
	if leave { // the field does not exist on Windows
		reflect.ValueOf(cmd.SysProcAttr).Elem().FieldByName("Setsid").SetBool(true)
	}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		panic(err)
	}
	fmt.Println(cmd.Process.Pid)
	in.Close()
	io.Copy(io.Discard, os.Stdin)
	fmt.Println("bye")
}

// procSpawner returns a spawner with times so short that tests need not wait.
func procSpawner(t testing.TB) *spawner {
	s := newSpawner()
	s.closeWait, s.termWait, s.pipeWait = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	t.Cleanup(s.Close)
	return s
}

func procStart(t testing.TB, s *spawner, log *slog.Logger, args ...string) *Child {
	t.Helper()
	t.Setenv("MCPPROXY_TEST_CHILD", args[0])
	c, err := s.start(append([]string{os.Args[0]}, args[1:]...), log, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.End()
		c.Out.Close()
	})
	return c
}

// procWithin fails the test if f does not return.
func procWithin(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: got nothing in 20 seconds", what)
	}
}

// procPoll fails the test if ok does not come true.
func procPoll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for stop := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(stop) {
			t.Fatalf("%s: not so after 20 seconds", what)
		}
	}
}

func procLine(t testing.TB, r *bufio.Reader) (line string) {
	t.Helper()
	procWithin(t, "read a line", func() { line, _ = r.ReadString('\n') })
	return strings.TrimSuffix(line, "\n")
}

func procPid(t testing.TB, r *bufio.Reader) int {
	t.Helper()
	line := procLine(t, r)
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatalf("got %q, want a pid", line)
	}
	return pid
}

// procAlive reports whether pid runs: one that nobody has reaped yet does not.
func procAlive(pid int) bool {
	if runtime.GOOS == "linux" {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, state, _ := strings.Cut(string(b), ") ")
		return err == nil && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
	}
	p, _ := os.FindProcess(pid)
	return p.Signal(syscall.Signal(0)) == nil
}

func procOnly(t testing.TB, linux bool) {
	if runtime.GOOS == "windows" || linux && runtime.GOOS != "linux" {
		t.Skip("not on " + runtime.GOOS)
	}
}

func procQuiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestChildEndsWithStdin(t *testing.T) {
	s := procSpawner(t)
	s.closeWait = 20 * time.Second
	c := procStart(t, s, procQuiet(), "proc-echo")
	c.In.WriteString("hello\n")
	if got := procLine(t, bufio.NewReader(c.Out)); got != "hello" {
		t.Errorf("got %q, want hello", got)
	}
	if code, ok := c.Exit(); ok || c.Status() != "running" {
		t.Errorf("got %q, %d, %t, want running and no exit status", c.Status(), code, ok)
	}
	procWithin(t, "End", c.End)
	if code, ok := c.Exit(); code != 0 || !ok || c.Status() != "exit status 0" {
		t.Errorf("got %q, %d, %t, want exit status 0, 0, true", c.Status(), code, ok)
	}
	if _, err := c.In.WriteString("x"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after End: got %v, want %v", err, os.ErrClosed)
	}
}

func TestChildOutputAfterExit(t *testing.T) {
	c := procStart(t, procSpawner(t), procQuiet(), "proc-burst")
	procWithin(t, "Done", func() { <-c.Done() })
	var got []byte
	procWithin(t, "read", func() { got, _ = io.ReadAll(iotest.OneByteReader(c.Out)) })
	if len(got) != procBurst {
		t.Errorf("got %d bytes, want %d", len(got), procBurst)
	}
	if code, ok := c.Exit(); code != 3 || !ok || c.Status() != "exit status 3" {
		t.Errorf("got %q, %d, %t, want exit status 3, 3, true", c.Status(), code, ok)
	}
}

func TestChildStderr(t *testing.T) {
	var b bytes.Buffer
	s := procSpawner(t)
	s.pipeWait = 20 * time.Second
	c := procStart(t, s, slog.New(slog.NewTextHandler(&b, nil)), "proc-stderr")
	procWithin(t, "Done", func() { <-c.Done() })
	var want []string
	for i := 4; i < 12; i++ {
		want = append(want, fmt.Sprintf("line %d", i))
	}
	want = append(want, strings.Repeat("y", 8192)+" [cut]", "last")
	if got := c.tail(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	first := fmt.Sprintf("level=INFO msg=\"server stderr\" pid=%d line=\"line 0\"\n", c.cmd.Process.Pid)
	if got := b.String(); !strings.Contains(got, first) || strings.Count(got, "\n") != 14 {
		t.Errorf("log: got %q, want 14 lines, the first with %q", got, first)
	}
}

func TestChildSteps(t *testing.T) {
	procOnly(t, false)
	for _, test := range []struct {
		role, status    string
		termWait, least time.Duration
	}{
		{"proc-term", "exit status 7", 20 * time.Second, 20 * time.Millisecond},
		{"proc-deaf", "signal: killed", 50 * time.Millisecond, 70 * time.Millisecond},
	} {
		t.Run(test.role, func(t *testing.T) {
			s := procSpawner(t)
			s.termWait = test.termWait
			c := procStart(t, s, procQuiet(), test.role)
			if got := procLine(t, bufio.NewReader(c.Out)); got != "ready" {
				t.Fatalf("got %q, want ready", got)
			}
			var wg sync.WaitGroup
			wg.Go(func() { // more than a pipe takes: blocked until End
				if _, err := c.In.Write(make([]byte, 2*pipeMost)); err == nil {
					t.Error("write to a server that does not read: got no error, want one")
				}
			})
			begin := time.Now()
			for range 4 {
				wg.Go(c.End)
			}
			procWithin(t, "End", wg.Wait)
			if got := time.Since(begin); got < test.least {
				t.Errorf("ended after %v, want %v at least", got, test.least)
			}
			if got := c.Status(); got != test.status {
				t.Errorf("got %q, want %q", got, test.status)
			}
			if _, ok := c.Exit(); ok != (test.role == "proc-term") {
				t.Errorf("exit status: got %t, want %t", ok, !ok)
			}
			procWithin(t, "End once more", c.End)
		})
	}
}

func TestChildGroup(t *testing.T) {
	procOnly(t, false)
	for name, end := range map[string]func(*Child){
		"by itself": func(c *Child) { c.In.Close() },
		"End":       (*Child).End,
	} {
		t.Run(name, func(t *testing.T) {
			c := procStart(t, procSpawner(t), procQuiet(), "proc-parent", "proc-hold")
			r := bufio.NewReader(c.Out)
			pid := procPid(t, r)
			end(c)
			procWithin(t, "Done", func() { <-c.Done() })
			procPoll(t, "grandchild is gone", func() bool { return !procAlive(pid) })
			procWithin(t, "end of stdout", func() { io.Copy(io.Discard, r) })
		})
	}
}

func TestChildLeftGroup(t *testing.T) {
	procOnly(t, false)
	for name, pipeWait := range map[string]time.Duration{"waiting reader": 20 * time.Millisecond, "late reader": 0} {
		t.Run(name, func(t *testing.T) {
			s := procSpawner(t)
			s.pipeWait = pipeWait
			c := procStart(t, s, procQuiet(), "proc-parent-leave", "proc-hold")
			c.In.Close()
			if pipeWait == 0 {
				procWithin(t, "Done", func() { <-c.Done() })
			}
			var got []byte
			var err error
			procWithin(t, "end of stdout", func() { got, err = io.ReadAll(iotest.OneByteReader(c.Out)) })
			procWithin(t, "Done", func() { <-c.Done() })
			line, rest, _ := strings.Cut(string(got), "\n")
			pid, _ := strconv.Atoi(line)
			if pid == 0 || rest != "bye\n" || err != nil {
				t.Fatalf("got %q, %v, want a pid and bye", got, err)
			}
			if p, err := os.FindProcess(pid); err != nil || p.Kill() != nil {
				t.Error("the grandchild that held stdout is gone, so that this shows nothing")
			}
		})
	}
}

// One who keeps writing into the pipe must not keep the reader from the end.
func TestChildOutLimit(t *testing.T) {
	procOnly(t, false)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.WriteString("0123456789")
	r.SetReadDeadline(time.Now())
	o := &childOut{f: r, left: 7}
	if got, err := io.ReadAll(iotest.OneByteReader(o)); string(got) != "0123456" || err != nil {
		t.Errorf("got %q, %v, want 0123456", got, err)
	}
	o.Close()
	if _, err := o.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after Close: got %v, want %v", err, os.ErrClosed)
	}
}

func TestChildParentKilled(t *testing.T) {
	procOnly(t, true)
	c := procStart(t, procSpawner(t), procQuiet(), "proc-spawner")
	pid := procPid(t, bufio.NewReader(c.Out))
	c.cmd.Process.Kill()
	procPoll(t, "child of the killed parent is gone", func() bool { return !procAlive(pid) })
}

// The thread of the goroutine that calls start ends; the child must not.
func TestChildOutlivesThread(t *testing.T) {
	procOnly(t, true)
	s := procSpawner(t)
	var (
		c        *Child
		thread   string
		onThread func()
	)
	onThread = func() {
		runtime.LockOSThread()
		self, _ := os.Readlink("/proc/thread-self")                             // pid/task/tid
		if pid := strconv.Itoa(os.Getpid()); strings.HasSuffix(self, "/"+pid) { // the main thread never ends
			procWithin(t, "start", onThread)
			runtime.UnlockOSThread()
			return
		}
		thread, c = "/proc/"+self, procStart(t, s, procQuiet(), "proc-echo")
	}
	if procWithin(t, "start", onThread); c == nil {
		t.FailNow()
	}
	procPoll(t, "thread is gone", func() bool { _, err := os.Stat(thread); return err != nil })
	c.In.WriteString("hello\n")
	if got := procLine(t, bufio.NewReader(c.Out)); got != "hello" {
		t.Errorf("got %q, want hello", got)
	}
}

func TestChildLeavesNothing(t *testing.T) {
	s := procSpawner(t)
	files := func() int {
		d, _ := os.ReadDir("/proc/self/fd") // none elsewhere: 0 stays 0
		return len(d)
	}
	cycle := func() {
		c := procStart(t, s, procQuiet(), "proc-echo")
		procWithin(t, "End", c.End)
		c.Out.Close()
		if _, err := s.start([]string{"no-such-command"}, procQuiet(), func(string) {}); err == nil {
			t.Fatal("got a child of no-such-command, want an error")
		}
	}
	cycle() // what the runtime opens once
	wantFiles, wantGoroutines := files(), runtime.NumGoroutine()
	for range 50 {
		cycle()
	}
	procPoll(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= wantGoroutines })
	if got := files(); got > wantFiles {
		t.Errorf("got %d open files, want %d", got, wantFiles)
	}
}

func TestSpawnerErrors(t *testing.T) {
	procOnly(t, false)
	s := newSpawner()
	plain := filepath.Join(t.TempDir(), "plain.txt")
	os.WriteFile(plain, nil, 0o644)
	for _, test := range []struct {
		argv []string
		want string
		is   error
	}{
		{nil, "command is empty", nil},
		{[]string{"no-such-command", "arg"}, `command "no-such-command": executable file not found in `, exec.ErrNotFound},
		{[]string{plain}, fmt.Sprintf("command %q: ", plain), os.ErrPermission},
	} {
		_, err := s.start(test.argv, procQuiet(), func(string) {})
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%q: got %v, want %s…", test.argv, err, test.want)
		}
	}
	s.Close()
	if _, err := s.start(os.Args[:1], procQuiet(), func(string) {}); err == nil {
		t.Error("start after Close: got a child, want an error")
	}
}

func FuzzChildStderr(f *testing.F) {
	f.Add([]byte("a\r\n\nb"))
	f.Add(bytes.Repeat([]byte("é\xff"), 5000))
	f.Add(bytes.Repeat([]byte("x\n"), 30))
	f.Add(append(bytes.Repeat([]byte("z"), 8192), "\r\nend\n"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Child{log: procQuiet(), drained: make(chan struct{})}
		c.drain(bytes.NewReader(b), func(string) {})
		var all []string
		for _, line := range strings.Split(string(b), "\n") {
			if line = strings.TrimSuffix(line, "\r"); line != "" {
				all = append(all, line)
			}
		}
		all, got := all[max(0, len(all)-10):], c.tail()
		if len(got) != len(all) {
			t.Fatalf("got %d lines, want %d", len(got), len(all))
		}
		for i, line := range got {
			want := strings.ToValidUTF8(all[i], "?")
			if len(all[i]) > 8192 {
				want = strings.ToValidUTF8(all[i][:8192], "?") + " [cut]"
			}
			if line != want {
				t.Errorf("got %q, want %q", line, want)
			}
		}
	})
}
