// One actor: where it lives, what it has handled, how long its messages take, and how it ended.
import { KillActor } from '../actions.js';
import { messageColumns } from '../columns.js';
import { EventList } from '../event_list.js';
import * as format from '../format.js';
import { html, useRef } from '../html.js';
import { LogsOf } from '../log_choice.js';
import { Ago, Card, Duration, Facts, JobLink, Loaded, NodeLink, PageHead, Prose, WorkerLink } from '../parts.js';
import { Rates } from '../rates.js';
import { listHref, listPath, rowPath } from '../routes.js';
import { ListSection } from '../section.js';
import { useView } from '../view.js';

const isKnown = (value) => value !== null && value !== undefined;

const facts = (actor, rates) => [
  [actor.state === 'DEAD' ? 'Cause of death' : 'Reason', actor.cause && html`<${Prose} text=${actor.cause} />`],
  ['ID', html`<span class="mono">${actor.actor_id}</span>`],
  ['Class', html`<a class="mono" href=${listHref('actors', { class: actor.class })}>${actor.class}</a>`],
  ['Name', actor.name],
  ['Namespace', actor.name ? actor.namespace : null],
  ['Lifetime', format.words(actor.lifetime)],
  ['Job', html`<${JobLink} id=${actor.job_id} />`],
  ['Node', actor.node_id && html`<${NodeLink} id=${actor.node_id} />`],
  ['Worker', actor.worker_id && html`<${WorkerLink} id=${actor.worker_id} />`],
  ['PID', actor.pid],
  ['Resources', Object.keys(actor.resources ?? {}).length > 0 ? format.resources(actor.resources) : null],
  ['Created', actor.started_ms ? html`<${Ago} ms=${actor.started_ms} />` : null],
  ['Ended', actor.ended_ms ? html`<${Ago} ms=${actor.ended_ms} />` : null],
  ['Lived', actor.ended_ms && actor.started_ms ? html`<${Duration} from=${actor.started_ms} to=${actor.ended_ms} />` : null],
  ['Restarts', actor.restarts > 0 ? format.count(actor.restarts) : null],
  ['Cause of the last restart', actor.restart_cause],
  ['Messages in the mailbox', isKnown(actor.mailbox) ? format.count(actor.mailbox) : null],
  ['Messages handled', isKnown(actor.handled) ? format.count(actor.handled) : null],
  ['Rate', isKnown(actor.handled) && actor.state !== 'DEAD' ? format.rate(rates.of(actor.actor_id, 'handled')) : null],
];

export const ActorPage = ({ route: { id } }) => {
  const rates = useRef(new Rates(['handled']));
  const view = useView(async (get) => {
    const [reply, events] = await Promise.all([get(rowPath('actors', id)), get(listPath('events', { filters: { actor_id: id }, limit: 20 }))]);
    rates.current.update([[reply.row.actor_id, reply.time_ms, reply.row]]);
    return { actor: reply.row, events: events.rows };
  }, [id], { kinds: ['actors', 'events'], samples: true });
  const actor = view.data?.actor;
  const title = actor ? `${format.shortName(actor.class)} ${actor.name ?? format.shortId(actor.actor_id)}` : 'Actor';
  return html`<${PageHead} title=${title} trail=${[['Actors', '#/actors']]} view=${view} state=${actor?.state}>
      ${actor && actor.state !== 'DEAD' && html`<${KillActor} actor=${actor} />`}<//>
    <${Loaded} view=${view}>${({ actor: row, events }) => html`
      <${Card} title="Actor"><${Facts} facts=${facts(row, rates.current)} /><//>
      ${row.worker_id && html`<${ListSection} title=${`Messages of ${format.shortName(row.class)} in worker ${format.shortId(row.worker_id)}`}
        kind="messages" filters=${{ class: row.class, worker_id: row.worker_id }} columns=${messageColumns({ withClass: false, withWorker: false })}
        keyOf=${(message) => message.message} empty="No message of this class was handled there yet." initialSort="-handled" />`}
      <${Card} title="Events"><${EventList} events=${events} empty="No event of this actor." /><//>
      ${row.worker_id && html`<${LogsOf} title="Log of its worker" select=${(log) => log.worker_id === row.worker_id} deps=${[row.worker_id]} />`}`}
    <//>`;
};
