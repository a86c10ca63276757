// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"testing"
)

// What a session played from a recorded one that it left later counts there as unused, and as used where it went.
func TestReplayUnusedOfSessionLeft(t *testing.T) {
	k := &tapeScript{}
	mine := func(i int64) string { return fmt.Sprintf(`{"i":%d}`, i) }
	for k.session = 1; k.session <= 2; k.session++ {
		k.tools("common", `{"t":1}`, "common", "again")
		k.tools("mine", mine(k.session), "mine")
	}
	for _, order := range []string{orderAny, orderStrict} {
		for _, time := range []string{`{"t":1}`, `{"t":2}`} { // equal, and loosely
			o := PlayerOptions{Order: order, FailUnused: true, Ignore: []Pointer{{"arguments", "t"}}}
			replaying(t, k.tape(), o, func(g *replayRig) {
				for _, i := range []int64{2, 1} {
					c := g.open(false)
					c.asks(replayCall(`1`, "common", time), replayAnswer(`1`, "common"))
					c.asks(replayCall(`2`, "common", time), replayAnswer(`2`, "again"))
					c.asks(replayCall(`3`, "mine", mine(i)), replayAnswer(`3`, "mine"))
					if i == 2 {
						g.reports(false, " 3 of 6 recorded calls unused", "unused: 3\n  seq 1: tools/call common\n  seq 3: tools/call common\n  seq 5")
					}
				}
				g.reports(true, " 0 of 6 recorded calls unused")
			})
		}
	}
}
