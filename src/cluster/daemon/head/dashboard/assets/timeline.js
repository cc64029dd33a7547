// Timeline of a job: a lane for each thread of its workers, with the tasks and messages that ran there.
import { counted, count, micros } from './format.js';
import { html, useEffect, useMemo, useRef, useState } from './html.js';
import { Card, Loaded } from './parts.js';
import { timelinePath } from './routes.js';
import { useStore } from './store.js';
import { paletteVersion } from './theme_choice.js';
import { axisOf, readTrace, runsOf, spanAt } from './trace.js';
import { useView } from './view.js';

// Tasks and messages that a drawing asks for; more are not seen.
const SPANS_MAX = 5_000;
// Time between two loads while the job runs: a trace may have a megabyte.
const RELOAD_MS = 10_000;
const ROW = 20;
const AXIS = 22;
const COLOURS = 6;
// Distance from the pointer at which a short span is still meant, in pixels.
const REACH = 4;

const colourName = (names, name) => {
  const at = names.findIndex(([other]) => other === name);
  return at >= 0 && at < COLOURS ? `--series-${at + 1}` : '--off';
};

const draw = (canvas, trace) => {
  const width = canvas.clientWidth;
  const scale = window.devicePixelRatio || 1;
  const height = AXIS + ROW * trace.lanes.length;
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  const context = canvas.getContext('2d');
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const resolved = new Map();
  // A canvas cannot use custom properties, and these have a value for each theme.
  const colour = (name) => {
    if (!resolved.has(name)) {
      const probe = document.createElement('span');
      probe.style.color = `var(${name})`;
      canvas.parentElement.append(probe);
      resolved.set(name, getComputedStyle(probe).color);
      probe.remove();
    }
    return resolved.get(name);
  };
  const { startUs, endUs } = trace;
  const x = (us) => ((us - startUs) / (endUs - startUs)) * width;
  context.font = `11px ${style.fontFamily}`;
  context.textBaseline = 'middle';
  for (const [us, text] of axisOf(endUs - startUs, Math.max(2, width / 90))) {
    const at = Math.round(x(startUs + us)) + 0.5;
    context.fillStyle = colour('--grid');
    context.fillRect(at, AXIS - 4, 1, height);
    context.fillStyle = colour('--muted');
    context.textAlign = us === 0 ? 'left' : at > width - 40 ? 'right' : 'center';
    context.fillText(text, at, AXIS / 2 - 2);
  }
  trace.lanes.forEach((lane, row) => {
    const top = AXIS + ROW * row;
    if (lane.life) {
      context.fillStyle = colour('--raised');
      context.fillRect(x(lane.life.startUs), top + 2, Math.max(1, x(lane.life.endUs) - x(lane.life.startUs)), ROW - 4);
    }
    for (const [first, end, name] of runsOf(lane.spans, startUs, endUs, Math.max(1, Math.floor(width)))) {
      context.fillStyle = colour(colourName(trace.names, name));
      context.fillRect(first, top + 3, end - first, ROW - 6);
    }
  });
  context.fillStyle = colour('--bad');
  for (const { us } of trace.events.filter(({ severity }) => severity !== 'INFO')) {
    context.fillRect(Math.round(x(us)), AXIS - 4, 1.5, height);
  }
};

// Text about the span under the pointer.
const described = (trace, { lane, span }) =>
  `${span.name}, ${micros(span.endUs - span.startUs)}, ${((span.startUs - trace.startUs) / 1e6).toFixed(3)} s after the start, ${lane.worker}, ${lane.thread}`;

const pointed = (trace, canvas, event) => {
  const box = canvas.getBoundingClientRect();
  const lane = trace.lanes[Math.floor((event.clientY - box.top - AXIS) / ROW)];
  if (!lane || box.width === 0) return null;
  const usPerPixel = (trace.endUs - trace.startUs) / box.width;
  const span = spanAt(lane.spans, trace.startUs + (event.clientX - box.left) * usPerPixel, REACH * usPerPixel);
  return span && { lane, span };
};

const Lanes = ({ trace }) => {
  const canvas = useRef(null);
  const [text, setText] = useState(null);
  const palette = useStore(paletteVersion);
  useEffect(() => {
    const element = canvas.current;
    const paint = () => element.clientWidth > 0 && draw(element, trace);
    // Also the first drawing: an observer reports the size that it finds.
    const observer = new ResizeObserver(paint);
    observer.observe(element);
    return () => observer.disconnect();
  }, [trace, palette]);
  const summary = `Timeline: ${counted(trace.lanes.length, 'thread')}, ${counted(trace.spans, 'task or message', 'tasks and messages')}. `
    + trace.names.slice(0, COLOURS).map(([name, us]) => `${name}: ${micros(us)}`).join('. ');
  const move = (event) => {
    const found = pointed(trace, canvas.current, event);
    setText(found && described(trace, found));
  };
  return html`<div class="timeline">
    <ol class="timeline-names">${trace.lanes.map((lane) => html`
      <li key=${lane.tid} title=${`${lane.worker}, ${lane.thread}`}>${lane.worker.replace(/^worker 0*/, '').replace(/ on node.*$/, '')} ${lane.thread.replace(/^roadshow-/, '')}</li>`)}</ol>
    <canvas ref=${canvas} style=${{ height: `${AXIS + ROW * trace.lanes.length}px` }} role="img" aria-label=${summary}
      title=${text ?? ''} onPointerMove=${move} onPointerLeave=${() => setText(null)}></canvas>
  </div>
  <p class="timeline-detail">${text ?? 'Point at the timeline for a name, a time and a worker.'}</p>
  <ul class="legend">${trace.names.slice(0, COLOURS).map(([name, us], at) => html`<li key=${name}>
    <span class=${`swatch series-${at + 1}`} aria-hidden="true"></span><span class="legend-name">${name}</span>
    <span class="legend-value">${micros(us)}</span></li>`)}
    ${trace.names.length > COLOURS && html`<li><span class="swatch series-other" aria-hidden="true"></span>
      <span class="legend-name">${counted(trace.names.length - COLOURS, 'other name')}</span></li>`}</ul>`;
};

const noteOf = (trace) => `${count(trace.spans)} of ${count(trace.spans + trace.leftOut)} timed`;

export const Timeline = ({ job, isRunning }) => {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!isRunning) return undefined;
    const timer = setInterval(() => document.hidden || setTurn((last) => last + 1), RELOAD_MS);
    return () => clearInterval(timer);
  }, [isRunning]);
  const view = useView((get) => get(timelinePath(job.job_id, SPANS_MAX)), [job.job_id, turn, isRunning], {});
  const trace = useMemo(() => view.data && readTrace(view.data), [view.data]);
  return html`<${Card} title="Timeline" note=${trace?.spans > 0 ? noteOf(trace) : null}
    actions=${html`<a href=${timelinePath(job.job_id)} download=${`job-${job.job_id}.json`}>Download for Perfetto</a>`}>
    <${Loaded} view=${view}>${() => (trace.lanes.length === 0
      ? html`<p class="quiet-line">No task and no message has been reported yet.</p>`
      : html`<${Lanes} trace=${trace} />
        ${trace.lanesLeftOut > 0 && html`<p class="quiet-line">${counted(trace.lanesLeftOut, 'more thread')} in the download.</p>`}`)}<//>
  <//>`;
};
