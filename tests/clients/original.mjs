// The browser client of the system that tidegate replaces, written anew from its description: a token in the query,
// `action` messages, dispatch on `type`, and five more tries, each after a pause, when a connection drops. It runs in
// headless Chromium against `examples/notifications.toml`, through a wire that can be cut.
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { chromium } from 'playwright-core';
import WebSocket from 'ws';
import { check, finish, same, subject } from './checks.mjs';

const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];
// The original waits five seconds; what counts is that it waits, and how often it comes back.
const RECONNECT_MS = 150;
const RECONNECTS_MAX = 5;
const NOTIFICATIONS = '/ws/notifications/';

const { secret } = subject;
const upstream = new URL(subject.url);
const seconds = () => Math.floor(Date.now() / 1000);
const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token as the original's backend signs it. */
function token(claims = {}, key = secret) {
  const all = {
    token_type: 'access', user_id: 1, exp: seconds() + 600, iat: seconds(), jti: crypto.randomUUID(), ...claims,
  };
  const message = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64(all)}`;
  return `${message}.${crypto.createHmac('sha256', key).update(message).digest('base64url')}`;
}

/** Runs in the page: the client. */
function inPage() {
  globalThis.NotificationClient = class {
    constructor(url, token, { reconnectMs, reconnectsMax }) {
      Object.assign(this, { url, token, reconnectMs, reconnectsMax });
      this.handlers = new Map();
      this.attempts = 0;
      this.opened = 0;
      this.made = [];
      this.errors = 0;
    }

    connect() {
      if (this.socket && this.socket.readyState <= WebSocket.OPEN) return;
      this.wanted = true;
      const url = `${this.url}?token=${encodeURIComponent(this.token)}`;
      this.made.push({ url, at: performance.now() });
      this.socket = new WebSocket(url);
      this.socket.onopen = () => {
        this.opened += 1;
        this.attempts = 0;
      };
      this.socket.onmessage = ({ data }) => this.receive(data);
      this.socket.onerror = () => { this.errors += 1; };
      this.socket.onclose = ({ code, reason }) => {
        this.close = { code, reason };
        this.closedAt = performance.now();
        if (!this.wanted || this.attempts >= this.reconnectsMax) return;
        this.attempts += 1;
        this.timer = setTimeout(() => this.connect(), this.reconnectMs);
      };
    }

    receive(data) {
      let message;
      try {
        message = JSON.parse(data);
      } catch {
        this.errors += 1;
        return;
      }
      for (const handler of this.handlers.get(message.type) ?? []) {
        try {
          handler(message);
        } catch {
          this.errors += 1;
        }
      }
    }

    on(type, handler) {
      if (!this.handlers.has(type)) this.handlers.set(type, new Set());
      this.handlers.get(type).add(handler);
      return () => this.handlers.get(type).delete(handler);
    }

    send(action, fields = {}) {
      if (this.state() !== 'open') return false;
      this.socket.send(JSON.stringify({ action, ...fields }));
      return true;
    }

    disconnect() {
      this.wanted = false;
      clearTimeout(this.timer);
      this.socket?.close();
    }

    state() {
      return ['connecting', 'open', 'closing', 'closed'][this.socket?.readyState ?? 3];
    }
  };

  /** Waits for what announces itself in no other way. */
  globalThis.until = async (condition) => {
    while (!condition()) await new Promise((next) => { setTimeout(next, 5); });
  };

  globalThis.client = (url, token, options) => {
    globalThis.one?.disconnect();
    globalThis.got = [];
    globalThis.one = new NotificationClient(url, token, options);
    for (const type of ['notification', 'notifications_list', 'health_alert', 'user_joined', 'cursor_update']) {
      one.on(type, (message) => got.push(message));
    }
    one.connect();
    return one;
  };
}

/** A wire between browser and server that can be cut, and that can refuse to carry anything. */
const wire = { sockets: new Set(), carries: true, accepted: 0 };
wire.server = net.createServer((near) => {
  wire.accepted += 1;
  if (!wire.carries) {
    near.destroy();
    return;
  }
  const far = net.connect(Number(upstream.port), upstream.hostname);
  for (const [from, to] of [[near, far], [far, near]]) {
    wire.sockets.add(from);
    from.pipe(to);
    from.on('error', () => to.destroy());
    from.on('close', () => { to.destroy(); wire.sockets.delete(from); });
  }
});
wire.cut = () => { for (const socket of wire.sockets) socket.destroy(); };
const listen = (server) => new Promise((ready) => { server.listen(0, '127.0.0.1', ready); });
await listen(wire.server);
const url = `ws://127.0.0.1:${wire.server.address().port}`;

const pages = http.createServer((_, response) => {
  response.setHeader('Content-Type', 'text/html; charset=utf-8');
  response.end('<!doctype html><title>original</title>');
});
await listen(pages);
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'tidegate-original-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: subject.chromium, headless: true, args: ARGUMENTS, timeout: 60_000,
});
await browser.addInitScript(inPage);
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${pages.address().port}/`);

/** What becomes of a connection from the page: `open`, or the close code that it sees. */
const tried = (target) => page.evaluate((to) => new Promise((done) => {
  const socket = new WebSocket(to);
  socket.onopen = () => { done('open'); socket.close(); };
  socket.onclose = ({ code }) => done(code);
}), `${url}${target}`);

/** The same from Node, which can send headers: `open`, or the status. */
const triedWith = (target, headers) => new Promise((done, fail) => {
  const socket = new WebSocket(`${subject.url}${target}`, { headers });
  socket.on('open', () => { done('open'); socket.close(); });
  socket.on('unexpected-response', (_, response) => { done(response.statusCode); socket.terminate(); });
  socket.on('error', (error) => { if (socket.readyState === WebSocket.CONNECTING) fail(error); });
});

/** Publishes as the backend does; over one connection, as nothing orders what comes over several. */
const publish = (target, ...texts) => new Promise((done, fail) => {
  const socket = new WebSocket(`${subject.url}${target}?token=${token({ user_id: 'backend' })}`);
  socket.on('error', fail);
  socket.on('open', () => {
    for (const text of texts) socket.send(text);
    socket.close();
  });
  socket.on('close', done);
});
const toUser = (user, ...messages) => publish(`/test/user/${user}/`, ...messages.map((message) => JSON.stringify(message)));

/** Opens the client in the page, and waits for it. */
const open = (claims = {}, target = NOTIFICATIONS) => page.evaluate(async ([to, bearer, options]) => {
  client(to, bearer, options);
  await until(() => one.opened > 0);
}, [`${url}${target}`, token(claims), { reconnectMs: RECONNECT_MS, reconnectsMax: RECONNECTS_MAX }]);
const received = (count) => page.evaluate(async (wanted) => {
  await until(() => got.length >= wanted);
  return got;
}, count);

/** Cases of one kind, which the original's tests have so many of: each is told with its number. */
function cases(kind, count) {
  let number = 0;
  const one = (name, body) => {
    number += 1;
    return check(`${kind} ${number} of ${count}: ${name}`, body);
  };
  one.end = () => check(`${kind}: all ${count} cases`, async () => same(number, count, 'cases'));
  return one;
}

// --- authentication: fifteen cases ---------------------------------------------------------------------------------

const authenticationCase = cases('authentication', 15);

// A browser is told of a refused upgrade by 1006 alone; Node sees the status.
const refusals = [
  ['no token', NOTIFICATIONS],
  ['an empty token', `${NOTIFICATIONS}?token=`],
  ['a blank token', `${NOTIFICATIONS}?token=%20%20`],
  ['a token of two parts', `${NOTIFICATIONS}?token=${token().split('.').slice(0, 2).join('.')}`],
  ['an expired token', `${NOTIFICATIONS}?token=${token({ exp: seconds() - 60 })}`],
  ['a token of another secret', `${NOTIFICATIONS}?token=${token({}, 'x'.repeat(32))}`],
  ['a token of no user', `${NOTIFICATIONS}?token=${token({ user_id: undefined })}`],
  ['a token of another type', `${NOTIFICATIONS}?token=${token({ token_type: 'refresh' })}`],
];
for (const [name, target] of refusals) {
  await authenticationCase(`${name} is refused`, async () => {
    same(await tried(target), 1006, 'what the browser sees');
    same(await triedWith(target), 401, 'status');
  });
}
await authenticationCase('a header without the word Bearer is refused', async () => {
  same(await triedWith(NOTIFICATIONS, { Authorization: token() }), 401, 'status');
});
await authenticationCase('a malformed header is refused', async () => {
  for (const value of ['Bearer', 'Bearer a b', `Basic ${token()}`, `Bearer ${token()} x`]) {
    same(await triedWith(NOTIFICATIONS, { Authorization: value }), 401, value.slice(0, 12));
  }
});
await authenticationCase('a good token in the query is accepted', async () => {
  same(await tried(`${NOTIFICATIONS}?token=${token()}`), 'open', 'browser');
  same(await tried(`${NOTIFICATIONS}?token=${token({ user_id: '1' })}`), 'open', 'a user id that is a text');
});
await authenticationCase('a good token in the header is accepted', async () => {
  same(await triedWith(NOTIFICATIONS, { Authorization: `Bearer ${token()}` }), 'open', 'connection');
});
await authenticationCase('a token beside other parameters is accepted', async () => {
  same(await tried(`${NOTIFICATIONS}?a=1&token=${token()}&b=%20`), 'open', 'browser');
});
await authenticationCase('a percent-encoded token is accepted', async () => {
  const encoded = [...token()].map((c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`).join('');
  same(await tried(`${NOTIFICATIONS}?token=${encoded}`), 'open', 'browser');
});
await authenticationCase('the token in the query wins over another one in the header', async () => {
  const [good, bad] = [token(), token({}, 'x'.repeat(32))];
  same(await triedWith(`${NOTIFICATIONS}?token=${good}`, { Authorization: `Bearer ${bad}` }), 'open', 'good query');
  same(await triedWith(`${NOTIFICATIONS}?token=${bad}`, { Authorization: `Bearer ${good}` }), 401, 'bad query');
});

await authenticationCase.end();

// --- the client: seventeen cases -------------------------------------------------------------------------------------

const clientCase = cases('client', 17);

await clientCase('connects with its token in the URL', async () => {
  await open();
  const made = await page.evaluate(() => one.made.map(({ url: used }) => new URL(used)));
  same(made.length, 1, 'connections');
  const [, bearer] = (await page.evaluate(() => one.made[0].url)).split('?token=');
  same(bearer.split('.').length, 3, 'parts of the token');
});
await clientCase('does not connect twice', async () => {
  const before = wire.accepted;
  await open();
  await page.evaluate(() => { one.connect(); one.connect(); });
  await toUser(1, { type: 'notification', data: 1 });
  await received(1);
  same(wire.accepted - before, 1, 'connections');
});
await clientCase('survives a failed upgrade, of which it sees only that it failed', async () => {
  const seen = await page.evaluate(async ([to, options]) => {
    client(to, 'nonsense', options);
    await until(() => one.close);
    one.disconnect();
    return [one.opened, one.errors, one.close.code, one.close.reason];
  }, [`${url}${NOTIFICATIONS}`, { reconnectMs: RECONNECT_MS, reconnectsMax: RECONNECTS_MAX }]);
  same(seen, [0, 1, 1006, ''], 'opened, errors, code, reason');
});
await clientCase('receives a notification', async () => {
  await open();
  await toUser(1, { type: 'notification', data: { id: 7, text: 'größer € 𝄞' } });
  same(await received(1), [{ type: 'notification', data: { id: 7, text: 'größer € 𝄞' } }], 'message');
});
await clientCase('receives several kinds in their order', async () => {
  await open();
  const all = [
    { type: 'notifications_list', data: [{ id: 1 }, { id: 2 }] },
    { type: 'notification', data: { id: 3 } },
    { type: 'health_alert', data: { level: 'critical' } },
  ];
  await toUser(1, ...all);
  same(await received(3), all, 'messages');
});
await clientCase('hears what is for its role and for everybody, and nothing else', async () => {
  await open({ user_id: 5, role: 'Student' });
  await publish('/test/role/Admin/', '{"type":"notification","data":"administrators"}');
  await publish('/test/role/Student/', '{"type":"notification","data":"students"}');
  await toUser(6, { type: 'notification', data: 'another user' });
  await publish('/test/all/', '{"type":"notification","data":"all"}');
  // Of two channels, which nothing orders.
  same((await received(2)).map(({ data }) => data).sort(), ['all', 'students'], 'messages');
});
await clientCase('survives invalid JSON', async () => {
  await open({}, '/broadcast');
  await publish('/broadcast', '{"type":', '{"type":"notification","data":"after"}');
  same(await received(1), [{ type: 'notification', data: 'after' }], 'messages');
  same(await page.evaluate(() => [one.errors, one.state()]), [1, 'open'], 'errors and state');
});
await clientCase('passes over kinds that nobody asked for', async () => {
  await open();
  await toUser(1, { type: 'unknown' }, { data: 'no type' }, { type: 'notification', data: 'after' });
  same(await received(1), [{ type: 'notification', data: 'after' }], 'messages');
});
await clientCase('survives a handler that fails', async () => {
  await open();
  await page.evaluate(() => { one.on('notification', () => { throw new Error('as asked'); }); });
  await toUser(1, { type: 'notification', data: 1 }, { type: 'notification', data: 2 });
  await received(2);
  same(await page.evaluate(() => one.state()), 'open', 'state');
});
await clientCase('comes back when the connection drops, after its pause', async () => {
  await open();
  wire.cut();
  const pause = await page.evaluate(async () => {
    await until(() => one.opened === 2);
    return one.made[1].at - one.closedAt;
  });
  if (pause < RECONNECT_MS - 5) throw new Error(`came back after ${pause} ms`);
  await toUser(1, { type: 'notification', data: 'again' });
  same(await received(1), [{ type: 'notification', data: 'again' }], 'messages');
});
await clientCase('counts anew when it has been connected again', async () => {
  await open();
  for (let round = 0; round < RECONNECTS_MAX + 2; round += 1) {
    wire.cut();
    await page.evaluate((wanted) => until(() => one.opened === wanted), round + 2);
  }
  same(await page.evaluate(() => one.state()), 'open', 'state');
});
await clientCase('stops at the maximum', async () => {
  await open();
  wire.carries = false;
  const before = wire.accepted;
  wire.cut();
  const made = await page.evaluate(async ([most, pause]) => {
    await until(() => one.attempts === most && one.made.length === most + 1 && one.state() === 'closed');
    await new Promise((next) => { setTimeout(next, 3 * pause); });
    return one.made.length;
  }, [RECONNECTS_MAX, RECONNECT_MS]);
  wire.carries = true;
  same([made, wire.accepted - before], [RECONNECTS_MAX + 1, RECONNECTS_MAX], 'connections');
});
await clientCase('stays away when it disconnected by itself', async () => {
  await open();
  const seen = await page.evaluate(async (pause) => {
    one.disconnect();
    await until(() => one.state() === 'closed');
    await new Promise((next) => { setTimeout(next, 3 * pause); });
    return [one.made.length, one.close.code];
  }, RECONNECT_MS);
  same(seen, [1, 1005], 'connections and code');
});
await clientCase('subscribes several handlers to a kind, and takes one away', async () => {
  await open();
  await page.evaluate(() => {
    globalThis.heard = [];
    globalThis.off = one.on('notification', ({ data }) => heard.push(`first ${data}`));
    one.on('notification', ({ data }) => heard.push(`second ${data}`));
  });
  await toUser(1, { type: 'notification', data: 1 });
  await received(1);
  await page.evaluate(() => off());
  await toUser(1, { type: 'notification', data: 2 });
  await received(2);
  same(await page.evaluate(() => heard), ['first 1', 'second 1', 'second 2'], 'what was heard');
});
await clientCase('sends actions when open, and the room hears them', async () => {
  const other = await browser.newPage();
  await other.goto(page.url());
  const room = '/ws/collaboration/design-1/';
  await open({ user_id: 1, username: 'alice' }, room);
  const options = { reconnectMs: RECONNECT_MS, reconnectsMax: RECONNECTS_MAX };
  await other.evaluate(async ([to, bearer, how]) => {
    client(to, bearer, how);
    await until(() => one.opened > 0);
  }, [`${url}${room}`, token({ user_id: 2 }), options]);
  const [joined] = await received(1);
  same([joined.type, joined.user], ['user_joined', '2'], 'announcement');
  same(await page.evaluate(() => one.send('cursor_update', { position: 7, user: 'forged' })), true, 'sent');
  // The other may hear of alice's coming too, which was on its way when it joined.
  const heard = await other.evaluate(async () => {
    const relayed = () => got.find(({ type }) => type === 'cursor_update');
    await until(relayed);
    return relayed();
  });
  const { timestamp, ...rest } = heard;
  same(rest, { type: 'cursor_update', position: 7, user: '1', username: 'alice' }, 'message');
  if (Math.abs(Date.parse(timestamp) - Date.now()) > 60_000) throw new Error(`timestamp ${timestamp}`);
  await other.evaluate(() => { one.send('cursor_update', { position: 8 }); });
  // Its own message never came back: the next one is the other's.
  same((await received(2))[1].user, '2', 'whose message');
  await other.close();
});
await clientCase('does not send when closed', async () => {
  await open();
  const sent = await page.evaluate(async () => {
    one.disconnect();
    await until(() => one.state() === 'closed');
    return one.send('mark_read', { notification_id: 1 });
  });
  same(sent, false, 'sent');
});
await clientCase('reports its state', async () => {
  const states = await page.evaluate(async ([to, bearer, options]) => {
    const seen = [new NotificationClient(to, bearer, options).state()];
    client(to, bearer, options);
    seen.push(one.state());
    await until(() => one.opened > 0);
    seen.push(one.state());
    one.disconnect();
    seen.push(one.state());
    await until(() => one.state() === 'closed');
    return [...seen, one.state()];
  }, [`${url}${NOTIFICATIONS}`, token(), { reconnectMs: RECONNECT_MS, reconnectsMax: RECONNECTS_MAX }]);
  same(states, ['closed', 'connecting', 'open', 'closing', 'closed'], 'states');
});

await clientCase.end();

// --- the example page -------------------------------------------------------------------------------------------------

await check('the page of the development profile shows a push and the others\' cursors', async () => {
  const complaints = [];
  const [alice, bob] = [await browser.newPage(), await browser.newPage()];
  for (const tab of [alice, bob]) tab.on('console', (line) => complaints.push(line.text()));
  const site = `http://${upstream.host}/`;
  await alice.goto(`${site}#${token({ user_id: 1, username: 'alice' })}`);
  await bob.goto(`${site}#${token({ user_id: 2, username: '<b>bob</b>' })}`);
  for (const tab of [alice, bob]) await tab.waitForSelector('#room-state[data-state="open"]');
  await alice.waitForSelector('#news-state[data-state="open"]');
  await toUser(1, { type: 'notification', data: '<img src=x onerror=document.title=1>' });
  await alice.waitForSelector('#news li');
  same(await alice.textContent('#news li'), '{"type":"notification","data":"<img src=x onerror=document.title=1>"}', 'push');
  const box = await bob.locator('#room').boundingBox();
  await bob.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await alice.waitForSelector('#room span');
  same(await alice.textContent('#room span'), '<b>bob</b>', 'cursor');
  await bob.close();
  await alice.waitForSelector('#room span', { state: 'detached' });
  same([await alice.title(), complaints], ['tidegate: try it', []], 'title and complaints');
  await alice.close();
});

await check('SIGTERM closes every connection with 1001', async () => {
  await open();
  process.kill(subject.pid, 'SIGTERM');
  same(await page.evaluate(async () => { await until(() => one.close); return one.close.code; }), 1001, 'code');
});

await browser.close();
pages.close();
wire.server.close();
wire.cut();
fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
finish();
