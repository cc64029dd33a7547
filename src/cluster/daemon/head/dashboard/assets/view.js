// Data of a page: loaded, cancelled with the page, and loaded again when rows change.
import { load } from './api.js';
import { useLayoutEffect, useRef, useState } from './html.js';
import { listen } from './stream.js';

// Shortest time between two reloads, whatever changes. The first load of a page does not count: a change right
// behind it is shown immediately.
const RELOAD_MS_MIN = 1_000;

// Runs a load, and again at most once a second; one at a time.
class Reloader {
  #timer = null;
  #controller = null;
  #reloadedAt = -Infinity;
  #isDirty = false;

  constructor(run) {
    this.run = run;
  }

  // A burst of requests ends in one load.
  request() {
    this.#isDirty = true;
    // A hidden page loads when it is shown again.
    if (this.#controller !== null || this.#timer !== null || document.hidden) return;
    const wait = Math.max(0, this.#reloadedAt + RELOAD_MS_MIN - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#reloadedAt = performance.now();
      this.start();
    }, wait);
  }

  shown() {
    if (!document.hidden && this.#isDirty) this.request();
  }

  async start() {
    this.cancel();
    const controller = new AbortController();
    this.#controller = controller;
    await this.run(controller.signal);
    if (this.#controller !== controller) return;
    this.#controller = null;
    if (this.#isDirty) this.request();
  }

  cancel() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#isDirty = false;
    this.#controller?.abort();
    this.#controller = null;
  }
}

// Remembers the snapshots of the replies that make up a view.
const recorder = (signal) => {
  const snapshots = [];
  let timeMs = null;
  const get = async (path) => {
    const reply = await load(path, signal);
    if (typeof reply?.snapshot === 'number') snapshots.push(reply.snapshot);
    // A reply with series has the times of its samples.
    const at = Array.isArray(reply?.time_ms) ? reply.time_ms.at(-1) : reply?.time_ms;
    if (typeof at === 'number') timeMs = Math.min(timeMs ?? Infinity, at);
    return reply;
  };
  const info = () => ({
    first: snapshots.length > 0 ? Math.min(...snapshots) : null,
    last: snapshots.length > 0 ? Math.max(...snapshots) : null,
    timeMs,
  });
  return { get, info };
};

const concerns = (event, { kinds = [], samples = false }) => {
  if (event.type === 'reconnect') return true;
  if (event.type === 'sample') return samples;
  return event.changed.some((kind) => kinds.includes(kind));
};

// Loads with `fetchAll(get)`, and again when `deps` change, when rows of `kinds` change, and, with `samples`,
// at each sample. Returns { data, error, info, reload }. Old data stays until the new is there.
export const useView = (fetchAll, deps, options) => {
  const [view, setView] = useState({ data: null, error: null, info: null });
  const current = useRef({ fetchAll, options });
  current.current = { fetchAll, options };
  const reloader = useRef(null);

  // Before the paint, so that a request does not wait for a frame.
  useLayoutEffect(() => {
    const run = async (signal) => {
      const { get, info } = recorder(signal);
      try {
        const data = await current.current.fetchAll(get);
        if (!signal.aborted) setView({ data, error: null, info: info() });
      } catch (error) {
        if (signal.aborted || error.name === 'AbortError') return;
        setView((old) => ({ ...old, error }));
      }
    };
    const own = new Reloader(run);
    reloader.current = own;
    own.start();
    const shown = () => own.shown();
    document.addEventListener('visibilitychange', shown);
    const stop = listen((event) => {
      if (concerns(event, current.current.options ?? {})) own.request();
    });
    return () => {
      stop();
      document.removeEventListener('visibilitychange', shown);
      own.cancel();
    };
  }, deps);

  return { ...view, reload: () => reloader.current?.start() };
};
