// The head's clock as the page knows it, and a tick each second for relative times.
import { useEffect, useState } from './html.js';
import { Store } from './store.js';

let offsetMs = 0;

// Takes the head's time from a reply. The way of the reply is not subtracted: it is below the resolution.
export const adjustClock = (timeMs) => {
  if (Number.isFinite(timeMs)) offsetMs = timeMs - Date.now();
};

export const headNow = () => Date.now() + offsetMs;

const second = new Store(0);
setInterval(() => {
  if (!document.hidden) second.set(second.value + 1);
}, 1_000);
document.addEventListener('visibilitychange', () => second.set(second.value + 1));

// Time of the head; the component is rendered again each second.
export const useNow = () => {
  const [, setTick] = useState(0);
  useEffect(() => second.subscribe(setTick), []);
  return headNow();
};
