// Current route of the page, from the address bar.
import { Store, useStore } from './store.js';
import { parseRoute, withQuery } from './routes.js';

export const route = new Store(parseRoute(location.hash));

const read = () => route.set(parseRoute(location.hash));
window.addEventListener('hashchange', read);
window.addEventListener('popstate', read);

export const useRoute = () => useStore(route);

export const go = (href) => {
  location.hash = href.slice(1);
};

// Changes choices of the current page. Typing replaces the entry of the history; other choices add one.
export const choose = (changes, { replace = false } = {}) => {
  const href = withQuery(route.value, changes);
  if (href === location.hash) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', href);
  read();
};
