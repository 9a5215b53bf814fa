// Connections one by one: filters, order, pages, and their end.

import { h } from './charts.js';
import { bytes, count, exact, long } from './format.js';

const PAGE = 20;

const COLUMNS = [
  ['User'], ['Address'], ['Route'], ['Reactor', 'number'], ['Age', 'number'], ['Idle', 'number'], ['Messages in', 'number'],
  ['Messages out', 'number'], ['Bytes in', 'number'], ['Bytes out', 'number'], ['Waiting', 'number'], ['', 'number'],
];

const $ = (id) => document.getElementById(id);

export class Inspector {
  constructor(ask) {
    this.ask = ask;
    this.form = $('filters');
    this.after = null;
    // Where the next page begins; null while what is shown is about to be replaced, so that "next" means what is seen.
    this.following = null;
    this.timer = null;
    this.total = 0;
    this.asked = 0;
    this.rows = new Map();
    this.body = h('tbody');
    $('top').append(h(
      'table', {},
      h('caption', {}, 'Connections'),
      h('thead', {}, h('tr', {}, COLUMNS.map(([title, kind = '']) => h('th', { class: kind, scope: 'col' }, title || h('span', { class: 'unseen' }, 'End it'))))),
      this.body,
    ));
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.restart();
    });
    // Not with every letter of a word. The form is empty only after its event.
    this.form.addEventListener('input', () => this.restart(250));
    this.form.addEventListener('reset', () => this.restart(0));
    $('first').addEventListener('click', () => this.restart());
    $('next').addEventListener('click', () => {
      if (this.following) this.turn(this.following);
    });
    $('kick-all').addEventListener('click', () => this.kickAll());
  }

  /** Shows the first page, at once or in so many milliseconds. */
  restart(milliseconds = null) {
    if (milliseconds === null) {
      this.turn(null);
      return;
    }
    this.expect();
    this.timer = setTimeout(() => this.turn(null), milliseconds);
  }

  /** Shows the page that begins there. */
  turn(after) {
    this.expect();
    this.after = after;
    this.refresh().catch((error) => this.note(error.message));
  }

  /** Another page is going to be shown, instead of any that was to be. */
  expect() {
    clearTimeout(this.timer);
    this.timer = null;
    this.following = null;
    this.setBusy(true);
  }

  setBusy(is) {
    $('top').setAttribute('aria-busy', String(is));
  }

  /** The filters that are filled in, under the server's names. */
  filter() {
    const names = ['user', 'address', 'route', 'idle_min'];
    const values = new FormData(this.form);
    return Object.fromEntries(names.map((name) => [name, String(values.get(name)).trim()]).filter(([, value]) => value));
  }

  /** Not while somebody is about to press a button in a row: rows must not move under the pointer. */
  async refreshUnlessBusy() {
    if (this.body.matches(':hover') || this.body.contains(document.activeElement)) return;
    await this.refresh();
  }

  async refresh() {
    const query = new URLSearchParams({ ...this.filter(), sort: this.form.elements.sort.value, limit: PAGE });
    if (this.after) query.set('after', this.after);
    this.asked += 1;
    const mine = this.asked;
    let answer;
    try {
      answer = await this.ask(`/connections/?${query}`);
    } catch (error) {
      if (error.status === 401) throw error;
      if (!this.isLatest(mine)) return;
      this.setBusy(false);
      this.note(error.message);
      return;
    }
    if (!this.isLatest(mine)) return;
    this.setBusy(false);
    this.following = answer.next;
    this.total = answer.total;
    this.show(answer.connections);
    const hasFilter = Object.keys(this.filter()).length > 0;
    $('top-aside').textContent = `${exact(answer.total)} ${hasFilter ? 'match' : 'open'}`;
    $('first').disabled = !this.after;
    $('next').disabled = !answer.next;
    $('kick-all').disabled = !hasFilter || !answer.total;
    this.note(answer.connections.length ? '' : 'No connection matches.');
  }

  /** Whether nothing else was asked for since, or is about to be. */
  isLatest(asked) {
    return asked === this.asked && this.timer === null;
  }

  /** Rows that stay are written anew, not made anew: focus and pointer stay where they are. */
  show(connections) {
    const kept = new Map();
    for (const one of connections) {
      const row = this.rows.get(one.id) ?? this.row(one.id);
      row.fill(one);
      kept.set(one.id, row);
    }
    this.rows = kept;
    this.body.replaceChildren(...[...kept.values()].map(({ element }) => element));
  }

  row(id) {
    const cells = COLUMNS.slice(0, -1).map(([title, kind = '']) => h('td', { class: kind, 'data-label': title }));
    const button = h('button', { type: 'button', class: 'kick' }, 'Disconnect');
    const element = h('tr', { 'data-id': id }, cells, h('td', { class: 'number' }, button));
    const row = { element, user: null };
    row.fill = (one) => {
      row.user = one.user;
      const texts = [
        one.user ?? '–', one.address, one.route, String(one.reactor), long(one.age_seconds), long(one.idle_seconds), count(one.messages_received),
        count(one.messages_sent), bytes(one.bytes_received), bytes(one.bytes_sent), bytes(one.outbox_bytes),
      ];
      texts.forEach((text, i) => {
        if (cells[i].textContent !== text) {
          cells[i].textContent = text;
          cells[i].title = i < 3 ? text : '';
        }
      });
      button.setAttribute('aria-label', `Disconnect ${one.user ?? one.address}`);
    };
    button.addEventListener('click', () => this.confirm(
      `Disconnect ${row.user ?? 'the connection'} (${cells[1].textContent}, ${cells[2].textContent})?`,
      (reason) => ({ id, reason }),
    ));
    return row;
  }

  kickAll() {
    const filter = this.filter();
    const words = Object.entries(filter).map(([name, value]) => `${name} ${value}`).join(', ');
    this.confirm(
      `Disconnect all ${exact(this.total)} connections with ${words}, a hundred a second?`,
      (reason) => ({ filter, rate: 100, reason }),
    );
  }

  confirm(text, request) {
    const dialog = $('confirm');
    $('confirm-text').textContent = text;
    $('confirm-no').onclick = () => dialog.close();
    $('confirm-yes').onclick = async () => {
      dialog.close();
      try {
        const body = JSON.stringify(request($('confirm-reason').value));
        const { accepted } = await this.ask('/disconnect/', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
        this.note(`${exact(accepted)} ${accepted === 1 ? 'connection is' : 'connections are'} being ended.`);
        setTimeout(() => this.refresh().catch(() => {}), 1200);
      } catch (error) {
        this.note(error.message);
      }
    };
    dialog.showModal();
    $('confirm-no').focus();
  }

  note(text) {
    if ($('top-note').textContent !== text) $('top-note').textContent = text;
  }
}
