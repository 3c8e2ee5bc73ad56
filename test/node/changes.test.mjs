// Postgres Changes under row level security, with stock clients.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import {
  client, end, env, Inbox, inSeconds, jwt, listen, logged, PASSWORD, pause, roomId, signedIn, sql, stranger, subscribed, versions,
} from './lib.mjs';

after(end);

let lobby, den;
before(async () => {
  lobby = await roomId('Lobby');
  den = await roomId('Den');
});

const ok = ({ data, error }) => {
  assert.equal(error, null, `${error?.code}: ${error?.message}`);
  return data;
};
const say = async (c, room_id, body) => ok(await c.from('messages').insert({ id: randomUUID(), room_id, body }).select().single());

for (const version of Object.keys(versions)) {
  test(`${version}: insert, update and delete by the other user arrive`, async () => {
    const [alice, bob] = [await signedIn(version, 'alice'), await signedIn(version, 'bob')];
    const { changes, system } = await listen(alice, 'messages', { filter: `room_id=eq.${lobby}` });
    await system.find((m) => m.status === 'ok' && m.message === 'Subscribed to PostgreSQL');
    const row = await say(bob, lobby, `hello ${version}`);
    const inserted = await changes.find((c) => c.eventType === 'INSERT' && c.new.id === row.id);
    assert.deepEqual(inserted.new, row, 'the change carries what select returns');
    assert.equal(inserted.schema, 'public');
    assert.equal(inserted.table, 'messages');
    assert.equal(inserted.errors, null);
    assert.ok(Math.abs(Date.parse(inserted.commit_timestamp) - Date.now()) < 60_000);

    ok(await bob.from('messages').update({ body: 'changed' }).eq('id', row.id));
    const updated = await changes.find((c) => c.eventType === 'UPDATE' && c.new.id === row.id);
    assert.equal(updated.new.body, 'changed');
    assert.ok(updated.new.edited_at);
    assert.equal(updated.old.id, row.id);

    ok(await bob.from('messages').delete().eq('id', row.id));
    const deleted = await changes.find((c) => c.eventType === 'DELETE' && c.old.id === row.id);
    assert.deepEqual(deleted.new, {});
  });

  test(`${version}: who may not read a row does not receive it`, async () => {
    const [alice, bob, mallory] = [await signedIn(version, 'alice'), await signedIn(version, 'bob'), await stranger(version)];
    const member = await listen(alice, 'messages');
    const outsider = await listen(mallory, 'messages');
    const secret = await say(bob, den, 'for the den only');
    const open = await say(bob, lobby, 'for everyone');
    await member.changes.find((c) => c.new.id === secret.id);
    await member.changes.find((c) => c.new.id === open.id);
    await outsider.changes.find((c) => c.new.id === open.id); // order within a table: the other would have come before
    assert.ok(!outsider.changes.all.some((c) => c.new?.id === secret.id), 'a stranger got a row of the den');
    ok(await bob.from('messages').delete().eq('id', secret.id));
    await member.changes.find((c) => c.eventType === 'DELETE' && c.old.id === secret.id);
    const later = await say(bob, lobby, 'and another');
    await outsider.changes.find((c) => c.new.id === later.id);
    assert.ok(!outsider.changes.all.some((c) => c.eventType === 'DELETE'), 'a stranger heard of a delete in the den');
  });

  test(`${version}: anon receives nothing and is told why`, async () => {
    const [anon, bob] = [client(version), await signedIn(version, 'bob')];
    const [changes, system, statuses] = [new Inbox(), new Inbox(), new Inbox()];
    anon.channel(randomUUID())
      .on('postgres_changes', { event: '*', schema: 'public', table: 'messages' }, changes.push)
      .on('system', {}, system.push)
      .subscribe((status, err) => statuses.push(err ? `${status}: ${err.message}` : status));
    await statuses.find((s) => s === 'SUBSCRIBED');
    // A join before the client has looked for a session is sent back once.
    for (const s of statuses.all.slice(0, -1)) assert.match(s, /^CHANNEL_ERROR: "?JoinedWithoutToken: /); // 2.75.0 shows it as JSON
    assert.ok(statuses.all.length <= 2, JSON.stringify(statuses.all));
    const why = await system.find((m) => m.status !== 'ok', 8_000, 'the reason');
    assert.match(why.message, /NoPolicyForRole/);
    await logged(/NoPolicyForRole.*messages|messages.*NoPolicyForRole/);
    const witness = await listen(await signedIn(version, 'alice'), 'messages');
    const row = await say(bob, lobby, 'not for anon');
    await witness.changes.find((c) => c.new.id === row.id);
    await pause(300);
    assert.equal(changes.all.length, 0);
  });

  test(`${version}: SUBSCRIBED means live: a row committed right after it arrives, 20 times`, async () => {
    const alice = await signedIn(version, 'alice');
    // 2.75.0 loses a subscribe() right after its last channel was removed: it is
    // closing the socket then and opens no other one.
    await subscribed(alice.channel(randomUUID()));
    for (let n = 0; n < 20; n++) {
      const { channel, changes } = await listen(alice, 'messages', { event: 'INSERT', filter: `room_id=eq.${lobby}` });
      const row = await say(alice, lobby, `at once ${n}`);
      await changes.find((c) => c.new.id === row.id, 5_000, `round ${n}`);
      await alice.removeChannel(channel);
    }
  });

  test(`${version}: several bindings and filters on one channel`, async () => {
    const c = client(version);
    const tag = randomUUID().slice(0, 8);
    const [cheap, named, all] = [new Inbox(), new Inbox(), new Inbox()];
    await subscribed(c.channel(tag)
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'items', filter: 'price=lt.5' }, cheap.push)
      .on('postgres_changes', { event: '*', schema: 'public', table: 'items', filter: `name=in.(${tag}-a,${tag}-b)` }, named.push)
      .on('postgres_changes', { event: '*', schema: 'public', table: 'items' }, all.push));
    ok(await c.from('items').insert([{ name: `${tag}-a`, price: 3 }, { name: `${tag}-b`, price: 30 }, { name: `${tag}-c`, price: 4 }]));
    ok(await c.from('items').update({ price: 31 }).eq('name', `${tag}-b`));
    await all.find((x) => x.eventType === 'UPDATE' && x.new.name === `${tag}-b`);
    const mine = (box) => box.all.filter((x) => x.new.name?.startsWith(tag)).map((x) => `${x.eventType} ${x.new.name.slice(9)}`);
    assert.deepEqual(mine(cheap), ['INSERT a', 'INSERT c']);
    assert.deepEqual(mine(named), ['INSERT a', 'INSERT b', 'UPDATE b']);
    assert.deepEqual(mine(all), ['INSERT a', 'INSERT b', 'INSERT c', 'UPDATE b']);
    const row = all.all.find((x) => x.new.name === `${tag}-a`).new;
    assert.equal(row.price, 3);
    assert.equal(row.data, null);
  });

  test(`${version}: setAuth after SUBSCRIBED changes what arrives; an sb_ token changes nothing`, async () => {
    const c = client(version);
    const alice = await signedIn(version, 'alice');
    await c.realtime.setAuth(env.publishable); // a client that knows that it has no session
    const { changes } = await listen(c, 'messages');
    await c.realtime.setAuth(alice.token);
    const until = Date.now() + 10_000;
    let got = false;
    while (!got && Date.now() < until) { // registered anew within a few seconds
      const row = await say(alice, lobby, 'after setAuth');
      got = await changes.find((x) => x.new.id === row.id, 1_000).then(() => true, () => false);
    }
    assert.ok(got, 'no row after setAuth');
    await c.realtime.setAuth(env.publishable);
    const row = await say(alice, lobby, 'after the key was pushed as a token');
    await changes.find((x) => x.new.id === row.id, 5_000, 'a row after access_token = sb_…');
  });
}

test('a policy that raises counts as no, for that row alone', async () => {
  const { changes } = await listen(client(), 'raising');
  await sql("insert into public.raising values (1, 'fine'), (2, 'boom'), (3, 'fine again')");
  await changes.find((c) => c.new.id === 3);
  assert.deepEqual(changes.all.map((c) => c.new.id), [1, 3]);
  await logged(/RlsPolicyError/);
});

test('a channel that can never receive anything is told so', async () => {
  const alice = await signedIn('current', 'alice');
  for (const [table, code] of [['unpublished', 'TableNotPublished'], ['locked', 'NoSelectPolicy'], ['ungranted', 'NoSelectGrant']]) {
    const { system } = await listen(alice, table);
    const why = await system.find((m) => m.status !== 'ok', 8_000, `the reason for ${table}`);
    if (code !== 'TableNotPublished') assert.match(why.message, new RegExp(code));
    else assert.match(why.message, /^Unable to subscribe to changes with given parameters|TableNotPublished/);
    await logged(new RegExp(`${code}.*${table}|${table}.*${code}`));
  }
});

test('the publication dropped and made again does not stop the stream', async () => {
  const { changes } = await listen(client(), 'items');
  await sql("insert into public.items (name) values ('before the drop')");
  await changes.find((c) => c.new.name === 'before the drop');
  const tables = await sql("select format('%I.%I', schemaname, tablename) as t from pg_publication_tables where pubname = 'supabase_realtime'");
  await sql('drop publication supabase_realtime');
  await sql("insert into public.items (name) values ('while it is gone')");
  await sql(`create publication supabase_realtime for table ${tables.map((t) => t.t).join(', ')}`);
  const again = await listen(client(), 'items');
  const until = Date.now() + 15_000;
  for (let n = 0; ; n++) {
    const name = `after the drop ${n}`;
    await sql('insert into public.items (name) values ($1)', name);
    const got = await Promise.all([changes, again.changes].map((i) => i.find((c) => c.new.name === name, 1_500).then(() => true, () => false)));
    if (got.every(Boolean)) break;
    assert.ok(Date.now() < until, `after the publication was made again only ${JSON.stringify(got)} receive`);
  }
});

test('20 users, four writers, 1,000 rows: each client gets what its select returns, in one order', { timeout: 180_000 }, async () => {
  const rooms = [];
  for (let n = 0; n < 10; n++) rooms.push(Number((await sql('insert into public.rooms (name) values ($1) returning id', `load ${randomUUID()}`))[0].id));
  const admin = client('current', env.secret);
  const clients = [];
  for (let n = 0; n < 20; n++) {
    const { user } = ok(await admin.auth.admin.createUser({ email: `${randomUUID()}@example.com`, password: PASSWORD, email_confirm: true }));
    for (const room of rooms) {
      if ((n * 7 + room * 3) % 10 < 4) await sql('insert into public.room_members (room_id, user_id) values ($1, $2)', room, user.id);
    }
    // a token of the project, as Auth would sign it
    const token = jwt({ sub: user.id, role: 'authenticated', aud: 'authenticated', exp: inSeconds(3600) });
    const version = Object.keys(versions)[n % 2];
    const c = client(version, env.publishable, { accessToken: async () => token });
    await c.realtime.setAuth(token);
    const changes = new Inbox();
    await subscribed(c.channel(`load-${n}`).on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages' }, (x) => {
      if (rooms.includes(x.new.room_id)) changes.push(x);
    }));
    clients.push({ c, changes, user, version });
  }
  const author = clients[0].user.id;
  await Promise.all([0, 1, 2, 3].map(async (writer) => {
    for (let n = 0; n < 250; n++) {
      await sql('insert into public.messages (room_id, user_id, body) values ($1, $2, $3)', rooms[(n * 3 + writer) % 10], author, `${writer}:${n}`);
    }
  }));
  const order = new Map(); // id → position in the first client that saw it, for a common order
  for (const { c, changes, user, version } of clients) {
    const want = [];
    for (let from = 0; ; from += 1000) {
      const page = ok(await c.from('messages').select('id,body,room_id').in('room_id', rooms).order('id').range(from, from + 999));
      want.push(...page);
      if (page.length < 1000) break;
    }
    if (want.length > 0) await changes.find(() => changes.all.length >= want.length, 60_000, `${want.length} rows for ${user.id} (${version}), got ${changes.all.length}`);
    const got = changes.all.map((x) => x.new);
    assert.equal(new Set(got.map((m) => m.id)).size, got.length, 'a row came twice');
    assert.deepEqual(got.map((m) => m.id).sort(), want.map((m) => m.id).sort(), 'rows received and rows selected');
    for (const writer of ['0', '1', '2', '3']) {
      const seen = got.filter((m) => m.body.startsWith(`${writer}:`)).map((m) => Number(m.body.split(':')[1]));
      assert.deepEqual(seen, [...seen].sort((a, b) => a - b), `rows of writer ${writer} in the order of commits`);
    }
    changes.all.forEach((x, i) => {
      const before = order.get(x.new.id) ?? new Set();
      for (const y of changes.all.slice(i + 1)) before.add(y.new.id);
      order.set(x.new.id, before);
    });
  }
  for (const [id, afterwards] of order) for (const other of afterwards) assert.ok(!order.get(other)?.has(id), 'two clients saw two rows in different orders');
});

test('a membership and its first message in one transaction: no miss', { timeout: 600_000 }, async () => {
  const rounds = Number(process.env.SLUICE_E2E_PAIRS ?? 500);
  const mallory = await stranger('current');
  await sql(`create or replace procedure public.e2e_pairs(who uuid, n int) language plpgsql as $$
    declare room bigint;
    begin
      for i in 1..n loop
        insert into public.rooms (name) values ('pair ' || gen_random_uuid()) returning id into room;
        insert into public.room_members (room_id, user_id) values (room, who);
        insert into public.messages (room_id, user_id, body) values (room, who, 'pair ' || i);
        commit;
      end loop;
    end; $$`);
  let count = 0;
  const done = new Inbox();
  await subscribed(mallory.channel('pairs').on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages' }, (x) => {
    if (!x.new.body.startsWith('pair ')) return;
    count++;
    if (x.new.body === `pair ${rounds}`) done.push(true);
  }));
  await sql(`call public.e2e_pairs('${mallory.user.id}', ${rounds})`);
  await done.find(() => true, 300_000, `the last of ${rounds} messages (${count} came)`);
  assert.equal(count, rounds);
});
