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
