// Text of logs as the page shows it. Pure functions.

// Bounds on what one log keeps in the page; older lines are dropped, and the download has all of them.
export const LINES_MAX = 5_000;
export const CHARS_MAX = 2_000_000;
const LINE_CHARS_MAX = 4_000;

// Escape sequences of terminals: colours and cursor moves (CSI), titles and links (OSC).
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;
// Control characters other than tab, and the marks that change the direction of text.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

const visible = (char) => (char.charCodeAt(0) < 32 ? String.fromCharCode(0x2400 + char.charCodeAt(0)) : '\ufffd');

// A line without escape sequences; of a line that carriage returns rewrote, such as a progress bar, the last state.
export const plainLine = (line) => {
  const bare = line.replace(ESCAPES, '').replace(/\r+$/, '');
  const last = bare.slice(bare.lastIndexOf('\r') + 1);
  const shown = last.length > LINE_CHARS_MAX ? `${last.slice(0, LINE_CHARS_MAX)} ... (line is longer)` : last;
  return shown.replace(CONTROLS, visible);
};

// Appends a piece of a log to its lines; `rest` is the line that has not ended.
export const appendText = ({ lines, rest, dropped }, text) => {
  const pieces = (rest + text).split('\n');
  const open = pieces.pop();
  const all = lines.concat(pieces.map(plainLine));
  let from = Math.max(0, all.length - LINES_MAX);
  let chars = 0;
  for (let at = all.length - 1; at >= from; at -= 1) {
    chars += all[at].length + 1;
    if (chars > CHARS_MAX) from = at + 1;
  }
  // A line without an end may not grow without bound either.
  return { lines: from > 0 ? all.slice(from) : all, rest: open.slice(-CHARS_MAX), dropped: dropped + from };
};

export const emptyLog = () => ({ lines: [], rest: '', dropped: 0 });

// Lines that contain a text, in any case of letters, with their numbers.
export const matchingLines = (lines, search) => {
  const wanted = search.toLowerCase();
  const found = [];
  lines.forEach((line, at) => {
    if (line.toLowerCase().includes(wanted)) found.push([at, line]);
  });
  return found;
};

// Pieces of a line: [text, whether it is a match].
export const marked = (line, search) => {
  const [lower, wanted] = [line.toLowerCase(), search.toLowerCase()];
  // Some letters change their length in lower case; then positions differ, and nothing is marked.
  if (!wanted || lower.length !== line.length) return [[line, false]];
  const pieces = [];
  let at = 0;
  for (let found = lower.indexOf(wanted); found >= 0; found = lower.indexOf(wanted, at)) {
    if (found > at) pieces.push([line.slice(at, found), false]);
    at = found + wanted.length;
    pieces.push([line.slice(found, at), true]);
  }
  if (at < line.length) pieces.push([line.slice(at), false]);
  return pieces;
};
