// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

//go:build unix

package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// On SIGHUP a file is read again though nothing shows that it has changed.
func TestRuleReloadSignal(t *testing.T) {
	own := make(chan os.Signal, 1) // or one that comes too soon ends the test
	signal.Notify(own, syscall.SIGHUP)
	defer signal.Stop(own)
	g := newRuleRig(t, ruleDenies("a"))
	old := time.Now().Add(-time.Hour)
	os.Chtimes(g.path, old, old)
	g.watch.look(false)
	g.write(ruleDenies("b"))
	os.Chtimes(g.path, old, old)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	var wg sync.WaitGroup
	wg.Go(func() { g.watch.Follow(ctx) })
	for !strings.Contains(g.log.String(), "rules read again") && ctx.Err() == nil {
		syscall.Kill(os.Getpid(), syscall.SIGHUP)
		<-own
	}
	stop()
	wg.Wait()
	if got := g.asks(); got != "b" {
		t.Errorf("got %q, want b", got)
	}
}
