// Keyboard shortcuts. Single keys act only outside of fields and dialogs.
import { notify } from './actions.js';
import { helpIsOpen } from './help.js';
import { go } from './router.js';
import { PAGES, listHref } from './routes.js';
import { cycleTheme } from './theme_choice.js';

// Time in which the second key of a sequence has to follow.
const SEQUENCE_MS = 1_500;

const isField = (element) => element?.closest?.('input, textarea, select, [contenteditable]');

// Clicks or focuses the element that declares the key.
const press = (key) => {
  const element = document.querySelector(`main [data-shortcut="${key}"]`);
  if (!element || element.disabled) return false;
  element.focus();
  if (element.matches('button, input[type="checkbox"]')) element.click();
  return true;
};

export const installShortcuts = () => {
  let leadAt = -Infinity;
  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (event.key === 'Escape' && isField(event.target)) event.target.blur();
    if (isField(event.target)) return;
    const target = PAGES.find(({ key }) => key === event.key);
    if (event.timeStamp - leadAt < SEQUENCE_MS && target) {
      leadAt = -Infinity;
      go(listHref(target.page));
    } else if (event.key === 'g') {
      leadAt = event.timeStamp;
    } else if (event.key === '?') {
      helpIsOpen.set(true);
    } else if (event.key === 'D') {
      notify(`Theme: ${cycleTheme()}`);
    } else if (!press(event.key)) {
      return;
    }
    event.preventDefault();
  };
  document.addEventListener('keydown', pressed);
  return () => document.removeEventListener('keydown', pressed);
};
