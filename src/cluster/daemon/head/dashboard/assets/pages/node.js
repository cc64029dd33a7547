// One node: what it offers, how loaded it is, its workers, logs and events.
import { DrainNode } from '../actions.js';
import { Chart } from '../chart.js';
import { WORKER_COUNTERS, workerColumns, workerSamples } from '../columns.js';
import { EventList } from '../event_list.js';
import * as format from '../format.js';
import { html, useRef } from '../html.js';
import { LogsOf } from '../log_choice.js';
import { Ago, Card, Facts, Loaded, PageHead, Prose } from '../parts.js';
import { Rates } from '../rates.js';
import { listPath, rowPath } from '../routes.js';
import { ListSection } from '../section.js';
import { SERIES, nodeSeries, useSeries } from '../series.js';
import { useView } from '../view.js';

const CHARTS = ['cpu_percent', 'memory_bytes', 'sent_bytes_per_s', 'received_bytes_per_s'];

const Charts = ({ node }) => {
  const view = useSeries('1h', CHARTS, [node.node_id]);
  const reply = view.data ?? { time_ms: [], series: [] };
  return html`<div class="charts">${CHARTS.map((name) => {
    const { title, format: text, unit, max } = SERIES[name];
    const found = nodeSeries(reply, name).find((series) => series.node_id === node.node_id);
    return html`<section class="card" key=${name}><${Chart} title=${`${title}, last hour`} timeMs=${reply.time_ms} format=${text} unit=${unit}
      max=${name === 'memory_bytes' ? node.usage?.memory_total_bytes : max} series=${found ? [{ label: 'Node', values: found.values }] : []} /></section>`;
  })}</div>`;
};

const labels = (node) => Object.entries(node.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(', ') || null;

export const NodePage = ({ route: { id } }) => {
  const rates = useRef(new Rates(WORKER_COUNTERS));
  const view = useView(async (get) => {
    const [{ row }, events] = await Promise.all([get(rowPath('nodes', id)), get(listPath('events', { filters: { node_id: id }, limit: 20 }))]);
    return { node: row, events: events.rows };
  }, [id], { kinds: ['nodes', 'events'], samples: true });
  const node = view.data?.node;
  return html`<${PageHead} title=${node ? node.hostname : 'Node'} trail=${[['Cluster', '#/cluster']]} view=${view} state=${node?.state}>
      ${node?.state === 'ALIVE' && !node.is_head && html`<${DrainNode} node=${node} />`}<//>
    <${Loaded} view=${view}>${({ node: row, events }) => html`
      <${Card} title="Node"><${Facts} facts=${[
        ['Cause', row.cause && html`<${Prose} text=${row.cause} />`],
        ['ID', html`<span class="mono">${row.node_id}</span>`],
        ['Address', row.address],
        ['Agent\'s PID', row.pid],
        ['Role', row.is_head ? 'node of the head' : null],
        ['Joined', html`<${Ago} ms=${row.started_ms} />`],
        ['Resources', format.resourcesUsed(row.resources, row.available).join(', ') || format.NONE],
        ['Labels', labels(row)],
        ['Memory', row.usage ? format.bytesOf(row.usage.memory_bytes, row.usage.memory_total_bytes) : null],
        ['Memory of workers', row.usage ? format.bytes(row.usage.workers_memory_bytes) : null],
        ['Load', row.usage ? format.amount(row.usage.load) : null],
        ['Disk', row.usage?.disk_total_bytes ? format.bytesOf(row.usage.disk_used_bytes, row.usage.disk_total_bytes) : null],
        ['Workers', format.count(row.workers)],
        ['Actors', html`<a href=${`#/actors?node=${row.node_id}`}>${format.count(row.actors)}</a>`],
        ['Session directory', html`<span class="mono">${row.session_dir}</span>`],
      ]} /><//>
      <${Charts} node=${row} />
      <${ListSection} title="Workers" kind="workers" filters=${{ node_id: row.node_id }} columns=${workerColumns(rates.current).filter(({ id: column }) => column !== 'node')}
        keyOf=${(worker) => worker.worker_id} empty="No worker runs on this node." onRows=${(rows) => rates.current.update(workerSamples(rows))} />
      <${Card} title="Events"><${EventList} events=${events} empty="No event of this node yet." /><//>
      <${LogsOf} title="Logs of the node's daemons" select=${(log) => log.node_id === row.node_id && !log.worker_id && !log.job_id} kinds=${[]} />`}
    <//>`;
};
