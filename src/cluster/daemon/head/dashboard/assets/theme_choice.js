// Choice of light, dark, or the theme of the system.
import { Store, remember, remembered } from './store.js';

const THEMES = ['system', 'light', 'dark'];
const saved = remembered('theme');

export const theme = new Store(THEMES.includes(saved) ? saved : 'system');

// Counts changes of the colours, by this choice or by the system; charts are drawn again with it.
export const paletteVersion = new Store(0);

export const cycleTheme = () => {
  const next = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length];
  if (next === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  remember('theme', next === 'system' ? null : next);
  theme.set(next);
  paletteVersion.set(paletteVersion.value + 1);
  return next;
};

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  paletteVersion.set(paletteVersion.value + 1);
});
