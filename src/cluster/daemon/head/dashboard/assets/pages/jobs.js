// List of jobs.
import { StopJob } from '../actions.js';
import { html } from '../html.js';
import { Ago, Command, Duration, Empty, JobLink, Loaded, NodeLink, PageHead, Prose, State } from '../parts.js';
import { choose } from '../router.js';
import { jobHref, listPath } from '../routes.js';
import { DataTable, Pager, SearchField, Select, pageNumber, pageSize, shownColumns } from '../table.js';
import { useView } from '../view.js';

const STATES = [['PENDING', 'Pending'], ['RUNNING', 'Running'], ['SUCCEEDED', 'Succeeded'], ['FAILED', 'Failed'], ['STOPPED', 'Stopped']];
export const isOpen = (job) => job.state === 'RUNNING' || job.state === 'PENDING';

const COLUMNS = [
  { id: 'job', title: 'Job', sort: 'job_id', cell: (job) => html`<${JobLink} id=${job.job_id} />` },
  { id: 'state', title: 'State', sort: 'state', cell: (job) => html`<${State} of=${job.state} />` },
  {
    id: 'entrypoint', title: 'Entrypoint', sort: 'entrypoint', class: 'wide',
    cell: (job) => html`<a class="mono" href=${jobHref(job.job_id)}>${job.entrypoint}</a>`,
  },
  { id: 'started', title: 'Started', sort: 'started_ms', cell: (job) => html`<${Ago} ms=${job.started_ms} />` },
  {
    id: 'duration', title: 'Duration', align: 'end',
    cell: (job) => html`<${Duration} from=${job.started_ms} to=${job.ended_ms} />`,
  },
  {
    id: 'host', title: 'Driver', cell: (job) => html`<span class="cut" title=${`Process ${job.pid}`}>
      ${job.runs_on ? html`<${NodeLink} id=${job.runs_on} name=${job.hostname} />` : job.hostname}</span>`,
  },
  { id: 'message', title: 'Result', has: (job) => job.message, class: 'wide', cell: (job) => html`<${Prose} text=${job.message} />` },
  { id: 'actions', title: 'Actions', has: isOpen, cell: (job) => isOpen(job) && html`<${StopJob} job=${job} />` },
];

export const JobsPage = ({ route: { query } }) => {
  const [page, size] = [pageNumber(query), pageSize(query)];
  const sort = query.sort ?? '-started_ms';
  const path = listPath('jobs', {
    filters: { state: query.state }, search: query.search, sort, limit: size, offset: (page - 1) * size,
  });
  const view = useView((get) => get(path), [path], { kinds: ['jobs'] });
  return html`<${PageHead} title="Jobs" view=${view} />
    <div class="filters">
      <${Select} label="State" value=${query.state} choices=${STATES} onChange=${(state) => choose({ state, page: null })} />
      <${SearchField} label="Search" value=${query.search} placeholder="Entrypoint, host, id"
        onSearch=${(search) => choose({ search, page: null }, { replace: true })} />
    </div>
    <${Loaded} view=${view}>${({ rows, total }) => rows.length > 0
      ? html`<${DataTable} label="Jobs" columns=${shownColumns(COLUMNS, rows)} rows=${rows}
          keyOf=${(job) => job.job_id} sort=${sort} onSort=${(next) => choose({ sort: next, page: null })} />
        <${Pager} page=${page} size=${size} total=${total} onChoose=${choose} />`
      : query.state || query.search
        ? html`<${Empty} title="No job passes the filter."><p><a href="#/jobs">Show all jobs</a></p><//>`
        : html`<${Empty} title="No job yet."><p>Run one: <${Command} text="roadshow job submit -- ./program" /></p>
            <p>Or start a program with the head's address: <${Command} text="ROADSHOW_ADDRESS=HOST:6379 ./program" /></p><//>`}
    <//>`;
};
