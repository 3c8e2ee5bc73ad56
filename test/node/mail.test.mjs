// The mails of Auth, read from the catcher as a project's own tests do.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { client, end, env, mailTo, ok, PASSWORD, stranger, versions } from './lib.mjs';

after(end);

/** Where a browser lands that follows the link. */
async function follow(link) {
  const r = await fetch(link, { redirect: 'manual' });
  assert.equal(r.status, 303);
  return new URL(r.headers.get('location'));
}

for (const version of Object.keys(versions)) {
  test(`${version}: sign in with the code of a mail`, async () => {
    const c = client(version);
    const email = `${randomUUID()}@example.com`;
    ok(await c.auth.signInWithOtp({ email, options: { data: { name: 'New' } } }));
    const { code } = await mailTo(email);
    const { session, user } = ok(await c.auth.verifyOtp({ email, token: code, type: 'email' }));
    assert.equal(user.user_metadata.name, 'New');
    assert.equal(ok(await c.auth.getUser()).user.id, session.user.id);
    const again = await c.auth.verifyOtp({ email, token: code, type: 'email' });
    assert.equal(again.error.code, 'otp_expired');
  });

  test(`${version}: the hash of a mail signs in on a server`, async () => {
    const { email } = await stranger(version);
    const c = client(version);
    ok(await c.auth.signInWithOtp({ email, options: { shouldCreateUser: false } }));
    const { hash } = await mailTo(email);
    assert.equal(ok(await c.auth.verifyOtp({ token_hash: hash, type: 'email' })).user.email, email);
    const nobody = await c.auth.signInWithOtp({ email: `${randomUUID()}@example.com`, options: { shouldCreateUser: false } });
    assert.equal(nobody.error.code, 'otp_disabled');
  });

  test(`${version}: a forgotten password, with PKCE`, async () => {
    const { email, user } = await stranger(version);
    const c = client(version, env.publishable, { auth: { flowType: 'pkce' } });
    ok(await c.auth.resetPasswordForEmail(email));
    const at = await follow((await mailTo(email)).link);
    const code = at.searchParams.get('code');
    assert.ok(code, at.href);
    assert.equal(ok(await c.auth.exchangeCodeForSession(code)).user.id, user.id);
    ok(await c.auth.updateUser({ password: 'a new password' }));
    ok(await client(version).auth.signInWithPassword({ email, password: 'a new password' }));
    assert.ok((await client(version).auth.signInWithPassword({ email, password: PASSWORD })).error);
  });

  test(`${version}: another address, confirmed by a link`, async () => {
    const c = await stranger(version);
    const email = `${randomUUID()}@example.com`;
    const { user } = ok(await c.auth.updateUser({ email }));
    assert.equal(user.new_email, email);
    const { link } = await mailTo(email);
    const tokens = new URLSearchParams((await follow(link)).hash.slice(1));
    ok(await c.auth.setSession({ access_token: tokens.get('access_token'), refresh_token: tokens.get('refresh_token') }));
    assert.equal(ok(await c.auth.getUser()).user.email, email);
  });

  // spec: auth:72
  test(`${version}: what a user changes of itself reaches its client`, { timeout: 30_000 }, async () => {
    const c = await stranger(version);
    const heard = new Promise((resolve) => {
      c.auth.onAuthStateChange((event, session) => event === 'USER_UPDATED' && resolve(session.user));
    });
    ok(await c.auth.updateUser({ data: { a: { b: 1 }, gone: 1 } }));
    assert.deepEqual((await heard).user_metadata.a, { b: 1 });
    const { user } = ok(await c.auth.updateUser({ data: { a: { c: 2 }, gone: null } }));
    assert.deepEqual(user.user_metadata.a, { c: 2 });
    assert.ok(!('gone' in user.user_metadata));
    assert.equal(ok(await c.auth.getUser()).user.user_metadata.name, 'Mallory');
  });

  test(`${version}: an administrator invites, and makes links`, async () => {
    const admin = client(version, env.secret);
    const email = `${randomUUID()}@example.com`;
    assert.ok(ok(await admin.auth.admin.inviteUserByEmail(email, { data: { team: 'blue' } })).user.invited_at);
    const c = client(version);
    const { user } = ok(await c.auth.verifyOtp({ token_hash: (await mailTo(email)).hash, type: 'invite' }));
    assert.equal(user.user_metadata.team, 'blue');
    const { properties } = ok(await admin.auth.admin.generateLink({ type: 'magiclink', email }));
    assert.equal(ok(await client(version).auth.verifyOtp({ email, token: properties.email_otp, type: 'magiclink' })).user.id, user.id);
  });
}
