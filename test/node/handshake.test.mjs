// The seed's failure: the socket's handshake with every kind of key.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { client, end, env, signedIn, subscribed, upgrade, versions } from './lib.mjs';

after(end);

const keys = { publishable: env.publishable, secret: env.secret, anon: env.anon, service_role: env.service };

test('101 for every key, version and place', async () => {
  for (const [name, key] of Object.entries(keys)) {
    for (const vsn of ['', '&vsn=1.0.0', '&vsn=2.0.0']) {
      const cases = {
        query: await upgrade(`apikey=${key}${vsn}`),
        'header apikey': await upgrade(vsn.slice(1), { apikey: key }),
        'header x-api-key': await upgrade(vsn.slice(1), { 'x-api-key': key }),
        both: await upgrade(`apikey=${key}${vsn}`, { apikey: key }),
        'query, with a user agent, an origin and large cookies': await upgrade(`apikey=${key}${vsn}`, {
          'User-Agent': 'Mozilla/5.0', Origin: 'http://localhost:3000', Cookie: `sb-127-auth-token=${'x'.repeat(7000)}`,
        }),
      };
      for (const [place, res] of Object.entries(cases)) {
        assert.equal(res.status, 101, `${name} ${vsn} ${place}: ${res.status} ${res.body}`);
      }
    }
  }
});

test('the seed’s request, byte for byte', async () => {
  const res = await upgrade('apikey=sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH&vsn=1.0.0');
  assert.equal(res.status, 101);
});

test('a key with blanks and percent-escapes around it is the same key', async () => {
  for (const key of [env.publishable, env.anon]) {
    for (const form of [`%20${key}`, `${key}%20`, `${key}%0A`, `${key}+`, key.replace(/_/g, '%5F').replace(/-/g, '%2D')]) {
      const res = await upgrade(`apikey=${form}&vsn=2.0.0`);
      assert.equal(res.status, 101, `${form}: ${res.status} ${res.body}`);
    }
  }
});

test('an unserved version is refused before anything else', async () => {
  for (const vsn of ['3.0.0', '2.0', '2.1.0', '1.1.0', 'garbage']) {
    const res = await upgrade(`apikey=${env.publishable}&vsn=${vsn}`);
    assert.equal(res.status, 403, `vsn=${vsn}: ${res.status}`);
  }
});

test('a plain GET of the socket’s address says what is wrong', async () => {
  const res = await upgrade(`apikey=${env.publishable}&vsn=2.0.0`, {}, { upgradeHeaders: false });
  assert.equal(res.status, 400);
  assert.equal(res.headers['x-sluice-code'], 'UpgradeRequired');
  assert.match(res.body, /[Uu]pgrade/);
});

for (const version of Object.keys(versions)) {
  test(`supabase-js ${version} joins with each key`, async () => {
    for (const [name, key] of Object.entries(keys)) {
      await subscribed(client(version, key).channel(`hello-${name}`));
    }
    const alice = await signedIn(version, 'alice');
    await subscribed(alice.channel('hello-alice'));
    await end();
  });
}
