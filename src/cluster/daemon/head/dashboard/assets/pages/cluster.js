// Nodes with their workers: the table of the machines.
import { WORKER_COUNTERS, clusterColumns, workerSamples } from '../columns.js';
import * as format from '../format.js';
import { html, useRef } from '../html.js';
import { Command, Empty, Loaded, PageHead } from '../parts.js';
import { Rates } from '../rates.js';
import { choose } from '../router.js';
import { listPath } from '../routes.js';
import { DataTable, SearchField, Select, shownColumns, useOpenRows } from '../table.js';
import { useStore } from '../store.js';
import { latestSample } from '../stream.js';
import { useView } from '../view.js';

const STATES = [['ALIVE', 'Alive'], ['DRAINING', 'Draining'], ['UNREACHABLE', 'Unreachable'],
  ['REJOINING', 'Rejoining'], ['DEAD', 'Dead']];
const ROWS_MAX = 1_000;
const NODE_COUNTERS = ['cpu_seconds', 'sent_bytes', 'received_bytes'];

const Counts = ({ nodes }) => html`<ul class="counts">
  <li>${format.counted(nodes.length, 'node')}</li>
  ${STATES.map(([state, name]) => [nodes.filter((node) => node.state === state).length, state, name])
    .filter(([many]) => many > 0)
    .map(([many, state, name]) => html`<li key=${state}><span class=${`state tone-${format.tone(state)}`}>${many} ${name.toLowerCase()}</span></li>`)}
</ul>`;

const WorkerRows = ({ workers, columns }) => (workers.length === 0
  ? html`<tr role="row" class="sub"><td role="cell"></td><td role="cell" colspan=${columns.length} class="muted">No worker: no job has started one on this node.</td></tr>`
  : workers.map((worker) => html`<tr role="row" class="sub" key=${worker.worker_id} data-id=${worker.worker_id}>
      <td role="cell" class="expand"></td>
      ${columns.map((column) => html`<td role="cell" key=${column.id} data-label=${column.title}
        class=${`${column.align === 'end' ? 'end' : ''} ${column.class ?? ''}`}>${column.cell(worker)}</td>`)}</tr>`));

const matches = (node, text) => {
  const wanted = text.toLowerCase();
  return [node.hostname, node.address, node.node_id, ...Object.entries(node.labels ?? {}).map((label) => label.join('='))]
    .some((value) => value?.toLowerCase().includes(wanted));
};

export const ClusterPage = ({ route: { query } }) => {
  const open = useOpenRows();
  const rates = useRef({ nodes: new Rates(NODE_COUNTERS), workers: new Rates(WORKER_COUNTERS) });
  const sample = useStore(latestSample);
  const view = useView(async (get) => {
    const [nodes, workers] = await Promise.all([
      get(listPath('nodes', { limit: ROWS_MAX })), get(listPath('workers', { limit: ROWS_MAX })),
    ]);
    rates.current.nodes.update(nodes.rows.map(({ node_id: id, usage }) => [id, usage?.sampled_ms, usage]));
    rates.current.workers.update(workerSamples(workers.rows));
    return { nodes: nodes.rows, workers: workers.rows.map((worker) => ({ ...worker, is_worker: true })) };
  }, [], { kinds: ['nodes', 'workers'], samples: true });
  const all = clusterColumns(rates.current.nodes, rates.current.workers, sample);
  const table = ({ nodes, workers }) => {
    const rows = nodes.filter((node) => (!query.state || node.state === query.state) && (!query.search || matches(node, query.search)));
    if (rows.length === 0) return html`<${Empty} title="No node passes the filter."><p><a href="#/cluster">Show all nodes</a></p><//>`;
    const ofNode = (id) => workers.filter((worker) => worker.node_id === id)
      .sort((a, b) => Number(a.state === 'DEAD') - Number(b.state === 'DEAD'));
    const isShown = (worker) => open.isOpen(worker.node_id);
    const columns = shownColumns(all, [...rows, ...workers.filter(isShown)]);
    const expand = {
      ...open,
      label: (node) => `Workers of ${node.hostname}`,
      render: (node) => html`<${WorkerRows} workers=${ofNode(node.node_id)} columns=${columns} />`,
    };
    return html`<${DataTable} label="Nodes and workers" columns=${columns} rows=${rows} keyOf=${(node) => node.node_id} expand=${expand} />`;
  };
  const ids = view.data?.nodes.map((node) => node.node_id) ?? [];
  const isAllOpen = ids.length > 0 && ids.every(open.isOpen);
  return html`<${PageHead} title="Cluster" view=${view} />
    <${Loaded} view=${view}>${(data) => html`
      <${Counts} nodes=${data.nodes} />
      <div class="filters">
        <${Select} label="State" value=${query.state} choices=${STATES} onChange=${(state) => choose({ state })} />
        <${SearchField} label="Search" value=${query.search} placeholder="Host, IP, id, label"
          onSearch=${(search) => choose({ search }, { replace: true })} />
        <button type="button" onClick=${() => open.setOpen(new Set(isAllOpen ? [] : ids))}>${isAllOpen ? 'Hide workers' : 'Show workers'}</button>
      </div>
      ${table(data)}
      ${data.workers.length === ROWS_MAX && html`<p class="quiet-line">Only the latest ${format.count(ROWS_MAX)} workers are listed.</p>`}
      <p class="quiet-line">Add a machine: <${Command} text="roadshow start --address=HEAD:6379" /></p>`}
    <//>`;
};
