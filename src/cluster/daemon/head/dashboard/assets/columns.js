// Columns of the tables of nodes, workers, actors, tasks and messages.
import { DrainNode, KillActor } from './actions.js';
import * as format from './format.js';
import { html } from './html.js';
import { ActorLink, JobLink, Meter, Name, NodeLink, StateCell, WorkerLink } from './parts.js';
import { listHref, workerHref } from './routes.js';

const known = (value) => value !== null && value !== undefined;

// Logical resources that a node offers, with what is taken.
const Resources = ({ total, available }) => {
  const all = format.resourcesUsed(total, available);
  return all.length === 0 ? format.NONE : all.map((each) => html`<span class="line" key=${each}>${each}</span>`);
};

const Cpu = ({ percent }) => html`<${Meter} share=${percent} text=${percent === null ? format.NONE : null} />`;
const Bytes = ({ part, whole }) => html`<${Meter} share=${format.share(part, whole)} text=${format.bytesOf(part, whole)} />`;

// The head's own node cannot be drained.
const canDrain = (row) => !row.is_worker && row.state === 'ALIVE' && !row.is_head;

// One table has nodes and, below each, its workers: every column shows both.
// `rates` has the rates of nodes and workers by id.
export const clusterColumns = (nodeRates, workerRates, sample) => {
  const nodeCpu = ({ node_id: id, usage }) => {
    const busy = nodeRates.of(id, 'cpu_seconds');
    return busy !== null && usage?.cpus ? Math.min(100, (100 * busy) / usage.cpus) : sample?.nodes?.[id]?.cpu_percent ?? null;
  };
  const bytesRate = (row, counter) => {
    if (!row.is_worker) return nodeRates.of(row.node_id, counter) ?? sample?.nodes?.[row.node_id]?.[`${counter}_per_s`] ?? null;
    return workerRates.of(row.worker_id, counter);
  };
  const usageHas = (field) => (row) => known(row.usage?.[field]);
  return [
    {
      id: 'host', title: 'Host / Worker process',
      cell: (row) => (row.is_worker
        ? html`<span class="indent"><a href=${workerHref(row.worker_id)}>Worker of job ${format.shortId(row.job_id)}</a></span>`
        : html`<${NodeLink} id=${row.node_id} name=${row.hostname} />${row.is_head && html` <span class="tag">head</span>`}`),
    },
    { id: 'state', title: 'State', class: 'wide', cell: (row) => html`<${StateCell} row=${row} />` },
    {
      id: 'id', title: 'ID',
      cell: (row) => (row.is_worker ? html`<${WorkerLink} id=${row.worker_id} />` : html`<${NodeLink} id=${row.node_id} />`),
    },
    {
      id: 'ip', title: 'IP / PID',
      cell: (row) => html`<span class="nowrap">${row.is_worker ? row.pid : row.address}</span>`,
    },
    {
      id: 'actions', title: 'Actions',
      cell: (row) => html`<span class="actions"><a href=${listHref('logs', row.is_worker ? { worker: row.worker_id } : { node: row.node_id })}>Log</a>
        ${canDrain(row) && html`<${DrainNode} node=${row} />`}</span>`,
    },
    {
      id: 'cpu', title: 'CPU', hint: 'Of a node: share of all its CPUs. Of a worker: share of one CPU.', has: usageHas('cpu_seconds'),
      cell: (row) => {
        if (!row.is_worker) return html`<${Cpu} percent=${nodeCpu(row)} />`;
        const busy = workerRates.of(row.worker_id, 'cpu_seconds');
        return html`<${Cpu} percent=${busy === null ? null : 100 * busy} />`;
      },
    },
    {
      id: 'memory', title: 'Memory', hint: 'Of a node: in use of all. Of a worker: resident.', has: usageHas('memory_bytes'),
      cell: (row) => html`<${Bytes} part=${row.usage?.memory_bytes} whole=${row.usage?.memory_total_bytes} />`,
    },
    {
      id: 'disk', title: 'Disk', hint: 'File system of the session directory', has: usageHas('disk_used_bytes'),
      cell: (row) => (row.is_worker ? '' : html`<${Bytes} part=${row.usage?.disk_used_bytes} whole=${row.usage?.disk_total_bytes} />`),
    },
    { id: 'sent', title: 'Sent', align: 'end', has: usageHas('sent_bytes'), cell: (row) => format.bytesRate(bytesRate(row, 'sent_bytes')) },
    { id: 'received', title: 'Received', align: 'end', has: usageHas('received_bytes'), cell: (row) => format.bytesRate(bytesRate(row, 'received_bytes')) },
    { id: 'actors', title: 'Actors', align: 'end', cell: (row) => format.count(row.actors) },
    {
      id: 'resources', title: 'Logical resources', hint: 'Taken by actors, of what the node offers',
      cell: (row) => (row.is_worker ? '' : html`<${Resources} total=${row.resources} available=${row.available} />`),
    },
  ];
};

const isOver = (actor) => actor.state === 'DEAD';

// `withPlace` is false on the page of a worker, where all rows have one place.
export const actorColumns = ({ rates, withJob = true, withPlace = true }) => [
  {
    id: 'actor', title: 'Actor', sort: 'actor_id',
    cell: (actor) => html`<${ActorLink} id=${actor.actor_id} />`,
  },
  { id: 'class', title: 'Class', sort: 'class', cell: (actor) => html`<${Name} path=${actor.class} />` },
  { id: 'name', title: 'Name', sort: 'name', has: (actor) => actor.name, cell: (actor) => actor.name ?? '' },
  { id: 'state', title: 'State', sort: 'state', class: 'wide', cell: (actor) => html`<${StateCell} row=${actor} />` },
  ...(withJob ? [{ id: 'job', title: 'Job', sort: 'job_id', align: 'end', cell: (actor) => html`<${JobLink} id=${actor.job_id} />` }] : []),
  ...(withPlace ? [
    { id: 'node', title: 'Node', sort: 'node_id', cell: (actor) => html`<${NodeLink} id=${actor.node_id} />` },
    { id: 'worker', title: 'Worker', sort: 'worker_id', align: 'end', cell: (actor) => html`<${WorkerLink} id=${actor.worker_id} />` },
    { id: 'pid', title: 'PID', sort: 'pid', align: 'end', cell: (actor) => actor.pid ?? format.NONE },
  ] : []),
  { id: 'restarts', title: 'Restarts', sort: 'restarts', align: 'end', has: (actor) => actor.restarts > 0, cell: (actor) => format.count(actor.restarts) },
  {
    id: 'mailbox', title: 'Mailbox', sort: 'mailbox', align: 'end', hint: 'Messages that wait', has: (actor) => known(actor.mailbox),
    cell: (actor) => format.count(actor.mailbox),
  },
  { id: 'handled', title: 'Handled', sort: 'handled', align: 'end', has: (actor) => known(actor.handled), cell: (actor) => format.count(actor.handled) },
  {
    id: 'rate', title: 'Rate', align: 'end', hint: 'Messages handled a second', has: (actor) => known(actor.handled),
    cell: (actor) => (isOver(actor) ? format.NONE : format.rate(rates.of(actor.actor_id, 'handled'))),
  },
  {
    id: 'actions', title: 'Actions', has: (actor) => !isOver(actor),
    cell: (actor) => !isOver(actor) && html`<${KillActor} actor=${actor} />`,
  },
];

export const workerColumns = (rates) => [
  { id: 'worker', title: 'Worker', sort: 'worker_id', cell: (worker) => html`<${WorkerLink} id=${worker.worker_id} />` },
  { id: 'state', title: 'State', sort: 'state', class: 'wide', cell: (worker) => html`<${StateCell} row=${worker} />` },
  { id: 'job', title: 'Job', sort: 'job_id', align: 'end', cell: (worker) => html`<${JobLink} id=${worker.job_id} />` },
  { id: 'node', title: 'Node', sort: 'node_id', cell: (worker) => html`<${NodeLink} id=${worker.node_id} />` },
  { id: 'pid', title: 'PID', align: 'end', cell: (worker) => worker.pid || format.NONE },
  {
    id: 'cpu', title: 'CPU', align: 'end', hint: 'Share of one CPU', has: (worker) => known(worker.usage?.cpu_seconds),
    cell: (worker) => {
      const busy = rates.of(worker.worker_id, 'cpu_seconds');
      return format.percent(busy === null ? null : 100 * busy);
    },
  },
  { id: 'memory', title: 'Memory', align: 'end', hint: 'Resident', has: (worker) => known(worker.usage?.memory_bytes), cell: (worker) => format.bytes(worker.usage?.memory_bytes) },
  { id: 'actors', title: 'Actors', align: 'end', cell: (worker) => format.count(worker.actors) },
  { id: 'mailbox', title: 'Mailbox', align: 'end', hint: 'Messages that wait', has: (worker) => known(worker.usage?.mailbox), cell: (worker) => format.count(worker.usage?.mailbox) },
  {
    id: 'handled', title: 'Handled', align: 'end', hint: 'Messages handled by its actors a second', has: (worker) => known(worker.usage?.handled),
    cell: (worker) => format.rate(rates.of(worker.worker_id, 'handled')),
  },
];

// Counters of a worker's usage, as samples for rates.
export const WORKER_COUNTERS = ['cpu_seconds', 'sent_bytes', 'received_bytes', 'handled', 'messages_sent', 'messages_received'];
export const workerSamples = (workers) => workers.map(({ worker_id: id, usage }) => [id, usage?.sampled_ms, usage]);

const percentile = (field, title, hint) => ({
  id: field, title, hint, align: 'end', sort: field, has: (row) => known(row[field]), cell: (row) => format.micros(row[field]),
});

export const taskColumns = ({ withJob = true, withPlace = true } = {}) => [
  { id: 'name', title: 'Function', sort: 'name', cell: (task) => html`<${Name} path=${task.name} />` },
  ...(withJob ? [{ id: 'job', title: 'Job', sort: 'job_id', align: 'end', cell: (task) => html`<${JobLink} id=${task.job_id} />` }] : []),
  ...(withPlace ? [
    { id: 'node', title: 'Node', sort: 'node_id', cell: (task) => html`<${NodeLink} id=${task.node_id} />` },
    { id: 'worker', title: 'Worker', sort: 'worker_id', align: 'end', cell: (task) => html`<${WorkerLink} id=${task.worker_id} />` },
  ] : []),
  ...['queued', 'running', 'finished', 'failed'].map((state) => ({
    id: state, title: format.words(state), sort: state, align: 'end', cell: (task) => format.count(task[state]),
  })),
  percentile('p50_us', 'p50', 'Run time that half of the tasks did not exceed'),
  percentile('p99_us', 'p99', 'Run time that 99 of 100 tasks did not exceed'),
];

export const messageColumns = ({ withClass = true, withWorker = true } = {}) => [
  { id: 'message', title: 'Message', sort: 'message', cell: (row) => html`<${Name} path=${row.message} />` },
  ...(withClass ? [{ id: 'class', title: 'Class', sort: 'class', cell: (row) => html`<${Name} path=${row.class} />` }] : []),
  ...(withWorker ? [{ id: 'worker', title: 'Worker', sort: 'worker_id', align: 'end', cell: (row) => html`<${WorkerLink} id=${row.worker_id} />` }] : []),
  { id: 'handled', title: 'Handled', sort: 'handled', align: 'end', cell: (row) => format.count(row.handled) },
  percentile('p50_us', 'p50', 'Handler time that half of the sampled messages did not exceed'),
  percentile('p99_us', 'p99', 'Handler time that 99 of 100 sampled messages did not exceed'),
];
