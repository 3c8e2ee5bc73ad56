// A token that expires on a joined channel, in both modes: TOKEN_EXPIRY says
// which one the server runs in.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { client, end, env, Inbox, inSeconds, jwt, pause, roomId, sql, versions } from './lib.mjs';

after(end);

const mode = process.env.TOKEN_EXPIRY ?? 'mute';
const alice = 'a11ce000-0000-4000-8000-000000000001';
const say = async (body) => sql(
  "insert into public.messages (room_id, user_id, body) select $1, id, $2 from public.profiles where name = 'Bob'", await roomId('Lobby'), body);

for (const version of Object.keys(versions)) {
  test(`${mode}: ${version}`, { timeout: 60_000 }, async () => {
    const sign = (s) => jwt({ sub: alice, role: 'authenticated', aud: 'authenticated', exp: inSeconds(s) });
    let token = sign(4);
    const c = client(version, env.publishable, { accessToken: async () => token });
    await c.realtime.setAuth();
    const [rows, system, statuses, heard] = [new Inbox(), new Inbox(), new Inbox(), new Inbox()];
    const topic = randomUUID();
    c.channel(topic)
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages' }, (x) => rows.push(x.new.body))
      .on('broadcast', { event: '*' }, (m) => heard.push(m.event))
      .on('system', {}, system.push)
      .subscribe((status) => statuses.push(status));
    await statuses.find((s) => s === 'SUBSCRIBED');
    const other = client(version).channel(topic);
    await new Promise((resolve) => other.subscribe((s) => s === 'SUBSCRIBED' && resolve()));
    const send = (event) => other.send({ type: 'broadcast', event, payload: {} });

    await say(`${topic} before`);
    await send('before');
    await rows.find((b) => b === `${topic} before`);
    await heard.find((e) => e === 'before');

    const told = await system.find((m) => m.status === 'error', 10_000, 'the system message');
    assert.match(told.message, /Token has expired \d+ seconds ago/);
    await say(`${topic} while expired`);
    await send('while expired');
    if (mode === 'close') {
      await statuses.find((s) => s === 'CLOSED');
      await pause(500);
      assert.deepEqual(heard.all, ['before']);
      assert.deepEqual(rows.all, [`${topic} before`]);
      return;
    }
    await pause(500);
    assert.deepEqual(statuses.all, ['SUBSCRIBED']);
    token = sign(600);
    await c.realtime.setAuth();
    await system.find((m) => m.status === 'ok' && /Token was refreshed/.test(m.message), 10_000, 'the end of the silence');
    await say(`${topic} after`);
    await send('after');
    await rows.find((b) => b === `${topic} after`);
    await heard.find((e) => e === 'after');
    assert.deepEqual(heard.all, ['before', 'after']);
    // Rows are sent late, each once; broadcasts are gone.
    assert.deepEqual(rows.all, [`${topic} before`, `${topic} while expired`, `${topic} after`]);
  });
}
