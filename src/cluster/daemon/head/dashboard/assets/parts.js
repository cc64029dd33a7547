// Small parts of all pages: states, times, meters, links, headings, and texts for nothing and for failures.
import { useNow } from './clock.js';
import * as format from './format.js';
import { html, useEffect } from './html.js';
import { connection } from './stream.js';
import { useStore } from './store.js';
import * as routes from './routes.js';

export const State = ({ of }) => html`<span class=${`state tone-${format.tone(of)}`}>${format.words(of)}</span>`;

// State of a row, with the cause of its end or the reason why it waits.
export const StateCell = ({ row }) => html`<${State} of=${row.state} />
  ${row.cause && html`<span class="cause"><${Prose} text=${row.cause} /></span>`}`;

// Relative time; the title and the machine-readable form are absolute.
export const Ago = ({ ms }) => {
  const now = useNow();
  if (typeof ms !== 'number') return format.NONE;
  return html`<time datetime=${new Date(ms).toISOString()} title=${format.absolute(ms)}>${format.relative(ms, now)}</time>`;
};

// Time for which something has run: until its end, or until now.
export const Duration = ({ from, to }) => {
  const now = useNow();
  if (typeof from !== 'number') return format.NONE;
  const title = `${format.absolute(from)} to ${typeof to === 'number' ? format.absolute(to) : 'now'}`;
  return html`<span title=${title}>${format.duration((to ?? now) - from)}</span>`;
};

// Bar of a share from 0 to 100, with its percentage and the amounts.
export const Meter = ({ share, text }) => html`
  <span class="meter">
    ${text && html`<span class="meter-text">${text}</span>`}
    ${typeof share === 'number' && html`<span class="meter-bar"><span class="meter-track" aria-hidden="true">
      <span class=${share >= 90 ? 'meter-fill is-high' : 'meter-fill'} style=${{ width: `${Math.min(100, share)}%` }}></span>
    </span><span class="meter-share">${format.percent(share)}</span></span>`}
  </span>`;

export const NodeLink = ({ id, name }) =>
  id ? html`<a href=${routes.nodeHref(id)} title=${`Node ${id}`}>${name || format.shortNode(id)}</a>` : format.NONE;
export const WorkerLink = ({ id }) =>
  id ? html`<a href=${routes.workerHref(id)} title=${`Worker ${id}`}>${format.shortId(id)}</a>` : format.NONE;
export const JobLink = ({ id }) =>
  id ? html`<a href=${routes.jobHref(id)} title=${`Job ${id}`}>${format.shortId(id)}</a>` : format.NONE;
export const ActorLink = ({ id, text }) =>
  id ? html`<a href=${routes.actorHref(id)} title=${`Actor ${id}`}>${text ?? format.shortId(id)}</a>` : format.NONE;

export const Name = ({ path }) => html`<span class="mono" title=${path}>${format.shortName(path)}</span>`;

// Command to type, in a text for an empty page.
export const Command = ({ text }) => html`<code class="command">${text}</code>`;

// Text of the head, in which backquotes enclose code.
export const Prose = ({ text }) => format.codeSpans(text ?? '').map(([piece, isCode]) => (isCode ? html`<code>${piece}</code>` : piece));

export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p>${children}</div>`;

export const Failure = ({ error, onRetry }) => html`
  <div class="failure" role="alert">
    <p><${Prose} text=${error.message} /></p>
    ${onRetry && html`<button type="button" onClick=${onRetry}>Try again</button>`}
  </div>`;

export const Card = ({ title, note, id, children, actions }) => html`
  <section class="card" aria-label=${title} id=${id}>
    <header class="card-head"><h2>${title}</h2>${note && html`<span class="note">${note}</span>`}
      ${actions && html`<span class="card-actions">${actions}</span>`}</header>
    ${children}
  </section>`;

const snapshotText = ({ first, last }) =>
  first === last ? `Snapshot ${format.count(first)}` : `Snapshots ${format.count(first)} to ${format.count(last)}`;

// Number and age of the snapshot that the view shows.
const Freshness = ({ view }) => {
  const now = useNow();
  const { state } = useStore(connection);
  const info = view?.info;
  if (!info) return html`<span class="freshness">Loading</span>`;
  const age = info.timeMs === null ? null : format.duration(Math.max(0, Math.floor((now - info.timeMs) / 1_000) * 1_000));
  const title = 'Version of the head\'s rows that this view shows, and its age. The number grows with each change of rows.';
  return html`<span class=${`freshness is-${state}`} title=${title}>
    ${info.first !== null && html`<span data-snapshot=${info.last}>${snapshotText(info)}</span>`}
    ${age !== null && html`<span class="age">${age} old</span>`}
  </span>`;
};

// Heading of a page. `trail` has the pages above it as [title, address].
export const PageHead = ({ title, trail = [], view, state, children }) => {
  useEffect(() => {
    document.title = `${title} - Roadshow`;
  }, [title]);
  return html`<header class="page-head">
    <div class="page-title">
      ${trail.length > 0 && html`<nav class="trail" aria-label="Pages above">
        ${trail.map(([name, href]) => html`<a href=${href}>${name}</a><span aria-hidden="true">/</span>`)}</nav>`}
      <h1 tabindex="-1">${title}</h1>${state && html`<${State} of=${state} />`}
    </div>
    <div class="page-tools">${children}<${Freshness} view=${view} /></div>
  </header>`;
};

// Rows of a view, its failure, or the note that it loads. Data stays visible while a failure is shown.
// While the connection is lost the frame of the page says so.
export const Loaded = ({ view, children }) => html`
  ${view.error && !(view.data !== null && view.error.code === 'unreachable') && html`<${Failure} error=${view.error} onRetry=${view.reload} />`}
  ${view.data === null && !view.error && html`<div class="loading" role="status">Loading</div>`}
  ${view.data !== null && children(view.data)}`;

// Names and values of one row. Values that are null are left out.
export const Facts = ({ facts }) => html`
  <dl class="facts">
    ${facts.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => html`
      <div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
