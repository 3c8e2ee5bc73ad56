// Broadcast and Presence between stock clients of both generations.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { client, end, env, Inbox, pause, Socket, subscribed, versions } from './lib.mjs';

after(end);

const names = Object.keys(versions);

/** A subscribed channel with an inbox of broadcasts of event "hi". */
async function member(version, topic, config = {}) {
  const inbox = new Inbox();
  const channel = client(version).channel(topic, { config }).on('broadcast', { event: 'hi' }, inbox.push);
  await subscribed(channel);
  return { channel, inbox };
}

for (const from of names) {
  for (const to of names) {
    test(`broadcast from ${from} to ${to}`, async () => {
      const topic = randomUUID();
      const [a, b] = [await member(from, topic), await member(to, topic)];
      const payload = { text: 'grüße 👋', n: 1.5, nested: { list: [1, null, 'x'] } };
      assert.equal(await a.channel.send({ type: 'broadcast', event: 'hi', payload }), 'ok');
      assert.deepEqual((await b.inbox.find()).payload, payload);
      assert.equal(a.inbox.all.length, 0, 'without self the sender hears nothing');
    });
  }
}

for (const version of names) {
  // spec: realtime:75
  test(`${version}: self and ack`, async () => {
    const { channel, inbox } = await member(version, randomUUID(), { broadcast: { self: true, ack: true } });
    assert.equal(await channel.send({ type: 'broadcast', event: 'hi', payload: { n: 1 } }), 'ok');
    assert.deepEqual((await inbox.find()).payload, { n: 1 });
  });

  test(`${version}: order is kept over 200 messages`, async () => {
    const topic = randomUUID();
    const [a, b] = [await member(version, topic), await member(version, topic)];
    for (let n = 0; n < 200; n++) a.channel.send({ type: 'broadcast', event: 'hi', payload: { n } });
    await b.inbox.find((m) => m.payload.n === 199, 15_000);
    assert.deepEqual(b.inbox.all.map((m) => m.payload.n), Array.from({ length: 200 }, (_, i) => i));
  });

  test(`${version}: sent over HTTP before the channel is joined`, async () => {
    const topic = randomUUID();
    const b = await member('current', topic);
    const a = client(version).channel(topic);
    assert.equal(await a.send({ type: 'broadcast', event: 'hi', payload: { over: 'http' } }), 'ok');
    assert.deepEqual((await b.inbox.find()).payload, { over: 'http' });
  });

  test(`${version}: presence of two, and one who leaves`, async () => {
    const topic = randomUUID();
    const join = async (key) => {
      const c = client(version);
      const syncs = new Inbox();
      const channel = c.channel(topic, { config: { presence: { key } } });
      channel.on('presence', { event: 'sync' }, () => syncs.push(structuredClone(channel.presenceState())))
        .on('presence', { event: 'leave' }, (e) => syncs.push({ left: e.key }));
      await subscribed(channel);
      assert.equal(await channel.track({ name: key }), 'ok');
      return { c, channel, syncs };
    };
    const a = await join('ann');
    const b = await join('ben');
    for (const who of [a, b]) {
      const state = await who.syncs.find((s) => s.ann && s.ben);
      assert.equal(state.ann[0].name, 'ann');
      assert.equal(state.ben[0].name, 'ben');
      assert.ok(state.ann[0].presence_ref);
    }
    await b.channel.untrack();
    await a.syncs.find((s) => s.left === 'ben');
    await b.channel.track({ name: 'ben again' });
    const again = await a.syncs.find((s) => s.ben?.[0].name === 'ben again');
    b.c.realtime.disconnect(); // the socket goes without a word
    await a.syncs.find((s) => s.ann && !s.ben && a.syncs.all.indexOf(s) > a.syncs.all.indexOf(again), 10_000, 'the state without ben');
  });
}

test('httpSend of the current client', async () => {
  const topic = randomUUID();
  const b = await member('current', topic);
  const a = client('current').channel(topic);
  const res = await a.httpSend('hi', { over: 'http' });
  assert.equal(res.success, true);
  assert.deepEqual((await b.inbox.find()).payload, { over: 'http' });
});

for (const vsn of ['1.0.0', '2.0.0']) {
  // spec: realtime:35 realtime:50 realtime:53
  test(`vsn ${vsn} on the wire: join, heartbeat, ack, leave`, async () => {
    const s = await Socket.open(`apikey=${env.publishable}`, { vsn });
    const topic = randomUUID();
    const joined = await s.join(topic, { config: { broadcast: { ack: true, self: true } } });
    assert.deepEqual({ status: joined.status, response: joined.response }, { status: 'ok', response: { postgres_changes: [] } });
    const beat = await s.call('phoenix', 'heartbeat', {});
    assert.equal(beat.status, 'ok');
    const sent = await s.call(`realtime:${topic}`, 'broadcast', { type: 'broadcast', event: 'hi', payload: { a: 1 } }, joined.ref);
    assert.deepEqual({ status: sent.status, response: sent.response }, { status: 'ok', response: {} });
    const copy = await s.inbox.find((m) => m.event === 'broadcast' || m.binary);
    if (!copy.binary) assert.deepEqual(copy.payload, { type: 'broadcast', event: 'hi', payload: { a: 1 } });
    const order = s.inbox.all;
    assert.ok(order.indexOf(copy) < order.findIndex((m) => m.event === 'phx_reply' && m.ref === sent.ref), 'the copy comes before the ack');
    const left = await s.call(`realtime:${topic}`, 'phx_leave', {}, joined.ref);
    assert.equal(left.status, 'ok');
    await s.inbox.find((m) => m.event === 'phx_close' && m.topic === `realtime:${topic}`);
    s.close();
  });
}

test('a client that left hears nothing more', async () => {
  const topic = randomUUID();
  const [a, b] = [await member('current', topic), await member('current', topic)];
  await b.channel.unsubscribe();
  const c = await member('2.75.0', topic);
  await a.channel.send({ type: 'broadcast', event: 'hi', payload: {} });
  await c.inbox.find();
  await pause(200);
  assert.equal(b.inbox.all.length, 0);
});
