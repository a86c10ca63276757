# shellcheck shell=bash disable=SC2154
# SPDX-FileCopyrightText: 2026 The mcpproxy authors
# SPDX-License-Identifier: MIT
#
# Sourced by run: the parts that record tapes.

# tape_proxy LOG MODE TAPE FLAG... starts the proxy over HTTP with a tape; see stop_proxy.
tape_proxy() { start "$1" "$MCPPROXY" -mode="$2" -tape "$3" -listen '127.0.0.1:{port}' "${@:4}"; }

# check_tape NAME TAPE reports what tape check says of a tape.
check_tape() {
	local since text rc=0
	since=$(clock)
	text=$("$MCPPROXY" -mode=tape check "$2" 2>&1) || rc=1
	report $rc "$since" "$1 tape check" "$(tail -n 1 <<<"$text" | sed 's/.*\.jsonl: //')$(sed '$d; s/^/\n      /' <<<"$text")" "$2"
}

# --- e: the suite as a client, of a server and then of its tape -----------------------------

# part_e records the scenarios and plays them with no server there, in any order of the calls and in
# the recorded one. What was recorded is held against direct runs, what is played against what was
# recorded. A call that is not on the tape, and a recorded one that is not made, let the proxy end
# with status 1.
part_e() {
	local revisions tape
	need_suite && need_gosdk || exit 1
	mkdir -p "$out/e"
	direct_scenarios e 2025-11-25 -stateless=false '33 of 33 scenarios without a failure'
	direct_scenarios e 2026-07-28 -stateless=true '41 of 50 scenarios without a failure'
	tapes_over_http 2025-11-25 -stateless=false
	tapes_over_http 2026-07-28 -stateless=true

	# Over stdio the server speaks both revisions, so that sessions and calls without one share a tape.
	revisions=(2025-11-25 2026-07-28) tape=$out/e/stdio.jsonl
	taped stdio recorded record -stdio "$GO_SERVER"
	check_tape "e both stdio" "$tape"
	taped stdio 'in order' replay -fail-unused -order strict
	revisions=(2026-07-28 2025-11-25)
	taped stdio replayed replay -fail-unused
}

tapes_over_http() { # REVISION FLAG
	local server revisions=("$1") tape=$out/e/HTTP-$1.jsonl
	start "$out/e/server-$1.log" "$GO_SERVER" -http='127.0.0.1:{port}' "$2" || exit 1
	server=$pid
	taped HTTP recorded record -url "http://127.0.0.1:$port/"
	stop "$server"
	check_tape "e $1 HTTP" "$tape"
	taped HTTP replayed replay -fail-unused
	taped HTTP 'in order' replay -fail-unused -order strict
}

# taped SERVER WHAT MODE FLAG... runs the scenarios of all revisions with one proxy and its tape.
taped() {
	local revision since dir=$out/e/$1-${2// /-} how=('from the tape' 'when recorded') at log with
	[ "$3" = replay ] || how=('when recorded')
	log=$dir/${tape##*/}.log since=$(clock)
	mkdir -p "$dir"
	if ! tape_proxy "$log" "$3" "$tape" "${@:4}"; then
		report 1 "$since" "e ${revisions[*]} $1 $2" "no proxy" "$dir"
		return
	fi
	for revision in "${revisions[@]}"; do
		at=$dir/$revision since=$(clock)
		mkdir -p "$at"
		as_client "$at" "http://localhost:$port/mcp" "$revision"
		if [ "$revision" = "${revisions[-1]}" ] && ! stop_proxy "$pid" "$log" >"$at/end"; then
			sed -n '/^replay: /,$s/^/      /p' "$log" | cut -c1-200 | head -n 20 >>"$at/end"
		fi
		with=$out/e/$revision/direct
		[ "$3" != replay ] || with=$out/e/$1-recorded/$revision
		differ "e $revision $1 $2" "$since" "$with" "$at" "${how[@]}"
	done
}

# --- f: a server against its own tape -------------------------------------------------------

# More than part c asks: numbers, an answer with a schema, one that takes a while, one of a tool that
# does more than read, an error, and a document.
tool_questions=(
	'call-sum --method tools/call --tool-name get-sum --tool-args-json {"a":0.1,"b":1e2}'
	'call-structured --method tools/call --tool-name get-structured-content --tool-args-json {"location":"Chicago"}'
	'call-long --method tools/call --tool-name trigger-long-running-operation --tool-args-json {"duration":0.5,"steps":2}'
	'call-gzip --method tools/call --tool-name gzip-file-as-resource --tool-args-json {"name":"a.gz","data":"data:text/plain,hello","outputType":"resource"}'
	'call-invalid --method tools/call --tool-name echo --tool-args-json {"message":7}'
	'read --method resources/read --uri demo://resource/static/document/features.md'
)

part_f() {
	local questions=("${everything_questions[@]}" "${tool_questions[@]}") dir=$out/f server url since
	need_everything && need_inspector || exit 1
	mkdir -p "$dir"/{stdio,http}

	since=$(clock)
	over_stdio "$dir/stdio/answers" legacy "$MCPPROXY" -mode=record -tape "$dir/stdio/tape.jsonl" -tape-append -stdio "$NODE" "$EVERYTHING" stdio
	asked $? "$since" "f stdio recorded" "$dir/stdio"
	check_tape "f stdio" "$dir/stdio/tape.jsonl"
	verified "f stdio verified" "$dir/stdio" 0 '^no drift: [0-9]+ MATCH$' -allow-destructive -stdio "$NODE" "$EVERYTHING" stdio

	start "$dir/http/server.log" env PORT='{port}' "$NODE" "$EVERYTHING" streamableHttp || exit 1
	server=$pid url=http://127.0.0.1:$port/mcp since=$(clock)
	tape_proxy "$dir/http/proxy.log" record "$dir/http/tape.jsonl" -url "$url" &&
		over_http "$dir/http/answers" legacy "http://127.0.0.1:$port/mcp" && stop_proxy "$pid" "$dir/http/proxy.log"
	asked $? "$since" "f HTTP recorded" "$dir/http"
	check_tape "f HTTP" "$dir/http/tape.jsonl"
	verified "f HTTP verified" "$dir/http" 0 '^no drift: [0-9]+ MATCH$' -allow-destructive -url "$url"
	verified "f HTTP, only what reads" "$dir/http" 0 '^no drift: [0-9]+ MATCH, 1 SKIPPED' -url "$url"
	stop "$server"
	verified "f HTTP, another server" "$dir/http" 1 '^drift: ' -allow-destructive -demo
}

# asked STATUS SINCE NAME DIR reports whether all questions were answered.
asked() {
	local rc=$1 missing
	missing=$(cd "$4/answers" && refused -- *)
	[ -z "$missing" ] || rc=1
	crashed "$4" >/dev/null || rc=1
	report "$rc" "$2" "$3" "${#questions[@]} questions${missing:+, but no answer: ${missing//$'\n'/ }}" "$4"
}

# verified NAME DIR STATUS PATTERN FLAG... verifies a server against the tape in DIR and reports whether
# the exit status and the last line are as they should be.
verified() {
	local since rc=0 text log
	since=$(clock) log=$2/${1//[ ,]/-}
	bounded 120 "$MCPPROXY" -mode=verify -tape "$2/tape.jsonl" "${@:5}" >"$log.txt" 2>"$log.log"
	[ $? = "$3" ] || rc=1
	text=$(tail -n 1 "$log.txt")
	grep -qE "$4" <<<"$text" || rc=1
	[ $rc = 0 ] || text+=$(echo; sed '$d; s/^/      /' "$log.txt" | head -n 30)
	report $rc "$since" "$1" "$text" "$log.*"
}

# --- g: exported tapes in a browser ---------------------------------------------------------

part_g() {
	local since rc=0
	since=$(clock)
	mkdir -p "$out/g"
	MCPPROXY=$MCPPROXY CONF_HOME=$CONF_HOME bounded 300 "$here/page" >"$out/g/page.log" 2>&1 || rc=1
	report $rc "$since" "g pages of tapes" "$(tail -n 1 "$out/g/page.log")$(grep -s '^FAILED' "$out/g/page.log" | sed 's/^/      /; 1s/^/\n/')" "$out/g"
}
