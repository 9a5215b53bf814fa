// What stands between the plots: lists of reasons, the funnel, percentiles, reactors, alerts.
//
// Names that clients chose (users, routes, addresses) become text nodes and nothing else.

import { h } from './charts.js';
import { brief, bytes, count, exact, figure, long, share } from './format.js';

/** A table whose cells are given as text or nodes; columns are [title, class]. */
export function table(columns, rows, caption) {
  return h(
    'table', {},
    h('caption', {}, caption),
    h('thead', {}, h('tr', {}, columns.map(([title, kind = '']) => h('th', { class: kind, scope: 'col' }, title)))),
    h('tbody', {}, rows.map((cells) => h('tr', {}, cells.map((cell, i) => (i
      ? h('td', { class: columns[i][1] ?? '', 'data-label': columns[i][0] }, cell)
      : h('th', { class: columns[i][1] ?? '', scope: 'row' }, cell)))))),
  );
}

/** A bar as wide as its share, with a text beside it for whoever does not see it. */
export function meter(value, tone = 'a') {
  const fill = h('span', { class: `fill tone-${tone}` });
  fill.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
  return h('span', { class: 'meter', 'aria-hidden': 'true' }, fill);
}

/** A reason as it reads: without its stage said twice. */
const words = (label) => label.replace(/^(\w+): \1_/, '$1: ').replaceAll('_', ' ');

/** Counts by reason: [name, total, before a minute]. The most frequent first. */
export function reasons(host, entries, empty, tone) {
  const known = entries.filter(([, total]) => total > 0)
    .sort((one, two) => (two[1] - two[2]) - (one[1] - one[2]) || two[1] - one[1]).slice(0, 12);
  if (!known.length) {
    host.replaceChildren(h('p', { class: 'empty' }, empty));
    return;
  }
  const most = Math.max(...known.map(([, total]) => total));
  host.replaceChildren(table(
    [['Reason'], ['Share', 'wide-cell'], ['Last minute', 'number'], ['All', 'number']],
    known.map(([name, total, before]) => [words(name), meter(total / most, tone), exact(total - before), exact(total)]),
    'Counts by reason',
  ));
}

const STAGES = {
  accept: 'Accepted', proxy: 'PROXY header', tls: 'TLS', head: 'Request head', upgrade: 'Upgrade', route: 'Route', address: 'Address',
  origin: 'Origin', token: 'Token', rule: 'Rule', user: 'User limits',
};

/** The funnel: who got through each stage, who was refused there and why, and how long it takes. */
export function funnel(host, { arrived, stages, opened, http, abandoned }) {
  if (!arrived) {
    host.replaceChildren(h('p', { class: 'empty' }, 'Nobody has come yet.'));
    return;
  }
  let before = arrived;
  const rows = [];
  for (const { stage, passed, refused, duration } of stages) {
    const reasonsHere = Object.entries(refused).filter(([, number]) => number > 0).sort((one, two) => two[1] - one[1]);
    const lost = reasonsHere.reduce((sum, [, number]) => sum + number, 0);
    // Where nobody counts who got through, it is those before without those refused.
    const through = passed ?? Math.max(0, before - lost);
    const isSkipped = passed === 0 && !lost;
    if (isSkipped) continue;
    if (stage !== 'proxy' && stage !== 'tls') before = through;
    const list = reasonsHere.slice(0, 3).map(([reason, number]) => `${words(reason)} ${exact(number)}`).join(', ');
    rows.push([
      STAGES[stage] ?? words(stage), meter(through / arrived), exact(through),
      lost ? h('span', { class: 'lost', title: list }, `−${exact(lost)}`) : '',
      duration && duration.count ? brief(duration.p99_seconds) : '',
    ]);
  }
  rows.push(['Open', meter(opened / arrived), exact(opened), '', '']);
  host.replaceChildren(
    table([['Stage'], ['Share', 'wide-cell'], ['Got through', 'number'], ['Refused', 'number'], ['p99', 'number']], rows, 'Handshakes by stage'),
    h('p', { class: 'note' }, `${exact(abandoned)} went away on their way in, ${exact(http)} came for plain HTTP.`),
  );
}

const MEASURES = {
  send: 'Send: queued to written', admission: 'Handshake: admission', tls: 'Handshake: TLS', head: 'Handshake: request head',
  proxy: 'Handshake: PROXY header', loop_lag: 'Loop lag', turn: 'Turn of a reactor',
};

export function percentiles(host, latency) {
  const rows = latency.filter(({ count: number }) => number > 0).map((one) => [
    MEASURES[one.name] ?? words(one.name), brief(one.p50), brief(one.p90), brief(one.p99), brief(one.p999), count(one.count),
  ]);
  if (!rows.length) host.replaceChildren(h('p', { class: 'empty' }, 'Nothing was measured in the last minute.'));
  else {
    host.replaceChildren(table(
      [['What'], ['p50', 'number'], ['p90', 'number'], ['p99', 'number'], ['p99.9', 'number'], ['Values', 'number']], rows, 'Latency percentiles',
    ));
  }
}

export function reactors(host, list) {
  const most = Math.max(1, ...list.map(({ connections }) => connections));
  const rows = list.map((one, number) => {
    const isOld = one.age === null || one.age > 5;
    return [
      isOld ? h('span', {}, `${number} `, h('span', { class: 'badge critical' }, one.age === null ? 'silent' : `${long(one.age)} old`)) : String(number),
      h('span', { class: 'with-meter' }, meter(one.connections / most), exact(one.connections)),
      h('span', { class: 'with-meter' }, meter(one.busy ?? 0, one.busy > 0.8 ? 'warn' : 'a'), share(one.busy)),
      count(one.messages_in), count(one.messages_out), `${bytes(one.bytes_in)}/s`, `${bytes(one.bytes_out)}/s`,
      brief(one.lag), exact(one.handshakes), bytes(one.outbox_bytes), exact(one.mailbox),
    ];
  });
  host.replaceChildren(table([
    ['Reactor'], ['Connections', 'number'], ['Busy', 'number'], ['In /s', 'number'], ['Out /s', 'number'], ['Bytes in', 'number'],
    ['Bytes out', 'number'], ['Lag', 'number'], ['Handshakes', 'number'], ['Waiting', 'number'], ['Letters', 'number'],
  ], rows, 'Reactors side by side'));
}

const ORDER = { firing: 0, pending: 1, resolved: 2, inactive: 3 };

/** Alerts that say something, the rest folded away. */
export function alerts(host, list, now) {
  const sorted = [...list].sort((one, two) => ORDER[one.state] - ORDER[two.state]
    || (one.severity === two.severity ? 0 : one.severity === 'critical' ? -1 : 1));
  const row = (alert) => [
    h('span', { class: 'alert-name' }, alert.name, h('span', { class: 'alert-about' }, alert.about)),
    h('span', { class: `badge ${alert.state === 'firing' ? alert.severity : alert.state}` }, alert.state === 'firing' ? alert.severity : alert.state),
    figure(alert.figure, alert.value),
    `${alert.comparison} ${figure(alert.threshold, alert.value)}`,
    alert.since ? long(now - Date.parse(alert.since) / 1000) : '',
  ];
  const columns = [['Rule'], ['State'], ['Figure', 'number'], ['Fires', 'number'], ['For', 'number']];
  const loud = sorted.filter(({ state }) => state !== 'inactive');
  const quiet = sorted.filter(({ state }) => state === 'inactive');
  const wasOpen = host.querySelector('details')?.open ?? false;
  const parts = [];
  if (loud.length) parts.push(h('div', { class: 'scroll' }, table(columns, loud.map(row), 'Alerts that fire, are about to, or did')));
  const fold = h('details', { open: wasOpen }, h('summary', {}, `${quiet.length} quiet ${quiet.length === 1 ? 'rule' : 'rules'}`));
  if (quiet.length) fold.append(h('div', { class: 'scroll' }, table(columns, quiet.map(row), 'Rules with nothing to tell')));
  parts.push(fold);
  host.replaceChildren(...parts);
}

/** What is firing, at the top of the page. */
export function banner(host, list) {
  const firing = list.filter(({ state }) => state === 'firing');
  host.hidden = !firing.length;
  const worst = firing.some(({ severity }) => severity === 'critical') ? 'critical' : 'warning';
  host.className = `banner ${worst}`;
  const text = firing.map(({ name }) => name).join(', ');
  const title = firing.length === 1 ? 'An alert is firing' : `${firing.length} alerts are firing`;
  if (host.textContent !== title + text) host.replaceChildren(h('strong', {}, title), h('a', { href: '#h-alerts' }, text));
}
