// Auth and REST as a stock client uses them, in both generations.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { client, end, env, inSeconds, jwt, PASSWORD, signedIn, stranger, versions } from './lib.mjs';

after(end);

const ok = ({ data, error }) => {
  assert.equal(error, null, `${error?.code}: ${error?.message}`);
  return data;
};

for (const version of Object.keys(versions)) {
  test(`${version}: sign up, sign in, user, refresh, sign out`, async () => {
    const c = await stranger(version);
    assert.equal(ok(await c.auth.getUser()).user.email, c.email);
    const changed = ok(await c.auth.updateUser({ data: { name: 'Mal' } }));
    assert.equal(changed.user.user_metadata.name, 'Mal');
    const before = ok(await c.auth.getSession()).session;
    const refreshed = ok(await c.auth.refreshSession()).session;
    assert.notEqual(refreshed.refresh_token, before.refresh_token);
    assert.equal(refreshed.user.id, c.user.id);
    ok(await c.auth.signOut());
    assert.equal(ok(await c.auth.getSession()).session, null);
    const gone = await client(version).auth.refreshSession({ refresh_token: refreshed.refresh_token });
    assert.ok(gone.error, 'a signed-out session cannot be refreshed');
    ok(await client(version).auth.signInWithPassword({ email: c.email, password: PASSWORD }));
  });

  test(`${version}: errors of Auth are errors with codes`, async () => {
    const c = client(version);
    const wrong = await c.auth.signInWithPassword({ email: 'alice@example.com', password: 'not it' });
    assert.equal(wrong.error.code, 'invalid_credentials');
    assert.equal(wrong.error.status, 400);
    const twice = await c.auth.signUp({ email: 'alice@example.com', password: PASSWORD });
    assert.equal(twice.error?.code, 'user_already_exists');
    const weak = await c.auth.signUp({ email: `${randomUUID()}@example.com`, password: '123' });
    assert.equal(weak.error?.code, 'weak_password');
  });

  test(`${version}: admin creates, lists and deletes users`, async () => {
    const admin = client(version, env.secret);
    const email = `${randomUUID()}@example.com`;
    const { user } = ok(await admin.auth.admin.createUser({ email, password: PASSWORD, email_confirm: true, user_metadata: { name: 'Made' } }));
    assert.ok(ok(await admin.auth.admin.listUsers({ perPage: 1000 })).users.some((u) => u.id === user.id));
    ok(await client(version).auth.signInWithPassword({ email, password: PASSWORD }));
    ok(await admin.auth.admin.deleteUser(user.id));
    assert.ok((await client(version).auth.signInWithPassword({ email, password: PASSWORD })).error);
    const notAdmin = await client(version).auth.admin.listUsers();
    assert.ok(notAdmin.error, 'the publishable key is no admin');
  });

  test(`${version}: insert, select with filters, count, update, delete, rpc`, async () => {
    const c = client(version);
    const tag = randomUUID().slice(0, 8);
    const made = ok(await c.from('items').insert([
      { name: `${tag} apple`, price: 1.5, tags: ['fruit'], data: { a: [1, null] } },
      { name: `${tag} pear`, price: 2.25 },
      { name: `${tag} Zucchini`, price: null },
    ]).select());
    assert.equal(made.length, 3);
    assert.deepEqual(made[0].data, { a: [1, null] });
    assert.equal(ok(await c.from('items').insert({ name: `${tag} plain` })), null);

    const of = () => c.from('items').select('id,name,price').like('name', `${tag}%`);
    assert.deepEqual(ok(await of().order('price', { ascending: false, nullsFirst: false }).limit(2)).map((x) => x.price), [2.25, 1.5]);
    assert.equal(ok(await of().gt('price', 1.5)).length, 1);
    assert.equal(ok(await of().in('name', [`${tag} apple`, `${tag} pear`])).length, 2);
    assert.equal(ok(await of().is('price', null)).length, 2);
    assert.equal(ok(await of().ilike('name', '%zucchini')).length, 1);
    assert.equal(ok(await of().neq('name', `${tag} apple`)).length, 3);
    const page = await c.from('items').select('*', { count: 'exact' }).like('name', `${tag}%`).order('id').range(1, 2);
    assert.equal(ok(page).length, 2);
    assert.equal(page.count, 4);
    const head = await c.from('items').select('*', { count: 'exact', head: true }).like('name', `${tag}%`);
    assert.equal(head.count, 4);

    const one = ok(await c.from('items').update({ price: 9 }).eq('name', `${tag} pear`).select().single());
    assert.equal(one.price, 9);
    const none = await c.from('items').select().eq('name', 'no such item').single();
    assert.equal(none.error.code, 'PGRST116');
    assert.equal(ok(await c.from('items').select().eq('name', 'no such item').maybeSingle()), null);
    ok(await c.from('items').delete().like('name', `${tag}%`));
    assert.equal(ok(await of()).length, 0);
    assert.equal(ok(await c.rpc('add_up', { a: 2, b: 40 })), 42);
  });

  test(`${version}: row level security decides what each user reads and writes`, async () => {
    const [alice, bob, anon] = [await signedIn(version, 'alice'), await signedIn(version, 'bob'), client(version)];
    const mine = ok(await alice.from('notes').insert({ body: 'mine' }).select().single());
    assert.equal(mine.owner, alice.user.id);
    assert.equal(ok(await bob.from('notes').select().eq('id', mine.id)).length, 0);
    assert.equal(ok(await bob.from('notes').update({ body: 'stolen' }).eq('id', mine.id).select()).length, 0);
    const forged = await bob.from('notes').insert({ body: 'x', owner: alice.user.id });
    assert.equal(forged.error.code, '42501');
    assert.equal(ok(await anon.from('messages').select()).length, 0);
    assert.equal(ok(await client(version, env.secret).from('notes').select().eq('id', mine.id)).length, 1);
    const column = await alice.from('messages').insert({ room_id: 1, body: 'x', user_id: alice.user.id });
    assert.equal(column.error.code, '42501', 'user_id is the database’s to fill');
  });

  test(`${version}: errors of REST carry PostgREST’s codes`, async () => {
    const c = client(version);
    assert.equal((await c.from('no_such_table').select()).error.code, 'PGRST205');
    assert.equal((await c.from('items').select('no_such_column')).error.code, '42703');
    assert.equal((await c.rpc('no_such_function', { a: 1 })).error.code, 'PGRST202');
    assert.equal((await c.from('ungranted').select()).error.code, '42501');
    const name = randomUUID();
    ok(await c.from('items').insert({ name }));
    assert.equal((await c.from('items').insert({ name })).error.code, '23505');
    assert.equal((await c.from('items').insert({ name: null })).error.code, '23502');
  });
}

test('a table made after the start is served', async () => {
  const { sql } = await import('./lib.mjs');
  await sql('create table public.later (id bigint primary key, note text)');
  await sql("insert into public.later values (1, 'made at run time')");
  const until = Date.now() + 5000;
  let res;
  do {
    res = await client().from('later').select();
  } while (res.error && Date.now() < until);
  assert.deepEqual(ok(res), [{ id: 1, note: 'made at run time' }]);
});

test('bad user tokens are refused with a code, never served as the key', async () => {
  const claims = { sub: randomUUID(), role: 'authenticated', aud: 'authenticated', exp: inSeconds(3600) };
  const bad = {
    malformed: 'not.a.jwt',
    expired: jwt({ ...claims, exp: inSeconds(-60) }), // PostgREST forgives 30 s of clock skew
    'signed with another secret': jwt(claims, { secret: 'another-secret-with-at-least-32-characters' }),
    'alg none': jwt(claims, { header: { alg: 'none', typ: 'JWT' } }),
    'alg switched': jwt(claims, { header: { alg: 'RS256', typ: 'JWT' } }),
  };
  for (const [name, token] of Object.entries(bad)) {
    for (const path of ['/rest/v1/items?select=id&limit=1', '/auth/v1/user']) {
      const res = await fetch(env.url + path, { headers: { apikey: env.publishable, Authorization: `Bearer ${token}`, Origin: 'http://localhost:3000' } });
      const body = await res.json();
      assert.ok([401, 403].includes(res.status), `${name} ${path}: ${res.status} ${JSON.stringify(body)}`);
      assert.ok(res.headers.get('x-sluice-code'), `${name} ${path}: X-Sluice-Code`);
      assert.ok(res.headers.get('x-sluice-refused-by'), `${name} ${path}: X-Sluice-Refused-By`);
      assert.equal(res.headers.get('access-control-allow-origin'), '*', `${name} ${path}: CORS on errors too`);
      if (path.startsWith('/rest')) assert.match(body.code, /^PGRST30[0-3]$/, `${name}: ${JSON.stringify(body)}`);
    }
  }
});

test('preflight and services that are not part of Sluice', async () => {
  const preflight = await fetch(`${env.url}/rest/v1/messages`, {
    method: 'OPTIONS',
    headers: { Origin: 'http://localhost:3000', 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'apikey,authorization,x-whatever' },
  });
  assert.equal(preflight.status, 200);
  assert.equal(preflight.headers.get('access-control-allow-origin'), '*');
  assert.equal(preflight.headers.get('access-control-allow-headers'), 'apikey,authorization,x-whatever');
  const graphql = await fetch(`${env.url}/graphql/v1`, {
    method: 'POST', headers: { apikey: env.publishable, 'content-type': 'application/json' }, body: '{"query":"{ a }"}',
  });
  assert.deepEqual([graphql.status, await graphql.json()], [200, { errors: [{ message: 'pg_graphql extension is not enabled.' }] }]);
  for (const path of ['/storage/v1/bucket', '/functions/v1/hello']) {
    const res = await fetch(env.url + path, { headers: { apikey: env.publishable } });
    assert.equal(res.status, 501, path);
    assert.equal(res.headers.get('x-sluice-code'), 'NotServed', path);
    await res.json();
  }
});

// spec: auth:151
test('current: claims of an ES256 token are verified by the client, those of an HS256 token by Auth', async () => {
  const asked = [];
  const c = client('current', env.publishable, {
    global: {
      fetch: (url, options) => {
        asked.push(new URL(url).pathname);
        return fetch(url, options);
      },
    },
  });
  const { session } = ok(await c.auth.signInWithPassword({ email: 'alice@example.com', password: PASSWORD }));
  asked.length = 0;
  const { claims, header } = ok(await c.auth.getClaims());
  assert.equal(header.alg, 'ES256');
  assert.equal(claims.sub, session.user.id);
  assert.deepEqual(asked, ['/auth/v1/.well-known/jwks.json']);
  asked.length = 0;
  const shared = jwt({ ...claims, exp: inSeconds(60) });
  assert.equal(ok(await c.auth.getClaims(shared)).claims.sub, session.user.id);
  assert.deepEqual(asked, ['/auth/v1/user']);
});
