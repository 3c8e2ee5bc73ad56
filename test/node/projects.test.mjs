// The three projects of testdata/projects, each by its own test; PROJECT names one.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { client, end, env } from './lib.mjs';

after(end);

const PASSWORD = 'a-password-of-the-test';

async function user(metadata = {}) {
  const supabase = client();
  const { data, error } = await supabase.auth.signUp({ email: `${randomUUID().slice(0, 8)}@example.com`, password: PASSWORD, options: { data: metadata } });
  assert.equal(error, null);
  return { supabase, id: data.user.id };
}

const ok = ({ data, error }) => {
  assert.equal(error, null);
  return data;
};

/** Joins a channel and returns what comes, one by one. */
async function listen(supabase, topic, bind, options) {
  const got = [];
  let wake = () => {};
  const channel = supabase.channel(topic, options);
  bind(channel, (m) => { got.push(m); wake(); });
  await supabase.realtime.setAuth();
  await new Promise((resolve, reject) => channel.subscribe((status, err) => {
    if (status === 'SUBSCRIBED') resolve();
    if (status === 'CHANNEL_ERROR') reject(err ?? new Error(status));
  }));
  return async () => {
    while (got.length === 0) await new Promise((resolve) => { wake = resolve; });
    return got.shift();
  };
}

const projects = {
  async todo() {
    const demo = client();
    ok(await demo.auth.signInWithPassword({ email: 'demo@example.com', password: 'demo-password' }));
    assert.equal(ok(await demo.from('todos').select()).length, 2, 'the seed is there');
    const { supabase, id } = await user();
    assert.deepEqual(ok(await supabase.from('todos').select()), [], 'and nobody else\'s');
    const next = await listen(supabase, 'todos', (c, on) => c.on('postgres_changes', { event: '*', schema: 'public', table: 'todos' }, on));
    const [todo] = ok(await supabase.from('todos').insert({ user_id: id, task: 'Buy some milk' }).select());
    assert.equal((await next()).new.task, 'Buy some milk');
    ok(await supabase.from('todos').update({ is_complete: true }).eq('id', todo.id));
    const change = await next();
    assert.equal(change.new.is_complete, true);
    assert.equal(change.old.is_complete, false, 'the whole old row: replica identity full');
    assert.deepEqual(ok(await supabase.rpc('todo_stats')), [{ total: 1, done: 1 }]);
    const stolen = await demo.from('todos').insert({ user_id: id, task: 'not mine' });
    assert.equal(stolen.error.code, '42501');
    const short = await supabase.from('todos').insert({ user_id: id, task: 'no' });
    assert.equal(short.error.code, '23514');
  },

  async chat() {
    const a = await user({ full_name: 'Ada', avatar_url: 'https://example.com/a.png' });
    const b = await user({ full_name: 'Bob' });
    assert.equal(ok(await a.supabase.from('profiles').select('full_name').eq('id', a.id).single()).full_name, 'Ada', 'the trigger made a profile');
    const { data: { session } } = await a.supabase.auth.getSession();
    const claims = JSON.parse(Buffer.from(session.access_token.split('.')[1], 'base64url'));
    assert.equal(claims.user_role, null, 'the hook adds a claim');

    const [channel] = ok(await a.supabase.from('channels').insert({ slug: 'general', created_by: a.id }).select());
    const changes = await listen(b.supabase, 'messages', (c, on) => c.on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages', filter: `channel_id=eq.${channel.id}` }, on));
    const broadcasts = await listen(b.supabase, `channel:${channel.id}`, (c, on) => c.on('broadcast', { event: 'INSERT' }, on), { config: { private: true } });
    ok(await a.supabase.from('messages').insert({ message: 'hi', user_id: a.id, channel_id: channel.id }));
    assert.equal((await changes()).new.message, 'hi');
    assert.equal((await broadcasts()).payload.record.message, 'hi');
    const anonymous = client();
    assert.deepEqual(ok(await anonymous.from('messages').select()), [], 'nothing without a session');

    // A moderator may delete what others wrote, after the next token.
    const admin = client('current', env.secret);
    ok(await admin.from('user_roles').insert({ user_id: b.id, role: 'moderator' }));
    assert.deepEqual(ok(await b.supabase.from('messages').delete().eq('user_id', a.id).select()), []);
    ok(await b.supabase.auth.refreshSession());
    assert.equal(ok(await b.supabase.from('messages').delete().eq('user_id', a.id).select()).length, 1);
  },

  async squashed() {
    const { supabase, id } = await user();
    const other = await user();
    const doc = ok(await (async () => {
      const r = await fetch(`${env.url}/rest/v1/`, { headers: { apikey: env.secret } });
      return { data: await r.json(), error: r.ok ? null : r.status };
    })());
    const tables = Object.keys(doc.definitions).filter((t) => t !== 'open_tasks');
    assert.equal(tables.length, 60);
    const organization = randomUUID();
    ok(await supabase.from('organizations').insert({ id: organization, name: 'Acme Inc' }));
    ok(await supabase.from('memberships').insert({ organization_id: organization }));
    assert.equal(ok(await supabase.from('organizations').select('slug').single()).slug, 'acme-inc', 'a generated column');
    const next = await listen(supabase, 'tasks', (c, on) => c.on('postgres_changes', { event: '*', schema: 'public', table: 'tasks' }, on));
    for (const table of tables.filter((t) => !['organizations', 'memberships'].includes(t))) {
      const row = ok(await supabase.from(table).insert({ organization_id: organization, title: `one of ${table}` }).select().single());
      assert.equal(row.created_by, id, table);
      assert.deepEqual(ok(await other.supabase.from(table).select()), [], `${table} of others`);
      const refused = await other.supabase.from(table).insert({ organization_id: organization, title: 'x' });
      assert.equal(refused.error?.code, '42501', table);
    }
    assert.equal((await next()).new.title, 'one of tasks');
    const embedded = ok(await supabase.from('organizations').select('name, tasks(title), invoices(title, invoice_lines(title))').single());
    assert.equal(embedded.tasks[0].title, 'one of tasks');
    assert.deepEqual(ok(await supabase.from('open_tasks').select('organization')), [{ organization: 'Acme Inc' }]);
  },
};

const name = process.env.PROJECT;
test(name, { timeout: 120_000 }, projects[name]);
