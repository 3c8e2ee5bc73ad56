// Sluice killed, PostgreSQL stopped: connected stock clients receive again
// without a reload. Runs on a stack of its own.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { control, end, Inbox, pause, roomId, signedIn, sql, subscribed, versions } from './lib.mjs';

after(end);

let room;

async function listeners() {
  room ??= await roomId('Lobby');
  const list = [];
  for (const version of Object.keys(versions)) {
    for (const who of ['alice', 'bob']) {
      const c = await signedIn(version, who);
      const changes = new Inbox();
      const statuses = new Inbox();
      const channel = c.channel(randomUUID())
        .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages', filter: `room_id=eq.${room}` }, changes.push);
      await new Promise((resolve) => channel.subscribe((status, err) => {
        statuses.push({ status, message: err?.message });
        if (status === 'SUBSCRIBED') resolve();
      }));
      list.push({ name: `${who} with ${version}`, changes, statuses, channel });
    }
  }
  return list;
}

const insert = async (body) => sql(
  "insert into public.messages (room_id, user_id, body) select $1, id, $2 from public.profiles where name = 'Bob' returning id", room, body);

const received = (list, body, ms = 10_000) => Promise.all(list.map((l) => l.changes.find((c) => c.new.body === body, ms, `${body} for ${l.name}`)));

/** Waits until every client has been told SUBSCRIBED more often than before. */
const rejoined = (list, before) => Promise.all(list.map((l, i) => l.statuses.find(
  (s) => l.statuses.all.filter((x) => x.status === 'SUBSCRIBED').length > before[i] && s.status === 'SUBSCRIBED', 40_000, `SUBSCRIBED again for ${l.name}`)));

const joins = (list) => list.map((l) => l.statuses.all.filter((x) => x.status === 'SUBSCRIBED').length);

test('kill -9 between inserts, three times', { timeout: 240_000 }, async () => {
  const list = await listeners();
  await insert('before the first kill');
  await received(list, 'before the first kill');
  for (let round = 1; round <= 3; round++) {
    const before = joins(list);
    await control('/kill');
    await control('/start');
    await rejoined(list, before);
    for (let n = 0; n < 5; n++) {
      await insert(`round ${round}, row ${n}`);
    }
    for (let n = 0; n < 5; n++) await received(list, `round ${round}, row ${n}`);
    for (const l of list) {
      const ours = l.changes.all.map((c) => c.new.body).filter((b) => b.startsWith(`round ${round},`));
      assert.deepEqual(ours, [0, 1, 2, 3, 4].map((n) => `round ${round}, row ${n}`), `${l.name}: each row once and in order`);
    }
    const slots = await sql('select slot_name, active, temporary from pg_replication_slots');
    assert.equal(slots.length, 1, `slots after kill ${round}: ${JSON.stringify(slots)}`);
    assert.equal(slots[0].active, true);
  }
  await end();
});

test('PostgreSQL stopped and started under connected clients', { timeout: 240_000 }, async () => {
  const list = await listeners();
  await insert('before the stop');
  await received(list, 'before the stop');
  await control('/postgres/stop');
  await pause(3_000); // long enough for clients and server to notice
  await control('/postgres/start');
  const until = Date.now() + 60_000;
  for (let n = 0; ; n++) {
    const body = `after the start, row ${n}`;
    await insert(body);
    const got = await Promise.all(list.map((l) => l.changes.find((c) => c.new.body === body, 2_000).then(() => true, () => false)));
    if (got.every(Boolean)) break;
    assert.ok(Date.now() < until, `a minute after PostgreSQL came back: ${list.map((l, i) => `${l.name} ${got[i] ? 'receives' : `does not (${JSON.stringify(l.statuses.all)})`}`).join('; ')}`);
  }
  const slots = await sql('select slot_name, active from pg_replication_slots');
  assert.deepEqual(slots.map((s) => s.active), [true], JSON.stringify(slots));
  await end();
});
