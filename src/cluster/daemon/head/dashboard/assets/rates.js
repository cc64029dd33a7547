// Rates from monotonic counters. Pure: times come with the samples.

// Change of a counter per second between two samples, or null.
//
// A counter that fell was reset with its process: that interval has no rate.
export const perSecond = (before, after, elapsedMs) => {
  if (typeof before !== 'number' || typeof after !== 'number' || !(elapsedMs > 0) || after < before) return null;
  return ((after - before) * 1_000) / elapsedMs;
};

// Rates of the counters of many rows, by the id of the row.
//
// A row that is loaded twice between two reports has one sample time, and keeps the rates that it had.
export class Rates {
  #samples = new Map();

  constructor(counters) {
    this.counters = counters;
  }

  // Takes the current rows as [id, sample time in ms, counters], and forgets the rows that are gone.
  update(rows) {
    const next = new Map();
    for (const [id, atMs, counters] of rows) {
      if (counters) next.set(id, this.#advance(this.#samples.get(id), atMs, counters));
    }
    this.#samples = next;
  }

  #advance(last, atMs, counters) {
    if (last && atMs === last.atMs) return last;
    const rates = {};
    for (const name of this.counters) {
      rates[name] = last ? perSecond(last.counters[name], counters[name], atMs - last.atMs) : null;
    }
    return { atMs, counters: { ...counters }, rates };
  }

  // Rate per second of a counter of a row; null before the second sample.
  of(id, counter) {
    return this.#samples.get(id)?.rates[counter] ?? null;
  }
}
