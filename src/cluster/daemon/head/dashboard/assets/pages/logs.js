// Every log of the cluster, by node; one of them is shown.
import * as format from '../format.js';
import { html } from '../html.js';
import { LogView } from '../log_view.js';
import { Empty, Loaded, PageHead } from '../parts.js';
import { choose, useRoute } from '../router.js';
import { listHref, listPath } from '../routes.js';
import { Select } from '../table.js';
import { useView } from '../view.js';

const NODES_MAX = 1_000;

const aboutOf = (log) => {
  if (log.worker_id) return `Worker ${format.shortId(log.worker_id)} of job ${format.shortId(log.job_id)}`;
  return log.job_id ? `Driver of job ${format.shortId(log.job_id)}` : 'Daemon';
};

const Files = ({ logs, names, chosen, query }) => {
  const groups = new Map();
  for (const log of logs) groups.set(log.node_id, [...(groups.get(log.node_id) ?? []), log]);
  return html`<nav class="files" aria-label="Logs">
    ${[...groups].map(([node, files]) => html`<section key=${node}><h2 title=${node}>${names.get(node) ?? format.shortNode(node)}</h2><ul>
      ${files.map((log) => html`<li key=${log.file}><a aria-current=${log === chosen ? 'true' : undefined}
        href=${listHref('logs', { ...query, node, file: log.file, find: null })}>
        <span class="file-name">${log.file}</span><span class="file-about">${aboutOf(log)}<span class="file-size">${format.bytes(log.size)}</span></span></a></li>`)}
    </ul></section>`)}
  </nav>`;
};

export const LogsPage = () => {
  const { query } = useRoute();
  const view = useView(async (get) => {
    const [logs, nodes] = await Promise.all([get('/api/v0/logs'), get(listPath('nodes', { limit: NODES_MAX }))]);
    return { ...logs, names: new Map(nodes.rows.map((node) => [node.node_id, node.hostname])) };
  }, [], { kinds: ['workers', 'nodes', 'jobs'] });
  const body = ({ logs, unreachable = [], names }) => {
    // A link names a worker or a job; the choice of a file names a node and a file.
    const passes = (log) => (!query.worker || log.worker_id === query.worker) && (!query.job || log.job_id === query.job)
      && (!query.node || query.file || log.node_id === query.node);
    const shown = logs.filter(passes);
    const chosen = shown.find((log) => log.node_id === query.node && log.file === query.file)
      ?? (query.file ? null : shown.find((log) => log.size > 0) ?? shown[0]);
    const jobs = [...new Set(logs.map((log) => log.job_id).filter(Boolean))];
    const choices = [...new Set(logs.map((log) => log.node_id))].map((id) => [id, names.get(id) ?? format.shortNode(id)]);
    return html`
      <div class="filters">
        <${Select} label="Node" value=${query.file ? null : query.node} choices=${choices} onChange=${(node) => choose({ node, file: null, worker: null })} />
        <${Select} label="Job" value=${query.job} choices=${jobs.map((id) => [id, format.shortId(id)])} onChange=${(job) => choose({ job, node: null, file: null, worker: null })} />
        ${query.worker && html`<button type="button" class="chip" onClick=${() => choose({ worker: null, node: null, file: null })}>Worker ${format.shortId(query.worker)} <span aria-hidden="true">✕</span><span class="hidden">, remove this filter</span></button>`}
      </div>
      ${unreachable.length > 0 && html`<p class="failure">${format.counted(unreachable.length, 'node')} did not answer, so the logs there are not listed: ${unreachable.map((id) => names.get(id) ?? format.shortNode(id)).join(', ')}. Check the node with <code>roadshow list nodes</code>.</p>`}
      <div class="log-page">
        <${Files} logs=${shown} names=${names} chosen=${chosen} query=${query} />
        ${chosen ? html`<section class="card" aria-label=${chosen.file}><h2 class="log-title">${chosen.file} <span class="muted">on ${names.get(chosen.node_id) ?? format.shortNode(chosen.node_id)}</span></h2>
          <${LogView} key=${`${chosen.node_id}/${chosen.file}`} node=${chosen.node_id} file=${chosen.file} tall=${true} search=${query.find ?? ''}
            onSearch=${(find) => choose({ find, node: chosen.node_id, file: chosen.file }, { replace: true })} /></section>`
        : html`<${Empty} title=${query.file ? 'This log is not there.' : 'No log yet.'}><p>${query.file
          ? 'The node has left, or the file was removed to make room for newer ones.'
          : 'A file is created with the first line of output.'} <a href="#/logs">Show all logs</a></p><//>`}
      </div>`;
  };
  return html`<${PageHead} title="Logs" view=${view} /><${Loaded} view=${view}>${body}<//>`;
};
