// Trace of a job, as the API sends it, arranged for a drawing. Pure functions.

// Lanes in a drawing; the download has all.
const LANES_MAX = 48;

// Time before and behind the job's life for spans of machines whose clocks differ. One far off must not squeeze the
// drawing.
const CLOCK_DIFFERENCE_US_MAX = 1_000_000;

// Spans and events of a trace: lanes with their worker and thread, names by the sum of their times, and the time
// from `startUs` to `endUs`. Spans beyond that time are drawn at its ends.
export const readTrace = ({ traceEvents, otherData }) => {
  const processes = new Map();
  const lanes = new Map();
  const times = new Map();
  const events = [];
  const lives = new Map();
  // Lives have times of the head's clock, spans those of their machines.
  let lifeStartUs = otherData.started_ms * 1_000;
  let lifeEndUs = lifeStartUs + 1;
  let firstUs = Infinity;
  let lastUs = 0;
  for (const event of traceEvents) {
    const { ph, cat, name, pid, tid, ts, dur, args } = event;
    if (ph === 'M' && name === 'process_name') processes.set(pid, args.name);
    if (ph === 'M' && name === 'thread_name' && tid % 100 !== 0) lanes.set(tid, { tid, pid, thread: args.name, position: 0, spans: [] });
    if (ph === 'M' && name === 'thread_sort_index' && lanes.has(tid)) lanes.get(tid).position = args.sort_index;
    if (ph === 'i') events.push({ us: ts, name, text: args.text, severity: args.severity });
    if (ph !== 'X') continue;
    if (cat === 'job' || cat === 'worker') {
      lifeStartUs = Math.min(lifeStartUs, ts);
      lifeEndUs = Math.max(lifeEndUs, ts + dur);
    }
    if (cat === 'worker') lives.set(pid, { startUs: ts, endUs: ts + dur });
    if (cat !== 'task' && cat !== 'message') continue;
    firstUs = Math.min(firstUs, ts);
    lastUs = Math.max(lastUs, ts + dur);
    lanes.get(tid)?.spans.push({ name, cat, startUs: ts, endUs: ts + dur });
    times.set(name, (times.get(name) ?? 0) + Math.max(1, dur));
  }
  const all = [...lanes.values()].sort((a, b) => a.pid - b.pid || a.position - b.position)
    .map((lane) => ({ ...lane, worker: processes.get(lane.pid) ?? '', life: lives.get(lane.pid) ?? null }));
  return {
    startUs: Math.min(lifeStartUs, Math.max(firstUs, lifeStartUs - CLOCK_DIFFERENCE_US_MAX)),
    endUs: Math.max(lifeEndUs, Math.min(lastUs, lifeEndUs + CLOCK_DIFFERENCE_US_MAX)),
    lanes: all.slice(0, LANES_MAX),
    lanesLeftOut: Math.max(0, all.length - LANES_MAX),
    names: [...times.entries()].sort((a, b) => b[1] - a[1]),
    events,
    spans: otherData.spans,
    leftOut: otherData.left_out,
  };
};

// Colours of a row of columns, each by the name that takes most of its time: [first, end, name] of equal neighbours.
// However many spans there are, there are at most as many runs as columns.
export const runsOf = (spans, startUs, endUs, columns) => {
  const times = Array.from({ length: columns }, () => null);
  const perUs = columns / Math.max(1, endUs - startUs);
  for (const span of spans) {
    const from = Math.max(0, (span.startUs - startUs) * perUs);
    const to = Math.min(columns, Math.max(0, (span.endUs - startUs) * perUs));
    const last = Math.min(columns - 1, Math.floor(to));
    for (let column = Math.min(last, Math.floor(from)); column <= last; column += 1) {
      // A span without a width counts, too.
      const covered = Math.max(1e-9, Math.min(to, column + 1) - Math.max(from, column));
      times[column] ??= new Map();
      times[column].set(span.name, (times[column].get(span.name) ?? 0) + covered);
    }
  }
  const runs = [];
  times.forEach((names, column) => {
    if (names === null) return;
    const [name] = [...names.entries()].reduce((a, b) => (b[1] > a[1] ? b : a));
    const run = runs.at(-1);
    if (run && run[1] === column && run[2] === name) run[1] = column + 1;
    else runs.push([column, column + 1, name]);
  });
  return runs;
};

// Span of a lane at a time, or the nearest one within `reachUs`.
export const spanAt = (spans, us, reachUs) => {
  let best = null;
  let distance = reachUs;
  for (const span of spans) {
    const away = us < span.startUs ? span.startUs - us : Math.max(0, us - span.endUs);
    if (away <= distance) [best, distance] = [span, away];
  }
  return best;
};

const STEPS = [1, 2, 5];

// Marks of an axis over a time, at most `most` of them: [microseconds from the start, text].
export const axisOf = (spanUs, most) => {
  let step = 1;
  for (let at = 0; spanUs / step > most; at += 1) step = STEPS[at % 3] * 10 ** Math.floor(at / 3);
  const decimals = Math.max(0, 6 - Math.floor(Math.log10(step)));
  const marks = [];
  for (let us = 0; us <= spanUs; us += step) marks.push([us, `${Number((us / 1e6).toFixed(decimals))} s`]);
  return marks;
};
