// One log: its last lines, search, follow and download.
import { load } from './api.js';
import { counted } from './format.js';
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from './html.js';
import { LINES_MAX, appendText, emptyLog, marked, matchingLines } from './log_text.js';
import { Failure } from './parts.js';
import { logDownloadPath, logPath } from './routes.js';
import { remember, remembered } from './store.js';

// As many as the page keeps: a search covers them.
const TAIL_LINES = LINES_MAX;
const POLL_MS = 1_000;
const RETRY_MS = 4_000;
// A reply that is longer is a part of what there is: the next part is asked for immediately.
const PART_CHARS = 48 * 1_024;
// Matches that are shown; more would take longer to draw than to narrow the search.
const MATCHES_MAX = 1_000;

// Reads a log into `onChange`, until the returned function is called.
const follow = (node, file, isFollowed, onChange) => {
  const controller = new AbortController();
  let [log, offset, timer] = [emptyLog(), null, null];
  const read = async () => {
    let pause = POLL_MS;
    try {
      if (offset === null || !document.hidden) {
        const query = offset === null ? { tail: TAIL_LINES } : { offset };
        const reply = await load(logPath(node, file, query), controller.signal);
        // The file was cut or replaced by a newer one: what was read is of the old one.
        if (offset !== null && reply.offset < offset) log = emptyLog();
        if (reply.text || offset === null) log = appendText(log, reply.text);
        offset = reply.offset;
        if (reply.text.length >= PART_CHARS) pause = 0;
        onChange({ log, error: null });
      }
    } catch (error) {
      if (error.name === 'AbortError') return;
      onChange({ log, error });
      pause = RETRY_MS;
    }
    if (isFollowed() || pause === 0) timer = setTimeout(read, pause);
  };
  read();
  return { stop: () => { controller.abort(); clearTimeout(timer); }, resume: () => { clearTimeout(timer); read(); } };
};

const Lines = ({ log, search }) => {
  const lines = useMemo(() => (log.rest ? [...log.lines, log.rest] : log.lines), [log]);
  const found = useMemo(() => (search ? matchingLines(lines, search) : null), [lines, search]);
  if (found === null) return html`${lines.join('\n')}`;
  if (found.length === 0) return html`<span class="muted">No line contains this text.</span>`;
  return found.slice(-MATCHES_MAX).map(([at, line]) => html`<span key=${log.dropped + at}>
    ${marked(line, search).map(([text, isMatch]) => (isMatch ? html`<mark>${text}</mark>` : text))}${'\n'}</span>`);
};

const matchNote = (log, search) => {
  const lines = log.lines.length + (log.rest ? 1 : 0);
  const loaded = lines >= TAIL_LINES ? `the last ${counted(lines, 'line')}` : counted(lines, 'line');
  if (!search) return loaded;
  const many = matchingLines(log.rest ? [...log.lines, log.rest] : log.lines, search).length;
  const cut = many > MATCHES_MAX ? `, last ${counted(MATCHES_MAX, 'line')} shown` : '';
  return `${counted(many, 'match', 'matches')} in ${loaded}${cut}`;
};

export const LogView = ({ node, file, search = '', onSearch, tall = false }) => {
  const [state, setState] = useState({ log: emptyLog(), error: null });
  const [isFollowed, setFollowed] = useState(true);
  const [isWrapped, setWrapped] = useState(remembered('log_wrap') !== 'no');
  const [ownSearch, setOwnSearch] = useState(search);
  const box = useRef(null);
  const reader = useRef(null);
  const followed = useRef(isFollowed);
  followed.current = isFollowed;
  // The view stays at the end only if the reader has not scrolled up.
  const atEnd = useRef(true);

  useEffect(() => {
    setState({ log: emptyLog(), error: null });
    atEnd.current = true;
    reader.current = follow(node, file, () => followed.current, setState);
    return () => reader.current.stop();
  }, [node, file]);
  useLayoutEffect(() => {
    if (atEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [state.log, ownSearch, isWrapped]);

  const scrolled = ({ target }) => {
    atEnd.current = target.scrollTop + target.clientHeight >= target.scrollHeight - 4;
  };
  const toggleFollow = ({ target }) => {
    followed.current = target.checked;
    setFollowed(target.checked);
    if (target.checked) {
      atEnd.current = true;
      reader.current.resume();
    }
  };
  const toggleWrap = ({ target }) => {
    remember('log_wrap', target.checked ? null : 'no');
    setWrapped(target.checked);
  };
  const typed = ({ target }) => {
    setOwnSearch(target.value);
    onSearch?.(target.value || null);
  };
  return html`<div class="log">
    <div class="log-tools">
      <label class="field search">Search in the log <input type="search" data-shortcut="/" value=${ownSearch} autocomplete="off" spellcheck=${false} onInput=${typed} /></label>
      <span class="note" role="status">${matchNote(state.log, ownSearch)}</span>
      <label class="check"><input type="checkbox" data-shortcut="f" checked=${isFollowed} onChange=${toggleFollow} />Follow</label>
      <label class="check"><input type="checkbox" checked=${isWrapped} onChange=${toggleWrap} />Wrap</label>
      <a class="button" href=${logDownloadPath(node, file)} download>Download</a>
    </div>
    ${state.error && state.error.code !== 'unreachable' && html`<${Failure} error=${state.error} onRetry=${() => reader.current.resume()} />`}
    <pre ref=${box} class=${`log-text ${tall ? 'is-tall' : ''} ${isWrapped ? 'is-wrapped' : ''}`} tabindex="0" onScroll=${scrolled}
      aria-label=${`Log ${file}`}><${Lines} log=${state.log} search=${ownSearch} /></pre>
  </div>`;
};
