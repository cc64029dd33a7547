// Event stream of the head: one connection for the page, which heals by itself.
import { ApiError, checkSession, unreachableAt } from './api.js';
import { adjustClock } from './clock.js';
import { Store } from './store.js';

const RETRY_MS_MIN = 1_000;
const RETRY_MS_MAX = 8_000;
// The head sends a sample each 2 s. A connection that is silent for longer may be dead without an error.
const SILENCE_MS_MAX = 30_000;
// A browser has six HTTP/1.1 connections to an origin. A hidden tab gives its own back after this time.
const HIDDEN_MS_MAX = 10_000;

// `state` is connecting, live or lost.
export const connection = new Store({ state: 'connecting' });
// Newest sample: { time_ms, cluster: {...}, nodes: {...} }.
export const latestSample = new Store(null);

const listeners = new Set();
let source = null;
let retryTimer = null;
let silenceTimer = null;
let hiddenTimer = null;
let isPaused = false;
let retryMs = RETRY_MS_MIN;
let wasLost = false;

// Calls `listener` with { type: 'change', changed }, { type: 'sample' } or { type: 'reconnect' }.
export const listen = (listener) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};

const tell = (event) => {
  for (const listener of [...listeners]) listener(event);
};

const parsed = (message) => {
  try {
    return JSON.parse(message.data);
  } catch {
    // A truncated event is dropped: the next one brings newer data.
    return null;
  }
};

const watchSilence = () => {
  clearTimeout(silenceTimer);
  silenceTimer = setTimeout(lost, SILENCE_MS_MAX);
};

const opened = () => {
  retryMs = RETRY_MS_MIN;
  watchSilence();
  connection.set({ state: 'live' });
  // What changed while there was no connection is not known, so each view loads again.
  if (wasLost) tell({ type: 'reconnect' });
  wasLost = false;
};

const connect = () => {
  source = new EventSource('/api/v0/stream');
  source.addEventListener('open', opened);
  source.addEventListener('error', lost);
  source.addEventListener('change', (message) => {
    watchSilence();
    const data = parsed(message);
    if (data) tell({ type: 'change', changed: data.changed ?? [] });
  });
  source.addEventListener('sample', (message) => {
    watchSilence();
    const data = parsed(message);
    if (!data) return;
    adjustClock(data.time_ms);
    latestSample.set(data);
    tell({ type: 'sample' });
  });
};

const drop = () => {
  source?.close();
  source = null;
  clearTimeout(retryTimer);
  clearTimeout(silenceTimer);
};

// Retries by its own timer: after an error status, as of a restarted head, a browser does not.
const lost = () => {
  drop();
  wasLost = true;
  connection.set({ state: 'lost' });
  retryTimer = setTimeout(retry, retryMs);
  retryMs = Math.min(RETRY_MS_MAX, 2 * retryMs);
};

const retry = async () => {
  try {
    // An EventSource does not tell its status. The log-in may have expired meanwhile.
    if (await checkSession()) connect();
  } catch (err) {
    if (!(err instanceof ApiError)) throw err;
    lost();
  }
};

export const retryNow = () => {
  if (connection.value.state !== 'lost') return;
  clearTimeout(retryTimer);
  retry();
};

export const openStream = () => {
  if (source === null && connection.value.state !== 'lost') connect();
};

export const closeStream = () => {
  drop();
  clearTimeout(hiddenTimer);
  isPaused = false;
  wasLost = false;
  latestSample.set(null);
  connection.set({ state: 'connecting' });
};

const pause = () => {
  if (source === null) return;
  drop();
  isPaused = true;
};

const resume = () => {
  if (!isPaused) return;
  // Views load again, since changes were missed.
  isPaused = false;
  wasLost = true;
  connect();
};

const visibilityChanged = () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(pause, HIDDEN_MS_MAX);
  else resume();
};

document.addEventListener('visibilitychange', visibilityChanged);
// A browser keeps a page that was left for a minute, with its connections.
window.addEventListener('pagehide', pause);
window.addEventListener('pageshow', resume);
unreachableAt.subscribe(() => {
  if (connection.value.state === 'live') lost();
});
window.addEventListener('online', retryNow);
