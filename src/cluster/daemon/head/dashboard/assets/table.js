// Tables: columns with units and order, expandable rows, pages of rows, and a filter bar.
import { count } from './format.js';
import { Fragment, html, useEffect, useMemo, useRef, useState } from './html.js';
import { remember, remembered } from './store.js';

// Columns without a value in any row are left out. `has` is asked for each row.
export const shownColumns = (columns, rows) =>
  columns.filter((column) => !column.has || rows.some((row) => column.has(row)));

// Next order after a click: numbers begin with the largest, texts with the first.
export const nextSort = (sort, column) => {
  const [down, up] = [`-${column.sort}`, column.sort];
  if (column.align === 'end') return sort === down ? up : down;
  return sort === up ? down : up;
};

const direction = (sort, column) => {
  if (!column.sort) return undefined;
  if (sort === column.sort) return 'ascending';
  return sort === `-${column.sort}` ? 'descending' : 'none';
};

const HeadCell = ({ column, sort, onSort }) => {
  const order = direction(sort, column);
  const classes = `${column.align === 'end' ? 'end' : ''} ${column.class ?? ''}`;
  const title = html`<span title=${column.hint}>${column.title}</span>`;
  if (!column.sort || !onSort) return html`<th scope="col" role="columnheader" class=${classes}>${title}</th>`;
  return html`<th scope="col" role="columnheader" class=${classes} aria-sort=${order}>
    <button type="button" class="sort" onClick=${() => onSort(nextSort(sort, column))}>${title}</button></th>`;
};

const Cell = ({ column, row }) => html`
  <td role="cell" class=${`${column.align === 'end' ? 'end' : ''} ${column.class ?? ''}`} data-label=${column.title}>
    ${column.cell(row)}</td>`;

const ExpandCell = ({ isOpen, label, onToggle }) => html`
  <td role="cell" class="expand"><button type="button" class="icon" aria-expanded=${isOpen ? 'true' : 'false'}
    aria-label=${label} onClick=${onToggle}><span aria-hidden="true">${isOpen ? '▾' : '▸'}</span></button></td>`;

// Rows of a table. With `expand`, a row opens to what `expand.render(row)` returns: more rows of the same columns.
export const DataTable = ({ label, columns, rows, keyOf, sort, onSort, expand, isBusy }) => {
  const cells = (row) => columns.map((column) => html`<${Cell} key=${column.id} column=${column} row=${row} />`);
  // Rows are rendered once for each load: a click on another page would render the old ones first.
  const plain = useMemo(
    () => (expand ? null : rows.map((row) => html`<tr role="row" key=${keyOf(row)} data-id=${keyOf(row)}>${cells(row)}</tr>`)),
    [rows, columns.map(({ id }) => id).join()],
  );
  const body = plain ?? rows.map((row) => {
    const key = keyOf(row);
    const isOpen = expand.isOpen(key);
    return html`<${Fragment} key=${key}>
      <tr role="row" data-id=${key}>
        <${ExpandCell} isOpen=${isOpen} label=${expand.label(row)} onToggle=${() => expand.toggle(key)} />
        ${cells(row)}</tr>
      ${isOpen && expand.render(row)}
    <//>`;
  });
  return html`<div class="table-scroll" tabindex="0" role="region" aria-label=${label}>
    <table role="table" aria-busy=${isBusy ? 'true' : 'false'} aria-label=${label}>
      <thead role="rowgroup"><tr role="row">
        ${expand && html`<th scope="col" role="columnheader" class="expand"><span class="hidden">Workers</span></th>`}
        ${columns.map((column) => html`<${HeadCell} key=${column.id} column=${column} sort=${sort} onSort=${onSort} />`)}
      </tr></thead>
      <tbody role="rowgroup">${body}</tbody>
    </table></div>`;
};

// Set of open rows, for the `expand` of a table.
export const useOpenRows = () => {
  const [open, setOpen] = useState(new Set());
  const toggle = (key) => {
    const next = new Set(open);
    if (!next.delete(key)) next.add(key);
    setOpen(next);
  };
  return { isOpen: (key) => open.has(key), toggle, setOpen };
};

const PAGE_SIZES = [50, 100, 200, 500];
const PAGE_SIZE_DEFAULT = 50;

// Rows a page: of the address, else the one remembered.
export const pageSize = (query) => {
  const wanted = Number(query.size ?? remembered('page_size'));
  return PAGE_SIZES.includes(wanted) ? wanted : PAGE_SIZE_DEFAULT;
};

// Number of the page, from 1.
export const pageNumber = (query) => Math.max(1, Math.floor(Number(query.page)) || 1);

// Buttons between pages of a list that the head sorts and cuts.
export const Pager = ({ page, size, total, onChoose }) => {
  const pages = Math.max(1, Math.ceil(total / size));
  const [first, last] = [Math.min(total, (page - 1) * size + 1), Math.min(total, page * size)];
  const resize = (event) => {
    remember('page_size', event.target.value);
    onChoose({ size: event.target.value, page: null });
  };
  return html`<nav class="pager" aria-label="Pages of the list">
    <span class="range" role="status">${total === 0 ? 'No rows' : `${count(first)}–${count(last)} of ${count(total)}`}</span>
    <label>Rows <select value=${String(size)} onChange=${resize}>
      ${PAGE_SIZES.map((choice) => html`<option value=${String(choice)} selected=${choice === size}>${choice}</option>`)}
    </select></label>
    <button type="button" disabled=${page <= 1} onClick=${() => onChoose({ page: null })}>First</button>
    <button type="button" data-shortcut="[" disabled=${page <= 1} onClick=${() => onChoose({ page: page - 1 })}>Previous</button>
    <span class="page-of">Page ${count(page)} of ${count(pages)}</span>
    <button type="button" data-shortcut="]" disabled=${page >= pages} onClick=${() => onChoose({ page: page + 1 })}>Next</button>
  </nav>`;
};

// Choice from a list of values, for a filter. A value of the address that the list lacks is added to it.
export const Select = ({ label, value, choices, any = 'All', onChange }) => {
  const known = choices.some(([choice]) => choice === value);
  const all = value && !known ? [...choices, [value, value]] : choices;
  return html`<label class="field">${label}
    <select value=${value ?? ''} onChange=${(event) => onChange(event.target.value || null)}>
      ${any !== null && html`<option value="" selected=${!value}>${any}</option>`}
      ${all.map(([choice, text]) => html`<option value=${choice} selected=${choice === value}>${text}</option>`)}
    </select></label>`;
};

const TYPING_MS = 250;

// Field whose text is used once typing pauses, so that each letter is not a request.
export const SearchField = ({ label, value, onSearch, placeholder }) => {
  const [text, setText] = useState(value ?? '');
  const timer = useRef(null);
  // A text that is being typed is newer than the address.
  useEffect(() => {
    if (timer.current === null) setText(value ?? '');
  }, [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const typed = (event) => {
    const next = event.target.value;
    setText(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      timer.current = null;
      onSearch(next || null);
    }, TYPING_MS);
  };
  return html`<label class="field search">${label}
    <input type="search" data-shortcut="/" autocomplete="off" spellcheck=${false} placeholder=${placeholder} value=${text} onInput=${typed} /></label>`;
};
