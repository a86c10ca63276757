// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT
//
// Reads what the conformance suite left in a folder.
//   checks.mjs read DIR server|client    writes DIR/checks.tsv: scenario, check, counts by status; prints a summary
//   checks.mjs compare NAME DIRECT PROXIED EXPECTED HOW [WAS]    prints how checks.tsv differ; status 1 if they do
//   checks.mjs why DIR [SCENARIO]        prints the failing and warning checks with their messages
import fs from 'node:fs';
import path from 'node:path';

// Yields the scenario's name and the folder of each result, results/[server-]NAME-TIME.
function* results(dir) {
  const top = path.join(dir, 'results');
  for (const e of fs.existsSync(top) ? fs.readdirSync(top, { withFileTypes: true, recursive: true }) : []) {
    const at = path.join(e.parentPath, e.name);
    const m = /^(?:server-)?(.*)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(path.relative(top, at));
    if (e.isDirectory() && m) yield [m[1], at];
  }
}

function read(dir, side) {
  const lines = [];
  let scenarios = 0, clean = 0;
  for (const [name, at] of results(dir)) {
    const file = path.join(at, 'checks.json'), counts = {};
    const count = (id, status) => { counts[id] ??= {}; counts[id][status] = (counts[id][status] ?? 0) + 1; };
    if (!fs.existsSync(file)) count('(the scenario threw)', 'FAILURE');
    else for (const c of JSON.parse(fs.readFileSync(file))) if (c.status !== 'INFO') count(c.id, c.status);
    scenarios++;
    if (!Object.values(counts).some(c => c.FAILURE)) clean++;
    if (side === 'client') {
      const exit = path.join(dir, 'exit', name.replaceAll('/', '_'));
      counts["(client's exit status)"] = { '': fs.existsSync(exit) ? fs.readFileSync(exit, 'utf8').trim() : 'killed' };
    }
    for (const id in counts)
      lines.push([name, id, Object.keys(counts[id]).sort().map(s => (s ? s + '=' : '') + counts[id][s]).join(',')].join('\t'));
  }
  fs.writeFileSync(path.join(dir, 'checks.tsv'), lines.sort().map(l => l + '\n').join(''));
  console.log(`${clean} of ${scenarios} scenarios without a failure`);
}

function compare(name, direct, proxied, expectedFile, how, was = 'directly') {
  const load = dir => new Map(fs.readFileSync(path.join(dir, 'checks.tsv'), 'utf8').split('\n').filter(Boolean).map(l => {
    const [scenario, id, counts] = l.split('\t');
    return [`${scenario} | ${id}`, counts];
  }));
  const a = load(direct), b = load(proxied), out = [], scenarios = new Set();
  const expected = new Map(fs.readFileSync(expectedFile, 'utf8').split('\n').filter(l => l && !l.startsWith('#'))
    .map(l => l.split(' | ')).filter(f => f[0] === name).map(f => [`${f[1]} | ${f[2]}`, f[3]]));
  let equal = 0, excused = 0;
  for (const key of [...new Set([...a.keys(), ...b.keys()])].sort()) {
    if (a.get(key) === b.get(key)) { equal++; continue; }
    if (expected.delete(key)) { excused++; continue; }
    out.push(`      ${key}: ${a.get(key) ?? 'absent'} ${was}, ${b.get(key) ?? 'absent'} ${how}`);
    scenarios.add(key.split(' | ')[0]);
  }
  console.log(`${equal} of ${a.size} lines equal${excused ? `, ${excused} expected to differ` : ''}`);
  const why = [...scenarios].flatMap(s => [...reasons(proxied, s)]).map(l => `      why: ${l}`);
  for (const list of [out, why]) {
    for (const l of list.slice(0, 30)) console.log(l);
    if (list.length > 30) console.log(`      and ${list.length - 30} more`);
  }
  for (const [key, reason] of expected) if (!reason.startsWith('sometimes: ')) console.log(`      no longer differs, take it out of expected-differences.txt: ${key}`);
  process.exitCode = out.length || !a.size ? 1 : 0;
}

function* reasons(dir, only) {
  for (const [name, at] of results(dir)) {
    const file = path.join(at, 'checks.json');
    if (only && name !== only || !fs.existsSync(file)) continue;
    for (const c of JSON.parse(fs.readFileSync(file))) if (c.status === 'FAILURE' || c.status === 'WARNING')
      yield `${name} | ${c.id} ${c.status}: ${(c.errorMessage ?? c.details?.message ?? c.description ?? '').slice(0, 400)}`;
  }
}

const [command, ...args] = process.argv.slice(2);
if (command === 'read') read(...args);
else if (command === 'compare') compare(...args);
else if (command === 'why') for (const l of [...reasons(...args)].sort()) console.log(l);
