// The current client asks a read again that was answered 503, when the answer
// says so. Runs on a stack of its own, whose PostgreSQL is stopped.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { client, control, end, env } from './lib.mjs';

after(end);

// spec: rest:JS-02
test('a read that was answered 503 is asked again after Retry-After', { timeout: 240_000 }, async () => {
  let seen;
  const c = client('current', env.publishable, {
    global: {
      fetch: async (url, options) => {
        const asked = new Headers(options.headers).get('x-retry-count');
        const res = await fetch(url, options);
        seen.push({ asked, status: res.status, after: res.headers.get('retry-after'), at: performance.now() });
        // The next answer is to be a good one, however long it takes to start.
        if (res.status === 503) await control('/postgres/start');
        return res;
      },
    },
  });
  seen = [];
  assert.equal((await c.from('items').select('id').limit(1)).status, 200);
  // Sluice starts its PostgreSQL again: a stop that it mended before the request
  // came is no test.
  for (let n = 0; n < 10; n++) {
    await control('/postgres/stop');
    seen = [];
    const { error, status } = await c.from('items').select('id').limit(1);
    if (seen[0].status === 200) continue;
    assert.equal(seen[0].status, 503, JSON.stringify(seen));
    assert.equal(seen[0].after, '1');
    assert.deepEqual([error, status], [null, 200], JSON.stringify(seen));
    assert.equal(seen[1].asked, '1');
    assert.ok(seen[1].at - seen[0].at >= 1000, `asked again after ${seen[1].at - seen[0].at} ms`);
    return;
  }
  assert.fail('PostgreSQL was never found stopped');
});
