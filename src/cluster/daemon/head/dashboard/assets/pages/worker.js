// One worker: its process, usage, actors, tasks, messages and log.
import { WORKER_COUNTERS, actorColumns, messageColumns, taskColumns, workerSamples } from '../columns.js';
import { EventList } from '../event_list.js';
import * as format from '../format.js';
import { html, useRef } from '../html.js';
import { LogsOf } from '../log_choice.js';
import { ActorLink, Ago, Card, Facts, JobLink, Loaded, NodeLink, PageHead, Prose } from '../parts.js';
import { Rates } from '../rates.js';
import { listHref, listPath, rowPath } from '../routes.js';
import { ListSection } from '../section.js';
import { useView } from '../view.js';

const usageFacts = (worker, rates) => {
  const { usage, worker_id: id } = worker;
  if (!usage || worker.state === 'DEAD') return [];
  const busy = rates.of(id, 'cpu_seconds');
  return [
    ['CPU', `${format.percent(busy === null ? null : 100 * busy)} of one CPU`],
    ['Memory', format.bytes(usage.memory_bytes)],
    ['Sent', format.bytesRate(rates.of(id, 'sent_bytes'))],
    ['Received', format.bytesRate(rates.of(id, 'received_bytes'))],
    ['Messages sent', format.rate(rates.of(id, 'messages_sent'))],
    ['Messages received', format.rate(rates.of(id, 'messages_received'))],
    ['Messages handled', format.rate(rates.of(id, 'handled'))],
    ['Messages in mailboxes', format.count(usage.mailbox)],
  ];
};

export const WorkerPage = ({ route: { id } }) => {
  const rates = useRef(new Rates(WORKER_COUNTERS));
  const actorRates = useRef(new Rates(['handled']));
  const view = useView(async (get) => {
    const [{ row }, events] = await Promise.all([get(rowPath('workers', id)), get(listPath('events', { filters: { worker_id: id }, limit: 20 }))]);
    rates.current.update(workerSamples([row]));
    return { worker: row, events: events.rows };
  }, [id], { kinds: ['workers', 'events'], samples: true });
  const worker = view.data?.worker;
  const filters = { worker_id: worker?.worker_id };
  return html`<${PageHead} title=${`Worker ${format.shortId(worker?.worker_id ?? id)}`} trail=${[['Cluster', '#/cluster']]} view=${view} state=${worker?.state} />
    <${Loaded} view=${view}>${({ worker: row, events }) => html`
      <${Card} title="Worker"><${Facts} facts=${[
        ['Cause', row.cause && html`<${Prose} text=${row.cause} />`],
        ['ID', html`<span class="mono">${row.worker_id}</span>`],
        ['Job', html`<${JobLink} id=${row.job_id} />`],
        ['Node', html`<${NodeLink} id=${row.node_id} />`],
        ['PID', row.pid || null],
        ['Started', row.started_ms ? html`<${Ago} ms=${row.started_ms} />` : null],
        ['Dedicated to', row.detached ? html`<${ActorLink} id=${row.detached} />` : null],
        ...usageFacts(row, rates.current),
      ]} /><//>
      <${ListSection} title="Actors" kind="actors" filters=${filters} columns=${actorColumns({ rates: actorRates.current, withJob: false, withPlace: false })}
        keyOf=${(actor) => actor.actor_id} empty="No actor in this worker." more=${listHref('actors', { worker: row.worker_id })}
        onRows=${(rows, timeMs) => actorRates.current.update(rows.map((actor) => [actor.actor_id, timeMs, actor]))} />
      <${ListSection} title="Messages" kind="messages" filters=${filters} columns=${messageColumns({ withWorker: false })}
        keyOf=${(message) => `${message.class} ${message.message}`} empty="No message was handled in this worker." initialSort="-handled" />
      <${ListSection} title="Tasks" kind="tasks" filters=${filters} columns=${taskColumns({ withJob: false, withPlace: false })}
        keyOf=${(task) => task.name} empty="No task ran on this worker." />
      <${Card} title="Events"><${EventList} events=${events} empty="No event of this worker." /><//>
      <${LogsOf} title="Log" select=${(log) => log.worker_id === row.worker_id} deps=${[row.worker_id]} />`}
    <//>`;
};
