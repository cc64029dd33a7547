// All events that the head keeps.
import { html } from '../html.js';
import { EventList } from '../event_list.js';
import { Loaded, PageHead } from '../parts.js';
import { choose } from '../router.js';
import { listPath } from '../routes.js';
import { Pager, SearchField, Select, pageNumber, pageSize } from '../table.js';
import { useView } from '../view.js';

const SEVERITIES = [['ERROR', 'Error'], ['WARNING', 'Warning'], ['INFO', 'Info']];

export const EventsPage = ({ route: { query } }) => {
  const [page, size] = [pageNumber(query), pageSize(query)];
  const path = listPath('events', {
    filters: { severity: query.severity, kind: query.kind },
    search: query.search, limit: size, offset: (page - 1) * size,
  });
  const view = useView((get) => get(path), [path], { kinds: ['events'] });
  return html`<${PageHead} title="Events" trail=${[['Overview', '#/']]} view=${view} />
    <div class="filters">
      <${Select} label="Severity" value=${query.severity} choices=${SEVERITIES} onChange=${(severity) => choose({ severity, page: null })} />
      <${SearchField} label="Search" value=${query.search} onSearch=${(search) => choose({ search, page: null }, { replace: true })} />
    </div>
    <${Loaded} view=${view}>${(reply) => html`
      <section class="card"><${EventList} events=${reply.rows}
        empty=${query.severity || query.search ? 'No event passes the filter.' : 'No event yet.'} /></section>
      <${Pager} page=${page} size=${size} total=${reply.total} onChoose=${choose} />`}
    <//>`;
};
