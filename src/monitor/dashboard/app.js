// The dashboard: signs in, listens to the live figures over the server's own WebSocket, asks for the rest, draws.

import { DayPlot, TimePlot, sparkline } from './charts.js';
import { brief, bytes, count, exact, long, share } from './format.js';
import * as panels from './panels.js';
import { Inspector } from './inspector.js';

const API = '/api/monitoring/websocket';
const KEY = 'tidegate-token';
const POINTS_MAX = 900;
const DAYS = 30;

/** The places in a point, as the server sends it. */
const [AT, ACTIVE, IN, OUT, BYTES_IN, BYTES_OUT, OPENED, CLOSED, REFUSED, CPU, P50, P99, RESIDENT] = Array(13).keys();

const $ = (id) => document.getElementById(id);
const say = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};

let token = sessionStorage.getItem(KEY);
let points = [];
/** Frames of the last minute, for what happened in it. */
let minute = [];
let latest = null;
/** When it came, by this browser's own clock: that of the server may be another. */
let latestAt = 0;
let isPaused = false;
let socket = null;
let failures = 0;
let retryTimer = null;

/** Asks the server; an answer that is not one of success is an error with the server's words. */
async function ask(path, options = {}) {
  const headers = { Accept: 'application/json', ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(API + path, { ...options, headers, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const error = new Error(body.message ?? `the server answers ${answer.status}`);
  error.status = answer.status;
  throw error;
}

const plots = {
  connections: new TimePlot($('p-connections'), {
    label: 'Active connections', format: count, series: [{ label: 'active', at: ACTIVE, tone: 'a', filled: true }],
  }),
  messages: new TimePlot($('p-messages'), {
    label: 'Messages per second', format: count,
    series: [{ label: 'in', at: IN, tone: 'a' }, { label: 'out', at: OUT, tone: 'b' }],
  }),
  bytes: new TimePlot($('p-bytes'), {
    label: 'Bytes per second', format: bytes, binary: true, least: 1024,
    series: [{ label: 'in', at: BYTES_IN, tone: 'a' }, { label: 'out', at: BYTES_OUT, tone: 'b' }],
  }),
  arrivals: new TimePlot($('p-arrivals'), {
    label: 'Opened, closed and refused per second', format: count,
    series: [{ label: 'opened', at: OPENED, tone: 'a' }, { label: 'closed', at: CLOSED, tone: 'b' }, { label: 'refused', at: REFUSED, tone: 'bad' }],
  }),
  latency: new TimePlot($('p-latency'), {
    label: 'Send latency', format: brief, least: 1e-4,
    series: [{ label: 'p50', at: P50, tone: 'a' }, { label: 'p99', at: P99, tone: 'c' }],
  }),
  daily: new DayPlot($('p-daily'), {
    label: 'Days', format: count,
    series: [{ label: 'opened', tone: 'a' }, { label: 'peak', tone: 'b' }, { label: 'refused', tone: 'bad' }, { label: 'messages out', tone: 'c' }],
  }),
};

const inspector = new Inspector(ask);

// ---- the connection to the server

async function start() {
  clearTimeout(retryTimer);
  try {
    const history = await ask('/history/');
    // Ticks of a second that was long or short: a second has one point, as in `receive`.
    points = history.points.filter((point, i, all) => !i || point[AT] > all[i - 1][AT]).slice(-POINTS_MAX);
    open();
  } catch (error) {
    if (error.status === 401) signIn();
    else lost(error.status ? error.message : 'The server cannot be reached');
  }
}

function open() {
  const address = new URL('live', location.href);
  address.protocol = address.protocol.replace('http', 'ws');
  const mine = new WebSocket(address, 'tidegate.dashboard.v1');
  socket = mine;
  mine.addEventListener('open', () => mine.send(JSON.stringify({ token })));
  mine.addEventListener('message', ({ data }) => {
    if (mine === socket) receive(JSON.parse(data));
  });
  mine.addEventListener('close', ({ code }) => {
    if (mine !== socket) return;
    if (code === 4401) signIn();
    else lost('Connection lost');
  });
}

function lost(text) {
  socket = null;
  document.body.classList.add('stale');
  failures += 1;
  const pause = Math.min(15, 2 ** Math.min(failures, 4) - 1);
  state('bad', `${text}; again in ${pause} s`);
  clearTimeout(retryTimer);
  retryTimer = setTimeout(start, pause * 1000);
}

function signIn() {
  const wasRefused = token !== null;
  token = null;
  sessionStorage.removeItem(KEY);
  const old = socket;
  socket = null;
  old?.close();
  $('figures').hidden = true;
  $('sign-in').hidden = false;
  say('sign-in-text', wasRefused ? 'The server does not take this token.' : "This server's monitoring asks for its admin token.");
  state('wait', 'Signed out');
  $('token').focus();
}

$('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  token = $('token').value;
  sessionStorage.setItem(KEY, token);
  $('token').value = '';
  $('sign-in').hidden = true;
  state('wait', 'Connecting');
  start();
});

// ---- frames

function receive(frame) {
  if (frame.type !== 'tick') return;
  const isFirst = latest === null || $('figures').hidden;
  failures = 0;
  document.body.classList.remove('stale');
  latest = frame;
  latestAt = performance.now();
  if (!points.length || frame.point[AT] > points.at(-1)[AT]) points.push(frame.point);
  if (points.length > POINTS_MAX) points = points.slice(-POINTS_MAX);
  minute.push(frame);
  minute = minute.filter(({ point }) => point[AT] > frame.point[AT] - 61);
  if (isFirst) {
    $('figures').hidden = false;
    refresh();
  }
  if (!isPaused && !document.hidden) draw();
}

function state(kind, text) {
  $('state').className = `state ${kind}`;
  say('state-text', text);
}

function draw() {
  if (!latest) return;
  const { point } = latest;
  if (socket) state(latest.ready ? 'good' : 'warn', latest.ready ? 'Ready' : 'Not ready');
  const age = latest.started_at ? ` · up ${long(point[AT] - latest.started_at)}` : '';
  say('about', `${location.host} · ${latest.version}${age}`);
  document.title = `${count(point[ACTIVE])} · tidegate`;
  tiles(point);
  lines();
  panels.reactors($('reactors'), latest.reactors);
  panels.percentiles($('percentiles'), latest.latency);
  panels.reasons($('refusals'), sinceMinute('refused'), 'Nobody has been refused.', 'bad');
  panels.reasons($('closed'), sinceMinute('closed'), 'No connection has ended.', 'b');
  panels.alerts($('alerts'), latest.alerts, point[AT]);
  panels.banner($('banner'), latest.alerts);
  const hook = latest.webhook;
  say('alerts-aside', hook ? `webhook: ${exact(hook.delivered)} delivered, ${exact(hook.pending)} waiting, ${exact(hook.dropped)} given up` : 'no webhook');
  $('alerts-aside').classList.toggle('lost', Boolean(hook && (hook.failures_in_a_row || hook.dropped)));
}

/** Totals by name, beside what they were a minute ago. */
function sinceMinute(kind) {
  const before = new Map(minute[0][kind]);
  return latest[kind].map(([name, total]) => [name, total, before.get(name) ?? 0]);
}

function tiles(point) {
  const limit = latest.limit ? `${share(latest.connections / latest.limit)} of ${count(latest.limit)}` : 'no limit known';
  say('t-active', exact(point[ACTIVE]));
  say('t-active-sub', `${limit} · ${exact(latest.users)} users · ${exact(latest.handshakes)} arriving`);
  say('t-in', count(point[IN]));
  say('t-in-sub', `${bytes(point[BYTES_IN])}/s`);
  say('t-out', count(point[OUT]));
  say('t-out-sub', `${bytes(point[BYTES_OUT])}/s`);
  say('t-latency', brief(point[P99]));
  say('t-latency-sub', `p50 ${brief(point[P50])} · ${bytes(latest.outbox_bytes)} waiting`);
  say('t-cpu', point[CPU] === null ? '–' : share(point[CPU]));
  say('t-cpu-sub', 'of one core');
  say('t-memory', bytes(point[RESIDENT]));
  const files = latest.fds ? `${exact(latest.fds[0])} of ${count(latest.fds[1])} descriptors` : '';
  say('t-memory-sub', files);
  const recent = points.slice(-60);
  for (const [id, at] of [['s-active', ACTIVE], ['s-in', IN], ['s-out', OUT], ['s-latency', P99], ['s-cpu', CPU], ['s-memory', RESIDENT]]) {
    sparkline($(id), recent.map((one) => one[at]));
  }
}

function lines() {
  const seconds = Number($('range').value);
  for (const name of ['connections', 'messages', 'bytes', 'arrivals', 'latency']) plots[name].show(points, seconds);
}

// ---- what is asked for now and then

async function refreshFunnel() {
  panels.funnel($('funnel'), await ask('/funnel/'));
}

async function refreshDaily() {
  const sum = (counts) => Object.values(counts).reduce((total, number) => total + number, 0);
  const { days } = await ask(`/daily/?days=${DAYS}`);
  const known = new Map(days.map((day) => [day.date, [day.opened, day.peak, sum(day.refused), day.messages_sent]]));
  const last = Date.parse(days[0].date);
  const dates = Array.from({ length: DAYS }, (_, i) => new Date(last - (DAYS - 1 - i) * 86_400_000).toISOString().slice(0, 10));
  plots.daily.show(dates.map((date) => ({ date, values: known.get(date) ?? [null, null, null, null] })));
}

function refresh() {
  for (const one of [refreshFunnel, refreshDaily, () => inspector.refresh()]) one().catch(complain);
}

function complain(error) {
  if (error.status === 401) signIn();
}

const every = (seconds, body) => setInterval(() => {
  if (socket && latest && !isPaused && !document.hidden) body().catch(complain);
}, seconds * 1000);
every(4, refreshFunnel);
every(60, refreshDaily);
every(3, () => inspector.refreshUnlessBusy());

// Figures that stopped moving are shown as old, whatever the socket believes.
setInterval(() => {
  if (socket && latest && performance.now() - latestAt > 10_000) document.body.classList.add('stale');
}, 2000);

// ---- tools

$('range').addEventListener('change', lines);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !isPaused) draw();
});
$('pause').addEventListener('click', () => {
  isPaused = !isPaused;
  $('pause').setAttribute('aria-pressed', String(isPaused));
  say('pause', isPaused ? 'Go on' : 'Pause');
  if (!isPaused) {
    draw();
    refresh();
  }
});

const THEMES = ['auto', 'light', 'dark'];
function theme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  say('theme', `Theme: ${name}`);
  localStorage.setItem('tidegate-theme', name);
}
let themeName = localStorage.getItem('tidegate-theme');
if (!THEMES.includes(themeName)) themeName = 'auto';
theme(themeName);
$('theme').addEventListener('click', () => {
  themeName = THEMES[(THEMES.indexOf(themeName) + 1) % THEMES.length];
  theme(themeName);
});

start();
