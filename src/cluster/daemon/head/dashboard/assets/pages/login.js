// Log-in by the cluster's token.
import { logIn } from '../api.js';
import { html, useEffect, useRef, useState } from '../html.js';
import { Command, Prose } from '../parts.js';

export const LogIn = () => {
  const field = useRef(null);
  const [state, setState] = useState({ isBusy: false, error: null });
  useEffect(() => {
    document.title = 'Log in - Roadshow';
    field.current.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const token = field.current.value.trim();
    if (!token) return setState({ isBusy: false, error: new Error('Paste the token first.') });
    setState({ isBusy: true, error: null });
    try {
      await logIn(token);
    } catch (error) {
      setState({ isBusy: false, error });
    }
  };
  return html`<main class="login"><div class="login-box">
    <p class="brand"><span class="mark" aria-hidden="true">R</span>Roadshow</p>
    <h1>Log in</h1>
    <p>Run this on a machine of the cluster. It prints a link that logs this browser in:</p>
    <p><${Command} text="roadshow dashboard" /></p>
    <p>Or paste the cluster's token. It is in the file <code>token</code> of the head's state directory.</p>
    <form onSubmit=${submit}>
      <label class="field">Token
        <input ref=${field} type="password" name="token" autocomplete="off" spellcheck=${false}
          aria-describedby="login-error" aria-invalid=${state.error ? 'true' : undefined} /></label>
      <button type="submit" class="primary" disabled=${state.isBusy}>${state.isBusy ? 'Working' : 'Log in'}</button>
      <p id="login-error" class="login-error" role="alert"><${Prose} text=${state.error?.message} /></p>
    </form></div></main>`;
};
