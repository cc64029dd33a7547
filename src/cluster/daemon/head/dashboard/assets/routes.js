// Addresses of the pages: the part behind `#`, with the choices of the page as a query. Pure functions.

// Pages with an id have a detail page; `title` is the name in the navigation.
export const PAGES = [
  { page: 'overview', title: 'Overview', key: 'o' },
  { page: 'jobs', title: 'Jobs', key: 'j' },
  { page: 'cluster', title: 'Cluster', key: 'c' },
  { page: 'actors', title: 'Actors', key: 'a' },
  { page: 'tasks', title: 'Tasks', key: 't' },
  { page: 'metrics', title: 'Metrics', key: 'm' },
  { page: 'logs', title: 'Logs', key: 'l' },
];

const DETAILS = { jobs: 'job', actors: 'actor', nodes: 'node', workers: 'worker' };
const SECTIONS = { job: 'jobs', actor: 'actors', node: 'cluster', worker: 'cluster', events: 'overview' };
const LISTS = new Set([...PAGES.map(({ page }) => page), 'events']);

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    // A stray percent sign is no escape: the text stands for itself.
    return text;
  }
};

// Reads an address: the page, its id, the page of the navigation that it belongs to, and its choices.
export const parseRoute = (hash) => {
  const [path, search = ''] = hash.replace(/^#?\/?/, '').split(/\?(.*)/s);
  const [first = '', ...rest] = path.split('/');
  const query = Object.fromEntries(new URLSearchParams(search));
  const id = rest.length > 0 && rest[0] !== '' ? decoded(rest[0]) : null;
  if (first === '') return { page: 'overview', section: 'overview', id: null, query };
  if (id !== null && DETAILS[first]) {
    const page = DETAILS[first];
    return { page, section: SECTIONS[page], id, query };
  }
  if (id === null && LISTS.has(first)) return { page: first, section: SECTIONS[first] ?? first, id, query };
  return { page: 'unknown', section: null, id: null, query };
};

// Query text without empty choices, so that equal views have equal addresses.
const queryText = (query) => {
  const entries = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== '');
  const text = new URLSearchParams(entries.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
};

export const listHref = (page, query) => `#/${page === 'overview' ? '' : page}${queryText(query)}`;
export const jobHref = (id, query) => `#/jobs/${encodeURIComponent(id)}${queryText(query)}`;
export const actorHref = (id, query) => `#/actors/${encodeURIComponent(id)}${queryText(query)}`;
export const nodeHref = (id, query) => `#/nodes/${encodeURIComponent(id)}${queryText(query)}`;
export const workerHref = (id, query) => `#/workers/${encodeURIComponent(id)}${queryText(query)}`;
export const logHref = (node, file) => listHref('logs', { node, file });

// Address of a route with some of its choices changed.
export const withQuery = (route, changes) => {
  const query = { ...route.query, ...changes };
  switch (route.page) {
    case 'job': return jobHref(route.id, query);
    case 'actor': return actorHref(route.id, query);
    case 'node': return nodeHref(route.id, query);
    case 'worker': return workerHref(route.id, query);
    default: return listHref(route.page, query);
  }
};

// Path of a list of the API. `filters` has pairs of field and value; empty values are left out.
export const listPath = (kind, { filters = {}, search, sort, limit, offset } = {}) => {
  const query = new URLSearchParams();
  for (const [field, value] of Object.entries(filters)) {
    if (value !== null && value !== undefined && value !== '') query.append('filter', `${field}=${value}`);
  }
  if (search) query.set('search', search);
  if (sort) query.set('sort', sort);
  if (limit) query.set('limit', limit);
  if (offset) query.set('offset', offset);
  const text = query.toString();
  return `/api/v0/${kind}${text && `?${text}`}`;
};

export const rowPath = (kind, id) => `/api/v0/${kind}/${encodeURIComponent(id)}`;

export const logPath = (node, file, query) =>
  `/api/v0/logs/${encodeURIComponent(node)}/${encodeURIComponent(file)}${queryText(query)}`;

export const logDownloadPath = (node, file) =>
  `/api/v0/logs/${encodeURIComponent(node)}/${encodeURIComponent(file)}/download`;

// Path of a job's timeline, with at most `limit` tasks and messages.
export const timelinePath = (id, limit) => `/api/v0/timeline${queryText({ job_id: id, limit })}`;
