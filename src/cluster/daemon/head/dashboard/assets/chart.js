// Charts of series over time: crosshair, legend with values, gaps where there are no samples.
import { clockTime, absolute } from './format.js';
import { html, useEffect, useMemo, useRef, useState } from './html.js';
import { useStore } from './store.js';
import { paletteVersion } from './theme_choice.js';
import UPlot from './vendor/uplot.js';

const HEIGHT = 170;
// Charts of one page share the crosshair.
const SYNC = 'time';
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
const COLOURS = 6;

// Steps of an axis of bytes: powers of two, so that labels are whole KiB, MiB and GiB.
const BYTE_STEPS = Array.from({ length: 56 }, (_, power) => 2 ** power);

// Resolved colour of a custom property. A canvas cannot use the property itself.
const colourOf = (element, name) => {
  const probe = document.createElement('span');
  probe.style.color = `var(${name})`;
  element.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
};

const axisStyle = (element) => ({
  stroke: colourOf(element, '--muted'),
  grid: { stroke: colourOf(element, '--grid'), width: 1 },
  ticks: { stroke: colourOf(element, '--grid'), width: 1, size: 4 },
  font: '11px system-ui, sans-serif',
});

const timeLabels = (_, splits, __, ___, step) =>
  splits.map((seconds) => clockTime(seconds * 1_000).slice(0, step < 60 ? 8 : 5));

const options = (element, { series, max, unit, format }, onCursor) => ({
  width: element.clientWidth || 300,
  height: HEIGHT,
  legend: { show: false },
  cursor: { sync: { key: SYNC }, y: false, points: { size: 6 }, drag: { x: false, y: false } },
  scales: { y: { range: (_, __, top) => [0, max ?? (top > 0 ? top * 1.12 : 1)] } },
  axes: [
    { ...axisStyle(element), values: timeLabels, space: 70, size: 28 },
    {
      ...axisStyle(element),
      values: (_, splits) => splits.map((value) => format(value)),
      size: 68,
      space: 34,
      ...(unit === 'bytes' ? { incrs: BYTE_STEPS } : {}),
    },
  ],
  series: [{}, ...series.map(({ label }, at) => ({
    label,
    stroke: colourOf(element, `--series-${(at % COLOURS) + 1}`),
    dash: DASHES[Math.floor(at / COLOURS) % DASHES.length],
    width: 1.5,
    points: { show: false },
    spanGaps: false,
  }))],
  hooks: { setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)] },
});

const lastIndex = (values) => {
  for (let at = values.length - 1; at >= 0; at -= 1) if (values[at] !== null) return at;
  return null;
};

const summary = (title, series, format) => series.map(({ label, values }) => {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return `${title}, ${label}: no samples`;
  const largest = known.reduce((a, b) => Math.max(a, b));
  return `${title}, ${label}: now ${format(known.at(-1))}, largest ${format(largest)}`;
}).join('. ');

const Legend = ({ timeMs, series, index, format }) => html`
  <ul class="legend">
    ${series.map(({ label, values }, at) => html`<li key=${label}>
      <span class=${`swatch series-${(at % COLOURS) + 1}`} aria-hidden="true"></span>
      <span class="legend-name">${label}</span>
      <span class="legend-value">${format(values[index ?? lastIndex(values)] ?? null)}</span></li>`)}
    <li class="legend-time">${index === null ? 'now' : html`<time title=${absolute(timeMs[index])}>${clockTime(timeMs[index])}</time>`}</li>
  </ul>`;

// One chart. `series` has { label, values } in the order of `timeMs`; null is a gap. `format` makes text of a value.
export const Chart = ({ title, timeMs, series, format, max, unit }) => {
  const box = useRef(null);
  const plot = useRef(null);
  const [index, setIndex] = useState(null);
  const palette = useStore(paletteVersion);
  const labels = series.map(({ label }) => label).join('\n');
  const data = useMemo(() => [timeMs.map((ms) => ms / 1_000), ...series.map(({ values }) => values)], [timeMs, series]);
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const element = box.current;
    const made = new UPlot(options(element, { series, max, unit, format }, setIndex), latest.current, element);
    plot.current = made;
    const observer = new ResizeObserver(() => {
      if (element.clientWidth > 0) made.setSize({ width: element.clientWidth, height: HEIGHT });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [labels, palette, unit, max]);
  // Samples are appended to the same plot: a new one would lose the crosshair.
  useEffect(() => plot.current?.setData(data), [data]);

  const shownIndex = index !== null && index < timeMs.length ? index : null;
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    <div class="plot" ref=${box} role="img" aria-label=${summary(title, series, format)}></div>
    <${Legend} timeMs=${timeMs} series=${series} index=${shownIndex} format=${format} />
  </figure>`;
};
