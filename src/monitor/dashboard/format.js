// Numbers as people read them. Digits have one width in the style, so figures do not tremble.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** 7, 1,234, 56.7k, 8.91M: three digits that mean something, from ten thousand on. */
export function count(value) {
  if (value === null || value === undefined) return '–';
  if (value < 10 && !Number.isInteger(value)) return String(Number(value.toFixed(value < 1 ? 2 : 1)));
  if (value < 10_000) return whole.format(value);
  for (const [unit, size] of [['k', 1e3], ['M', 1e6], ['G', 1e9]]) {
    if (value < size * 999.5 || unit === 'G') {
      const scaled = value / size;
      return `${Number(scaled.toPrecision(3))}${unit}`;
    }
  }
  return String(value);
}

/** Every digit. */
export function exact(value) {
  return value === null || value === undefined ? '–' : whole.format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return '–';
  let [scaled, unit] = [value, 'B'];
  for (const next of ['KiB', 'MiB', 'GiB', 'TiB']) {
    if (scaled < 1024) break;
    [scaled, unit] = [scaled / 1024, next];
  }
  return `${scaled < 10 && unit !== 'B' ? Number(scaled.toFixed(1)) : Math.round(scaled)} ${unit}`;
}

/** A short time, in seconds: 85 µs, 1.2 ms, 3.4 s. */
export function brief(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds === 0) return '0';
  for (const [unit, size] of [['µs', 1e-6], ['ms', 1e-3], ['s', 1]]) {
    if (seconds < size * 999.5 || unit === 's') {
      const scaled = seconds / size;
      return `${scaled < 10 ? Number(scaled.toFixed(1)) : Math.round(scaled)} ${unit}`;
    }
  }
  return String(seconds);
}

/** A long time, in seconds: 42 s, 3 min, 5 h 12 min, 9 d 4 h. */
export function long(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  const total = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [Math.floor(total / 86_400), Math.floor(total / 3_600) % 24, Math.floor(total / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min`;
  return `${total} s`;
}

export function share(value, digits = 0) {
  return value === null || value === undefined || !Number.isFinite(value) ? '–' : `${(value * 100).toFixed(digits)} %`;
}

/** A figure of an alert, in the unit its expression ends in. */
export function figure(value, expression) {
  if (value === null || value === undefined) return 'no figure';
  if (expression.includes(' / ')) return share(value, value < 0.1 ? 1 : 0);
  const is = (unit) => expression.replace(/\{[^}]*\}|\)$/g, '').endsWith(unit);
  if (is('_seconds')) return Math.abs(value) < 100 ? brief(value) : `${value < 0 ? '−' : ''}${long(Math.abs(value))}`;
  if (is('_bytes')) return bytes(value);
  return count(value) + (expression.startsWith('rate(') ? '/s' : '');
}
