// Progress of functions: a bar with finished, failed, running and queued tasks, and their numbers.
import { count } from './format.js';
import { html } from './html.js';
import { Name } from './parts.js';
import { progressParts, totalOf } from './task_groups.js';

export const ProgressBar = ({ group }) => {
  const parts = progressParts(group);
  const text = parts.map(({ state, value }) => `${count(value)} ${state}`).join(', ');
  return html`<span class="progress" role="img" aria-label=${text} title=${text}>
    ${parts.map(({ state, share }) => share > 0 && html`<span key=${state} class=${`part-${state}`} style=${{ width: `${share}%` }}></span>`)}
  </span>`;
};

export const ProgressKey = () => html`<ul class="progress-key">
  ${['finished', 'failed', 'running', 'queued'].map((state) => html`<li><span class=${`swatch part-${state}`} aria-hidden="true"></span>${state}</li>`)}</ul>`;

export const Progress = ({ groups }) => html`<ul class="progress-list">
  ${groups.map((group) => html`<li key=${group.name}>
    <span class="progress-name"><${Name} path=${group.name} /></span>
    <${ProgressBar} group=${group} />
    <span class="progress-count">${count(group.finished)} / ${count(totalOf(group))}
      ${group.failed > 0 && html`<span class="state tone-bad">${count(group.failed)} failed</span>`}</span></li>`)}
</ul>`;
