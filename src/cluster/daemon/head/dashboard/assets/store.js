// Value that components watch, and choices that the browser remembers.
import { useEffect, useState } from './html.js';

export class Store {
  #listeners = new Set();

  constructor(value) {
    this.value = value;
  }

  set(value) {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const listener of [...this.#listeners]) listener(value);
  }

  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

// Current value of a store; the component is rendered again when it changes.
export const useStore = (store) => {
  const [value, setValue] = useState(store.value);
  useEffect(() => {
    // The value may have changed between the first render and this subscription.
    setValue(store.value);
    return store.subscribe((next) => setValue(next));
  }, [store]);
  return value;
};

const PREFIX = 'roadshow.';

export const remembered = (name) => {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    // Storage can be blocked: then nothing is remembered.
    return null;
  }
};

export const remember = (name, value) => {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, value);
  } catch {
    // See above.
  }
};
