// Connections that are cut, and a server that is killed: connected stock clients
// miss no row. Runs on a stack of its own.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { client, control, end, Inbox, pause, proxy, roomId, signedIn, sql, versions } from './lib.mjs';

let wire;
let room;

after(async () => {
  await end();
  wire?.close();
});

/** One channel; listener.changes are the rows, listener.system what the server says. */
async function listen(c, topic, name) {
  room ??= await roomId('Lobby');
  const l = { name, changes: new Inbox(), system: new Inbox(), joins: 0 };
  const channel = c.channel(topic)
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages', filter: `room_id=eq.${room}` }, l.changes.push)
    .on('system', {}, l.system.push);
  await new Promise((resolve) => channel.subscribe((status) => {
    if (status !== 'SUBSCRIBED') return;
    l.joins++;
    resolve();
  }));
  return l;
}

async function listeners() {
  wire ??= await proxy();
  const list = [];
  for (const version of Object.keys(versions)) {
    for (const who of ['alice', 'bob']) {
      list.push(await listen(await signedIn(version, who, { url: wire.url }), randomUUID(), `${who} with ${version}`));
    }
  }
  return list;
}

const insert = (body) => sql(
  "insert into public.messages (room_id, user_id, body) select $1, id, $2 from public.profiles where name = 'Bob' returning id", room, body);

/** Every row of the round came, its first appearance in order, and nothing of it is said to be lost. */
async function complete(list, want) {
  for (const l of list) {
    await l.changes.find((c) => c.new.body === want.at(-1), 60_000, `${want.at(-1)} for ${l.name}`);
    const seen = [...new Set(l.changes.all.map((c) => c.new.body))].filter((b) => want.includes(b));
    assert.deepEqual(seen, want, l.name);
    assert.deepEqual(l.system.all.filter((m) => m.status === 'warning'), [], l.name);
  }
}

test('connections cut while rows are written', { timeout: 180_000 }, async () => {
  const list = await listeners();
  const want = [];
  for (let round = 0; round < 4; round++) {
    for (let n = 0; n < 25; n++) {
      if (n === 10) wire.cut();
      const body = `cut ${round}, row ${n}`;
      await insert(body);
      want.push(body);
    }
    await complete(list, want); // clients are back: they had the last row
    await pause(2500); // two pings: without a pong between two cuts the second repeats what the first did
  }
  for (const l of list) {
    assert.ok(l.joins >= 5, `${l.name} joined ${l.joins} times`);
    const resumed = () => l.system.all.filter((m) => /^Resumed from /.test(m.message)).length >= 4;
    await l.system.find(resumed, 10_000, `the fourth word of a resumption for ${l.name}`); // it follows the rows
    const repeats = l.changes.all.length - new Set(l.changes.all.map((c) => c.new.body)).size;
    // A cut repeats what no pong had confirmed: at the most this round and the one before.
    assert.ok(repeats <= 4 * 35, `${repeats} repeats for ${l.name}: more than the unconfirmed tails`);
  }
  await end();
});

test('a reload begins anew', { timeout: 60_000 }, async () => {
  wire ??= await proxy();
  for (const version of Object.keys(versions)) {
    const topic = randomUUID();
    const page = await signedIn(version, 'alice', { url: wire.url });
    const before = await listen(page, topic, 'the page');
    await insert(`before the reload ${version}`);
    await before.changes.find();
    const { data: { session } } = await page.auth.getSession();
    page.realtime.conn?.close?.();
    await end(); // without a leave that the server would have to see: the sockets close
    const again = client(version, undefined, { url: wire.url });
    await again.auth.setSession(session);
    await again.realtime.setAuth(session.access_token);
    await insert(`while it reloads ${version}`);
    const after = await listen(again, topic, 'the page after its reload');
    await insert(`after the reload ${version}`);
    await after.changes.find((c) => c.new.body === `after the reload ${version}`);
    assert.deepEqual(after.changes.all.map((c) => c.new.body), [`after the reload ${version}`]);
    assert.ok(after.system.all.every((m) => m.message === 'Subscribed to PostgreSQL'), JSON.stringify(after.system.all));
    await end();
  }
});

test('kill -9 right behind a row, rows before anybody is back', { timeout: 240_000 }, async () => {
  const list = await listeners();
  const want = [];
  const row = async (body) => { await insert(body); want.push(body); };
  await row('before the kills');
  await complete(list, want);
  for (let round = 0; round < 3; round++) {
    for (let n = 0; n < 5; n++) await row(`kill ${round}, row ${n}`);
    await control('/kill');
    await control('/start');
    for (let n = 5; n < 10; n++) await row(`kill ${round}, row ${n}`);
    await complete(list, want);
  }
  await end();
});

test('PostgreSQL stopped and started', { timeout: 240_000 }, async () => {
  const list = await listeners();
  const want = [];
  const row = async (body) => { await insert(body); want.push(body); };
  await row('before the stop');
  await complete(list, want);
  wire.cut(); // and nobody is there when it goes
  await row('behind the cut');
  const began = Date.now();
  await control('/postgres/stop');
  assert.ok(Date.now() - began < 20_000, `PostgreSQL took ${Date.now() - began} ms to stop: it waits for the stream`);
  await pause(500);
  await control('/postgres/start');
  for (let n = 0; n < 5; n++) await row(`after the start, row ${n}`);
  await complete(list, want);
  await end();
});
