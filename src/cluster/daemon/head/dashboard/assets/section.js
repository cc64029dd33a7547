// Sections of detail pages: a list of the API in a card, which the head sorts and cuts.
import { count } from './format.js';
import { html, useState } from './html.js';
import { Card, Loaded } from './parts.js';
import { listPath } from './routes.js';
import { DataTable, shownColumns } from './table.js';
import { useView } from './view.js';

const SECTION_ROWS = 12;

// Rows of `kind` that pass `filters`. `more` is the address of the page with all of them.
export const ListSection = ({ title, kind, filters, columns, keyOf, empty, more, initialSort, samples = true, onRows }) => {
  const [sort, setSort] = useState(initialSort);
  const path = listPath(kind, { filters, sort, limit: SECTION_ROWS });
  const view = useView(async (get) => {
    const reply = await get(path);
    onRows?.(reply.rows, reply.time_ms);
    return reply;
  }, [path], { kinds: [kind], samples });
  const total = view.data?.total ?? 0;
  return html`<${Card} title=${title} note=${view.data ? count(total) : null}
    actions=${more && total > SECTION_ROWS && html`<a href=${more}>All ${count(total)}</a>`}>
    <${Loaded} view=${view}>${({ rows }) => (rows.length === 0 ? html`<p class="quiet-line">${empty}</p>`
      : html`<${DataTable} label=${title} columns=${shownColumns(columns, rows)} rows=${rows} keyOf=${keyOf}
          sort=${sort} onSort=${setSort} />`)}<//>
  <//>`;
};
