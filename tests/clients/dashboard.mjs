// The dashboard in headless Chromium, as an administrator uses it: signing in, figures, filters, disconnecting, and what
// hostile names make of it (H1: nothing). The connections it shows are this script's own.
import { createHmac } from 'node:crypto';
import process from 'node:process';
import { chromium } from 'playwright-core';
import WebSocket from 'ws';
import { PATIENCE_MILLISECONDS, check, finish, same, subject } from './checks.mjs';

const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];
const ADMIN = new URL(subject.admin);

// ---- clients of the server

function tokenOf(user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { sub: user, user_id: user, token_type: 'access', jti: 'x', exp: Math.floor(Date.now() / 1000) + 3_600 };
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', subject.secret).update(signed).digest('base64url')}`;
}

/** An open connection of a user, and how it ends. */
function open(user, options = {}) {
  const socket = new WebSocket(`${subject.url}/echo?token=${tokenOf(user)}`, { perMessageDeflate: false, ...options });
  return new Promise((resolve, reject) => {
    const client = { user, socket };
    client.closed = new Promise((done) => {
      socket.on('close', (code, reason) => done({ code, reason: reason.toString() }));
    });
    socket.on('open', () => resolve(client));
    socket.on('error', reject);
  });
}

const echo = ({ socket }, text) => new Promise((resolve) => {
  socket.once('message', (data) => resolve(data.toString()));
  socket.send(text);
});

// ---- the page

const browser = await chromium.launch({ executablePath: subject.chromium, args: ARGUMENTS, timeout: 60_000 });
const asked = [];
const complaints = [];

async function pageOf(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  // What a payload would call, were it to run.
  await context.addInitScript(() => { globalThis.ran = []; globalThis.run = (what) => globalThis.ran.push(what); });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MILLISECONDS);
  page.on('request', (request) => asked.push(request.url()));
  page.on('websocket', (socket) => asked.push(socket.url()));
  page.on('console', (message) => {
    if (/Content Security Policy|TrustedHTML|Refused/.test(message.text())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  return page;
}

const page = await pageOf();
/** What the page was told last. */
let latest = null;
page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => { latest = JSON.parse(payload); }));
const text = (selector) => page.locator(selector).textContent();

/** Waits until what the page says satisfies a condition. */
async function until(what, body) {
  for (const end = Date.now() + PATIENCE_MILLISECONDS; ;) {
    const found = await body();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what} did not come true`);
    await new Promise((next) => { setTimeout(next, 50); });
  }
}

async function signIn(on, token) {
  await on.locator('#token').fill(token);
  await on.locator('#sign-in button').click();
}

const rows = () => page.locator('#top tbody tr');
const users = () => page.locator('#top tbody tr td:first-child').allTextContents();
/** Rows do not move under the pointer, nor while one of them has the focus; so both are taken out of the way. */
async function away() {
  await page.mouse.move(5, 5);
  await page.evaluate(() => document.activeElement?.blur());
}

/** Waits until the list shows what was asked for last. */
const settled = (what) => until(what, async () => await page.locator('#top').getAttribute('aria-busy') === 'false');

/** Filters and sorts, and waits until the list shows exactly so many. */
async function filter({ sort, ...values }, count) {
  await away();
  await page.locator('#filters button[type=reset]').click();
  for (const [name, value] of Object.entries(values)) await page.locator(`#filters [name=${name}]`).fill(value);
  if (sort) await page.locator('#filters [name=sort]').selectOption(sort);
  await away();
  const what = `${JSON.stringify(values)} matches ${count}`;
  await settled(what);
  await until(what, async () => (await text('#top-aside')).startsWith(`${count} `));
}

/** Turns to another page of the list. */
async function turn(button) {
  await page.locator(button).click();
  await away();
  await settled(`a click on ${button}`);
}

await check('asks for the token, and says when it is wrong', async () => {
  await page.goto(`${subject.admin}/dashboard/`);
  await page.locator('#sign-in').waitFor();
  same(await page.locator('#figures').isVisible(), false, 'figures before signing in');
  await signIn(page, 'not-the-token-but-just-as-long-as-it-is');
  await until('it is refused', async () => (await text('#sign-in-text')).includes('does not take'));
});

await check('shows the figures to who has the token', async () => {
  await signIn(page, subject.adminToken);
  await page.locator('#figures').waitFor();
  await until('the server is ready', async () => await text('#state-text') === 'Ready');
});

const clients = [];
await check('figures move with the connections and their messages', async () => {
  for (let i = 0; i < 25; i += 1) clients.push(await open(i % 5 ? `user-${i}` : 'ann'));
  await until('25 are active', async () => await text('#t-active') === '25');
  const talking = setInterval(() => clients.forEach(({ socket }) => socket.send('hello')), 100);
  try {
    await until('messages are counted', async () => Number((await text('#t-in')).replace(',', '')) > 50);
    await until('both ways', async () => Number((await text('#t-out')).replace(',', '')) > 50);
    await until('the plot has a line', async () => (await page.locator('#p-messages path.line').first().getAttribute('d')).length > 20);
  } finally {
    clearInterval(talking);
  }
  await until('reactors add up', async () => {
    const cells = await page.locator('#reactors tbody td:nth-child(2)').allTextContents();
    return cells.map(Number).reduce((sum, number) => sum + number, 0) === 25;
  });
  await until('the funnel has them', async () => /Open25/.test((await text('#funnel')).replace(/[,\s]/g, '')));
});

await check('filters by user, by network and by route, and by all of them', async () => {
  await filter({ user: 'ann' }, 5);
  same([...new Set(await users())], ['ann'], 'users');
  await filter({ address: '127.0.0.0/8' }, 25);
  await filter({ address: '192.0.2.0/24' }, 0);
  same(await text('#top-note'), 'No connection matches.', 'note');
  await filter({ route: '/echo', user: 'user-7' }, 1);
  same(await users(), ['user-7'], 'users');
});

await check('says what is wrong with a filter', async () => {
  await page.locator('#filters [name=address]').fill('nonsense');
  await until('it is said', async () => /address/.test(await text('#top-note')));
});

await check('turns pages, and back', async () => {
  await filter({}, 25);
  await until('a full page', async () => await rows().count() === 20);
  const first = new Set(await page.locator('#top tbody tr').evaluateAll((all) => all.map((row) => row.dataset.id)));
  await turn('#next');
  same(await rows().count(), 5, 'rows of the rest');
  const second = await page.locator('#top tbody tr').evaluateAll((all) => all.map((row) => row.dataset.id));
  same(second.filter((id) => first.has(id)), [], 'rows on both pages');
  await turn('#first');
  same(await rows().count(), 20, 'rows of the first page');
});

await check('sorts by what is asked for', async () => {
  const loud = clients.find(({ user }) => user === 'user-13');
  for (let i = 0; i < 20; i += 1) await echo(loud, 'x'.repeat(2_000));
  await page.locator('#filters [name=sort]').selectOption('bytes_received');
  await until('the loudest is first', async () => (await users())[0] === 'user-13');
});

await check('disconnects one, with the reason given, and only after asking', async () => {
  await filter({ user: 'user-8' }, 1);
  const victim = clients.find(({ user }) => user === 'user-8');
  await page.locator('#top .kick').click();
  await page.locator('#confirm').waitFor();
  await page.locator('#confirm-no').click();
  same(victim.socket.readyState, WebSocket.OPEN, 'state after No');
  await page.locator('#top .kick').click();
  await page.locator('#confirm-reason').fill('maintenance');
  await page.locator('#confirm-yes').click();
  const { code, reason } = await victim.closed;
  same([code >= 4000, reason], [true, 'maintenance'], 'close');
  await away();
  await until('it is gone from the list', async () => (await text('#top-aside')).startsWith('0 '));
  same(clients.filter(({ socket }) => socket.readyState === WebSocket.OPEN).length, clients.length - 1, 'others');
});

await check('disconnects all that match and nobody else', async () => {
  await filter({ user: 'ann' }, 5);
  await page.locator('#kick-all').click();
  await page.locator('#confirm-yes').click();
  for (const { closed } of clients.filter(({ user }) => user === 'ann')) await closed;
  same(clients.filter(({ socket }) => socket.readyState === WebSocket.OPEN).length, clients.length - 6, 'others');
});

await check('an alert that fires is at the top, and in the list with its figure', async () => {
  await until('the banner is there', async () => /many_here/.test(await text('#banner')));
  const row = page.locator('#alerts tbody tr', { hasText: 'many_here' });
  same(await row.locator('.badge').textContent(), 'critical', 'state');
});

await check('plots are read with the keyboard', async () => {
  const plot = page.locator('#p-connections svg');
  await until('there are points', async () => (await page.locator('#p-connections .when').textContent()).length > 4);
  await plot.focus();
  await page.keyboard.press('Home');
  const first = await text('#p-connections .when');
  same(await page.locator('#p-connections .cross').count(), 1, 'mark');
  await page.keyboard.press('ArrowRight');
  await until('it moves on', async () => await text('#p-connections .when') !== first);
  await page.keyboard.press('Escape');
  same(await page.locator('#p-connections .cross').count(), 0, 'mark');
  same(/Active connections: active \d+/.test(await plot.getAttribute('aria-label')), true, 'words for who cannot see');
});

/** Payloads that run wherever text becomes markup, an address, or a script. */
const PAYLOADS = [
  (n) => `<script>run(${n})</script>`,
  (n) => `<img src=x onerror=run(${n})>`,
  (n) => `"><svg onload=run(${n})>`,
  (n) => `'><iframe src="javascript:parent.run(${n})">`,
  (n) => `</td></tr></table><script>run(${n})</script>`,
  (n) => `\${run(${n})}{{constructor.constructor('run(${n})')()}}`,
  (n) => `javascript:run(${n})//`,
  (n) => `" autofocus onfocus="run(${n})" x="`,
  (n) => `<a href="javascript:run(${n})">ann</a>`,
  (n) => `<math><mtext></mtext><style><img src=x onerror=run(${n})></style>`,
];

await check('H1: a hundred hostile names are shown as they are and none runs', async () => {
  const names = Array.from({ length: 100 }, (_, i) => PAYLOADS[i % PAYLOADS.length](i));
  const hostile = await Promise.all(names.map((name) => open(name)));
  // Origins, paths and tokens that are refused leave their reasons, in the server's own words.
  await Promise.all(names.map((name) => open('ann', { headers: { Origin: encodeURI(name) } }).then(
    ({ socket }) => socket.terminate(), () => {},
  )));
  // In an order that does not change while pages are turned.
  await filter({ sort: 'newest' }, clients.length - 6 + names.length);
  const seen = new Set();
  for (let number = 0; number < 6; number += 1) {
    for (const name of await users()) seen.add(name);
    if (await page.locator('#next').isDisabled()) break;
    await turn('#next');
  }
  same(names.filter((name) => !seen.has(name)), [], 'names that are not shown');
  same(await page.locator('#figures').evaluate((main) => main.querySelectorAll('script, img, iframe, a[href^=javascript], style, math').length), 0, 'elements');
  same(await page.evaluate(() => globalThis.ran), [], 'what ran');
  await filter({ user: names[1] }, 1);
  await page.locator('#top .kick').click();
  same((await text('#confirm-text')).includes(names[1]), true, 'the name in the question');
  await page.locator('#confirm-no').click();
  same(await page.evaluate(() => globalThis.ran), [], 'what ran');
  hostile.forEach(({ socket }) => socket.terminate());
});

await check('a page of another origin is not let onto the socket', async () => {
  const other = await pageOf();
  await other.goto('about:blank');
  const outcome = await other.evaluate((address) => new Promise((done) => {
    const socket = new WebSocket(address, 'tidegate.dashboard.v1');
    socket.onopen = () => done('open');
    socket.onerror = () => done('refused');
  }), `ws://${ADMIN.host}/dashboard/live`);
  same(outcome, 'refused', 'socket');
  await other.context().close();
});

await check('reads well in the dark', async () => {
  const dark = await pageOf({ colorScheme: 'dark' });
  await dark.goto(`${subject.admin}/dashboard/`);
  await signIn(dark, subject.adminToken);
  await dark.locator('#figures').waitFor();
  const worst = await dark.evaluate(() => {
    const light = (color) => {
      const parts = color.match(/[\d.]+/g).slice(0, 3).map((part) => Number(part) / 255);
      const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = light(getComputedStyle(document.querySelector('.card')).backgroundColor);
    const inks = ['.card h2', '.tile h2', '.figure', '.sub', '.legend dt', '.aside'].map((name) => light(getComputedStyle(document.querySelector(name)).color));
    return { paper, worst: Math.min(...inks.map((ink) => (ink + 0.05) / (paper + 0.05))) };
  });
  same([worst.paper < 0.05, worst.worst >= 4.5], [true, true], `dark paper, contrast (${worst.worst.toFixed(1)})`);
  await dark.context().close();
});

await check('fits a phone', async () => {
  const phone = await pageOf({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  await phone.goto(`${subject.admin}/dashboard/`);
  await signIn(phone, subject.adminToken);
  await phone.locator('#figures').waitFor();
  await phone.locator('#top tbody tr').first().waitFor();
  const [wide, width] = await phone.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
  same(wide <= width, true, `nothing sticks out (${wide} of ${width} pixels)`);
  const size = await phone.locator('#top .kick').first().boundingBox();
  same(size.height >= 32, true, `a finger hits the button (${size.height})`);
  await phone.context().close();
});

await check('every request goes to the server itself, and none has the token in its address', async () => {
  same([...new Set(asked.map((url) => new URL(url).host))], [ADMIN.host], 'hosts');
  same(asked.filter((url) => url.includes(subject.adminToken) || url.includes('not-the-token')), [], 'addresses with a token');
});

await check('keeps to its own policy, without an error', async () => same(complaints, [], 'complaints'));

await check('says that the server is gone, and shows what was known as old', async () => {
  process.kill(subject.pid, 'SIGTERM');
  await until('it says so', async () => /again in/.test(await text('#state-text')));
  same(await page.evaluate(() => document.body.classList.contains('stale')), true, 'marked as old');
  same(await text('#t-active'), String(latest.point[1]), 'connections, as they were known last');
});

await browser.close();
finish();
