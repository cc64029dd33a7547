// Frame of all pages: navigation, connection, theme, help, and the page of the route.
import { Confirmations, Notes, notify } from './actions.js';
import { logOut } from './api.js';
import { Help, helpIsOpen } from './help.js';
import { html, useEffect, useErrorBoundary, useRef } from './html.js';
import { pageOf } from './pages/index.js';
import { useRoute } from './router.js';
import { PAGES, listHref } from './routes.js';
import { installShortcuts } from './shortcuts.js';
import { useStore } from './store.js';
import { closeStream, connection, openStream, retryNow } from './stream.js';
import { cycleTheme, theme } from './theme_choice.js';

const THEME_NAMES = { system: 'System theme', light: 'Light theme', dark: 'Dark theme' };
const THEME_MARKS = { system: '◐', light: '☀', dark: '☾' };

const Navigation = ({ section }) => html`
  <nav class="pages" aria-label="Pages">
    ${PAGES.map(({ page, title }) => html`<a key=${page} href=${listHref(page)}
      aria-current=${section === page ? 'page' : undefined}>${title}</a>`)}
  </nav>`;

const Connection = () => {
  const { state } = useStore(connection);
  const text = { connecting: 'Connecting', live: 'Live', lost: 'Connection lost' }[state];
  return html`<span class=${`connection is-${state}`} title="Connection to the head">${text}</span>`;
};

const Lost = () => {
  const { state } = useStore(connection);
  // The region exists from the start, so that a screen reader speaks what appears in it.
  return html`<div role="alert">${state === 'lost' && html`<p class="lost">Connection lost, retrying. The page shows the last data that it has.
    <button type="button" onClick=${retryNow}>Retry now</button></p>`}</div>`;
};

const Tools = () => {
  const current = useStore(theme);
  const leave = async () => {
    try {
      await logOut();
    } catch (error) {
      notify(error.message);
    }
  };
  return html`<div class="tools">
    <${Connection} />
    <button type="button" class="icon" aria-label=${`${THEME_NAMES[current]}; change`} title=${THEME_NAMES[current]}
      onClick=${cycleTheme}><span aria-hidden="true">${THEME_MARKS[current]}</span></button>
    <button type="button" class="icon" aria-label="Help and keyboard shortcuts" title="Help (?)"
      onClick=${() => helpIsOpen.set(true)}><span aria-hidden="true">?</span></button>
    <button type="button" class="quiet" onClick=${leave}>Log out</button>
  </div>`;
};

// A failure of one page leaves the navigation usable.
const Guarded = ({ route }) => {
  const [error, reset] = useErrorBoundary();
  if (error) {
    return html`<div class="failure" role="alert"><p>This page cannot be shown: ${String(error.message ?? error)}.</p>
      <button type="button" onClick=${reset}>Try again</button></div>`;
  }
  const Page = pageOf(route.page);
  return html`<${Page} route=${route} />`;
};

export const Shell = () => {
  const route = useRoute();
  const main = useRef(null);
  const place = `${route.page}/${route.id ?? ''}`;
  const shownPlace = useRef(place);
  useEffect(() => {
    openStream();
    const remove = installShortcuts();
    return () => {
      remove();
      closeStream();
    };
  }, []);
  useEffect(() => {
    if (shownPlace.current === place) return;
    shownPlace.current = place;
    scrollTo(0, 0);
    // The focus follows to the new page, as after a load.
    main.current.querySelector('h1')?.focus({ preventScroll: true });
  }, [place]);
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <header class="bar">
      <a class="brand" href="#/"><span class="mark" aria-hidden="true">R</span>Roadshow</a>
      <${Navigation} section=${route.section} />
      <${Tools} />
    </header>
    <${Lost} />
    <main id="main" tabindex="-1" ref=${main}><${Guarded} key=${place} route=${route} /></main>
    <${Notes} /><${Confirmations} /><${Help} />`;
};
