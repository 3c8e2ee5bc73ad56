// The npm package phoenix itself as a client: Realtime speaks Phoenix channels,
// so that channel life, replies and presence have to hold for it too.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { Presence, Socket } from 'phoenix';
import { client, env, Inbox, subscribed, end } from './lib.mjs';

const sockets = [];
after(async () => {
  for (const s of sockets) await new Promise((resolve) => s.disconnect(resolve));
  await end();
});

function open(vsn, apikey = env.publishable) {
  const s = new Socket(`${env.url.replace('http', 'ws')}/realtime/v1`, {
    params: { apikey }, vsn, transport: globalThis.WebSocket, longPollFallbackMs: undefined, heartbeatIntervalMs: 1000,
  });
  s.connect();
  sockets.push(s);
  return s;
}

/** A push's answer: [status, response]. */
const answer = (push) => new Promise((resolve) => {
  for (const status of ['ok', 'error', 'timeout']) push.receive(status, (response) => resolve([status, response]));
});

const config = (more = {}) => ({ config: { broadcast: { self: true, ack: true }, ...more } });

// phoenix sends 2.0.0 as arrays; its broadcasts are text frames.
test('phoenix: join, push, reply, broadcast, leave, join again', async () => {
  const s = open('2.0.0');
  const topic = `realtime:${randomUUID()}`;
  const channel = s.channel(topic, config());
  const box = new Inbox();
  channel.on('broadcast', box.push);
  assert.deepEqual(await answer(channel.join()), ['ok', { postgres_changes: [] }]);
  assert.equal(channel.state, 'joined');

  const payload = { type: 'broadcast', event: 'hi', payload: { n: 1 } };
  assert.deepEqual(await answer(channel.push('broadcast', payload)), ['ok', {}]);
  assert.deepEqual(await box.find(), payload, 'self, unchanged');

  // A stock client on the same topic hears it, and is heard.
  const stock = client('current').channel(topic.slice('realtime:'.length));
  const heard = new Inbox();
  stock.on('broadcast', { event: '*' }, heard.push);
  await subscribed(stock);
  channel.push('broadcast', { ...payload, payload: { n: 2 } });
  assert.deepEqual((await heard.find()).payload, { n: 2 });

  const closed = new Promise((resolve) => channel.onClose(resolve));
  assert.deepEqual(await answer(channel.leave()), ['ok', {}]);
  await closed;
  const again = s.channel(topic, config());
  assert.equal((await answer(again.join()))[0], 'ok');
});

test('phoenix: two joins of one topic on one socket: the first is closed, the second lives', async () => {
  const s = open('2.0.0');
  const topic = `realtime:${randomUUID()}`;
  const first = s.channel(topic, config());
  const closed = new Promise((resolve) => first.onClose(resolve));
  assert.equal((await answer(first.join()))[0], 'ok');
  const second = s.channel(topic, config());
  assert.equal((await answer(second.join()))[0], 'ok');
  await closed;
  assert.deepEqual(await answer(second.push('broadcast', { event: 'x', payload: {} })), ['ok', {}]);
});

test('phoenix: a refused join says why and is tried again', async () => {
  const s = open('2.0.0', 'sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA');
  const channel = s.channel(`realtime:${randomUUID()}`, config());
  const [status, response] = await answer(channel.join());
  assert.equal(status, 'error');
  assert.match(response.reason, /^InvalidAPIKey: /);
  assert.equal(channel.state, 'errored');
});

test('phoenix: heartbeats are answered', async () => {
  const s = open('2.0.0');
  const rtt = await new Promise((resolve) => s.onOpen(() => s.ping(resolve)));
  assert.ok(rtt >= 0);
});

test('phoenix: Presence syncs state and diffs', async () => {
  const topic = `realtime:${randomUUID()}`;
  const member = async (key) => {
    const channel = open('2.0.0').channel(topic, config({ presence: { key, enabled: true } }));
    const presence = new Presence(channel);
    const seen = new Inbox();
    presence.onSync(() => seen.push(presence.list((k, { metas }) => `${k} ${metas.map((m) => m.name).join('+')}`).sort()));
    assert.equal((await answer(channel.join()))[0], 'ok');
    const [status] = await answer(channel.push('presence', { type: 'presence', event: 'track', payload: { name: key } }));
    assert.equal(status, 'ok');
    return { channel, seen };
  };
  const ann = await member('ann');
  const ben = await member('ben');
  const both = (list) => list.join() === 'ann ann,ben ben';
  await ann.seen.find(both);
  await ben.seen.find(both);
  await answer(ben.channel.leave());
  const at = ann.seen.all.findIndex(both);
  await ann.seen.find((list) => list.join() === 'ann ann' && ann.seen.all.indexOf(list) > at, 8_000, 'the state without ben');
});
