// The seed's chat: @supabase/ssr's browser client, the session in cookies,
// a subscription in the tick after load, and an insert by the other user.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { end, env, PASSWORD, roomId, signedIn, stranger } from '../node/lib.mjs';
import { launch, serve, watch } from './lib.mjs';

const ROUNDS = Number(process.env.SLUICE_E2E_RELOADS ?? 10);
let browser, site, room, den;

const page = (config) => `<!doctype html><meta charset="utf-8"><title>ssr</title><script type="module">
  import { createBrowserClient } from '/supabase.js';
  const client = window.client = createBrowserClient(${JSON.stringify(config.url)}, ${JSON.stringify(config.key)});
  window.rows = []; window.system = []; window.statuses = [];
  client.channel('room')
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages' }, (c) => window.rows.push(c.new.body))
    .on('system', {}, (m) => window.system.push(m))
    .subscribe((status, err) => window.statuses.push(err ? status + ': ' + err.message : status));
</script>`;

before(async () => {
  browser = await launch();
  site = await serve({ '/': page({ url: env.url, key: env.publishable }), '/empty': '<!doctype html><title>-</title>', '/supabase.js': 'file:examples/chat/web/supabase.js' });
  room = await roomId('Lobby');
  den = await roomId('Den');
});
after(async () => {
  await browser.close();
  site.close();
  await end();
});

/** A page with a session of this user in its cookies, not yet loaded. */
async function cookies(email) {
  const context = await browser.newContext();
  const p = await context.newPage();
  const bad = watch(p, [new URL(site.url).host, new URL(env.url).host]);
  await p.goto(`${site.url}/empty`);
  if (email) {
    await p.evaluate(async ([url, key, mail, password]) => {
      const { createBrowserClient } = await import('/supabase.js');
      const { error } = await createBrowserClient(url, key).auth.signInWithPassword({ email: mail, password });
      if (error) throw error;
    }, [env.url, env.publishable, email, PASSWORD]);
    assert.match(await p.evaluate(() => document.cookie), /sb-127-auth-token.*=base64-/);
    assert.equal(await p.evaluate(() => localStorage.length), 0, 'the session is in cookies alone');
  }
  return { context, p, bad };
}

const subscribed = (p) => p.waitForFunction(() => window.statuses?.includes('SUBSCRIBED'), null, { timeout: 15_000 });

test(`${ROUNDS} reloads: the other user's insert is received each time`, { timeout: 180_000 }, async () => {
  const bob = await signedIn('current', 'bob');
  const { context, p, bad } = await cookies('alice@example.com');
  for (let n = 0; n < ROUNDS; n++) {
    await p.goto(`${site.url}/`);
    await subscribed(p);
    const body = randomUUID();
    const { error } = await bob.from('messages').insert({ room_id: room, body });
    assert.equal(error, null);
    await p.waitForFunction((b) => window.rows.includes(b), body, { timeout: 8_000 }).catch(async () => {
      assert.fail(`reload ${n}: not received; ${JSON.stringify(await p.evaluate(() => ({ rows: window.rows, system: window.system, statuses: window.statuses })))}`);
    });
    const statuses = await p.evaluate(() => window.statuses);
    for (const s of statuses.slice(0, -1)) assert.match(s, /^CHANNEL_ERROR: "?JoinedWithoutToken: /);
    assert.ok(statuses.length <= 2, JSON.stringify(statuses));
  }
  assert.deepEqual(bad, []);
  await context.close();
});

test('a user without the right receives nothing', async () => {
  const bob = await signedIn('current', 'bob');
  const mallory = await stranger('current');
  const { context, p } = await cookies(mallory.email);
  await p.goto(`${site.url}/`);
  await subscribed(p);
  const [secret, open] = [randomUUID(), randomUUID()];
  await bob.from('messages').insert({ room_id: den, body: secret });
  await bob.from('messages').insert({ room_id: room, body: open });
  await p.waitForFunction((b) => window.rows.includes(b), open);
  assert.ok(!(await p.evaluate(() => window.rows)).includes(secret));
  await context.close();
});

test('anon receives nothing and is told why', async () => {
  const bob = await signedIn('current', 'bob');
  const { context, p } = await cookies(null);
  await p.goto(`${site.url}/`);
  await subscribed(p);
  await p.waitForFunction(() => window.system.some((m) => m.status !== 'ok' && m.message.includes('NoPolicyForRole')));
  await bob.from('messages').insert({ room_id: room, body: randomUUID() });
  const alice = await cookies('alice@example.com');
  await alice.p.goto(`${site.url}/`);
  await subscribed(alice.p);
  const body = randomUUID();
  await bob.from('messages').insert({ room_id: room, body });
  await alice.p.waitForFunction((b) => window.rows.includes(b), body);
  assert.deepEqual(await p.evaluate(() => window.rows), []);
  await context.close();
  await alice.context.close();
});
