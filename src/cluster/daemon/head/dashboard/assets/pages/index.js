// Component of each page.
import { html } from '../html.js';
import { Empty, PageHead } from '../parts.js';
import { ActorPage } from './actor.js';
import { ActorsPage } from './actors.js';
import { ClusterPage } from './cluster.js';
import { EventsPage } from './events.js';
import { JobPage } from './job.js';
import { JobsPage } from './jobs.js';
import { LogsPage } from './logs.js';
import { MetricsPage } from './metrics.js';
import { NodePage } from './node.js';
import { OverviewPage } from './overview.js';
import { TasksPage } from './tasks.js';
import { WorkerPage } from './worker.js';

const UnknownPage = () => html`<${PageHead} title="No such page" />
  <${Empty} title="This address names no page."><p>Go to the <a href="#/">overview</a>.</p><//>`;

const COMPONENTS = {
  overview: OverviewPage,
  jobs: JobsPage,
  job: JobPage,
  cluster: ClusterPage,
  node: NodePage,
  worker: WorkerPage,
  actors: ActorsPage,
  actor: ActorPage,
  tasks: TasksPage,
  metrics: MetricsPage,
  logs: LogsPage,
  events: EventsPage,
};

export const pageOf = (page) => COMPONENTS[page] ?? UnknownPage;
