// Compares the cells of the page with rows of the command. An expression: a promise that the page has
// `window.numbers`. Texts are made by the page's own module `format.js`, so a difference is one of the value.
(async () => {
  const [f, { headNow }, { perSecond }, { latestSample }] = await Promise.all(
    ['format', 'clock', 'rates', 'stream'].map((module) => import(`/assets/${module}.js`)),
  );

  // Replies in the order in which the page took them, and the number of requests that are under way.
  let replies = [];
  let open = 0;
  const loads = window.fetch;
  window.fetch = async (path, options) => {
    open += 1;
    const ended = () => { open -= 1; };
    let reply;
    try {
      reply = await loads(path, options);
    } catch (error) {
      ended();
      throw error;
    }
    const json = reply.json.bind(reply);
    reply.json = async () => {
      try {
        const value = await json();
        replies.push({ path: String(path), value });
        return value;
      } finally {
        ended();
      }
    };
    return reply;
  };

  // Spaces of the layout are no part of a value.
  const plain = (text) => text.replace(/\s+/g, '');
  const without = (text) => (text ?? '').replaceAll('`', '');
  const state = (row) => f.words(row.state) + without(row.cause);
  // A time has two forms. The exact one belongs to the element; the text may be of the last second.
  const ago = (element, ms) => {
    const time = element.querySelector('time');
    const exact = time?.getAttribute('datetime');
    if (exact !== new Date(ms).toISOString()) return `${new Date(ms).toISOString()} and not ${exact}`;
    const texts = [0, 1, 2].map((seconds) => f.relative(ms, headNow() - 1_000 * seconds));
    return texts.find((text) => plain(text) === plain(time.textContent)) ?? texts[0];
  };

  const JOBS = {
    Job: (row) => f.shortId(row.job_id),
    State: (row) => f.words(row.state),
    Entrypoint: (row) => row.entrypoint,
    Started: (row, cell) => ago(cell, row.started_ms),
    Duration: (row, cell) => {
      if (row.ended_ms !== null) return f.duration(row.ended_ms - row.started_ms);
      if (!cell.querySelector('span').title.startsWith(f.absolute(row.started_ms))) return f.absolute(row.started_ms);
      const texts = [0, 1, 2].map((seconds) => f.duration(headNow() - 1_000 * seconds - row.started_ms));
      return texts.find((text) => plain(text) === plain(cell.textContent)) ?? texts[0];
    },
    Driver: (row) => row.hostname,
    Result: (row) => without(row.message),
    Actions: (row) => (['RUNNING', 'PENDING'].includes(row.state) ? 'Stop' : ''),
  };
  const ACTORS = {
    Actor: (row) => f.shortId(row.actor_id),
    Class: (row) => f.shortName(row.class),
    Name: (row) => row.name ?? '',
    State: state,
    Job: (row) => f.shortId(row.job_id),
    Node: (row) => f.shortNode(row.node_id),
    Worker: (row) => f.shortId(row.worker_id),
    PID: (row) => String(row.pid ?? f.NONE),
    Mailbox: (row) => f.count(row.mailbox),
    Handled: (row) => f.count(row.handled),
    Rate: (row, cell, { rate }) => (row.state === 'DEAD' ? f.NONE : rate('handled', f.rate)),
    Actions: (row) => (row.state === 'DEAD' ? '' : 'Kill'),
  };
  const TASKS = {
    Function: (row) => f.shortName(row.name),
    Job: (row) => f.shortId(row.job_id),
    Node: (row) => f.shortNode(row.node_id),
    Worker: (row) => f.shortId(row.worker_id),
    Queued: (row) => f.count(row.queued),
    Running: (row) => f.count(row.running),
    Finished: (row) => f.count(row.finished),
    Failed: (row) => f.count(row.failed),
    p50: (row) => f.micros(row.p50_us),
    p99: (row) => f.micros(row.p99_us),
  };
  const meter = (part, whole) => {
    const share = f.share(part, whole);
    return f.bytesOf(part, whole) + (share === null ? '' : f.percent(share));
  };
  const NODES = {
    'Host / Worker process': (row) => row.hostname + (row.is_head ? 'head' : ''),
    State: state,
    ID: (row) => f.shortNode(row.node_id),
    'IP / PID': (row) => row.address,
    Actions: (row) => `Log${row.state === 'ALIVE' && !row.is_head ? 'Drain' : ''}`,
    CPU: (row, cell, { rate }) => rate('cpu_seconds', (busy) => f.percent(Math.min(100, (100 * busy) / row.usage.cpus))),
    Memory: (row) => meter(row.usage?.memory_bytes, row.usage?.memory_total_bytes),
    Disk: (row) => meter(row.usage?.disk_used_bytes, row.usage?.disk_total_bytes),
    Sent: (row, cell, { rate }) => rate('sent_bytes', f.bytesRate),
    Received: (row, cell, { rate }) => rate('received_bytes', f.bytesRate),
    Actors: (row) => f.count(row.actors),
    'Logical resources': (row) => f.resourcesUsed(row.resources, row.available).join('') || f.NONE,
  };
  const WORKERS = {
    'Host / Worker process': (row) => `Worker of job ${f.shortId(row.job_id)}`,
    State: state,
    ID: (row) => f.shortId(row.worker_id),
    'IP / PID': (row) => String(row.pid),
    Actions: () => 'Log',
    CPU: (row, cell, { rate }) => rate('cpu_seconds', (busy) => f.percent(100 * busy)),
    Memory: (row) => f.bytes(row.usage?.memory_bytes),
    Disk: () => '',
    Sent: (row, cell, { rate }) => rate('sent_bytes', f.bytesRate),
    Received: (row, cell, { rate }) => rate('received_bytes', f.bytesRate),
    Actors: (row) => f.count(row.actors),
    'Logical resources': () => '',
  };

  // `id` is the key of a row on the page, `at` the time of its counters in a reply.
  const TABLES = {
    jobs: { columns: JOBS, id: (row) => row.job_id },
    actors: { columns: ACTORS, id: (row) => row.actor_id, at: (row, reply) => reply.time_ms, counters: (row) => row },
    tasks: { columns: TASKS, id: (row) => `${row.worker_id} ${row.name}` },
    nodes: { columns: NODES, id: (row) => row.node_id, at: (row) => row.usage?.sampled_ms ?? null, counters: (row) => row.usage },
    workers: { columns: WORKERS, id: (row) => row.worker_id, at: (row) => row.usage?.sampled_ms ?? null, counters: (row) => row.usage },
  };

  const taken = (table) => replies.filter(({ path }) => path.startsWith(`/api/v0/${table}?`)).map(({ value }) => value);

  // Times of the last two samples of a row that the page took, [null, null] before the first.
  const sampledAt = (table, id) => {
    const { at, id: idOf } = TABLES[table];
    const times = [null, null];
    for (const reply of taken(table)) {
      const row = reply.rows.find((each) => idOf(each) === id);
      if (row && at(row, reply) !== times[1]) times.splice(0, 2, times[1], at(row, reply));
    }
    return times;
  };

  const snapshot = () => {
    const shown = document.querySelector('[data-snapshot]');
    const several = shown === null || shown.textContent.startsWith('Snapshots');
    return several ? null : Number(shown.dataset.snapshot);
  };

  const titles = () => [...document.querySelectorAll('thead th:not(.expand)')].map((cell) => cell.textContent.trim());
  const cellsOf = (element) => [...element.querySelectorAll('td:not(.expand)')];

  // Rows of the last reply to the page: what it shows comes from these.
  const last = (table) => taken(table).at(-1)?.rows ?? [];

  // Compares the rows of a table on the page with `rows` of the command. With `live`, `rows` has rows of several
  // times, and the one is taken that was sampled when the page's was. With `own` the rows are the replies to the page.
  // The result has the cells that were compared, and those that differ; or the reason to wait.
  const compare = (table, rows, { live = false, own = false } = {}) => {
    if (open > 0) return { wait: `${open} requests are under way` };
    const { columns, id: idOf, at, counters } = TABLES[table];
    const isTimed = live || own;
    const known = new Map();
    if (own) {
      for (const reply of taken(table)) for (const row of reply.rows) known.set(`${idOf(row)} ${at(row, reply)}`, row);
      rows = last(table);
    } else {
      for (const row of rows) known.set(live ? `${idOf(row)} ${at(row)}` : idOf(row), row);
    }
    const [checked, differences] = [[], []];
    const ids = new Set(rows.map(idOf));
    const elements = [...document.querySelectorAll('tbody tr[data-id]')]
      .filter((element) => table !== 'nodes' || !element.classList.contains('sub'))
      .filter((element) => table !== 'workers' || element.classList.contains('sub'));
    const names = titles();
    for (const name of names) if (!columns[name]) differences.push(`no check of the column ${name}`);
    const shown = elements.map((element) => element.dataset.id);
    const missing = [...ids].filter((id) => !shown.includes(id));
    if (missing.length > 0) differences.push(`rows are not on the page: ${missing}`);
    for (const element of elements) {
      const id = element.dataset.id;
      if (!ids.has(id)) {
        differences.push(`the command has no row ${id}`);
        continue;
      }
      const [before, now] = at ? sampledAt(table, id) : [null, null];
      const row = known.get(isTimed ? `${id} ${now}` : id);
      // The command has not been asked while the row had this sample.
      if (!row) continue;
      const rate = (counter, text) => {
        // An ended process has no second sample.
        if (isTimed && row.state === 'DEAD') return f.NONE;
        if (before === null) return null;
        const [from, to] = isTimed ? [known.get(`${id} ${before}`), row] : [row, row];
        if (!from) return null;
        const perS = perSecond(counters(from)[counter], counters(to)[counter], now - before);
        return perS === null ? f.NONE : text(perS);
      };
      cellsOf(element).forEach((cell, index) => {
        const expected = columns[names[index]]?.(row, cell, { rate });
        if (expected === null || expected === undefined) return;
        if (plain(cell.textContent) === plain(expected)) {
          checked.push(`${id} ${names[index]}`);
          if (names[index] === 'Rate' && ![f.rate(0), f.NONE].includes(expected)) checked.push('a rate above 0');
        } else differences.push(`${id} ${names[index]}: the page shows ${cell.textContent}, the command has ${expected}`);
      });
    }
    return { snapshot: snapshot(), names, shown, checked, differences };
  };

  // Compares texts by their names.
  const texts = (pairs) => {
    const [checked, differences] = [[], []];
    for (const [name, shown, expected] of pairs) {
      if (shown !== undefined && plain(shown) === plain(expected)) checked.push(name);
      else differences.push(`${name}: the page shows ${shown}, the command has ${expected}`);
    }
    return { snapshot: snapshot(), checked, differences };
  };

  const sum = (rows, field) => rows.reduce((total, row) => total + row[field], 0);

  // Bars with the tasks of each function, whatever worker ran them.
  const progress = (rows) => {
    const functions = [...new Set(rows.map(({ name }) => name))];
    const shown = [...document.querySelectorAll('.progress-list li')];
    const pairs = [['functions', String(shown.length), String(functions.length)]];
    for (const name of functions) {
      const own = rows.filter((row) => row.name === name);
      const item = shown.find((each) => each.querySelector('.progress-name span').title === name);
      const [failed, all] = [sum(own, 'failed'), ['queued', 'running', 'finished', 'failed'].map((field) => sum(own, field))];
      const parts = ['finished', 'failed', 'running', 'queued'].map((field) => `${f.count(sum(own, field))} ${field}`).join(', ');
      pairs.push([`${name} bar`, item?.querySelector('.progress').title, parts]);
      pairs.push([`${name} count`, item?.querySelector('.progress-count').textContent,
        `${f.count(sum(own, 'finished'))} / ${f.count(all.reduce((a, b) => a + b))}${failed > 0 ? `${f.count(failed)} failed` : ''}`]);
    }
    return texts(pairs);
  };

  const counts = (nodes) => {
    const parts = [f.counted(nodes.length, 'node')];
    for (const each of ['ALIVE', 'DRAINING', 'UNREACHABLE', 'REJOINING', 'DEAD']) {
      const many = nodes.filter((node) => node.state === each).length;
      if (many > 0) parts.push(`${many} ${each.toLowerCase()}`);
    }
    return texts([['counts', document.querySelector('.counts').textContent, parts.join('')]]);
  };

  const tile = (title) => [...document.querySelectorAll('.tile')].find((each) => each.querySelector('.tile-title').textContent === title);
  const tileText = (title) => {
    const found = tile(title);
    return found && `${found.querySelector('.tile-value').textContent} ${found.querySelector('.tile-detail').textContent}`;
  };
  const card = (title) => document.querySelector(`section.card[aria-label="${title}"]`);

  const waiting = ({ waiting: actors }) => {
    const items = [...card('Waiting').querySelectorAll('.waiting li')];
    return [['waiting', String(items.length), String(actors.length)], ...actors.map((actor, at) => [
      `waiting ${at}`, items[at]?.textContent, `${f.shortName(actor.class)} of job ${f.shortId(actor.job_id)}${without(actor.reason)}`,
    ])];
  };

  const about = (event) => [['job', f.shortId(event.job_id)], ['node', f.shortNode(event.node_id)], ['worker', f.shortId(event.worker_id)],
    ['actor', f.shortId(event.actor_id)]].filter(([name]) => event[`${name}_id`]).map((pair) => pair.join('')).join('');
  const eventList = (events) => {
    const items = [...document.querySelectorAll('.events li')];
    return [['events', String(items.length), String(events.length)], ...events.map((event, at) => [
      `event ${at}`, items[at]?.textContent,
      items[at] ? `${ago(items[at], event.time_ms)}${f.words(event.kind)}${without(event.text)}${about(event)}` : '',
    ])];
  };

  const jobList = (jobs) => {
    const items = [...card('Jobs').querySelectorAll('.job-list li')];
    return [['jobs', String(items.length), String(jobs.length)], ...jobs.map((job, at) => [
      `job ${at}`, items[at]?.textContent, items[at] ? `${f.words(job.state)}${job.entrypoint}${ago(items[at], job.started_ms)}` : '',
    ])];
  };

  // All of the overview that comes from rows.
  const overview = ({ status, classes, jobs, events }) => {
    if (open > 0) return { wait: `${open} requests are under way` };
    const of = (each) => status.jobs[each] ?? 0;
    const nodes = (each) => status.nodes.filter((node) => node.state === each).length;
    const others = ['DRAINING', 'UNREACHABLE', 'REJOINING', 'DEAD'].filter((each) => nodes(each) > 0).map((each) => `${nodes(each)} ${each.toLowerCase()}`);
    const ended = ['SUCCEEDED', 'FAILED', 'STOPPED'].filter((each) => of(each) > 0).map((each) => `${of(each)} ${each.toLowerCase()}`);
    const pending = sum(classes, 'pending_creation') + sum(classes, 'restarting');
    const restarts = status.restarts.last_hour;
    const { used, total } = status.resources.cpu;
    return texts([
      ['Nodes', tileText('Nodes'), `${nodes('ALIVE')} / ${status.nodes.length} ${others.join(', ') || 'all alive'}`],
      ['CPU taken', tile('CPU')?.querySelector('.tile-detail').textContent, `${f.amount(used)} / ${f.amount(total)} taken by actors`],
      ['Running jobs', tileText('Running jobs'), `${f.count(of('RUNNING') + of('PENDING'))} ${ended.join(', ') || 'none has ended'}`],
      ['Actors alive', tileText('Actors alive'), `${f.count(sum(classes, 'alive'))} ${pending > 0 ? `${f.count(pending)} pending` : 'none pending'}${restarts > 0 ? `, ${f.counted(restarts, 'restart')} in the last hour` : ''}`],
      ['alerts', document.querySelector('.alerts')?.textContent ?? '',
        status.alerts.length === 0 ? '' : f.counted(status.alerts.length, 'alert') + status.alerts.map(({ kind, text }) => f.words(kind) + without(text)).join('')],
      ...waiting(status), ...jobList(jobs), ...eventList(events),
    ]);
  };

  // Tiles of the last sample, and the sample against rows of the command. `rows` has nodes of several times.
  const sample = (rows) => {
    const { cluster, nodes } = latestSample.value ?? {};
    if (!cluster) return { wait: 'no sample has come' };
    const { checked, differences } = texts([
      ['CPU', tile('CPU').querySelector('.tile-value').textContent, f.percent(cluster.cpu_percent)],
      ['Memory', tileText('Memory'), `${f.percent(f.share(cluster.memory_bytes, cluster.memory_total_bytes))} ${f.bytesOf(cluster.memory_bytes, cluster.memory_total_bytes)}`],
      ['Messages', tileText('Messages'), `${f.rate(cluster.messages_per_s)} handled by actors`],
      ['Tasks', tileText('Tasks'), `${f.rate(cluster.tasks_per_s)} ${f.count(cluster.tasks_queued)} queued`],
    ]);
    const equal = (a, b) => Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b));
    const all = Object.entries(nodes);
    for (const [id, reading] of all) {
      const own = rows.filter((row) => row.node_id === id).sort((a, b) => a.usage.sampled_ms - b.usage.sampled_ms);
      for (const field of ['memory_bytes', 'memory_total_bytes', 'disk_used_bytes']) {
        if (own.some(({ usage }) => usage[field] === reading[field])) checked.push(`${id} ${field}`);
      }
      // A rate is between two samples of the node, of which the head alone knows which.
      const between = (counter, value) => own.some((from, index) => own.slice(index + 1).some(({ usage }) => {
        const perS = perSecond(from.usage[counter], usage[counter], usage.sampled_ms - from.usage.sampled_ms);
        return perS !== null && equal(value(perS, usage), reading[counter === 'cpu_seconds' ? 'cpu_percent' : `${counter}_per_s`]);
      }));
      if (between('cpu_seconds', (perS, { cpus }) => Math.min(100, (100 * perS) / cpus))) checked.push(`${id} cpu_percent`);
      for (const counter of ['sent_bytes', 'received_bytes']) if (between(counter, (perS) => perS)) checked.push(`${id} ${counter}`);
    }
    for (const field of ['memory_bytes', 'memory_total_bytes', 'disk_used_bytes', 'sent_bytes_per_s', 'received_bytes_per_s']) {
      const total = all.reduce((seen, [, reading]) => seen + reading[field], 0);
      if (equal(total, cluster[field])) checked.push(`sum of ${field}`);
      else differences.push(`${field} of the cluster is ${cluster[field]}, and the sum of the nodes ${total}`);
    }
    const cpus = (id) => rows.find((row) => row.node_id === id)?.usage.cpus ?? NaN;
    const busy = all.reduce((seen, [id, { cpu_percent: percent }]) => seen + percent * cpus(id), 0)
      / all.reduce((seen, [id]) => seen + cpus(id), 0);
    // A node is cut at 100 %, and the sum is of what was measured: of nodes that are cut it can only be more.
    const isCut = all.some(([, { cpu_percent: percent }]) => percent >= 100);
    const isSum = equal(busy, cluster.cpu_percent) || (isCut && cluster.cpu_percent > busy && cluster.cpu_percent <= 100);
    if (all.some(([, { cpu_percent: percent }]) => percent === null)) return { checked, differences };
    if (isSum) checked.push('sum of cpu_percent');
    else differences.push(`cpu_percent of the cluster is ${cluster.cpu_percent}, and of the nodes ${busy}`);
    return { checked, differences };
  };

  window.numbers = { compare, counts, last, overview, progress, sample, forget: () => { replies = []; } };
  return true;
})()
