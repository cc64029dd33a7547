// The cluster on one page: what runs, what is wrong, what waits, and what happened.
import { Chart } from '../chart.js';
import { EventList } from '../event_list.js';
import * as format from '../format.js';
import { html } from '../html.js';
import { ActorLink, Ago, Card, Command, Empty, Failure, JobLink, Loaded, Name, PageHead, Prose, State } from '../parts.js';
import { jobHref, listHref, listPath } from '../routes.js';
import { SERIES, clusterSeries, useSeries } from '../series.js';
import { useStore } from '../store.js';
import { latestSample } from '../stream.js';
import { useView } from '../view.js';

const JOBS_SHOWN = 5;
const EVENTS_SHOWN = 12;
const CHARTS = ['cpu_percent', 'memory_bytes', 'messages_per_s', 'tasks_per_s'];

const fetchAll = async (get) => {
  const [status, jobs, actors] = await Promise.all([
    get('/api/v0/status'),
    get(listPath('jobs', { sort: '-started_ms', limit: JOBS_SHOWN })),
    get('/api/v0/summary/actors'),
  ]);
  return { status, jobs, actors };
};

const Tile = ({ title, value, detail, href, share, tone }) => html`
  <a class=${`tile ${tone ?? ''}`} href=${href}>
    <span class="tile-title">${title}</span>
    <span class="tile-value">${value}</span>
    <span class="tile-detail">${detail}</span>
    <span class="tile-track" aria-hidden="true">${typeof share === 'number' && html`<span style=${{ width: `${share}%` }}></span>`}</span>
  </a>`;

const sum = (rows, field) => rows.reduce((total, row) => total + (row[field] ?? 0), 0);

const NodesTile = ({ nodes }) => {
  const alive = nodes.filter((node) => node.state === 'ALIVE').length;
  const listed = nodes.length;
  const others = ['DRAINING', 'UNREACHABLE', 'REJOINING', 'DEAD'].map((state) => [state, nodes.filter((node) => node.state === state).length]);
  const detail = others.filter(([, many]) => many > 0).map(([state, many]) => `${many} ${format.words(state).toLowerCase()}`);
  return html`<${Tile} title="Nodes" href="#/cluster" value=${`${alive} / ${listed}`} detail=${detail.join(', ') || 'all alive'}
    tone=${alive < listed ? 'is-warn' : ''} share=${format.share(alive, listed)} />`;
};

const Tiles = ({ data }) => {
  const sample = useStore(latestSample)?.cluster ?? {};
  const { status, actors } = data;
  const cpu = status.resources?.cpu;
  const states = status.jobs ?? {};
  const ended = ['SUCCEEDED', 'FAILED', 'STOPPED'].filter((state) => states[state])
    .map((state) => `${states[state]} ${format.words(state).toLowerCase()}`);
  const memoryShare = format.share(sample.memory_bytes, sample.memory_total_bytes);
  const pending = sum(actors.rows, 'pending_creation') + sum(actors.rows, 'restarting');
  const restarts = status.restarts?.last_hour ?? 0;
  return html`<div class="tiles">
    <${NodesTile} nodes=${status.nodes} />
    <${Tile} title="CPU" href="#/metrics" value=${format.percent(sample.cpu_percent)} share=${sample.cpu_percent ?? null}
      detail=${cpu ? `${format.amount(cpu.used)} / ${format.amount(cpu.total)} taken by actors` : 'of all nodes'} />
    <${Tile} title="Memory" href="#/metrics" value=${format.percent(memoryShare)} share=${memoryShare}
      detail=${format.bytesOf(sample.memory_bytes, sample.memory_total_bytes)} />
    <${Tile} title="Running jobs" href="#/jobs" value=${format.count((states.RUNNING ?? 0) + (states.PENDING ?? 0))}
      detail=${ended.join(', ') || 'none has ended'} tone=${states.FAILED ? 'is-warn' : ''} />
    <${Tile} title="Actors alive" href="#/actors" value=${format.count(sum(actors.rows, 'alive'))}
      detail=${(pending > 0 ? `${format.count(pending)} pending` : 'none pending') + (restarts > 0 ? `, ${format.counted(restarts, 'restart')} in the last hour` : '')} tone=${pending > 0 ? 'is-warn' : ''} />
    <${Tile} title="Messages" href="#/metrics" value=${format.rate(sample.messages_per_s)} detail="handled by actors" />
    <${Tile} title="Tasks" href="#/tasks" value=${format.rate(sample.tasks_per_s)}
      detail=${typeof sample.tasks_queued === 'number' ? `${format.count(sample.tasks_queued)} queued` : 'finished'} />
  </div>`;
};

const Charts = () => {
  const view = useSeries('1h', [...CHARTS, 'memory_total_bytes']);
  if (view.error && !view.data) return html`<${Failure} error=${view.error} onRetry=${view.reload} />`;
  const reply = view.data ?? { time_ms: [], series: [] };
  const total = clusterSeries(reply, 'memory_total_bytes')?.values.findLast((value) => value !== null);
  return html`<div class="charts">
    ${CHARTS.map((name) => {
      const series = clusterSeries(reply, name);
      const { title, format: text, max, unit } = SERIES[name];
      return html`<section class="card" key=${name}><${Chart} title=${`${title}, last hour`} timeMs=${reply.time_ms}
        series=${series ? [{ label: 'Cluster', values: series.values }] : []} format=${text} unit=${unit}
        max=${name === 'memory_bytes' ? total : max} /></section>`;
    })}
  </div>`;
};

const Alerts = ({ alerts }) => alerts.length > 0 && html`
  <section class="alerts" aria-label="Alerts">
    <h2>${format.counted(alerts.length, 'alert')}</h2>
    <ul>${alerts.map(({ kind, text }) => html`<li key=${kind + text}>
      <span class="state tone-warn">${format.words(kind)}</span><span><${Prose} text=${text} /></span></li>`)}</ul>
  </section>`;

const Waiting = ({ status }) => {
  const { waiting, waiting_count: total } = status;
  const more = total - waiting.length;
  return html`<${Card} title="Waiting" note=${total > 0 ? format.counted(total, 'actor') : null}>
    ${total === 0 ? html`<p class="quiet-line">No actor waits for a node.</p>`
    : html`<ul class="waiting">${waiting.map((actor) => html`<li key=${actor.actor_id}>
        <${ActorLink} id=${actor.actor_id} text=${html`<${Name} path=${actor.class} />`} />
        <span class="muted"> of job <${JobLink} id=${actor.job_id} /></span>
        <p><${Prose} text=${actor.reason} /></p></li>`)}</ul>
      ${more > 0 && html`<p class="quiet-line"><a href=${listHref('actors', { state: 'PENDING_CREATION' })}>${format.count(more)} more</a></p>`}`}
  <//>`;
};

const Jobs = ({ jobs }) => html`
  <${Card} title="Jobs" note=${jobs.total > 0 ? format.count(jobs.total) : null} actions=${html`<a href="#/jobs">All jobs</a>`}>
    ${jobs.rows.length === 0 ? html`<${Empty} title="No job yet.">
      <p>Run one: <${Command} text="roadshow job submit -- ./program" /></p><//>`
    : html`<ul class="job-list">${jobs.rows.map((job) => html`<li key=${job.job_id}>
        <${State} of=${job.state} />
        <a class="mono cut" href=${jobHref(job.job_id)} title=${job.entrypoint}>${job.entrypoint}</a>
        <span class="muted"><${Ago} ms=${job.started_ms} /></span></li>`)}</ul>`}
  <//>`;

// A view of its own, since the counts of many actors take longer than the events.
const Events = () => {
  const view = useView((get) => get(listPath('events', { limit: EVENTS_SHOWN })), [], { kinds: ['events'] });
  return html`<${Card} title="Recent events" actions=${html`<a href="#/events">All events</a>`}>
    <${Loaded} view=${view}>${({ rows }) => html`<${EventList} events=${rows} />`}<//><//>`;
};

export const OverviewPage = () => {
  const view = useView(fetchAll, [], { kinds: ['nodes', 'jobs', 'actors', 'workers'] });
  return html`<${PageHead} title="Overview" view=${view} />
    <${Loaded} view=${view}>${(data) => html`
      <${Alerts} alerts=${data.status.alerts ?? []} />
      <${Tiles} data=${data} />
      <${Charts} />
      <div class="columns">
        <div><${Jobs} jobs=${data.jobs} /><${Waiting} status=${data.status} /></div>
        <${Events} />
      </div>`}
    <//>`;
};
