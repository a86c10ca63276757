// SPDX-FileCopyrightText: 2026 The mcpproxy authors
// SPDX-License-Identifier: MIT
//
// page.mjs DIR: what page runs. It makes tapes in DIR, has them exported and looks at the pages in a browser.
// Reads MCPPROXY, PLAYWRIGHT, CHROMIUM, SHOTS.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { MCPPROXY, PLAYWRIGHT, CHROMIUM, SHOTS } = process.env, dir = process.argv[2];
const { chromium } = createRequire(import.meta.url)(PLAYWRIGHT);

// A Tape is written line by line. A message is JSON text, so that numbers stay as they are.
class Tape {
	lines = [];
	t = 0;
	constructor(header = {}) {
		this.text = JSON.stringify({ tape: 'mcpproxy', version: 1, created: '2026-03-04T09:30:00Z', program: '0.1.0', eras: ['initialize'], client: 'stdio', server: 'stdio', redact: [], ...header }) + '\n';
	}
	put(line, msg) {
		const seq = this.lines.length + 1;
		this.t += 7.25;
		const text = JSON.stringify({ seq, t: this.t, ...line });
		this.lines.push(msg ? text.slice(0, -1) + ',"msg":' + msg + '}' : text);
		return seq;
	}
	msg(dir, msg, line) {
		return this.put({ kind: 'msg', session: 1, dir, via: 'stdio', ...line }, typeof msg === 'string' ? msg : JSON.stringify({ jsonrpc: '2.0', ...msg }));
	}
	up(msg, line) { return this.msg('to-server', msg, line); }
	down(msg, line) { return this.msg('to-client', msg, line); }
	whole() {
		const text = this.text + this.lines.map(l => l + '\n').join('');
		const end = { seq: this.lines.length + 1, t: this.t, kind: 'end', counts: { eras: ['initialize'] }, sha256: createHash('sha256').update(text).digest('hex') };
		return text + JSON.stringify(end) + '\n';
	}
}

// exported writes a tape to a file and returns the address of its page.
function exported(name, text) {
	const tape = join(dir, name + '.jsonl'), page = join(dir, name + '.html');
	writeFileSync(tape, text);
	execFileSync(MCPPROXY, ['-mode=tape', 'export', '-html', '-out', page, tape], { stdio: ['ignore', 'ignore', 'inherit'] });
	return pathToFileURL(page).href;
}

const numbers = '{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"numbers","arguments":{"one":1.0,"big":9007199254740993,"more":1E+400,"text":"a\\"\\\\","none":{},"list":[ ]}}}';

function conversation(tape, session) {
	const s = { session };
	tape.put({ kind: 'open', ...s });
	let call = tape.up({ id: 0, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'c', version: '1' } } }, s);
	tape.put({ kind: 'stderr', ...s, text: 'listening' });
	tape.down({ id: 0, result: { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 's', version: '1' } } }, { ...s, re: call });
	tape.up({ method: 'notifications/initialized' }, s);
	call = tape.up({ id: 1, method: 'tools/call', params: { name: 'slow' } }, s);
	tape.down({ method: 'notifications/progress', params: { progressToken: 1, progress: 1 } }, { ...s, x: call });
	const asked = tape.down({ id: 's', method: 'sampling/createMessage', params: {} }, { ...s, x: call });
	tape.up({ id: 's', result: { model: 'm' } }, { ...s, x: call, re: asked });
	tape.down({ id: 1, result: { content: [{ type: 'text', text: 'said "quoted"' }] } }, { ...s, re: call });
	call = tape.up({ id: 2, method: 'resources/read', params: { uri: 'demo://missing' } }, s);
	tape.down({ id: 2, error: { code: -32002, message: 'Resource not found' } }, { ...s, re: call });
	call = tape.up({ id: 3, method: 'tools/call', params: { name: 'sum' } }, s);
	tape.down({ id: 3, result: { isError: true, content: [{ type: 'text', text: 'not a number' }] } }, { ...s, re: call });
	tape.up(numbers, s);
	tape.put({ kind: 'exit', ...s, text: 'exit status 3' });
}

let passed = 0, failed = 0;
function check(name, ok, detail = '') {
	if (ok) passed++; else failed++;
	console.log(`${ok ? 'ok    ' : 'FAILED'} ${name.padEnd(46)} ${detail}`);
}

const browser = await chromium.launch({
	executablePath: CHROMIUM,
	args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

// open opens a page and keeps what it complains of and asks for.
async function open(address, options = {}) {
	const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options });
	page.complaints = [];
	page.on('pageerror', e => page.complaints.push(e.message));
	page.on('console', m => page.complaints.push(m.text()));
	page.on('request', r => { if (r.url() !== address) page.complaints.push('asks for ' + r.url()); });
	await page.goto(address);
	await settled(page);
	return page;
}
const count = page => page.locator('#count').textContent();
const settled = page => page.waitForFunction(() => / lines$/.test(document.getElementById('count').textContent));
const said = (page, text) => page.waitForFunction(want => document.getElementById('count').textContent === want, text, { timeout: 5000 }).then(() => true, () => false);
const shot = (page, name) => page.screenshot({ path: join(SHOTS, name + '.png') });
const bare = s => s.replace(/\s/g, '');

async function show() {
	const tape = new Tape();
	conversation(tape, 1);
	conversation(tape, 2);
	const address = exported('conversation', tape.whole()), page = await open(address);
	check('every line is shown', await count(page) === '32 lines' && await page.locator('.row').count() > 15, await count(page));
	const totals = bare(await page.locator('#totals').innerText());
	check('totals', totals.startsWith('26messages12calls2unanswered6errors'), totals);
	const row = bare(await page.locator('#row10').innerText());
	check('a response has its call and how long it took', row === '10' + '0.072' + '1' + 'resulttools/callslow29.0ms', row);
	check('errors are red', await page.locator('#row12.bad, #row14.bad, #row16.bad').count() === 3);

	await page.locator('#row15').click();
	const text = await page.locator('pre').innerText();
	check('a message unfolds as it is', bare(text) === bare(numbers) && text.includes('\n      "big": 9007199254740993,'), bare(text).slice(60, 130));
	await shot(page, 'light');
	await page.keyboard.press('Enter');
	check('Enter folds', await page.locator('#panel').isHidden());
	await page.keyboard.press('ArrowUp');
	await page.keyboard.press('Enter');
	check('arrows move, Enter unfolds', (await page.locator('#panel').innerText()).includes('isError: not a number'));
	await page.locator('#pair').click();
	check('the call is a click away', await page.locator('#row13.chosen').count() === 1);

	await page.keyboard.press('/');
	await page.keyboard.type('said "quoted"');
	check('/ searches any text', await said(page, '2 of 32 lines'), await count(page));
	await page.keyboard.press('Escape');
	check('Escape ends the search', await said(page, '32 lines'));
	await page.fill('#search', 'SLOW');
	check('the search finds tools', await said(page, '4 of 32 lines'), await count(page));
	await page.fill('#search', '');
	await page.selectOption('#session', '2');
	check('one session', await said(page, '16 of 32 lines'), await count(page));
	await page.check('#errors');
	check('its errors', await said(page, '3 of 32 lines'), await count(page));
	check('no complaints, nothing asked for', page.complaints.length === 0, page.complaints.join('; '));
	await page.close();

	const dark = await open(address, { colorScheme: 'dark' });
	const light = await dark.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).reduce((a, b) => a + +b, 0));
	check('dark', light < 150, 'background ' + light);
	await dark.locator('#row12').click();
	await shot(dark, 'dark');
	await dark.close();
}

async function ruled() {
	const tape = new Tape(), call = (id, line) => tape.up({ id, method: 'tools/call', params: { name: 'add' } }, line);
	const changed = call(1, { rule: 'other text', was: call(1) });
	tape.put({ kind: 'rule', session: 1, dir: 'to-server', re: changed, rule: 'mark', text: 'tag sums' });
	tape.down({ id: 1, result: {} }, { re: changed });
	const kept = call(2, { local: true });
	tape.put({ kind: 'rule', session: 1, dir: 'to-server', re: kept, rule: 'flaky', text: 'fault disconnect' });
	tape.put({ kind: 'rule', session: 1, dir: 'to-server', rule: 'nothing', text: 'tag x' });
	const page = await open(exported('ruled', tape.whole())), tags = async n => (await page.locator(`#row${n} .tag`).allInnerTexts()).join();
	check('a rule is a tag on its message', await tags(2) === 'other text,mark: tag sums' && await tags(5) === 'proxy,flaky: fault disconnect', await tags(2));
	check('or a note, if that is not there', await page.locator('#row7 .note').count() === 1 && await page.locator('.row').count() === 5);
	const totals = bare(await page.locator('#totals').innerText());
	check('a call that a rule changed is one call', totals.startsWith('3messages2calls1unanswered0errors'), totals);
	await page.fill('#search', 'disconnect');
	check('the search finds what rules did', await said(page, '1 of 5 lines'), await count(page));
	await page.locator('#row5').click();
	check('it is among the details', (await page.locator('dl').innerText()).includes('flaky: fault disconnect'));
	check('no complaints about rules', page.complaints.length === 0, page.complaints.join('; '));
	await page.close();
}

async function hostile() {
	const evil = '</script><img src=x onerror="window.pwned=1"><script>window.pwned=1</script><!--<script>\u2028\u2029\u202egnp\u0007\u0000&lt;';
	const tape = new Tape({ program: evil, client: evil, server: evil, redact: [evil] });
	const call = tape.up({ id: evil, method: evil, params: { name: evil, [evil]: evil } }, { via: evil, event: evil, rule: evil, headers: { [evil]: evil } });
	tape.down({ id: evil, error: { code: evil, message: evil } }, { re: call, status: 500 });
	tape.down('{"jsonrpc":"2.0","method":"m","__proto__":{"pwned":1},"a":"\\u003cimg src=x onerror=window.pwned=1\\u003e"}', { headers: JSON.parse('{"__proto__":"a"}') });
	for (const kind of ['open', 'stderr', 'exit', 'dropped', 'blind', 'close']) tape.put({ kind, session: 1, text: evil });
	tape.put({ kind: 'raw', session: 1, base64: Buffer.from(evil).toString('base64') });
	tape.put({ kind: 'rule', dir: 'to-server', re: call, rule: evil, text: evil });
	const page = await open(exported('hostile', tape.whole()));
	for (let seq = 1; seq <= 10; seq++) {
		await page.locator('#row' + seq).click();
		await page.locator('#row' + seq + '.chosen').waitFor();
		if (seq === 1) await shot(page, 'hostile');
		const state = await page.evaluate(() => [window.pwned, {}.pwned, document.images.length, /[\0-\x08\u2028-\u202e]/.test(document.body.innerText)].join());
		if (state !== ',,0,false') check('hostile line ' + seq, false, state);
	}
	check('a hostile tape stays text', page.complaints.length === 0, page.complaints.join('; '));

	const refused = await page.evaluate(async () => {
		const list = [];
		document.addEventListener('securitypolicyviolation', e => list.push(e.effectiveDirective));
		const script = document.createElement('script');
		script.textContent = 'window.pwned = 1';
		document.body.append(script);
		document.body.insertAdjacentHTML('beforeend', '<img src="http://127.0.0.1:9/" onerror="window.pwned = 1">');
		await fetch('http://127.0.0.1:9/').catch(() => {});
		await new Promise(done => setTimeout(done, 200));
		return [...new Set(list)].sort().join() + ' ' + window.pwned;
	});
	check('the policy refuses scripts and the network', refused === 'connect-src,img-src,script-src-attr,script-src-elem undefined', refused);
	await page.close();
}

async function unwhole() {
	const tape = new Tape();
	let page = await open(exported('empty', tape.whole()));
	check('an empty tape', (await page.locator('#empty').innerText()) === 'Nothing was recorded.');
	await page.close();
	conversation(tape, 1);
	page = await open(exported('torn', tape.whole().slice(0, -40)));
	check('a torn tape', (await page.locator('#warnings').innerText()).includes('the last line broke off'));
	await page.close();
}

async function large() {
	const tape = new Tape({ server: 'http' }), messages = 20000;
	for (let i = 0; i < messages / 2; i++) {
		const s = { session: i % 3 + 1 };
		const call = tape.up({ id: i, method: 'tools/call', params: { name: 'tool-' + i % 50, text: `needle-${i} ` + 'lorem ipsum '.repeat(i % 80) } }, { ...s, via: 'post' });
		tape.down({ id: i, result: i % 97 ? { content: [{ type: 'text', text: 'answer '.repeat(i % 160) }] } : { isError: true } }, { ...s, via: 'json', status: 200, re: call });
	}
	const address = exported('large', tape.whole()), page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
	const timed = async (name, limit, f) => {
		const since = performance.now();
		const ok = await f();
		const took = performance.now() - since;
		check(`${messages} messages: ${name}`, ok !== false && took < limit, `${took.toFixed(0)} ms`);
	};
	// Limits are wide: they tell a page that stalls from one that does not, on a busy machine too.
	const loading = page.goto(address);
	await timed('first rows', 4000, () => page.locator('.row').first().waitFor());
	await timed('all rows', 8000, async () => { await loading; await settled(page); });
	check(`${messages} messages: first paint`, true, await page.evaluate(() => performance.getEntriesByType('paint')[0]?.startTime.toFixed(0)) + ' ms');
	await timed('unfold', 1500, async () => { await page.locator('#row5').click(); await page.locator('pre .key').first().waitFor(); });
	await timed('search', 3000, async () => { await page.fill('#search', 'needle-9999 '); return said(page, '1 of 20,000 lines'); });
	await timed('search no more', 3000, async () => { await page.fill('#search', ''); return said(page, '20,000 lines'); });
	await timed('to the end', 1500, async () => { await page.locator('#list').focus(); await page.keyboard.press('End'); await page.locator('#row20000').waitFor(); });
	await timed('60 frames of scrolling', 6000, () => page.evaluate(() => new Promise(done => {
		const list = document.getElementById('list');
		let n = 0;
		const step = () => { list.scrollTop -= 5000; if (++n < 60) requestAnimationFrame(step); else done(); };
		step();
	})));
	check('only what is visible is drawn', await page.locator('.row').count() < 60);
	await page.close();
}

try {
	await show();
	await ruled();
	await hostile();
	await unwhole();
	await large();
} catch (e) {
	check('all was looked at', false, e.message);
} finally {
	await browser.close();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
