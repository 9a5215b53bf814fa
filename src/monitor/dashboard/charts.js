// Plots in SVG, drawn by hand: lines over time, bars over days, sparklines. What a plot says at one place stands in
// its legend, which follows the pointer, a finger, or the arrow keys; without any of them it says what is latest.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with attributes and children; whatever is no node becomes a text node. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(key, value === true ? '' : String(value));
  }
  element.append(...children.flat().map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

function svg(name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

/** The smallest of 1, 2, 2.5, 5 × 10ⁿ (of bytes: 1, 2, 4 … × 1024ⁿ) so that at most four steps reach `max`. */
function step(max, binary) {
  if (binary) {
    let size = 1;
    while (size * 4 < max) size *= 2;
    return size;
  }
  const rough = max / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const found = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  return found * power;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const minuteClock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

/** What all plots share: size, axes, legend, the place that is looked at. */
class Plot {
  constructor(host, { series, format, binary = false, least = 1, label }) {
    Object.assign(this, { host, series, format, binary, least, label });
    this.place = null;
    this.legend = h('dl', { class: 'legend' });
    this.values = series.map(({ label: name, tone }) => {
      const value = h('dd');
      this.legend.append(h('div', { class: `key tone-${tone}` }, h('dt', {}, name), value));
      return value;
    });
    this.when = h('span', { class: 'when' });
    this.legend.append(this.when);
    this.svg = svg('svg', { class: 'chart', tabindex: 0, role: 'img' });
    host.append(this.legend, this.svg);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  listen() {
    const look = (event) => {
      const box = this.svg.getBoundingClientRect();
      this.place = this.nearest((event.clientX - box.left - this.left) / Math.max(1, this.inner));
      this.draw();
    };
    this.svg.addEventListener('pointermove', look);
    this.svg.addEventListener('pointerdown', look);
    this.svg.addEventListener('pointerleave', () => this.leave());
    this.svg.addEventListener('blur', () => this.leave());
    this.svg.addEventListener('keydown', (event) => {
      const last = this.count() - 1;
      const at = this.index();
      const big = Math.max(1, Math.round(last / 10));
      const places = {
        ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - big, PageDown: at + big, Home: 0, End: last,
      };
      if (event.key === 'Escape') this.leave();
      else if (event.key in places && last >= 0) {
        this.place = this.key(Math.min(last, Math.max(0, places[event.key])));
        this.draw();
      } else return;
      event.preventDefault();
    });
  }

  leave() {
    this.place = null;
    this.draw();
  }

  /** The frame: grid lines with their figures. Returns the functions from values and shares to pixels. */
  frame(max) {
    const { width, height } = this.svg.getBoundingClientRect();
    const [top, bottom] = [8, 20];
    const size = step(Math.max(max, this.least), this.binary);
    const steps = Math.max(1, Math.ceil(Math.max(max, this.least) / size - 1e-9));
    const ceiling = size * steps;
    const texts = Array.from({ length: steps + 1 }, (_, i) => this.format(size * i));
    this.left = Math.max(...texts.map((text) => text.length)) * 6.6 + 8;
    this.inner = Math.max(1, width - this.left - 8);
    this.bottom = height - bottom;
    const y = (value) => this.bottom - (Math.min(value, ceiling) / ceiling) * (this.bottom - top);
    const x = (share) => this.left + share * this.inner;
    const parts = texts.map((text, i) => {
      const group = svg('g', { class: i ? 'grid-line' : 'base-line' });
      const at = Math.round(y(size * i)) + 0.5;
      group.append(svg('line', { x1: this.left, x2: width - 8, y1: at, y2: at }));
      const words = svg('text', { x: this.left - 6, y: at + 3.5, 'text-anchor': 'end' });
      words.textContent = text;
      group.append(words);
      return group;
    });
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    return { x, y, parts, width, height, top };
  }

  tick(at, text, parts, width) {
    const half = text.length * 3.2;
    const words = svg('text', {
      class: 'time', x: Math.min(Math.max(at, this.left + half - 4), width - half), y: this.bottom + 15, 'text-anchor': 'middle',
    });
    words.textContent = text;
    parts.push(words);
  }

  say(values, when) {
    values.forEach((value, i) => {
      const text = value === null || value === undefined ? '–' : this.format(value);
      if (this.values[i].textContent !== text) this.values[i].textContent = text;
    });
    this.when.textContent = when;
    const words = this.series.map(({ label }, i) => `${label} ${this.values[i].textContent}`).join(', ');
    this.svg.setAttribute('aria-label', `${this.label}: ${words}, ${when}. Arrow keys move through the plot.`);
  }
}

/** Lines over time. Points are arrays whose first item is the time in seconds; a series names a place in them. */
export class TimePlot extends Plot {
  constructor(host, options) {
    super(host, options);
    this.points = [];
    this.seconds = 300;
    this.until = 0;
  }

  show(points, seconds) {
    this.seconds = seconds;
    this.until = points.length ? points.at(-1)[0] : 0;
    this.points = points.filter((point) => point[0] > this.until - seconds);
    this.draw();
  }

  count() { return this.points.length; }

  key(index) { return this.points[index][0]; }

  index() {
    if (this.place === null) return this.points.length - 1;
    const found = this.points.findIndex((point) => point[0] >= this.place);
    return found < 0 ? this.points.length - 1 : found;
  }

  nearest(share) {
    if (!this.points.length) return null;
    const wanted = this.until - this.seconds * (1 - share);
    const later = this.points.findIndex((point) => point[0] >= wanted);
    const index = later < 0 ? this.points.length - 1 : later;
    const before = this.points[Math.max(0, index - 1)];
    const after = this.points[index];
    return wanted - before[0] < after[0] - wanted ? before[0] : after[0];
  }

  draw() {
    if (!this.svg.getBoundingClientRect().width) return;
    let max = 0;
    for (const point of this.points) {
      for (const { at } of this.series) max = Math.max(max, point[at] ?? 0);
    }
    const { x, y, parts, width, top } = this.frame(max);
    const share = (time) => 1 - (this.until - time) / this.seconds;
    this.times(parts, x, width);
    for (const { at, tone, filled } of this.series) {
      const { line, area } = this.path(at, x, y, share);
      if (filled) parts.push(svg('path', { class: `area tone-${tone}`, d: area }));
      parts.push(svg('path', { class: `line tone-${tone}`, d: line }));
    }
    const looked = this.points[this.index()];
    if (looked) {
      if (this.place !== null) {
        const at = x(share(looked[0]));
        parts.push(svg('line', { class: 'cross', x1: at, x2: at, y1: top, y2: this.bottom }));
        for (const { at: item, tone } of this.series) {
          if (looked[item] !== null && looked[item] !== undefined) {
            parts.push(svg('circle', { class: `mark tone-${tone}`, cx: at, cy: y(looked[item]), r: 3.5 }));
          }
        }
      }
      this.say(this.series.map(({ at }) => looked[at]), clock.format(looked[0] * 1000));
    }
    this.svg.replaceChildren(...parts);
  }

  times(parts, x, width) {
    if (!this.until) return;
    const apart = this.seconds <= 120 ? 30 : this.seconds <= 300 ? 60 : 180;
    const first = Math.ceil((this.until - this.seconds + apart / 6) / apart) * apart;
    for (let time = first; time <= this.until; time += apart) {
      const text = apart < 60 ? clock.format(time * 1000) : minuteClock.format(time * 1000);
      this.tick(x(1 - (this.until - time) / this.seconds), text, parts, width);
    }
  }

  /** The line, broken where seconds are missing, and what lies below it. */
  path(item, x, y, share) {
    let [line, area, run, before] = ['', '', [], -Infinity];
    const end = () => {
      if (run.length) {
        line += `M${run.join('L')}`;
        if (run.length === 1) line += 'h0';
        area += `M${run[0].split(',')[0]},${this.bottom}L${run.join('L')}V${this.bottom}Z`;
      }
      run = [];
    };
    for (const point of this.points) {
      const value = point[item];
      if (value === null || value === undefined || point[0] - before > 5) end();
      if (value !== null && value !== undefined) {
        run.push(`${x(share(point[0])).toFixed(1)},${y(value).toFixed(1)}`);
        before = point[0];
      }
    }
    end();
    return { line, area };
  }
}

/** Bars, one a day, and a mark in each for a second figure. Days are { date, values: [bar, mark, …more] }. */
export class DayPlot extends Plot {
  constructor(host, options) {
    super(host, options);
    this.days = [];
  }

  show(days) {
    this.days = days;
    this.draw();
  }

  count() { return this.days.length; }

  key(index) { return index; }

  index() { return this.place ?? this.days.length - 1; }

  nearest(share) {
    if (!this.days.length) return null;
    return Math.min(this.days.length - 1, Math.max(0, Math.floor(share * this.days.length)));
  }

  draw() {
    if (!this.svg.getBoundingClientRect().width) return;
    const max = Math.max(0, ...this.days.flatMap(({ values }) => values.slice(0, 2).map((value) => value ?? 0)));
    const { x, y, parts, width } = this.frame(max);
    const slot = this.inner / Math.max(1, this.days.length);
    const wide = Math.max(2, Math.min(36, slot * 0.62));
    const every = Math.ceil(this.days.length / Math.max(1, this.inner / 64));
    this.days.forEach(({ date, values }, i) => {
      const middle = x((i + 0.5) / this.days.length);
      if ((this.days.length - 1 - i) % every === 0) this.tick(middle, date.slice(5), parts, width);
      if (values[0] === null) return;
      const looked = this.place === i ? ' looked' : '';
      const top = Math.min(y(values[0]), this.bottom - (values[0] ? 1 : 0));
      parts.push(svg('rect', {
        class: `bar tone-a${looked}`, x: middle - wide / 2, width: wide, y: top, height: this.bottom - top, rx: Math.min(2, wide / 4),
      }));
      const peak = y(values[1]);
      parts.push(svg('line', { class: 'peak tone-b', x1: middle - wide / 2 - 2, x2: middle + wide / 2 + 2, y1: peak, y2: peak }));
    });
    const looked = this.days[this.index()];
    if (looked) this.say(looked.values, looked.date);
    this.svg.replaceChildren(...parts);
  }
}

/** A line without axes: what a figure did lately. */
export function sparkline(host, values) {
  const { width, height } = host.getBoundingClientRect();
  if (!width) return;
  const known = values.filter((value) => value !== null && value !== undefined);
  const max = Math.max(1e-9, ...known);
  const min = Math.min(max, ...known);
  // A figure that hardly moves is a calm line in the middle, not a mountain range.
  const [floor, span] = max - min < max * 0.02 ? [max * 0.5, max] : [Math.max(0, min - (max - min) * 0.15), 0];
  const range = span || max - floor || 1;
  const x = (i) => (i / Math.max(1, values.length - 1)) * width;
  const y = (value) => height - 2 - ((value - floor) / range) * (height - 4);
  const dots = values.map((value, i) => (value === null || value === undefined ? null : `${x(i).toFixed(1)},${y(value).toFixed(1)}`))
    .filter((dot) => dot !== null);
  const drawing = svg('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  if (dots.length > 1) {
    const [from, to] = [dots[0].split(',')[0], dots.at(-1).split(',')[0]];
    drawing.append(
      svg('path', { class: 'area', d: `M${from},${height}L${dots.join('L')}L${to},${height}Z` }),
      svg('path', { class: 'line', d: `M${dots.join('L')}` }),
    );
  }
  host.replaceChildren(drawing);
}
