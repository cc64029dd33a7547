// Tasks by function. Pure functions.

// Adds the rows of a function on several workers to one row.
//
// Percentiles cannot be added; the largest of the workers is an upper bound of the p99, and is shown as such.
export const byFunction = (rows) => {
  const groups = new Map();
  for (const row of rows) {
    const group = groups.get(row.name) ??
      { name: row.name, queued: 0, running: 0, finished: 0, failed: 0, workers: 0, p99_us: null };
    for (const state of ['queued', 'running', 'finished', 'failed']) group[state] += row[state] ?? 0;
    group.workers += 1;
    if (typeof row.p99_us === 'number') group.p99_us = Math.max(group.p99_us ?? 0, row.p99_us);
    groups.set(row.name, group);
  }
  return [...groups.values()];
};

export const totalOf = (group) => group.queued + group.running + group.finished + group.failed;

// Shares of a progress bar, in the order in which it shows them.
export const progressParts = (group) => {
  const total = totalOf(group);
  const parts = [['finished', group.finished], ['failed', group.failed], ['running', group.running], ['queued', group.queued]];
  return parts.map(([state, value]) => ({ state, value, share: total > 0 ? (100 * value) / total : 0 }));
};
