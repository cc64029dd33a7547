// One job: its state, progress by function, timeline, actors, workers, logs and events.
import { StopJob } from '../actions.js';
import { WORKER_COUNTERS, actorColumns, workerColumns, workerSamples } from '../columns.js';
import { EventList } from '../event_list.js';
import * as format from '../format.js';
import { html, useRef } from '../html.js';
import { LogsOf } from '../log_choice.js';
import { Ago, Card, Duration, Facts, Loaded, NodeLink, PageHead, Prose } from '../parts.js';
import { Progress, ProgressKey } from '../progress.js';
import { Rates } from '../rates.js';
import { listHref, listPath, rowPath } from '../routes.js';
import { ListSection } from '../section.js';
import { byFunction, totalOf } from '../task_groups.js';
import { Timeline } from '../timeline.js';
import { useView } from '../view.js';
import { isOpen } from './jobs.js';

const TASK_ROWS_MAX = 1_000;

const facts = (job) => [
  ['Result', job.message && html`<${Prose} text=${job.message} />`],
  ['Entrypoint', html`<span class="mono">${job.entrypoint}</span>`],
  ['Started', html`<${Ago} ms=${job.started_ms} />`],
  ['Ended', job.ended_ms ? html`<${Ago} ms=${job.ended_ms} />` : null],
  ['Duration', html`<${Duration} from=${job.started_ms} to=${job.ended_ms} />`],
  ['Exit code', job.exit_code],
  ['Driver', job.runs_on ? html`<${NodeLink} id=${job.runs_on} name=${job.hostname} />, process ${job.pid}` : `${job.hostname}, process ${job.pid}`],
  ['ID', html`<span class="mono">${job.job_id}</span>`],
];

const Tasks = ({ rows, total, job }) => {
  const groups = byFunction(rows).sort((a, b) => totalOf(b) - totalOf(a));
  return html`<${Card} title="Tasks by function" note=${groups.length > 0 ? format.count(groups.length) : null}
    actions=${groups.length > 0 && html`<a href=${listHref('tasks', { job: job.job_id })}>All tasks</a>`}>
    ${groups.length === 0 ? html`<p class="quiet-line">This job has run no task.</p>`
    : html`<${ProgressKey} /><${Progress} groups=${groups} />`}
    ${total > rows.length && html`<p class="quiet-line">Only ${format.count(rows.length)} of ${format.count(total)} rows are added up.</p>`}
  <//>`;
};

export const JobPage = ({ route: { id } }) => {
  const rates = useRef({ actors: new Rates(['handled']), workers: new Rates(WORKER_COUNTERS) });
  const view = useView(async (get) => {
    const { row } = await get(rowPath('jobs', id));
    const filters = { job_id: row.job_id };
    const [tasks, events] = await Promise.all([
      get(listPath('tasks', { filters, limit: TASK_ROWS_MAX })), get(listPath('events', { filters, limit: 20 })),
    ]);
    return { job: row, tasks, events: events.rows };
  }, [id], { kinds: ['jobs', 'tasks', 'events'], samples: true });
  const job = view.data?.job;
  const filters = { job_id: job?.job_id };
  return html`<${PageHead} title=${`Job ${format.shortId(job?.job_id ?? id)}`} trail=${[['Jobs', '#/jobs']]} view=${view} state=${job?.state}>
      ${job && isOpen(job) && html`<${StopJob} job=${job} />`}<//>
    <${Loaded} view=${view}>${({ job: row, tasks, events }) => html`
      <${Card} title="Job"><${Facts} facts=${facts(row)} /><//>
      <${Tasks} rows=${tasks.rows} total=${tasks.total} job=${row} />
      <${Timeline} job=${row} isRunning=${isOpen(row)} />
      <${ListSection} title="Actors" kind="actors" filters=${filters} columns=${actorColumns({ rates: rates.current.actors, withJob: false })}
        keyOf=${(actor) => actor.actor_id} empty="This job has no actor." more=${listHref('actors', { job: row.job_id })}
        onRows=${(rows, timeMs) => rates.current.actors.update(rows.map((actor) => [actor.actor_id, timeMs, actor]))} />
      <${ListSection} title="Workers" kind="workers" filters=${filters} columns=${workerColumns(rates.current.workers).filter(({ id: column }) => column !== 'job')}
        keyOf=${(worker) => worker.worker_id} empty="This job has no worker."
        onRows=${(rows) => rates.current.workers.update(workerSamples(rows))} />
      <${LogsOf} select=${(log) => log.job_id === row.job_id} deps=${[row.job_id]} kinds=${['workers', 'jobs']} />
      <${Card} title="Events"><${EventList} events=${events} empty="No event of this job." /><//>`}
    <//>`;
};
