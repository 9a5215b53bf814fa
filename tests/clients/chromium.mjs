// Headless Chromium as a client: each check runs in pages, over the browser's own WebSocket.
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { chromium } from 'playwright-core';
import { CLOSE_CODES, PATIENCE_MILLISECONDS, SIZES, UNICODE, check, finish, inOrder, same, subject } from './checks.mjs';

const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--ignore-certificate-errors',
];

/** Runs in the page: a small client with a queue, as the browser's API has events only. */
function inPage() {
  globalThis.connect = (url, protocols = []) => new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols);
    socket.binaryType = 'arraybuffer';
    const [received, waiting] = [[], []];
    const client = { socket, opened: false };
    client.closed = new Promise((done) => {
      socket.onclose = ({ code, reason, wasClean }) => {
        client.end = new Error(`closed: ${code} ${reason}`);
        for (const waiter of waiting.splice(0)) waiter.reject(client.end);
        if (!client.opened) reject(client.end);
        done({ code, reason, wasClean });
      };
    });
    client.next = () => {
      if (received.length) return Promise.resolve(received.shift());
      if (client.end) return Promise.reject(client.end);
      return new Promise((give, fail) => { waiting.push({ resolve: give, reject: fail }); });
    };
    socket.onmessage = ({ data }) => {
      const next = waiting.shift();
      if (next) next.resolve(data);
      else received.push(data);
    };
    socket.onopen = () => {
      client.opened = true;
      resolve(client);
    };
  });
}

const server = http.createServer((_, response) => {
  response.setHeader('Content-Type', 'text/html; charset=utf-8');
  response.end('<!doctype html><title>clients</title>');
});
await new Promise((listening) => { server.listen(0, '127.0.0.1', listening); });
const origin = `http://127.0.0.1:${server.address().port}/`;
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'tidegate-chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: subject.chromium, headless: true, args: ARGUMENTS, timeout: 60_000,
});
await browser.addInitScript(inPage);

async function openPage() {
  const page = await browser.newPage();
  await page.goto(origin);
  return page;
}
const page = await openPage();
const { url } = subject;

await check('permessage-deflate is negotiated only where the server wants it', async () => {
  const extensions = await page.evaluate(async (u) => {
    const client = await connect(`${u}/echo`);
    const { extensions: negotiated } = client.socket;
    client.socket.close();
    await client.closed;
    return negotiated;
  }, url);
  same(extensions.split(';')[0].trim(), subject.compression ? 'permessage-deflate' : '', 'extension');
});

for (const size of SIZES) {
  await check(`echoes ${size} octets of binary and of text`, async () => {
    const problem = await page.evaluate(async ([u, n]) => {
      const client = await connect(`${u}/echo`);
      const bytes = Uint8Array.from({ length: n }, (_, i) => (i * 31 + (i >> 8) * 17) & 0xff);
      client.socket.send(bytes);
      const binary = new Uint8Array(await client.next());
      if (binary.length !== n || binary.some((byte, i) => byte !== bytes[i])) return 'the binary echo differs';
      client.socket.send(new Blob([bytes]));
      if (new Uint8Array(await client.next()).length !== n) return 'the echo of a Blob differs';
      const text = '€'.repeat(Math.floor(n / 3)) + 'x'.repeat(n % 3);
      client.socket.send(text);
      if (await client.next() !== text) return 'the text echo differs';
      client.socket.close();
      await client.closed;
      return null;
    }, [url, size]);
    same(problem, null, 'problem');
  });
}

await check('echoes text of every width', async () => {
  const echo = await page.evaluate(async ([u, text]) => {
    const client = await connect(`${u}/echo`);
    client.socket.send(text);
    const answer = await client.next();
    client.socket.close();
    return answer;
  }, [url, UNICODE]);
  same(echo, UNICODE, 'echo');
});

await check('broadcasts to three pages, the sender too, in order', async () => {
  const EACH = 40;
  const names = ['a', 'b', 'c'];
  const pages = [page, await openPage(), await openPage()];
  for (const one of pages) {
    await one.evaluate(async (u) => { globalThis.member = await connect(`${u}/broadcast`); }, url);
  }
  await Promise.all(pages.map((one, i) => one.evaluate(([name, each]) => {
    for (let number = 0; number < each; number += 1) globalThis.member.socket.send(`${name}:${number}`);
  }, [names[i], EACH])));
  for (const one of pages) {
    const seen = await one.evaluate(async (wanted) => {
      const messages = [];
      while (messages.length < wanted) messages.push(await globalThis.member.next());
      globalThis.member.socket.close(1000);
      await globalThis.member.closed;
      return messages;
    }, names.length * EACH);
    inOrder(seen, names, EACH);
  }
  for (const one of pages.slice(1)) await one.close();
});

for (const code of CLOSE_CODES) {
  await check(`echoes close code ${code}`, async () => {
    const close = await page.evaluate(async ([u, c]) => {
      const client = await connect(`${u}/echo`);
      client.socket.close(c, 'bye é');
      return client.closed;
    }, [url, code]);
    same([close.code, close.wasClean], [code, true], 'close');
  });
}

await check('answers a close frame without a code by one without a code', async () => {
  const close = await page.evaluate(async (u) => {
    const client = await connect(`${u}/echo`);
    client.socket.close();
    return client.closed;
  }, url);
  same([close.code, close.wasClean], [1005, true], 'close');
});

await check('a message of one octet over the limit closes with 1009, another page stays', async () => {
  const other = await openPage();
  await other.evaluate(async (u) => { globalThis.bystander = await connect(`${u}/echo`); }, url);
  const close = await page.evaluate(async ([u, size]) => {
    const client = await connect(`${u}/echo`);
    client.socket.send(new Uint8Array(size));
    return client.closed;
  }, [url, subject.limit + 1]);
  same([close.code, close.wasClean], [1009, true], 'close');
  const echo = await other.evaluate(async () => {
    globalThis.bystander.socket.send('after');
    return globalThis.bystander.next();
  });
  same(echo, 'after', 'echo');
  await other.close();
});

await check('a page that goes away leaves the others connected', async () => {
  const leaving = await openPage();
  await page.evaluate(async (u) => { globalThis.stays = await connect(`${u}/broadcast`); }, url);
  await leaving.evaluate(async (u) => { globalThis.leaves = await connect(`${u}/broadcast`); }, url);
  await leaving.close();
  const echo = await page.evaluate(async () => {
    globalThis.stays.socket.send('alone');
    return globalThis.stays.next();
  });
  same(echo, 'alone', 'broadcast');
});

await check('selects no subprotocol where it knows none of those offered', async () => {
  // The WHATWG standard has the browser fail a connection whose server selected none of those offered. A server
  // that made one up, or the wrong one, would be told apart here by an open connection or another message.
  const complaint = page.waitForEvent('console', {
    predicate: (message) => message.text().includes('WebSocket'), timeout: PATIENCE_MILLISECONDS,
  }).then((message) => message.text(), (error) => error.message);
  const opened = await page.evaluate((u) => connect(`${u}/echo`, ['unknown.v1', 'unknown.v2'])
    .then(() => 'open', () => 'failed'), url);
  same(opened, 'failed', 'connection');
  const text = await complaint;
  if (!text.includes('no response was received')) throw new Error(`Chromium says: ${text}`);
});

await check('SIGTERM closes every connection with 1001', async () => {
  await page.evaluate(async (u) => {
    globalThis.last = [await connect(`${u}/echo`), await connect(`${u}/broadcast`)];
  }, url);
  process.kill(subject.pid, 'SIGTERM');
  const closes = await page.evaluate(() => Promise.all(globalThis.last.map((client) => client.closed)));
  for (const close of closes) same([close.code, close.wasClean], [1001, true], 'close');
});

await browser.close();
server.close();
fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
finish();
