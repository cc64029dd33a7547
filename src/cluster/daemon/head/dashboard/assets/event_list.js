// Events of the cluster as a list, newest first.
import { words } from './format.js';
import { html } from './html.js';
import { ActorLink, Ago, JobLink, NodeLink, Prose, WorkerLink } from './parts.js';

const About = ({ event }) => html`<span class="event-about">
  ${event.job_id && html`<span>job <${JobLink} id=${event.job_id} /></span>`}
  ${event.node_id && html`<span>node <${NodeLink} id=${event.node_id} /></span>`}
  ${event.worker_id && html`<span>worker <${WorkerLink} id=${event.worker_id} /></span>`}
  ${event.actor_id && html`<span>actor <${ActorLink} id=${event.actor_id} /></span>`}
</span>`;

const TONES = { ERROR: 'bad', WARNING: 'warn', INFO: 'off' };

export const EventList = ({ events, empty = 'No event yet.' }) => {
  if (events.length === 0) return html`<p class="quiet-line">${empty}</p>`;
  return html`<ol class="events">
    ${events.map((event) => html`<li key=${event.event_id} data-kind=${event.kind}>
      <span class="event-time"><${Ago} ms=${event.time_ms} /></span>
      <span class=${`state tone-${TONES[event.severity] ?? 'off'}`}>${words(event.kind)}</span>
      <span class="event-text"><${Prose} text=${event.text} /><${About} event=${event} /></span></li>`)}
  </ol>`;
};
