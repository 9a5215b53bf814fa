// Node's `ws` as a client, with or without permessage-deflate.
import fs from 'node:fs';
import process from 'node:process';
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { CLOSE_CODES, SIZES, UNICODE, bytesOf, check, finish, inOrder, same, subject, textOf } from './checks.mjs';

const OPTIONS = {
  ca: fs.readFileSync(subject.ca),
  perMessageDeflate: subject.deflate ? { threshold: 0 } : false,
};

/** A client that keeps what it receives until it is asked for. */
class Client {
  constructor(path, protocols = []) {
    this.socket = new WebSocket(subject.url + path, protocols, OPTIONS);
    this.received = [];
    this.waiting = [];
    this.socket.on('message', (data, isBinary) => this.put({ data, isBinary }));
    this.closed = new Promise((resolve) => {
      this.socket.on('close', (code, reason) => {
        this.end = new Error(`closed: ${code} ${reason}`);
        for (const { reject } of this.waiting.splice(0)) reject(this.end);
        resolve({ code, reason: reason.toString() });
      });
    });
    this.socket.on('error', (error) => { this.error = error; });
  }

  static async open(path, protocols) {
    const client = new Client(path, protocols);
    await once(client.socket, 'open');
    return client;
  }

  put(message) {
    const next = this.waiting.shift();
    if (next) next.resolve(message);
    else this.received.push(message);
  }

  next() {
    if (this.received.length) return Promise.resolve(this.received.shift());
    if (this.end) return Promise.reject(this.end);
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  /** Sends one message, in these pieces, and checks its echo. */
  async echo(whole, pieces = [whole]) {
    const isBinary = typeof whole !== 'string';
    pieces.forEach((piece, i) => this.socket.send(piece, { binary: isBinary, fin: i === pieces.length - 1 }));
    const answer = await this.next();
    same(answer.isBinary, isBinary, 'binary');
    if (!Buffer.from(whole).equals(answer.data)) throw new Error(`the echo differs (${answer.data.length} octets)`);
  }

  leave() {
    this.socket.close(1000);
    return this.closed;
  }
}

/** A second client is open while the first one breaks a rule, and goes on afterwards. */
async function closesOnlyOffender(offend, code) {
  const [bystander, offender] = [await Client.open('/echo'), await Client.open('/echo')];
  await bystander.echo('before');
  offend(offender.socket);
  same((await offender.closed).code, code, 'close code');
  await bystander.echo('after');
  await bystander.leave();
}

await check('permessage-deflate is negotiated only where both want it', async () => {
  const client = await Client.open('/echo');
  const negotiated = client.socket.extensions.split(';')[0].trim();
  same(negotiated, subject.deflate && subject.compression ? 'permessage-deflate' : '', 'extension');
  await client.leave();
});

for (const size of SIZES) {
  await check(`echoes ${size} octets of binary and of text`, async () => {
    const client = await Client.open('/echo');
    await client.echo(bytesOf(size));
    await client.echo(textOf(size));
    await client.leave();
  });
}

await check('echoes text of every width', async () => {
  const client = await Client.open('/echo');
  await client.echo(UNICODE);
  await client.leave();
});

if (subject.deflate && subject.compression) {
  await check('a compressible message travels compressed both ways', async () => {
    const client = await Client.open('/echo');
    await client.echo('warm');
    const stream = client.socket._socket;
    const [read, written] = [stream.bytesRead, stream.bytesWritten];
    await client.echo('a'.repeat(60_000));
    const used = [stream.bytesRead - read, stream.bytesWritten - written];
    if (used.some((n) => n > 6_000)) throw new Error(`${used} octets on the wire for 60000`);
    await client.leave();
  });
}

await check('echoes a message sent in fragments, cut inside a character', async () => {
  const client = await Client.open('/echo');
  const octets = Buffer.from(UNICODE);
  await client.echo(UNICODE, Array.from(octets, (_, i) => octets.subarray(i, i + 1)));
  const bytes = bytesOf(60_000);
  await client.echo(bytes, [bytes.subarray(0, 125), bytes.subarray(125, 125), bytes.subarray(125)]);
  await client.leave();
});

for (const size of [0, 1, 125]) {
  await check(`answers a ping of ${size} octets with its payload`, async () => {
    const client = await Client.open('/echo');
    const payload = bytesOf(size);
    client.socket.ping(payload);
    const [pong] = await once(client.socket, 'pong');
    if (!pong.equals(payload)) throw new Error(`pong of ${pong.toString('hex')}`);
    await client.leave();
  });
}

await check('answers a ping between two fragments and ignores a pong', async () => {
  const client = await Client.open('/echo');
  client.socket.send('one ', { fin: false });
  client.socket.pong('unasked');
  client.socket.ping('between');
  const [pong] = await once(client.socket, 'pong');
  same(pong.toString(), 'between', 'pong');
  client.socket.send('two', { fin: true });
  same((await client.next()).data.toString(), 'one two', 'echo');
  await client.leave();
});

await check('broadcasts to three clients, the sender too, in order', async () => {
  const EACH = 40;
  const clients = [];
  for (const name of ['a', 'b', 'c']) clients.push({ name, client: await Client.open('/broadcast') });
  for (let i = 0; i < EACH; i += 1) {
    for (const { name, client } of clients) client.socket.send(`${name}:${i}`, { binary: i % 2 === 1 });
  }
  for (const { client } of clients) {
    const seen = [];
    while (seen.length < clients.length * EACH) {
      const { data, isBinary } = await client.next();
      const text = data.toString();
      same(isBinary, Number(text.split(':')[1]) % 2 === 1, `binary of ${text}`);
      seen.push(text);
    }
    inOrder(seen, ['a', 'b', 'c'], EACH);
  }
  for (const { client } of clients) await client.leave();
});

for (const code of CLOSE_CODES) {
  await check(`echoes close code ${code}`, async () => {
    const client = await Client.open('/echo');
    client.socket.close(code, 'bye é');
    same((await client.closed).code, code, 'close code');
  });
}

await check('answers a close frame without a code by one without a code', async () => {
  const client = await Client.open('/echo');
  client.socket.close();
  same((await client.closed).code, 1005, 'close code');
});

await check('a message of one octet over the limit closes with 1009, others stay', () =>
  closesOnlyOffender((socket) => socket.send(bytesOf(subject.limit + 1)), 1009));

await check('fragments that add up to one octet over the limit close with 1009, others stay', () =>
  closesOnlyOffender((socket) => {
    socket.send(bytesOf(subject.limit - 1), { fin: false });
    socket.send(bytesOf(2), { fin: true });
  }, 1009));

await check('text that is not UTF-8 closes with 1007, others stay', () =>
  closesOnlyOffender((socket) => socket.send(Buffer.from([0x61, 0xff]), { binary: false }), 1007));

await check('selects no subprotocol where it knows none of those offered', async () => {
  // Per RFC 6455 §4.1 the client decides what that means; this one gives up and says why.
  const client = new Client('/echo', ['unknown.v1', 'unknown.v2']);
  await client.closed;
  same(client.error?.message, 'Server sent no subprotocol', 'error');
});

await check('SIGTERM closes every connection with 1001', async () => {
  const clients = await Promise.all(['/echo', '/echo', '/broadcast'].map((path) => Client.open(path)));
  await clients[0].echo('still here');
  process.kill(subject.pid, 'SIGTERM');
  for (const client of clients) same((await client.closed).code, 1001, 'close code');
});

finish();
