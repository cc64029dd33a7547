// Requests to the head: reads that can be cancelled, and actions.
import { adjustClock } from './clock.js';
import { Store } from './store.js';

// Log-in of this browser: `loggedIn` is null until the head has answered.
export const session = new Store({ loggedIn: null });

// Failure of a request. `status` is 0 if the head did not answer.
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// Time of the last request without a reply. The stream reconnects then: a dead connection may look open.
export const unreachableAt = new Store(null);

const UNREACHABLE =
  'The head does not answer. The page retries; check on the head\'s machine with `roadshow health-check`.';

const unreachable = () => {
  unreachableAt.set(performance.now());
  return new ApiError(0, 'unreachable', UNREACHABLE);
};

const errorOf = async (response) => {
  try {
    const { error } = await response.json();
    if (error?.message) return new ApiError(response.status, error.code, error.message);
  } catch {
    // A proxy in between may answer with something else than JSON.
  }
  const text = `The head replied with the status ${response.status}; its log says why: see Logs, head.log.`;
  return new ApiError(response.status, 'unknown', text);
};

const request = async (path, options) => {
  let response;
  try {
    response = await fetch(path, { credentials: 'same-origin', cache: 'no-store', ...options });
  } catch (err) {
    if (err.name === 'AbortError') throw err;
    throw unreachable();
  }
  if (response.ok) return response;
  const error = await errorOf(response);
  // A wrong token at the log-in has the same status, and leaves the page as it is.
  if (response.status === 401 && path !== '/api/v0/login') session.set({ loggedIn: false });
  throw error;
};

// Loads JSON. `signal` cancels the request when its page is left.
export const load = async (path, signal) => {
  const response = await request(path, { signal });
  let reply;
  try {
    reply = await response.json();
  } catch (err) {
    // The connection can also break within the body.
    if (err.name === 'AbortError') throw err;
    throw unreachable();
  }
  if (reply && typeof reply.time_ms === 'number') adjustClock(reply.time_ms);
  return reply;
};

// Asks for an action. The header is what a form of another site cannot send.
export const act = async (path, body = {}) => {
  const headers = { 'Content-Type': 'application/json', 'X-Roadshow-Action': '1' };
  const response = await request(path, { method: 'POST', headers, body: JSON.stringify(body) });
  const text = await response.text();
  return text ? JSON.parse(text) : {};
};

export const checkSession = async () => {
  const reply = await load('/api/v0/session');
  session.set({ loggedIn: reply.logged_in === true });
  return reply.logged_in === true;
};

export const logIn = async (token) => {
  await act('/api/v0/login', { token });
  session.set({ loggedIn: true });
};

export const logOut = async () => {
  await act('/api/v0/logout');
  session.set({ loggedIn: false });
};
