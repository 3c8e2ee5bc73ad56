// What the scripts share: the stack's addresses and keys (from the
// environment, see node_test.go), both generations of the stock client, a
// WebSocket that speaks frames, and the control server of the Go side.

import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import http from 'node:http';
import net from 'node:net';
import { WebSocket } from 'ws';
import * as current from '@supabase/supabase-js';
import * as old from 'supabase-js-2.75.0';

function need(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; these scripts are run by go test ./test`);
  return value;
}

export const env = {
  url: need('API_URL'),
  publishable: need('PUBLISHABLE_KEY'),
  secret: need('SECRET_KEY'),
  anon: need('ANON_KEY'),
  service: need('SERVICE_ROLE_KEY'),
  jwtSecret: need('JWT_SECRET'),
  control: need('CONTROL_URL'),
  chat: need('CHAT_URL'),
};

/** Both generations: the one of the seed's time (vsn 1.0.0) and the current one (2.0.0). */
export const versions = { '2.75.0': old.createClient, current: current.createClient };
export const PASSWORD = 'sluice-chat';

const opened = [];

/** A client without stored session; end() closes all of them. */
export function client(version = 'current', key = env.publishable, { url = env.url, ...options } = {}) {
  const c = versions[version](url, key, {
    ...options,
    auth: { persistSession: false, autoRefreshToken: false, ...options.auth },
    realtime: { transport: globalThis.WebSocket, ...options.realtime },
  });
  opened.push(c);
  return c;
}

export async function signedIn(version, who, options) {
  const c = client(version, env.publishable, options);
  const { data, error } = await c.auth.signInWithPassword({ email: `${who}@example.com`, password: PASSWORD });
  assert.equal(error, null, `sign in as ${who}: ${error?.message}`);
  return Object.assign(c, { user: data.user, token: data.session.access_token });
}

/** A fresh user, signed up; a member of the open rooms only. */
export async function stranger(version) {
  const c = client(version);
  const email = `${randomUUID()}@example.com`;
  const { data, error } = await c.auth.signUp({ email, password: PASSWORD, options: { data: { name: 'Mallory' } } });
  assert.equal(error, null, error?.message);
  assert.ok(data.session, 'sign-up without confirmation gives a session');
  return Object.assign(c, { user: data.user, token: data.session.access_token, email });
}

/** The data of an answer that must be no error. */
export function ok({ data, error }) {
  assert.equal(error, null, `${error?.code}: ${error?.message}`);
  return data;
}

/** The newest mail to an address: its digits and its link. */
export async function mailTo(address) {
  const box = need('MAILPIT_URL');
  const found = await (await fetch(`${box}/api/v1/search?query=${encodeURIComponent(`to:"${address}"`)}`)).json();
  assert.ok(found.messages.length > 0, `no mail to ${address}`);
  const m = await (await fetch(`${box}/api/v1/message/${found.messages[0].ID}`)).json();
  const link = m.HTML.match(/href="([^"]+)"/)?.[1].replaceAll('&amp;', '&');
  return { subject: m.Subject, code: m.Text.match(/enter the code: (\d+)/)?.[1], link, hash: link && new URL(link).searchParams.get('token') };
}

/** Closes every client's socket so that the script ends. */
export async function end() {
  for (const c of opened.splice(0)) {
    await c.removeAllChannels();
    c.realtime.disconnect();
    if (!c.accessToken) await c.auth.stopAutoRefresh(); // with that option there is no c.auth
  }
}

/** Resolves at SUBSCRIBED; fails with what the callback says. Later statuses go to statuses. */
export function subscribed(channel, ms = 10_000) {
  const statuses = (channel.statuses = []);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no status within ${ms} ms: ${JSON.stringify(statuses)}`)), ms);
    channel.subscribe((status, err) => {
      statuses.push({ status, message: err?.message, at: Date.now() });
      clearTimeout(timer);
      if (status === 'SUBSCRIBED') resolve(channel);
      else reject(new Error(`${status}: ${err?.message}`));
    });
  });
}

/** The first error that the subscribe callback gets, with its text. */
export function refused(channel, ms = 15_000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not refused within ${ms} ms`)), ms);
    channel.subscribe((status, err) => {
      if (status === 'SUBSCRIBED') {
        clearTimeout(timer);
        reject(new Error('SUBSCRIBED, expected a refusal'));
      } else if (err?.message) {
        clearTimeout(timer);
        resolve({ status, message: err.message });
      }
    });
  });
}

/** A list of what arrived, which can be waited for. */
export class Inbox {
  constructor() {
    this.all = [];
    this.waiting = new Set();
  }

  push = (x) => {
    this.all.push(x);
    for (const look of [...this.waiting]) look();
  };

  /** The first arrived element that fits, now or within ms. */
  find(fits = () => true, ms = 8_000, what = 'a message') {
    return new Promise((resolve, reject) => {
      const look = () => {
        const hit = this.all.find(fits);
        if (hit === undefined) return;
        clearTimeout(timer);
        this.waiting.delete(look);
        resolve(hit);
      };
      const timer = setTimeout(() => {
        this.waiting.delete(look);
        reject(new Error(`${what} did not arrive within ${ms} ms; got ${JSON.stringify(this.all).slice(0, 2000)}`));
      }, ms);
      this.waiting.add(look);
      look();
    });
  }
}

/** Listens to a table's changes; the channel is subscribed when it returns. */
export async function listen(c, table, { event = '*', filter, topic = `t-${randomUUID()}` } = {}) {
  const changes = new Inbox();
  const system = new Inbox();
  const channel = c.channel(topic)
    .on('postgres_changes', { event, schema: 'public', table, ...(filter && { filter }) }, changes.push)
    .on('system', {}, system.push);
  await subscribed(channel);
  return { channel, changes, system };
}

// ── the wire ────────────────────────────────────────────────────────────────

/** The upgrade request by hand: { status, headers, body }, the socket is dropped. */
export function upgrade(query, headers = {}, { method = 'GET', upgradeHeaders = true } = {}) {
  const u = new URL('/realtime/v1/websocket', env.url);
  return new Promise((resolve, reject) => {
    const req = http.request({
      host: u.hostname, port: u.port, method, path: u.pathname + (query ? `?${query}` : ''),
      headers: {
        ...(upgradeHeaders && {
          Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
        }),
        ...headers,
      },
    });
    req.setTimeout(15_000, () => req.destroy(new Error('no answer')));
    req.on('upgrade', (res, socket) => {
      socket.destroy();
      resolve({ status: res.statusCode, headers: res.headers, body: '' });
    });
    req.on('response', (res) => {
      let body = '';
      res.setEncoding('utf8').on('data', (d) => { body += d; }).on('end', () => resolve({ status: res.statusCode, headers: res.headers, body }));
    });
    req.on('error', reject);
    req.end();
  });
}

/** A socket that sends and receives frames in either version of the protocol. */
export class Socket {
  static open(query, { headers, vsn = '2.0.0' } = {}) {
    const s = new Socket(vsn);
    const u = new URL('/realtime/v1/websocket', env.url.replace(/^http/, 'ws'));
    s.ws = new WebSocket(`${u}?${query}${query ? '&' : ''}vsn=${vsn}`, { headers });
    s.closed = new Promise((resolve) => s.ws.on('close', (code, reason) => resolve({ code, reason: reason.toString() })));
    s.ws.on('message', (data, binary) => s.inbox.push(binary ? { binary: data } : s.decode(data.toString())));
    return new Promise((resolve, reject) => {
      s.ws.on('open', () => resolve(s));
      s.ws.on('error', reject);
    });
  }

  constructor(vsn) {
    this.vsn = vsn;
    this.inbox = new Inbox();
    this.ref = 0;
  }

  decode(text) {
    if (this.vsn.startsWith('1')) return JSON.parse(text);
    const [join_ref, ref, topic, event, payload] = JSON.parse(text);
    return { join_ref, ref, topic, event, payload };
  }

  send(topic, event, payload, join_ref = null) {
    const ref = String(++this.ref);
    if (event === 'phx_join') join_ref = ref;
    this.ws.send(JSON.stringify(this.vsn.startsWith('1')
      ? { topic, event, payload, ref, join_ref }
      : [join_ref, ref, topic, event, payload]));
    return ref;
  }

  /** Sends and waits for the phx_reply. */
  async call(topic, event, payload, join_ref) {
    const ref = this.send(topic, event, payload, join_ref);
    const { payload: reply } = await this.inbox.find((m) => m.event === 'phx_reply' && m.ref === ref, 12_000, `reply to ${event}`);
    return { ref, ...reply };
  }

  join(topic, { config = {}, ...rest } = {}) {
    return this.call(`realtime:${topic}`, 'phx_join', {
      config: { broadcast: { ack: false, self: false }, presence: { key: '' }, postgres_changes: [], private: false, ...config }, ...rest,
    });
  }

  close() {
    this.ws.terminate();
  }
}

/** A TCP proxy before the stack, whose connections can be cut: { url, cut, close }. */
export function proxy() {
  const target = new URL(env.url);
  const sockets = new Set();
  const server = net.createServer((from) => {
    const to = net.connect(target.port, target.hostname);
    for (const [a, b] of [[from, to], [to, from]]) {
      sockets.add(a);
      a.on('error', () => {});
      a.on('close', () => { sockets.delete(a); b.destroy(); });
      a.pipe(b);
    }
  });
  const cut = () => { for (const s of sockets) s.destroy(); };
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve({
    url: `http://127.0.0.1:${server.address().port}`, cut, close: () => { cut(); server.close(); },
  })));
}

// ── tokens ──────────────────────────────────────────────────────────────────

const b64 = (x) => Buffer.from(typeof x === 'string' ? x : JSON.stringify(x)).toString('base64url');

/** A JWT signed with the project's secret, or with another one. */
export function jwt(claims, { secret = env.jwtSecret, header = { alg: 'HS256', typ: 'JWT' } } = {}) {
  const head = `${b64(header)}.${b64(claims)}`;
  return `${head}.${header.alg === 'none' ? '' : createHmac('sha256', secret).update(head).digest('base64url')}`;
}

export const inSeconds = (s) => Math.floor(Date.now() / 1000) + s;

// ── the control server (control_test.go) ────────────────────────────────────

export async function control(path, body) {
  const res = await fetch(env.control + path, { method: 'POST', body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await res.text();
  if (!res.ok) throw new Error(`control ${path}: ${text}`);
  return text ? JSON.parse(text) : undefined;
}

/** Runs SQL as role postgres; a list of objects. */
export const sql = (text, ...args) => control('/sql', { sql: text, args });

/** The server's log so far. */
export const log = () => control('/log');

/** Waits until the log has a line that fits. */
export async function logged(pattern, ms = 5_000) {
  const until = Date.now() + ms;
  for (;;) {
    const line = (await log()).split('\n').find((l) => pattern.test(l));
    if (line) return line;
    if (Date.now() > until) throw new Error(`no log line matches ${pattern}`);
    await new Promise((r) => setTimeout(r, 100));
  }
}

export const pause = (ms) => new Promise((r) => setTimeout(r, ms));

/** The id of a seeded room. */
export async function roomId(name) {
  const [row] = await sql('select id from public.rooms where name = $1', name);
  return Number(row.id);
}
