// Private channels, Broadcast from Database and replay with both generations of
// the client. The policies are in testdata/supabase.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { client, end, Inbox, pause, refused, signedIn, sql, subscribed, versions } from './lib.mjs';

after(end);

/** A member of a private channel: the channel and what it hears. */
async function member(version, who, topic, config = {}) {
  const c = await signedIn(version, who);
  const heard = new Inbox();
  const channel = c.channel(topic, { config: { private: true, ...config } }).on('broadcast', { event: '*' }, heard.push);
  await subscribed(channel);
  return { c, channel, heard };
}

for (const version of Object.keys(versions)) {
  test(`${version}: members of a private channel hear each other, nobody else does`, async () => {
    const topic = `team:${randomUUID()}`;
    const alice = await member(version, 'alice', topic);
    const bob = await member(version, 'bob', topic);
    const stranger = client(version).channel(topic).on('broadcast', { event: '*' }, () => assert.fail('a public channel of that name heard it'));
    await subscribed(stranger);
    await alice.channel.send({ type: 'broadcast', event: 'hi', payload: { n: 1 } });
    assert.deepEqual((await bob.heard.find()).payload, { n: 1 });
    await pause(200);
  });

  test(`${version}: who has no policy is refused, with the reason`, async () => {
    const { message } = await refused(client(version).channel(`team:${randomUUID()}`, { config: { private: true } }));
    assert.match(message, /Unauthorized: You do not have permissions to read from this Channel topic/);
    const elsewhere = (await signedIn(version, 'alice')).channel(`other:${randomUUID()}`, { config: { private: true } });
    assert.match((await refused(elsewhere)).message, /Unauthorized: /);
  });

  test(`${version}: who may only read is not heard`, async () => {
    const topic = `team:readonly:${randomUUID()}`;
    const alice = await member(version, 'alice', topic, { broadcast: { self: true } });
    const bob = await member(version, 'bob', topic);
    await alice.channel.send({ type: 'broadcast', event: 'hi', payload: {} });
    await sql("select realtime.send('{\"from\": \"sql\"}'::jsonb, 'row', $1, true)", topic);
    await bob.heard.find((m) => m.event === 'row');
    assert.deepEqual(bob.heard.all.map((m) => m.event), ['row']);
    assert.deepEqual(alice.heard.all.map((m) => m.event), ['row']);
  });

  test(`${version}: what the database sends arrives in order, with the row's id`, async () => {
    const topic = `team:${randomUUID()}`;
    const { heard } = await member(version, 'alice', topic);
    await sql("select realtime.send(jsonb_build_object('n', i), 'row', $1, true) from generate_series(1, 20) i", topic);
    await heard.find((m) => m.payload.n === 20);
    assert.deepEqual(heard.all.map((m) => m.payload.n), Array.from({ length: 20 }, (_, i) => i + 1));
    assert.match(heard.all[0].meta.id, /^[0-9a-f-]{36}$/);
  });

  test(`${version}: presence on a private channel`, async () => {
    const topic = `team:${randomUUID()}`;
    const c = await signedIn(version, 'alice');
    const states = new Inbox();
    const channel = c.channel(topic, { config: { private: true, presence: { key: 'alice' } } });
    channel.on('presence', { event: 'sync' }, () => states.push(structuredClone(channel.presenceState())));
    await subscribed(channel);
    assert.equal(await channel.track({ here: true }), 'ok');
    assert.equal((await states.find((s) => s.alice)).alice[0].here, true);
  });
}

test('current: a replay comes behind the join, each row once', async () => {
  const topic = `team:${randomUUID()}`;
  const witness = await member('current', 'bob', topic);
  await sql("select realtime.send(jsonb_build_object('n', i), 'row', $1, true) from generate_series(1, 5) i", topic);
  await witness.heard.find((m) => m.payload.n === 5); // they are history now
  const { heard } = await member('current', 'alice', topic, { broadcast: { replay: { since: Date.now() - 60_000, limit: 3 } } });
  await sql("select realtime.send(jsonb_build_object('n', 6), 'row', $1, true)", topic);
  await heard.find((m) => m.payload.n === 6);
  assert.deepEqual(heard.all.map((m) => [m.payload.n, m.meta.replayed ?? false]), [[3, true], [4, true], [5, true], [6, false]]);
});
