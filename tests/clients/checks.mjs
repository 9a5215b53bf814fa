// What the JavaScript clients share: the subject given by the runner, checks with a deadline, the protocol by
// which run.py counts them (one line a check, and a last line that says how many there had to be).

import process from 'node:process';

/** The subject under test: { url, ca, deflate, compression, limit, pid, chromium }. */
export const subject = JSON.parse(process.argv[2]);

/** Message sizes around each length encoding, up to the limit itself. */
export const SIZES = [0, 1, 125, 126, 65535, 65536];

/** One to four octets a character, U+0000, a byte order mark, a surrogate pair, the last code point. */
export const UNICODE = 'a\u0000é€\ufeff𝄞\u{10ffff}κόσμε 日本語 👩‍🚀';

export const CLOSE_CODES = [1000, 3000, 4999];

/** How long one thing may take before a check gives up: a machine may be slow, and busy with other things. */
export const PATIENCE_MILLISECONDS = 20_000;

const CHECK_MILLISECONDS_MAX = 40_000;
let count = 0;

/** Runs one check; it fails by throwing or by taking too long. */
export async function check(name, body) {
  count += 1;
  try {
    await within(CHECK_MILLISECONDS_MAX, body());
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name}: ${String(error?.message ?? error).replaceAll('\n', ' | ')}`);
  }
}

/**
 * Says how many checks there were, and ends: connections that a failed check left open must not keep the process.
 * A script that ends early leaves the line out, and run.py notices.
 */
export function finish() {
  console.log(`1..${count}`);
  process.exit(0);
}

function within(milliseconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing after ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Fails with both values where they differ. */
export function same(actual, expected, what) {
  const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== e) throw new Error(`${what}: ${a.slice(0, 200)} instead of ${e.slice(0, 200)}`);
}

/** Text of exactly `size` octets in UTF-8, of characters of three octets where they fit. */
export function textOf(size) {
  return '€'.repeat(Math.floor(size / 3)) + 'x'.repeat(size % 3);
}

/** Octets without a short period, so that a shifted or repeated part shows. */
export function bytesOf(size) {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i += 1) bytes[i] = (i * 31 + (i >> 8) * 17) & 0xff;
  return bytes;
}

/**
 * Checks what one subscriber saw: every message of every sender, and each sender's in the order it sent them.
 * Messages are `${sender}:${number}`.
 */
export function inOrder(seen, senders, each) {
  for (const sender of senders) {
    const own = seen.filter((message) => message.startsWith(`${sender}:`));
    same(own, Array.from({ length: each }, (_, i) => `${sender}:${i}`), `messages of ${sender}`);
  }
  same(seen.length, senders.length * each, 'messages in all');
}
