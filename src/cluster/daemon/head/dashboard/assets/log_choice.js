// Logs of a job, a worker or a node, one of which is shown.
import { html, useState } from './html.js';
import { LogView } from './log_view.js';
import { Card, Failure } from './parts.js';
import { logHref } from './routes.js';
import { useView } from './view.js';

const keyOf = (log) => `${log.node_id}/${log.file}`;

// Drivers first, then files with text: the output of the program is looked for most often.
const rank = (log) => (log.worker_id ? 2 : 0) + (log.size > 0 ? 0 : 1);

export const LogsOf = ({ title = 'Logs', select, deps = [], kinds = ['workers'] }) => {
  const [chosen, setChosen] = useState(null);
  const view = useView((get) => get('/api/v0/logs'), deps, { kinds });
  const logs = (view.data?.logs ?? []).filter(select).sort((a, b) => rank(a) - rank(b));
  const log = logs.find((each) => keyOf(each) === chosen) ?? logs[0];
  const missing = view.data?.unreachable?.length > 0 && html`<p class="quiet-line">Some nodes do not answer, so their logs are not listed.</p>`;
  const chooser = logs.length > 1 && html`<label class="field">File
    <select value=${keyOf(log)} onChange=${(event) => setChosen(event.target.value)}>
      ${logs.map((each) => html`<option key=${keyOf(each)} value=${keyOf(each)} selected=${each === log}>${each.file}</option>`)}
    </select></label>`;
  return html`<${Card} title=${title} actions=${log && html`${chooser}<a href=${logHref(log.node_id, log.file)}>Open in Logs</a>`}>
    ${view.error && html`<${Failure} error=${view.error} onRetry=${view.reload} />`}
    ${missing}
    ${view.data && !log && html`<p class="quiet-line">No log yet: a file is created with the first line of output.</p>`}
    ${log && html`<${LogView} key=${keyOf(log)} node=${log.node_id} file=${log.file} />`}
  <//>`;
};
