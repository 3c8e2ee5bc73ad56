// The page: who is signed in, which rooms there are, which one is open.
// room.js does what happens inside a room.

import { createBrowserClient } from './supabase.js';
import { Room } from './room.js';
import { $, avatar, el, notice, wireNotice, wireTheme } from './ui.js';

wireNotice();
wireTheme();

const config = await loadConfig();

// One browser holds one session in its cookies. ?session=NAME keeps another one
// beside it, so that two windows of one browser can be two people.
const extra = (new URLSearchParams(location.search).get('session') ?? '').replace(/[^a-z0-9]/gi, '').slice(0, 20);
const supabase = createBrowserClient(config.url, config.publishableKey,
  extra ? { cookieOptions: { name: `sb-chat-${extra}-auth-token` } } : {});

let me = null; // the signed-in user: id, email, name
let rooms = [];
let room = null; // the open Room

wireSignIn();
wireFrame();

// The callback runs inside the client's lock: it must not wait for the client.
supabase.auth.onAuthStateChange((event, session) => {
  const user = session?.user ?? null;
  if (user?.id === me?.id && event !== 'INITIAL_SESSION') return;
  setTimeout(() => (user ? enter(user) : leave()), 0);
});

async function loadConfig() {
  try {
    const res = await fetch('config.json');
    if (!res.ok) throw new Error(`status ${res.status}`);
    return await res.json();
  } catch (err) {
    notice(`The page could not read config.json: ${err.message}`);
    throw err;
  }
}

// ── signed out ──────────────────────────────────────────────────────────────

function leave() {
  room?.close();
  room = null;
  me = null;
  rooms = [];
  $('chat').hidden = true;
  $('signin').hidden = false;
  document.title = 'Sign in · Chat';
  if (config.demoUsers.length === 0) $('email').focus();
}

function wireSignIn() {
  let signUp = false;
  const mode = () => {
    $('name-row').hidden = !signUp;
    $('name').disabled = !signUp;
    $('password').autocomplete = signUp ? 'new-password' : 'current-password';
    $('signin-title').textContent = $('signin-submit').textContent = signUp ? 'Create an account' : 'Sign in';
    $('signin-mode').textContent = signUp ? 'Have an account? Sign in' : 'New here? Create an account';
    $('signin-error').hidden = true;
  };
  $('signin-mode').addEventListener('click', () => {
    signUp = !signUp;
    mode();
    (signUp ? $('name') : $('email')).focus();
  });

  $('signin-form').addEventListener('submit', (e) => {
    e.preventDefault();
    for (const field of e.target.elements) {
      if (!field.checkValidity()) {
        signInError(`${field.labels[0].firstChild.data.trim()}: ${field.validationMessage}`);
        field.focus();
        return;
      }
    }
    const email = $('email').value.trim();
    const password = $('password').value;
    signIn(() => (signUp
      ? supabase.auth.signUp({ email, password, options: { data: { name: $('name').value.trim() } } })
      : supabase.auth.signInWithPassword({ email, password })));
  });

  $('demo').hidden = config.demoUsers.length === 0;
  $('second').hidden = Boolean(extra);
  for (const user of config.demoUsers) {
    const button = el('button', { className: 'demo-user', type: 'button' },
      avatar(el('span', { className: 'avatar', ariaHidden: 'true' }), user.email, user.name), user.name);
    button.addEventListener('click', () =>
      signIn(() => supabase.auth.signInWithPassword({ email: user.email, password: user.password })));
    $('demo-users').append(button);
  }
}

async function signIn(attempt) {
  const buttons = [...$('signin').querySelectorAll('button')];
  $('signin-error').hidden = true;
  buttons.forEach((b) => { b.disabled = true; });
  try {
    const { data, error } = await attempt();
    if (error) signInError(error.message);
    else if (!data.session) signInError('Almost there: confirm your address with the link that was sent to you, then sign in.');
    else $('signin-form').reset();
  } catch (err) {
    signInError(err.message);
  } finally {
    buttons.forEach((b) => { b.disabled = false; });
  }
}

function signInError(text) {
  $('signin-error').textContent = text;
  $('signin-error').hidden = false;
}

// ── signed in ───────────────────────────────────────────────────────────────

async function enter(user) {
  if (me?.id === user.id) return;
  room?.close();
  room = null;
  me = { id: user.id, email: user.email ?? '', name: user.user_metadata?.name || (user.email ?? 'Guest').split('@')[0] };
  $('signin').hidden = true;
  $('chat').hidden = false;

  const [profile, list] = await Promise.all([
    supabase.from('profiles').select('id,name').eq('id', user.id),
    supabase.from('rooms').select('id,name,topic').order('id'),
  ]);
  if (me?.id !== user.id) return; // signed out meanwhile
  const error = profile.error ?? list.error;
  if (error) notice(`Your rooms could not be loaded: ${error.message}`);
  me.name = profile.data?.[0]?.name ?? me.name;
  rooms = list.data ?? [];
  $('me-name').textContent = me.name;
  $('me-email').textContent = me.email;
  avatar($('me-avatar'), me.id, me.name);
  $('rooms').replaceChildren(...rooms.map((r) =>
    el('li', {}, el('a', { href: `#room-${r.id}`, textContent: r.name }))));
  if (!error && rooms.length === 0) notice('You are not a member of any room yet.');
  openRoom();
}

/** Opens the room that the address names, else the first. */
function openRoom() {
  if (!me || rooms.length === 0) return;
  const wanted = rooms.find((r) => location.hash === `#room-${r.id}`) ?? rooms[0];
  if (room?.id === wanted.id) return;
  room?.close();
  room = new Room(supabase, wanted, me);
  document.title = `${wanted.name} · Chat`;
  for (const link of $('rooms').querySelectorAll('a')) {
    if (link.hash === `#room-${wanted.id}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  drawer(false);
}

function drawer(open) {
  $('chat').classList.toggle('open', open);
  $('menu').setAttribute('aria-expanded', String(open));
}

function wireFrame() {
  window.addEventListener('hashchange', openRoom);
  $('menu').addEventListener('click', () => {
    drawer(true);
    $('rooms').querySelector('a')?.focus();
  });
  $('scrim').addEventListener('click', () => drawer(false));
  $('rooms').addEventListener('click', () => drawer(false));
  document.addEventListener('keydown', (e) => {
    if (e.key !== 'Escape' || !$('chat').classList.contains('open')) return;
    drawer(false);
    $('menu').focus();
  });
  $('signout').addEventListener('click', async () => {
    // This window only; other devices of the user stay signed in.
    const { error } = await supabase.auth.signOut({ scope: 'local' });
    if (error) notice(`Signing out failed: ${error.message}`);
  });
}
