// What people do with their accounts in a browser: @supabase/ssr's browser client
// (PKCE, the session in cookies), links opened from mails, a provider's redirects.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { end, env, mailTo, PASSWORD } from '../node/lib.mjs';
import { launch, serve } from './lib.mjs';

let browser, site;

const page = `<!doctype html><meta charset="utf-8"><title>accounts</title><script type="module">
  import { createBrowserClient } from '/supabase.js';
  window.events = [];
  window.client = createBrowserClient(${JSON.stringify(env.url)}, ${JSON.stringify(env.publishable)});
  window.client.auth.onAuthStateChange((event, session) => window.events.push([event, session?.user?.email]));
</script>`;

before(async () => {
  browser = await launch();
  site = await serve({ '/': page, '/cb': page, '/supabase.js': 'file:examples/chat/web/supabase.js' });
});
after(async () => {
  await browser.close();
  site.close();
  await end();
});

/** A person's browser at the application. */
async function visit() {
  const context = await browser.newContext();
  const p = await context.newPage();
  await p.goto(site.url);
  await p.waitForFunction(() => window.events?.length > 0);
  return p;
}

/** Runs a call of the client in the page: its data, or a failure. */
async function auth(p, method, ...args) {
  const { data, error } = await p.evaluate(async ([m, a]) => {
    const { data, error } = await window.client.auth[m](...a);
    return { data, error: error && { code: error.code, message: error.message } };
  }, [method, args]);
  assert.equal(error, null, `${method}: ${JSON.stringify(error)}`);
  return data;
}

/** Waits until the page has seen an event, and returns who is signed in then. */
async function seen(p, event) {
  await p.waitForFunction((e) => window.events?.some(([name]) => name === e), event, { timeout: 15_000 }).catch(async () => {
    assert.fail(`no ${event} at ${p.url()}: ${JSON.stringify(await p.evaluate(() => window.events))}`);
  });
  return (await auth(p, 'getUser')).user;
}

/** A person who has signed up and opened the link of the mail. */
async function signedUp() {
  const p = await visit();
  const email = `${randomUUID()}@example.com`;
  const { session, user } = await auth(p, 'signUp', { email, password: PASSWORD, options: { emailRedirectTo: `${site.url}/cb` } });
  assert.equal(session, null);
  await p.goto((await mailTo(email)).link);
  assert.equal((await seen(p, 'SIGNED_IN')).id, user.id);
  assert.ok(p.url().startsWith(`${site.url}/cb`), p.url());
  return { p, email, id: user.id };
}

test('a sign-up is confirmed by the link of its mail', { timeout: 60_000 }, async () => {
  const { p } = await signedUp();
  assert.match(await p.evaluate(() => document.cookie), /sb-127-auth-token.*=base64-/);
  await p.reload();
  assert.ok(await seen(p, 'INITIAL_SESSION'), 'the session is there after a reload');
  await p.context().close();
});

test('a magic link signs in, once', { timeout: 60_000 }, async () => {
  const { p: first, email, id } = await signedUp();
  await first.context().close();
  const p = await visit();
  await auth(p, 'signInWithOtp', { email, options: { emailRedirectTo: `${site.url}/cb` } });
  const { link } = await mailTo(email);
  await p.goto(link);
  assert.equal((await seen(p, 'SIGNED_IN')).id, id);
  const q = await visit();
  await q.goto(link);
  assert.match(q.url(), /error_code=otp_expired/);
  await p.context().close();
  await q.context().close();
});

test('a forgotten password is set anew', { timeout: 60_000 }, async () => {
  const { p: first, email } = await signedUp();
  await first.context().close();
  const p = await visit();
  await auth(p, 'resetPasswordForEmail', email, { redirectTo: `${site.url}/cb` });
  await p.goto((await mailTo(email)).link);
  await seen(p, 'PASSWORD_RECOVERY');
  await auth(p, 'updateUser', { password: 'quite another one' });
  await auth(p, 'signOut');
  await auth(p, 'signInWithPassword', { email, password: 'quite another one' });
  await p.context().close();
});

test('a provider signs in, and comes back to the same user', { timeout: 60_000 }, async () => {
  const hint = randomUUID();
  const ids = [];
  for (let n = 0; n < 2; n++) {
    const p = await visit();
    await p.evaluate(([hint, back]) => window.client.auth.signInWithOAuth({
      provider: 'custom:local', options: { redirectTo: back, queryParams: { login_hint: hint } },
    }), [hint, `${site.url}/cb`]);
    await p.waitForURL(/\/cb/);
    const user = await seen(p, 'SIGNED_IN');
    assert.equal(user.email, `${hint}@example.org`);
    ids.push(user.id);
    await p.context().close();
  }
  assert.equal(ids[0], ids[1]);
});

test('an anonymous visitor becomes a person', { timeout: 60_000 }, async () => {
  const p = await visit();
  const { user } = await auth(p, 'signInAnonymously');
  const email = `${randomUUID()}@example.com`;
  await auth(p, 'updateUser', { email }, { emailRedirectTo: `${site.url}/cb` });
  await p.goto((await mailTo(email)).link);
  const after = await seen(p, 'SIGNED_IN');
  assert.deepEqual([after.id, after.is_anonymous, after.email], [user.id, false, email]);
  await p.context().close();
});
