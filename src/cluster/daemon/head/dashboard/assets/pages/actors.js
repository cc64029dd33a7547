// List of actors: filtered, sorted and cut by the head.
import { actorColumns } from '../columns.js';
import * as format from '../format.js';
import { html, useRef } from '../html.js';
import { Command, Empty, Loaded, PageHead } from '../parts.js';
import { Rates } from '../rates.js';
import { choose } from '../router.js';
import { listPath } from '../routes.js';
import { DataTable, Pager, SearchField, Select, pageNumber, pageSize, shownColumns } from '../table.js';
import { useView } from '../view.js';

const STATES = [['ALIVE', 'Alive'], ['PENDING_CREATION', 'Pending creation'], ['RESTARTING', 'Restarting'], ['DEAD', 'Dead']];
const JOBS_MAX = 200;

const Filters = ({ query, classes, jobs }) => {
  const set = (change) => choose({ ...change, page: null });
  return html`<div class="filters">
    <${Select} label="State" value=${query.state} choices=${STATES} onChange=${(state) => set({ state })} />
    <${Select} label="Class" value=${query.class} choices=${classes.map((row) => [row.class, format.shortName(row.class)])} onChange=${(name) => set({ class: name })} />
    <${Select} label="Job" value=${query.job} choices=${jobs.map((job) => [job.job_id, `${format.shortId(job.job_id)}  ${job.entrypoint}`])} onChange=${(job) => set({ job })} />
    ${['node', 'worker'].filter((field) => query[field]).map((field) => html`<button type="button" key=${field} class="chip"
      onClick=${() => set({ [field]: null })}>${format.words(field)} ${format.shortId(query[field])} <span aria-hidden="true">✕</span><span class="hidden">, remove this filter</span></button>`)}
    <${SearchField} label="Search" value=${query.search} placeholder="Id, name, class"
      onSearch=${(search) => choose({ search, page: null }, { replace: true })} />
  </div>`;
};

export const ActorsPage = ({ route: { query } }) => {
  const rates = useRef(new Rates(['handled']));
  const [page, size] = [pageNumber(query), pageSize(query)];
  const path = listPath('actors', {
    filters: { state: query.state, class: query.class, job_id: query.job, node_id: query.node, worker_id: query.worker },
    search: query.search, sort: query.sort, limit: size, offset: (page - 1) * size,
  });
  const view = useView(async (get) => {
    const reply = await get(path);
    rates.current.update(reply.rows.map((actor) => [actor.actor_id, reply.time_ms, actor]));
    return { ...reply, path };
  }, [path], { kinds: ['actors'], samples: true });
  // Choices of the filters change rarely; they need no sample.
  const choices = useView(async (get) => {
    const [classes, jobs] = await Promise.all([get('/api/v0/summary/actors'), get(listPath('jobs', { sort: '-started_ms', limit: JOBS_MAX }))]);
    return { classes: classes.rows, jobs: jobs.rows };
  }, [], { kinds: ['jobs'] });
  const hasFilter = ['state', 'class', 'job', 'node', 'worker', 'search'].some((field) => query[field]);
  const columns = actorColumns({ rates: rates.current });
  return html`<${PageHead} title="Actors" view=${view} />
    <${Filters} query=${query} classes=${choices.data?.classes ?? []} jobs=${choices.data?.jobs ?? []} />
    <${Loaded} view=${view}>${({ rows, total, path: loadedPath }) => {
      if (total === 0 && hasFilter) return html`<${Empty} title="No actor passes the filter."><p><a href="#/actors">Show all actors</a></p><//>`;
      if (total === 0) return html`<${Empty} title="No actor yet."><p>A job creates them. Run one: <${Command} text="roadshow job submit -- ./program" /></p><//>`;
      return html`<${DataTable} label="Actors" columns=${shownColumns(columns, rows)} rows=${rows} keyOf=${(actor) => actor.actor_id}
          sort=${query.sort} onSort=${(sort) => choose({ sort, page: null })} isBusy=${loadedPath !== path} />
        <${Pager} page=${page} size=${size} total=${total} onChoose=${choose} />`;
    }}<//>`;
};
