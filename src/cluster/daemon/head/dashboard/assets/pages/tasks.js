// Tasks by function, and by function and worker.
import { taskColumns } from '../columns.js';
import * as format from '../format.js';
import { html } from '../html.js';
import { Card, Command, Empty, Loaded, PageHead } from '../parts.js';
import { Progress, ProgressKey } from '../progress.js';
import { choose } from '../router.js';
import { listPath } from '../routes.js';
import { DataTable, Pager, SearchField, Select, pageNumber, pageSize, shownColumns } from '../table.js';
import { byFunction, totalOf } from '../task_groups.js';
import { useView } from '../view.js';

const JOBS_MAX = 200;
const TASK_ROWS_MAX = 1_000;

export const TasksPage = ({ route: { query } }) => {
  const [page, size] = [pageNumber(query), pageSize(query)];
  const filters = { job_id: query.job, name: query.name };
  const path = listPath('tasks', { filters, search: query.search, sort: query.sort, limit: size, offset: (page - 1) * size });
  const allPath = listPath('tasks', { filters, search: query.search, limit: TASK_ROWS_MAX });
  const view = useView(async (get) => {
    const [reply, all] = await Promise.all([get(path), get(allPath)]);
    return { ...reply, all, path };
  }, [path], { kinds: ['tasks'], samples: true });
  const choices = useView((get) => get(listPath('jobs', { sort: '-started_ms', limit: JOBS_MAX })), [], { kinds: ['jobs'] });
  const jobs = choices.data?.rows ?? [];
  const hasFilter = query.job || query.search || query.name;
  return html`<${PageHead} title="Tasks" view=${view} />
    <div class="filters">
      <${Select} label="Job" value=${query.job} choices=${jobs.map((job) => [job.job_id, `${format.shortId(job.job_id)}  ${job.entrypoint}`])}
        onChange=${(job) => choose({ job, page: null })} />
      <${SearchField} label="Search" value=${query.search} placeholder="Function" onSearch=${(search) => choose({ search, page: null }, { replace: true })} />
    </div>
    <${Loaded} view=${view}>${({ rows, total, all, path: loadedPath }) => {
      if (total === 0 && hasFilter) return html`<${Empty} title="No task passes the filter."><p><a href="#/tasks">Show all tasks</a></p><//>`;
      if (total === 0) return html`<${Empty} title="No task yet."><p>A job runs them. Run one: <${Command} text="roadshow job submit -- ./program" /></p><//>`;
      const groups = byFunction(all.rows).sort((a, b) => totalOf(b) - totalOf(a));
      return html`<${Card} title="By function" note=${format.count(groups.length)}><${ProgressKey} /><${Progress} groups=${groups} />
          ${all.total > all.rows.length && html`<p class="quiet-line">Only ${format.count(all.rows.length)} of ${format.count(all.total)} rows are added up.</p>`}<//>
        <h2 class="section-title">By function and worker</h2>
        <${DataTable} label="Tasks by function and worker" columns=${shownColumns(taskColumns(), rows)} rows=${rows}
          keyOf=${(task) => `${task.worker_id} ${task.name}`} sort=${query.sort} onSort=${(sort) => choose({ sort, page: null })} isBusy=${loadedPath !== path} />
        <${Pager} page=${page} size=${size} total=${total} onChoose=${choose} />`;
    }}<//>`;
};
