// Series of the head's history, for charts.
import { bytes, bytesRate, compact, percent, rate } from './format.js';
import { useEffect, useRef } from './html.js';
import { latestSample } from './stream.js';
import { useView } from './view.js';

export const RANGES = [['15m', '15 minutes'], ['1h', '1 hour'], ['24h', '24 hours']];

// Pause between two loads of a range: the distance of its samples, or a little more.
const PERIOD_MS = { '15m': 4_000, '1h': 15_000, '24h': 60_000 };

// Format and unit of the values of each series.
export const SERIES = {
  cpu_percent: { title: 'CPU', format: percent, max: 100 },
  memory_bytes: { title: 'Memory', format: bytes, unit: 'bytes' },
  disk_used_bytes: { title: 'Disk in use', format: bytes, unit: 'bytes' },
  sent_bytes_per_s: { title: 'Sent', format: bytesRate, unit: 'bytes' },
  received_bytes_per_s: { title: 'Received', format: bytesRate, unit: 'bytes' },
  messages_per_s: { title: 'Messages', format: rate },
  tasks_per_s: { title: 'Tasks', format: rate },
  tasks_queued: { title: 'Queued tasks', format: compact },
  tasks_failed_per_s: { title: 'Failed tasks', format: rate },
  actors: { title: 'Actors', format: compact },
  actors_pending: { title: 'Pending actors', format: compact },
  workers: { title: 'Workers', format: compact },
  nodes: { title: 'Nodes', format: compact },
  jobs_running: { title: 'Running jobs', format: compact },
};

export const seriesPath = (range, names, node) => {
  const query = new URLSearchParams({ range });
  names.forEach((name) => query.append('name', name));
  if (node) query.set('node', node);
  return `/api/v0/series?${query}`;
};

// Values of a series at other times of the same distance: a sample may have come between two requests.
export const aligned = (values, times, wanted) => {
  if (wanted.length < 2) return values.slice(0, wanted.length);
  const shift = Math.round((times[0] - wanted[0]) / (wanted[1] - wanted[0]));
  return wanted.map((_, at) => values[at - shift] ?? null);
};

// Series of one node, in the times of the cluster's; none before the history has the node.
const loadNode = async (get, range, names, node, wanted) => {
  try {
    const { time_ms: times, series } = await get(seriesPath(range, names, node));
    return series.map((each) => ({ ...each, values: aligned(each.values, times, wanted) }));
  } catch (error) {
    if (error.code === 'unknown_node') return [];
    throw error;
  }
};

const loadAll = async (get, range, names, nodes) => {
  const cluster = await get(seriesPath(range, names));
  const ofNodes = await Promise.all(nodes.map((node) => loadNode(get, range, names, node, cluster.time_ms)));
  return { ...cluster, series: [...cluster.series, ...ofNodes.flat()] };
};

// Loads series of the cluster and of nodes, and again each time the range has a new sample.
export const useSeries = (range, names, nodes = []) => {
  const view = useView((get) => loadAll(get, range, names, nodes), [range, names.join(), nodes.join()]);
  const loadedAt = useRef(performance.now());
  const reload = useRef(view.reload);
  reload.current = view.reload;
  useEffect(() => {
    loadedAt.current = performance.now();
  }, [view.data]);
  useEffect(() => latestSample.subscribe(() => {
    if (document.hidden || performance.now() - loadedAt.current < (PERIOD_MS[range] ?? PERIOD_MS['1h'])) return;
    loadedAt.current = performance.now();
    reload.current();
  }), [range]);
  return view;
};

// Series of one name in a reply; of the cluster, or of its nodes.
export const clusterSeries = (reply, name) => reply.series.find((series) => series.name === name && !series.node_id);
export const nodeSeries = (reply, name) => reply.series.filter((series) => series.name === name && series.node_id);
