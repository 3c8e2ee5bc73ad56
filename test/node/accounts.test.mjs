// What people do with their accounts, by the stock client: on a project in which
// addresses must be confirmed. The provider is the suite's own (internal/oidctest);
// it signs in whom login_hint names.

import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import http from 'node:http';
import { after, test } from 'node:test';
import { createServerClient } from '@supabase/ssr';
import { client, end, env, Inbox, ok, mailTo, PASSWORD, sql, subscribed, versions } from './lib.mjs';

after(end);

/** Where a browser lands that follows redirects from address to address, up to our site. */
async function browse(address) {
  const site = (await settings()).site;
  for (let n = 0; n < 5; n++) {
    const r = await fetch(address, { redirect: 'manual' });
    assert.ok([302, 303].includes(r.status), `${address}: ${r.status} ${await r.text()}`);
    address = new URL(r.headers.get('location'), address);
    if (address.origin === site) return address;
  }
  throw new Error(`no end at ${address}`);
}
const settings = async () => ({ site: new URL(env.chat).origin });

/** A person with a confirmed address. */
async function person(version, flowType = 'implicit') {
  const c = client(version, env.publishable, { auth: { flowType } });
  const email = `${randomUUID()}@example.com`;
  const { user, session } = ok(await c.auth.signUp({ email, password: PASSWORD }));
  assert.equal(session, null);
  assert.equal((await c.auth.signInWithPassword({ email, password: PASSWORD })).error.code, 'email_not_confirmed');
  ok(await c.auth.verifyOtp({ email, token: (await mailTo(email)).code, type: 'email' }));
  return Object.assign(c, { email, id: user.id });
}

const provider = 'custom:local';

for (const version of Object.keys(versions)) {
  test(`${version}: sign in with a provider, PKCE and implicit`, async () => {
    const hint = randomUUID();
    const c = client(version, env.publishable, { auth: { flowType: 'pkce' } });
    const options = { skipBrowserRedirect: true, queryParams: { login_hint: hint } };
    const begun = ok(await c.auth.signInWithOAuth({ provider, options }));
    const at = await browse(begun.url);
    const { session, user } = ok(await c.auth.exchangeCodeForSession(at.searchParams.get('code')));
    assert.equal(user.email, `${hint}@example.org`);
    assert.equal(user.app_metadata.provider, provider);
    assert.match(session.provider_token, /^provider-/);
    assert.match(session.provider_refresh_token, /^refresh-provider-/);
    assert.equal(ok(await c.auth.getUser()).user.id, user.id);

    const implicit = client(version, env.publishable, { auth: { flowType: 'implicit' } });
    const hash = new URLSearchParams((await browse(ok(await implicit.auth.signInWithOAuth({ provider, options })).url)).hash.slice(1));
    ok(await implicit.auth.setSession({ access_token: hash.get('access_token'), refresh_token: hash.get('refresh_token') }));
    assert.equal(ok(await implicit.auth.getUser()).user.id, user.id);
    const off = await fetch(ok(await c.auth.signInWithOAuth({ provider: 'github', options })).url, { redirect: 'manual' });
    assert.deepEqual([off.status, (await off.json()).msg], [400, 'Unsupported provider: provider is not enabled']);
  });

  test(`${version}: link and unlink an identity`, async () => {
    const c = await person(version, 'pkce');
    const hint = randomUUID();
    const { url } = ok(await c.auth.linkIdentity({ provider, options: { queryParams: { login_hint: hint } } }));
    ok(await c.auth.exchangeCodeForSession((await browse(url)).searchParams.get('code')));
    const { identities } = ok(await c.auth.getUserIdentities());
    assert.deepEqual(identities.map((i) => i.provider).sort(), [provider, 'email']);
    ok(await c.auth.unlinkIdentity(identities.find((i) => i.provider === provider)));
    assert.deepEqual(ok(await c.auth.getUserIdentities()).identities.map((i) => i.provider), ['email']);
    const last = await c.auth.unlinkIdentity(ok(await c.auth.getUserIdentities()).identities[0]);
    assert.equal(last.error.code, 'single_identity_not_deletable');
  });

  test(`${version}: TOTP to aal2, and back`, async () => {
    const c = await person(version);
    const { id, totp } = ok(await c.auth.mfa.enroll({ factorType: 'totp', friendlyName: 'app' }));
    assert.match(totp.qr_code, /^data:image\/svg\+xml;utf-8,<svg/);
    const wrong = await c.auth.mfa.challengeAndVerify({ factorId: id, code: 'x' });
    assert.equal(wrong.error.code, 'mfa_verification_failed');
    ok(await c.auth.mfa.challengeAndVerify({ factorId: id, code: code(totp.secret) }));
    const level = ok(await c.auth.mfa.getAuthenticatorAssuranceLevel());
    assert.deepEqual([level.currentLevel, level.nextLevel], ['aal2', 'aal2']);
    const again = client(version);
    ok(await again.auth.signInWithPassword({ email: c.email, password: PASSWORD }));
    assert.deepEqual(ok(await again.auth.mfa.getAuthenticatorAssuranceLevel()).nextLevel, 'aal2');
    assert.equal((await again.auth.updateUser({ password: 'another password' })).error.code, 'insufficient_aal');
    ok(await c.auth.mfa.unenroll({ factorId: id }));
    ok(await c.auth.refreshSession());
    assert.equal(ok(await c.auth.mfa.getAuthenticatorAssuranceLevel()).currentLevel, 'aal1');
  });

  test(`${version}: a password change asks an old session for a code`, async () => {
    const c = await person(version);
    await sql("update auth.sessions set created_at = now() - interval '25 hours' where user_id = $1::uuid", c.id);
    assert.equal((await c.auth.updateUser({ password: 'a new password' })).error.code, 'reauthentication_needed');
    ok(await c.auth.reauthenticate());
    const { subject } = await mailTo(c.email);
    const nonce = subject.match(/\d{6}/)[0];
    assert.equal((await c.auth.updateUser({ password: 'a new password', nonce: '000000' })).error.code, 'reauthentication_not_valid');
    ok(await c.auth.updateUser({ password: 'a new password', nonce }));
    ok(await client(version).auth.signInWithPassword({ email: c.email, password: 'a new password' }));
  });

  test(`${version}: anonymous, then permanent`, async () => {
    const c = client(version);
    const { user } = ok(await c.auth.signInAnonymously());
    assert.equal(user.is_anonymous, true);
    const email = `${randomUUID()}@example.com`;
    ok(await c.auth.updateUser({ email }));
    const got = ok(await c.auth.verifyOtp({ email, token: (await mailTo(email)).code, type: 'email_change' }));
    assert.deepEqual([got.user.id, got.user.is_anonymous], [user.id, false]);
    ok(await c.auth.updateUser({ password: PASSWORD }));
    ok(await client(version).auth.signInWithPassword({ email, password: PASSWORD }));
  });

  test(`${version}: a phone of the tests`, { timeout: 60_000 }, async () => {
    const c = client(version);
    const phone = '15550009999';
    let sent = await c.auth.signInWithOtp({ phone });
    while (sent.error?.code === 'over_sms_send_rate_limit') { // the other client was here less than 5 s ago
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      sent = await c.auth.signInWithOtp({ phone });
    }
    assert.equal(ok(sent).messageId, 'test-otp');
    assert.equal((await c.auth.verifyOtp({ phone, token: '000000', type: 'sms' })).error.code, 'otp_expired');
    const { user } = ok(await c.auth.verifyOtp({ phone, token: '123456', type: 'sms' }));
    assert.equal(user.phone, phone);
  });

  test(`${version}: sign out everywhere, and here alone`, async () => {
    const a = await person(version);
    const [b, d] = [client(version), client(version)];
    for (const c of [b, d]) ok(await c.auth.signInWithPassword({ email: a.email, password: PASSWORD }));
    assert.equal((await b.auth.signOut({ scope: 'local' })).error, null);
    ok(await d.auth.getUser());
    assert.equal((await a.auth.signOut()).error, null);
    assert.equal((await d.auth.getUser()).error.name, 'AuthSessionMissingError');
    assert.equal((await d.auth.signOut()).error, null, 'signing out once more is no error');
  });

  // A signed-out user's socket goes on until its token expires: REST and Realtime do
  // not look at sessions (node/expiry.test.mjs is about the end of the token).
  // spec: auth:152 auth-sec:35
  test(`${version}: signing out closes no channel`, { timeout: 30_000 }, async () => {
    const a = await person(version);
    const heard = new Inbox();
    const { access_token } = ok(await a.auth.getSession()).session;
    // Its own client leaves its channels when it signs out; another device does not know.
    const device = client(version, env.publishable, { accessToken: async () => access_token });
    await device.realtime.setAuth();
    const topic = randomUUID();
    const channel = device.channel(topic).on('broadcast', { event: '*' }, (m) => heard.push(m.event));
    await subscribed(channel);
    const other = client(version).channel(topic);
    await subscribed(other);
    assert.equal((await a.auth.signOut({ scope: 'global' })).error, null);
    ok(await client(version, env.secret).auth.admin.updateUserById(a.id, { ban_duration: '1h' }));
    ok(await client(version, env.secret).auth.admin.deleteUser(a.id));
    await other.send({ type: 'broadcast', event: 'after', payload: {} });
    await heard.find((e) => e === 'after');
    assert.deepEqual(channel.statuses.map((s) => s.status), ['SUBSCRIBED']);
  });
}

/** The code that an authenticator app shows. */
function code(secret) {
  const bits = [...secret].map((c) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(c).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((b) => parseInt(b, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const mac = createHmac('sha1', key).update(step).digest();
  const at = mac[19] & 15;
  return String((mac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

/** A server as frameworks have one: a middleware that reads the session from cookies. */
async function middleware() {
  const server = http.createServer(async (req, res) => {
    const jar = (req.headers.cookie ?? '').split('; ').filter(Boolean).map((c) => {
      const [name, ...value] = c.split('=');
      return { name, value: value.join('=') };
    });
    const set = [];
    const c = createServerClient(env.url, env.publishable, { cookies: { getAll: () => jar, setAll: (all) => set.push(...all) } });
    const { data, error } = await c.auth.getUser();
    res.setHeader('Set-Cookie', set.map(({ name, value }) => `${name}=${value}; Path=/`));
    res.end(JSON.stringify({ user: data.user?.id, error: error?.code }));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

// spec: auth:150
test('@supabase/ssr: ten requests of one page with an expiring token keep the user signed in', { timeout: 60_000 }, async () => {
  const c = await person('current');
  const { session } = ok(await c.auth.getSession());
  const cookie = (s) => `sb-127-auth-token=base64-${Buffer.from(JSON.stringify(s)).toString('base64url')}`;
  const site = await middleware();
  try {
    const ask = async (jar) => {
      const r = await fetch(site.url, { headers: { cookie: jar } });
      return { ...(await r.json()), cookies: r.headers.getSetCookie().map((x) => x.split(';')[0]) };
    };
    let jar = cookie({ ...session, expires_at: Math.floor(Date.now() / 1000) + 5 });
    for (let round = 0; round < 3; round++) {
      const answers = await Promise.all(Array.from({ length: 10 }, () => ask(jar)));
      const tokens = new Set();
      for (const a of answers) {
        assert.deepEqual([a.user, a.error], [c.id, undefined]);
        const value = a.cookies.find((x) => x.startsWith('sb-127-auth-token=base64-'));
        assert.ok(value, `no new session in ${JSON.stringify(a.cookies)}`);
        tokens.add(JSON.parse(Buffer.from(value.split('base64-')[1], 'base64url')).refresh_token);
      }
      assert.equal(tokens.size, 1, 'all got the same refresh token');
      // Any of the answers is the browser's next cookie; here the last one, about to expire.
      const next = JSON.parse(Buffer.from(answers.at(-1).cookies[0].split('base64-')[1], 'base64url'));
      jar = cookie({ ...next, expires_at: Math.floor(Date.now() / 1000) + 5 });
    }
    assert.equal((await ask(jar)).user, c.id);
  } finally {
    site.close();
  }
});
