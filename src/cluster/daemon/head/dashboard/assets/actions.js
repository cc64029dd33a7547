// Actions with a confirmation: stop a job, kill an actor, drain a node. And notes of what was done.
import { act } from './api.js';
import { shortId, shortNode } from './format.js';
import { html, useEffect, useRef, useState } from './html.js';
import { Prose } from './parts.js';
import { Store, useStore } from './store.js';

// Open confirmation: { title, text, choices, verb, path, body(choice), done }.
const pending = new Store(null);
const notes = new Store([]);

const NOTE_MS = 6_000;
const NOTES_MAX = 4;
let noteId = 0;

// Shows a note for some seconds, and has a screen reader speak it.
export const notify = (text) => {
  const note = { id: (noteId += 1), text };
  notes.set([...notes.value, note].slice(-NOTES_MAX));
  setTimeout(() => notes.set(notes.value.filter(({ id }) => id !== note.id)), NOTE_MS);
};

export const Notes = () => {
  const shown = useStore(notes);
  return html`<div class="notes" role="status" aria-live="polite">
    ${shown.map(({ id, text }) => html`<p class="note-box" key=${id}>${text}</p>`)}</div>`;
};

const Choices = ({ choices, value, onChange }) => html`
  <fieldset class="choices"><legend class="hidden">How</legend>
    ${choices.map(({ id, title, text }) => html`<label key=${id}>
      <input type="radio" name="choice" value=${id} checked=${value === id} onChange=${() => onChange(id)} />
      <span><strong>${title}</strong><span class="choice-text">${text}</span></span></label>`)}
  </fieldset>`;

const Confirmation = ({ request }) => {
  const dialog = useRef(null);
  const [choice, setChoice] = useState(request.choices?.[0].id ?? null);
  const [state, setState] = useState({ isBusy: false, error: null });
  const close = () => pending.set(null);
  useEffect(() => dialog.current.showModal(), []);
  const confirm = async (event) => {
    event.preventDefault();
    setState({ isBusy: true, error: null });
    try {
      await act(request.path, request.body?.(choice));
      close();
      notify(request.done);
    } catch (error) {
      setState({ isBusy: false, error });
    }
  };
  return html`<dialog ref=${dialog} onClose=${close} aria-labelledby="confirm-title">
    <form onSubmit=${confirm}>
      <h2 id="confirm-title">${request.title}</h2>
      <p>${request.text}</p>
      ${request.choices && html`<${Choices} choices=${request.choices} value=${choice} onChange=${setChoice} />`}
      ${state.error && html`<p class="failure" role="alert"><${Prose} text=${state.error.message} /></p>`}
      <div class="dialog-buttons">
        <button type="button" onClick=${close} autofocus>Cancel</button>
        <button type="submit" class="danger" disabled=${state.isBusy}>${state.isBusy ? 'Working' : request.verb}</button>
      </div>
    </form></dialog>`;
};

export const Confirmations = () => {
  const request = useStore(pending);
  return request && html`<${Confirmation} key=${request.path} request=${request} />`;
};

const ActionButton = ({ request, label, name }) => html`
  <button type="button" class="danger-outline" aria-label=${name} onClick=${() => pending.set(request)}>${label}</button>`;

export const StopJob = ({ job }) => {
  const id = shortId(job.job_id);
  return html`<${ActionButton} label="Stop" name=${`Stop job ${id}`} request=${{
    title: `Stop job ${id}?`,
    text: `The driver of ${job.entrypoint} ends, and its workers, actors and tasks with it. Detached actors stay.`,
    verb: 'Stop job',
    path: `/api/jobs/${encodeURIComponent(job.job_id)}/stop`,
    done: `Job ${id} is being stopped.`,
  }} />`;
};

export const KillActor = ({ actor }) => {
  const id = shortId(actor.actor_id);
  const choices = [
    { id: 'ordinary', title: 'Stop', text: 'It handles the messages in its mailbox first. Other actors are not affected.' },
    { id: 'force', title: 'Kill its worker', text: 'Immediately. All other actors and tasks in this worker end too.' },
  ];
  return html`<${ActionButton} label="Kill" name=${`Kill actor ${id}`} request=${{
    title: `Kill actor ${actor.name ?? id}?`,
    text: 'Callers of this actor get an error from then on.',
    choices,
    verb: 'Kill actor',
    path: `/api/v0/actors/${encodeURIComponent(actor.actor_id)}/kill`,
    body: (choice) => ({ force: choice === 'force' }),
    done: `Actor ${actor.name ?? id} is being killed.`,
  }} />`;
};

export const DrainNode = ({ node }) => {
  const name = node.hostname || shortNode(node.node_id);
  return html`<${ActionButton} label="Drain" name=${`Drain node ${name}`} request=${{
    title: `Drain node ${name}?`,
    text: 'The head places no further actor there. The node leaves the cluster after its last worker has ended. A drain cannot be undone: to bring the node back, start it again.',
    verb: 'Drain node',
    path: `/api/v0/nodes/${encodeURIComponent(node.node_id)}/drain`,
    done: `Node ${name} is being drained.`,
  }} />`;
};
