// Start of the page: log-in or the shell, and the page of the current route.
import { ApiError, checkSession, session } from './api.js';
import { html, render, useEffect, useState } from './html.js';
import { LogIn } from './pages/login.js';
import { Shell } from './shell.js';
import { useStore } from './store.js';

const RETRY_MS = 2_000;

const App = () => {
  const { loggedIn } = useStore(session);
  const [error, setError] = useState(null);
  useEffect(() => {
    let timer = null;
    const check = async () => {
      try {
        await checkSession();
        setError(null);
      } catch (err) {
        if (!(err instanceof ApiError)) throw err;
        setError(err);
        timer = setTimeout(check, RETRY_MS);
      }
    };
    check();
    return () => clearTimeout(timer);
  }, []);
  if (loggedIn === true) return html`<${Shell} />`;
  if (loggedIn === false) return html`<${LogIn} />`;
  return html`<main class="login"><p class="loading" role="status">${error ? error.message : 'Loading'}</p></main>`;
};

render(html`<${App} />`, document.getElementById('app'));
