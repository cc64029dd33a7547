// Help dialog: shortcuts, and the terms that the pages use.
import { html, useEffect, useRef } from './html.js';
import { PAGES } from './routes.js';
import { Store, useStore } from './store.js';

export const helpIsOpen = new Store(false);

const KEYS = [
  ...PAGES.map(({ title, key }) => [['g', key], `Go to ${title}`]),
  [['/'], 'Search in the page'],
  [['['], 'Previous page of a list'],
  [[']'], 'Next page of a list'],
  [['f'], 'Follow a log'],
  [['D'], 'Change the theme'],
  [['?'], 'This help'],
];

const TERMS = [
  ['Cluster', 'the processes that one head uses together'],
  ['Head', 'the daemon that decides for a cluster of nodes'],
  ['Node', 'a machine that an agent offers to the cluster'],
  ['Job', 'one run of a program, with its workers and actors'],
  ['Worker', 'a process that runs actors and tasks of one job'],
  ['Actor', 'state with a mailbox, on one worker'],
  ['Task', 'a function that runs once on a worker'],
  ['Mailbox', 'messages that wait at an actor'],
  ['p50, p99', 'time that half, and 99 of 100, of the sampled messages or tasks did not exceed'],
  ['Snapshot', 'version of the head\'s rows: it grows with each change'],
];

const Dialog = () => {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog ref=${dialog} class="help" aria-labelledby="help-title" onClose=${() => helpIsOpen.set(false)}>
    <h2 id="help-title">Help</h2>
    <div class="help-columns">
      <section><h3>Keyboard</h3><dl class="keys">
        ${KEYS.map(([keys, text]) => html`<div key=${text}><dt>${keys.map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${text}</dd></div>`)}
      </dl></section>
      <section><h3>Terms</h3><dl class="terms">
        ${TERMS.map(([term, text]) => html`<div key=${term}><dt>${term}</dt><dd>${text}</dd></div>`)}
      </dl></section>
    </div>
    <p class="muted">All that is shown here is also in the command: <code>roadshow status</code>, <code>roadshow list actors</code>. <a href="/openapi.json">The API</a> is described in OpenAPI.</p>
    <form method="dialog" class="dialog-buttons"><button autofocus>Close</button></form>
  </dialog>`;
};

export const Help = () => useStore(helpIsOpen) && html`<${Dialog} />`;
