// The README's "Routes without code", line by line as it is written but for the ports: its server, its two tokens, its
// page in two tabs, its three lines of curl, and the pointers in the room.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { chromium } from 'playwright-core';
import { check, finish, same, subject } from './checks.mjs';

const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];
const { port, api, monitor } = subject.ports;

const readme = fs.readFileSync(path.join(subject.repository, 'README.md'), 'utf8');
const [, section] = readme.split('## Routes without code\n');
const [, block] = section.match(/```sh\n([\s\S]*?)```/);
const lines = block.replaceAll('127.0.0.1:8080', `127.0.0.1:${port}`).replaceAll('127.0.0.1:8081', `127.0.0.1:${api}`);
const [start, push] = lines.split(/^(?=# To a user)/m);

/** The lines, with two pauses until a line comes on standard input. */
const script = `set -euo pipefail\n${start}\ntrap 'kill $! 2>/dev/null || true' EXIT\nread -r\n${push}\nread -r\nkill $!\nwait $!\n`;
const shell = spawn('bash', ['-c', script], {
  cwd: subject.repository,
  env: {
    // The program reads TIDEGATE_… over its file, so what the caller has set must not leak in.
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TIDEGATE_'))),
    PATH: `${path.dirname(subject.program)}:${process.env.PATH}`,
    TIDEGATE_LISTEN: `ws://127.0.0.1:${port}`,
    TIDEGATE_MONITOR_LISTEN: `127.0.0.1:${monitor}`,
    TIDEGATE_API_LISTEN: `127.0.0.1:${api}`,
  },
  stdio: ['pipe', 'pipe', 'pipe'],
});
const ended = new Promise((done) => { shell.on('close', done); });
let output = '';
let complaints = '';
shell.stdout.on('data', (text) => { output += text; });
shell.stderr.on('data', (text) => { complaints += text; });

async function until(condition, what) {
  while (!await condition()) {
    if (shell.exitCode !== null) throw new Error(`the shell ended before ${what}: ${complaints.slice(-500)}`);
    await new Promise((next) => { setTimeout(next, 20); });
  }
}
const listens = (at) => new Promise((done) => {
  const socket = net.connect(at, '127.0.0.1', () => { socket.destroy(); done(true); });
  socket.on('error', () => done(false));
});

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'tidegate-readme-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: subject.chromium, headless: true, args: ARGUMENTS, timeout: 60_000,
});
const [alice, bob] = [await browser.newPage(), await browser.newPage()];
const news = (tab) => tab.locator('#news li').allTextContents();

await check('the server starts, and two addresses are printed', async () => {
  await until(() => output.split('\n').length > 2, 'two addresses were printed');
  await until(() => listens(port), 'the server listened');
  same(output.trim().split('\n').length, 2, 'addresses');
});
const urls = output.trim().split('\n');
await check('the page opens in two tabs, one of each user', async () => {
  for (const [tab, url] of [[alice, urls[0]], [bob, urls[1]]]) {
    await tab.goto(url);
    await tab.waitForSelector('#news-state[data-state="open"]');
    await tab.waitForSelector('#room-state[data-state="open"]');
  }
});
await check('three lines push to a user, to a role and to everybody', async () => {
  output = '';
  await until(() => listens(api), 'the API listened');
  shell.stdin.write('\n');
  await until(() => output.length >= '{"result":{}}'.length * 3, 'three answers');
  same(output, '{"result":{}}'.repeat(3), 'answers');
  const told = (text) => JSON.stringify({ type: 'notification', data: { text } });
  // The newest comes first.
  for (const [tab, texts] of [[alice, ['for all', 'for alice']], [bob, ['for all', 'for students']]]) {
    await tab.waitForSelector(`#news li:nth-child(${texts.length})`);
    same(await news(tab), texts.map(told), 'pushes');
  }
});
await check('pointers in the room are seen in the other tab', async () => {
  for (const [mine, other, name] of [[bob, alice, 'bob'], [alice, bob, 'alice']]) {
    await mine.bringToFront();
    const box = await mine.locator('#room').boundingBox();
    await mine.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await other.waitForSelector('#room span', { state: 'attached' });
    same(await other.locator('#room span').allTextContents(), [name], 'pointers');
  }
});
await check('the lines end as they should', async () => {
  shell.stdin.write('\n');
  same(await ended, 0, `exit code (${complaints.slice(-200)})`);
});

await browser.close();
shell.kill();
fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
finish();
