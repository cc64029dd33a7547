// Text of quantities, times, ids and states. Pure functions: no clock, no document.

// Placeholder of a value that is not known. The column or the label says what is missing.
export const NONE = '–';

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

// Three significant digits, without an exponent and without trailing zeros.
const digits = (value) => {
  const size = Math.abs(value);
  const decimals = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : 2;
  return String(Number(value.toFixed(decimals)));
};

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

const byteUnit = (value) => {
  let unit = 0;
  // 1,000 of a unit would take four digits, so the next unit begins there.
  while (Math.abs(value) / 1024 ** unit >= 999.5 && unit < BYTE_UNITS.length - 1) unit += 1;
  return unit;
};

export const bytes = (value) => {
  if (!isNumber(value)) return NONE;
  const unit = byteUnit(value);
  return `${digits(value / 1024 ** unit)} ${BYTE_UNITS[unit]}`;
};

// Part and whole in the unit of the whole, such as "1.54 / 23.5 GiB".
export const bytesOf = (part, whole) => {
  if (!isNumber(part)) return isNumber(whole) ? `${NONE} / ${bytes(whole)}` : NONE;
  if (!isNumber(whole) || whole <= 0) return bytes(part);
  const unit = byteUnit(whole);
  return `${digits(part / 1024 ** unit)} / ${digits(whole / 1024 ** unit)} ${BYTE_UNITS[unit]}`;
};

export const bytesRate = (value) => (isNumber(value) ? `${bytes(value)}/s` : NONE);

// Integer with a comma between thousands, in every locale: the page is in English.
export const count = (value) => (isNumber(value) ? Math.round(value).toLocaleString('en-US') : NONE);

// Number with its noun, in the plural unless it is 1.
export const counted = (value, noun, plural = `${noun}s`) => `${count(value)} ${value === 1 ? noun : plural}`;

export const amount = (value) => (isNumber(value) ? digits(value) : NONE);

const SI = [[1e9, 'G'], [1e6, 'M'], [1e4, 'k', 1e3]];

// Number in few characters, for axes and tiles: 12.3k, 4.56M.
export const compact = (value) => {
  if (!isNumber(value)) return NONE;
  for (const [from, unit, divisor = from] of SI) {
    if (Math.abs(value) >= from) return `${digits(value / divisor)}${unit}`;
  }
  return Math.abs(value) >= 1000 ? count(value) : digits(value);
};

export const rate = (value) => (isNumber(value) ? `${compact(value)}/s` : NONE);

export const percent = (value) => {
  if (!isNumber(value)) return NONE;
  return `${Math.abs(value) < 9.95 ? Number(value.toFixed(1)) : Math.round(value)} %`;
};

// Share of a whole from 0 to 100, or null without a whole.
export const share = (part, whole) =>
  isNumber(part) && isNumber(whole) && whole > 0 ? Math.min(100, Math.max(0, (100 * part) / whole)) : null;

// Run time from microseconds: 850 µs, 1.2 ms, 3.4 s.
export const micros = (value) => {
  if (!isNumber(value)) return NONE;
  if (value < 999.5) return `${digits(value)} µs`;
  return value < 999_500 ? `${digits(value / 1e3)} ms` : `${digits(value / 1e6)} s`;
};

const DURATIONS = [['d', 86_400], ['h', 3_600], ['min', 60], ['s', 1]];

// Duration in its two largest units, such as "1 h 12 min".
export const duration = (ms) => {
  if (!isNumber(ms)) return NONE;
  if (ms > 0 && ms < 1_000) return `${Math.round(ms)} ms`;
  let rest = Math.max(0, Math.floor(ms / 1_000));
  const at = Math.max(0, DURATIONS.findIndex(([, size]) => rest >= size));
  if (rest === 0) return '0 s';
  const parts = [];
  for (const [unit, size] of DURATIONS.slice(at, at + 2)) {
    const whole = Math.floor(rest / size);
    if (whole > 0) parts.push(`${whole} ${unit}`);
    rest -= whole * size;
  }
  return parts.join(' ');
};

// Distance of a time from now in one unit, such as "3 min ago".
export const relative = (ms, now) => {
  if (!isNumber(ms) || !isNumber(now)) return NONE;
  const seconds = Math.floor((now - ms) / 1_000);
  if (seconds < 1) return 'now';
  const [unit, size] = DURATIONS.find(([, size]) => seconds >= size);
  return `${Math.floor(seconds / size)} ${unit} ago`;
};

const two = (value) => String(value).padStart(2, '0');

// Local date and time of a moment, to the millisecond, with the offset from UTC.
export const absolute = (ms) => {
  if (!isNumber(ms)) return NONE;
  const at = new Date(ms);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const offset = -at.getTimezoneOffset();
  const zone = offset === 0 ? 'UTC'
    : `UTC${offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  return `${day} ${clockTime(ms)}.${String(at.getMilliseconds()).padStart(3, '0')} ${zone}`;
};

export const clockTime = (ms) => {
  if (!isNumber(ms)) return NONE;
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
};

const NODE_CHARS = 8;

// Short ids as the command prints them; each still resolves to its row.
export const shortNode = (id) => (id ? id.slice(0, NODE_CHARS) : NONE);
export const shortId = (id) => (id ? id.replace(/^0+(?=.)/, '') : NONE);

// Type or function without the modules of its path: `words::Node<std::string::String>` is `Node<String>`.
export const shortName = (path) => (path ? path.replace(/(?:[A-Za-z_][A-Za-z0-9_]*::)+/g, '') : NONE);

// Pieces of a text in which backquotes enclose code: [text, whether it is code].
export const codeSpans = (text) => {
  const pieces = text.split('`');
  // A backquote without a partner is text.
  if (pieces.length % 2 === 0) return [[text, false]];
  return pieces.map((piece, at) => [piece, at % 2 === 1]).filter(([piece]) => piece !== '');
};

// "PENDING_CREATION" as "Pending creation".
export const words = (state) => {
  if (!state) return NONE;
  const text = state.toLowerCase().replaceAll('_', ' ');
  return text[0].toUpperCase() + text.slice(1);
};

// Severity of a state, which selects its colour and its shape.
export const tone = (state) => {
  switch (state) {
    case 'ALIVE': case 'SUCCEEDED': return 'good';
    case 'RUNNING': return 'active';
    case 'PENDING': case 'PENDING_CREATION': case 'STARTING': case 'RESTARTING': case 'REJOINING': return 'wait';
    case 'DRAINING': case 'SUSPENDED': case 'WARNING': return 'warn';
    case 'FAILED': case 'ERROR': case 'UNREACHABLE': return 'bad';
    default: return 'off';
  }
};

// Logical resources as text: "cpu 0.5, memory 2 GiB".
export const resources = (amounts) => {
  const entries = Object.entries(amounts ?? {});
  if (entries.length === 0) return NONE;
  return entries.map(([name, value]) => `${name} ${name === 'memory' ? bytes(value) : amount(value)}`).join(', ');
};

// Used and total amount of each logical resource: "1 / 4 CPU".
export const resourcesUsed = (total, available) => {
  const entries = Object.entries(total ?? {});
  if (entries.length === 0) return [];
  return entries.map(([name, whole]) => {
    const used = Math.max(0, whole - (available?.[name] ?? 0));
    if (name === 'memory') return `${bytesOf(used, whole)} memory`;
    return `${amount(used)} / ${amount(whole)} ${name === 'cpu' ? 'CPU' : name}`;
  });
};
