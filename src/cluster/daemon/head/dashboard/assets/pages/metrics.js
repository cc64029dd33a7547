// Charts of all series that the head keeps.
import { Chart } from '../chart.js';
import { shortNode } from '../format.js';
import { html } from '../html.js';
import { Failure, PageHead } from '../parts.js';
import { choose } from '../router.js';
import { RANGES, SERIES, clusterSeries, nodeSeries, useSeries } from '../series.js';
import { Select } from '../table.js';
import { listPath } from '../routes.js';
import { useView } from '../view.js';

// Groups of series that share a chart; with nodes, a chart has a line for each node.
const CHARTS = [
  { id: 'cpu', names: ['cpu_percent'], byNode: true },
  { id: 'memory', names: ['memory_bytes'], byNode: true },
  { id: 'disk', names: ['disk_used_bytes'], byNode: true },
  { id: 'sent', names: ['sent_bytes_per_s'], byNode: true },
  { id: 'received', names: ['received_bytes_per_s'], byNode: true },
  { id: 'messages', names: ['messages_per_s'] },
  { id: 'tasks', title: 'Tasks', names: ['tasks_per_s', 'tasks_failed_per_s'] },
  { id: 'queued', names: ['tasks_queued'] },
  { id: 'actors', title: 'Actors', names: ['actors', 'actors_pending'] },
  { id: 'processes', title: 'Nodes and workers', names: ['nodes', 'workers'] },
  { id: 'jobs', names: ['jobs_running'] },
];

const NAMES = CHARTS.flatMap(({ names }) => names);
// More lines than these cannot be told apart; further nodes are shown one at a time.
const NODE_LINES_MAX = 12;
const NODES_MAX = 1_000;

// Ids of the nodes that have lines. Dead nodes come last, and a stable order keeps the colour of each.
const nodesShown = (rows, scope) => {
  if (scope === 'cluster') return [];
  if (scope !== 'nodes') return [scope];
  const order = (node) => `${node.state === 'DEAD' ? 1 : 0} ${String(node.started_ms).padStart(16, '0')} ${node.node_id}`;
  const sorted = [...rows].sort((a, b) => (order(a) < order(b) ? -1 : 1));
  return sorted.slice(0, NODE_LINES_MAX).map((node) => node.node_id);
};

const linesOf = (chart, reply, nodes, scope) => {
  const name = chart.names[0];
  if (chart.byNode && scope !== 'cluster') {
    return nodeSeries(reply, name).map(({ node_id: id, values }) => ({ label: nodes.get(id) ?? shortNode(id), values }));
  }
  return chart.names.map((each) => [each, clusterSeries(reply, each)]).filter(([, series]) => series)
    .map(([each, { values }]) => ({ label: chart.names.length > 1 ? SERIES[each].title : 'Cluster', values }));
};

export const MetricsPage = ({ route: { query } }) => {
  const list = useView((get) => get(listPath('nodes', { limit: NODES_MAX })), [], { kinds: ['nodes'] });
  const nodes = new Map((list.data?.rows ?? []).map((node) => [node.node_id, node.hostname]));
  const range = RANGES.some(([id]) => id === query.range) ? query.range : '1h';
  const scope = query.by ?? 'nodes';
  const view = useSeries(range, NAMES, nodesShown(list.data?.rows ?? [], scope));
  const scopes = [['nodes', 'Each node'], ['cluster', 'The cluster'], ...[...nodes].map(([id, name]) => [id, `Node ${name}`])];
  const reply = view.data ?? { time_ms: [], series: [] };
  return html`<${PageHead} title="Metrics" view=${view} />
    <div class="filters">
      <div class="segments" role="group" aria-label="Range">
        ${RANGES.map(([id, title]) => html`<button type="button" key=${id} aria-pressed=${id === range ? 'true' : 'false'} onClick=${() => choose({ range: id })}>${title}</button>`)}
      </div>
      <${Select} label="Lines" any=${null} value=${scope} choices=${scopes} onChange=${(by) => choose({ by: by === 'nodes' ? null : by })} />
    </div>
    ${view.error && html`<${Failure} error=${view.error} onRetry=${view.reload} />`}
    <div class="charts is-large">
      ${CHARTS.map((chart) => {
        const { title, format, unit, max } = SERIES[chart.names[0]];
        return html`<section class="card" key=${chart.id}><${Chart} title=${chart.title ?? title} timeMs=${reply.time_ms}
          series=${linesOf(chart, reply, nodes, scope)} format=${format} unit=${unit} max=${max} /></section>`;
      })}
    </div>
    ${scope === 'nodes' && nodes.size > NODE_LINES_MAX && html`<p class="quiet-line">${NODE_LINES_MAX} of ${nodes.size} nodes have lines. Choose another node above.</p>`}`;
};
