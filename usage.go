// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT

package main

// usage returns the page of m, or the general one if m is nil.
func usage(m *mode) string {
	if m == nil {
		return usageGeneral
	}
	return m.page
}

const usageGeneral = `mcpproxy stands between MCP clients and an MCP server.

Usage:
    mcpproxy -mode=MODE [flags] [-stdio CMD [ARG...]]

Modes:
    forward   carry messages between clients and a server
    record    do so, and write all they say to a tape
    replay    be the server that a tape has recorded
    verify    tell whether a server still answers as on a tape
    explain   tell what rules and limits do to messages, or would have done to a tape
    tape      show, check, cut, compare and export tapes
    demo      be a small MCP server, to try things out
    token     make a token for a user of a proxy that serves HTTP

Examples:
    $ mcpproxy -mode=forward -demo
    Serve the built-in server to the client on stdin and stdout.

    $ mcpproxy -mode=forward -stdio npx -y @modelcontextprotocol/server-everything
    Wrap a server. Write this in a client's configuration in place of the command alone.

    $ mcpproxy -mode=forward -listen 127.0.0.1:8080 -stdio npx -y server-name
    Serve the same over HTTP, at http://127.0.0.1:8080/mcp.

    $ mcpproxy -mode=forward -url https://example.com/mcp -header 'Authorization: env:AUTH'
    Give a client that only knows stdio a remote server.

    $ mcpproxy -mode=forward -listen :8080 -allow-host HOST -auth-tokens FILE -url URL
    Stand in front of a server, for known users only.

    $ mcpproxy -mode=record -tape run.jsonl -stdio npx -y server-name
    Record a server. Then do without it: mcpproxy -mode=replay -tape run.jsonl

A setting comes from its flag, else from its variable (MCPPROXY_MAX_CALLS for -max-calls),
else from the file that -config names, else it has its default.

    mcpproxy help MODE    the flags of a mode        mcpproxy -version    the version
`

const usageForward = `mcpproxy -mode=forward carries messages between MCP clients and an MCP server.

    mcpproxy -mode=forward [flags] -stdio CMD [ARG...]    or -url URL, or -demo

The server, one of:
  -stdio CMD [ARG...]       a command, spoken to on its stdin and stdout; comes last
  -url URL                  Streamable HTTP, such as https://example.com/mcp
  -demo                     built in
With -url:
  -header 'NAME: VALUE'     for the server (VALUE may be env:VARIABLE or file:PATH) *
  -pass-header NAME         header of HTTP clients that the server is to see *
  -ca FILE                  PEM certificates to trust beside the system's
The clients: one on stdin and stdout, or with
  -listen ADDR              any number over HTTP, at http://ADDR/mcp, and then
  -allow-host NAME[:PORT]   under this name too, beside localhost, 127.0.0.1 and [::1] *
  -allow-origin ORIGIN      from web pages of this origin (https://app.example.com) *
  -auth-tokens FILE         only with a token of this file (see: mcpproxy help token)
  -trusted-proxy CIDR       through this proxy, whose X-Forwarded-For counts *
Limits (a TIME of 0 is no limit, but with -grace no wait):
  -limit TIER=RATE[:BURST]  calls per s, m, h or d: ip=100/m:20, 20 of them at once. TIER is
                            global, ip, user, session, endpoint, or one: tools/call:search *
  -limit-status 429|200     HTTP status of what they refuse (429)
  -limit-report             log what they would refuse, and let it pass
  -max-message SIZE         of one message (64MiB)
  -max-sessions N           open at a time, with -listen (1000)
  -max-calls N              in flight at a time in a session (256)
  -idle TIME                until an unused session ends (30m)
  -lifetime TIME            until any session ends (24h)
  -call-timeout TIME        until a call without answer or progress is given up (5m)
  -grace TIME               at the end, for calls in flight (10s)
Other:
  -rules FILE               apply the rules of it (docs/rules.md), also when it changes
  -rules-report             log what they would do, and let everything pass as it is
  -tape FILE                record to it: mcpproxy help record
  -config FILE              JSON: {"listen": "127.0.0.1:8080", "stdio": ["npx", "-y", "x"]}
  -log-level LEVEL          debug, info, warn or error (info)
  -log-format text|json     (text)
* may be repeated; in a variable one a line, in FILE an array. So with CMD and its ARGs.
`

const usageDemo = `mcpproxy -mode=demo is a small MCP server on stdin and stdout, to try things out.

    mcpproxy -mode=demo [flags]

It has a few tools, a resource and a prompt, and keeps nothing. Logs go to stderr.

  -max-message SIZE         of one message (64MiB)
  -config FILE              JSON, such as {"log-level": "debug"}
  -log-level LEVEL          debug, info, warn or error (info)
  -log-format text|json     (text)

Examples:
    $ mcpproxy -mode=forward -listen 127.0.0.1:8080 -stdio mcpproxy -mode=demo
    Serve it over HTTP, as a command of its own.

    $ mcpproxy -mode=forward -listen 127.0.0.1:8080 -demo
    The same without a second process.
`

const usageToken = `mcpproxy -mode=token makes a token for a user of a proxy that serves HTTP.

    mcpproxy -mode=token NAME

It prints the token, for the user NAME to keep, and a line with the token's SHA-256, to add
to the file of -auth-tokens. A running proxy sees the change. The token is stored nowhere.

Examples:
    $ mcpproxy -mode=token alice
    Make a token, then add the line to the file tokens.

    $ mcpproxy -mode=forward -listen 127.0.0.1:8080 -auth-tokens tokens -demo
    Serve only who sends one of the tokens, as in "Authorization: Bearer TOKEN".
`

const usageRecord = `mcpproxy -mode=record carries messages like -mode=forward, and writes them to a tape.

    mcpproxy -mode=record -tape FILE [flags] -stdio CMD [ARG...]    or -url URL, or -demo

  -tape FILE                the tape to write; it must not exist
  -tape-append              go on with a tape that exists
  -tape-sync never|interval|each    when it is brought to the disk: when the system does it,
                            each second, or before a message goes on (interval)
  -tape-error stop|pass     when it cannot be written: refuse calls and end with status 1,
                            or let messages pass and say so on the tape (stop)
  -tape-rotate SIZE         go on in another file after so much: run.jsonl, run.2.jsonl
  -tape-ring SIZE           keep the last SIZE in memory; write it to FILE, FILE.2, ... when
                            a server crashes, on SIGUSR1, and
  -tape-dump-on KIND=N/TIME at so many errors or refusals: errors=5/m *
  -redact RULE              what is not to stand on the tape: a JSON pointer such as
                            /params/arguments/card, key=NAME, re=REGEXP; with none, not even
                            keys named password, token, secret, api_key and the like do *
  -redact-key FILE          16 bytes or more: the key of the placeholders that stand there
                            instead. Without it each tape has one, and holds it
* may be repeated. All flags of -mode=forward hold as well: mcpproxy help forward

Examples:
    $ mcpproxy -mode=record -tape run.jsonl -stdio npx -y server-name
    Record what a client and a server say over stdio.

    $ mcpproxy -mode=record -tape run.jsonl -listen :8080 -url http://127.0.0.1:3001/mcp
    Record all clients of a server over HTTP.
`

const usageReplay = `mcpproxy -mode=replay is the server that a tape has recorded.

    mcpproxy -mode=replay [-tape FILE] [flags]

It serves one client on stdin and stdout, or with -listen any number over HTTP. Calls are
matched by method, tool, prompt or uri, and params; equal calls get the recorded answers one
after the other. Without -tape it plays a small tape that is built in.

  -tape FILE                the tape to play
  -order any|strict         whether calls may come in another order than recorded (any)
  -ignore POINTER           what may differ in the params: /arguments/now, /arguments/*/id *
  -on-exhausted error|last|cycle    for a call that comes more often than recorded (error)
  -on-miss error|pass|record        for a call that is not on the tape: an error, the answer
                            of -stdio, -url or -demo, or that, onto the tape too (error)
  -speed FACTOR             1 waits as long as when recording, 10 a tenth, 0 not at all (0)
  -fail-unused              end with status 1 if something recorded was not asked for
  -redact-key FILE          the key with which the tape was recorded
* may be repeated. The flags for clients, sessions, limits and the server are those of
-mode=forward: mcpproxy help forward

Exit status: 0 done, 1 a call was not on the tape, 2 misused, 4 the tape is not valid.

Examples:
    $ mcpproxy -mode=replay -tape run.jsonl
    Write this in a client's configuration in place of the server.

    $ mcpproxy -mode=replay -tape run.jsonl -listen 127.0.0.1:8080
    The same over HTTP.
`

const usageVerify = `mcpproxy -mode=verify tells whether a server still answers as on a tape.

    mcpproxy -mode=verify -tape FILE [flags] -stdio CMD [ARG...]    or -url URL, or -demo

It sends the server what the client said on the tape and compares the answers. Tools that
the tape does not show as readOnlyHint are skipped unless they are allowed.

  -tape FILE                the tape
  -ignore POINTER           what may differ in the answers: /result/content/0/text *
  -same KIND[,KIND]         values that may differ: uuid, time, path (not its last name),
                            number:1e-6 (relative to the larger)
  -allow TOOL               call this tool too *
  -allow-destructive        call all tools
  -json                     print the report as JSON
  -junit FILE               write the report as JUnit XML too
  -call-timeout TIME        until a call without answer or progress is given up (5m)
  -redact-key FILE          the key with which the tape was recorded
  -log-level LEVEL          of the log, which has warnings and errors unless told otherwise
* may be repeated. The flags for the server are those of forward: mcpproxy help forward

Exit status: 0 the same, 1 drift, 2 misused, 3 the server could not be run, 4 the tape is
not valid.

Example:
    $ mcpproxy -mode=verify -tape run.jsonl -junit report.xml -stdio ./new-build
`

const usageTape = `mcpproxy -mode=tape shows, checks, cuts, compares and exports tapes.

    mcpproxy -mode=tape COMMAND [flags] FILE...

  show FILE      a line for each message; with -json the tape's own
  stat FILE      calls, errors and times by method and tool
  check FILE     what is wrong with the tape, or with what it tells of
  trim FILE      a tape of one -session or -exchange
  redact FILE    the tape without what -redact says
  diff A B       what two tapes differ in
  export FILE    a page to look at (-html), or an HTTP archive (-har)

  -session N                of this session only
  -exchange SEQ             of the call with this number only
  -method NAME              of this method only; * stands for anything: tools/*
  -ignore POINTER           what may differ: /result/content/0/text *
  -redact RULE              see: mcpproxy help record *
  -redact-key FILE          likewise
  -html                     export a page
  -har                      export an archive
  -json                     print for programs
  -out FILE                 write there, not to stdout; it must not exist
  -max-message SIZE         of the longest message on the tape (64MiB)
* may be repeated. More: mcpproxy help forward

Exit status: 0 done, 1 check or diff found something, 2 misused, 4 the tape is not valid.

Examples:
    $ mcpproxy -mode=tape show -method tools/call run.jsonl
    $ mcpproxy -mode=tape export -html -out run.html run.jsonl
`

const usageExplain = `mcpproxy -mode=explain tells what rules and limits do to messages. It sends nothing.

    mcpproxy -mode=explain -rules FILE [-limit TIER=RATE...] [flags] < MESSAGES
    mcpproxy -mode=explain -rules FILE [-limit TIER=RATE...] [flags] -tape FILE

On stdin it takes JSON-RPC messages, one after the other or in an array, as they would come
at one moment. For each it prints the limits and rules in the order in which they are met,
and what would leave the proxy. A call or notification goes to the server, a response to
the client; it answers the call of its id before it on stdin.

Of a tape it tells to how much of the traffic the rules and limits would have done what,
with the times of the tape. What was denied then counts as well: all that clients sent.

  -rules FILE               the rules (docs/rules.md)
  -limit TIER=RATE[:BURST]  a limit: mcpproxy help forward *
  -tape FILE                explain this tape, not stdin
  -user NAME                who sends the messages, over HTTP; else nobody known does
  -ip ADDR                  from where, over HTTP; without both it is a client on stdio
  -dir to-server|to-client  where the messages go, but for responses to one of them
  -revision DATE            of the protocol; else that of _meta or initialize, or 2025-11-25
  -json                     print for programs: an object for each message, or for the tape
  -max-message SIZE         of all on stdin, or of one message on the tape (64MiB)
* may be repeated. A tape does not tell who sent a message or from where: all count there
as those of one user at one address.

Exit status: 0 all passes, 1 something would be refused or lost, 2 misused, 4 the tape is
not valid.

Examples:
    $ mcpproxy -mode=explain -rules rules.json -json
    $ mcpproxy -mode=explain -rules rules.json -limit ip=10/m -tape prod.jsonl
`
