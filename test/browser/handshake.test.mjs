// The seed's handshake from a real browser, with both generations of the client.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { env, PASSWORD, signedIn, sql, end, roomId } from '../node/lib.mjs';
import { launch, serve } from './lib.mjs';

let browser, site;
const bundles = {
  '2.75.0': 'file:test/node_modules/supabase-js-2.75.0/dist/umd/supabase.js',
  current: 'file:test/node_modules/@supabase/supabase-js/dist/umd/supabase.js',
};

before(async () => {
  browser = await launch();
  const files = {};
  for (const [version, bundle] of Object.entries(bundles)) {
    files[`/${version}.js`] = bundle;
    files[`/${version}`] = `<!doctype html><title>${version}</title><script src="/${version}.js"></script>`;
  }
  site = await serve(files);
});
after(async () => {
  await browser.close();
  site.close();
  await end();
});

for (const version of Object.keys(bundles)) {
  test(`${version} in Chromium joins with the publishable key and the anon JWT`, async () => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(`${site.url}/${version}`);
    for (const key of [env.publishable, env.anon]) {
      const statuses = await page.evaluate(async ([url, apikey]) => {
        const client = supabase.createClient(url, apikey);
        return new Promise((resolve) => {
          const seen = [];
          client.channel('hello').subscribe((status, err) => {
            seen.push(err ? `${status}: ${err.message}` : status);
            resolve(seen);
          });
        });
      }, [env.url, key]);
      assert.deepEqual(statuses, ['SUBSCRIBED']);
    }
    await page.context().close();
  });

  test(`${version} in Chromium: a wrong key is explained in the callback`, async () => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(`${site.url}/${version}`);
    const text = await page.evaluate((url) => new Promise((resolve) => {
      supabase.createClient(url, 'sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA').channel('hello')
        .subscribe((status, err) => { if (err) resolve(`${status}: ${err.message}`); });
    }), env.url);
    assert.match(text, /^CHANNEL_ERROR: .*InvalidAPIKey/);
    await page.context().close();
  });

  // The next trap of the seed: a page that subscribes in the tick in which it
  // makes the client joins without the session's token, as anon.
  test(`${version} in Chromium: subscribed at once after a reload, it receives`, async () => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(`${site.url}/${version}`);
    await page.evaluate(([url, key, password]) => supabase.createClient(url, key).auth.signInWithPassword({ email: 'alice@example.com', password }),
      [env.url, env.publishable, PASSWORD]);
    await page.reload();
    await page.evaluate(([url, key]) => {
      window.rows = [];
      window.system = [];
      window.statuses = [];
      supabase.createClient(url, key).channel('at-once')
        .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages' }, (c) => window.rows.push(c.new.body))
        .on('system', {}, (m) => window.system.push(m.message))
        .subscribe((status) => window.statuses.push(status));
    }, [env.url, env.publishable]);
    await page.waitForFunction(() => window.statuses.includes('SUBSCRIBED') && window.system.length > 0);
    const bob = await signedIn('current', 'bob');
    await bob.from('messages').insert({ room_id: await roomId('Lobby'), body: `to ${version}` });
    await page.waitForFunction((body) => window.rows.includes(body), `to ${version}`);
    const { rows, system } = await page.evaluate(() => ({ rows: window.rows, system: window.system }));
    assert.deepEqual(rows, [`to ${version}`]);
    assert.deepEqual(system, ['Subscribed to PostgreSQL']);
    await page.context().close();
  });
}

test('a page policy without the socket’s origin is what the seed fixed first', async () => {
  const blocked = await serve({
    '/': '<!doctype html><script src="/current.js"></script>',
    '/current.js': bundles.current,
  }, { headers: { 'content-security-policy': `connect-src 'self' ${env.url}` } });
  const page = await (await browser.newContext()).newPage();
  await page.goto(blocked.url);
  const seen = await page.evaluate(([url, key]) => new Promise((resolve) => {
    const out = {};
    const done = () => { if (out.status && out.violation) resolve(out); };
    document.addEventListener('securitypolicyviolation', (e) => { out.violation = e.effectiveDirective; done(); });
    supabase.createClient(url, key).channel('x').subscribe((status) => { out.status ??= status; done(); });
  }), [env.url, env.publishable]);
  assert.deepEqual(seen, { status: 'CHANNEL_ERROR', violation: 'connect-src' });
  await page.context().close();
  blocked.close();
  assert.equal((await sql('select 1 as one'))[0].one, 1); // the server had no part in it
});
